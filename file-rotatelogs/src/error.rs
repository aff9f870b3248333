use std::error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Tells why a [`RotateLogs`](crate::RotateLogs) or a [`NonBlocking`](crate::NonBlocking)
/// could not be built.
///
/// The message names the setting, the value it was given and what is wrong with it.
#[derive(Debug)]
pub struct Error {
    setting: &'static str,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Refused(String),
    Pattern(PatternError),
    Io {
        attempt: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Error {
    /// Returns the name of the setting that was refused, as its method is called:
    /// `"pattern"`, `"link"`, `"rotate_every"` and so on.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        self.setting
    }

    /// Returns the kind of the system's error, when there was one behind this.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match &self.problem {
            Problem::Io { source, .. } => Some(source.kind()),
            Problem::Refused(_) | Problem::Pattern(_) => None,
        }
    }

    pub(crate) fn refused(setting: &'static str, problem: impl Into<String>) -> Self {
        Self {
            setting,
            problem: Problem::Refused(problem.into()),
        }
    }

    pub(crate) fn io(
        setting: &'static str,
        attempt: &'static str,
        path: &Path,
        source: io::Error,
    ) -> Self {
        Self {
            setting,
            problem: Problem::Io {
                attempt,
                path: path.to_path_buf(),
                source,
            },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.setting)?;
        match &self.problem {
            Problem::Refused(problem) => f.write_str(problem),
            Problem::Pattern(error) => error.fmt(f),
            Problem::Io { attempt, path, .. } => write!(f, "cannot {attempt} {path:?}"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.problem {
            Problem::Io { source, .. } => Some(source),
            Problem::Refused(_) | Problem::Pattern(_) => None,
        }
    }
}

impl From<PatternError> for Error {
    fn from(error: PatternError) -> Self {
        Self {
            setting: "pattern",
            problem: Problem::Pattern(error),
        }
    }
}

/// Tells what in a [`Pattern`](crate::Pattern) is not understood, and at which byte.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PatternError {
    offset: usize,
    message: String,
}

impl PatternError {
    pub(crate) fn new(offset: usize, message: impl Into<String>) -> Self {
        Self {
            offset,
            message: message.into(),
        }
    }

    /// Returns the offset of the first byte that is not understood, counted from the
    /// start of the pattern's text.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.message, self.offset)
    }
}

impl error::Error for PatternError {}
