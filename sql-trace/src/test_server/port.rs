use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};

/// A port of 127.0.0.1 that is kept for as long as this value lives, whether its
/// server runs or not.
///
/// Neither server can be handed a socket, but each sets `SO_REUSEADDR` on its
/// own, as this does. So it may listen beside this socket, which does not; while
/// whoever asks the kernel for any port is given another.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    /// Held open for its port.
    _socket: OwnedFd,
}

impl Port {
    pub(super) fn reserve() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        let address = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self {
            number: address.port(),
            _socket: socket,
        })
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn reserved_port_is_its_servers_alone() {
        let port = Port::reserve().unwrap();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.number());
        // Nobody listens on it until the server does, which may do so again.
        for _ in 0..2 {
            let refused = TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let server = TcpListener::bind(address).unwrap();
            TcpStream::connect(address).unwrap();
            drop(server);
        }
        // Whoever does not ask for it by `SO_REUSEADDR` finds it taken.
        let flags = SocketFlags::CLOEXEC;
        let other = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let taken = bind(&other, &address).unwrap_err();
        assert_eq!(taken, rustix::io::Errno::ADDRINUSE);
    }
}
