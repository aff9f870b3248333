use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use crate::address::Address;

/// Owns a listening socket, or a UDP socket.
///
/// It is close-on-exec and non-blocking. Whether a socket blocks is a property
/// that all processes share which have it: another generation of the
/// service that has inherited the same socket sees it change.
#[derive(Debug)]
#[non_exhaustive]
pub enum Socket {
    /// Listens on an IPv4 or IPv6 address.
    Tcp(TcpListener),
    /// Receives datagrams on an IPv4 or IPv6 address.
    Udp(UdpSocket),
    /// Listens on a Unix socket.
    Unix(UnixListener),
}

impl Socket {
    /// Returns the address that the socket is bound to.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does.
    pub fn local_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(Address::Inet),
            Self::Udp(socket) => socket.local_addr().map(Address::Inet),
            Self::Unix(socket) => socket.local_addr().map(|address| Address::from(&address)),
        }
    }

    /// Registers the socket with the tokio runtime that this is called in.
    ///
    /// # Errors
    ///
    /// Fails if the reactor does not take it.
    ///
    /// # Panics
    ///
    /// Panics outside a runtime with I/O enabled.
    #[cfg(feature = "tokio")]
    pub fn into_tokio(self) -> io::Result<TokioSocket> {
        Ok(match self {
            Self::Tcp(socket) => TokioSocket::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Self::Udp(socket) => TokioSocket::Udp(tokio::net::UdpSocket::from_std(socket)?),
            Self::Unix(socket) => TokioSocket::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }

    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_nonblocking(true),
            Self::Udp(socket) => socket.set_nonblocking(true),
            Self::Unix(socket) => socket.set_nonblocking(true),
        }
    }
}

impl From<TcpListener> for Socket {
    fn from(socket: TcpListener) -> Self {
        Self::Tcp(socket)
    }
}

impl From<UdpSocket> for Socket {
    fn from(socket: UdpSocket) -> Self {
        Self::Udp(socket)
    }
}

impl From<UnixListener> for Socket {
    fn from(socket: UnixListener) -> Self {
        Self::Unix(socket)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Tcp(socket) => socket.into(),
            Socket::Udp(socket) => socket.into(),
            Socket::Unix(socket) => socket.into(),
        }
    }
}

/// Owns a listening socket, or a UDP socket, that a tokio runtime watches.
#[cfg(feature = "tokio")]
#[derive(Debug)]
#[non_exhaustive]
pub enum TokioSocket {
    /// Listens on an IPv4 or IPv6 address.
    Tcp(tokio::net::TcpListener),
    /// Receives datagrams on an IPv4 or IPv6 address.
    Udp(tokio::net::UdpSocket),
    /// Listens on a Unix socket.
    Unix(tokio::net::UnixListener),
}
