use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut, PipeReader};
#[cfg(feature = "cli")]
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};
use std::{env, fmt, process};

#[cfg(feature = "serve")]
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
#[cfg(feature = "serve")]
use nix::sys::socket::send;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg, sendmsg,
    setsockopt,
};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::close;

/// Tells whoever started this process how it is doing, by systemd's protocol.
///
/// The messages go to the socket that `NOTIFY_SOCKET` names, which is systemd's
/// or that of a super-daemon that waits for readiness. Where nobody listens,
/// sending does nothing, so a program need not ask whether it is supervised.
///
/// A receiver that does not take its messages delays the sender by a second at most.
///
/// See [`sd_notify(3)`](https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html).
///
/// # Examples
///
/// ```
/// use graceful_listener::{Notifier, NotifyMessage};
///
/// let notifier = Notifier::from_env()?;
/// notifier.send(&NotifyMessage::new().ready().status("serving"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Notifier {
    target: Option<Target>,
    pub(crate) watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// # Errors
    ///
    /// Fails if `NOTIFY_SOCKET` is neither an absolute path nor an abstract name
    /// (`@…`), or if the numbers are none.
    pub fn from_env() -> Result<Self, NotifyError> {
        let target = match env::var_os("NOTIFY_SOCKET") {
            Some(name) if !name.is_empty() => Some(Target::parse(name)?),
            _ => None,
        };
        let watchdog = match number("WATCHDOG_USEC")? {
            Some(0) | None => None,
            Some(usec) => match number("WATCHDOG_PID")? {
                Some(pid) if pid != u64::from(process::id()) => None,
                _ => Some(Duration::from_micros(usec)),
            },
        };
        Ok(Self { target, watchdog })
    }

    /// Creates a notifier that tells nobody.
    #[must_use]
    pub const fn silent() -> Self {
        Self {
            target: None,
            watchdog: None,
        }
    }

    /// Returns true if somebody wants to be told.
    #[must_use]
    pub const fn is_listened_to(&self) -> bool {
        self.target.is_some()
    }

    /// Returns the time within which `WATCHDOG=1` is expected again and again,
    /// if it is expected of this process. Send it twice as often.
    #[must_use]
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends one message. Returns false if nobody listens.
    ///
    /// # Errors
    ///
    /// Fails if the socket is gone or does not take the message within a second.
    pub fn send(&self, message: &NotifyMessage) -> Result<bool, NotifyError> {
        let Some(target) = &self.target else {
            return Ok(false);
        };
        let socket = target.connect()?;
        socket
            .send(message.to_string().as_bytes())
            .map_err(|error| target.failed(error))?;
        Ok(true)
    }

    /// Sends one message unless the receiver has no room for it yet, which false means.
    #[cfg(feature = "serve")]
    pub(crate) fn try_send(&self, message: &NotifyMessage) -> Result<bool, NotifyError> {
        let Some(target) = &self.target else {
            return Ok(true);
        };
        let socket = target.connect()?;
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(socket.as_raw_fd(), message.to_string().as_bytes(), flags) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(target.failed(errno.into())),
        }
    }

    /// Waits until the receiver has taken all that was sent before.
    ///
    /// A process that hands over with `MAINPID=` has to wait for this before it
    /// exits: a message from a process that is gone is not believed. Returns
    /// false if nobody listens, or if the receiver knows no barriers and the
    /// timeout has passed.
    ///
    /// # Errors
    ///
    /// Fails if the socket is gone or does not take the message.
    pub fn barrier(&self, timeout: Duration) -> Result<bool, NotifyError> {
        let Some(target) = &self.target else {
            return Ok(false);
        };
        let failed = |error| target.failed(error);
        let socket = target.connect()?;
        let (reader, writer) = io::pipe().map_err(failed)?;
        let text = [IoSlice::new(b"BARRIER=1")];
        let fds = [writer.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &text,
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map_err(|errno| failed(errno.into()))?;
        drop(writer);
        wait_for_end(&reader, timeout).map_err(failed)
    }
}

/// Collects the variables of one notification.
///
/// Prints as `KEY=VALUE` lines; [`NotifyMessage::parse`] reads what was printed
/// back as an equal value.
///
/// # Examples
///
/// ```
/// use graceful_listener::NotifyMessage;
///
/// let message = NotifyMessage::new().ready().status("3 workers");
/// assert_eq!(message.to_string(), "READY=1\nSTATUS=3 workers");
/// assert_eq!(message, NotifyMessage::parse(b"READY=1\nSTATUS=3 workers\n"));
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NotifyMessage(Vec<(String, String)>);

impl NotifyMessage {
    /// Creates an empty message.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Parses a datagram.
    ///
    /// As systemd does, lines without a `=` are passed over; bytes that are not
    /// UTF-8 are replaced.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Self {
        let lines = datagram.split(|&byte| byte == b'\n');
        let fields = lines.filter_map(|line| {
            let equals = line.iter().position(|&byte| byte == b'=')?;
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            (equals > 0).then(|| (text(&line[..equals]), text(&line[equals + 1..])))
        });
        Self(fields.collect())
    }

    /// Adds `READY=1`: the start, or a reload, is complete.
    #[must_use]
    pub fn ready(self) -> Self {
        self.with("READY", "1")
    }

    /// Adds `STOPPING=1`: the process has begun to end.
    #[must_use]
    pub fn stopping(self) -> Self {
        self.with("STOPPING", "1")
    }

    /// Adds `RELOADING=1` and the `MONOTONIC_USEC=` that systemd wants with it.
    #[must_use]
    pub fn reloading(self) -> Self {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.with("RELOADING", "1")
            .with("MONOTONIC_USEC", &now.as_micros().to_string())
    }

    /// Adds `WATCHDOG=1`: the process is alive.
    #[must_use]
    pub fn watchdog(self) -> Self {
        self.with("WATCHDOG", "1")
    }

    /// Adds `STATUS=`: one line for people.
    #[must_use]
    pub fn status(self, text: &str) -> Self {
        self.with("STATUS", text)
    }

    /// Adds `MAINPID=`: another process is the service from now on.
    #[must_use]
    pub fn main_pid(self, pid: u32) -> Self {
        self.with("MAINPID", &pid.to_string())
    }

    /// Adds `EXTEND_TIMEOUT_USEC=`: the start or the stop needs this much longer.
    #[must_use]
    pub fn extend_timeout(self, by: Duration) -> Self {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.with("EXTEND_TIMEOUT_USEC", &micros.to_string())
    }

    /// Adds any variable. Line breaks in the value become blanks.
    ///
    /// # Panics
    ///
    /// Panics if the key is empty or contains `=` or a line break.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        assert!(
            !key.is_empty() && !key.contains(['=', '\n']),
            "`{key}` is no variable's name"
        );
        self.0.push((key.into(), value.replace('\n', " ")));
        self
    }

    /// Returns the last value of a variable.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        let mut fields = self.0.iter().rev();
        fields
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// Returns true if the message says `READY=1`.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.value("READY") == Some("1")
    }

    /// Returns true if the message says `STOPPING=1`.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.value("STOPPING") == Some("1")
    }

    /// Returns true if the message says `RELOADING=1`.
    #[must_use]
    pub fn is_reloading(&self) -> bool {
        self.value("RELOADING") == Some("1")
    }
}

impl fmt::Display for NotifyMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{key}={value}")?;
        }
        Ok(())
    }
}

/// Receives the notifications of the processes that this one starts.
///
/// The socket has an abstract name that the kernel chooses: it needs no
/// directory, has no permissions that keep a process of another user away, and is
/// gone with this value. Anybody may therefore send to it; believe a message
/// for its sender's id, which the kernel vouches for.
///
/// # Examples
///
/// ```no_run
/// use std::process::Command;
/// use graceful_listener::NotifyReceiver;
///
/// let receiver = NotifyReceiver::bind()?;
/// let child = Command::new("worker").env("NOTIFY_SOCKET", receiver.name()).spawn()?;
/// loop {
///     // Wait until the descriptor is readable, then:
///     while let Some(notification) = receiver.receive()? {
///         if notification.pid == child.id() && notification.message.is_ready() {
///             // The worker serves.
///         }
///     }
/// }
/// # #[expect(unreachable_code, reason = "the loop has no end")]
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct NotifyReceiver {
    socket: UnixDatagram,
    name: OsString,
}

impl NotifyReceiver {
    /// Creates the socket, close-on-exec and non-blocking.
    ///
    /// # Errors
    ///
    /// Fails if the process may not open more descriptors.
    pub fn bind() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        setsockopt(&socket, PassCred, &true)?;
        // With a family and no path the kernel picks a free abstract name.
        nix::sys::socket::bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
        socket.set_nonblocking(true)?;
        Self::from_socket(socket)
    }

    /// Creates the socket as a file, so that who comes after us can have one of the
    /// same name.
    #[cfg(feature = "cli")]
    pub(crate) fn bind_at(path: &std::path::Path) -> io::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        setsockopt(&socket, PassCred, &true)?;
        socket.set_nonblocking(true)?;
        Self::from_socket(socket)
    }

    fn from_socket(socket: UnixDatagram) -> io::Result<Self> {
        let address = socket.local_addr()?;
        if let Some(path) = address.as_pathname() {
            let name = path.as_os_str().to_owned();
            return Ok(Self { socket, name });
        }
        let chosen = address
            .as_abstract_name()
            .ok_or_else(|| io::Error::other("the kernel gave the notification socket no name"))?;
        let mut name = OsString::from("@");
        name.push(OsStr::from_bytes(chosen));
        Ok(Self { socket, name })
    }

    /// Goes on with a socket that was kept open across `exec`.
    #[cfg(feature = "cli")]
    pub(crate) fn from_inherited(fd: OwnedFd) -> io::Result<Self> {
        Self::from_socket(fd.into())
    }

    /// Returns the value for the child's `NOTIFY_SOCKET`.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Takes the next message, or `None` if there is none yet.
    ///
    /// Descriptors that come with a message are closed, which is also the answer
    /// that the sender of a barrier waits for.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does.
    pub fn receive(&self) -> io::Result<Option<Notification>> {
        let mut text = [0; 4096];
        // Room for as many descriptors as a message can carry, so that each is
        // seen, and closed.
        let mut control = nix::cmsg_space!(UnixCredentials, [RawFd; SCM_MAX_FD]);
        loop {
            let mut parts = [IoSliceMut::new(&mut text)];
            let received = recvmsg::<UnixAddr>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC,
            );
            let (length, sender) = match received {
                Ok(message) => {
                    let mut sender = None;
                    for control in message.cmsgs()? {
                        match control {
                            ControlMessageOwned::ScmCredentials(credentials) => {
                                sender = Some(credentials)
                            }
                            ControlMessageOwned::ScmRights(fds) => {
                                for fd in fds {
                                    close(fd)?;
                                }
                            }
                            _ => {}
                        }
                    }
                    (message.bytes, sender)
                }
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let Some(sender) = sender else { continue };
            return Ok(Some(Notification {
                pid: sender.pid().unsigned_abs(),
                uid: sender.uid(),
                message: NotifyMessage::parse(&text[..length]),
            }));
        }
    }
}

impl AsFd for NotifyReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Carries a received message and what the kernel says of its sender.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Notification {
    /// The process that sent it, 0 if it is in a foreign pid namespace.
    pub pid: u32,
    /// The user that process runs as.
    pub uid: u32,
    /// What it said.
    pub message: NotifyMessage,
}

/// Tells why a notification could not be sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotifyError {
    /// An environment variable does not hold what it should.
    Variable {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: OsString,
    },
    /// The socket could not be reached.
    Send {
        /// The value of `NOTIFY_SOCKET`.
        socket: OsString,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for NotifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable {
                name: "NOTIFY_SOCKET",
                value,
            } => {
                write!(
                    f,
                    "NOTIFY_SOCKET: `{}` is neither an absolute path nor an abstract name",
                    value.display()
                )
            }
            Self::Variable { name, value } => {
                write!(f, "{name}: `{}` is not a number", value.display())
            }
            Self::Send { socket, .. } => write!(f, "cannot notify `{}`", socket.display()),
        }
    }
}

impl Error for NotifyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Send { source, .. } => Some(source),
            Self::Variable { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Target {
    name: OsString,
    address: SocketAddr,
}

impl Target {
    fn parse(name: OsString) -> Result<Self, NotifyError> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] if !rest.is_empty() => SocketAddr::from_abstract_name(rest),
            [b'/', ..] => SocketAddr::from_pathname(&name),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        };
        match address {
            Ok(address) => Ok(Self { name, address }),
            Err(_) => Err(NotifyError::Variable {
                name: "NOTIFY_SOCKET",
                value: name,
            }),
        }
    }

    /// Connected anew for each message: whoever listens may have been restarted.
    fn connect(&self) -> Result<UnixDatagram, NotifyError> {
        let connect = || {
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&self.address)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(socket)
        };
        connect().map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> NotifyError {
        NotifyError::Send {
            socket: self.name.clone(),
            source,
        }
    }
}

/// Reads a variable that is a number; an empty one is as good as none.
fn number(name: &'static str) -> Result<Option<u64>, NotifyError> {
    match env::var_os(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => match value.to_str().and_then(|text| text.parse().ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(NotifyError::Variable { name, value }),
        },
    }
}

/// Returns whether the last writer has closed the pipe within the time.
fn wait_for_end(reader: &PipeReader, timeout: Duration) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        // An end is always reported, asked for or not.
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::empty())];
        let rest = timeout.saturating_sub(began.elapsed());
        match poll(
            &mut fds,
            PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// How long a full receive queue may delay a sender.
const PATIENCE: Duration = Duration::from_secs(1);

/// The kernel's limit on the descriptors of one message.
const SCM_MAX_FD: usize = 253;
