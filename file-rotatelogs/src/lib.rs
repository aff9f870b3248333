//! A rotating [`io::Write`](std::io::Write) whose file name is a strftime pattern, safe for
//! several processes.
//!
//! ```
//! use file_rotatelogs::RotateLogs;
//! use std::io::Write;
//! use std::time::Duration;
//!
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//! let logs = RotateLogs::builder(directory.join("access.%Y%m%d.log"))
//!     .link(directory.join("access.log"))
//!     .rotate_at_bytes(512 * 1024 * 1024)
//!     .max_age(Duration::from_secs(14 * 24 * 3600))
//!     .build()?;
//!
//! writeln!(&logs, "{} {}", "GET", "/")?;
//! # assert_eq!(std::fs::read(directory.join("access.log"))?, b"GET /\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # One record, one write
//!
//! Each call of `write`, `write_all` or `writeln!` is one record. It is appended by one
//! `write(2)` to a file opened with `O_APPEND`, so records of several threads and several
//! processes never mix, and none is torn apart by a rotation. Nothing is buffered, nothing
//! allocated, no file looked at: before a record, a coarse clock is compared with a number.
//!
//! [`RotateLogs`] is cheap to clone, and a shared reference writes too. [`NonBlocking`]
//! puts a bounded queue and a thread in front of it, for callers that must never wait for
//! a disk, and keeps an idle log in order. With the feature `tracing-subscriber` both are
//! a `MakeWriter`.
//!
//! # When a file ends
//!
//! * **Time.** A file ends when the [`Clock`] reaches a multiple of
//!   [`rotate_every`](Builder::rotate_every), counted from midnight; without that, when the
//!   name changes: `%Y%m%d` makes it every day, `%H` every hour. The clock decides in which
//!   zone midnight is, and `%z` and `%Z` are what that zone has at that time.
//! * **Size.** [`rotate_at_bytes`](Builder::rotate_at_bytes) ends a file before it grows
//!   larger. The next has the same name and a number: `.1`, `.2`, … `.10`.
//! * **[`rotate`](RotateLogs::rotate)** ends it now.
//!
//! ## Daylight saving time
//!
//! When clocks are set back and an hour is shown twice, its second run is a period of its
//! own: it gets the next number, as the name is the same, or a name of its own if the
//! pattern has `%z`. A period that had not ended by then, like the day, just lasts longer.
//! When clocks are set forward, the skipped hour has no file, and a period that would have
//! begun in it begins at the jump, under its own name. A day is always from midnight to
//! midnight, of 23, 24 or 25 hours.
//!
//! ## Clocks that jump
//!
//! A clock that is set forward skips the periods between. One that is set back by less than
//! a day changes nothing: records go to the open file until its period ends. When it is set
//! back further, the time before was wrong: a new file of the present period is begun,
//! never an older one appended to.
//!
//! # What is kept
//!
//! [`max_age`](Builder::max_age), [`max_files`](Builder::max_files) and
//! [`max_total_bytes`](Builder::max_total_bytes) hold together, at start, after each
//! rotation, and every hour. Only regular files are removed whose path this pattern makes of
//! some time, byte for byte, but for a number and `.gz` or `.zst`: `app.%Y%m%d.log` has
//! nothing to do with `app.error.log` nor with `app.20260231.log`. Never removed are a file
//! that any process has open, the newest, and the link's target. So give each log a
//! pattern of its own: the files of `app.%Y.%m` look like numbered files of `app.%Y`.
//!
//! [`compress`](Builder::compress) turns closed files into `.gz` (feature `gzip`) or `.zst`
//! (feature `zstd`). Both are done by a thread that lives as long as there is something to
//! do.
//!
//! # Several processes
//!
//! Any number of processes may write to one log, as the two generations of a hot deploy
//! do, each with the same settings. They find each other by the files alone:
//!
//! * Who has a file open holds a shared `flock(2)` on it, and who wants to compress or
//!   remove one gets the exclusive lock first. So no file is taken from under a process,
//!   however slow or stopped, and the lock of a dead one is gone with it.
//! * Rotation happens under the lock of a hidden file beside the logs (`.NAME.lock`), in
//!   which a note stands of the file that was begun last. The others read it twice a
//!   second and follow.
//! * Every step leaves the files such that any process can go on from there. Killed at any
//!   instant, a process leaves nothing that stops the next, no half of a compressed file
//!   that is taken for whole, and no record twice.
//!
//! One thing only the kernel can break: killed (`SIGKILL`) amid a `write(2)` that goes on
//! to another page of the file, a process may leave a part of that last record, which its
//! `write` never returned for. The next record stands whole after it, on the same line;
//! a process that starts there with [`finish_lines`](Builder::finish_lines) begins on a
//! new one.
//!
//! The file system must know `O_APPEND` and `flock`, as local ones on Linux do. NFS does
//! not append atomically.
//!
//! # When something goes wrong
//!
//! * **The file was moved or deleted**, by logrotate or by hand: it is noticed within half a
//!   second, or at [`reopen`](RotateLogs::reopen), and opened anew.
//! * **A record cannot be written**, because the disk is full or the directory is gone: the
//!   caller gets the error, or the record is dropped ([`ErrorPolicy`]). Either way it is
//!   [counted](RotateLogs::lost), and the next one is tried again. What was written of a
//!   record before the disk was full is ended by a newline, so that it does not spoil the
//!   next, be that of another process: all that could not write see to it. Only one that
//!   had nothing to write meanwhile cannot know. Old files are never truncated.
//! * **The next file cannot be opened**: the old one is written on.
//! * An [`Event`] tells when each of these begins and when it is over.
//!
//! Settings that contradict each other are refused when the log is built, by name.
//!
//! # The program
//!
//! The feature `cli` makes the program `rotatelogs`, which reads standard input. It knows
//! the arguments of [Apache's](https://httpd.apache.org/docs/2.4/programs/rotatelogs.html).
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

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
mod precedence;
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
#[cfg_attr(docsrs, doc(cfg(any(feature = "gzip", feature = "zstd"))))]
pub use compress::Compression;
pub use error::{Error, PatternError};
pub use event::{Attempt, Cause, Event};
pub use log_file::LogFile;
pub use non_blocking::{NonBlocking, NonBlockingBuilder, Overflow};
pub use pattern::Pattern;
pub use rotatelogs::{LongRecord, RotateLogs};
pub use settings::{ErrorPolicy, SyncPolicy};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
