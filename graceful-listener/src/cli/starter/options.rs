use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::log::LogFormat;
use crate::cli::process::Signal;

/// What one super-daemon is asked to do: the command line, read.
#[derive(Debug)]
pub(crate) struct Options {
    /// The program and its arguments.
    pub(crate) exec: Vec<OsString>,
    /// `--port`, as written.
    pub(crate) ports: Vec<OsString>,
    /// `--path`, as written.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) backlog: i32,
    pub(crate) socket_mode: u32,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) interval: Duration,
    pub(crate) wait_ready: Option<Duration>,
    pub(crate) signal_on_hup: Signal,
    pub(crate) signal_on_term: Signal,
    /// `None` leaves it to the environment, as for the next two.
    pub(crate) kill_old_delay: Option<Duration>,
    pub(crate) enable_auto_restart: bool,
    pub(crate) auto_restart_interval: Option<Duration>,
    /// `None` is for ever.
    pub(crate) stop_timeout: Option<Duration>,
    pub(crate) max_old: usize,
    pub(crate) retry_delay: Option<Duration>,
    pub(crate) retry_max_delay: Duration,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) status_file: Option<PathBuf>,
    pub(crate) envdir: Option<OsString>,
    pub(crate) env_files: Vec<PathBuf>,
    pub(crate) log_file: Option<LogTarget>,
    pub(crate) log_format: LogFormat,
    pub(crate) daemonize: bool,
    pub(crate) die_with_parent: Option<Signal>,
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) umask: Option<u32>,
    pub(crate) nofile: OpenFiles,
    pub(crate) cgroup: Option<PathBuf>,
}

/// Where the output goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum LogTarget {
    /// A file that is appended to.
    File(PathBuf),
    /// A command that reads it.
    Command(OsString),
}

/// What becomes of the limit on open files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OpenFiles {
    /// The soft limit is raised to the hard one.
    Max,
    /// Both stay as they were found.
    Keep,
    /// The soft limit is set to this.
    Soft(u64),
}

impl Options {
    /// The options of Server::Starter, at its defaults.
    pub(crate) fn new(exec: Vec<OsString>) -> Self {
        Self {
            exec,
            ports: Vec::new(),
            paths: Vec::new(),
            backlog: nix::libc::SOMAXCONN,
            socket_mode: 0o777,
            dir: None,
            interval: Duration::from_secs(1),
            wait_ready: None,
            signal_on_hup: Signal::TERM,
            signal_on_term: Signal::TERM,
            kill_old_delay: None,
            enable_auto_restart: false,
            auto_restart_interval: None,
            stop_timeout: Some(STOP_TIMEOUT),
            max_old: MAX_OLD,
            retry_delay: None,
            retry_max_delay: RETRY_MAX_DELAY,
            pid_file: None,
            status_file: None,
            envdir: None,
            env_files: Vec::new(),
            log_file: None,
            log_format: LogFormat::Plain,
            daemonize: false,
            die_with_parent: None,
            user: None,
            group: None,
            umask: None,
            nofile: OpenFiles::Max,
            cgroup: None,
        }
    }
}

/// `--wait-ready` without a number.
pub(crate) const WAIT_READY: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(600);
const MAX_OLD: usize = 32;
const RETRY_MAX_DELAY: Duration = Duration::from_secs(60);
