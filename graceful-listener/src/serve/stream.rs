use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use crate::address::Address;
use crate::drain::{Counted, OpenSocket, Shared};

/// Carries the bytes of one accepted connection.
///
/// It counts as open for the drain until it is dropped, also after HTTP has
/// given it away, to a WebSocket for example.
pub struct Stream {
    io: Io,
    endpoints: Endpoints,
    socket: Arc<OpenSocket>,
    id: u64,
    closing: Option<Pin<Box<Sleep>>>,
    _permit: Option<OwnedSemaphorePermit>,
    // Last, so that the connection is closed before it ceases to count.
    counted: Counted,
}

impl Stream {
    pub(super) fn new(
        io: Io,
        endpoints: Endpoints,
        permit: Option<OwnedSemaphorePermit>,
        shared: &Arc<Shared>,
    ) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Self {
            socket: Arc::new(OpenSocket::new(io.as_fd().as_raw_fd())),
            io,
            endpoints,
            id: IDS.fetch_add(1, Ordering::Relaxed),
            closing: None,
            _permit: permit,
            counted: shared.enter(),
        }
    }

    /// Returns who is at which end.
    #[must_use]
    pub const fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(super) const fn socket(&self) -> &Arc<OpenSocket> {
        &self.socket
    }

    pub(super) const fn id(&self) -> u64 {
        self.id
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.socket.close() {
            self.counted.shared().forget(self.id);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buffer),
            Io::Unix(io) => Pin::new(io).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_write(cx, bytes),
            Io::Unix(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_write_vectored(cx, parts),
            Io::Unix(io) => Pin::new(io).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Unix(io) => Pin::new(io).poll_flush(cx),
        }
    }

    /// Ends the writing side, then waits a moment for the client to end its own
    /// if it may still be sending.
    ///
    /// A socket that is closed with bytes unread resets the connection, and the
    /// reset may overtake the response on its way to the client.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let closing = match &mut this.closing {
            Some(closing) => closing,
            None => {
                ready!(match &mut this.io {
                    Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
                    Io::Unix(io) => Pin::new(io).poll_shutdown(cx),
                })?;
                if !this.socket.lingers() {
                    return Poll::Ready(Ok(()));
                }
                this.closing.insert(Box::pin(sleep(LINGERING_CLOSE)))
            }
        };
        let mut scrap = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scrap);
            let read = match &mut this.io {
                Io::Tcp(io) => Pin::new(io).poll_read(cx, &mut buffer),
                Io::Unix(io) => Pin::new(io).poll_read(cx, &mut buffer),
            };
            match read {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && !closing.is_elapsed() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return closing.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

/// Tells who is at which end of a connection.
///
/// [`serve`](crate::serve()) puts one into the extensions of every request.
///
/// # Examples
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use graceful_listener::Endpoints;
///
/// async fn who(Extension(endpoints): Extension<Endpoints>) -> String {
///     format!("{} speaks to {}", endpoints.peer(), endpoints.local())
/// }
/// let app: Router = Router::new().route("/", get(who));
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoints(Arc<(Address, Address)>);

impl Endpoints {
    pub(super) fn new(peer: Address, local: Address) -> Self {
        Self(Arc::new((peer, local)))
    }

    /// Returns the client's address.
    #[must_use]
    pub fn peer(&self) -> &Address {
        &self.0.0
    }

    /// Returns the address that the client has connected to.
    #[must_use]
    pub fn local(&self) -> &Address {
        &self.0.1
    }
}

pub(super) enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsFd for Io {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(io) => io.as_fd(),
            Self::Unix(io) => io.as_fd(),
        }
    }
}

/// How long the client may take to read a last response.
const LINGERING_CLOSE: Duration = Duration::from_secs(1);
