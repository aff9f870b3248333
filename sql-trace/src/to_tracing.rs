use std::time::Duration;

use tracing::Level;

use crate::attributes::{summary, system_name};
use crate::event::{Event, Op, Severity};
use crate::tracer::Tracer;

/// Emits each event as a [`tracing`] event with the target `sql_trace`.
///
/// Its fields are the stable attributes of OpenTelemetry's conventions for
/// databases, as [`Event::attributes`] has them, with `db.query.text`; and
/// those of this crate: `args`, `connection`, `outcome`, `error`,
/// `rows_returned`, `rows_affected`, `elapsed`, `acquire`, `first_row` and
/// `consumer` (in seconds), `request`, `caller`, `plan` and `note`.
///
/// A success is emitted at `DEBUG`, or at `WARN` if it made the caller wait
/// for a second or longer; what failed, is still running or was repeated too
/// often at `WARN`, as are query plans; what was cancelled or is untraced at
/// `INFO`. It is emitted inside the span that ran the statement. Spans of the
/// statements themselves are made by
/// [`TracedPoolOptions::spans`](crate::TracedPoolOptions::spans).
#[must_use]
pub fn to_tracing() -> ToTracing {
    ToTracing {
        level: Level::DEBUG,
        slow: Duration::from_secs(1),
    }
}

/// A tracer that emits `tracing` events; made by [`to_tracing`].
#[derive(Clone, Copy, Debug)]
pub struct ToTracing {
    level: Level,
    slow: Duration,
}

impl ToTracing {
    /// Sets the level of successes. `DEBUG` by default.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Sets from when on a success is slow, and is emitted at `WARN`. 1 s by
    /// default.
    ///
    /// To emit nothing else, use [`Tracer::slow`].
    #[must_use]
    pub fn slow(mut self, threshold: Duration) -> Self {
        self.slow = threshold;
        self
    }

    fn level_of(&self, event: &Event<'_>) -> Level {
        match event.severity(self.slow) {
            Severity::Usual => self.level,
            Severity::Notice => Level::INFO,
            Severity::Warning => Level::WARN,
        }
    }
}

/// Calls a macro of `tracing` with a level that is known at run time only: its
/// macros make a call site for each level.
macro_rules! at_level {
    ($level:expr, $call:ident!($($arguments:tt)*)) => {
        match $level {
            tracing::Level::ERROR => tracing::$call!(target: TARGET, tracing::Level::ERROR, $($arguments)*),
            tracing::Level::WARN => tracing::$call!(target: TARGET, tracing::Level::WARN, $($arguments)*),
            tracing::Level::INFO => tracing::$call!(target: TARGET, tracing::Level::INFO, $($arguments)*),
            tracing::Level::DEBUG => tracing::$call!(target: TARGET, tracing::Level::DEBUG, $($arguments)*),
            tracing::Level::TRACE => tracing::$call!(target: TARGET, tracing::Level::TRACE, $($arguments)*),
        }
    };
}

pub(crate) use at_level;

pub(crate) const TARGET: &str = "sql_trace";

impl Tracer for ToTracing {
    fn enabled(&self, _: Op) -> bool {
        // What it will be is not known yet: it may fail.
        tracing::enabled!(target: TARGET, Level::WARN) || at_level!(self.level, enabled!())
    }

    fn trace(&self, event: &Event<'_>) {
        let level = self.level_of(event);
        let failure = event.outcome.failure();
        let seconds = |duration: Option<Duration>| duration.map(|d| d.as_secs_f64());
        let code = failure.and_then(|failure| failure.code());
        let kind = failure.map(|failure| failure.kind());
        at_level!(
            level,
            event!(
                db.system.name = system_name(event.database.name),
                db.namespace = event.database.namespace,
                db.query.text = event.statement,
                db.query.summary = event.statement.map(|text| summary(text, event.database.name)),
                db.operation.name = event.statement.is_none().then_some(event.op.as_str()),
                db.response.status_code = code.as_deref(),
                error.type = code.as_deref().or(kind),
                server.address = event.database.address,
                server.port = event.database.port,
                args = event.args.map(tracing::field::display),
                connection = event.connection.map(|id| id.get()),
                outcome = event.outcome.as_str(),
                error = failure.map(tracing::field::display),
                rows_returned = event.first_row.map(|_| event.rows_returned),
                rows_affected = event.rows_affected,
                elapsed = seconds(event.elapsed),
                acquire = seconds(event.acquire),
                first_row = seconds(event.first_row),
                consumer = seconds((!event.consumer.is_zero()).then_some(event.consumer)),
                request = event.request,
                caller = event.caller.map(tracing::field::display),
                plan = event.plan,
                note = event.note,
                "{}",
                event.op
            )
        );
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
            to_tracing().level_of(&Event {
                acquire: Some(Duration::from_millis(acquire)),
                elapsed: Some(Duration::from_millis(elapsed)),
                consumer: Duration::from_secs(60),
                ..Event::plain(Op::Exec, &target, Outcome::Ok)
            })
        };
        assert_eq!(level(499, 500), Level::DEBUG);
        assert_eq!(level(0, 1_000), Level::WARN);
        assert_eq!(level(500, 500), Level::WARN);
    }
}
