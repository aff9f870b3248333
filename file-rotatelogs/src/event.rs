use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Something that happened to the files behind a [`RotateLogs`](crate::RotateLogs).
///
/// Told to the function given to [`Builder::on_event`](crate::Builder::on_event).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A file was opened and there was none open before.
    #[non_exhaustive]
    Opened {
        /// The file.
        path: PathBuf,
    },
    /// Writing went on to another file.
    #[non_exhaustive]
    Rotated {
        /// The file written until now.
        from: PathBuf,
        /// The file written from now on.
        to: PathBuf,
        /// What asked for it.
        cause: Cause,
    },
    /// A file was removed by one of the limits on old files.
    #[non_exhaustive]
    Removed {
        /// The file that is no more.
        path: PathBuf,
    },
    /// A closed file was compressed.
    #[non_exhaustive]
    Compressed {
        /// The file that is no more.
        from: PathBuf,
        /// The file that has its contents.
        to: PathBuf,
    },
    /// Something could not be done. Told once until it can be done again.
    #[non_exhaustive]
    Failed {
        /// What was attempted.
        attempt: Attempt,
        /// With which file.
        path: PathBuf,
        /// Why it could not be done.
        error: io::Error,
    },
    /// What had [`Failed`](Self::Failed) is done again.
    #[non_exhaustive]
    Recovered {
        /// What was attempted.
        attempt: Attempt,
        /// With which file.
        path: PathBuf,
        /// How many records could not be written meanwhile.
        lost: u64,
    },
}

/// What made writing go on to another file.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// A new period began, or the clock was set back by more than a day.
    Time,
    /// The next record would have made the file larger than it may be.
    Size,
    /// [`RotateLogs::rotate`](crate::RotateLogs::rotate) was called.
    Request,
    /// The file had been moved, deleted or replaced.
    Replaced,
    /// Another process had gone on to that file.
    Other,
}

/// What can fail while the program that writes the log goes on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Attempt {
    /// To write a record.
    Write,
    /// To open the next file. The old one is written to as long as it is there.
    Rotate,
    /// To point the link at the file.
    Link,
    /// To look through a directory for old files to remove or compress.
    List,
    /// To remove a file.
    Remove,
    /// To compress a file.
    Compress,
    /// To make sure that a file is on the disk.
    Sync,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { path } => write!(f, "opened {path:?}"),
            Self::Rotated { from, to, cause } => write!(f, "rotated {from:?} to {to:?} ({cause})"),
            Self::Removed { path } => write!(f, "removed {path:?}"),
            Self::Compressed { from, to } => write!(f, "compressed {from:?} to {to:?}"),
            Self::Failed {
                attempt,
                path,
                error,
            } => write!(f, "cannot {attempt} {path:?}: {error}"),
            Self::Recovered {
                attempt,
                path,
                lost,
            } => write!(f, "can {attempt} {path:?} again, {lost} records were lost"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "time",
            Self::Size => "size",
            Self::Request => "requested",
            Self::Replaced => "moved or deleted",
            Self::Other => "by another process",
        })
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write to",
            Self::Rotate => "rotate to",
            Self::Link => "link",
            Self::List => "list",
            Self::Remove => "remove",
            Self::Compress => "compress",
            Self::Sync => "sync",
        })
    }
}

/// Whom events are told to.
#[derive(Clone, Default)]
pub(crate) struct Listener(Option<Arc<Function>>);

type Function = dyn Fn(&Event) + Send + Sync;

impl Listener {
    pub(crate) fn new(function: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(function)))
    }

    /// Tells an event. No lock may be held: the function may write to the log.
    pub(crate) fn tell(&self, event: &Event) {
        if let Some(function) = &self.0 {
            // Whoever writes a log must not pay for a panic in what watches it.
            let call = std::panic::AssertUnwindSafe(|| function(event));
            drop(std::panic::catch_unwind(call));
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some(..)" } else { "None" })
    }
}
