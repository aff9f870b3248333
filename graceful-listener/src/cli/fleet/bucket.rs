use std::time::Duration;

use crate::cli::moment::Moment;

/// Paces starts: so many a second, and so many at once after a rest.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    /// Tokens a second.
    rate: f64,
    capacity: f64,
    tokens: f64,
    /// When the tokens were counted.
    counted: Moment,
}

impl Bucket {
    /// Makes a full bucket. At least one token fits, and at least one comes every
    /// thousand seconds.
    pub(crate) fn new(rate: f64, burst: u32, now: Moment) -> Self {
        let capacity = f64::from(burst.max(1));
        Self {
            rate: rate.max(LEAST_RATE),
            capacity,
            tokens: capacity,
            counted: now,
        }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Moment) -> bool {
        self.fill(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Returns when there will be a token: a moment at which [`Bucket::take`] takes one.
    pub(crate) fn next(&mut self, now: Moment) -> Moment {
        self.fill(now);
        if self.tokens >= 1.0 {
            return now;
        }
        let seconds = (1.0 - self.tokens) / self.rate;
        // Rounded up, or it would be asked again a moment too early.
        now + Duration::from_secs_f64(seconds) + Duration::from_nanos(1000)
    }

    fn fill(&mut self, now: Moment) {
        let gained = (now - self.counted).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(self.capacity);
        self.counted = self.counted.max(now);
    }
}

const LEAST_RATE: f64 = 0.001;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const START: Moment = Moment::from_millis(1_000_000);

    fn taken(bucket: &mut Bucket, now: Moment) -> usize {
        (0..10_000).take_while(|_| bucket.take(now)).count()
    }

    #[test]
    fn full_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let mut bucket = Bucket::new(50.0, 7, START);
        assert_eq!(taken(&mut bucket, START), 7);
        assert_eq!(taken(&mut bucket, START + Duration::from_millis(101)), 5);
        assert_eq!(taken(&mut bucket, START + Duration::from_secs(1000)), 7);
    }

    #[test]
    fn next_token_is_there_when_it_was_said_to_be_and_not_before() {
        let mut bucket = Bucket::new(3.0, 1, START);
        assert_eq!(bucket.next(START), START);
        assert!(bucket.take(START));
        let next = bucket.next(START);
        let wait = next - START;
        assert!(wait > Duration::from_millis(333) && wait < Duration::from_millis(334));
        assert!(!bucket.clone().take(START + Duration::from_millis(333)));
        assert!(bucket.take(next));
    }

    #[test]
    fn rate_and_burst_that_would_stop_everything_are_raised() {
        let mut bucket = Bucket::new(0.0, 0, START);
        assert!(bucket.take(START));
        let next = bucket.next(START);
        assert!(next - START < Duration::from_secs(1001));
        assert!(bucket.take(next));
    }

    #[test]
    fn time_that_stands_still_or_runs_back_gives_nothing() {
        let mut bucket = Bucket::new(10.0, 1, START);
        assert!(bucket.take(START));
        assert!(!bucket.take(Moment::from_millis(0)));
        assert!(!bucket.take(START));
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_gives_more_than_burst_and_rate(
            rate in 0.1f64..5000.0,
            burst in 1u32..50,
            pauses in vec(0u64..300, 1..60),
        ) {
            let mut bucket = Bucket::new(rate, burst, START);
            let mut now = START;
            let mut all = 0;
            for pause in pauses {
                now = now + Duration::from_millis(pause);
                all += taken(&mut bucket, now);
                let most = f64::from(burst) + (now - START).as_secs_f64() * rate;
                prop_assert!(all as f64 <= most + 1e-6, "{all} of at most {most}");
                let next = bucket.next(now);
                prop_assert!(bucket.clone().take(next));
            }
        }
    }
}
