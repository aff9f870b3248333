use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::activation::Activation;
use super::worker::Phase;
use crate::cli::log_command::LogRecord;
use crate::cli::succession;

/// The state of a super-daemon, written down in memory: for whoever asks how it
/// is doing, and for the program it executes to go on in its place.
///
/// Fields may be added; those that an older program did not write have defaults.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Record {
    /// The version of the program that wrote it.
    pub(crate) version: String,
    pub(crate) pid: i32,
    /// Moments are in milliseconds of the monotonic clock.
    pub(crate) since: u64,
    /// The last generation that was begun.
    pub(crate) generation: u64,
    pub(crate) sockets: Vec<SocketRecord>,
    pub(crate) workers: Vec<WorkerRecord>,
    /// What workers that have ended have left behind.
    pub(crate) leftovers: Vec<LeftoverRecord>,
    pub(crate) stopping: bool,
    /// Another restart begins when the current one is complete.
    pub(crate) pending: bool,
    /// What is under way is a restart.
    pub(crate) restarting: bool,
    pub(crate) start_at: Option<u64>,
    pub(crate) failures: u32,
    pub(crate) last_failure: Option<FailureRecord>,
    pub(crate) last_start: u64,
    /// How long a restart may take until the old generations are told, and how
    /// long these have then, in milliseconds.
    pub(crate) start_budget: u64,
    pub(crate) stop_budget: Option<u64>,
    pub(crate) status_written: bool,
    pub(crate) activation: Option<Activation>,
    pub(crate) descriptors: Descriptors,
}

/// Numbers that mean something only to the process itself.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Descriptors {
    pub(crate) pid_file: Option<i32>,
    pub(crate) readiness: Option<i32>,
    pub(crate) log: Option<LogRecord>,
}

/// One socket.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct SocketRecord {
    pub(crate) name: OsString,
    /// Where it is bound, which its name does not say if that ends with port 0.
    #[serde(default)]
    pub(crate) address: Option<SocketAddr>,
    pub(crate) descriptor: i32,
    #[serde(default)]
    pub(crate) file: Option<FileRecord>,
}

/// The file of a Unix socket.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct FileRecord {
    pub(crate) path: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// One generation.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct WorkerRecord {
    pub(crate) generation: u64,
    pub(crate) pid: i32,
    pub(crate) phase: Phase,
    pub(crate) since: u64,
    #[serde(default)]
    pub(crate) kill_at: Option<u64>,
    #[serde(default)]
    pub(crate) status: Option<String>,
    /// It is not a child of the super-daemon, but was adopted.
    #[serde(default)]
    pub(crate) adopted: bool,
    #[serde(default)]
    pub(crate) cgroup: Option<PathBuf>,
}

/// What a worker that is reaped has left behind.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct LeftoverRecord {
    /// The number of its process group.
    pub(crate) pid: i32,
    /// The worker's pidfd, by which the group is still known.
    pub(crate) descriptor: Option<i32>,
    /// Those that are left, where the pidfd does not reach them.
    #[serde(default)]
    pub(crate) members: Vec<i32>,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) kill_at: Option<u64>,
}

/// A generation that did not come up.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct FailureRecord {
    pub(crate) generation: u64,
    pub(crate) reason: String,
    /// The last lines of the log at that time.
    pub(crate) output: Vec<String>,
    pub(crate) at: u64,
}

impl Record {
    /// Writes the record to a new file in memory, which is close-on-exec.
    pub(crate) fn write(&self) -> io::Result<OwnedFd> {
        succession::write(NAME, self)
    }

    /// Reads what [`Record::write`] wrote.
    pub(crate) fn read(file: File) -> io::Result<Self> {
        succession::read(file)
    }
}

/// The name under which `/proc/PID/fd` shows the record.
pub(crate) const NAME: &str = "start_server";
