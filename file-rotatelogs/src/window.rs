use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::clock::{self, Clock};

/// The time for which nothing needs to be decided.
///
/// A record costs one reading of a coarse clock and one comparison; a clock set back is
/// outside as much as one that has gone on.
#[derive(Debug, Default)]
pub(crate) struct Window {
    wall: Span,
    /// By the steady clock. Only watched when the clock is the caller's own, which may
    /// stand still.
    steady: Span,
}

#[derive(Debug, Default)]
struct Span {
    from: AtomicI64,
    length: AtomicU64,
}

impl Window {
    /// Tells whether it is over.
    #[inline]
    pub(crate) fn is_over(&self, clock: &Clock) -> bool {
        !self.wall.contains(clock.nanos())
            || !clock.is_system() && !self.steady.contains(clock::steady_nanos())
    }

    /// Opens it for some nanoseconds by either clock, from now.
    pub(crate) fn open(&self, wall: i64, until_end: i64, steady: i64, look: i64, clock: &Clock) {
        let wall_length = if clock.is_system() {
            until_end.min(look)
        } else {
            until_end
        };
        self.wall.set(wall, wall_length);
        self.steady.set(steady, look);
    }
}

impl Span {
    #[inline]
    fn contains(&self, now: i64) -> bool {
        let passed = now.wrapping_sub(self.from.load(Ordering::Relaxed));
        // Before the beginning the difference is negative, which is a large number here.
        passed.cast_unsigned() < self.length.load(Ordering::Relaxed)
    }

    fn set(&self, from: i64, length: i64) {
        self.from.store(from, Ordering::Relaxed);
        self.length
            .store(u64::try_from(length).unwrap_or(0), Ordering::Relaxed);
    }
}
