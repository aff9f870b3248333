use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::{slice, vec};

use crate::address::Address;
use crate::inherit::{InheritError, Inherited};
use crate::ports::{PortName, PortsError};
use crate::socket::Socket;
use crate::socket_file::SocketFile;
use crate::spec::Spec;
use crate::upgrade::Predecessor;

/// Holds the sockets of a service, inherited or bound.
///
/// # Where sockets come from
///
/// [`inherit`](Self::inherit) and [`inherit_or_bind`](Self::inherit_or_bind) read
/// the environment and take what they find, in this order:
///
/// 1. the process that this one replaces, see [`Upgrader`](crate::Upgrader),
/// 2. `SERVER_STARTER_PORT` of Server::Starter and its relatives,
/// 3. `LISTEN_FDS` of systemd, if `LISTEN_PID` names this process, and
/// 4. `LISTEN_FDS` of Go's `grace`, which has no `LISTEN_PID`.
///
/// Each descriptor is checked before it is taken, made close-on-exec and
/// non-blocking. The environment is left as it is: changing it is unsound once
/// a second thread runs. Variables that were meant for another process are
/// recognised where the protocol allows it.
///
/// # Specifications
///
/// Sockets to bind are written as in Server::Starter's `--port` and `--path`:
///
/// | text | socket |
/// | --- | --- |
/// | `8080` | TCP on every IPv4 address |
/// | `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080` | TCP on that address |
/// | `[::]:8080` | TCP on every IPv6 address, and on every IPv4 address unless another specification has those of this port |
/// | `u53`, `127.0.0.1:u53`, `[::1]:u53` | UDP |
/// | `/run/app.sock`, `./app.sock` | Unix socket; its path needs a slash |
/// | `@app` | Unix socket in the abstract namespace |
///
/// Port 0 lets the kernel choose; [`Listener::address`] tells what it chose.
///
/// A Unix socket's file is made with the process's umask. One that nobody
/// listens on any more is replaced, and ours is removed when its listener is
/// dropped; that of an inherited socket belongs to whoever made it and is never touched.
///
/// # Examples
///
/// ```
/// use graceful_listener::Listeners;
///
/// let listeners = Listeners::inherit_or_bind(["127.0.0.1:0", "[::1]:0"])?;
/// for listener in &listeners {
///     let how = if listener.is_inherited() { "inherited" } else { "bound" };
///     println!("{how} {}", listener.address());
/// }
/// # Ok::<(), graceful_listener::ListenError>(())
/// ```
#[derive(Debug)]
pub struct Listeners {
    listeners: Vec<Listener>,
    origin: Origin,
    generation: u64,
    predecessor: Option<Arc<Predecessor>>,
    passed: Vec<(String, OwnedFd)>,
}

impl Listeners {
    /// Takes the sockets that this process has inherited, if any.
    ///
    /// [`take`](Self::take) the ones that are known, then call
    /// [`refuse_unclaimed`](Self::refuse_unclaimed).
    ///
    /// # Errors
    ///
    /// Fails if a variable cannot be read, if a descriptor is not what the
    /// variable says, and if the sockets were already taken: they have one owner.
    pub fn inherit() -> Result<Self, ListenError> {
        let Inherited {
            listeners,
            origin,
            generation,
            predecessor,
            passed,
        } = Inherited::take().map_err(ListenError::Inherit)?;
        Ok(Self {
            listeners,
            origin,
            generation,
            predecessor,
            passed,
        })
    }

    /// Takes the sockets that this process has inherited, or else binds them.
    ///
    /// If sockets were inherited they have to be the specified ones, matched by
    /// the name that a super-daemon gave them or by address; `8080` and
    /// `[::]:8080` match either's wildcard address. The order becomes that of
    /// the specifications.
    ///
    /// A process that replaces another one may have learned of a new socket or
    /// given one up: there, what is missing is bound, and what is no longer wanted is closed.
    ///
    /// # Errors
    ///
    /// Fails as [`inherit`](Self::inherit) and [`bind`](Self::bind) do. Fails with
    /// [`ListenError::NotInherited`] if sockets were inherited, but not this one, and with
    /// [`ListenError::Unclaimed`] if one was inherited that is not specified: its clients
    /// would connect and hang.
    pub fn inherit_or_bind<I>(specs: I) -> Result<Self, ListenError>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let specs = parse(specs)?;
        let mut this = Self::inherit()?;
        if this.is_empty() {
            this.listeners = bind(&specs)?;
            return Ok(this);
        }
        let mut claimed = Vec::new();
        for spec in &specs {
            claimed.push(match this.position(spec) {
                Some(index) => this.listeners.remove(index),
                None if this.origin == Origin::Upgrade => bind_one(spec, &specs)?,
                None => return Err(this.not_inherited(spec, &claimed)),
            });
        }
        let unclaimed = std::mem::replace(&mut this.listeners, claimed);
        if this.origin != Origin::Upgrade && !unclaimed.is_empty() {
            return Err(ListenError::Unclaimed {
                addresses: unclaimed
                    .into_iter()
                    .map(|listener| listener.address)
                    .collect(),
            });
        }
        Ok(this)
    }

    /// Binds sockets if none was inherited, and else keeps those as they are,
    /// whatever they are.
    ///
    /// # Errors
    ///
    /// Fails as [`bind`](Self::bind) does.
    pub fn or_bind<I>(mut self, specs: I) -> Result<Self, ListenError>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        if self.is_empty() {
            self.listeners = bind(&parse(specs)?)?;
        }
        Ok(self)
    }

    /// Binds sockets, without a look at what was inherited.
    ///
    /// # Errors
    ///
    /// Fails on a specification that is none, and if a socket cannot be bound.
    pub fn bind<I>(specs: I) -> Result<Self, ListenError>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        Ok(Self {
            listeners: bind(&parse(specs)?)?,
            origin: Origin::Bound,
            generation: 1,
            predecessor: None,
            passed: Vec::new(),
        })
    }

    /// Removes and returns the socket that matches a specification.
    ///
    /// # Errors
    ///
    /// Fails on a specification that is none, and if no socket matches.
    pub fn take(&mut self, spec: impl AsRef<OsStr>) -> Result<Listener, ListenError> {
        let spec = parse([spec])?.remove(0);
        match self.position(&spec) {
            Some(index) => Ok(self.listeners.remove(index)),
            None => Err(self.not_inherited(&spec, &[])),
        }
    }

    /// Removes and returns the socket that systemd calls `label`, by its `FileDescriptorName=`.
    pub fn take_labelled(&mut self, label: &str) -> Option<Listener> {
        let index = self
            .iter()
            .position(|listener| listener.label() == Some(label))?;
        Some(self.listeners.remove(index))
    }

    /// Adds a socket that this process has bound by other means, with
    /// options of its own for example.
    ///
    /// The file of a Unix socket stays the caller's to remove.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be made non-blocking, or has no address.
    ///
    /// # Examples
    ///
    /// ```
    /// use graceful_listener::Listeners;
    ///
    /// let mut listeners = Listeners::inherit()?;
    /// if listeners.is_empty() {
    ///     listeners.push(std::net::TcpListener::bind("127.0.0.1:0")?)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn push(&mut self, socket: impl Into<Socket>) -> io::Result<()> {
        let socket = socket.into();
        socket.set_nonblocking()?;
        self.listeners.push(Listener {
            address: socket.local_address()?,
            socket,
            file: None,
            name: None,
            label: None,
            inherited: false,
        });
        Ok(())
    }

    /// Removes and returns what the process that this one replaces has
    /// [passed](crate::Upgrader::pass) under a name.
    ///
    /// What is not taken is closed with this value.
    pub fn take_passed(&mut self, name: &str) -> Option<OwnedFd> {
        let index = self.passed.iter().position(|(known, _)| known == name)?;
        Some(self.passed.remove(index).1)
    }

    /// Makes sure that every socket was taken.
    ///
    /// # Errors
    ///
    /// Fails with [`ListenError::Unclaimed`] if one was not: its clients would
    /// connect and hang.
    pub fn refuse_unclaimed(&self) -> Result<(), ListenError> {
        if self.is_empty() {
            return Ok(());
        }
        Err(ListenError::Unclaimed {
            addresses: self.addresses(),
        })
    }

    /// Iterates over the sockets.
    pub fn iter(&self) -> slice::Iter<'_, Listener> {
        self.listeners.iter()
    }

    /// Returns the number of sockets.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.listeners.len()
    }

    /// Returns true if there is no socket.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Returns who gave this process its sockets.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// Returns which generation of the service this process is, the first being 1.
    ///
    /// Under Server::Starter that is `SERVER_STARTER_GENERATION`; a process that
    /// replaces another one counts on from it.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the process that started this one to be replaced by it.
    pub(crate) const fn predecessor(&self) -> Option<&Arc<Predecessor>> {
        self.predecessor.as_ref()
    }

    fn position(&self, spec: &Spec) -> Option<usize> {
        let fits = self.iter().enumerate().filter_map(|(index, listener)| {
            let fit = spec.fit(listener.name.as_ref(), &listener.socket, &listener.address)?;
            Some((fit, std::cmp::Reverse(index)))
        });
        fits.max().map(|(_, index)| index.0)
    }

    fn addresses(&self) -> Vec<Address> {
        self.iter()
            .map(|listener| listener.address.clone())
            .collect()
    }

    fn not_inherited(&self, spec: &Spec, claimed: &[Listener]) -> ListenError {
        let claimed = claimed.iter().map(|listener| listener.address.clone());
        ListenError::NotInherited {
            spec: spec.to_string(),
            available: claimed.chain(self.addresses()).collect(),
        }
    }
}

impl<'a> IntoIterator for &'a Listeners {
    type Item = &'a Listener;
    type IntoIter = slice::Iter<'a, Listener>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Listeners {
    type Item = Listener;
    type IntoIter = vec::IntoIter<Listener>;

    fn into_iter(self) -> Self::IntoIter {
        self.listeners.into_iter()
    }
}

/// Tells who gave a process its sockets.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody: it has bound its own.
    Bound,
    /// The process that it replaces.
    Upgrade,
    /// Server::Starter or one of its relatives.
    ServerStarter,
    /// systemd.
    Systemd,
    /// Go's `grace`, or whoever else sets `LISTEN_FDS` without `LISTEN_PID`.
    Grace,
}

/// Holds one socket, where it is bound and how it was come by.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
    file: Option<SocketFile>,
    name: Option<PortName>,
    label: Option<String>,
    inherited: bool,
}

impl Listener {
    pub(crate) const fn inherited(
        socket: Socket,
        address: Address,
        file: Option<SocketFile>,
        name: Option<PortName>,
        label: Option<String>,
    ) -> Self {
        Self {
            socket,
            address,
            file,
            name,
            label,
            inherited: true,
        }
    }

    /// Returns where the socket is bound, with the real port.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Returns systemd's `FileDescriptorName=` for the socket.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Returns true if the socket was inherited, false if this process has bound it.
    #[must_use]
    pub const fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// Returns the socket.
    #[must_use]
    pub const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Returns the socket, and the guard that removes a Unix socket's file if
    /// this process has made it. Keep the guard as long as the socket.
    #[must_use]
    pub fn into_parts(self) -> (Socket, Option<SocketFile>) {
        (self.socket, self.file)
    }

    pub(crate) const fn name(&self) -> Option<&PortName> {
        self.name.as_ref()
    }

    pub(crate) const fn file(&self) -> Option<&SocketFile> {
        self.file.as_ref()
    }
}

/// Tells why a service's sockets cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenError {
    /// What was inherited cannot be used.
    Inherit(InheritError),
    /// A specification is none.
    Spec {
        /// The specification.
        spec: String,
        /// What is wrong with it.
        reason: PortsError,
    },
    /// Sockets were inherited, but none that matches this specification.
    NotInherited {
        /// The specification.
        spec: String,
        /// The sockets that were.
        available: Vec<Address>,
    },
    /// Sockets were inherited that no specification matches.
    Unclaimed {
        /// Where they are bound.
        addresses: Vec<Address>,
    },
    /// A socket cannot be bound.
    Bind {
        /// The specification.
        spec: String,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inherit(error) => error.fmt(f),
            Self::Spec { spec, .. } => write!(f, "cannot listen on `{spec}`"),
            Self::NotInherited { spec, available } if available.is_empty() => {
                write!(f, "no socket for `{spec}`, none is available")
            }
            Self::NotInherited { spec, available } => {
                write!(
                    f,
                    "no socket for `{spec}`, available are {}",
                    List(available)
                )
            }
            Self::Unclaimed { addresses } => {
                write!(f, "nothing serves the socket {}", List(addresses))
            }
            Self::Bind { spec, .. } => write!(f, "cannot listen on `{spec}`"),
        }
    }
}

impl Error for ListenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Inherit(error) => error.source(),
            Self::Spec { reason, .. } => Some(reason),
            Self::Bind { source, .. } => Some(source),
            Self::NotInherited { .. } | Self::Unclaimed { .. } => None,
        }
    }
}

struct List<'a>(&'a [Address]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

fn parse<I>(specs: I) -> Result<Vec<Spec>, ListenError>
where
    I: IntoIterator<Item: AsRef<OsStr>>,
{
    let parse = |spec: I::Item| {
        let spec = spec.as_ref();
        Spec::parse(spec).map_err(|reason| ListenError::Spec {
            spec: spec.display().to_string(),
            reason,
        })
    };
    specs.into_iter().map(parse).collect()
}

fn bind(specs: &[Spec]) -> Result<Vec<Listener>, ListenError> {
    specs.iter().map(|spec| bind_one(spec, specs)).collect()
}

fn bind_one(spec: &Spec, all: &[Spec]) -> Result<Listener, ListenError> {
    let bind = || {
        let (socket, file) = spec.bind(spec.must_leave_v4(all))?;
        socket.set_nonblocking()?;
        let address = socket.local_address()?;
        Ok(Listener {
            socket,
            address,
            file,
            name: Some(spec.name.clone()),
            label: None,
            inherited: false,
        })
    };
    bind().map_err(|source| ListenError::Bind {
        spec: spec.to_string(),
        source,
    })
}
