use std::io;
use std::rc::Rc;
use std::time::Duration;
use std::vec;

use super::counter::Counter;
use super::definition::{Instances, LogTarget};
use super::host::Host;
use super::instance::{Ended, Instance};
use super::memory::Memory;
use super::recipe::{Outlets, Recipe};
use super::state::{Event, State};
use super::status::ProgramStatus;
use crate::cli::failure::reason;
use crate::cli::log_command::LogCommand;
use crate::cli::moment::Moment;
use crate::cli::process::Signal;
use crate::cli::sockets::Sockets;

/// One program of the fleet with all its instances.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: Rc<str>,
    pub(crate) recipe: Rc<Recipe>,
    /// What of it is older is to be replaced.
    pub(crate) generation: u64,
    /// Its file is gone.
    pub(crate) removed: bool,
    /// It was stopped by a command.
    pub(crate) stopped: bool,
    scale: Option<u32>,
    // Few have these two, and there may be thousands of programs.
    counter: Option<Box<Counter>>,
    /// Why its file, as it is now, is not what runs.
    pub(crate) error: Option<String>,
    /// Why what is older is not replaced.
    pub(crate) halted: Option<String>,
    pub(crate) waiting_for: Option<String>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) log: Option<Box<LogCommand>>,
    pub(crate) sockets: Sockets,
    /// When it could not be written down what a supervisor after us has to know.
    remember_at: Option<Moment>,
    /// What was written down last, in short.
    remembered: u64,
}

impl Program {
    /// A program whose file is new, or that was left to us.
    pub(crate) fn new(name: &str, recipe: Rc<Recipe>, memory: Option<&Memory>) -> Self {
        let autostart = recipe.definition.autostart;
        let counter = Counter::of(&recipe.definition.instances).map(Box::new);
        Self {
            name: name.into(),
            recipe,
            generation: memory.map_or(1, |memory| memory.generation),
            removed: false,
            stopped: memory.map_or(!autostart, |memory| memory.stopped),
            scale: memory.and_then(|memory| memory.scale),
            counter,
            error: None,
            halted: None,
            waiting_for: None,
            instances: Vec::new(),
            log: None,
            sockets: Sockets::default(),
            remember_at: Some(Moment::now()),
            remembered: 0,
        }
    }

    /// Goes over to another definition.
    pub(crate) fn redefine(&mut self, recipe: Rc<Recipe>, host: &Host) {
        self.error = None;
        let before = std::mem::replace(&mut self.recipe, recipe);
        let definition = &self.recipe.definition;
        if definition.instances != before.definition.instances {
            self.counter = Counter::of(&definition.instances).map(Box::new);
            self.scale = None;
        }
        if self.removed {
            self.stopped = !definition.autostart;
            self.scale = None;
        }
        self.removed = false;
        if self.recipe.makes_another(&before) {
            self.renew();
            host.log.line(format_args!(
                "{}: its file has changed, generation {} begins",
                self.name, self.generation
            ));
        } else {
            for instance in &mut self.instances {
                if instance.generation == self.generation {
                    instance.recipe = Rc::clone(&self.recipe);
                }
            }
            host.log
                .line(format_args!("{}: its file has changed", self.name));
        }
        self.halted = None;
        self.remember();
        host.changed.set(true);
    }

    /// Begins a generation, which replaces what runs now.
    pub(crate) fn renew(&mut self) {
        self.generation += 1;
        self.halted = None;
        self.remember();
    }

    pub(crate) fn set_stopped(&mut self, stopped: bool) {
        self.stopped = stopped;
        self.remember();
    }

    pub(crate) fn set_scale(&mut self, count: u32) {
        self.scale = Some(count);
        self.remember();
    }

    /// Starts again what has come to an end.
    pub(crate) fn revive(&mut self, host: &Host) {
        for instance in &mut self.instances {
            if matches!(
                instance.state(),
                State::Fatal | State::Exited | State::Backoff
            ) && instance.machine.is_wanted()
            {
                instance.tell(Event::Start, &self.name, host, "it is asked for");
            }
        }
    }

    /// Returns how many instances there are to be; `None` if that is not known yet.
    pub(crate) fn count(&self) -> Option<u32> {
        match (&self.recipe.definition.instances, self.scale) {
            (_, Some(count)) => Some(count),
            (Instances::Count(count), None) => Some(*count),
            (Instances::Command { .. }, None) => {
                self.counter.as_ref().and_then(|counter| counter.count)
            }
        }
    }

    /// Returns true if whatever depends on it may start.
    pub(crate) fn is_up(&self) -> bool {
        let up = |count| self.places(count, Instance::is_up).all(|is_up| is_up);
        !self.stopped && !self.removed && self.count().is_some_and(up)
    }

    /// Tells of each place up to `count` whether one of its instances is such.
    fn places(&self, count: u32, is_such: impl Fn(&Instance) -> bool) -> vec::IntoIter<bool> {
        let mut places = vec![false; usize::try_from(count).unwrap_or(0)];
        for instance in self.instances.iter().filter(|instance| is_such(instance)) {
            let place = usize::try_from(instance.index).ok();
            if let Some(place) = place.and_then(|index| places.get_mut(index)) {
                *place = true;
            }
        }
        places.into_iter()
    }

    pub(crate) fn is_down(&self) -> bool {
        self.instances
            .iter()
            .all(|instance| instance.process.is_none())
    }

    /// Makes the instances what they are to be: as many as are wanted, of the
    /// generation that is wanted. `down` is true when the whole fleet ends.
    pub(crate) fn reconcile(&mut self, down: bool, host: &Host) {
        let now = Moment::now();
        let on = !self.stopped && !self.removed && !down;
        if !on || self.scale.is_some() {
            self.give_up_counting();
        }
        let highest = self
            .instances
            .iter()
            .map(|instance| instance.index + 1)
            .max();
        let count = if self.removed {
            0
        } else {
            // While it is not known how many are wanted, those stay that are there.
            self.count().or(highest).unwrap_or(0)
        };
        let whole = highest.unwrap_or(0) == count
            && usize::try_from(count).is_ok_and(|count| count <= self.instances.len());
        if !down && !whole {
            // Most programs are of one instance, and there are many programs.
            let room = usize::try_from(count).unwrap_or(0);
            self.instances
                .reserve_exact(room.saturating_sub(self.instances.len()));
            let missing = self.places(count, |_| true);
            let missing = (0..count).zip(missing).filter(|(_, is_there)| !is_there);
            for (index, _) in missing {
                let recipe = Rc::clone(&self.recipe);
                self.instances
                    .push(Instance::new(index, self.generation, recipe, now));
                host.changed.set(true);
            }
        }
        for instance in &mut self.instances {
            let wanted = on && instance.index < count && !instance.retired;
            if wanted && !instance.machine.is_wanted() {
                instance.tell(Event::Start, &self.name, host, "");
            } else if !wanted && instance.machine.is_wanted() {
                let why = if instance.retired {
                    "another generation serves"
                } else if self.removed {
                    "its file is gone"
                } else if down {
                    "the fleet ends"
                } else if self.stopped {
                    "it was stopped"
                } else {
                    "fewer are wanted"
                };
                instance.tell(Event::Stop, &self.name, host, why);
            }
        }
        if !on && self.is_down() {
            self.sockets.close();
        }
        // What has ended for good holds nothing up.
        self.forget_ended(count, host);
        if on && self.halted.is_none() {
            if self.recipe.definition.listen.is_empty() {
                self.roll(count, host);
            } else {
                self.hand_over(count, host);
            }
        }
        self.forget_ended(count, host);
    }

    fn forget_ended(&mut self, count: u32, host: &Host) {
        self.instances.retain(|instance| {
            let wanted = instance.index < count && !instance.retired;
            let stays = instance.process.is_some() || wanted;
            if !stays {
                host.changed.set(true);
            }
            stays
        });
    }

    /// Starts a new generation beside the one that serves, and ends the old one
    /// when all of the new one run.
    fn hand_over(&mut self, count: u32, host: &Host) {
        let generation = self.generation;
        let is_old = |instance: &Instance| instance.generation < generation;
        if !self
            .instances
            .iter()
            .any(|instance| is_old(instance) && !instance.retired)
        {
            if !self.instances.iter().any(is_old) {
                self.sockets
                    .keep(&self.recipe.socket_names(host).collect::<Vec<_>>());
            }
            return;
        }
        // What serves no more is no loss.
        self.instances.retain(|instance| {
            !is_old(instance) || instance.process.is_some() || instance.machine.is_moving()
        });
        let now = Moment::now();
        let missing = self.places(count, |instance| !is_old(instance));
        let missing = (0..count).zip(missing).filter(|(_, is_there)| !is_there);
        for (index, _) in missing {
            let recipe = Rc::clone(&self.recipe);
            let mut instance = Instance::new(index, generation, recipe, now);
            instance.tell(Event::Start, &self.name, host, "");
            self.instances.push(instance);
            host.changed.set(true);
        }
        let new = self.instances.iter().filter(|instance| !is_old(instance));
        let failed = new
            .clone()
            .find(|instance| instance.state() == State::Fatal);
        if let Some(failed) = failed {
            let why = format!(
                "instance {} of generation {generation} is FATAL: {}; the generation before goes on serving",
                failed.index,
                failed.exit.as_deref().unwrap_or("it did not come up")
            );
            host.log.line(format_args!("{}: {why}", self.name));
            self.halted = Some(why);
            self.retire(|instance| !is_old(instance), host);
        } else if new.clone().all(Instance::is_up) {
            host.log.line(format_args!(
                "{}: generation {generation} serves, stopping the one before",
                self.name
            ));
            self.retire(is_old, host);
        }
    }

    /// Ends instances for good.
    fn retire(&mut self, which: impl Fn(&Instance) -> bool, host: &Host) {
        for instance in self.instances.iter_mut().filter(|instance| which(instance)) {
            instance.retired = true;
            let why = "another generation serves";
            instance.tell(Event::Stop, &self.name, host, why);
        }
        host.changed.set(true);
    }

    /// Replaces what is of an older generation, some at a time.
    fn roll(&mut self, count: u32, host: &Host) {
        let (generation, recipe) = (self.generation, &self.recipe);
        let is_old = |instance: &Instance| instance.generation < generation;
        if !self.instances.iter().any(is_old) {
            return;
        }
        for instance in &mut self.instances {
            if is_old(instance) && instance.process.is_none() {
                (instance.generation, instance.recipe) = (generation, Rc::clone(recipe));
                instance.tell(Event::Replace, &self.name, host, "");
            }
        }
        if let Some(failed) = self
            .instances
            .iter()
            .find(|instance| !is_old(instance) && instance.state() == State::Fatal)
        {
            let left = self
                .instances
                .iter()
                .filter(|instance| is_old(instance))
                .count();
            if left > 0 {
                let why = format!(
                    "instance {} of generation {generation} is FATAL: {left} older go on running",
                    failed.index
                );
                host.log.line(format_args!("{}: {why}", self.name));
                self.halted = Some(why);
                host.changed.set(true);
            }
            return;
        }
        let moving = |instance: &Instance| {
            instance.machine.is_moving()
                && (!is_old(instance) || instance.state() == State::Stopping)
        };
        let moving = self
            .instances
            .iter()
            .filter(|instance| moving(instance))
            .count();
        let width = usize::try_from(count / ROLL_PART)
            .unwrap_or(usize::MAX)
            .max(1);
        let mut room = width.saturating_sub(moving);
        for instance in &mut self.instances {
            if room == 0 {
                break;
            }
            if is_old(instance) && matches!(instance.state(), State::Starting | State::Running) {
                room -= 1;
                instance.tell(Event::Replace, &self.name, host, "it is to be replaced");
            }
        }
    }

    /// Tells the instances that time has passed.
    pub(crate) fn advance(&mut self, now: Moment, host: &Host) {
        for instance in &mut self.instances {
            if instance.machine.deadline().is_some_and(|at| at <= now) {
                let lived = (now - instance.machine.started()).as_secs_f64();
                let why = match instance.state() {
                    State::Starting if instance.recipe.policy.ready_time.is_some() => {
                        format!("it is not ready after {lived:.1} secs")
                    }
                    State::Running => format!("it has lived for {lived:.1} secs"),
                    _ => String::new(),
                };
                instance.tell(Event::Due, &self.name, host, &why);
            }
            if instance.write_at.is_some_and(|at| at <= now) {
                instance.write(&self.name, host);
            }
        }
        if self.remember_at.is_some_and(|at| at <= now) {
            self.write_memory(host);
        }
    }

    /// Starts one of the instances.
    pub(crate) fn start(&mut self, position: usize, host: &Host) -> Option<i32> {
        let log = self.open_log(host);
        let instance = &mut self.instances[position];
        if self.remembered == 0 {
            // Without that, a supervisor after us would not know whose process it is.
            let why = "it is not started while its state cannot be written down".into();
            instance.postpone(&self.name, host, why);
            return None;
        }
        if let Err(error) = log {
            let why = format!("failed to make a pipe for the log: {}", reason(&error));
            instance.postpone(&self.name, host, why);
            return None;
        }
        if self.recipe.definition.listen.is_empty() {
            (instance.generation, instance.recipe) = (self.generation, Rc::clone(&self.recipe));
        }
        if let Err(why) = instance.recipe.open_sockets(&mut self.sockets, host) {
            instance.fail(&self.name, host, why);
            return None;
        }
        let outlets = Outlets {
            log: self.log.as_deref(),
            sockets: &self.sockets,
            generation: instance.generation,
        };
        instance.start(&self.name, host, outlets);
        host.changed.set(true);
        instance.pid()
    }

    /// Makes sure that somebody reads what the instances write.
    ///
    /// # Errors
    ///
    /// Fails if there is no room for the pipe.
    fn open_log(&mut self, host: &Host) -> io::Result<()> {
        let Some(LogTarget::Command(command)) = &self.recipe.definition.log else {
            self.close_log(host);
            return Ok(());
        };
        if self.log.as_ref().is_none_or(|log| log.command != *command) {
            self.log = Some(LogCommand::kept(command.clone())?.into());
            self.look_after_log(host);
        }
        Ok(())
    }

    /// Looks after the log command.
    pub(crate) fn look_after_log(&mut self, host: &Host) {
        if let Some(log) = &mut self.log
            && log.look_after(&host.log).is_some()
        {
            self.watch_log(host);
        }
    }

    /// Returns true if the process is one of its own.
    pub(crate) fn has(&self, pid: i32) -> bool {
        self.instances
            .iter()
            .any(|instance| instance.pid() == Some(pid))
            || self.counter_pid() == Some(pid)
            || self.log_pid() == Some(pid)
    }

    /// Takes note of the end of the instance with this process.
    pub(crate) fn bury(&mut self, pid: i32, host: &Host) -> Option<Ended> {
        let instance = self
            .instances
            .iter_mut()
            .find(|instance| instance.pid() == Some(pid))?;
        let ended = instance.bury(&self.name, host);
        if ended.is_some() && matches!(instance.state(), State::Exited | State::Fatal) {
            self.remember();
        }
        ended
    }

    /// Sends a signal to all instances, and returns to how many.
    pub(crate) fn signal(&self, signal: Signal) -> Result<usize, String> {
        let mut count = 0;
        for instance in &self.instances {
            if let Some(process) = &instance.process {
                process.signal(signal).map_err(|error| {
                    format!(
                        "failed to send {signal} to process {} of instance {}: {}",
                        process.pid(),
                        instance.index,
                        reason(&error)
                    )
                })?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Takes note of what is written down.
    pub(super) fn set_remembered(&mut self, memory: &Memory) {
        self.remembered = memory.digest();
    }

    /// Returns true if a command is asked, from time to time, how many instances
    /// there are to be.
    pub(crate) fn is_counted(&self) -> bool {
        let asks = !self.stopped && !self.removed && self.scale.is_none();
        asks && self.counter.is_some()
    }

    pub(crate) fn counter(&self) -> Option<&Counter> {
        self.counter.as_deref()
    }

    pub(crate) fn counter_mut(&mut self) -> Option<&mut Counter> {
        self.counter.as_deref_mut()
    }

    /// Returns the process that counts its instances just now.
    pub(crate) fn counter_pid(&self) -> Option<i32> {
        self.counter().and_then(Counter::pid)
    }

    /// Returns the process that reads what its instances write.
    pub(crate) fn log_pid(&self) -> Option<i32> {
        self.log.as_deref().and_then(LogCommand::pid)
    }

    pub(crate) fn deadline(&self) -> Option<Moment> {
        let counter = self.counter().filter(|_| self.is_counted());
        let counter = counter.and_then(Counter::deadline);
        let instances = self.instances.iter().filter_map(Instance::deadline).min();
        let log = self.log.as_deref().and_then(LogCommand::deadline);
        [counter, instances, self.remember_at, log]
            .into_iter()
            .flatten()
            .min()
    }

    /// Has what a supervisor after us has to know written down.
    fn remember(&mut self) {
        self.remember_at = Some(Moment::now());
    }

    /// Writes down what a supervisor after us has to know, if that has changed.
    pub(crate) fn write_memory(&mut self, host: &Host) {
        self.remember_at = None;
        let memory = self.memory(&host.boot);
        let digest = memory.digest();
        if digest == self.remembered {
            return;
        }
        match memory.write(&host.run, &self.name) {
            Ok(()) => self.remembered = digest,
            Err(error) => {
                host.log.line(format_args!(
                    "{}: failed to write down its state in {}: {}",
                    self.name,
                    host.run.display(),
                    reason(&error)
                ));
                self.remember_at = Some(Moment::now() + REMEMBER_AGAIN);
            }
        }
    }

    pub(crate) fn memory(&self, boot: &str) -> Memory {
        let ended = |instance: &Instance| {
            let state = instance.state();
            let ended =
                !instance.machine.is_moving() && matches!(state, State::Exited | State::Fatal);
            ended.then_some((instance.index, state))
        };
        Memory {
            boot: boot.into(),
            definition: self.recipe.text.to_string(),
            generation: self.generation,
            stopped: self.stopped,
            scale: self.scale,
            ended: self.instances.iter().filter_map(ended).collect(),
        }
    }

    /// Removes what would tell a supervisor after us of the program, which is gone.
    pub(crate) fn forget(&mut self, host: &Host) {
        self.remember_at = None;
        if let Err(error) = Memory::remove(&host.run, &self.name) {
            host.log.line(format_args!(
                "{}: failed to remove its state from {}: {}",
                self.name,
                host.run.display(),
                reason(&error)
            ));
        }
        self.counter = None;
        self.sockets.close();
        self.close_log(host);
    }

    /// Ends the command that counts the instances, if it runs just now.
    pub(crate) fn give_up_counting(&mut self) {
        if let Some(counter) = &mut self.counter {
            counter.give_up();
        }
    }

    /// Takes over what was counted last.
    pub(crate) fn set_counted(&mut self, count: Option<u32>) {
        if let Some(counter) = &mut self.counter {
            counter.count = count;
        }
    }

    pub(crate) fn status(&self) -> ProgramStatus {
        let mut instances: Vec<_> = self.instances.iter().map(Instance::status).collect();
        instances.sort_by_key(|instance| instance.index);
        let counter = self.counter().filter(|_| self.scale.is_none());
        let complaint = counter.and_then(|counter| counter.complaint.as_ref());
        ProgramStatus {
            name: self.name.as_ref().into(),
            wanted: self.count().unwrap_or(0),
            stopped: self.stopped,
            generation: self.generation,
            error: self
                .error
                .as_ref()
                .or(self.halted.as_ref())
                .or(complaint)
                .cloned(),
            waiting_for: self.waiting_for.clone(),
            instances,
        }
    }
}

/// A tenth of the instances is replaced at a time.
const ROLL_PART: u32 = 10;
const REMEMBER_AGAIN: Duration = Duration::from_secs(5);
