//! A rotating [`io::Write`](std::io::Write) whose file name is a strftime pattern, safe for
//! several processes.
mod builder;
mod clock;
#[cfg(any(feature = "gzip", feature = "zstd"))]
mod compress;
mod error;
mod event;
mod housekeeper;
mod line;
mod link;
mod lock;
mod log_file;
#[cfg(feature = "tracing-subscriber")]
mod make_writer;
mod non_blocking;
mod open_file;
mod pattern;
mod period;
mod retention;
mod rotatelogs;
mod rotor;
mod settings;
mod stamp;
mod successor;
mod window;
mod zone;

pub use builder::Builder;
pub use clock::Clock;
#[cfg(any(feature = "gzip", feature = "zstd"))]
pub use compress::Compression;
pub use error::{Error, PatternError};
pub use event::{Attempt, Cause, Event};
pub use log_file::LogFile;
pub use non_blocking::{NonBlocking, NonBlockingBuilder, Overflow};
pub use pattern::Pattern;
pub use rotatelogs::{LongRecord, RotateLogs};
pub use settings::{ErrorPolicy, SyncPolicy};
