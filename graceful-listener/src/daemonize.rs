use std::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{process, thread};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout};

use crate::detach::{Side, detach};
use crate::pid_file::{PidFile, PidFileError};
use crate::upgrade::Handover;

/// Detaches the process from its terminal, and tells the launcher whether that went well.
///
/// The process that was started, the launcher, waits until the daemon says that it is
/// [ready](Daemon::ready). Its exit status then tells a script, or a person, whether the
/// service really runs: it is 0 if it does, and else that of the daemon, which has ended.
/// Until then the daemon's standard streams are the launcher's, so that what goes wrong is
/// read where the service was started.
///
/// The daemon is in a session of its own and cannot get a terminal again. Its directory and
/// umask are what they were, unless set otherwise, so relative paths keep their meaning.
///
/// A process that [replaces](crate::Upgrader) a daemon is one already, and stays as it is. The
/// pid file of a program that does so is to be the [upgrader's](crate::Upgrader::pid_file).
///
/// # Examples
///
/// ```no_run
/// use graceful_listener::{Daemonize, Listeners, serve};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     // Before anything starts a thread, a runtime above all.
///     let mut daemon = Daemonize::new().log_file("app.log").pid_file("app.pid").start()?;
///
///     let listeners = Listeners::bind(["127.0.0.1:8080"])?;
///     daemon.ready()?;
///     // Serve.
/// #   drop(listeners);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Daemonize {
    log_file: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    directory: Option<PathBuf>,
    umask: Option<u32>,
}

impl Daemonize {
    /// Creates a description of a daemon without a log file and a pid file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the file to which standard output and standard error are appended
    /// once the daemon is ready. Without it what they get is lost.
    pub fn log_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.log_file = Some(path.into());
        self
    }

    /// Sets the file that is to hold the daemon's id for as long as it lives, a [`PidFile`].
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.pid_file = Some(path.into());
        self
    }

    /// Sets the daemon's directory, to `/` for example. The paths of the files
    /// are meant as seen from the launcher's all the same.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Sets the daemon's umask, 0o027 for example.
    pub const fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }

    /// Detaches. Returns in the daemon; the launcher's process ends here.
    ///
    /// # Errors
    ///
    /// Fails, in the launcher and with nothing done, if the process has other
    /// threads, which would be missing in the daemon and may hold locks; if a
    /// file cannot be opened; if the pid file is another process's.
    pub fn start(self) -> Result<Daemon, DaemonizeError> {
        if Handover::is_successor() {
            return self.replace();
        }
        let threads = fs::read_dir("/proc/self/task")
            .map_err(DaemonizeError::Kernel)?
            .count();
        if threads != 1 {
            return Err(DaemonizeError::Threads(threads));
        }
        let log = self.open_log()?;
        let pid_file = match &self.pid_file {
            Some(path) => Some(std::path::absolute(path).map_err(DaemonizeError::Kernel)?),
            None => None,
        };
        if let Some(path) = &pid_file {
            // The daemon makes sure of it, but here it costs no fork.
            if let Some(pid) = PidFile::holder(path).map_err(DaemonizeError::PidFile)? {
                let held = PidFileError::Held {
                    path: path.clone(),
                    pid: Some(pid).filter(|&pid| pid > 0),
                };
                return Err(DaemonizeError::PidFile(held));
            }
        }
        if let Some(directory) = &self.directory {
            let unusable = |source| DaemonizeError::Directory {
                path: directory.clone(),
                source,
            };
            let metadata = fs::metadata(directory).map_err(unusable)?;
            if !metadata.is_dir() {
                return Err(unusable(io::ErrorKind::NotADirectory.into()));
            }
        }
        // What is buffered would else be written by both.
        io::stdout().flush().map_err(DaemonizeError::Kernel)?;
        // The daemon's exit status comes to the launcher, which is not its parent.
        set_child_subreaper(true).map_err(|errno| DaemonizeError::Kernel(errno.into()))?;
        let mut launcher = match detach().map_err(DaemonizeError::Kernel)? {
            Side::Launcher(reader) => end(await_daemon(reader)),
            Side::Between => end(0),
            Side::Daemon(writer) => writer,
        };
        let prepared = self.prepare(pid_file, &mut launcher);
        match prepared {
            Ok(pid_file) => Ok(Daemon {
                launcher: Some(launcher),
                log,
                _pid_file: pid_file,
            }),
            Err(error) => {
                complain(&error);
                end(1)
            }
        }
    }

    /// Becomes the daemon's successor, which has its session, streams and directory.
    fn replace(&self) -> Result<Daemon, DaemonizeError> {
        if self.pid_file.is_some() {
            return Err(DaemonizeError::Replaced);
        }
        Ok(Daemon {
            launcher: None,
            log: self.open_log()?,
            _pid_file: None,
        })
    }

    fn open_log(&self) -> Result<File, DaemonizeError> {
        let path = self.log_file.clone().unwrap_or_else(|| "/dev/null".into());
        let opened = OpenOptions::new().append(true).create(true).open(&path);
        opened.map_err(|source| DaemonizeError::LogFile { path, source })
    }

    /// What only the daemon can do.
    fn prepare(
        &self,
        pid_file: Option<PathBuf>,
        launcher: &mut PipeWriter,
    ) -> Result<Option<PidFile>, DaemonizeError> {
        writeln!(launcher, "{}", process::id()).map_err(DaemonizeError::Kernel)?;
        if let Some(mask) = self.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        let pid_file = pid_file
            .map(PidFile::create)
            .transpose()
            .map_err(DaemonizeError::PidFile)?;
        if let Some(path) = &self.directory {
            let changed = std::env::set_current_dir(path);
            changed.map_err(|source| DaemonizeError::Directory {
                path: path.clone(),
                source,
            })?;
        }
        Ok(pid_file)
    }
}

/// Stands for the daemon that this process has become. Keep it as long as the process.
#[derive(Debug)]
#[must_use = "the launcher waits for it to be ready, and the pid file goes with it"]
pub struct Daemon {
    launcher: Option<PipeWriter>,
    log: File,
    _pid_file: Option<PidFile>,
}

impl Daemon {
    /// Lets go of the terminal, and tells the launcher that the daemon runs.
    ///
    /// Later calls do nothing.
    ///
    /// # Errors
    ///
    /// Fails if the standard streams cannot be redirected, and if the launcher
    /// was killed meanwhile; then the daemon is detached and may go on all the same.
    pub fn ready(&mut self) -> io::Result<()> {
        let Some(mut launcher) = self.launcher.take() else {
            return Ok(());
        };
        io::stdout().flush()?;
        dup2_stdin(File::open("/dev/null")?)?;
        dup2_stdout(&self.log)?;
        dup2_stderr(&self.log)?;
        launcher.write_all(READY.as_bytes())
    }
}

/// Tells why a process cannot become a daemon.
#[derive(Debug)]
#[non_exhaustive]
pub enum DaemonizeError {
    /// The process has so many threads, where it may have one.
    Threads(usize),
    /// The log file cannot be opened.
    LogFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The pid file cannot be had.
    PidFile(PidFileError),
    /// The process replaces another one, which holds the pid file.
    Replaced,
    /// The directory cannot be changed to.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call failed.
    Kernel(io::Error),
}

impl fmt::Display for DaemonizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(count) => write!(
                f,
                "cannot detach: the process has {count} threads, it has to be done before a second one starts"
            ),
            Self::LogFile { path, .. } => write!(f, "cannot open the log file {}", path.display()),
            Self::PidFile(error) => error.fmt(f),
            Self::Replaced => f.write_str(
                "the pid file of a process that can be replaced has to be its Upgrader's",
            ),
            Self::Directory { path, .. } => {
                write!(f, "cannot change to the directory {}", path.display())
            }
            Self::Kernel(_) => f.write_str("cannot detach"),
        }
    }
}

impl Error for DaemonizeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Threads(_) | Self::Replaced => None,
            Self::LogFile { source, .. }
            | Self::Directory { source, .. }
            | Self::Kernel(source) => Some(source),
            Self::PidFile(error) => error.source(),
        }
    }
}

/// Waits until the daemon has made it or has not, and returns the launcher's exit status.
fn await_daemon(reader: PipeReader) -> i32 {
    let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
    let Some(pid) = lines.next().and_then(|line| line.parse().ok()) else {
        // It has said why.
        return 1;
    };
    if lines.next().as_deref() == Some(READY.trim_end()) {
        return 0;
    }
    // Orphaned, it is this process's child.
    let deadline = Instant::now() + PATIENCE;
    loop {
        match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, status)) => {
                complain(&format_args!(
                    "the daemon ended before it was ready, exit status {status}"
                ));
                return if status == 0 { 1 } else { status };
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                complain(&format_args!(
                    "the daemon ended before it was ready, killed by {signal}"
                ));
                return 128 + signal as i32;
            }
            Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1))
            }
            _ => {
                complain(&format_args!(
                    "the daemon, process {pid}, has not said that it is ready"
                ));
                return 1;
            }
        }
    }
}

fn complain(what: &dyn fmt::Display) {
    // Where there is nobody to read it, the exit status still tells.
    let _ = writeln!(io::stderr(), "{what}");
}

#[expect(
    clippy::exit,
    reason = "one process goes on as the daemon, the others are done"
)]
fn end(status: i32) -> ! {
    process::exit(status)
}

const READY: &str = "ready\n";

/// How long a daemon that has closed its pipe may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
