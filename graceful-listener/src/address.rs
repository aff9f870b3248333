use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;
use std::path::PathBuf;

/// Tells where a socket listens, or who is at one end of a connection.
///
/// Displays as `127.0.0.1:8080`, `[::1]:8080`, `/run/app.sock`, `@abstract` or,
/// where a Unix socket has no name, as is usual for clients, `unix:`.
///
/// # Examples
///
/// ```
/// use graceful_listener::Listeners;
///
/// let listeners = Listeners::bind(["127.0.0.1:0"])?;
/// for listener in &listeners {
///     let port = listener.address().as_inet().map(|address| address.port());
///     assert!(port.is_some_and(|port| port > 0));
/// }
/// # Ok::<(), graceful_listener::ListenError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Address {
    /// An IPv4 or IPv6 address and its port.
    Inet(SocketAddr),
    /// A Unix socket's file.
    Path(PathBuf),
    /// A Unix socket's name in the abstract namespace, without the `@`.
    Abstract(Vec<u8>),
    /// A Unix socket without a name.
    Unnamed,
}

impl Address {
    /// Returns the IP address and port, if it is one.
    #[must_use]
    pub const fn as_inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            _ => None,
        }
    }

    /// Returns the IP address, if there is one. An IPv4 client of an IPv6 socket
    /// is given as IPv4.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Inet(address) => Some(address.ip().to_canonical()),
            _ => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Inet(address)
    }
}

impl From<&net::SocketAddr> for Address {
    fn from(address: &net::SocketAddr) -> Self {
        if let Some(path) = address.as_pathname() {
            Self::Path(path.into())
        } else if let Some(name) = address.as_abstract_name() {
            Self::Abstract(name.into())
        } else {
            Self::Unnamed
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{}", OsStr::from_bytes(name).display()),
            Self::Unnamed => f.write_str("unix:"),
        }
    }
}
