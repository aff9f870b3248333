use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::bucket::Bucket;
use super::counter::{self, Counter};
use super::directory::Directory;
use super::handover::{self, Record};
use super::host::{CGROUPS, Host};
use super::inbox::Inbox;
use super::instance::Instance;
use super::memory::{self, Memory};
use super::note::{self, Note};
use super::program::Program;
use super::recipe::Recipe;
use super::state::{Machine, Restart};
use super::supervisor::{NOTIFY, Options, Supervisor};
use super::wakeup::Wakeup;
use crate::cli::birth::await_birth;
use crate::cli::descriptor;
use crate::cli::failure::{Failure, reason};
use crate::cli::log::Log;
use crate::cli::manager::Manager;
use crate::cli::moment::{Moment, unix_millis};
use crate::cli::process::{Cgroup, Identity, Leftovers, Process, Signal, boot_id};
use crate::cli::succession::Invocation;
use crate::cli::watch::Watch;
use crate::notify::{Notifier, NotifyMessage, NotifyReceiver};
use crate::pid_file::PidFile;

impl Supervisor {
    /// Opens the directory, and takes hold of what runs already.
    pub(super) fn boot(options: &Options, args: Vec<std::ffi::OsString>) -> Result<Self, Failure> {
        let record = handover::left_to_us()?;
        let directory = Directory::open(&options.dir)?;
        let log = Log::new("fleet", options.log_format);
        let lock = match &record {
            None => {
                await_birth(&directory.lock(), &log);
                PidFile::create(directory.lock()).map_err(|error| Failure::of(&error))?
            }
            Some(record) => descriptor::inherited(record.lock)
                .map_err(|error| Failure::io("failed to take over the pid file", &error))
                .and_then(|fd| {
                    PidFile::from_inherited(directory.lock(), fd)
                        .map_err(|error| Failure::of(&error))
                })?,
        };
        raise_limit(&log);
        if let Err(error) = descriptor::seal() {
            log.line(format_args!(
                "failed to keep inherited descriptors from the programs: {}",
                reason(&error)
            ));
        }
        let watch = crate::cli::process::default_action(Signal::CHLD)
            .and_then(|()| Watch::new())
            .map_err(|error| Failure::io("failed to watch for signals", &error))?;
        let root = std::path::absolute(directory.root())
            .map_err(|error| Failure::io(directory.root().display(), &error))?;
        let notify = listen(&directory.run(), record.as_ref())
            .map_err(|error| Failure::io("failed to listen for READY=1", &error))?;
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|error| Failure::io("failed to open /dev/null", &error))?;
        let boot = boot_id().map_err(|error| Failure::io("failed to read the boot id", &error))?;
        let wakeup = Wakeup::new(&directory.programs(), &directory.inbox(), &watch, &log);
        watch
            .add(&notify, NOTIFY)
            .map_err(|error| Failure::io("failed to listen for READY=1", &error))?;
        let notifier = Notifier::from_env().map_err(|error| Failure::of(&error))?;
        let host = Host {
            log,
            watch,
            root,
            run: directory.run(),
            logs: directory.log(),
            variables: crate::cli::variables::inherited(),
            null,
            notify: notify.name().to_owned(),
            cgroup: Cgroup::delegated(),
            boot,
            changed: true.into(),
        };
        let now = Moment::now();
        let mut supervisor = Self {
            host,
            invocation: Invocation::new(args, "fleet"),
            inbox: Inbox::new(&directory),
            directory,
            lock,
            wakeup,
            notify,
            manager: Manager::new(notifier),
            bucket: Bucket::new(options.rate, options.burst, now),
            programs: Vec::new(),
            order: Vec::new(),
            names: HashMap::new(),
            owners: HashMap::new(),
            files: BTreeMap::new(),
            refused: BTreeMap::new(),
            touched: BTreeSet::new(),
            scan_programs: true,
            scan_inbox: true,
            scan_at: None,
            pending: Vec::new(),
            told: BTreeSet::new(),
            answers: u32::MAX,
            leftovers: Vec::new(),
            since: unix_millis(),
            status_at: now,
            status_failed: false,
            start_at: None,
            starts_waiting: 0,
            stopping: false,
            upgrade: false,
            upgraded: Vec::new(),
            trial: None,
        };
        if let Some(cgroup) = &supervisor.host.cgroup {
            supervisor.host.log.line(format_args!(
                "each process gets a control group in {}",
                cgroup.display()
            ));
        }
        match record {
            Some(record) => supervisor.take_up(record)?,
            None => {
                supervisor.host.log.line(format_args!(
                    "fleet {} supervises {}",
                    env!("CARGO_PKG_VERSION"),
                    supervisor.host.root.display()
                ));
                supervisor.adopt();
            }
        }
        supervisor.arrange();
        // Whoever waits for a service manager waits for somebody to command.
        supervisor.manager.tell(&NotifyMessage::new().ready());
        Ok(supervisor)
    }

    /// Takes hold of what a supervisor has left that was killed.
    fn adopt(&mut self) {
        let mut notes = Vec::new();
        for path in self.left() {
            match path.extension().and_then(OsStr::to_str) {
                Some(memory::EXTENSION) => self.recall(&path),
                Some(note::EXTENSION) => notes.push(path),
                Some(note::LEFT) => match read_note(&path) {
                    Ok((identity, note)) => self.end_rest(&path, &identity, &note),
                    Err(_) => drop(fs::remove_file(&path)),
                },
                Some(counter::EXTENSION) => Counter::end_left(&path),
                Some(note::DRAFT) => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        self.arrange();
        let (mut adopted, mut gone) = (0_u32, Vec::new());
        for path in notes {
            let found = read_note(&path)
                .and_then(|(identity, note)| Ok((identity.find()?, identity, note)));
            match found {
                Ok((Some(process), _, note)) => {
                    adopted += 1;
                    self.adopt_process(process, &note);
                }
                Ok((None, identity, note)) => {
                    self.end_rest(&path, &identity, &note);
                    gone.push(note);
                }
                Err(error) => self.host.log.line(format_args!(
                    "{}: {}; what it stands for is not known",
                    path.display(),
                    reason(&error)
                )),
            }
        }
        for note in gone {
            self.note_missed_end(&note);
        }
        self.remove_unborn();
        if adopted > 0 {
            self.host.log.line(format_args!(
                "adopted {adopted} processes, whose supervisor is gone"
            ));
        }
    }

    fn left(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.host.run).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }

    fn recall(&mut self, path: &Path) {
        let name = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        let file = self.directory.programs().join(format!("{name}.toml"));
        let memory = Memory::read(&self.host.run, name, &self.host.boot);
        let recalled = memory.and_then(|memory| {
            let recipe = Recipe::parse(&file, &memory.definition).ok()?;
            Some((memory, recipe))
        });
        let Some((memory, recipe)) = recalled else {
            // Of another life of this machine.
            drop(fs::remove_file(path));
            return;
        };
        let mut program = Program::new(name, recipe, Some(&memory));
        program.set_remembered(&memory);
        for (index, state) in &memory.ended {
            let now = Moment::now();
            let recipe = Rc::clone(&program.recipe);
            let mut instance = Instance::new(*index, program.generation, recipe, now);
            instance.machine = Machine::ended(*state, now);
            program.instances.push(instance);
        }
        self.programs.push(program);
    }

    fn adopt_process(&mut self, process: Process, note: &Note) {
        let pid = process.pid();
        let position = self.names.get(note.program.as_str()).copied();
        let program = position.map(|position| &mut self.programs[position]);
        let Some(program) = program else {
            self.host.log.line(format_args!(
                "process {pid} is of program {}, of which nothing else is known: sending TERM to it",
                note.program
            ));
            self.end_stranger(process, note.cgroup());
            return;
        };
        let recipe = Rc::clone(&program.recipe);
        // What was written down later than the process was started is wrong.
        program
            .instances
            .retain(|instance| instance.index != note.index || instance.process.is_some());
        match Instance::adopt(process, note, recipe, &self.host) {
            Ok(mut instance) => {
                self.host.log.line(format_args!(
                    "{}:{} is process {pid} still, {}",
                    note.program,
                    note.index,
                    instance.state()
                ));
                program.generation = program.generation.max(note.generation);
                if let Some(process) = &instance.process {
                    program.adopt_outlets(process, &self.host);
                }
                let log = program.log.as_deref();
                instance.listen_to(log.filter(|log| instance.writes_to(log)));
                program.instances.push(instance);
            }
            Err(error) => self.host.log.line(format_args!(
                "{}:{}: failed to watch process {pid}: {}",
                note.program,
                note.index,
                reason(&error)
            )),
        }
    }

    fn end_stranger(&mut self, process: Process, cgroup: Option<Cgroup>) {
        // It fails only for one that has ended already.
        let _ = process.signal_group(Signal::TERM);
        let kill_at = Some(Moment::now() + STRANGER);
        self.leftovers
            .extend(Leftovers::of(process, cgroup, kill_at));
    }

    /// Ends what a process has left of which the file at `path` tells.
    fn end_rest(&mut self, path: &Path, identity: &Identity, note: &Note) {
        let kill_at = Some(Moment::now() + STRANGER);
        let is_of_now = identity.boot == self.host.boot;
        let left = is_of_now.then(|| note.find_left(identity, kill_at));
        let Some(mut left) = left.flatten() else {
            drop(fs::remove_file(path));
            return;
        };
        left.note = if path.extension() == Some(OsStr::new(note::LEFT)) {
            Some(path.into())
        } else {
            let to = Note::left(path, identity.pid);
            fs::rename(path, &to).is_ok().then_some(to)
        };
        left.signal(Signal::TERM);
        self.leftovers.push(left);
    }

    /// Removes the control groups of processes that were killed with their supervisor
    /// before they were programs.
    fn remove_unborn(&mut self) {
        let Some(parent) = &self.host.cgroup else {
            return;
        };
        let mut groups = Cgroup::below(parent, CGROUPS);
        let instances = self.programs.iter().flat_map(|program| &program.instances);
        let known: HashSet<_> = instances
            .filter_map(|instance| instance.cgroup.as_ref())
            .chain(self.leftovers.iter().filter_map(Leftovers::cgroup))
            .map(Cgroup::path)
            .collect();
        // What is in one of them is about to end, or another fleet's.
        groups.retain(|group| !known.contains(group.path()) && group.remove().is_err());
        self.leftovers
            .extend(groups.into_iter().map(Leftovers::unborn));
    }

    /// A process has ended while nobody looked: how, is not known.
    fn note_missed_end(&mut self, note: &Note) {
        let position = self.names.get(note.program.as_str()).copied();
        let program = position.map(|position| &mut self.programs[position]);
        let Some(program) = program else { return };
        let known = |instance: &Instance| instance.index == note.index;
        if program.recipe.policy.restart != Restart::Never || program.instances.iter().any(known) {
            return;
        }
        let now = Moment::now();
        let recipe: Rc<Recipe> = Rc::clone(&program.recipe);
        let mut instance = Instance::new(note.index, note.generation, recipe, now);
        instance.machine = Machine::ended(super::state::State::Exited, now);
        instance.exit = Some("ended while no supervisor ran".into());
        program.instances.push(instance);
    }
}

fn read_note(path: &Path) -> io::Result<(Identity, Note)> {
    let text = fs::read_to_string(path)?;
    let read =
        Identity::parse(&text).and_then(|(identity, rest)| Some((identity, Note::parse(rest)?)));
    Ok(read.ok_or(io::ErrorKind::InvalidData)?)
}

/// Each process takes a descriptor.
fn raise_limit(log: &Log) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        log.line(format_args!(
            "failed to raise the limit on open files: {}",
            errno.desc()
        ));
    }
}

/// Opens the socket on which programs tell that they are ready: always under the
/// same name, so that those that are adopted reach us too.
fn listen(run: &Path, record: Option<&Record>) -> io::Result<NotifyReceiver> {
    let inherited =
        |record: &Record| -> io::Result<OwnedFd> { descriptor::inherited(record.notify) };
    if let Some(record) = record {
        return NotifyReceiver::from_inherited(inherited(record)?);
    }
    let path = std::path::absolute(run.join(NOTIFY_FILE))?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let receiver = NotifyReceiver::bind_at(&path)?;
    // Programs of all users write to it; the kernel tells who they are.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(receiver)
}

/// Where programs tell that they are ready.
pub(super) const NOTIFY_FILE: &str = "notify";
/// What those have to end that no program is known for.
const STRANGER: Duration = Duration::from_secs(10);
