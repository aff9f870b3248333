use nix::time::{ClockId, clock_getres, clock_gettime};

/// Measures the time since a moment by the kernel's coarse clock.
///
/// That one moves every few milliseconds, and takes an eighth of the time of the
/// exact one to read, which counts when every request reads it.
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

    /// Returns the nanoseconds since the start: at least as many as have passed,
    /// at most two ticks more, and never 0.
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
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn coarse_clock_is_never_behind_and_hardly_ahead() {
        let tick = Duration::from_nanos(clock_getres(CLOCK).unwrap().tv_nsec().unsigned_abs());
        for _ in 0..20 {
            let before = Instant::now();
            let clock = CoarseClock::start();
            let started = Instant::now();
            while started.elapsed() < 3 * tick {
                let least = started.elapsed();
                let elapsed = Duration::from_nanos(clock.elapsed());
                let most = before.elapsed() + 2 * tick;
                assert!(
                    least <= elapsed && elapsed <= most,
                    "{least:?} {elapsed:?} {most:?}"
                );
            }
        }
    }
}
