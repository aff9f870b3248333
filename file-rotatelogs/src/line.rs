use std::cell::Cell;
use std::fmt;
use std::io;

/// Puts the pieces of a formatted record together, so that it can be written as one.
///
/// The memory is kept for the thread's next record.
pub(crate) fn with_line<T>(
    arguments: fmt::Arguments<'_>,
    write: impl FnOnce(&[u8]) -> io::Result<T>,
) -> io::Result<T> {
    if let Some(text) = arguments.as_str() {
        return write(text.as_bytes());
    }
    let mut line = LINE.try_with(Cell::take).unwrap_or_default();
    line.clear();
    // Not by `io::Write`, which panics when a value cannot be formatted.
    let result = fmt::write(&mut line, arguments)
        .map_err(|fmt::Error| io::Error::other("a value of the record cannot be formatted"))
        .and_then(|()| write(line.as_bytes()));
    if line.capacity() <= LONGEST_KEPT {
        // A thread that ends keeps nothing, and may still write what it drops last.
        let _ = LINE.try_with(|kept| kept.set(line));
    }
    result
}

thread_local! {
    /// Taken out while in use: a value may log something itself while it is formatted.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

/// A thread that once wrote a longer line gives the memory back.
const LONGEST_KEPT: usize = 64 * 1024;
