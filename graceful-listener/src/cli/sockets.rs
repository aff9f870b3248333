use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::cli::descriptor;
use crate::cli::failure::Failure;
use crate::cli::log::Log;
use crate::ports::{PortName, Ports};

/// The sockets of all generations: opened once, before anything is started, and
/// never accepted from here.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Vec<Held>);

/// One socket, with the name it has in `SERVER_STARTER_PORT`.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) name: PortName,
    pub(crate) fd: OwnedFd,
    /// The file to be removed in the end, if this process made it.
    pub(crate) file: Option<HeldFile>,
}

impl Held {
    /// Returns where it is bound, if it is no Unix socket.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        SockRef::from(&self.fd).local_addr().ok()?.as_socket()
    }
}

/// A socket's place in the file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HeldFile {
    pub(crate) path: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl HeldFile {
    /// Notes which file is at `path` now.
    pub(crate) fn find(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            path: std::path::absolute(path)?,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

impl Sockets {
    pub(crate) fn push(&mut self, held: Held) {
        self.0.push(held);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.0.iter()
    }

    /// Closes all sockets, and removes their files.
    pub(crate) fn close(&mut self) {
        self.keep(&[]);
    }

    /// Closes all sockets but those of these names.
    pub(crate) fn keep(&mut self, names: &[PortName]) {
        let (kept, closed) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|held| names.contains(&held.name));
        self.0 = kept;
        Self(closed).remove_files();
    }

    /// Returns what the workers find in `SERVER_STARTER_PORT`.
    ///
    /// # Errors
    ///
    /// Fails on a name that the variable cannot carry.
    pub(crate) fn ports(&self) -> Result<Ports, Failure> {
        let mut ports = Ports::new();
        for held in &self.0 {
            ports
                .push(held.name.clone(), held.fd.as_raw_fd())
                .map_err(|error| {
                    Failure::new(format!("cannot pass {} to the workers: {error}", held.name))
                })?;
        }
        Ok(ports)
    }

    /// Returns the descriptors with the numbers they have here and in the workers.
    pub(crate) fn descriptors(&self) -> Vec<(BorrowedFd<'_>, RawFd)> {
        self.0
            .iter()
            .map(|held| (held.fd.as_fd(), held.fd.as_raw_fd()))
            .collect()
    }

    /// Returns true if a socket is the workers' standard input.
    pub(crate) fn take_stdin(&self) -> bool {
        self.0.iter().any(|held| held.fd.as_raw_fd() == 0)
    }

    /// Removes the files of the Unix sockets, unless somebody has meanwhile put
    /// another one in their place.
    pub(crate) fn remove_files(&self) {
        for file in self.0.iter().filter_map(|held| held.file.as_ref()) {
            let same = |metadata: fs::Metadata| {
                (metadata.dev(), metadata.ino()) == (file.device, file.inode)
            };
            if fs::symlink_metadata(&file.path).is_ok_and(same) {
                let _ = fs::remove_file(&file.path);
            }
        }
    }
}

/// A socket that is open already when the super-daemon starts.
#[derive(Debug)]
pub(crate) enum Source {
    /// Given by whoever started this process, which also keeps its file.
    Given(OwnedFd),
    /// Copied from a worker whose super-daemon is gone.
    Adopted(OwnedFd),
}

impl Source {
    pub(crate) const fn fd(&self) -> &OwnedFd {
        match self {
            Self::Given(fd) | Self::Adopted(fd) => fd,
        }
    }
}

/// What `--port` asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PortSpec {
    name: PortName,
    datagram: bool,
    descriptor: Option<RawFd>,
}

impl PortSpec {
    /// Reads `[HOST:]['u']PORT['=' DESCRIPTOR]`, with blanks around the parts.
    ///
    /// # Errors
    ///
    /// Fails with the reason if the text is anything else.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        let text = text.to_str().ok_or("not UTF-8")?.trim();
        let (text, descriptor) = match text.rsplit_once('=') {
            Some((before, number)) => (before.trim_end(), Some(fd_number(number)?)),
            None => (text, None),
        };
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (Some(host.trim()), port.trim()),
            None => (None, text),
        };
        let (datagram, port) = match port.strip_prefix('u') {
            Some(port) => (true, port),
            None => (false, port),
        };
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("expected a port number, found `{port}`"));
        }
        let port: u16 = port
            .parse()
            .map_err(|_| format!("port {port} is out of range, the highest is 65535"))?;
        let name = match host {
            None => PortName::Port(port),
            Some(host) => {
                let host = match host.strip_prefix('[') {
                    Some(inner) => inner
                        .strip_suffix(']')
                        .ok_or("the bracket is not closed")?
                        .trim(),
                    None => host,
                };
                if host.is_empty() {
                    return Err("failed to resolve host: it is empty".into());
                }
                PortName::Host(host.into(), port)
            }
        };
        Ok(Self {
            name,
            datagram,
            descriptor,
        })
    }

    /// Returns the number the socket has to have.
    pub(crate) const fn descriptor(&self) -> Option<RawFd> {
        self.descriptor
    }

    pub(crate) const fn name(&self) -> &PortName {
        &self.name
    }

    const fn kind(&self) -> Type {
        if self.datagram {
            Type::DGRAM
        } else {
            Type::STREAM
        }
    }

    /// Looks the address up: a host name is its first IPv4 address.
    fn address(&self) -> Result<SocketAddr, Failure> {
        let (host, port) = match &self.name {
            PortName::Port(port) => return Ok((Ipv4Addr::UNSPECIFIED, *port).into()),
            PortName::Host(host, port) => (host, *port),
            PortName::Path(_) => return Err(Failure::new("a path is no port")),
        };
        let unresolved =
            |error: &io::Error| Failure::io(format!("failed to resolve host:{host}"), error);
        if host.contains(':') {
            // This form also takes a zone.
            return format!("[{host}]:{port}")
                .to_socket_addrs()
                .map_err(|error| unresolved(&error))?
                .next()
                .ok_or_else(|| Failure::new(format!("failed to resolve host:{host}")));
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok((address, port).into());
        }
        (host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| unresolved(&error))?
            .find(SocketAddr::is_ipv4)
            .ok_or_else(|| {
                Failure::new(format!(
                    "failed to resolve host:{host}: it has no IPv4 address"
                ))
            })
    }

    /// Binds the socket, or takes one of `available` that is bound there already.
    pub(crate) fn open(
        &self,
        backlog: i32,
        available: &mut Vec<Source>,
        log: &Log,
    ) -> Result<Held, Failure> {
        let address = self.address()?;
        let taken = available
            .iter()
            .position(|source| is_bound(source.fd(), &SockAddr::from(address), self.kind()));
        let fd = match taken.map(|index| available.swap_remove(index)) {
            Some(Source::Given(fd) | Source::Adopted(fd)) => fd,
            None => self.bind(address, backlog)?,
        };
        let fd = match self.descriptor {
            Some(number) if number != fd.as_raw_fd() => {
                let fd = descriptor::place(fd, number)
                    .map_err(|error| Failure::io(format!("dup2(2) failed({number})"), &error))?;
                log.line(format_args!(
                    "socket is duplicated to file descriptor {number}"
                ));
                fd
            }
            _ => fd,
        };
        Ok(Held {
            name: self.name.clone(),
            fd,
            file: None,
        })
    }

    fn bind(&self, address: SocketAddr, backlog: i32) -> Result<OwnedFd, Failure> {
        let failed = |call: &str| {
            let text = format!("{call} {}", self.name);
            move |error: io::Error| Failure::io(text, &error)
        };
        let socket = Socket::new(Domain::for_address(address), self.kind(), None)
            .map_err(failed("failed to create socket for"))?;
        if address.is_ipv6() {
            socket
                .set_only_v6(true)
                .map_err(failed("failed to set IPV6_V6ONLY for"))?;
        }
        if !self.datagram {
            // For UDP it would let a second process steal the port.
            socket
                .set_reuse_address(true)
                .map_err(failed("failed to set SO_REUSEADDR for"))?;
        }
        socket
            .bind(&address.into())
            .map_err(failed("failed to bind to"))?;
        if !self.datagram {
            socket
                .listen(backlog)
                .map_err(failed("listen(2) failed for"))?;
        }
        Ok(socket.into())
    }
}

/// Makes the Unix socket at `path`, in place of one that is there.
pub(crate) fn open_path(
    path: &Path,
    mode: u32,
    backlog: i32,
    available: &mut Vec<Source>,
    log: &Log,
) -> Result<Held, Failure> {
    let failed = |error: io::Error| {
        Failure::io(
            format!("failed to listen to file {}", path.display()),
            &error,
        )
    };
    let address = SockAddr::unix(path).map_err(failed)?;
    let name = PortName::Path(path.into());
    let taken = available
        .iter()
        .position(|source| is_bound(source.fd(), &address, Type::STREAM));
    match taken.map(|index| available.swap_remove(index)) {
        Some(Source::Given(fd)) => {
            return Ok(Held {
                name,
                fd,
                file: None,
            });
        }
        Some(Source::Adopted(fd)) => {
            return Ok(Held {
                name,
                fd,
                file: HeldFile::find(path).ok(),
            });
        }
        None => {}
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            log.line(format_args!(
                "removing existing socket file:{}",
                path.display()
            ));
            fs::remove_file(path).map_err(|error| {
                Failure::io(
                    format!("failed to remove existing socket file:{}", path.display()),
                    &error,
                )
            })?;
        }
        Ok(_) => {
            return Err(Failure::new(format!(
                "failed to listen to file {}: it exists and is not a socket",
                path.display()
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // The file is never there with another mode than the one asked for.
    let saved = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = socket.bind(&address);
    umask(saved);
    bound
        .and_then(|()| socket.listen(backlog))
        .map_err(failed)?;
    let file = HeldFile::find(path).map_err(failed)?;
    Ok(Held {
        name,
        fd: socket.into(),
        file: Some(file),
    })
}

/// Names a socket that came without a name by the address it is bound to.
///
/// # Errors
///
/// Fails if Server::Starter has no way to name it.
pub(crate) fn named(fd: OwnedFd) -> Result<Held, Failure> {
    match name_of(&fd) {
        Ok(name) => Ok(Held {
            name,
            fd,
            file: None,
        }),
        Err(reason) => Err(Failure::new(format!(
            "cannot pass descriptor {} on to the workers: {reason}",
            fd.as_raw_fd()
        ))),
    }
}

fn name_of(fd: &OwnedFd) -> Result<PortName, String> {
    let socket = SockRef::from(fd);
    let address = socket
        .local_addr()
        .map_err(|error| format!("it is no socket: {}", crate::cli::failure::reason(&error)))?;
    if let Some(path) = address.as_pathname() {
        return Ok(PortName::Path(path.into()));
    }
    match address.as_socket() {
        Some(SocketAddr::V4(v4)) if v4.ip().is_unspecified() => Ok(PortName::Port(v4.port())),
        Some(address) => Ok(PortName::Host(address.ip().to_string(), address.port())),
        None => Err("it has neither an IP address nor a path".into()),
    }
}

fn is_bound(fd: &OwnedFd, address: &SockAddr, kind: Type) -> bool {
    let socket = SockRef::from(fd);
    let same = |bound: SockAddr| match (bound.as_socket(), address.as_socket()) {
        (Some(bound), Some(wanted)) => bound == wanted && wanted.port() != 0,
        _ => match (bound.as_pathname(), address.as_pathname()) {
            (Some(bound), Some(wanted)) => same_file(bound, wanted),
            _ => false,
        },
    };
    socket.r#type().is_ok_and(|found| found == kind) && socket.local_addr().is_ok_and(same)
}

fn same_file(a: &Path, b: &Path) -> bool {
    let identity =
        |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    a == b || matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
}

fn fd_number(text: &str) -> Result<RawFd, String> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "expected a descriptor number behind `=`, found `{text}`"
        ));
    }
    match text.parse() {
        Ok(1 | 2) => Err(format!(
            "descriptor {text} carries the log, choose 0 or one from 3 on"
        )),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("descriptor {text} is out of range")),
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// A path is passed on as it was written, and must be readable as a path again.
pub(crate) fn check_path(path: &Path) -> Result<(), String> {
    let text: &OsString = &path.as_os_str().into();
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.as_bytes().contains(&b';') {
        return Err("a `;` cannot be passed on in SERVER_STARTER_PORT".into());
    }
    match PortName::parse(text) {
        Ok(PortName::Path(_)) => Ok(()),
        _ => Err(format!("it reads like a port; write ./{}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(text: &str) -> Result<(String, bool, Option<RawFd>), String> {
        PortSpec::parse(OsStr::new(text))
            .map(|spec| (spec.name.to_string(), spec.datagram, spec.descriptor))
    }

    #[test]
    fn every_form_of_a_port_is_read() {
        for (text, name, datagram, descriptor) in [
            ("8080", "8080", false, None),
            (" 8080 ", "8080", false, None),
            ("u53", "53", true, None),
            ("8080=3", "8080", false, Some(3)),
            ("8080 =3", "8080", false, Some(3)),
            ("u53=0", "53", true, Some(0)),
            ("0", "0", false, None),
            ("localhost:80", "localhost:80", false, None),
            ("127.0.0.1:u80=7", "127.0.0.1:80", true, Some(7)),
            ("host : 80", "host:80", false, None),
            ("[::1]:80", "[::1]:80", false, None),
            ("::1:80", "[::1]:80", false, None),
            ("[ ::1 ]:u80", "[::1]:80", true, None),
            ("[127.0.0.1]:80", "127.0.0.1:80", false, None),
            ("65535", "65535", false, None),
        ] {
            assert_eq!(
                spec(text),
                Ok((name.into(), datagram, descriptor)),
                "{text:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn port_that_is_printed_is_read_back(host in "[a-z0-9.]{1,8}|::1|fe80::[0-9a-f]{1,4}", port: u16, datagram: bool, fd in proptest::option::of(3..1000)) {
            let bracketed = if host.contains(':') { format!("[{host}]") } else { host };
            let (u, equals) = (if datagram { "u" } else { "" }, fd.map(|fd| format!("={fd}")).unwrap_or_default());
            let read = spec(&format!("{bracketed}:{u}{port}{equals}"));
            prop_assert_eq!(read, Ok((format!("{bracketed}:{port}"), datagram, fd)));
        }

        #[test]
        fn no_port_panics(text in ".{0,20}") {
            let _ = spec(&text);
        }
    }

    #[test]
    fn what_is_no_port_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "port number"),
            ("http", "`http`"),
            ("65536", "out of range"),
            ("99999", "out of range"),
            (":8080", "resolve host"),
            ("host:", "port number"),
            ("[::1:80", "bracket"),
            ("80=", "descriptor number"),
            ("80=x", "`x`"),
            ("80=2", "carries the log"),
            ("80=99999999999", "out of range"),
            ("-1", "`-1`"),
            ("uu80", "`u80`"),
        ] {
            let error = spec(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
