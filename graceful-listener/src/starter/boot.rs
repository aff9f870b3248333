use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

use super::environment::{self, Environment};
use super::failure::Failure;
use super::log::Log;
use super::manager::Manager;
use super::options::{LogTarget, OpenFiles, Options};
use super::sockets::{self, PortSpec, Sockets};
use super::status_file::StatusFile;
use super::{READINESS, Starter, WATCHED_SIGNALS, descriptor};
use crate::moment::Moment;
use crate::notify::{Notifier, NotifyReceiver};
use crate::pid_file::PidFile;
use crate::watch::Watch;

impl Starter {
    /// Opens everything, starts the first generation, and runs until told to stop.
    pub(crate) fn main(options: Options) -> Result<(), Failure> {
        let specs = port_specs(&options)?;
        // Before anything is opened, so that a number asked for is nobody else's.
        let reserved: Vec<OwnedFd> = specs
            .iter()
            .filter_map(PortSpec::descriptor)
            .filter(|number| *number > 2)
            .map(|number| {
                descriptor::reserve(number).map_err(|error| {
                    Failure::io(format!("failed to reserve descriptor {number}"), &error)
                })
            })
            .collect::<Result<_, _>>()?;
        if let Some(mask) = options.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        limit_open_files(options.nofile)?;
        let watch = Watch::new(&WATCHED_SIGNALS)
            .map_err(|error| Failure::io("failed to watch for signals", &error))?;
        let log = Log::new(options.log_format);
        let output = open_log(&options)?;
        log.line(format_args!(
            "start_server (pid:{}) starting now...",
            std::process::id()
        ));

        let mut available = Vec::new();
        let mut sockets = Sockets::default();
        let opened = open_sockets(&options, &specs, &mut available, &mut sockets, &log);
        // The sockets own the numbers now.
        reserved.into_iter().for_each(std::mem::forget);
        if let Err(failure) = opened {
            sockets.remove_files();
            return Err(failure);
        }
        if let Some(output) = output {
            descriptor::redirect(&output, 1)
                .and_then(|()| descriptor::redirect(&output, 2))
                .map_err(|error| Failure::io("failed to redirect the output to the log", &error))?;
        }
        let mut starter = Self::new(options, log, watch, sockets)?;
        let result = starter.begin().and_then(|()| starter.run());
        starter.clean_up();
        result
    }

    fn new(options: Options, log: Log, watch: Watch, sockets: Sockets) -> Result<Self, Failure> {
        let environment = Environment::new(passed_on(&options), options.env_files.clone());
        let status_file = options.status_file.clone().map(StatusFile::new);
        let notifier = Notifier::from_env().map_err(|error| Failure::new(error.to_string()))?;
        let readiness = match options.wait_ready {
            Some(_) => Some(
                NotifyReceiver::bind()
                    .and_then(|receiver| watch.add(&receiver, READINESS).map(|()| receiver))
                    .map_err(|error| Failure::io("failed to listen for READY=1", &error))?,
            ),
            None => None,
        };
        Ok(Self {
            options,
            log,
            watch,
            environment,
            sockets,
            status_file,
            status_due: None,
            pid_file: None,
            cgroup: None,
            manager: Manager::new(notifier),
            readiness,
            generation: 0,
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
            last_start: Moment::now(),
            stopping: false,
        })
    }

    fn begin(&mut self) -> Result<(), Failure> {
        if let Some(path) = &self.options.pid_file {
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
        self.start_first()
    }

    fn clean_up(&mut self) {
        if let Some(file) = &mut self.status_file {
            file.remove();
        }
        self.sockets.remove_files();
        self.pid_file = None;
    }
}

fn port_specs(options: &Options) -> Result<Vec<PortSpec>, Failure> {
    let mut specs: Vec<PortSpec> = Vec::new();
    for text in &options.ports {
        let invalid = |reason: &str| {
            Failure::new(format!(
                "invalid ``port'' value:{}: {reason}",
                text.display()
            ))
        };
        let spec = PortSpec::parse(text).map_err(|reason| invalid(&reason))?;
        if let Some(number) = spec.descriptor()
            && let Some(other) = specs
                .iter()
                .find(|other| other.descriptor() == Some(number))
        {
            return Err(invalid(&format!(
                "descriptor {number} is already that of {}",
                other.name()
            )));
        }
        specs.push(spec);
    }
    for path in &options.paths {
        sockets::check_path(path).map_err(|reason| {
            Failure::new(format!(
                "invalid ``path'' value:{}: {reason}",
                path.display()
            ))
        })?;
    }
    Ok(specs)
}

fn open_sockets(
    options: &Options,
    specs: &[PortSpec],
    available: &mut Vec<OwnedFd>,
    sockets: &mut Sockets,
    log: &Log,
) -> Result<(), Failure> {
    for spec in specs {
        sockets.push(spec.open(options.backlog, available, log)?);
    }
    for path in &options.paths {
        sockets.push(sockets::open_path(
            path,
            options.socket_mode,
            options.backlog,
            available,
            log,
        )?);
    }
    sockets.ports().map(drop)
}

/// Opens the log, to which the output is not led before all sockets are there.
fn open_log(options: &Options) -> Result<Option<OwnedFd>, Failure> {
    match &options.log_file {
        None => Ok(None),
        Some(LogTarget::File(path)) => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map_err(|error| {
                    Failure::io(
                        format!("failed to open log file:{}", path.display()),
                        &error,
                    )
                })?;
            Ok(Some(file.into()))
        }
        Some(LogTarget::Command(command)) => Err(Failure::new(format!(
            "failed to open pipe:{}",
            command.display()
        ))),
    }
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
    let failed =
        |errno: nix::Error| Failure::io("failed to set the limit on open files", &errno.into());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    let soft = match wanted {
        OpenFiles::Keep => return Ok(()),
        OpenFiles::Max if soft == hard => return Ok(()),
        OpenFiles::Max => hard,
        OpenFiles::Soft(limit) => limit,
    };
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard.max(soft)).map_err(failed)
}
