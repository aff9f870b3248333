use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;
use std::{fmt, io};

use crate::notify::NotifyError;
use crate::pid_file::PidFileError;

/// Tells why no other process has taken this one's place. This one goes on.
#[derive(Debug)]
#[non_exhaustive]
pub enum UpgradeError {
    /// This is the first process of its container or machine.
    FirstProcess,
    /// A super-daemon started this process and watches it.
    UnderSuperDaemon,
    /// This process has not said that it is ready itself.
    NotReady,
    /// Another upgrade is under way.
    UnderWay,
    /// Another process has taken this one's place already.
    Replaced {
        /// That process.
        pid: u32,
    },
    /// This process is ending.
    Cancelled,
    /// It is not known what to start.
    Program(io::Error),
    /// There are no descriptors for the sockets or the pipes.
    Descriptors(io::Error),
    /// The program cannot be started.
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The new process has ended before it was ready.
    Ended {
        /// The process.
        pid: u32,
        /// How it has ended.
        status: ExitStatus,
    },
    /// The new process has given up its means of saying that it is ready; it was killed.
    Silent {
        /// The process.
        pid: u32,
    },
    /// The new process was not ready in time; it was killed.
    TimedOut {
        /// The process.
        pid: u32,
        /// The time it had.
        timeout: Duration,
    },
    /// The pid file cannot be taken over.
    PidFile(PidFileError),
    /// The service manager cannot be told.
    Notify(NotifyError),
}

impl UpgradeError {
    pub(super) fn spawn(command: &Command, source: io::Error) -> Self {
        Self::Spawn {
            program: command.get_program().into(),
            source,
        }
    }
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstProcess => f.write_str(
                "process 1 cannot be replaced, its end is its container's: run the program under start_server and send that SIGHUP",
            ),
            Self::UnderSuperDaemon => f.write_str(
                "a super-daemon watches this process and would take its end for a failure: send the super-daemon SIGHUP",
            ),
            Self::NotReady => f.write_str("this process is not ready itself yet"),
            Self::UnderWay => f.write_str("another upgrade is under way"),
            Self::Replaced { pid } => write!(f, "process {pid} has taken over already"),
            Self::Cancelled => f.write_str("this process is ending"),
            Self::Program(_) => f.write_str("cannot tell how this process was started"),
            Self::Descriptors(_) => f.write_str("no descriptors to hand over"),
            Self::Spawn { program, .. } => write!(f, "cannot start {}", program.display()),
            Self::Ended { pid, status } => write!(f, "new process {pid} ended before it was ready, {status}"),
            Self::Silent { pid } => write!(f, "new process {pid} closed its pipe and did not say that it is ready"),
            Self::TimedOut { pid, timeout } => write!(f, "new process {pid} was not ready within {timeout:?}"),
            Self::PidFile(error) => error.fmt(f),
            Self::Notify(error) => error.fmt(f),
        }
    }
}

impl Error for UpgradeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Program(error) | Self::Descriptors(error) | Self::Spawn { source: error, .. } => {
                Some(error)
            }
            Self::PidFile(error) => error.source(),
            Self::Notify(error) => error.source(),
            _ => None,
        }
    }
}
