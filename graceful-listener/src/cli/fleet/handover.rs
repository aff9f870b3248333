use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::definition::Definition;
use super::instance::{Instance, key};
use super::memory::Memory;
use super::program::Program;
use super::recipe::Recipe;
use super::state::Machine;
use super::supervisor::Supervisor;
use crate::cli::descriptor;
use crate::cli::failure::{Failure, reason};
use crate::cli::log_command::{LogCommand, LogRecord};
use crate::cli::moment::Moment;
use crate::cli::process::{Cgroup, Leftovers, Process};
use crate::cli::sockets::{Held, HeldFile};
use crate::cli::succession::{self, Succession, Verdict, refusal};
use crate::ports::PortName;

/// The state of a supervisor for the program that it executes in its own place.
///
/// Fields may be added, with defaults for what an older program did not write.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    /// The version of the program that wrote it.
    version: String,
    pub(super) lock: RawFd,
    pub(super) notify: RawFd,
    since: u64,
    /// The commands that have asked for it.
    #[serde(default)]
    commands: Vec<OsString>,
    programs: Vec<ProgramRecord>,
    #[serde(default)]
    leftovers: Vec<LeftoverRecord>,
}

#[derive(Debug, Deserialize, Serialize)]
struct ProgramRecord {
    name: String,
    memory: Memory,
    #[serde(default)]
    removed: bool,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    halted: Option<String>,
    #[serde(default)]
    counted: Option<u32>,
    #[serde(default)]
    log: Option<LogRecord>,
    #[serde(default)]
    sockets: Vec<SocketRecord>,
    instances: Vec<InstanceRecord>,
}

#[derive(Debug, Deserialize, Serialize)]
struct SocketRecord {
    name: OsString,
    descriptor: RawFd,
    file: Option<(PathBuf, u64, u64)>,
}

#[derive(Debug, Deserialize, Serialize)]
struct InstanceRecord {
    index: u32,
    generation: u64,
    /// Its definition, if it is not its program's.
    #[serde(default)]
    definition: Option<String>,
    #[serde(default)]
    retired: bool,
    machine: Machine,
    pid: Option<i32>,
    /// It was not started by this supervisor, but adopted.
    adopted: bool,
    #[serde(default)]
    cgroup: Option<PathBuf>,
    starts: u64,
    since: u64,
    ready: bool,
    #[serde(default)]
    said: Option<String>,
    exit: Option<String>,
    accepted: bool,
    output: Vec<String>,
    mark: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct LeftoverRecord {
    pid: i32,
    pidfd: Option<RawFd>,
    /// Those that are left, where the pidfd does not reach them.
    #[serde(default)]
    members: Vec<i32>,
    #[serde(default)]
    cgroup: Option<PathBuf>,
    #[serde(default)]
    note: Option<PathBuf>,
    at: Option<Moment>,
}

impl Supervisor {
    /// Asks the program that is now under our name whether it can take over.
    pub(super) fn request_upgrade(&mut self) {
        self.upgrade = false;
        self.host.log.line(format_args!(
            "upgrade: trying {}",
            self.invocation.program.display()
        ));
        let trial = succession::write(NAME, &self.record())
            .and_then(|record| SUCCESSION.try_program(&self.invocation, &record))
            .and_then(|trial| {
                let key = key(&trial.process);
                self.host.watch.add(&trial.process, key).map(|()| trial)
            });
        match trial {
            Ok(trial) => self.trial = Some(trial),
            Err(error) => {
                let why = refusal(&self.invocation, &error);
                self.host.log.line(&why);
                self.fail_upgrade(&why);
            }
        }
    }

    /// Looks whether the new program has answered, and makes way for it if it has.
    pub(super) fn conclude_upgrade(&mut self) {
        let why = match SUCCESSION.verdict(&mut self.trial) {
            None => return,
            Some(_) if self.stopping => "the fleet ends".into(),
            Some(Verdict::Unable(why)) => format!(
                "{} cannot take over: it {why}; going on with the old program",
                self.invocation.program.display()
            ),
            Some(Verdict::Able) => self.execute(),
        };
        self.host.log.line(&why);
        self.fail_upgrade(&why);
    }

    /// Becomes the new program. Returns only if that fails, with the reason.
    fn execute(&mut self) -> String {
        for program in &mut self.programs {
            program.give_up_counting();
            program.write_memory(&self.host);
        }
        let record = match succession::write(NAME, &self.record()) {
            Ok(record) => record,
            Err(error) => return refusal(&self.invocation, &error),
        };
        self.host.log.line(format_args!(
            "executing {}",
            self.invocation.program.display()
        ));
        let mut kept: Vec<BorrowedFd<'_>> = vec![self.lock.as_fd(), self.notify.as_fd()];
        let left = self.leftovers.iter().filter_map(Leftovers::process);
        kept.extend(left.map(AsFd::as_fd));
        for program in &self.programs {
            kept.extend(program.sockets.iter().map(|held| held.fd.as_fd()));
        }
        for log in self
            .programs
            .iter()
            .filter_map(|program| program.log.as_ref())
        {
            kept.extend(log.descriptors());
        }
        let error = SUCCESSION.execute(&self.invocation, &record, kept);
        refusal(&self.invocation, &error)
    }

    fn record(&self) -> Record {
        Record {
            version: env!("CARGO_PKG_VERSION").into(),
            lock: self.lock.as_fd().as_raw_fd(),
            notify: self.notify.as_fd().as_raw_fd(),
            since: self.since,
            commands: self.upgrades(),
            programs: self
                .programs
                .iter()
                .map(|program| program.record(&self.host.boot))
                .collect(),
            leftovers: self.leftovers.iter().map(LeftoverRecord::new).collect(),
        }
    }

    /// Goes on where the program that executed this one has stopped.
    pub(super) fn take_up(&mut self, record: Record) -> Result<(), Failure> {
        self.since = record.since;
        self.upgraded = record.commands;
        for program in record.programs {
            self.take_up_program(program)?;
        }
        for leftover in record.leftovers {
            self.leftovers.push(leftover.take_up());
        }
        self.host.log.line(format_args!(
            "fleet {} goes on after {}",
            env!("CARGO_PKG_VERSION"),
            record.version
        ));
        Ok(())
    }

    fn take_up_program(&mut self, record: ProgramRecord) -> Result<(), Failure> {
        let file = self
            .directory
            .programs()
            .join(format!("{}.toml", record.name));
        let recipe = Recipe::parse(&file, &record.memory.definition)
            .map_err(|why| Failure::new(format!("{}: cannot go on with it: {why}", record.name)))?;
        let mut program = Program::new(&record.name, recipe, Some(&record.memory));
        program.removed = record.removed;
        program.error = record.error;
        program.halted = record.halted;
        program.set_counted(record.counted);
        if let Some(log) = record.log {
            let log = LogCommand::take_up(log)
                .map_err(|error| Failure::io("failed to take over a log", &error))?;
            program.log = Some(log.into());
            program.watch_log(&self.host);
        }
        for socket in record.sockets {
            program.sockets.push(socket.take_up()?);
        }
        for record in record.instances {
            let own = record.definition.as_ref();
            let own = own.and_then(|text| Recipe::parse(&file, text).ok());
            let recipe = own.unwrap_or_else(|| Rc::clone(&program.recipe));
            let mut instance =
                Instance::new(record.index, record.generation, recipe, Moment::now());
            instance.take_up(&record);
            instance.has_room = record.pid.is_none();
            let log = program.log.as_deref().filter(|log| instance.writes_to(log));
            instance.tail = log.and_then(|log| log.tail.clone());
            if let Some(pid) = record.pid {
                let process = Process::resume(pid, record.adopted);
                let process = process.and_then(|process| {
                    self.host.watch.add(&process, key(&process))?;
                    Ok(process)
                });
                match process {
                    Ok(process) => instance.process = Some(process),
                    Err(error) => {
                        self.host.log.line(format_args!(
                            "{}:{}: process {pid} is gone: {}",
                            program.name,
                            record.index,
                            reason(&error)
                        ));
                        let kill_at = Moment::now() + instance.recipe.policy.stop_time;
                        let cgroup = instance.cgroup.take();
                        let left = Leftovers::new(pid, None, cgroup, Some(kill_at));
                        self.leftovers.push(left);
                        instance.lose(&program.name, &self.host);
                    }
                }
            }
            program.instances.push(instance);
        }
        self.programs.push(program);
        Ok(())
    }
}

impl Program {
    fn record(&self, boot: &str) -> ProgramRecord {
        ProgramRecord {
            name: self.name.as_ref().into(),
            memory: self.memory(boot),
            removed: self.removed,
            error: self.error.clone(),
            halted: self.halted.clone(),
            counted: self.counter().and_then(|counter| counter.count),
            log: self.log.as_deref().map(LogCommand::record),
            sockets: self.sockets.iter().map(SocketRecord::new).collect(),
            instances: self
                .instances
                .iter()
                .map(|instance| instance.record(&self.recipe))
                .collect(),
        }
    }
}

impl Instance {
    fn record(&self, recipe: &Rc<Recipe>) -> InstanceRecord {
        let own = !Rc::ptr_eq(&self.recipe, recipe);
        InstanceRecord {
            index: self.index,
            generation: self.generation,
            definition: own.then(|| self.recipe.text.to_string()),
            retired: self.retired,
            machine: self.machine,
            pid: self.pid(),
            adopted: self
                .process
                .as_ref()
                .is_some_and(|process| !process.is_child()),
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.path().to_owned()),
            starts: self.starts,
            since: self.since,
            ready: self.ready,
            said: self.said.clone(),
            exit: self.exit.clone(),
            accepted: self.accepted,
            output: self.output.clone(),
            mark: self.mark,
        }
    }

    fn take_up(&mut self, record: &InstanceRecord) {
        self.machine = record.machine;
        self.retired = record.retired;
        self.cgroup = record.cgroup.clone().map(Cgroup::from_path);
        self.starts = record.starts;
        self.since = record.since;
        self.ready = record.ready;
        self.said.clone_from(&record.said);
        self.exit.clone_from(&record.exit);
        self.accepted = record.accepted;
        self.output.clone_from(&record.output);
        self.mark = record.mark;
    }
}

impl LeftoverRecord {
    fn new(left: &Leftovers) -> Self {
        Self {
            pid: left.pid(),
            pidfd: left.process().map(|process| process.as_fd().as_raw_fd()),
            members: left.members(),
            cgroup: left.cgroup().map(|cgroup| cgroup.path().to_owned()),
            note: left.note.clone(),
            at: left.kill_at,
        }
    }

    fn take_up(self) -> Leftovers {
        let pidfd = self.pidfd.and_then(|fd| descriptor::inherited(fd).ok());
        let process = pidfd.map(|pidfd| Process::from_inherited(self.pid, pidfd));
        let cgroup = self.cgroup.map(Cgroup::from_path);
        let mut left = Leftovers::new(self.pid, process, cgroup, self.at);
        left.resume_members(&self.members);
        left.note = self.note;
        left
    }
}

impl SocketRecord {
    fn new(held: &Held) -> Self {
        Self {
            name: held.name.to_os_string(),
            descriptor: held.fd.as_raw_fd(),
            file: held
                .file
                .as_ref()
                .map(|file| (file.path.clone(), file.device, file.inode)),
        }
    }

    fn take_up(self) -> Result<Held, Failure> {
        let name = PortName::parse(&self.name).map_err(|error| Failure::new(error.to_string()))?;
        let fd = descriptor::inherited(self.descriptor).map_err(|error| {
            Failure::io(format!("failed to take over the socket of {name}"), &error)
        })?;
        let file = self.file.map(|(path, device, inode)| HeldFile {
            path,
            device,
            inode,
        });
        Ok(Held { name, fd, file })
    }
}

/// Returns the state that the program that executed this one has left to it.
pub(super) fn left_to_us() -> Result<Option<Record>, Failure> {
    SUCCESSION
        .left_to_us()
        .map(|file| file.and_then(succession::read))
        .transpose()
        .map_err(|error| Failure::io("failed to read the state to go on with", &error))
}

/// Answers the question whether this program can go on with a state.
///
/// # Errors
///
/// Fails with the reason if it cannot.
pub(crate) fn check(fd: RawFd) -> Result<&'static str, Failure> {
    let record: Record = descriptor::inherited(fd)
        .and_then(|fd: OwnedFd| succession::read(File::from(fd)))
        .map_err(|error| Failure::io("failed to read the state to go on with", &error))?;
    for program in &record.programs {
        let file = format!("{}.toml", program.name);
        Definition::parse(file.as_ref(), &program.memory.definition)
            .map_err(|why| Failure::new(format!("cannot go on with {why}")))?;
    }
    Ok(SUCCESSION.answer)
}

/// How a supervisor and its successor find each other.
const SUCCESSION: Succession = Succession {
    variable: RESUME,
    option: CHECK,
    answer: "fleet can go on\n",
};
/// Tells the program that this process executes next that it takes over.
pub(crate) const RESUME: &str = "FLEET_RESUME";
/// The option, not for people, that asks whether a program can take over.
pub(crate) const CHECK: &str = "check-resume";
/// The name under which `/proc/PID/fd` shows the record.
const NAME: &str = "fleet";
