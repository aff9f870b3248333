use std::io::PipeWriter;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::account::Account;
use crate::cli::failure::{Failure, reason};
use crate::cli::log::Log;
use crate::cli::log_command::LogCommand;
use crate::cli::manager::Manager;
use crate::cli::moment::Moment;
use crate::cli::process::{Leftovers, Signal};
use crate::cli::sockets::Sockets;
use crate::cli::succession::{Invocation, Trial};
use crate::cli::watch::{Event, Watch};
use crate::notify::NotifyReceiver;
use crate::pid_file::PidFile;

use self::activation::Activation;
use self::environment::Environment;
pub(crate) use self::handover::RESUME;
use self::options::Options;
use self::record::Record;
use self::status_file::StatusFile;
use self::worker::{Phase, Worker};

pub(crate) mod command_line;

mod activation;
mod arguments;
mod boot;
mod control;
mod ending;
mod environment;
mod handover;
mod launch;
mod options;
mod orphans;
mod output;
mod passing;
mod readiness;
mod record;
mod schedule;
mod status_file;
mod worker;

/// The super-daemon: holds the sockets, and one generation of the program after
/// the other.
#[derive(Debug)]
pub(crate) struct Starter {
    options: Options,
    invocation: Invocation,
    log: Log,
    watch: Watch,
    environment: Environment,
    sockets: Sockets,
    activation: Option<Activation>,
    log_command: Option<LogCommand>,
    status_file: Option<StatusFile>,
    /// Set again after a write that failed.
    status_due: Option<Moment>,
    pid_file: Option<PidFile>,
    /// Whom to become before the first worker is started.
    account: Option<Account>,
    cgroup: Option<PathBuf>,
    /// What workers that have ended have left behind.
    leftovers: Vec<Leftovers>,
    manager: Manager,
    readiness: Option<NotifyReceiver>,
    /// The process at the terminal, which waits for the start to succeed.
    launcher: Option<PipeWriter>,
    /// What is shown to whoever asks how it stands.
    published: Option<(Record, OwnedFd)>,
    since: Moment,
    /// The last generation that was begun; a failed one uses up its number.
    generation: u64,
    /// When that was.
    begun: Moment,
    /// The generation that serves.
    current: Option<Worker>,
    /// The one that is to replace it.
    candidate: Option<Worker>,
    /// Those it replaced, the oldest first.
    old: Vec<Worker>,
    /// When the candidate has stood the test, or failed it.
    verdict_at: Option<Moment>,
    /// When the next attempt is due.
    start_at: Option<Moment>,
    /// When the old generations are told.
    kill_old_at: Option<Moment>,
    /// A restart was asked for that has not begun yet.
    pending: bool,
    /// The generation that is being started, or tried again, is a restart: the
    /// old ones are to be told once it serves.
    restarting: bool,
    /// Attempts that failed in a row.
    failures: u32,
    last_failure: Option<Setback>,
    /// When a generation was last found to serve.
    last_start: Moment,
    stopping: bool,
    /// A new program is to take over when no start is under way.
    upgrade: bool,
    trial: Option<Trial>,
}

/// A generation that did not come up.
#[derive(Clone, Debug)]
struct Setback {
    generation: u64,
    reason: String,
    /// The last lines of the log.
    output: Vec<String>,
    at: Moment,
}

impl Starter {
    /// Runs until it is told to stop and the last worker has ended.
    fn run(&mut self) -> Result<(), Failure> {
        let mut events = Vec::new();
        loop {
            self.publish();
            self.watch
                .wait(self.deadline(), &mut events)
                .map_err(|error| Failure::io("failed to wait for events", &error))?;
            for event in std::mem::take(&mut events) {
                match event {
                    Event::Signal(signal) => self.receive(signal),
                    Event::Readable(READINESS) => self.hear(),
                    Event::Readable(_) => {}
                }
            }
            self.reap();
            self.conclude_upgrade();
            self.watch_log();
            self.advance();
            if let Some(failure) = self.give_up() {
                return Err(failure);
            }
            // Those that nothing kills may stay.
            let waits = self.leftovers.iter().any(|left| left.kill_at.is_some());
            if self.stopping && self.workers().next().is_none() && !waits {
                self.log.line("exiting");
                return Ok(());
            }
        }
    }

    fn receive(&mut self, signal: Signal) {
        match signal {
            Signal::HUP if !self.stopping => self.request_restart(),
            Signal::TERM | Signal::INT | Signal::QUIT if !self.stopping => self.stop(signal),
            Signal::USR1 => {
                self.reopen_log();
                self.forward(signal);
            }
            Signal::USR2 if !self.stopping => self.upgrade = true,
            Signal::TTIN | Signal::TTOU | Signal::WINCH => self.forward(signal),
            _ => {}
        }
    }

    /// Begins a new generation, or notes that one is wanted: a start is never cut
    /// short, and any number of requests meanwhile make one more generation.
    fn request_restart(&mut self) {
        if self.candidate.is_some() || self.kill_old_at.is_some() {
            self.log
                .line("received HUP, spawning a new worker when the current start is complete");
            self.pending = true;
            return;
        }
        self.log.line("received HUP, spawning a new worker");
        self.begin_restart();
    }

    /// Does what is due.
    fn advance(&mut self) {
        let due = |at: Option<Moment>| at.is_some_and(|at| at <= Moment::now());
        self.kill_late();
        if due(self.verdict_at) {
            match self.options.wait_ready {
                None => self.accept(),
                Some(patience) => {
                    self.reject(&format!("not ready within {} secs", patience.as_secs_f64()))
                }
            }
        }
        if due(self.kill_old_at) {
            self.kill_old();
        }
        if self.pending && self.candidate.is_none() && self.kill_old_at.is_none() && !self.stopping
        {
            self.log.line("received HUP, spawning a new worker");
            self.begin_restart();
        } else if due(self.start_at) {
            self.start_generation();
        }
        if self.upgrade
            && !self.stopping
            && self.trial.is_none()
            && self.candidate.is_none()
            && self.kill_old_at.is_none()
        {
            self.request_upgrade();
        }
        if due(self.auto_restart_at()) {
            self.auto_restart();
        }
        if due(self.status_due) {
            self.write_status();
        }
        self.manager.keep_alive();
        self.sweep();
    }

    /// Returns when something is due next.
    fn deadline(&self) -> Option<Moment> {
        let fixed = [
            self.verdict_at,
            self.start_at,
            self.kill_old_at,
            self.status_due,
            self.auto_restart_at(),
            self.manager.deadline(),
            self.trial_deadline(),
            // Killed processes take their time; others may be meant to stay.
            (self.stopping || self.leftovers.iter().any(Leftovers::are_fresh))
                .then(|| Moment::now() + SWEEP)
                .filter(|_| !self.leftovers.is_empty()),
            self.log_command.as_ref().and_then(LogCommand::deadline),
        ];
        fixed
            .into_iter()
            .chain(self.old.iter().map(|worker| worker.kill_at))
            .chain(self.leftovers.iter().map(|left| left.kill_at))
            .flatten()
            .min()
    }

    /// Returns why a daemon that was to tell its launcher whether it serves ends:
    /// the first generation has failed.
    fn give_up(&mut self) -> Option<Failure> {
        let setback = self
            .last_failure
            .as_ref()
            .filter(|_| self.launcher.is_some())?;
        let text = format!(
            "generation {} failed: {}",
            setback.generation, setback.reason
        );
        // Nobody is to be left but whom an earlier super-daemon has started.
        if self.workers().any(|worker| worker.phase == Phase::Failed) {
            return None;
        }
        Some(Failure::new(text))
    }

    /// Shows the state to whoever asks for it.
    fn publish(&mut self) {
        let record = self.record();
        if self
            .published
            .as_ref()
            .is_none_or(|(shown, _)| *shown != record)
        {
            // Who asks sees the old one or the new one, never a part.
            if let Ok(fd) = record.write() {
                self.published = Some((record, fd));
            }
        }
    }

    /// Tells the scripts which generations live.
    fn write_status(&mut self) {
        self.status_due = None;
        let Some(file) = &mut self.status_file else {
            return;
        };
        let serving = self.current.iter().chain(
            self.old
                .iter()
                .filter(|worker| worker.phase != Phase::Failed),
        );
        let workers = serving.map(|worker| (worker.generation, worker.pid()));
        if let Err(error) = file.write(workers) {
            self.log.line(format_args!(
                "failed to write status file {}: {}",
                file.path().display(),
                reason(&error)
            ));
            self.status_due = Some(Moment::now() + STATUS_RETRY);
        }
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.current.iter().chain(&self.candidate).chain(&self.old)
    }
}

/// Writes process ids as the log has them: `1,2,3`, or `none`.
fn pids<'a>(workers: impl Iterator<Item = &'a Worker>) -> String {
    let mut pids: Vec<_> = workers.map(Worker::pid).collect();
    pids.sort_unstable();
    let text: Vec<_> = pids.iter().map(ToString::to_string).collect();
    if text.is_empty() {
        "none".into()
    } else {
        text.join(",")
    }
}

/// Keys of [`Watch`] beside the process ids.
const READINESS: u64 = 1 << 32;
const SWEEP: Duration = Duration::from_millis(20);
const STATUS_RETRY: Duration = Duration::from_secs(5);
