use std::time::Duration;

use log::Level;

use crate::event::{Event, Op, Severity};
use crate::tracer::Tracer;

/// Sends each event to the [`log`] facade as one record, with the target
/// `sql_trace` and the [line](crate::writer) as its message.
///
/// A success is logged at `Debug`, or at `Warn` if it made the caller wait for
/// a second or longer; what failed, is still running or was repeated too often
/// at `Warn`, as are query plans; what was cancelled or is untraced at `Info`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sql_trace::to_log;
///
/// let tracer = to_log().level(log::Level::Trace).slow(Duration::from_millis(200));
/// # let _ = tracer;
/// ```
#[must_use]
pub fn to_log() -> ToLog {
    ToLog {
        level: Level::Debug,
        slow: Duration::from_secs(1),
    }
}

/// A tracer that logs; made by [`to_log`].
#[derive(Clone, Copy, Debug)]
pub struct ToLog {
    level: Level,
    slow: Duration,
}

impl ToLog {
    /// Sets the level of successes. `Debug` by default.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Sets from when on a success is slow, and is logged at `Warn`. 1 s by
    /// default.
    ///
    /// To log nothing else, use [`Tracer::slow`].
    #[must_use]
    pub fn slow(mut self, threshold: Duration) -> Self {
        self.slow = threshold;
        self
    }

    fn level_of(&self, event: &Event<'_>) -> Level {
        match event.severity(self.slow) {
            Severity::Usual => self.level,
            Severity::Notice => Level::Info,
            Severity::Warning => Level::Warn,
        }
    }
}

const TARGET: &str = "sql_trace";

impl Tracer for ToLog {
    fn enabled(&self, _: Op) -> bool {
        // What it will be is not known yet: it may fail.
        log::log_enabled!(target: TARGET, Level::Warn)
            || log::log_enabled!(target: TARGET, self.level)
    }

    fn trace(&self, event: &Event<'_>) {
        log::log!(target: TARGET, self.level_of(event), "{event}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Outcome, Target};

    #[test]
    fn success_is_slow_from_a_second_of_waiting_on() {
        let target = Target::default();
        let level = |acquire: u64, elapsed: u64| {
            to_log().level_of(&Event {
                acquire: Some(Duration::from_millis(acquire)),
                elapsed: Some(Duration::from_millis(elapsed)),
                consumer: Duration::from_secs(60),
                ..Event::plain(Op::Exec, &target, Outcome::Ok)
            })
        };
        assert_eq!(level(499, 500), Level::Debug);
        assert_eq!(level(0, 1_000), Level::Warn);
        assert_eq!(level(500, 500), Level::Warn);
    }
}
