use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Lets a rotation go before the housekeeping in the same directory.
///
/// The kernel locks a directory while it is listed or changed. A rotation makes several
/// calls that need the lock; beside a housekeeper that looks through ten thousand files it
/// would wait for it at each of them. So the housekeeper pauses between two calls of its
/// own for as long as a rotation lasts, which then waits for one call at most.
#[derive(Debug, Default)]
pub(crate) struct Precedence {
    claimed: AtomicBool,
}

/// Holds the housekeeping up until dropped.
#[derive(Debug)]
pub(crate) struct Claim<'a>(&'a Precedence);

impl Precedence {
    /// Begins a rotation. There is one at a time.
    pub(crate) fn claim(&self) -> Claim<'_> {
        self.claimed.store(true, Ordering::Relaxed);
        Claim(self)
    }

    /// Waits until no rotation is on.
    pub(crate) fn give_way(&self) {
        // Not woken by the writer, whom that would cost a system call.
        while self.claimed.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.claimed.store(false, Ordering::Relaxed);
    }
}

/// About as long as a rotation takes.
const PAUSE: Duration = Duration::from_micros(200);
