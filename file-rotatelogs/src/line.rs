use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};

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
    LINE.with(|line| match line.try_borrow_mut() {
        Ok(mut line) => {
            line.clear();
            line.write_fmt(arguments)?;
            let result = write(&line);
            line.shrink_to(LONGEST_KEPT);
            result
        }
        // A value that logs something itself while it is formatted.
        Err(_) => write(arguments.to_string().as_bytes()),
    })
}

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A thread that once wrote a longer line gives the memory back.
const LONGEST_KEPT: usize = 64 * 1024;
