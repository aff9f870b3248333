//! Lines that could not be written.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// A count of the lines that a layer could not write.
///
/// It is a handle: the layer and every clone show the same count.
#[derive(Debug, Clone, Default)]
pub struct Failures(Arc<AtomicU64>);

impl Failures {
    /// Returns how many lines were lost so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is told of a failure: the error and the line.
type Callback = dyn Fn(&io::Error, &[u8]) + Send + Sync;

/// Counts failures and tells them.
#[derive(Clone, Default)]
pub(crate) struct Reporter {
    pub(crate) failures: Failures,
    pub(crate) callback: Option<Arc<Callback>>,
}

impl Reporter {
    /// Reports that `line` could not be written; `failing` is whether the line
    /// before could not either.
    pub(crate) fn report(&self, error: &io::Error, line: &[u8], failing: &AtomicBool) {
        let count = self.failures.0.fetch_add(1, Ordering::Relaxed) + 1;
        let first = !failing.swap(true, Ordering::Relaxed);
        if let Some(callback) = &self.callback {
            callback(error, line);
        } else if first {
            // Somebody has to notice. Nobody can be told that this fails, too.
            let _ = writeln!(
                io::stderr().lock(),
                "apache-logformat: cannot write to the access log: {error} (line {count} lost; \
                 further failures are only counted until a line is written again)",
            );
        }
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failures.fmt(f)
    }
}
