use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::stream::{Endpoints, Io, Stream};
use crate::address::Address;
use crate::drain::{Phase, Shared};
use crate::socket_file::SocketFile;

/// One socket whose connections are accepted.
pub(super) struct Acceptor {
    pub(super) listener: Listening,
    pub(super) address: Address,
    pub(super) file: Option<SocketFile>,
    /// Caps the connections of all sockets together.
    pub(super) permits: Option<Arc<Semaphore>>,
    /// Whether another process accepts what this one leaves in the queue.
    pub(super) is_shared: bool,
    pub(super) shared: Arc<Shared>,
}

pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    /// Accepts connections until the drain begins.
    pub(super) async fn run(self, serve: impl Fn(Stream)) {
        let mut back_off = BackOff::new();
        let shared = Arc::clone(&self.shared);
        let mut draining = pin!(shared.reached(Phase::Draining));
        loop {
            let accepted = tokio::select! {
                // Goes before a queue that never empties.
                biased;
                () = &mut draining => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(stream) => {
                    back_off.reset();
                    serve(stream);
                }
                Err(error) if is_the_connections(&error) => {
                    debug!(address = %self.address, %error, "connection lost before it was accepted");
                }
                Err(error) => {
                    let delay = back_off.next();
                    warn!(address = %self.address, %error, ?delay, "cannot accept connections");
                    tokio::select! {
                        () = &mut draining => break,
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
        self.finish(&serve);
    }

    async fn accept(&self) -> io::Result<Stream> {
        match &self.listener {
            Listening::Tcp(listener) => {
                let ((stream, peer), permit) =
                    self.permitted(|cx| listener.poll_accept(cx)).await?;
                Ok(self.tcp(stream, peer.into(), permit))
            }
            Listening::Unix(listener) => {
                let ((stream, peer), permit) =
                    self.permitted(|cx| listener.poll_accept(cx)).await?;
                Ok(self.unix(stream, Address::from(&peer.into()), permit))
            }
        }
    }

    /// Accepts with a permit. A socket to which nobody connects keeps none from the others.
    async fn permitted<T>(
        &self,
        mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<(T, Option<OwnedSemaphorePermit>)> {
        let Some(permits) = &self.permits else {
            return Ok((poll_fn(accept).await?, None));
        };
        let acquire = || Arc::clone(permits).acquire_owned();
        let mut acquiring = pin!(acquire());
        poll_fn(|cx| {
            let permit = ready!(acquiring.as_mut().poll(cx)).ok();
            acquiring.set(acquire());
            accept(cx).map_ok(|accepted| (accepted, permit))
        })
        .await
    }

    /// Accepts what has arrived before the socket is closed, which would reset it.
    fn finish(mut self, serve: &impl Fn(Stream)) {
        // With its file the socket loses its clients to come.
        drop(self.file.take());
        if self.is_shared || self.shared.is_handed_over() || self.shared.phase() == Phase::Ended {
            return;
        }
        loop {
            match self.accept_now() {
                Ok(stream) => serve(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_the_connections(&error) => {}
                Err(error) => {
                    return warn!(address = %self.address, %error, "connections are left in the queue");
                }
            }
        }
    }

    /// Asks the kernel itself: the runtime may not have heard yet of what has arrived.
    fn accept_now(&self) -> io::Result<Stream> {
        match &self.listener {
            Listening::Tcp(listener) => {
                let (stream, peer) = SockRef::from(listener).accept()?;
                stream.set_nonblocking(true)?;
                let peer = peer.as_socket().map_or(Address::Unnamed, Address::Inet);
                Ok(self.tcp(TcpStream::from_std(stream.into())?, peer, None))
            }
            Listening::Unix(listener) => {
                let (stream, peer) = SockRef::from(listener).accept()?;
                stream.set_nonblocking(true)?;
                let peer = peer
                    .as_unix()
                    .map_or(Address::Unnamed, |peer| Address::from(&peer));
                Ok(self.unix(UnixStream::from_std(stream.into())?, peer, None))
            }
        }
    }

    fn tcp(
        &self,
        stream: TcpStream,
        peer: Address,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Stream {
        if let Err(error) = stream.set_nodelay(true) {
            // The client is gone already, as reading from it will show.
            debug!(%peer, %error, "cannot set TCP_NODELAY");
        }
        let local = match &self.address {
            Address::Inet(address) if address.ip().is_unspecified() => {
                stream.local_addr().ok().map(Address::Inet)
            }
            _ => None,
        };
        let local = local.unwrap_or_else(|| self.address.clone());
        Stream::new(
            Io::Tcp(stream),
            Endpoints::new(peer, local),
            permit,
            &self.shared,
        )
    }

    fn unix(
        &self,
        stream: UnixStream,
        peer: Address,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Stream {
        let endpoints = Endpoints::new(peer, self.address.clone());
        Stream::new(Io::Unix(stream), endpoints, permit, &self.shared)
    }
}

/// How long to leave clients in the queue when the process is out of descriptors
/// or memory.
struct BackOff(Duration);

impl BackOff {
    const fn new() -> Self {
        Self(Self::FIRST)
    }

    const fn reset(&mut self) {
        self.0 = Self::FIRST;
    }

    fn next(&mut self) -> Duration {
        let delay = self.0;
        self.0 = (delay * 2).min(Self::LAST);
        delay
    }

    const FIRST: Duration = Duration::from_millis(5);
    const LAST: Duration = Duration::from_secs(1);
}

/// Errors that `accept(2)` passes on from a connection that has failed.
fn is_the_connections(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown,
        NetworkUnreachable, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | TimedOut
    ) || matches!(
        error.raw_os_error(),
        Some(
            nix::libc::EPROTO
                | nix::libc::ENOPROTOOPT
                | nix::libc::EPERM
                | nix::libc::EINTR
                | nix::libc::EOPNOTSUPP
        )
    )
}
