use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Reads and writes the text of `SERVER_STARTER_PORT`.
///
/// Server::Starter hands its sockets to a worker by inheritance and tells their
/// descriptors in one environment variable: `NAME=FD` for each socket, joined
/// with `;`. The name is the `--port` or `--path` option that made the socket,
/// see [`PortName`]. An empty text stands for no sockets at all, which is not
/// the same as a missing variable.
///
/// Every value prints to a text that parses to an equal value.
///
/// # Examples
///
/// ```
/// use graceful_listener::{PortName, Ports};
///
/// let mut ports = Ports::new();
/// ports.push(PortName::Port(8080), 4)?;
/// ports.push(PortName::Host("::1".into(), 8080), 5)?;
/// ports.push(PortName::Path("/run/app=1.sock".into()), 6)?;
/// assert_eq!(ports.to_os_string(), "8080=4;[::1]:8080=5;/run/app=1.sock=6");
/// assert_eq!(ports, "8080=4;[::1]:8080=5;/run/app=1.sock=6".parse()?);
/// # Ok::<(), graceful_listener::PortsError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ports(Vec<(PortName, RawFd)>);

impl Ports {
    /// The environment variable that carries the text.
    pub const VARIABLE: &str = "SERVER_STARTER_PORT";

    /// Creates an empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Parses the variable's value.
    ///
    /// Paths may hold bytes that are not UTF-8, and `=`: the descriptor stands
    /// behind the last one.
    ///
    /// # Errors
    ///
    /// Fails on an empty entry, an entry without a descriptor, a descriptor that
    /// is not a number or is named twice, and a port above 65535.
    pub fn parse(text: &OsStr) -> Result<Self, PortsError> {
        let mut ports = Self::new();
        if text.is_empty() {
            return Ok(ports);
        }
        for entry in text.as_bytes().split(|&byte| byte == b';') {
            let refused = |reason| PortsError::new(entry, reason);
            if entry.is_empty() {
                return Err(refused(Reason::EmptyEntry));
            }
            let equals = entry
                .iter()
                .rposition(|&byte| byte == b'=')
                .ok_or_else(|| refused(Reason::NoDescriptor))?;
            let fd =
                descriptor(&entry[equals + 1..]).ok_or_else(|| refused(Reason::BadDescriptor))?;
            let name = PortName::parse_bytes(&entry[..equals]).map_err(refused)?;
            ports.insert(name, fd).map_err(refused)?;
        }
        Ok(ports)
    }

    /// Appends a socket.
    ///
    /// # Errors
    ///
    /// Fails if the name would not read back as itself (a path with a `;`, a
    /// host with a blank), or if the descriptor is negative or already in the list.
    pub fn push(&mut self, name: PortName, fd: RawFd) -> Result<(), PortsError> {
        let text = name.to_os_string();
        let refused = |reason| {
            let mut entry = text.as_bytes().to_vec();
            entry.extend_from_slice(format!("={fd}").as_bytes());
            PortsError::new(&entry, reason)
        };
        if fd < 0 {
            return Err(refused(Reason::BadDescriptor));
        }
        if text.as_bytes().contains(&b';')
            || PortName::parse_bytes(text.as_bytes()).as_ref() != Ok(&name)
        {
            return Err(refused(Reason::Unwritable));
        }
        self.insert(name, fd).map_err(refused)
    }

    /// Iterates over the names and descriptors in the order of the text.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&PortName, RawFd)> {
        self.0.iter().map(|(name, fd)| (name, *fd))
    }

    /// Returns the number of sockets.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if there is no socket.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the variable's value.
    #[must_use]
    pub fn to_os_string(&self) -> OsString {
        let mut text = OsString::new();
        for (name, fd) in self.iter() {
            if !text.is_empty() {
                text.push(";");
            }
            text.push(name.to_os_string());
            text.push(format!("={fd}"));
        }
        text
    }

    fn insert(&mut self, name: PortName, fd: RawFd) -> Result<(), Reason> {
        if self.0.iter().any(|&(_, other)| other == fd) {
            return Err(Reason::DescriptorTwice);
        }
        self.0.push((name, fd));
        Ok(())
    }
}

impl FromStr for Ports {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, PortsError> {
        Self::parse(OsStr::new(text))
    }
}

/// Names a socket the way Server::Starter does.
///
/// The name does not tell TCP from UDP: the `u` of `--port=u53` is not passed
/// on, so that has to be asked of the socket.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum PortName {
    /// `8080`: a port on every IPv4 address.
    Port(u16),
    /// `127.0.0.1:8080`, `example.com:8080` or `[::1]:8080`: a port on one
    /// address, which is kept as written, without its brackets.
    Host(String, u16),
    /// `/run/app.sock`: a Unix socket, relative to the directory in which the
    /// super-daemon was started if the path is.
    Path(PathBuf),
}

impl PortName {
    /// Parses one name.
    ///
    /// Digits are a port; a text with a `/` is a path; what ends in `:` and
    /// digits is a host and its port, an IPv6 address with or without brackets;
    /// anything else is a relative path.
    ///
    /// # Errors
    ///
    /// Fails on an empty name, a host that is none, and a port above 65535.
    pub fn parse(text: &OsStr) -> Result<Self, PortsError> {
        Self::parse_bytes(text.as_bytes())
            .map_err(|reason| PortsError::new(text.as_bytes(), reason))
    }

    /// Returns the name as Server::Starter writes it.
    #[must_use]
    pub fn to_os_string(&self) -> OsString {
        match self {
            Self::Port(port) => port.to_string().into(),
            Self::Host(host, port) if host.contains(':') => format!("[{host}]:{port}").into(),
            Self::Host(host, port) => format!("{host}:{port}").into(),
            Self::Path(path) => path.clone().into_os_string(),
        }
    }

    fn parse_bytes(text: &[u8]) -> Result<Self, Reason> {
        if text.is_empty() {
            return Err(Reason::EmptyName);
        }
        if text.contains(&0) {
            return Err(Reason::Nul);
        }
        if text.contains(&b'/') {
            return Ok(Self::path(text));
        }
        if text.iter().all(u8::is_ascii_digit) {
            return port(text).map(Self::Port);
        }
        let colon = text.iter().rposition(|&byte| byte == b':');
        let Some((before, after)) = colon.map(|colon| (&text[..colon], &text[colon + 1..])) else {
            return Ok(Self::path(text));
        };
        if after.is_empty() || !after.iter().all(u8::is_ascii_digit) {
            return Ok(Self::path(text));
        }
        let inner = before
            .strip_prefix(b"[")
            .and_then(|host| host.strip_suffix(b"]"));
        let host = str::from_utf8(inner.unwrap_or(before)).map_err(|_| Reason::BadHost)?;
        if !is_host(host) {
            return Err(Reason::BadHost);
        }
        Ok(Self::Host(host.into(), port(after)?))
    }

    fn path(text: &[u8]) -> Self {
        Self::Path(OsString::from_vec(text.to_vec()).into())
    }
}

impl FromStr for PortName {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, PortsError> {
        Self::parse(OsStr::new(text))
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Path::new(&self.to_os_string()).display().fmt(f)
    }
}

/// Tells which entry of `SERVER_STARTER_PORT` cannot be used, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PortsError {
    entry: String,
    reason: Reason,
}

impl PortsError {
    fn new(entry: &[u8], reason: Reason) -> Self {
        Self {
            entry: entry.escape_ascii().to_string(),
            reason,
        }
    }

    /// Refuses to make a file of what is neither an address nor plainly a path.
    pub(crate) fn bare(text: &OsStr) -> Self {
        let is_host = text.as_bytes().contains(&b':');
        let reason = if is_host {
            Reason::BadPort
        } else {
            Reason::Bare
        };
        Self::new(text.as_bytes(), reason)
    }
}

impl fmt::Display for PortsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, reason } = self;
        match reason {
            Reason::EmptyEntry => {
                write!(f, "an entry is empty, expected NAME=DESCRIPTOR")
            }
            Reason::NoDescriptor => write!(
                f,
                "entry `{entry}` has no descriptor, expected NAME=DESCRIPTOR"
            ),
            Reason::BadDescriptor => write!(
                f,
                "the descriptor of `{entry}` is not a number from 0 to {}",
                RawFd::MAX
            ),
            Reason::DescriptorTwice => {
                write!(f, "the descriptor of `{entry}` is already another entry's")
            }
            Reason::EmptyName => write!(f, "entry `{entry}` has no name"),
            Reason::Nul => write!(f, "the name of `{entry}` holds a NUL byte"),
            Reason::BadHost => write!(
                f,
                "the host of `{entry}` is neither a host name nor an address"
            ),
            Reason::BadPort => write!(f, "the port of `{entry}` is not a number from 0 to 65535"),
            Reason::Unwritable => {
                write!(f, "the name of `{entry}` would not be read back as it is")
            }
            Reason::Bare => write!(
                f,
                "`{entry}` names no port, and a Unix socket's path needs a slash: ./{entry}"
            ),
        }
    }
}

impl Error for PortsError {}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reason {
    EmptyEntry,
    NoDescriptor,
    BadDescriptor,
    DescriptorTwice,
    EmptyName,
    Nul,
    BadHost,
    BadPort,
    Unwritable,
    Bare,
}

fn descriptor(text: &[u8]) -> Option<RawFd> {
    // `str::parse` would also take a sign.
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

fn port(digits: &[u8]) -> Result<u16, Reason> {
    str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Reason::BadPort)
}

fn is_host(text: &str) -> bool {
    let allowed = |c: char| !(c.is_whitespace() || c.is_control() || "[];=/".contains(c));
    !text.is_empty() && text.chars().all(allowed) && (!text.contains(':') || is_v6(text))
}

/// The zone behind `%` may be an interface's name, which the standard library
/// does not parse.
fn is_v6(text: &str) -> bool {
    match text.split_once('%') {
        Some((address, zone)) => {
            !zone.is_empty() && !zone.contains(':') && address.parse::<std::net::Ipv6Addr>().is_ok()
        }
        None => text.parse::<std::net::Ipv6Addr>().is_ok(),
    }
}
