use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::record::{NAME, Record, WorkerRecord};
use super::worker::Phase;
use crate::cli::failure::{Failure, reason};
use crate::cli::moment::Moment;
use crate::cli::process::{Process, Signal};
use crate::pid_file::PidFile;

mod show;

/// What a running super-daemon is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    Restart,
    Stop,
    Status { json: bool },
}

/// Which super-daemon is meant, and how long it may take.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) status_file: Option<PathBuf>,
    pub(crate) timeout: Option<Duration>,
}

/// How a request ended, which the exit code tells.
#[derive(Debug)]
enum Outcome {
    /// The new generation serves, and the old ones are gone; or it has stopped.
    Done,
    /// The request cannot be made.
    Error(String),
    /// The new generation failed, and the old one goes on serving.
    Failed(String),
    /// It was still under way when the time was up.
    TimedOut(String),
    /// There is no super-daemon.
    NotRunning(String),
    /// The new generation failed, and no other one serves.
    Down(String),
}

impl Outcome {
    const fn code(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error(_) => 1,
            Self::Failed(_) => 3,
            Self::TimedOut(_) => 4,
            Self::NotRunning(_) => 5,
            Self::Down(_) => 6,
        }
    }
}

impl Request {
    /// Reads the request from the options that are given, if they are one.
    pub(crate) fn read(is: &dyn Fn(&str) -> bool) -> Option<Self> {
        if is("restart") {
            Some(Self::Restart)
        } else if is("stop") {
            Some(Self::Stop)
        } else if is("status") {
            Some(Self::Status { json: is("json") })
        } else {
            None
        }
    }

    /// Finds out whether the other options allow the request.
    pub(crate) fn check(self, target: &Target, exec: &[OsString]) -> Result<(), String> {
        let (pid, status) = (target.pid_file.is_some(), target.status_file.is_some());
        match self {
            Self::Restart if !(pid && status) => Err(
                "--restart option requires --pid-file and --status-file to be set as well".into(),
            ),
            Self::Stop if !pid => Err("--stop option requires --pid-file to be set as well".into()),
            Self::Status { .. } if !exec.is_empty() => Err(
                "--status tells how a running start_server is doing and takes no program; \
                 did you mean --status-file=FILE?"
                    .into(),
            ),
            Self::Status { .. } if !pid => {
                Err("--status option requires --pid-file to be set as well".into())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn run(self, target: &Target) -> ExitCode {
        let Some(path) = &target.pid_file else {
            return ExitCode::FAILURE;
        };
        let outcome = match Daemon::find(path) {
            Ok(daemon) => match self {
                Self::Restart => restart(&daemon, target),
                Self::Stop => stop(&daemon, target),
                Self::Status { json } => status(&daemon, json),
            },
            Err(outcome) => {
                if self == (Self::Status { json: true }) {
                    print(&format!("{:#}\n", json!({ "running": false })));
                }
                outcome
            }
        };
        match &outcome {
            Outcome::Done => {}
            Outcome::Error(text)
            | Outcome::Failed(text)
            | Outcome::TimedOut(text)
            | Outcome::NotRunning(text)
            | Outcome::Down(text) => say(text),
        }
        ExitCode::from(outcome.code())
    }
}

/// The super-daemon that holds a pid file.
struct Daemon {
    process: Process,
}

impl Daemon {
    fn find(path: &Path) -> Result<Self, Outcome> {
        let error = |failure: &dyn fmt::Display| Outcome::Error(failure.to_string());
        let none = || {
            Outcome::NotRunning(format!(
                "start_server is not running: nobody holds {}",
                path.display()
            ))
        };
        let holder = |path| PidFile::holder(path).map_err(|cause| error(&describe(&cause)));
        let Some(pid) = holder(path)?.and_then(|pid| i32::try_from(pid).ok()) else {
            return Err(none());
        };
        if pid == 0 {
            return Err(error(&format_args!(
                "{} is locked by a process that has not written its id there",
                path.display()
            )));
        }
        let process = Process::from_stranger(pid).map_err(|cause| match cause.raw_os_error() {
            Some(nix::libc::ESRCH) => error(&format_args!(
                "{} is held by a process, but there is no process {pid} here",
                path.display()
            )),
            _ => error(&Failure::io(
                format!("failed to watch process {pid}"),
                &cause,
            )),
        })?;
        // The number is the holder's as long as the lock is held.
        if holder(path)?.and_then(|pid| i32::try_from(pid).ok()) != Some(pid) {
            return Err(none());
        }
        if holds(pid, path) == Some(false) {
            return Err(error(&format_args!(
                "process {pid} is not the one that holds {}: it may be in another pid namespace",
                path.display()
            )));
        }
        Ok(Self { process })
    }

    fn pid(&self) -> i32 {
        self.process.pid()
    }

    fn send(&self, signal: Signal) -> Result<(), Outcome> {
        self.process.signal(signal).map_err(|cause| {
            Outcome::Error(format!(
                "failed to send SIG{signal} to the server process: {}",
                reason(&cause)
            ))
        })
    }

    fn is_gone(&self) -> bool {
        self.process.has_ended().unwrap_or(true)
    }

    /// Reads the state that the process shows; `None` if it is of another make, or
    /// another user's.
    fn record(&self) -> Option<Record> {
        for _ in 0..READ_ATTEMPTS {
            let dir = fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?;
            let shown = dir.flatten().map(|entry| entry.path()).find(|path| {
                fs::read_link(path).is_ok_and(|link| {
                    link.to_string_lossy()
                        .starts_with(&format!("/memfd:{NAME} "))
                })
            });
            // It may have been replaced since, or under a number that was passed already.
            if let Some(shown) = shown
                && let Ok(record) = File::open(shown).and_then(Record::read)
                && record.pid == self.pid()
            {
                return Some(record);
            }
            thread::sleep(READ_AGAIN);
        }
        None
    }
}

/// Tells whether the process has the file open, if that may be known.
fn holds(pid: i32, path: &Path) -> Option<bool> {
    let file = fs::metadata(path).ok()?;
    let mut open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    Some(open.any(|entry| {
        fs::metadata(entry.path())
            .is_ok_and(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
    }))
}

fn describe(error: &dyn std::error::Error) -> String {
    match error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
    {
        Some(source) => format!("{error}: {}", reason(source)),
        None => error.to_string(),
    }
}

fn stop(daemon: &Daemon, target: &Target) -> Outcome {
    let budget = daemon
        .record()
        .and_then(|record| record.stop_budget)
        .map_or(PATIENCE, Duration::from_millis);
    let timeout = target.timeout.unwrap_or(budget + SLACK);
    say(&format!(
        "stop_server (pid:{}) stopping now (pid:{})...",
        std::process::id(),
        daemon.pid()
    ));
    if let Err(outcome) = daemon.send(Signal::TERM) {
        return if daemon.is_gone() {
            Outcome::Done
        } else {
            outcome
        };
    }
    let end = Moment::now() + timeout;
    let mut progress = Progress::default();
    while !daemon.is_gone() {
        if Moment::now() >= end {
            return Outcome::TimedOut(format!(
                "timed out after {} secs: start_server (pid:{}) is still stopping",
                timeout.as_secs_f64(),
                daemon.pid()
            ));
        }
        if let Some(record) = daemon.record() {
            progress.say(&format!(
                "waiting for workers to end:{}",
                list(record.workers.iter())
            ));
        }
        thread::sleep(POLL);
    }
    say("stopped");
    Outcome::Done
}

fn restart(daemon: &Daemon, target: &Target) -> Outcome {
    let Some(before) = daemon.record() else {
        return restart_by_status_file(daemon, target);
    };
    let budget = Duration::from_millis(before.start_budget)
        + before.stop_budget.map_or(PATIENCE, Duration::from_millis)
        + SLACK;
    let timeout = target.timeout.unwrap_or(budget);
    if let Err(outcome) = daemon.send(Signal::HUP) {
        return outcome;
    }
    let end = Moment::now() + timeout;
    let mut progress = Progress::default();
    progress.say(&format!(
        "asked start_server (pid:{}) for a generation after {}",
        daemon.pid(),
        before.generation
    ));
    let mut doing = "waiting for a new generation".to_owned();
    loop {
        if daemon.is_gone() {
            return Outcome::NotRunning(format!("start_server (pid:{}) has ended", daemon.pid()));
        }
        if let Some(now) = daemon.record() {
            match judge(&before, &now) {
                Verdict::Done(text) => {
                    progress.say(&text);
                    return Outcome::Done;
                }
                Verdict::Over(outcome) => return outcome,
                Verdict::Waiting(text) => {
                    progress.say(&text);
                    doing = text;
                }
            }
        }
        if Moment::now() >= end {
            return Outcome::TimedOut(format!(
                "timed out after {} secs: {doing}",
                timeout.as_secs_f64()
            ));
        }
        thread::sleep(POLL);
    }
}

enum Verdict {
    Done(String),
    Over(Outcome),
    Waiting(String),
}

/// Compares the state before the restart was asked for with that of now. Every
/// generation that was begun since is an answer to the request.
fn judge(before: &Record, now: &Record) -> Verdict {
    if now.stopping {
        return Verdict::Over(Outcome::NotRunning(format!(
            "start_server (pid:{}) is stopping",
            now.pid
        )));
    }
    let phase = |phase| now.workers.iter().find(move |worker| worker.phase == phase);
    let serving = phase(Phase::Serving);
    if let Some(serving) = serving.filter(|worker| worker.generation > before.generation) {
        let others = || {
            now.workers
                .iter()
                .filter(|worker| worker.pid != serving.pid && worker.phase != Phase::Starting)
        };
        if others().next().is_none() {
            return Verdict::Done(format!(
                "generation {} (worker {}) serves",
                serving.generation, serving.pid
            ));
        }
        return Verdict::Waiting(format!(
            "generation {} (worker {}) serves, waiting for old workers to end:{}",
            serving.generation,
            serving.pid,
            list(others())
        ));
    }
    if let Some(failure) = now
        .last_failure
        .as_ref()
        .filter(|failure| failure.generation > before.generation)
    {
        let mut text = format!(
            "generation {} failed: {}",
            failure.generation, failure.reason
        );
        for line in &failure.output {
            text.push_str("\n| ");
            text.push_str(line);
        }
        return Verdict::Over(match serving {
            Some(serving) => Outcome::Failed(format!(
                "{text}\ngeneration {} (worker {}) goes on serving",
                serving.generation, serving.pid
            )),
            None => Outcome::Down(format!("{text}\nno generation serves")),
        });
    }
    match phase(Phase::Starting) {
        Some(starting) if starting.generation > before.generation => Verdict::Waiting(format!(
            "generation {} (worker {}) is starting",
            starting.generation, starting.pid
        )),
        Some(starting) => Verdict::Waiting(format!(
            "waiting for the start of generation {} (worker {}) to end",
            starting.generation, starting.pid
        )),
        None => Verdict::Waiting("waiting for a new generation".into()),
    }
}

/// Restarts a super-daemon that does not show its state, such as Perl's.
fn restart_by_status_file(daemon: &Daemon, target: &Target) -> Outcome {
    let Some(path) = &target.status_file else {
        return Outcome::Error("--restart needs --status-file".into());
    };
    let generations = || -> Result<Vec<u64>, Outcome> {
        let text = fs::read_to_string(path).map_err(|error| {
            Outcome::Error(format!(
                "failed to open file:{}: {}",
                path.display(),
                reason(&error)
            ))
        })?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(':')?.0.parse().ok())
            .collect())
    };
    let last = match generations() {
        Ok(found) => match found.into_iter().max() {
            Some(last) => last,
            None => return Outcome::Error("no active process found in the status file".into()),
        },
        Err(outcome) => return outcome,
    };
    if let Err(outcome) = daemon.send(Signal::HUP) {
        return outcome;
    }
    let timeout = target.timeout.unwrap_or(PATIENCE);
    let end = Moment::now() + timeout;
    let mut progress = Progress::default();
    loop {
        if daemon.is_gone() {
            return Outcome::NotRunning(format!("start_server (pid:{}) has ended", daemon.pid()));
        }
        let now = generations().unwrap_or_default();
        if let [only] = now[..]
            && only > last
        {
            progress.say(&format!("generation {only} serves"));
            return Outcome::Done;
        }
        let list: Vec<_> = now.iter().map(ToString::to_string).collect();
        progress.say(&format!(
            "waiting for a generation after {last} to be alone, there are:{}",
            list.join(",")
        ));
        if Moment::now() >= end {
            return Outcome::TimedOut(format!("timed out after {} secs", timeout.as_secs_f64()));
        }
        thread::sleep(POLL);
    }
}

fn status(daemon: &Daemon, json: bool) -> Outcome {
    let Some(record) = daemon.record() else {
        return Outcome::Error(format!(
            "process {} runs, but does not show its state: it is another program, or another user's",
            daemon.pid()
        ));
    };
    if json {
        print(&format!("{:#}\n", show::to_json(&record)));
    } else {
        print(&show::table(&record));
    }
    Outcome::Done
}

fn list<'a>(workers: impl Iterator<Item = &'a WorkerRecord>) -> String {
    let pids: Vec<_> = workers.map(|worker| worker.pid.to_string()).collect();
    pids.join(",")
}

/// Says each thing once.
#[derive(Default)]
struct Progress(String);

impl Progress {
    fn say(&mut self, text: &str) {
        if self.0 != text {
            say(text);
            text.clone_into(&mut self.0);
        }
    }
}

fn say(text: &str) {
    // A closed terminal is no reason to stop waiting.
    let _ = writeln!(io::stderr(), "{text}");
}

fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

const POLL: Duration = Duration::from_millis(50);
const READ_ATTEMPTS: usize = 20;
const READ_AGAIN: Duration = Duration::from_millis(1);
/// Where the super-daemon itself has no limit.
const PATIENCE: Duration = Duration::from_secs(600);
/// What a loaded machine may take longer.
const SLACK: Duration = Duration::from_secs(10);
