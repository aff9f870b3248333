use nix::time::{ClockId, clock_getres, clock_gettime};

/// Measures the time since a moment by the kernel's coarse clock.
///
/// That one stands still between the ticks of the kernel, a few milliseconds, and
/// longer where a virtual machine gets no processor. It takes an eighth of the time
/// of the exact one to read, which counts when every request reads it.
pub(super) struct CoarseClock {
    /// One tick before the start.
    zero: u64,
}

impl CoarseClock {
    pub(super) fn start() -> Self {
        let tick = clock_getres(CLOCK).map_or(0, |tick| tick.tv_nsec());
        Self {
            zero: now().saturating_sub(tick.unsigned_abs()),
        }
    }

    /// Returns the nanoseconds since the start, give or take the ticks: between two
    /// calls as many as the clock has moved, and never 0.
    pub(super) fn elapsed(&self) -> u64 {
        now().saturating_sub(self.zero).max(1)
    }
}

fn now() -> u64 {
    // The clock exists on every kernel this runs on.
    clock_gettime(CLOCK).map_or(0, |now| {
        now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
    })
}

const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC_COARSE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_clock_is_behind_the_exact_one_and_follows_it() {
        let clock = CoarseClock::start();
        assert!(clock.elapsed() >= 1);
        let mut moves = 0;
        let mut last = clock.elapsed();
        while moves < 5 {
            let elapsed = clock.elapsed();
            assert!(elapsed + clock.zero <= exact(), "it is ahead");
            assert!(elapsed >= last, "{last} {elapsed}");
            moves += usize::from(elapsed > last);
            last = elapsed;
        }
        // However late the ticks are, it reaches every moment in the end.
        let moment = exact();
        while now() < moment {}
        assert!(clock.elapsed() + clock.zero >= moment);
    }

    #[test]
    fn first_tick_counts_as_time_that_has_passed() {
        let tick = clock_getres(CLOCK).unwrap().tv_nsec().unsigned_abs();
        let before = now();
        let clock = CoarseClock::start();
        assert!(before <= clock.zero + tick && clock.zero + tick <= now());
    }

    fn exact() -> u64 {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
        now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
    }
}
