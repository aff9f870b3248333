#![expect(
    unsafe_code,
    reason = "descriptors arrive as numbers in the environment"
)]

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use socket2::{Domain, SockRef, Type};

use crate::address::Address;
use crate::listeners::{Listener, Origin};
use crate::ports::{PortName, Ports};
use crate::socket::Socket;
use crate::socket_file::SocketFile;
use crate::spec::Spec;
use crate::upgrade::{Files, Handover, Predecessor};

/// What this process was given, by whom.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) origin: Origin,
    pub(crate) generation: u64,
    pub(crate) predecessor: Option<Arc<Predecessor>>,
    /// What the predecessor passes on besides, by name.
    pub(crate) passed: Vec<(String, OwnedFd)>,
}

impl Inherited {
    /// Takes the sockets that the environment names, once in the life of the process.
    pub(crate) fn take() -> Result<Self, InheritError> {
        // Two owners would close one descriptor twice, and by then its number
        // may be another file's.
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Err(InheritError::new("", String::new(), Reason::Taken));
        }
        let inherited = Self::read();
        if inherited.is_err() {
            TAKEN.store(false, Ordering::SeqCst);
        }
        inherited
    }

    fn read() -> Result<Self, InheritError> {
        if let Some(inherited) = Self::from_predecessor()? {
            return Ok(inherited);
        }
        let (mut claims, mut origin) = (Vec::new(), Origin::Bound);
        let starter = env::var_os(Ports::VARIABLE);
        if let Some(text) = &starter {
            let refused =
                |error| InheritError::new(Ports::VARIABLE, String::new(), Reason::Text(error));
            let ports = Ports::parse(text).map_err(|error| refused(error.to_string()))?;
            claims.extend(
                ports
                    .iter()
                    .map(|(name, fd)| Claim::of_port(Ports::VARIABLE, name, fd)),
            );
            origin = Origin::ServerStarter;
        }
        let (activation, activated) = listen_fds(starter.is_some())?;
        if origin == Origin::Bound {
            origin = activated;
        }
        for claim in activation {
            match claims.iter_mut().find(|known| known.fd == claim.fd) {
                Some(known) => known.label = claim.label,
                None => claims.push(claim),
            }
        }
        for claim in &claims {
            claim.check()?;
        }
        let generation = match starter {
            Some(_) => env::var("SERVER_STARTER_GENERATION")
                .ok()
                .and_then(|text| text.parse().ok()),
            None => None,
        };
        Ok(Self {
            listeners: claims
                .into_iter()
                .map(Claim::take)
                .collect::<Result<_, _>>()?,
            origin,
            generation: generation.unwrap_or(1),
            predecessor: None,
            passed: Vec::new(),
        })
    }

    fn from_predecessor() -> Result<Option<Self>, InheritError> {
        let Some(text) = env::var_os(Handover::VARIABLE) else {
            return Ok(None);
        };
        let refused =
            |reason| InheritError::new(Handover::VARIABLE, text.display().to_string(), reason);
        let handover = Handover::parse(&text).map_err(|reason| refused(Reason::Text(reason)))?;
        if !handover.is_for_this_process() {
            return Ok(None);
        }
        let labels = env::var_os(LABELS).unwrap_or_default();
        let labels: Vec<_> = labels.to_str().unwrap_or_default().split(':').collect();
        let claims = handover
            .ports
            .iter()
            .enumerate()
            .map(|(index, (name, fd))| Claim {
                label: labels
                    .get(index)
                    .filter(|label| !label.is_empty())
                    .map(|&label| label.into()),
                owned: handover.owned.contains(&fd),
                // The name is what the user asked for, the predecessor has checked it.
                trusted: true,
                ..Claim::of_port(Handover::VARIABLE, name, fd)
            });
        let claims: Vec<_> = claims.collect();
        for fd in [handover.ready, handover.alive] {
            if !is_open(fd) {
                return Err(refused(Reason::Closed(fd)));
            }
        }
        for claim in &claims {
            claim.check()?;
        }
        let list = env::var_os(Files::VARIABLE).unwrap_or_default();
        let bad_file =
            |reason| InheritError::new(Files::VARIABLE, list.display().to_string(), reason);
        let Files(files) =
            Files::parse(&list, &handover).map_err(|reason| bad_file(Reason::Text(reason)))?;
        if let Some(&(_, fd)) = files.iter().find(|(_, fd)| !is_open(*fd)) {
            return Err(bad_file(Reason::Closed(fd)));
        }
        let ready =
            take(handover.ready).map_err(|error| refused(Reason::Kernel(handover.ready, error)))?;
        let alive =
            take(handover.alive).map_err(|error| refused(Reason::Kernel(handover.alive, error)))?;
        let listeners = claims
            .into_iter()
            .map(Claim::take)
            .collect::<Result<Vec<_>, _>>()?;
        let passed = files
            .into_iter()
            .map(|(name, fd)| match take(fd) {
                Ok(file) => Ok((name, file)),
                Err(error) => Err(bad_file(Reason::Kernel(fd, error))),
            })
            .collect::<Result<_, _>>()?;
        let legacies = listeners
            .iter()
            .filter_map(Listener::file)
            .map(SocketFile::legacy)
            .collect();
        let predecessor = Predecessor::new(&handover, ready, alive, legacies)
            .map_err(|reason| refused(Reason::Text(reason)))?;
        Ok(Some(Self {
            listeners,
            origin: Origin::Upgrade,
            generation: handover.generation,
            predecessor: Some(Arc::new(predecessor)),
            passed,
        }))
    }
}

/// Reads systemd's variables, and those of Go's `grace`, which lack the process's id.
fn listen_fds(has_starter: bool) -> Result<(Vec<Claim>, Origin), InheritError> {
    let nothing = Ok((Vec::new(), Origin::Bound));
    let Some(count) = variable::<u32>("LISTEN_FDS")? else {
        return nothing;
    };
    let origin = match variable::<u32>("LISTEN_PID")? {
        Some(pid) if pid == process::id() => Origin::Systemd,
        // Set for a process that this one inherited its environment from.
        Some(_) => return nothing,
        // The same goes for grace's, but it cannot be told.
        None if has_starter => return nothing,
        None => Origin::Grace,
    };
    let bad = |name, value: &OsString, text: String| {
        InheritError::new(name, value.display().to_string(), Reason::Text(text))
    };
    let last = RawFd::try_from(count)
        .ok()
        .and_then(|count| count.checked_add(FIRST_FD));
    let Some(last) = last else {
        let value = count.to_string().into();
        return Err(bad(
            "LISTEN_FDS",
            &value,
            "there cannot be so many descriptors".into(),
        ));
    };
    let mut labels = Vec::new();
    if let Some(names) = env::var_os("LISTEN_FDNAMES").filter(|names| !names.is_empty()) {
        labels = names
            .to_string_lossy()
            .split(':')
            .map(str::to_owned)
            .collect();
        if labels.len() != count as usize {
            let text = format!("{} names for {count} descriptors", labels.len());
            return Err(bad("LISTEN_FDNAMES", &names, text));
        }
    }
    // One that is closed is refused later: no need to look at a billion behind it.
    let closed = (FIRST_FD..last).find(|&fd| !is_open(fd));
    let last = closed.map_or(last, |fd| fd + 1);
    let mut labels = labels.into_iter();
    let claims = (FIRST_FD..last).map(|fd| {
        let label = labels.next().filter(|label| !label.is_empty());
        Claim {
            variable: "LISTEN_FDS",
            entry: label
                .as_ref()
                .map_or_else(|| fd.to_string(), |label| format!("{fd} ({label})")),
            fd,
            name: None,
            label,
            owned: false,
            trusted: true,
        }
    });
    Ok((claims.collect(), origin))
}

fn variable<T: std::str::FromStr>(name: &'static str) -> Result<Option<T>, InheritError> {
    match env::var_os(name) {
        Some(value) if !value.is_empty() => match value.to_str().and_then(|text| text.parse().ok())
        {
            Some(number) => Ok(Some(number)),
            None => Err(InheritError::new(
                name,
                value.display().to_string(),
                Reason::NotANumber,
            )),
        },
        _ => Ok(None),
    }
}

/// One descriptor that a variable says is a socket for this process.
struct Claim {
    variable: &'static str,
    entry: String,
    fd: RawFd,
    name: Option<PortName>,
    label: Option<String>,
    owned: bool,
    trusted: bool,
}

impl Claim {
    fn of_port(variable: &'static str, name: &PortName, fd: RawFd) -> Self {
        Self {
            variable,
            entry: format!("{name}={fd}"),
            fd,
            name: Some(name.clone()),
            label: None,
            owned: false,
            trusted: false,
        }
    }

    /// Finds out whether it is one, before anything is taken.
    fn check(&self) -> Result<(), InheritError> {
        let fd = self.fd;
        if !is_open(fd) {
            return Err(self.refused(Reason::Closed(fd)));
        }
        // SAFETY: the descriptor is open. Nothing but this function's caller
        // closes it: the environment reserves it for this process, and whoever
        // breaks that closes a stranger's descriptor, which is his error.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let socket = SockRef::from(&borrowed);
        let kind = match socket.r#type() {
            Ok(kind) => kind,
            Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {
                let what = fs::read_link(format!("/proc/self/fd/{fd}"));
                return Err(self.refused(Reason::NotASocket(fd, what.ok())));
            }
            Err(error) => return Err(self.refused(Reason::Kernel(fd, error))),
        };
        let failed = |error| self.refused(Reason::Kernel(fd, error));
        let domain = socket.domain().map_err(failed)?;
        match (domain, kind) {
            (Domain::IPV4 | Domain::IPV6 | Domain::UNIX, Type::STREAM) => {
                if !socket.is_listener().map_err(failed)? {
                    let connected = socket.peer_addr().is_ok();
                    return Err(self.refused(Reason::NotListening(fd, connected)));
                }
            }
            (Domain::IPV4 | Domain::IPV6, Type::DGRAM) => {}
            _ => return Err(self.refused(Reason::Unsupported(fd, domain, kind))),
        }
        let bound = socket.local_addr().map_err(failed)?;
        let bound = match bound.as_socket() {
            Some(address) => Address::Inet(address),
            None => bound
                .as_unix()
                .map_or(Address::Unnamed, |address| Address::from(&address)),
        };
        match &self.name {
            Some(name) if !self.trusted && !Spec::names(name, &bound) => {
                Err(self.refused(Reason::Elsewhere(fd, bound, name.clone())))
            }
            _ => Ok(()),
        }
    }

    fn take(self) -> Result<Listener, InheritError> {
        let make = || {
            let fd = take(self.fd)?;
            let raw = SockRef::from(&fd);
            let (domain, kind) = (raw.domain()?, raw.r#type()?);
            let socket = match (domain, kind) {
                (Domain::UNIX, _) => Socket::Unix(fd.into()),
                (_, Type::DGRAM) => Socket::Udp(fd.into()),
                _ => Socket::Tcp(fd.into()),
            };
            socket.set_nonblocking()?;
            let address = socket.local_address()?;
            let file = match &address {
                // The predecessor still needs it.
                Address::Path(path) if self.owned => SocketFile::lent(path).ok(),
                _ => None,
            };
            Ok((socket, address, file))
        };
        match make() {
            Ok((socket, address, file)) => Ok(Listener::inherited(
                socket, address, file, self.name, self.label,
            )),
            Err(error) => Err(self.refused(Reason::Kernel(self.fd, error))),
        }
    }

    fn refused(&self, reason: Reason) -> InheritError {
        InheritError::new(self.variable, self.entry.clone(), reason)
    }
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: asks the kernel about a number, and changes nothing.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags != -1
}

/// Takes ownership of a descriptor that was inherited, and keeps it from this
/// process's children.
fn take(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the caller has seen that it is open, the environment says that it
    // is this process's to use, and `TAKEN` and the check for descriptors that
    // are named twice see to it that it is taken once.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    if fd.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(fd);
    }
    // The numbers of the standard streams stay taken, or the next file to be
    // opened would become one of them.
    let moved = fd.as_fd().try_clone_to_owned()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    match fd.as_raw_fd() {
        libc::STDIN_FILENO => dup2_stdin(&null)?,
        libc::STDOUT_FILENO => dup2_stdout(&null)?,
        _ => dup2_stderr(&null)?,
    }
    std::mem::forget(fd);
    Ok(moved)
}

/// Tells which inherited descriptor cannot be used, and why.
#[derive(Debug)]
pub struct InheritError {
    variable: &'static str,
    entry: String,
    reason: Reason,
}

impl InheritError {
    const fn new(variable: &'static str, entry: String, reason: Reason) -> Self {
        Self {
            variable,
            entry,
            reason,
        }
    }
}

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            variable,
            entry,
            reason,
        } = self;
        if let Reason::Taken = reason {
            return f.write_str("the inherited sockets have already been taken");
        }
        write!(f, "{variable}: ")?;
        if !entry.is_empty() {
            write!(f, "`{entry}`: ")?;
        }
        match reason {
            Reason::Taken => Ok(()),
            Reason::Text(text) => f.write_str(text),
            Reason::NotANumber => write!(f, "not a number in range"),
            Reason::Closed(fd) => write!(f, "descriptor {fd} is not open"),
            Reason::NotASocket(fd, Some(what)) => {
                write!(f, "descriptor {fd} is not a socket but {}", what.display())
            }
            Reason::NotASocket(fd, None) => write!(f, "descriptor {fd} is not a socket"),
            Reason::Unsupported(fd, domain, kind) => {
                let (domain, kind) = (i32::from(*domain), i32::from(*kind));
                write!(
                    f,
                    "descriptor {fd} is a socket of family {domain} and type {kind}, expected a TCP, UDP or Unix stream socket"
                )
            }
            Reason::NotListening(fd, true) => {
                write!(
                    f,
                    "descriptor {fd} is a connection, expected a listening socket (in a systemd socket unit: Accept=no)"
                )
            }
            Reason::NotListening(fd, false) => {
                write!(f, "descriptor {fd} is a stream socket that does not listen")
            }
            Reason::Elsewhere(fd, address, name) => {
                write!(f, "descriptor {fd} is bound to {address}, not to {name}")
            }
            Reason::Kernel(fd, _) => write!(f, "descriptor {fd} cannot be taken over"),
        }
    }
}

impl Error for InheritError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.reason {
            Reason::Kernel(_, error) => Some(error),
            _ => None,
        }
    }
}

#[derive(Debug)]
enum Reason {
    Taken,
    Text(String),
    NotANumber,
    Closed(RawFd),
    NotASocket(RawFd, Option<PathBuf>),
    Unsupported(RawFd, Domain, Type),
    NotListening(RawFd, bool),
    Elsewhere(RawFd, Address, PortName),
    Kernel(RawFd, io::Error),
}

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The first descriptor that systemd passes, `SD_LISTEN_FDS_START`.
const FIRST_FD: RawFd = 3;

/// The names of systemd's sockets, as they go on to the next process.
pub(crate) const LABELS: &str = "GRACEFUL_LISTENER_FDNAMES";
