use std::ffi::{OsStr, OsString};
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::account::Account;
use crate::failure::{Failure, reason};
use crate::log::Log;
use crate::log_command::LogCommand;
use crate::manager::Manager;
use crate::moment::Moment;
use crate::notify::NotifyReceiver;
use crate::pid_file::PidFile;
use crate::process::{
    Cgroup, Exit, Leftovers, Process, Reaped, Signal, Spawn, SpawnError, Step, reap_stranger,
};
use crate::sockets::Sockets;
use crate::succession::{Invocation, Trial};
use crate::watch::{Event, Watch};

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
mod environment;
mod handover;
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

    fn begin_restart(&mut self) {
        self.pending = false;
        self.failures = 0;
        self.restarting = true;
        self.manager.reloading();
        let last_serves = |current: &Worker| current.generation == self.generation;
        let soonest = self.begun + self.options.interval.max(MIN_GAP);
        if self.current.as_ref().is_some_and(last_serves) || soonest <= Moment::now() {
            self.start_generation();
        } else {
            // However often a restart is asked for, failures are no storm.
            self.start_at = Some(self.start_at.map_or(soonest, |at| at.min(soonest)));
        }
    }

    /// Starts the first generation. A program that cannot be executed at all is a
    /// mistake in the command line, and ends the super-daemon.
    fn start_first(&mut self) -> Result<(), Failure> {
        (self.generation, self.begun) = (self.generation + 1, Moment::now());
        let worker = self.spawn()?;
        self.try_out(worker);
        Ok(())
    }

    /// Starts the next generation beside the one that serves.
    fn start_generation(&mut self) {
        self.start_at = None;
        (self.generation, self.begun) = (self.generation + 1, Moment::now());
        match self.spawn() {
            Ok(worker) => self.try_out(worker),
            Err(failure) => {
                let reason = failure.to_string();
                self.log.line(format_args!(
                    "new worker of generation {} seems to have failed to start: {reason}",
                    self.generation
                ));
                self.fail(self.generation, Moment::now(), reason, None);
            }
        }
    }

    fn try_out(&mut self, worker: Worker) {
        self.log
            .line(format_args!("starting new worker {}", worker.pid()));
        let patience = self.options.wait_ready.unwrap_or(self.options.interval);
        self.verdict_at = Some(worker.since + patience);
        self.candidate = Some(worker);
    }

    fn spawn(&self) -> Result<Worker, Failure> {
        let mut variables = self.environment.load().map_err(Failure::new)?;
        let ports = self.sockets.ports()?;
        variables.insert("SERVER_STARTER_PORT".into(), ports.to_os_string());
        variables.insert(
            "SERVER_STARTER_GENERATION".into(),
            self.generation.to_string().into(),
        );
        if let Some(receiver) = &self.readiness {
            variables.insert("NOTIFY_SOCKET".into(), receiver.name().into());
        }
        let (program, args) = self
            .options
            .exec
            .split_first()
            .ok_or_else(|| Failure::new("server program not specified"))?;
        let cgroup = self.cgroup.as_ref().and_then(|parent| {
            let name = format!("start_server-{}-{}", std::process::id(), self.generation);
            Cgroup::create(parent, &name).ok()
        });
        let activation = self
            .activation
            .as_ref()
            .map(|activation| activation.variables(&self.sockets));
        let env: Vec<(OsString, OsString)> = variables
            .into_iter()
            .chain(activation.iter().flatten().cloned())
            .collect();
        let spawn = Spawn {
            dir: self.options.dir.as_deref(),
            descriptors: &self.sockets.descriptors(),
            listen_pid: activation.is_some_and(|variables| !variables.is_empty()),
            ignored_signals: &[Signal::PIPE],
            death_signal: self.options.die_with_parent,
            cgroup: cgroup.as_ref(),
            ..Spawn::new(program, args, &env)
        };
        // Before it can write anything.
        let mark = self.log.mark();
        let process = spawn
            .spawn()
            .map_err(|error| self.explain(program, &error))?;
        let worker = Worker {
            process,
            generation: self.generation,
            phase: Phase::Starting,
            since: Moment::now(),
            kill_at: None,
            status: None,
            cgroup,
            mark,
        };
        if let Err(error) = self.watch(&worker.process) {
            // Nobody would know of it.
            let _ = worker.process.signal_group(Signal::KILL);
            return Err(Failure::io("failed to watch the worker", &error));
        }
        Ok(worker)
    }

    fn watch(&self, process: &Process) -> io::Result<()> {
        self.watch
            .add(process, u64::from(process.pid().unsigned_abs()))
    }

    fn explain(&self, program: &OsStr, error: &SpawnError) -> Failure {
        match (error.step, &self.options.dir) {
            (Step::Dir, Some(dir)) => {
                Failure::io(format!("failed to chdir:{}", dir.display()), &error.error)
            }
            (Step::Exec, _) => Failure::io(
                format!("failed to exec {}", program.display()),
                &error.error,
            ),
            (step, _) => Failure::io(step, &error.error),
        }
    }

    /// Takes the candidate for the serving generation.
    fn accept(&mut self) {
        // One that has ended since it was ready is about to be reaped as failed.
        let lives = |worker: &mut Worker| !worker.process.has_ended().unwrap_or(false);
        let Some(mut worker) = self.candidate.take_if(lives) else {
            return;
        };
        self.verdict_at = None;
        self.failures = 0;
        self.last_start = Moment::now();
        worker.phase = Phase::Serving;
        if let Some(mut before) = self.current.replace(worker) {
            before.phase = Phase::Old;
            self.old.push(before);
        }
        self.write_status();
        self.tell_launcher(Ok(()));
        if std::mem::take(&mut self.restarting) {
            self.log.line(format_args!(
                "new worker is now running, sending {} to old workers:{}",
                self.options.signal_on_hup,
                pids(self.old.iter())
            ));
            let delay = self.old_delay();
            if delay > Duration::ZERO && !self.old.is_empty() {
                self.log.line(format_args!(
                    "sleeping {} secs before killing old workers",
                    delay.as_secs_f64()
                ));
                self.kill_old_at = Some(Moment::now() + delay);
            } else {
                self.kill_old();
            }
        } else {
            self.manager.ready(self.generation);
        }
    }

    fn kill_old(&mut self) {
        self.kill_old_at = None;
        self.log.line("killing old workers");
        for worker in &mut self.old {
            if let Err(error) = worker.end(self.options.signal_on_hup, self.options.stop_timeout) {
                self.log.line(format_args!(
                    "failed to signal old worker {}: {}",
                    worker.pid(),
                    reason(&error)
                ));
            }
        }
        while self
            .old
            .iter()
            .filter(|worker| worker.phase != Phase::Failed)
            .count()
            > self.options.max_old
        {
            let Some(mut oldest) = (!self.old.is_empty()).then(|| self.old.remove(0)) else {
                break;
            };
            self.log.line(format_args!(
                "more than {} old workers are left, sending KILL to the oldest, {}",
                self.options.max_old,
                oldest.pid()
            ));
            oldest.phase = Phase::Failed;
            self.kill(oldest);
        }
        self.manager.ready(self.generation);
    }

    fn kill(&mut self, mut worker: Worker) {
        if let Err(error) = worker.kill() {
            self.log.line(format_args!(
                "failed to kill worker {}: {}",
                worker.pid(),
                reason(&error)
            ));
        }
        self.old.push(worker);
    }

    /// Gives up on the candidate, which runs but does not serve.
    fn reject(&mut self, why: &str) {
        let Some(mut worker) = self.candidate.take() else {
            return;
        };
        self.verdict_at = None;
        self.log.line(format_args!(
            "new worker {} seems to have failed to start: {why}, sending {} to it",
            worker.pid(),
            self.options.signal_on_term
        ));
        worker.phase = Phase::Failed;
        let grace = self
            .options
            .stop_timeout
            .unwrap_or(REJECT_GRACE)
            .min(REJECT_GRACE);
        // It fails only for one that has ended already.
        let _ = worker.end(self.options.signal_on_term, Some(grace));
        self.old.push(worker);
        self.fail(
            self.generation,
            self.old[self.old.len() - 1].since,
            why.into(),
            self.old[self.old.len() - 1].mark,
        );
    }

    /// Goes back to what was before a generation that failed, and plans the next attempt.
    fn fail(&mut self, generation: u64, since: Moment, why: String, mark: Option<u64>) {
        let output = if mark.is_some() {
            self.log.since(mark)
        } else {
            Vec::new()
        };
        self.failures = self.failures.saturating_add(1);
        let now = Moment::now();
        let (gap, wait) = self.pause();
        let at = (since + gap).max(now + wait);
        if self.launcher.is_some() {
            self.log.line(format_args!(
                "generation {generation} failed: {why}; giving up"
            ));
        } else if !self.stopping {
            self.start_at = Some(at);
            let serving = match &self.current {
                Some(current) => format!(
                    "generation {} (worker {}) goes on serving",
                    current.generation,
                    current.pid()
                ),
                None => "no generation serves".into(),
            };
            self.log.line(format_args!(
                "generation {generation} failed: {why}; {serving}; trying again in {:.1} secs",
                (at - now).as_secs_f64()
            ));
            let text = format!("Generation {generation} failed: {why}; {serving}");
            self.manager.failed(&text, self.current.is_some());
        }
        self.last_failure = Some(Setback {
            generation,
            reason: why,
            output,
            at: now,
        });
    }

    /// Returns how far apart two attempts begin, and how long the next one waits
    /// at least, by the failures so far.
    fn pause(&self) -> (Duration, Duration) {
        let first = self
            .options
            .retry_delay
            .unwrap_or(self.options.interval)
            .max(MIN_GAP);
        let doublings = self.failures.saturating_sub(1).min(32);
        let gap = first
            .saturating_mul(1 << doublings.min(31))
            .min(self.options.retry_max_delay.max(first));
        (gap, gap - first)
    }

    fn stop(&mut self, signal: Signal) {
        let sent = if signal == Signal::INT {
            Signal::TERM
        } else {
            self.options.signal_on_term
        };
        self.log.line(format_args!(
            "received {signal}, sending {sent} to all workers:{}",
            pids(self.workers())
        ));
        self.stopping = true;
        self.manager.stopping();
        (self.start_at, self.verdict_at, self.kill_old_at) = (None, None, None);
        let left = self.current.take().into_iter().chain(self.candidate.take());
        self.old.extend(left);
        for left in &self.leftovers {
            left.signal(sent);
        }
        for worker in &mut self.old {
            if let Err(error) = worker.end(sent, self.options.stop_timeout) {
                self.log.line(format_args!(
                    "failed to signal worker {}: {}",
                    worker.pid(),
                    reason(&error)
                ));
            }
        }
    }

    /// Takes note of the processes that have ended.
    fn reap(&mut self) {
        let ended = |worker: &Worker, leftover| match worker.try_wait(leftover) {
            Ok(exit) => exit,
            // Somebody else took its status; it has ended all the same.
            Err(_) => Some(Exit::Unknown),
        };
        let term = Some(self.options.signal_on_term);
        for index in (0..self.old.len()).rev() {
            let worker = &self.old[index];
            // What one leaves that has served may be finishing its work.
            let leftover = term.filter(|_| self.stopping || worker.phase == Phase::Failed);
            if let Some(exit) = ended(worker, leftover) {
                let worker = self.old.remove(index);
                self.buried(worker, exit);
            }
        }
        if let Some(exit) = self
            .candidate
            .as_ref()
            .and_then(|worker| ended(worker, term))
            && let Some(worker) = self.candidate.take()
        {
            self.verdict_at = None;
            self.log.line(format_args!(
                "new worker {} seems to have failed to start, exit status:{}",
                worker.pid(),
                exit.raw()
            ));
            let why = format!(
                "{exit} after {:.1} secs",
                worker.since.elapsed().as_secs_f64()
            );
            self.fail(worker.generation, worker.since, why, worker.mark);
            self.look_after_what_is_left(worker);
        }
        if let Some(exit) = self.current.as_ref().and_then(|worker| ended(worker, term))
            && let Some(worker) = self.current.take()
        {
            self.current_died(worker, exit);
        }
        // Children that nobody here started: of the program that executed this
        // one, or orphans, if this is the first process of a container.
        let helpers = [
            self.log_command.as_ref().and_then(LogCommand::pid),
            self.trial_pid(),
        ];
        let ours =
            |pid| self.workers().any(|worker| worker.pid() == pid) || helpers.contains(&Some(pid));
        while let Ok(Reaped::Stranger) = reap_stranger(ours) {}
    }

    fn buried(&mut self, worker: Worker, exit: Exit) {
        let status = if exit == Exit::Unknown {
            "unknown".into()
        } else {
            exit.raw().to_string()
        };
        if self.stopping {
            self.log.line(format_args!(
                "worker {} died, status:{status}",
                worker.pid()
            ));
        } else {
            self.log.line(format_args!(
                "old worker {} died, status:{status}",
                worker.pid()
            ));
        }
        self.write_status();
        self.look_after_what_is_left(worker);
    }

    fn look_after_what_is_left(&mut self, worker: Worker) {
        // A process that has ended is there to be seen for ever.
        let _ = self.watch.remove(&worker.process);
        let grace = self.options.stop_timeout;
        let kill_at = worker.kill_at.or(grace.map(|grace| Moment::now() + grace));
        let left = Leftovers::of(worker.process, worker.cgroup, kill_at);
        if let Some(left) = left.as_ref().filter(|_| self.stopping) {
            left.signal_strays(self.options.signal_on_term);
        }
        self.leftovers.extend(left);
    }

    fn current_died(&mut self, worker: Worker, exit: Exit) {
        // The old generation has not been told yet: it takes over again.
        if self.kill_old_at.take().is_some()
            && let Some(index) = self.old.iter().rposition(|old| old.phase == Phase::Old)
        {
            let mut before = self.old.remove(index);
            before.phase = Phase::Serving;
            self.current = Some(before);
            self.log.line(format_args!(
                "new worker {} seems to have failed to start, exit status:{}",
                worker.pid(),
                exit.raw()
            ));
            self.restarting = true;
            self.fail(
                worker.generation,
                worker.since,
                format!("{exit} before the old workers were told to end"),
                worker.mark,
            );
            self.write_status();
            self.look_after_what_is_left(worker);
            return;
        }
        self.log.line(format_args!(
            "worker {} died unexpectedly with status:{}, restarting",
            worker.pid(),
            exit.raw()
        ));
        if self.candidate.is_none() {
            // Whatever pause a failed restart has earned: now nobody serves.
            let soon = worker.since + self.options.interval.max(MIN_GAP);
            self.start_at = Some(self.start_at.map_or(soon, |at| at.min(soon)));
        }
        self.look_after_what_is_left(worker);
    }

    /// Does what is due.
    fn advance(&mut self) {
        let due = |at: Option<Moment>| at.is_some_and(|at| at <= Moment::now());
        for index in 0..self.old.len() {
            if due(self.old[index].kill_at) {
                self.log.line(format_args!(
                    "worker {} has not ended in time, sending KILL to it and what it has started",
                    self.old[index].pid()
                ));
                if let Err(error) = self.old[index].kill() {
                    self.log.line(format_args!(
                        "failed to kill worker {}: {}",
                        self.old[index].pid(),
                        reason(&error)
                    ));
                }
            }
        }
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

    /// Forgets what is gone of the workers that have ended, and kills what should be.
    fn sweep(&mut self) {
        self.leftovers.retain_mut(|left| !left.are_gone());
        let now = Moment::now();
        let is_due = |left: &&mut Leftovers| left.kill_at.is_some_and(|at| at <= now);
        for left in self.leftovers.iter_mut().filter(is_due) {
            self.log.line(format_args!(
                "what worker {} has started has not ended in time, sending KILL to it",
                left.pid()
            ));
            if let Err(error) = left.kill() {
                self.log.line(format_args!(
                    "failed to kill what worker {} has started: {}",
                    left.pid(),
                    reason(&error)
                ));
            }
        }
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

/// Everything that must not kill the super-daemon.
const WATCHED_SIGNALS: [Signal; 11] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::ALRM,
    Signal::USR1,
    Signal::USR2,
    Signal::CHLD,
    Signal::TTIN,
    Signal::TTOU,
    Signal::WINCH,
];
/// Keys of [`Watch`] beside the process ids.
const READINESS: u64 = 1 << 32;
/// The shortest time from one start to the next: `--interval=0` must not become a storm.
const MIN_GAP: Duration = Duration::from_millis(100);
/// What a worker that never got ready has to end, whatever `--stop-timeout` says.
const REJECT_GRACE: Duration = Duration::from_secs(5);
const SWEEP: Duration = Duration::from_millis(20);
const STATUS_RETRY: Duration = Duration::from_secs(5);
