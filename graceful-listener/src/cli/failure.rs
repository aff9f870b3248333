use std::fmt;
use std::io;

use nix::errno::Errno;

/// Why the super-daemon cannot start or go on: what was attempted, with which
/// value, and the reason.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// A mistake that no system call reported.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: NO_ERRNO,
        }
    }

    /// A system call that failed.
    pub(crate) fn io(attempted: impl fmt::Display, error: &io::Error) -> Self {
        Self {
            message: format!("{attempted}: {}", reason(error)),
            code: error
                .raw_os_error()
                .and_then(|errno| u8::try_from(errno).ok())
                .unwrap_or(NO_ERRNO),
        }
    }

    /// An error that says what was attempted, and has the reason for its source.
    pub(crate) fn of(error: &impl std::error::Error) -> Self {
        match error.source().and_then(|source| source.downcast_ref()) {
            Some(source) => Self::io(error, source),
            None => Self::new(error.to_string()),
        }
    }

    /// Returns the exit code that Perl's `die` would give: the error's number.
    pub(crate) const fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Returns the system's own words, without the number that Rust appends.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => Errno::from_raw(errno).desc().into(),
        None => error.to_string(),
    }
}

const NO_ERRNO: u8 = 255;
