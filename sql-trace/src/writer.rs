use std::cell::Cell;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::event::Event;
use crate::line::Style;
use crate::tracer::Tracer;

/// Writes each event to `w` as one line, in one `write`.
///
/// ```text
/// Open (54.116µs)
/// Exec: INSERT INTO t VALUES (?, ?); args = [int, text(3)] (44.535µs)
/// Query: SELECT nope; args = []; err = "SQLite 1" (9.1µs)
/// ```
///
/// The README has the whole grammar. A line that cannot be written is lost and
/// counted, see [`Writer::lost`]; the statement is not disturbed. `w` is not
/// flushed.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sql_trace::{Tracer, writer};
///
/// let log = std::io::stderr(); // or a file, or a rotating one
/// let tracer = writer(log)
///     .timestamps()
///     .mark_slow(Duration::from_millis(200));
/// # let _ = tracer;
/// ```
pub fn writer<W: Write + Send + 'static>(w: W) -> Writer<W> {
    Writer {
        out: Mutex::new(w),
        style: Style::default(),
        lost: LostLines::default(),
    }
}

/// A tracer that writes lines; made by [`writer`].
pub struct Writer<W> {
    out: Mutex<W>,
    style: Style,
    lost: LostLines,
}

impl<W: Write + Send + 'static> Writer<W> {
    /// Begins each line with the time of writing, as
    /// `2024-02-29T12:34:56.000789Z`. Off by default.
    #[must_use]
    pub fn timestamps(mut self) -> Self {
        self.style.timestamps = true;
        self
    }

    /// Names the connection after the operation: `Exec #3: …`. Off by default.
    #[must_use]
    pub fn connections(mut self) -> Self {
        self.style.connections = true;
        self
    }

    /// Adds `; slow` to the line of what made the caller wait for `threshold`
    /// or longer. Off by default.
    ///
    /// To see nothing else, use [`Tracer::slow`].
    #[must_use]
    pub fn mark_slow(mut self, threshold: Duration) -> Self {
        self.style.slow = Some(threshold);
        self
    }

    /// Adds `; acquire = 1.2s` where the wait for a connection took `threshold`
    /// or longer. 100 ms by default.
    #[must_use]
    pub fn mark_waits(mut self, threshold: Duration) -> Self {
        self.style.waits = threshold;
        self
    }

    /// Cuts statements after `bytes` bytes. 16 KiB by default.
    #[must_use]
    pub fn max_statement(mut self, bytes: usize) -> Self {
        self.style.max_statement = bytes;
        self
    }

    /// The count of lines that could not be written.
    pub fn lost(&self) -> LostLines {
        self.lost.clone()
    }
}

impl<W: Write + Send + 'static> Tracer for Writer<W> {
    fn trace(&self, event: &Event<'_>) {
        with_line(|line| {
            // Writing to a String does not fail.
            let _ = self.style.write(line, event);
            line.push('\n');
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            let result = out.write_all(line.as_bytes());
            drop(out);
            self.lost.note(result);
        });
    }
}

impl<W> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("style", &self.style)
            .field("lost", &self.lost.count())
            .finish_non_exhaustive()
    }
}

/// Counts the lines that a [`Writer`] could not write.
///
/// The first failure, and the first after a success, is told on standard
/// error as well, once.
#[derive(Clone, Debug, Default)]
pub struct LostLines(Arc<Lost>);

#[derive(Debug, Default)]
struct Lost {
    count: AtomicU64,
    /// The count at the time of the last success: equal to `count` while all
    /// goes well.
    told: AtomicU64,
}

impl LostLines {
    /// How many lines are lost so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    pub(crate) fn note(&self, result: io::Result<()>) {
        let Lost { count, told } = &*self.0;
        match result {
            Ok(()) => {
                let lost = count.load(Ordering::Relaxed);
                if told.load(Ordering::Relaxed) != lost {
                    told.store(lost, Ordering::Relaxed);
                }
            }
            Err(e) => {
                let before = count.fetch_add(1, Ordering::Relaxed);
                if before == told.load(Ordering::Relaxed) {
                    // Nothing is left to be done if this fails too.
                    let _ = writeln!(io::stderr(), "sql-trace: cannot write a line: {e}");
                }
            }
        }
    }
}

/// Hands out this thread's line buffer, empty.
pub(crate) fn with_line(write: impl FnOnce(&mut String)) {
    thread_local!(static LINE: Cell<String> = const { Cell::new(String::new()) });
    /// One long line must not be held on to for ever.
    const KEPT: usize = 64 * 1024;

    // Taken, not borrowed: `write` may run a traced statement of its own.
    let mut line = LINE.try_with(Cell::take).unwrap_or_default();
    line.clear();
    write(&mut line);
    if line.capacity() <= KEPT {
        let _ = LINE.try_with(|cell| cell.set(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_of_a_long_line_is_not_kept() {
        with_line(|line| line.push_str(&"x".repeat(1 << 20)));
        with_line(|line| {
            assert!(line.is_empty() && line.capacity() <= 1 << 16);
            line.push_str("short");
        });
        with_line(|line| assert!(line.is_empty() && line.capacity() > 0, "that one is"));
    }
}
