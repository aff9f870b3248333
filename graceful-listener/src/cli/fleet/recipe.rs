use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::libc;

use super::definition::{Definition, LogTarget, Ready};
use super::host::Host;
use super::state::Policy;
use crate::cli::account::Account;
use crate::cli::failure::reason;
use crate::cli::log::append_to;
use crate::cli::log_command::LogCommand;
use crate::cli::process::{Certificate, Cgroup, Exit, Process, Signal, Spawn, Step};
use crate::cli::sockets::{self, PortSpec, Sockets};
use crate::cli::variables::{self, Variables};
use crate::ports::{PortName, Ports};
use crate::spec::Spec;

/// How the instances of a program are made: its definition as the engine uses it.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) definition: Definition,
    /// The file that it was read from.
    pub(crate) text: Box<str>,
    pub(crate) policy: Policy,
}

/// Why no process was made.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    /// It is the program's own fault, and not that the machine is full.
    pub(crate) own: bool,
}

impl Refusal {
    const fn own(reason: String) -> Self {
        Self { reason, own: true }
    }
}

impl Recipe {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// Fails with all that is wrong in it.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Rc<Self>, String> {
        let definition = Definition::parse(file, text)?;
        Ok(Rc::new(Self::new(text.into(), definition)))
    }

    fn new(text: Box<str>, definition: Definition) -> Self {
        let policy = Policy {
            restart: definition.restart,
            start_time: definition.start_seconds,
            ready_time: match definition.ready {
                Ready::Running => None,
                Ready::Notify { timeout } => Some(timeout),
            },
            retries: definition.retries,
            backoff: definition.backoff,
            backoff_max: definition.backoff_max,
            stop_time: definition.stop_timeout,
            lifetime: definition.max_lifetime,
        };
        Self {
            definition,
            text,
            policy,
        }
    }

    /// Returns true if a process made by `other` is not what this one would make.
    pub(crate) fn makes_another(&self, other: &Self) -> bool {
        let essence = |definition: &Definition| {
            let definition = definition.clone();
            (
                (definition.command, definition.args, definition.directory),
                (definition.user, definition.group, definition.umask),
                (definition.environment, definition.env_files),
                (definition.log, definition.limits, definition.listen),
                matches!(definition.ready, Ready::Notify { .. }),
            )
        };
        essence(&self.definition) != essence(&other.definition)
    }

    pub(crate) fn accepts(&self, exit: Exit) -> bool {
        matches!(exit, Exit::Code(code) if self.definition.exit_codes.contains(&code))
    }

    /// Returns the file that the output goes to, if it is one.
    pub(crate) fn log_file(&self, host: &Host, program: &str) -> Option<PathBuf> {
        match &self.definition.log {
            None => Some(host.logs.join(format!("{program}.log"))),
            Some(LogTarget::File(path)) => Some(host.root.join(path)),
            Some(LogTarget::Command(_)) => None,
        }
    }

    /// Returns where it runs.
    pub(crate) fn directory(&self, host: &Host) -> PathBuf {
        match &self.definition.directory {
            Some(directory) => host.root.join(directory),
            None => host.root.clone(),
        }
    }

    /// Returns the environment of an instance.
    ///
    /// # Errors
    ///
    /// Fails if a file of variables cannot be read.
    pub(crate) fn variables(
        &self,
        host: &Host,
        program: &str,
        account: Option<&Account>,
    ) -> Result<Variables, String> {
        let mut variables = host.variables.clone();
        for (name, value) in account.iter().flat_map(|account| &account.variables) {
            variables.insert(name.into(), value.clone());
        }
        for file in &self.definition.env_files {
            variables::read_file(&host.root.join(file), &mut variables)
                .map_err(|error| format!("env_file {error}"))?;
        }
        variables::remove_ours(&mut variables);
        variables.extend(self.definition.environment.iter().cloned());
        variables.insert(PROGRAM.into(), program.into());
        Ok(variables)
    }

    /// Returns the names of its sockets, in order.
    pub(crate) fn socket_names(&self, host: &Host) -> impl Iterator<Item = PortName> {
        let listen = self.definition.listen.iter();
        listen.filter_map(|text| socket_name(text, host))
    }

    /// Opens those of its sockets that are not open yet.
    ///
    /// # Errors
    ///
    /// Fails with the name of the socket, and the reason.
    pub(crate) fn open_sockets(&self, sockets: &mut Sockets, host: &Host) -> Result<(), String> {
        for text in &self.definition.listen {
            let name =
                socket_name(text, host).ok_or_else(|| format!("listen {text}: no socket"))?;
            if sockets.iter().any(|held| held.name == name) {
                continue;
            }
            let (mut others, log) = (Vec::new(), &host.log);
            let opened = match &name {
                PortName::Path(path) => {
                    sockets::open_path(path, SOCKET_MODE, BACKLOG, &mut others, log)
                }
                _ => PortSpec::parse(OsStr::new(text))
                    .map_err(|why| format!("listen {text}: {why}"))?
                    .open(BACKLOG, &mut others, log),
            };
            let mut held = opened.map_err(|failure| format!("listen {text}: {failure}"))?;
            held.name = name;
            sockets.push(held);
        }
        Ok(())
    }

    /// Returns whom the program runs as.
    pub(crate) fn account(&self) -> Result<Option<Account>, String> {
        Account::find(
            self.definition.user.as_deref(),
            self.definition.group.as_deref(),
        )
        .map_err(|failure| failure.to_string())
    }

    /// Makes a process.
    ///
    /// # Errors
    ///
    /// Fails with the reason, and whose fault it is.
    pub(crate) fn spawn(
        &self,
        host: &Host,
        program: &str,
        index: u32,
        certificate: &Certificate,
        cgroup: Option<&Cgroup>,
        outlets: Outlets<'_>,
    ) -> Result<Process, Refusal> {
        let account = self.account().map_err(Refusal::own)?;
        let mut variables = self
            .variables(host, program, account.as_ref())
            .map_err(Refusal::own)?;
        variables.insert(INSTANCE.into(), index.to_string().into());
        if matches!(self.definition.ready, Ready::Notify { .. }) {
            variables.insert("NOTIFY_SOCKET".into(), host.notify.clone());
        }
        let file = match (&outlets.log, self.log_file(host, program)) {
            (None, Some(path)) => Some(append_to(&path, 0o644).map_err(|error| {
                Refusal::own(format!("log {}: {}", path.display(), reason(&error)))
            })?),
            _ => None,
        };
        let output = match (&outlets.log, &file) {
            (Some(command), _) => command.writer.as_fd(),
            (None, Some(file)) => file.as_fd(),
            (None, None) => host.null.as_fd(),
        };
        let mut descriptors: Vec<(BorrowedFd<'_>, RawFd)> =
            vec![(host.null.as_fd(), 0), (output, 1), (output, 2)];
        let mut ports = Ports::new();
        for (name, number) in self.socket_names(host).zip(FIRST..) {
            let held = outlets.sockets.iter().find(|held| held.name == name);
            let held =
                held.ok_or_else(|| Refusal::own(format!("listen {name}: it is not open")))?;
            ports
                .push(name, number)
                .map_err(|error| Refusal::own(format!("listen: {error}")))?;
            descriptors.push((held.fd.as_fd(), number));
        }
        if !ports.is_empty() {
            variables.insert(Ports::VARIABLE.into(), ports.to_os_string());
            variables.insert(
                "SERVER_STARTER_GENERATION".into(),
                outlets.generation.to_string().into(),
            );
            variables.insert("LISTEN_FDS".into(), ports.len().to_string().into());
        }
        let env: Vec<(OsString, OsString)> = variables.into_iter().collect();
        let directory = self.directory(host);
        Spawn {
            dir: Some(&directory),
            descriptors: &descriptors,
            listen_pid: !ports.is_empty(),
            certificate: Some(certificate),
            cgroup,
            limits: &self.definition.limits,
            umask: self.definition.umask,
            account: account.as_ref(),
            default_signals: &DEFAULT_SIGNALS,
            ..Spawn::new(&self.definition.command, &self.definition.args, &env)
        }
        .spawn()
        .map_err(|error| {
            let full = matches!(error.step, Step::Clone | Step::Cgroup | Step::Record)
                || matches!(
                    error.error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE)
                );
            let what: &OsStr = match error.step {
                Step::Dir => directory.as_os_str(),
                Step::Account => OsStr::new(self.definition.user.as_deref().unwrap_or("")),
                _ => &self.definition.command,
            };
            Refusal {
                reason: format!("{}: {error}", what.display()),
                own: !full,
            }
        })
    }
}

/// Where an instance writes to and what it serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlets<'a> {
    pub(crate) log: Option<&'a LogCommand>,
    pub(crate) sockets: &'a Sockets,
    pub(crate) generation: u64,
}

/// Returns what a socket is called: a path is made absolute.
fn socket_name(text: &str, host: &Host) -> Option<PortName> {
    match Spec::parse(OsStr::new(text)).ok()?.name {
        PortName::Path(path) => Some(PortName::Path(host.root.join(path))),
        name => Some(name),
    }
}

/// The variables by which a process knows what it is, and we know what it has started.
pub(super) const PROGRAM: &str = "FLEET_PROGRAM";
pub(super) const INSTANCE: &str = "FLEET_INSTANCE";
/// Whatever the one who started the supervisor has set.
const DEFAULT_SIGNALS: [Signal; 11] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::ALRM,
    Signal::USR1,
    Signal::USR2,
    Signal::CHLD,
    Signal::PIPE,
    Signal::TTIN,
    Signal::TTOU,
];
/// As many connections may wait as the kernel allows.
const BACKLOG: i32 = i32::MAX;
/// What `start_server` gives to socket files.
const SOCKET_MODE: u32 = 0o777;
/// Where systemd's protocol has the first socket.
const FIRST: RawFd = 3;
