use std::time::Duration;

use crate::clock::{Clock, DAY};
#[cfg(any(feature = "gzip", feature = "zstd"))]
use crate::compress::Compression;
use crate::event::Listener;
use crate::link::Link;
use crate::lock::RotationLock;
use crate::open_file::Modes;
use crate::pattern::Pattern;
use crate::retention::Retention;

/// What a [`Builder`](crate::Builder) was told, found to make sense.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) pattern: Pattern,
    pub(crate) clock: Clock,
    pub(crate) cadence: Cadence,
    pub(crate) limit: Option<u64>,
    pub(crate) retention: Retention,
    #[cfg(any(feature = "gzip", feature = "zstd"))]
    pub(crate) compression: Option<Compression>,
    pub(crate) link: Option<Link>,
    pub(crate) lock: RotationLock,
    pub(crate) modes: Modes,
    pub(crate) force_new_file: bool,
    /// How many generations of a name there are, before the first is emptied and written
    /// again.
    pub(crate) ring: Option<u32>,
    /// Whether the first file that is opened is emptied.
    pub(crate) start_empty: bool,
    pub(crate) lazy: bool,
    pub(crate) sync: SyncPolicy,
    pub(crate) on_error: ErrorPolicy,
    pub(crate) listener: Listener,
}

impl Settings {
    /// Tells whether there is anything to do with old files.
    pub(crate) fn has_chores(&self) -> bool {
        #[cfg(any(feature = "gzip", feature = "zstd"))]
        let compresses = self.compression.is_some();
        #[cfg(not(any(feature = "gzip", feature = "zstd")))]
        let compresses = false;
        compresses || !self.retention.is_unlimited()
    }
}

/// When time makes a new file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cadence {
    Never,
    /// At each multiple of so many seconds.
    Every(i64),
    /// At the first midnight after which the name is another.
    ByName,
}

impl Cadence {
    /// Returns how often to look, in seconds.
    pub(crate) fn length(self) -> Option<i64> {
        match self {
            Self::Never => None,
            Self::Every(length) => Some(length),
            Self::ByName => Some(DAY),
        }
    }
}

/// When records are made to outlive the machine, not only the process.
///
/// What is written is safe from a crash of the program at once; a power failure may take
/// what the system has not brought to the disk yet, some 30 seconds' worth.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Leaves it to the system.
    #[default]
    Never,
    /// Brings a file to the disk when the next one is begun.
    OnRotate,
    /// Brings the file to the disk this often while it is written, and when the next one
    /// is begun: every half second, or less often.
    Every(Duration),
}

/// What becomes of a record that cannot be written.
///
/// Either way it is counted by [`RotateLogs::lost`](crate::RotateLogs::lost), an event
/// tells when it begins and when it ends, and the next record is tried again.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorPolicy {
    /// The caller gets the error.
    #[default]
    Return,
    /// The record is dropped and the caller told that all is well.
    Drop,
}
