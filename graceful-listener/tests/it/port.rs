//! Ports for programs that bind them themselves.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, Socket, Type};

/// Returns a port that nobody has, and that the kernel gives to nobody who asks for any.
pub(crate) fn free() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Several test processes begin at different places.
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id().wrapping_mul(61);
        let port = FIRST + u16::try_from(number % COUNT).unwrap();
        let addresses = [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        ];
        if addresses.iter().all(is_free) {
            return port;
        }
    }
}

/// Without listening there: a copy of the socket that another thread's child has for a
/// moment would keep the port.
fn is_free(address: &SocketAddr) -> bool {
    let bind = || -> io::Result<()> {
        let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&(*address).into())
    };
    bind().map_or_else(|error| error.kind() != ErrorKind::AddrInUse, |()| true)
}

/// Below what `ip_local_port_range` is by default.
const FIRST: u16 = 12_000;
const COUNT: u32 = 20_000;
