//! Which exchanges are logged when not all are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::exchange::{Exchange, Outcome};

/// Logs some of the exchanges, but always those that failed or were slow.
///
/// A format prints with `%{sample_weight}n` how many exchanges a line stands for:
/// 1 for one that is always logged, the sampling's number for the others. Sums
/// over the weights are then estimates of the truth.
///
/// An exchange failed when its status is 500 or more (see
/// [`errors_from`](Self::errors_from)), or when its response did not end as it
/// should: the client went away, the body failed. It was slow when it took a
/// second or more (see [`slow_from`](Self::slow_from)).
///
/// # Examples
///
/// ```
/// use apache_logformat::{AccessLogLayer, LogFormat, Output, Sampling};
/// use std::time::Duration;
///
/// let format: LogFormat = r#"%h %t "%r" %>s %{sample_weight}n"#.parse()?;
/// let layer = AccessLogLayer::from(
///     Output::new(format, |_: &[u8]| Ok(())).sampling(
///         Sampling::one_in(100)
///             .errors_from(400)
///             .slow_from(Duration::from_millis(250)),
///     ),
/// );
/// # Ok::<(), apache_logformat::ParseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sampling {
    one_in: u32,
    errors_from: u16,
    slow_from: Duration,
    seen: Arc<AtomicU64>,
}

impl Sampling {
    /// Logs one in `number` exchanges, chosen as if by chance; 0 and 1 log all.
    #[must_use]
    pub fn one_in(number: u32) -> Self {
        Self {
            one_in: number.max(1),
            errors_from: 500,
            slow_from: Duration::from_secs(1),
            seen: Arc::default(),
        }
    }

    /// Always logs exchanges whose status is `status` or more; 500 by default.
    #[must_use]
    pub fn errors_from(mut self, status: u16) -> Self {
        self.errors_from = status;
        self
    }

    /// Always logs exchanges that took `duration` or longer; a second by default.
    #[must_use]
    pub fn slow_from(mut self, duration: Duration) -> Self {
        self.slow_from = duration;
        self
    }

    /// Returns how many exchanges a line for this one stands for, `None` when it
    /// gets no line.
    pub(crate) fn weight(&self, exchange: &Exchange<'_>) -> Option<u32> {
        let failed = exchange.status >= self.errors_from || exchange.outcome != Outcome::Complete;
        if failed || exchange.duration() >= self.slow_from {
            return Some(1);
        }
        // Counting alone would beat in time with regular traffic; mixed, the
        // count is as good as chance and needs neither a lock nor a generator.
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        let chance = mix(seen.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let chosen = chance.is_multiple_of(self.one_in.into());
        chosen.then_some(self.one_in)
    }
}

/// The finalizer of SplitMix64.
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
