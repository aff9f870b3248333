use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::fchown;

use super::activation::Activation;
use super::environment::{self, Environment};
use super::handover;
use super::options::{LogTarget, OpenFiles, Options};
use super::orphans;
use super::output::NEW_LOG;
use super::record::Record;
use super::status_file::StatusFile;
use super::worker::{Phase, Worker};
use super::{READINESS, SWEEP, Starter};
use crate::cli::account::Account;
use crate::cli::birth::await_birth;
use crate::cli::descriptor;
use crate::cli::failure::Failure;
use crate::cli::log::{Log, append_to};
use crate::cli::log_command::LogCommand;
use crate::cli::manager::Manager;
use crate::cli::moment::Moment;
use crate::cli::process::{Cgroup, Leftovers, Side, Signal, detach};
use crate::cli::sockets::{self, PortSpec, Sockets, Source};
use crate::cli::succession::Invocation;
use crate::cli::watch::Watch;
use crate::notify::{Notifier, NotifyReceiver};
use crate::pid_file::PidFile;
use crate::ports::PortName;

impl Starter {
    /// Opens everything, starts the first generation, and runs until told to stop.
    pub(crate) fn main(options: Options, invocation: Invocation) -> Result<ExitCode, Failure> {
        if let Some(record) = handover::left_to_us() {
            let mut starter = Self::resume(options, invocation, &record?)?;
            return starter.conduct(Ok(()));
        }
        let plan = Plan::new(&options)?;
        // Before the process id changes, to which it is addressed.
        let activation = Activation::from_env();
        let launcher = if options.daemonize {
            match detach().map_err(|error| Failure::io("fork failed", &error))? {
                Side::Launcher(daemon) => return Ok(await_daemon(daemon)),
                Side::Between => return Ok(ExitCode::SUCCESS),
                Side::Daemon(launcher) => Some(launcher),
            }
        } else {
            None
        };
        match Self::open(options, invocation, plan, activation) {
            Ok(mut starter) => {
                starter.launcher = launcher;
                let begun = starter.begin();
                starter.conduct(begun)
            }
            Err(failure) => {
                if let Some(mut launcher) = launcher {
                    report(&mut launcher, Err(&failure));
                }
                Err(failure)
            }
        }
    }

    /// Runs, and leaves nothing behind however that ends.
    fn conduct(&mut self, begun: Result<(), Failure>) -> Result<ExitCode, Failure> {
        let result = begun.and_then(|()| self.run());
        if let Some(file) = &mut self.status_file {
            file.remove();
        }
        while self.leftovers.iter().any(Leftovers::are_fresh) {
            self.sweep();
            std::thread::sleep(SWEEP);
        }
        // An adopted worker goes on serving if its successor could not be started.
        if self.workers().next().is_none() {
            self.sockets.remove_files();
        }
        let stopped = || Failure::new("it was told to stop before a generation served");
        self.tell_launcher(Err(result.as_ref().err().unwrap_or(&stopped())));
        if let Err(failure) = &result {
            self.log.line(failure);
        }
        if let Some(log) = self.log_command.take() {
            let original = [log.output[0].as_raw_fd(), log.output[1].as_raw_fd()];
            // The command sees the end of its input only when nobody can write.
            for (fd, target) in original.iter().zip([1, 2]) {
                let _ = descriptor::redirect(fd, target);
            }
            log.finish();
        }
        self.pid_file = None;
        // What went wrong has been said.
        Ok(match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => ExitCode::from(failure.code()),
        })
    }

    fn open(
        options: Options,
        invocation: Invocation,
        plan: Plan,
        activation: Option<Activation>,
    ) -> Result<Self, Failure> {
        let mut available: Vec<Source> = match &activation {
            Some(activation) => activation.take()?.into_iter().map(Source::Given).collect(),
            None => Vec::new(),
        };
        // Before anything is opened, so that a number asked for is nobody else's.
        let reserved = plan.reserve(&available)?;
        if let Some(mask) = options.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        limit_open_files(options.nofile)?;
        let watch = watch()?;
        let log = Log::new("start_server", options.log_format);
        let output = open_log(&options, plan.account.as_ref())?;
        log.line(format_args!(
            "start_server (pid:{}) starting now...",
            std::process::id()
        ));
        if let Some(path) = &options.pid_file {
            await_birth(path, &log);
        }
        let orphans = orphans::find(&plan.names(), &log);
        let (mut adopted, mut copies) = (Vec::new(), Vec::new());
        for orphan in orphans {
            copies.extend(orphan.sockets);
            adopted.push((orphan.process, orphan.generation));
        }
        adopted.sort_by_key(|(_, generation)| *generation);
        available.extend(copies.into_iter().map(Source::Adopted));

        let mut sockets = Sockets::default();
        let opened = plan.open(&options, available, &mut sockets, &log);
        // The numbers are the sockets' now.
        reserved.into_iter().for_each(std::mem::forget);
        if let Err(failure) = opened {
            sockets.remove_files();
            return Err(failure);
        }
        let mut log_command = None;
        match output {
            Some(Output::File(file)) => redirect_output(file.as_raw_fd())?,
            Some(Output::Command(command)) => {
                redirect_output(command.as_raw_fd())?;
                log_command = Some(command);
            }
            None => {}
        }
        if options.daemonize && !sockets.take_stdin() {
            let null = OpenOptions::new().read(true).open("/dev/null");
            null.and_then(|null| descriptor::redirect(&null, 0))
                .map_err(|error| Failure::io("failed to open /dev/null", &error))?;
        }
        let readiness = match options.wait_ready {
            Some(_) => Some(
                NotifyReceiver::bind()
                    .map_err(|error| Failure::io("failed to listen for READY=1", &error))?,
            ),
            None => None,
        };
        let variables = plan
            .account
            .as_ref()
            .map(|account| account.variables.clone())
            .unwrap_or_default();
        let mut starter = Self::assemble(
            options, invocation, watch, log, sockets, readiness, variables,
        )?;
        starter.activation = activation;
        starter.log_command = log_command;
        starter.account = plan.account;
        for (process, generation) in adopted {
            starter.generation = starter.generation.max(generation);
            starter
                .watch(&process)
                .map_err(|error| Failure::io("failed to watch a worker", &error))?;
            starter.restarting = true;
            starter.old.push(Worker {
                process,
                generation,
                phase: Phase::Old,
                since: Moment::now(),
                kill_at: None,
                status: None,
                cgroup: None,
                mark: None,
                untold: None,
            });
        }
        Ok(starter)
    }

    fn resume(options: Options, invocation: Invocation, record: &Record) -> Result<Self, Failure> {
        let watch = watch()?;
        let log = Log::new("start_server", options.log_format);
        let sockets = Sockets::take_up(record)?;
        let readiness = handover::take_up_readiness(record)
            .map_err(|error| Failure::io("failed to take over the notification socket", &error))?;
        // The user has been assumed; its name may tell the same again, or not.
        let account = Account::find(options.user.as_deref(), options.group.as_deref())
            .ok()
            .flatten();
        let variables = account.map(|account| account.variables).unwrap_or_default();
        let mut starter = Self::assemble(
            options, invocation, watch, log, sockets, readiness, variables,
        )?;
        starter.activation = record.activation.clone();
        if let Some(log) = &record.descriptors.log {
            let log = LogCommand::take_up(log.clone())
                .map_err(|error| Failure::io("failed to take over the log", &error))?;
            starter.log_command = Some(log);
        }
        starter.take_up(record)?;
        starter.watch_log();
        starter.log.line(format_args!(
            "start_server {} goes on with generation {}",
            env!("CARGO_PKG_VERSION"),
            starter.generation
        ));
        if starter.current.is_none() && starter.candidate.is_none() && starter.start_at.is_none() {
            starter.start_at = Some(Moment::now());
        }
        if std::mem::take(&mut starter.pending) {
            starter.request_restart();
        }
        Ok(starter)
    }

    fn assemble(
        options: Options,
        invocation: Invocation,
        watch: Watch,
        log: Log,
        sockets: Sockets,
        readiness: Option<NotifyReceiver>,
        variables: Vec<(&'static str, OsString)>,
    ) -> Result<Self, Failure> {
        let passed = passed_on(&options).into_iter().chain(variables);
        let environment = Environment::new(passed, options.env_files.clone());
        let status_file = options.status_file.clone().map(StatusFile::new);
        let notifier = Notifier::from_env().map_err(|error| Failure::new(error.to_string()))?;
        if let Some(receiver) = &readiness {
            watch
                .add(receiver, READINESS)
                .map_err(|error| Failure::io("failed to listen for READY=1", &error))?;
        }
        let cgroup = options.cgroup.clone().or_else(Cgroup::delegated);
        let now = Moment::now();
        Ok(Self {
            options,
            invocation,
            log,
            watch,
            environment,
            sockets,
            activation: None,
            log_command: None,
            status_file,
            status_due: None,
            pid_file: None,
            account: None,
            cgroup,
            leftovers: Vec::new(),
            manager: Manager::new(notifier),
            readiness,
            launcher: None,
            published: None,
            since: now,
            generation: 0,
            begun: now,
            current: None,
            candidate: None,
            old: Vec::new(),
            verdict_at: None,
            start_at: None,
            kill_old_at: None,
            pending: false,
            restarting: false,
            failures: 0,
            last_failure: None,
            last_start: now,
            stopping: false,
            upgrade: false,
            trial: None,
        })
    }

    fn begin(&mut self) -> Result<(), Failure> {
        // Whoever finds the pid file finds the state too.
        self.publish();
        if let Some(path) = &self.options.pid_file {
            fill_link(path).map_err(|error| {
                Failure::io(format!("failed to open file:{}", path.display()), &error)
            })?;
            let file = PidFile::create(path).map_err(|error| {
                let source = std::error::Error::source(&error)
                    .and_then(|source| source.downcast_ref::<io::Error>());
                match source {
                    Some(source) => Failure::io(&error, source),
                    None => Failure::new(error.to_string()),
                }
            })?;
            self.pid_file = Some(file);
        }
        if let Some(account) = &self.account {
            if self.options.cgroup.is_none()
                && let Some(delegated) = &self.cgroup
            {
                // Without it the generations have no groups of their own.
                let _ = Cgroup::give(delegated, account.uid, account.gid);
            }
            account.assume(&self.sockets)?;
        }
        if let Some(file) = &self.status_file {
            file.check().map_err(|error| {
                Failure::io(
                    format!(
                        "failed to create temporary file for {}",
                        file.path().display()
                    ),
                    &error,
                )
            })?;
        }
        if let Some(parent) = &self.options.cgroup
            && !Cgroup::writable(parent)
        {
            return Err(Failure::new(format!(
                "--cgroup {}: no control group that can be written to",
                parent.display()
            )));
        }
        self.watch_log();
        self.start_first()?;
        if self.options.wait_ready.is_none() {
            self.tell_launcher(Ok(()));
        }
        Ok(())
    }

    /// Tells the process that was started from the terminal how the start went.
    pub(crate) fn tell_launcher(&mut self, result: Result<(), &Failure>) {
        if let Some(mut launcher) = self.launcher.take() {
            report(&mut launcher, result);
        }
    }
}

/// Makes the file that a link leads to: the end of a super-daemon removes the file, and
/// leaves the link.
fn fill_link(path: &Path) -> io::Result<()> {
    if path.is_symlink() && !path.exists() {
        OpenOptions::new().append(true).create(true).open(path)?;
    }
    Ok(())
}

/// What the options say about sockets and users, read and found to make sense.
#[derive(Debug)]
struct Plan {
    ports: Vec<PortSpec>,
    names: Vec<PortName>,
    account: Option<Account>,
}

impl Plan {
    fn new(options: &Options) -> Result<Self, Failure> {
        let mut ports: Vec<PortSpec> = Vec::new();
        for text in &options.ports {
            let invalid = |reason: &str| {
                Failure::new(format!(
                    "invalid ``port'' value:{}: {reason}",
                    text.display()
                ))
            };
            let spec = PortSpec::parse(text).map_err(|reason| invalid(&reason))?;
            if let Some(number) = spec.descriptor()
                && let Some(other) = ports
                    .iter()
                    .find(|other| other.descriptor() == Some(number))
            {
                return Err(invalid(&format!(
                    "descriptor {number} is already that of {}",
                    other.name()
                )));
            }
            ports.push(spec);
        }
        for path in &options.paths {
            sockets::check_path(path).map_err(|reason| {
                Failure::new(format!(
                    "invalid ``path'' value:{}: {reason}",
                    path.display()
                ))
            })?;
        }
        let paths = options
            .paths
            .iter()
            .map(|path| PortName::Path(path.clone()));
        let names = ports
            .iter()
            .map(|spec| spec.name().clone())
            .chain(paths)
            .collect();
        let account = Account::find(options.user.as_deref(), options.group.as_deref())
            .map_err(|failure| Failure::new(format!("--{failure}")))?;
        Ok(Self {
            ports,
            names,
            account,
        })
    }

    fn names(&self) -> Vec<PortName> {
        self.names.clone()
    }

    fn reserve(&self, given: &[Source]) -> Result<Vec<OwnedFd>, Failure> {
        let numbers = self
            .ports
            .iter()
            .filter_map(PortSpec::descriptor)
            .filter(|number| *number > 2);
        numbers
            .map(|number| {
                if given.iter().any(|source| source.fd().as_raw_fd() == number) {
                    return Err(Failure::new(format!(
                        "descriptor {number} is that of a socket from systemd"
                    )));
                }
                descriptor::reserve(number).map_err(|error| {
                    Failure::io(format!("failed to reserve descriptor {number}"), &error)
                })
            })
            .collect()
    }

    fn open(
        &self,
        options: &Options,
        mut available: Vec<Source>,
        sockets: &mut Sockets,
        log: &Log,
    ) -> Result<(), Failure> {
        for spec in &self.ports {
            sockets.push(spec.open(options.backlog, &mut available, log)?);
        }
        for path in &options.paths {
            sockets.push(sockets::open_path(
                path,
                options.socket_mode,
                options.backlog,
                &mut available,
                log,
            )?);
        }
        for source in available {
            if let Source::Given(fd) = source {
                sockets.push(sockets::named(fd)?);
            }
        }
        sockets.ports().map(drop)
    }
}

enum Output {
    File(OwnedFd),
    Command(LogCommand),
}

/// Opens the log, to which the output is not led before all sockets are there.
fn open_log(options: &Options, account: Option<&Account>) -> Result<Option<Output>, Failure> {
    match &options.log_file {
        None => Ok(None),
        Some(LogTarget::File(path)) => {
            let file = open_log_file(path, account).map_err(|error| {
                Failure::io(
                    format!("failed to open log file:{}", path.display()),
                    &error,
                )
            })?;
            Ok(Some(Output::File(file.into())))
        }
        Some(LogTarget::Command(command)) => LogCommand::start(
            command.clone(),
            !options.daemonize,
            account,
            options.log_format,
        )
        .map(|log| Some(Output::Command(log)))
        .map_err(|error| {
            Failure::io(
                format!("failed to open pipe:| {}", command.display()),
                &error,
            )
        }),
    }
}

/// A file that is new belongs to the user, who may have to open it again. Another
/// one stays whose it was: who knows what its name leads to.
fn open_log_file(path: &Path, account: Option<&Account>) -> io::Result<File> {
    match OpenOptions::new().append(true).create_new(true).open(path) {
        Ok(file) => {
            if let Some(account) = account {
                fchown(&file, Some(account.uid), Some(account.gid))?;
            }
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => append_to(path, NEW_LOG),
        Err(error) => Err(error),
    }
}

fn redirect_output(fd: i32) -> Result<(), Failure> {
    descriptor::redirect(&fd, 1)
        .and_then(|()| descriptor::redirect(&fd, 2))
        .map_err(|error| Failure::io("failed to redirect the output to the log", &error))
}

fn watch() -> Result<Watch, Failure> {
    crate::cli::process::default_action(Signal::CHLD)
        .and_then(|()| Watch::new())
        .map_err(|error| Failure::io("failed to watch for signals", &error))
}

/// The options that workers, and programs they start, find in their environment.
fn passed_on(options: &Options) -> Vec<(&'static str, OsString)> {
    let seconds = |duration: std::time::Duration| OsString::from(duration.as_secs().to_string());
    let mut variables = Vec::new();
    if let Some(dir) = &options.envdir {
        variables.push((environment::ENVDIR, dir.clone()));
    }
    if options.enable_auto_restart {
        variables.push(("ENABLE_AUTO_RESTART", "1".into()));
    }
    if let Some(delay) = options.kill_old_delay {
        variables.push(("KILL_OLD_DELAY", seconds(delay)));
    }
    if let Some(interval) = options.auto_restart_interval {
        variables.push(("AUTO_RESTART_INTERVAL", seconds(interval)));
    }
    variables
}

fn limit_open_files(wanted: OpenFiles) -> Result<(), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|errno| Failure::io("failed to read the limit on open files", &errno.into()))?;
    let soft = match wanted {
        OpenFiles::Keep => return Ok(()),
        OpenFiles::Max if soft == hard => return Ok(()),
        OpenFiles::Max => hard,
        OpenFiles::Soft(limit) => limit,
    };
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard.max(soft)).map_err(|errno| {
        Failure::io(
            format!("failed to set the limit on open files to {soft} (the hard limit is {hard})"),
            &errno.into(),
        )
    })
}

/// Tells the launcher the exit code it is to give, and why.
fn report(launcher: &mut PipeWriter, result: Result<(), &Failure>) {
    let (code, text) = match result {
        Ok(()) => (0, String::new()),
        Err(failure) => (failure.code(), failure.to_string()),
    };
    // A launcher that was killed has nobody to tell.
    let _ = launcher
        .write_all(&[code])
        .and_then(|()| launcher.write_all(text.as_bytes()));
}

/// Waits until the daemon says how its start went, and passes that on.
fn await_daemon(mut daemon: PipeReader) -> ExitCode {
    let mut answer = Vec::new();
    // An answer cut short is a daemon that died.
    let _ = daemon.read_to_end(&mut answer);
    match answer.split_first() {
        Some((0, _)) => ExitCode::SUCCESS,
        Some((code, text)) => {
            let _ = io::stderr().write_all(&[text, b"\n"].concat());
            ExitCode::from(*code)
        }
        None => {
            let _ = io::stderr().write_all(b"the daemon died while it was starting\n");
            ExitCode::FAILURE
        }
    }
}
