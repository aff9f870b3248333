use std::fs;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::definition::LogTarget;
use super::host::Host;
use super::note::Note;
use super::recipe::{Outlets, Recipe};
use super::state::{Action, Event, Machine, State};
use super::status::InstanceStatus;
use crate::cli::failure::reason;
use crate::cli::log::{printable, tail};
use crate::cli::log_command::LogCommand;
use crate::cli::log_tail::LogTail;
use crate::cli::moment::{Moment, unix_millis};
use crate::cli::process::{Certificate, Cgroup, Exit, Leftovers, Process, Signal};
use crate::notify::NotifyMessage;

/// One of the processes that a program consists of, or the place for it.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) index: u32,
    pub(crate) generation: u64,
    /// What its process was, or will be, made by.
    pub(crate) recipe: Rc<Recipe>,
    pub(crate) machine: Machine,
    pub(crate) process: Option<Process>,
    /// What holds the process and all that it has started.
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) starts: u64,
    /// When the state changed last, in milliseconds since 1970.
    pub(crate) since: u64,
    pub(crate) ready: bool,
    /// What it last said of itself.
    pub(crate) said: Option<String>,
    /// When it was told to end.
    told: Option<Moment>,
    /// Another generation serves: it ends for good.
    pub(crate) retired: bool,
    /// How its last process ended, or why there was none.
    pub(crate) exit: Option<String>,
    pub(crate) accepted: bool,
    pub(crate) output: Vec<String>,
    /// How long the log was when it was started.
    pub(super) mark: u64,
    /// The end of the log, if a command reads it.
    pub(super) tail: Option<Rc<LogTail>>,
    /// There may be room kept for a pid file.
    pub(super) has_room: bool,
    /// The pid file could not be brought up to date; tried again then.
    pub(crate) write_at: Option<Moment>,
    /// A process that is not our child has ended, and how is not known yet; nobody
    /// waits longer than that to be told.
    pub(crate) verdict_at: Option<Moment>,
}

/// A process that has ended, with what it has left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) pid: i32,
    /// What it has started and lives on.
    pub(crate) left: Option<Leftovers>,
}

impl Instance {
    /// A place where no process is yet.
    pub(crate) fn new(index: u32, generation: u64, recipe: Rc<Recipe>, now: Moment) -> Self {
        Self {
            index,
            generation,
            recipe,
            machine: Machine::new(now),
            process: None,
            cgroup: None,
            starts: 0,
            since: unix_millis(),
            ready: false,
            said: None,
            told: None,
            retired: false,
            exit: None,
            accepted: false,
            output: Vec::new(),
            mark: 0,
            tail: None,
            has_room: false,
            write_at: None,
            verdict_at: None,
        }
    }

    /// An instance whose supervisor was killed.
    ///
    /// # Errors
    ///
    /// Fails if the process cannot be watched.
    pub(crate) fn adopt(
        process: Process,
        note: &Note,
        recipe: Rc<Recipe>,
        host: &Host,
    ) -> io::Result<Self> {
        host.watch.add(&process, key(&process))?;
        let now = Moment::now();
        let mark = file_length(&recipe, host, &note.program);
        let machine = Machine::found(note.started, note.ready, &recipe.policy, now);
        Ok(Self {
            machine,
            process: Some(process),
            cgroup: note.cgroup(),
            starts: 1,
            ready: note.ready,
            mark,
            ..Self::new(note.index, note.generation, recipe, now)
        })
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
    }

    pub(crate) const fn state(&self) -> State {
        self.machine.state()
    }

    /// Returns true if it runs, and is ready if it has to be.
    pub(crate) fn is_up(&self) -> bool {
        match self.state() {
            State::Running => true,
            // What was to be done is done.
            State::Exited => self.accepted && !self.machine.is_moving(),
            _ => false,
        }
    }

    /// Tells the instance of an event, and does what it takes.
    pub(crate) fn tell(&mut self, event: Event, program: &str, host: &Host, why: &str) {
        let before = self.state();
        let (machine, action) = self.machine.step(event, Moment::now(), &self.recipe.policy);
        if machine == self.machine {
            return;
        }
        self.machine = machine;
        let name = format_args!("{program}:{}", self.index);
        if machine.state() != before {
            self.since = unix_millis();
            host.changed.set(true);
            let pid = self.pid();
            let dash = if why.is_empty() { "" } else { ": " };
            match pid {
                Some(pid) => host.log.line(format_args!(
                    "{name} {before} -> {}, pid {pid}{dash}{why}",
                    machine.state()
                )),
                None => host.log.line(format_args!(
                    "{name} {before} -> {}{dash}{why}",
                    machine.state()
                )),
            }
        }
        let Some(process) = &self.process else {
            let is_coming = self.machine.is_wanted() && self.machine.is_moving();
            if !is_coming && std::mem::take(&mut self.has_room) {
                let _ = fs::remove_file(Note::draft(&host.run, program, self.index));
            }
            return;
        };
        let done = match action {
            None => return,
            Some(Action::Terminate) => {
                self.told = Some(Moment::now());
                let signal = self.recipe.definition.stop_signal;
                // A stopped process would not see it.
                process
                    .signal(signal)
                    .and_then(|()| process.signal(Signal::CONT))
            }
            Some(Action::Kill) => {
                // Its time may be longer, if it has asked for more.
                let time = match self.told {
                    Some(told) => told.elapsed(),
                    None => self.recipe.policy.stop_time,
                };
                host.log.line(format_args!(
                    "{name} has not ended within {:.1} secs, sending KILL to it and what it has started",
                    time.as_secs_f64()
                ));
                process.kill_all(self.cgroup.as_ref())
            }
        };
        match done {
            // It has ended just now.
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
            Err(error) => host.log.line(format_args!(
                "{name}: failed to signal process {}: {}",
                process.pid(),
                reason(&error)
            )),
            Ok(()) => {}
        }
    }

    /// Makes the process.
    pub(crate) fn start(&mut self, program: &str, host: &Host, outlets: Outlets<'_>) {
        self.generation = outlets.generation;
        let started = Moment::now();
        self.cgroup = host.cgroup_for(program, self.index);
        let note = self.note(program, started, false);
        let path = Note::path(&host.run, program, self.index, self.generation);
        let draft = Note::draft(&host.run, program, self.index);
        let certificate = match Certificate::prepare(&path, &draft, &note.write()) {
            Ok(certificate) => certificate,
            Err(error) => {
                // A supervisor after us would start it a second time.
                let why = format!(
                    "it is not started while it cannot be written down in {}: {}",
                    path.display(),
                    reason(&error)
                );
                self.remove_cgroup();
                self.postpone(program, host, why);
                return;
            }
        };
        self.has_room = true;
        self.listen_to(outlets.log);
        if self.tail.is_none() {
            self.mark = file_length(&self.recipe, host, program);
        }
        let recipe = Rc::clone(&self.recipe);
        let made = recipe.spawn(
            host,
            program,
            self.index,
            &certificate,
            self.cgroup.as_ref(),
            outlets,
        );
        match made {
            Ok(process) => {
                self.starts += 1;
                (self.exit, self.ready, self.told) = (None, false, None);
                self.output = Vec::new();
                self.has_room = false;
                let watched = host.watch.add(&process, key(&process));
                self.process = Some(process);
                self.tell(Event::Spawned, program, host, "");
                if let Err(error) = watched {
                    // It could not be told when it ends.
                    host.log.line(format_args!(
                        "{program}:{}: failed to watch the process: {}",
                        self.index,
                        reason(&error)
                    ));
                    self.tell(Event::Replace, program, host, "it cannot be watched");
                }
            }
            Err(refusal) => {
                Certificate::keep_room(&path, &draft);
                self.remove_cgroup();
                let event = Event::SpawnFailed { own: refusal.own };
                self.accepted = false;
                self.tell(event, program, host, &refusal.reason);
                self.exit = Some(refusal.reason);
            }
        }
    }

    /// Removes the control group, in which nothing is.
    fn remove_cgroup(&mut self) {
        if let Some(cgroup) = self.cgroup.take() {
            let _ = cgroup.remove();
        }
    }

    /// Returns true if its output goes through the pipe of this log command.
    pub(crate) fn writes_to(&self, log: &LogCommand) -> bool {
        matches!(&self.recipe.definition.log, Some(LogTarget::Command(own)) if *own == log.command)
    }

    /// Knows from now on what comes through the pipe of a log command.
    pub(crate) fn listen_to(&mut self, log: Option<&LogCommand>) {
        self.tail = log.and_then(|log| log.tail.clone());
        if let Some(tail) = &self.tail {
            self.mark = tail.written();
        }
    }

    /// Takes note that no process can be made.
    pub(crate) fn fail(&mut self, program: &str, host: &Host, why: String) {
        self.accepted = false;
        self.tell(Event::SpawnFailed { own: true }, program, host, &why);
        self.exit = Some(why);
    }

    /// Takes note that there is no room for a process now.
    pub(crate) fn postpone(&mut self, program: &str, host: &Host, why: String) {
        self.accepted = false;
        self.tell(Event::SpawnFailed { own: false }, program, host, &why);
        self.exit = Some(why);
    }

    /// Takes note of what the process says.
    pub(crate) fn hear(&mut self, message: &NotifyMessage, program: &str, host: &Host) {
        if let Some(text) = message.value("STATUS")
            && self.said.as_deref() != Some(text)
        {
            self.said = Some(text.into());
            host.changed.set(true);
        }
        if let Some(micros) = message.value("EXTEND_TIMEOUT_USEC")
            && let Ok(micros) = micros.parse()
        {
            let by = Duration::from_micros(micros);
            self.tell(Event::Extend { by }, program, host, "");
        }
        if !message.is_ready() || self.ready {
            return;
        }
        self.ready = true;
        self.tell(Event::Ready, program, host, "it is ready");
        self.write(program, host);
    }

    /// Writes the pid file again.
    pub(crate) fn write(&mut self, program: &str, host: &Host) {
        self.write_at = None;
        let Some(process) = &self.process else {
            return;
        };
        let path = Note::path(&host.run, program, self.index, self.generation);
        let note = self.note(program, self.machine.started(), self.ready);
        match Certificate::issue(&path, process, &note.write()) {
            Err(error) if !process.has_ended().unwrap_or(true) => {
                host.log.line(format_args!(
                    "{program}:{}: failed to write {}: {}",
                    self.index,
                    path.display(),
                    reason(&error)
                ));
                self.write_at = Some(Moment::now() + WRITE_AGAIN);
            }
            _ => {}
        }
    }

    /// Takes note of the end of the process, if it has come.
    pub(crate) fn bury(&mut self, program: &str, host: &Host) -> Option<Ended> {
        let process = self.process.as_ref()?;
        if !process.has_ended().unwrap_or(true) {
            return None;
        }
        let now = Moment::now();
        let stop_signal = self.recipe.definition.stop_signal;
        // While the number of its group is still its own. It fails if nothing is left, or if
        // that is not so any more.
        let told = process.signal_group(stop_signal).is_ok();
        // Somebody else took its status; it has ended all the same.
        let exit = process.try_wait().unwrap_or(Some(Exit::Unknown))?;
        if exit == Exit::Unknown && !process.is_child() && !self.is_overdue(now, host) {
            return None;
        }
        self.verdict_at = None;
        let process = self.process.take()?;
        // Kept for what is left, its descriptor would go on telling that it has ended.
        let _ = host.watch.remove(&process);
        let pid = process.pid();
        let kill_at = now + self.recipe.policy.stop_time;
        let mut left = Leftovers::of(process, self.cgroup.take(), Some(kill_at));
        let path = Note::path(&host.run, program, self.index, self.generation);
        if let Some(left) = &mut left {
            // The room of the file itself is for the next process.
            let to = Note::left(&path, pid);
            left.note = fs::copy(&path, &to).is_ok().then_some(to);
            if told {
                left.signal_strays(stop_signal);
            } else {
                left.signal(stop_signal);
            }
        }
        Certificate::keep_room(&path, &Note::draft(&host.run, program, self.index));
        (self.write_at, self.has_room) = (None, true);
        (self.ready, self.said) = (false, None);
        self.accepted = self.recipe.accepts(exit);
        let lived = now - self.machine.started();
        let why = format!(
            "process {pid} {exit}{} after {:.1} secs",
            match exit {
                Exit::Code(_) if !self.accepted => ", which is not accepted,",
                _ => "",
            },
            lived.as_secs_f64()
        );
        let was = self.state();
        if !self.accepted && was != State::Stopping {
            self.output = match (&self.tail, self.recipe.log_file(host, program)) {
                (Some(tail), _) => tail.since(self.mark),
                (None, Some(file)) => tail(&file, self.mark),
                (None, None) => Vec::new(),
            };
        }
        self.exit = Some(why);
        let why = self.exit.clone().unwrap_or_default();
        let event = Event::Ended {
            accepted: self.accepted,
        };
        self.tell(event, program, host, &why);
        for line in &self.output {
            host.log.line(format_args!(
                "{program}:{} | {}",
                self.index,
                printable(line)
            ));
        }
        Some(Ended { pid, left })
    }

    /// Takes note that the process is gone, and nobody knows how it ended.
    pub(crate) fn lose(&mut self, program: &str, host: &Host) {
        self.accepted = false;
        let event = Event::Ended { accepted: false };
        let why = "its process is gone";
        self.tell(event, program, host, why);
        self.exit = Some(why.into());
    }

    /// Returns true if how a process ended that is not our child will not be told
    /// any more: the kernel tells it when whoever is its parent has reaped it.
    fn is_overdue(&mut self, now: Moment, host: &Host) -> bool {
        let Some(process) = &self.process else {
            return true;
        };
        if process.is_reaped() {
            return true;
        }
        match self.verdict_at {
            None => {
                let waits = host.watch.await_hang_up(process, key(process));
                self.verdict_at = Some(now + VERDICT);
                waits.is_err()
            }
            Some(at) => at <= now,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        [self.machine.deadline(), self.write_at, self.verdict_at]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn status(&self) -> InstanceStatus {
        InstanceStatus {
            index: self.index,
            state: self.state(),
            pid: self.pid(),
            since: self.since,
            ready: self.ready,
            status: self.said.clone(),
            starts: self.starts,
            exit: self.exit.clone(),
            output: self.output.clone(),
        }
    }

    fn note(&self, program: &str, started: Moment, ready: bool) -> Note {
        Note {
            program: program.into(),
            index: self.index,
            generation: self.generation,
            started,
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.path().to_owned()),
            ready,
        }
    }
}

/// The key of a process beside those of [`Watch`](crate::cli::watch::Watch)'s other things.
pub(crate) fn key(process: &Process) -> u64 {
    u64::from(process.pid().unsigned_abs())
}

fn file_length(recipe: &Recipe, host: &Host, program: &str) -> u64 {
    recipe
        .log_file(host, program)
        .and_then(|path| fs::metadata(path).ok())
        .map_or(0, |metadata| metadata.len())
}

const WRITE_AGAIN: Duration = Duration::from_secs(5);
/// How long the parent of an adopted process may take to reap it.
const VERDICT: Duration = Duration::from_secs(1);
