use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use super::bucket::Bucket;
use super::commands::Pending;
use super::directory::Directory;
use super::host::Host;
use super::inbox::Inbox;
use super::program::Program;
use super::scan::Stamp;
use super::status::{ProgramStatus, Status};
use super::wakeup::Wakeup;
use crate::cli::failure::{Failure, reason};
use crate::cli::manager::Manager;
use crate::cli::moment::Moment;
use crate::cli::process::{Leftovers, Reaped, Signal, lineage, reap_stranger};
use crate::cli::succession::{Invocation, Trial};
use crate::cli::watch::Event;
use crate::notify::NotifyReceiver;
use crate::pid_file::PidFile;

/// Keeps the programs of a directory running.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(super) host: Host,
    pub(super) invocation: Invocation,
    pub(super) directory: Directory,
    pub(super) inbox: Inbox,
    pub(super) lock: PidFile,
    pub(super) wakeup: Wakeup,
    pub(super) notify: NotifyReceiver,
    pub(super) manager: Manager,
    pub(super) bucket: Bucket,
    pub(super) programs: Vec<Program>,
    /// Positions in `programs`, those first that are started first.
    pub(super) order: Vec<usize>,
    /// Where each program is in `programs`.
    pub(super) names: HashMap<Rc<str>, usize>,
    /// Which program a process belongs to.
    pub(super) owners: HashMap<i32, usize>,
    /// The files of the programs as they were when they were read.
    pub(super) files: BTreeMap<String, Stamp>,
    /// Files that are no programs, and why.
    pub(super) refused: BTreeMap<String, String>,
    /// Files to be read whatever they look like.
    pub(super) touched: BTreeSet<String>,
    pub(super) scan_programs: bool,
    pub(super) scan_inbox: bool,
    /// When it is looked again, after something could not be read or written.
    pub(super) scan_at: Option<Moment>,
    pub(super) pending: Vec<Pending>,
    /// What the inbox holds that is no command and stays there.
    pub(super) told: BTreeSet<OsString>,
    /// Answers given since old ones were removed.
    pub(super) answers: u32,
    /// What processes that have ended have left.
    pub(super) leftovers: Vec<Leftovers>,
    pub(super) since: u64,
    pub(super) status_at: Moment,
    pub(super) status_failed: bool,
    /// When the next start may be made, if one waits for that.
    pub(super) start_at: Option<Moment>,
    pub(super) starts_waiting: usize,
    pub(super) stopping: bool,
    pub(super) upgrade: bool,
    /// The commands to upgrade that have led here, and are to be answered.
    pub(super) upgraded: Vec<OsString>,
    pub(super) trial: Option<Trial>,
}

impl Supervisor {
    /// Runs until it is told to end and everything has ended.
    pub(super) fn run(&mut self) -> Result<ExitCode, Failure> {
        let mut events = Vec::new();
        loop {
            self.advance();
            self.publish();
            if self.stopping && self.is_over() {
                self.finish();
                return Ok(ExitCode::SUCCESS);
            }
            self.host
                .watch
                .wait(self.deadline(), &mut events)
                .map_err(|error| Failure::io("failed to wait for events", &error))?;
            let mut reap = false;
            for event in events.drain(..) {
                match event {
                    Event::Signal(Signal::CHLD) => reap = true,
                    Event::Signal(signal) => self.receive(signal),
                    Event::Readable(NOTIFY) => self.hear(),
                    Event::Readable(WAKEUP) => {
                        let seen = self.wakeup.read();
                        self.scan_programs |= seen.programs;
                        self.scan_inbox |= seen.inbox;
                        self.touched.extend(seen.names);
                    }
                    Event::Readable(pid) => {
                        if let Ok(pid) = i32::try_from(pid) {
                            self.bury(pid);
                        }
                    }
                }
            }
            if reap {
                self.reap_strangers();
            }
        }
    }

    fn receive(&mut self, signal: Signal) {
        match signal {
            Signal::INT | Signal::TERM | Signal::QUIT if !self.stopping => {
                self.host
                    .log
                    .line(format_args!("received {signal}, stopping all programs"));
                self.stopping = true;
                self.manager.stopping();
            }
            Signal::HUP => {
                self.host
                    .log
                    .line("received HUP, reading all programs again");
                self.touched.extend(self.files.keys().cloned());
                (self.scan_programs, self.scan_inbox) = (true, true);
            }
            Signal::USR2 if !self.stopping => self.upgrade = true,
            _ => {}
        }
    }

    /// Does what is due.
    fn advance(&mut self) {
        let now = Moment::now();
        if self.scan_at.is_some_and(|at| at <= now) {
            self.scan_at = None;
            (self.scan_programs, self.scan_inbox) = (true, true);
        }
        if self.wakeup.is_due(now) {
            (self.scan_programs, self.scan_inbox) = (true, true);
        }
        if std::mem::take(&mut self.scan_programs) && !self.stopping {
            self.scan();
        }
        if std::mem::take(&mut self.scan_inbox) && !self.stopping {
            self.take_commands();
        }
        self.conclude_upgrade();
        // What a command has asked for is written down before it is done.
        let now = Moment::now();
        let needed = self.needed();
        for position in 0..self.programs.len() {
            let down = self.stopping && !needed.contains(&self.programs[position].name);
            self.advance_program(position, down, now);
        }
        self.kill_leftovers(now);
        self.sweep();
        self.start();
        self.answer();
        if self.upgrade && self.trial.is_none() {
            self.request_upgrade();
        }
        self.manager.keep_alive();
    }

    fn advance_program(&mut self, position: usize, down: bool, now: Moment) {
        let program = &mut self.programs[position];
        program.advance(now, &self.host);
        let overdue = |at: Option<Moment>| at.is_some_and(|at| at <= now);
        let unknown: Vec<i32> = program
            .instances
            .iter()
            .filter(|instance| overdue(instance.verdict_at))
            .filter_map(super::instance::Instance::pid)
            .collect();
        for pid in unknown {
            self.bury(pid);
        }
        let program = &mut self.programs[position];
        if program.is_counted() && !self.stopping {
            let (name, recipe) = (Rc::clone(&program.name), Rc::clone(&program.recipe));
            if let Some(counter) = program.counter_mut()
                && let Some(pid) = counter.advance(&name, &recipe, &self.host)
            {
                self.owners.insert(pid, position);
            }
        }
        program.look_after_log(&self.host);
        let log = program.log_pid();
        self.owners.extend(log.map(|pid| (pid, position)));
        program.reconcile(down, &self.host);
    }

    /// Returns the programs that something depends on that still runs, if the
    /// fleet is to end.
    fn needed(&self) -> HashSet<Rc<str>> {
        if !self.stopping {
            return HashSet::new();
        }
        let running = self.programs.iter().filter(|program| !program.is_down());
        running
            .flat_map(|program| &program.recipe.definition.depends_on)
            .map(|name| name.as_str().into())
            .collect()
    }

    /// Returns the program of this name, unless its file is gone.
    pub(super) fn find(&self, name: &str) -> Option<&Program> {
        let program = &self.programs[*self.names.get(name)?];
        (!program.removed).then_some(program)
    }

    /// Starts what is to be started, as far as there is room.
    fn start(&mut self) {
        let now = Moment::now();
        self.start_at = None;
        self.starts_waiting = 0;
        if self.stopping {
            return;
        }
        let mut room = BATCH;
        for index in 0..self.order.len() {
            let position = self.order[index];
            let wants = |program: &Program| {
                program
                    .instances
                    .iter()
                    .any(|instance| instance.machine.wants_start(now))
            };
            if !wants(&self.programs[position]) {
                if self.programs[position].waiting_for.take().is_some() {
                    self.host.changed.set(true);
                }
                continue;
            }
            let waiting_for = self.missing(position);
            let program = &mut self.programs[position];
            if program.waiting_for != waiting_for {
                if let Some(on) = &waiting_for {
                    self.host
                        .log
                        .line(format_args!("{} waits for {on}", program.name));
                }
                program.waiting_for = waiting_for;
                self.host.changed.set(true);
            }
            for slot in 0..program.instances.len() {
                let machine = &program.instances[slot].machine;
                if !machine.wants_start(now) {
                    continue;
                }
                if !machine.is_again() && program.waiting_for.is_some() {
                    continue;
                }
                if room == 0 {
                    self.start_at = Some(now);
                    self.starts_waiting += 1;
                    continue;
                }
                if !self.bucket.take(now) {
                    self.start_at = Some(self.bucket.next(now));
                    room = 0;
                    self.starts_waiting += 1;
                    continue;
                }
                room -= 1;
                let started = program.start(slot, &self.host);
                let pids = started.into_iter().chain(program.log_pid());
                self.owners.extend(pids.map(|pid| (pid, position)));
            }
            // What is up at once is what the next one to be replaced has waited for.
            self.programs[position].reconcile(false, &self.host);
        }
    }

    /// Returns what the program has to wait for, if anything.
    fn missing(&self, position: usize) -> Option<String> {
        let depends_on = &self.programs[position].recipe.definition.depends_on;
        depends_on
            .iter()
            .find(|on| !self.find(on).is_some_and(Program::is_up))
            .cloned()
    }

    /// Takes note of the end of a process.
    fn bury(&mut self, pid: i32) {
        if self
            .trial
            .as_ref()
            .is_some_and(|trial| trial.process.pid() == pid)
        {
            return;
        }
        let Some(&position) = self.owners.get(&pid) else {
            return;
        };
        let program = &mut self.programs[position];
        if program.counter_pid() == Some(pid) {
            let name = Rc::clone(&program.name);
            if let Some(counter) = program.counter_mut() {
                counter.hear(&name, &self.host);
                if counter.pid().is_none() {
                    self.owners.remove(&pid);
                }
            }
            return;
        }
        if program.log_pid() == Some(pid) {
            // It is looked after with everything else.
            return;
        }
        if let Some(ended) = program.bury(pid, &self.host) {
            self.owners.remove(&ended.pid);
            self.leftovers.extend(ended.left);
        }
    }

    /// Reaps children that nobody here started: orphans, if this is the first
    /// process of a container.
    fn reap_strangers(&self) {
        let trial = self.trial.as_ref().map(|trial| trial.process.pid());
        let ours = |pid: i32| {
            let owner = self.owners.get(&pid);
            owner.is_some_and(|position| self.programs[*position].has(pid)) || trial == Some(pid)
        };
        while let Ok(Reaped::Stranger) = reap_stranger(ours) {}
    }

    /// Looks after what processes have left, and kills what does not end in time.
    fn kill_leftovers(&mut self, now: Moment) {
        self.leftovers.retain_mut(|left| {
            let is_due = left.kill_at.is_some_and(|at| at <= now);
            if !is_due && !is_looked_after(left, self.stopping) {
                return true;
            }
            if left.are_gone() {
                left.forget();
                return false;
            }
            if is_due {
                if !left.are_a_zombie() {
                    self.host.log.line(format_args!(
                        "sending KILL to what process {} has left",
                        left.pid()
                    ));
                }
                // It fails only if there is nothing left.
                let _ = left.kill();
            }
            // What does not even end when it is killed is left to the kernel.
            let stays = left.kill_at.is_some() || left.are_fresh();
            if !stays {
                left.forget();
            }
            stays
        });
    }

    /// Takes messages from the programs.
    fn hear(&mut self) {
        loop {
            let notification = match self.notify.receive() {
                Ok(Some(notification)) => notification,
                Ok(None) => return,
                Err(error) => {
                    self.host.log.line(format_args!(
                        "failed to receive from the programs: {}",
                        reason(&error)
                    ));
                    return;
                }
            };
            let message = &notification.message;
            let means_us = ["READY", "STATUS", "EXTEND_TIMEOUT_USEC"];
            if means_us.iter().all(|key| message.value(key).is_none()) {
                continue;
            }
            let found = lineage(notification.pid.cast_signed())
                .flat_map(|(pid, group)| [pid, group])
                .find_map(|pid| Some((pid, *self.owners.get(&pid)?)));
            let Some((pid, position)) = found else {
                self.host.log.line(format_args!(
                    "ignored a notification from process {}, which is no program's",
                    notification.pid
                ));
                continue;
            };
            let program = &mut self.programs[position];
            let name = Rc::clone(&program.name);
            if let Some(instance) = program
                .instances
                .iter_mut()
                .find(|instance| instance.pid() == Some(pid))
            {
                instance.hear(message, &name, &self.host);
            }
        }
    }

    /// Forgets the programs whose files are gone when the last of them has ended.
    fn sweep(&mut self) {
        let over = |program: &Program| program.removed && program.instances.is_empty();
        if !self.programs.iter().any(over) {
            return;
        }
        for program in self.programs.iter_mut().filter(|program| over(program)) {
            self.host
                .log
                .line(format_args!("{}: removed", program.name));
            program.forget(&self.host);
        }
        self.programs.retain(|program| !over(program));
        self.arrange();
        self.host.changed.set(true);
    }

    /// Finds the order of starts, and whose the processes are, after programs have
    /// come or gone.
    pub(super) fn arrange(&mut self) {
        let entries = self.programs.iter().map(|program| {
            let definition = &program.recipe.definition;
            (
                &*program.name,
                definition.priority,
                &definition.depends_on[..],
            )
        });
        let names = self.programs.iter().enumerate();
        self.names = names
            .map(|(position, program)| (Rc::clone(&program.name), position))
            .collect();
        self.order = match super::order::order(entries) {
            Ok(names) => names.iter().map(|name| self.names[*name]).collect(),
            // Definitions that make a circle are refused; this is none of those.
            Err(_) => (0..self.programs.len()).collect(),
        };
        self.owners.clear();
        for (position, program) in self.programs.iter().enumerate() {
            let pids = program
                .instances
                .iter()
                .filter_map(|instance| instance.pid());
            let others = program.counter_pid().into_iter().chain(program.log_pid());
            self.owners
                .extend(pids.chain(others).map(|pid| (pid, position)));
        }
    }

    fn deadline(&self) -> Option<Moment> {
        let status = self.host.changed.get().then_some(self.status_at);
        let fixed = [
            status,
            self.start_at,
            self.scan_at,
            self.wakeup.deadline(),
            self.manager.deadline(),
            self.trial.as_ref().map(|trial| trial.deadline),
            (self.scan_programs || self.scan_inbox).then(Moment::now),
        ];
        let soon = Moment::now() + TICK;
        let leftovers = self.leftovers.iter().map(|left| {
            let look = is_looked_after(left, self.stopping).then_some(soon);
            left.kill_at.into_iter().chain(look).min()
        });
        fixed
            .into_iter()
            .chain(self.programs.iter().map(Program::deadline))
            .chain(leftovers)
            .flatten()
            .min()
    }

    /// Writes the status file, if something has changed and the last time is a
    /// little ago.
    fn publish(&mut self) {
        if self.host.changed.get() && self.status_at <= Moment::now() {
            self.write_status();
        }
    }

    pub(super) fn write_status(&mut self) {
        let begun = Moment::now();
        self.host.changed.set(false);
        let refused = self.refused.iter().map(|(name, why)| ProgramStatus {
            name: name.clone(),
            error: Some(why.clone()),
            ..ProgramStatus::default()
        });
        let mut programs: Vec<_> = self
            .programs
            .iter()
            .map(Program::status)
            .chain(refused)
            .collect();
        programs.sort_by(|a, b| a.name.cmp(&b.name));
        let status = Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id().cast_signed(),
            since: self.since,
            starts_waiting: self.starts_waiting,
            programs,
        };
        let written = status.write(&self.directory.status());
        // Writing is never more than a part of what is done.
        self.status_at = Moment::now() + (begun.elapsed() * 10).max(STATUS_GAP);
        match written {
            Ok(()) => self.status_failed = false,
            Err(error) => {
                if !std::mem::replace(&mut self.status_failed, true) {
                    self.host.log.line(format_args!(
                        "failed to write {}: {}",
                        self.directory.status().display(),
                        reason(&error)
                    ));
                }
                self.host.changed.set(true);
                self.status_at = Moment::now() + AGAIN;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.programs.iter().all(Program::is_down) && self.leftovers.is_empty()
    }

    /// Leaves nothing behind that means something only while programs run.
    fn finish(&mut self) {
        self.write_status();
        for program in &mut self.programs {
            program.forget(&self.host);
        }
        // One that is left is replaced by the next supervisor.
        let _ = std::fs::remove_file(self.host.run.join(super::boot::NOTIFY_FILE));
        self.host.log.line("all programs have ended");
    }
}

/// Returns true if it is to be looked soon whether they are gone, of which nobody
/// tells: what was killed, and control groups, which are then removed.
fn is_looked_after(left: &Leftovers, stopping: bool) -> bool {
    stopping || left.kill_at.is_none() || (left.cgroup().is_some() && left.are_fresh())
}

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) dir: std::path::PathBuf,
    /// Starts a second, over all programs.
    pub(crate) rate: f64,
    /// Starts that may be made at once after a time of rest.
    pub(crate) burst: u32,
    pub(crate) log_format: crate::cli::log::LogFormat,
}

/// Runs a supervisor; `args` is how this program was called.
///
/// # Errors
///
/// Fails if it cannot begin, with what was attempted and why.
pub(crate) fn run(options: &Options, args: Vec<OsString>) -> Result<ExitCode, Failure> {
    Supervisor::boot(options, args)?.run()
}

/// Keys beside process ids.
pub(super) const NOTIFY: u64 = 1 << 32;
pub(super) const WAKEUP: u64 = (1 << 32) + 1;
/// How often it is looked whether groups have ended.
const TICK: Duration = Duration::from_millis(20);
/// Starts made before it is looked again what else has happened.
const BATCH: usize = 64;
/// The shortest time from one writing of the status to the next.
const STATUS_GAP: Duration = Duration::from_millis(50);
/// When a failed write is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(5);
