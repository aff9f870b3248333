use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;
use std::path::Path;

use socket2::{Domain, Socket as RawSocket, Type};

use crate::address::Address;
use crate::ports::{PortName, Ports, PortsError};
use crate::socket::Socket;
use crate::socket_file::SocketFile;

/// One socket that a program wants, as the user writes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Spec {
    pub(crate) name: PortName,
    pub(crate) udp: bool,
}

impl Spec {
    /// Parses Server::Starter's notation: `u` before the port stands for UDP.
    ///
    /// Its `--port` and `--path` are one here, so that a path needs a slash: a
    /// mistyped address would become a file otherwise.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, PortsError> {
        let bytes = text.as_bytes();
        let colon = bytes
            .iter()
            .rposition(|&byte| byte == b':')
            .map_or(0, |colon| colon + 1);
        let (host, port) = bytes.split_at(colon);
        let udp = !bytes.contains(&b'/')
            && port
                .strip_prefix(b"u")
                .is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
        let name = if udp {
            PortName::parse(OsStr::from_bytes(&[host, &port[1..]].concat()))?
        } else {
            PortName::parse(text)?
        };
        if let PortName::Path(path) = &name
            && !bytes.contains(&b'/')
            && abstract_name(path).is_none()
        {
            return Err(PortsError::bare(text));
        }
        // What could not be passed on is refused before it is bound.
        Ports::new().push(name.clone(), 0)?;
        Ok(Self { name, udp })
    }

    /// How well an inherited socket fits, if at all: larger is better.
    pub(crate) fn fit(
        &self,
        name: Option<&PortName>,
        socket: &Socket,
        address: &Address,
    ) -> Option<Fit> {
        if self.udp != matches!(socket, Socket::Udp(_)) {
            return None;
        }
        if name.is_some_and(|name| is_named(&self.name, name)) {
            return Some(Fit::Name);
        }
        match (&self.name, address) {
            (PortName::Path(path), _) => is_path(path, address).then_some(Fit::Address),
            (PortName::Port(port), Address::Inet(bound)) => {
                fit_inet(&[Ipv4Addr::UNSPECIFIED.into()], *port, *bound)
            }
            (PortName::Host(host, port), Address::Inet(bound))
                if *port != 0 && *port == bound.port() =>
            {
                let addresses: Vec<_> = resolve(host, *port)
                    .ok()?
                    .map(|address| address.ip())
                    .collect();
                fit_inet(&addresses, *port, *bound)
            }
            _ => None,
        }
    }

    /// Whether a socket is what a super-daemon says that it is.
    pub(crate) fn names(name: &PortName, address: &Address) -> bool {
        match (name, address) {
            (PortName::Path(path), _) => is_path(path, address),
            (PortName::Port(port), Address::Inet(bound)) => *port == 0 || *port == bound.port(),
            (PortName::Host(host, port), Address::Inet(bound)) => {
                // A host name may resolve to something else by now.
                let host = literal(host).is_none_or(|ip| ip == bound.ip().to_canonical());
                host && (*port == 0 || *port == bound.port())
            }
            _ => false,
        }
    }

    /// Whether another socket is to have the same port of every IPv4 address.
    pub(crate) fn must_leave_v4(&self, all: &[Self]) -> bool {
        let PortName::Host(_, port) = self.name else {
            return false;
        };
        all.iter()
            .any(|other| other.udp == self.udp && port != 0 && other.v4_wildcard() == Some(port))
    }

    fn v4_wildcard(&self) -> Option<u16> {
        match &self.name {
            PortName::Port(port) => Some(*port),
            PortName::Host(host, port) if literal(host) == Some(Ipv4Addr::UNSPECIFIED.into()) => {
                Some(*port)
            }
            _ => None,
        }
    }

    /// Binds it. `v6_only` keeps an IPv6 socket off IPv4.
    pub(crate) fn bind(&self, v6_only: bool) -> io::Result<(Socket, Option<SocketFile>)> {
        match &self.name {
            PortName::Port(port) => {
                self.bind_inet(SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)), v6_only)
            }
            PortName::Host(host, port) => {
                let mut last =
                    io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
                for address in resolve(host, *port)? {
                    match self.bind_inet(address, v6_only) {
                        Ok(bound) => return Ok(bound),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            PortName::Path(path) => match abstract_name(path) {
                Some(name) => {
                    let listener =
                        net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(name)?)?;
                    Ok((Socket::Unix(listener), None))
                }
                None => {
                    let (listener, file) = SocketFile::bind(path)?;
                    Ok((Socket::Unix(listener), Some(file)))
                }
            },
        }
    }

    fn bind_inet(
        &self,
        address: SocketAddr,
        v6_only: bool,
    ) -> io::Result<(Socket, Option<SocketFile>)> {
        let kind = if self.udp { Type::DGRAM } else { Type::STREAM };
        let socket = RawSocket::new(Domain::for_address(address), kind, None)?;
        if v6_only && address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if self.udp {
            socket.bind(&address.into())?;
            return Ok((Socket::Udp(socket.into()), None));
        }
        // Else the addresses of connections that have just ended could not be bound.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok((Socket::Tcp(socket.into()), None))
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.to_string();
        match name.rfind(':').filter(|_| self.udp) {
            Some(colon) => write!(f, "{}u{}", &name[..=colon], &name[colon + 1..]),
            None if self.udp => write!(f, "u{name}"),
            None => f.write_str(&name),
        }
    }
}

/// Why an inherited socket is the wanted one, worst first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fit {
    /// Bound to every address of one family, wanted on every one of the other.
    Wildcard,
    Address,
    Name,
}

fn fit_inet(wanted: &[IpAddr], port: u16, bound: SocketAddr) -> Option<Fit> {
    if port == 0 || port != bound.port() {
        return None;
    }
    let ip = bound.ip().to_canonical();
    if wanted.iter().any(|wanted| wanted.to_canonical() == ip) {
        return Some(Fit::Address);
    }
    let both = ip.is_unspecified() && wanted.iter().any(IpAddr::is_unspecified);
    both.then_some(Fit::Wildcard)
}

fn resolve(host: &str, port: u16) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    // The resolver knows the zone of `fe80::1%eth0`, the parser only its number.
    (host, port).to_socket_addrs()
}

fn literal(host: &str) -> Option<IpAddr> {
    let address = host.split('%').next().unwrap_or(host);
    address.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// A super-daemon may have been told of `./app.sock` without the dot.
fn is_named(wanted: &PortName, name: &PortName) -> bool {
    fn below(path: &Path) -> &Path {
        path.strip_prefix(".").unwrap_or(path)
    }
    match (wanted, name) {
        (PortName::Path(wanted), PortName::Path(name)) => below(wanted) == below(name),
        _ => wanted == name,
    }
}

fn is_path(path: &Path, address: &Address) -> bool {
    match address {
        Address::Path(bound) => {
            let real = |path: &Path| path.canonicalize().ok();
            bound == path || real(path).is_some_and(|path| Some(path) == real(bound))
        }
        Address::Abstract(bound) => abstract_name(path) == Some(bound),
        _ => false,
    }
}

/// `@name` without a slash is a name in the abstract namespace.
fn abstract_name(path: &Path) -> Option<&[u8]> {
    let bytes = path.as_os_str().as_bytes();
    bytes
        .strip_prefix(b"@")
        .filter(|name| !name.is_empty() && !name.contains(&b'/'))
}

/// The kernel cuts it down to `net.core.somaxconn`.
const BACKLOG: i32 = i32::MAX;

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn print_then_parse_is_the_identity(host in prop::option::of("[a-z0-9.]{1,8}|::1|fe80::1%2"), port: u16, udp: bool) {
            let name = host.map_or(PortName::Port(port), |host| PortName::Host(host, port));
            let spec = Spec { name, udp };
            prop_assert_eq!(&Spec::parse(OsStr::new(&spec.to_string())).unwrap(), &spec);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_what_parses_prints(bytes in any::<Vec<u8>>()) {
            if let Ok(spec) = Spec::parse(OsStr::from_bytes(&bytes)) {
                prop_assert!(!spec.to_string().is_empty());
                if str::from_utf8(&bytes).is_ok() {
                    prop_assert_eq!(&Spec::parse(OsStr::new(&spec.to_string())).unwrap(), &spec);
                }
            }
        }

        #[test]
        fn almost_right_text_prints_what_it_was_parsed_from(text in "[u0-9:.\\[\\]a=/;@]{0,12}") {
            if let Ok(spec) = Spec::parse(OsStr::new(&text)) {
                prop_assert_eq!(&Spec::parse(OsStr::new(&spec.to_string())).unwrap(), &spec);
            }
        }
    }
}
