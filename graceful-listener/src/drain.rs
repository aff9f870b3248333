use std::collections::HashMap;
use std::fmt;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::sync::Notify;

/// Tells whether a service is draining, and makes it drain.
///
/// A drain ends a service without losing a request. It stops accepting; whoever is
/// connected is served on:
///
/// - A connection from which nothing has been read yet may carry a request by
///   now. It is waited for as if it were being answered.
/// - The next request on a kept-alive HTTP/1 connection is answered with
///   `Connection: close`, which tells the client not to send another one there. Only a
///   connection that has been idle for the [linger](crate::Serve::linger) time is
///   closed without that: closing it at once would lose a request that is on its way.
/// - HTTP/2 connections get a GOAWAY. Streams that are opened until the client has
///   heard of it, or for the linger time, are served.
/// - Upgraded connections and HTTP/2 streams, such as WebSockets, are waited for.
/// - So is [other work](Self::hold) that asks for it.
///
/// What is left after the [deadline](crate::Serve::drain_timeout) is closed, and
/// [reported](Served).
///
/// Clones stand for the same drain. Starting it twice is starting it once.
///
/// # Examples
///
/// A health check that fails as soon as the service is about to go:
///
/// ```
/// use axum::{Router, http::StatusCode, routing::get};
/// use graceful_listener::{Drain, Listeners, serve};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let drain = Drain::new();
/// let state = drain.clone();
/// let healthz = move || async move {
///     if state.is_draining() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
/// };
/// let app = Router::new().route("/healthz", get(healthz));
/// let listeners = Listeners::bind(["127.0.0.1:0"])?;
/// # drain.start();
/// let served = serve(listeners, app).drain(drain).await?;
/// assert_eq!(served.cut, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Drain(Arc<Shared>);

impl Drain {
    /// Creates one that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to drain.
    pub fn start(&self) {
        self.0.advance(Phase::Draining);
    }

    /// Closes every connection at once.
    pub fn end_now(&self) {
        self.0.advance(Phase::Ended);
    }

    /// Returns true from the moment that the drain has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.phase() != Phase::Serving
    }

    /// Waits until the drain has begun.
    pub async fn started(&self) {
        self.0.reached(Phase::Draining).await;
    }

    /// Holds up the end of the drain until the returned guard is dropped: for
    /// work that goes on after its response.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let drain = graceful_listener::Drain::new();
    /// let guard = drain.hold();
    /// tokio::spawn(async move {
    ///     // Send the mail, settle the account.
    ///     drop(guard);
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn hold(&self) -> DrainGuard {
        self.0.held.fetch_add(1, Ordering::SeqCst);
        DrainGuard(Arc::clone(&self.0))
    }

    /// Returns the number of open connections, the upgraded ones among them.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::SeqCst)
    }

    /// Returns the number of connections that have ceased to speak HTTP, in HTTP/2 on at
    /// least one stream.
    #[must_use]
    pub fn upgraded(&self) -> usize {
        self.0.upgraded().len()
    }

    /// Returns the number of [guards](Self::hold).
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::SeqCst)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("phase", &self.0.phase())
            .field("connections", &self.connections())
            .field("upgraded", &self.upgraded())
            .field("held", &self.held())
            .finish()
    }
}

/// Holds up the end of a [drain](Drain::hold) for as long as it lives.
pub struct DrainGuard(Arc<Shared>);

impl fmt::Debug for DrainGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainGuard").finish_non_exhaustive()
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.0.held.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

/// Tells how a service has ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Served {
    /// How many connections were closed because the deadline had passed, or
    /// because the end was ordered at once.
    pub cut: usize,
    /// How many of those had been upgraded, or had upgraded streams, WebSockets for example.
    pub cut_upgraded: usize,
    /// How many [guards](Drain::hold) were held by then.
    pub held: usize,
}

/// How far a service has come on its way out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Phase {
    Serving,
    Draining,
    /// Nothing is waited for any more.
    Ended,
}

/// What the connections of one service share.
#[derive(Default)]
pub(crate) struct Shared {
    phase: AtomicU8,
    handed_over: AtomicBool,
    /// Woken at each change of phase.
    changed: Notify,
    connections: AtomicUsize,
    held: AtomicUsize,
    /// Woken when the last connection, or guard, has gone.
    empty: Notify,
    upgraded: Mutex<HashMap<u64, Upgraded>>,
    cut: OnceLock<Served>,
}

impl Shared {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Ended,
        }
    }

    pub(crate) fn advance(&self, phase: Phase) {
        if phase == Phase::Ended {
            // Counted before the first of them can go.
            self.cut.get_or_init(|| Served {
                cut: self.connections.load(Ordering::SeqCst),
                cut_upgraded: self.upgraded().len(),
                held: self.held.load(Ordering::SeqCst),
            });
        }
        if self.phase.fetch_max(phase as u8, Ordering::SeqCst) < phase as u8 {
            self.changed.notify_waiters();
        }
        if phase == Phase::Ended {
            // Hyper's end on their own tasks, most of these have none that is ours.
            for upgraded in self.upgraded().values() {
                upgraded.socket.cut();
            }
        }
    }

    /// Notes that another process accepts from the same sockets.
    pub(crate) fn hand_over(&self) {
        self.handed_over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::SeqCst)
    }

    pub(crate) const fn changed(&self) -> &Notify {
        &self.changed
    }

    pub(crate) async fn reached(&self, phase: Phase) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.phase() >= phase {
                return;
            }
            changed.await;
        }
    }

    pub(crate) async fn emptied(&self) {
        loop {
            let mut empty = std::pin::pin!(self.empty.notified());
            empty.as_mut().enable();
            let left = self.connections.load(Ordering::SeqCst) + self.held.load(Ordering::SeqCst);
            if left == 0 {
                return;
            }
            empty.await;
        }
    }

    /// Counts a connection for as long as the guard lives.
    pub(crate) fn enter(self: &Arc<Self>) -> Counted {
        self.connections.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(self))
    }

    /// Goes on watching a connection that hyper has given away, or a stream of which, unless it
    /// is closed already.
    pub(crate) fn adopt(&self, id: u64, socket: &Arc<OpenSocket>) {
        let mut upgraded = self.upgraded();
        if socket.mark_upgraded() {
            let entry = upgraded.entry(id).or_insert_with(|| Upgraded {
                socket: Arc::clone(socket),
                streams: 0,
            });
            entry.streams += 1;
        }
        if self.phase() == Phase::Ended {
            socket.cut();
        }
    }

    /// Notes that a stream which was [adopted](Self::adopt) has ended.
    pub(crate) fn release(&self, id: u64) {
        let mut upgraded = self.upgraded();
        if let Some(entry) = upgraded.get_mut(&id) {
            entry.streams -= 1;
            if entry.streams == 0 {
                upgraded.remove(&id);
            }
        }
    }

    pub(crate) fn forget(&self, id: u64) {
        self.upgraded().remove(&id);
    }

    /// What was left when nothing was waited for any more.
    pub(crate) fn cut(&self) -> Served {
        self.cut.get().copied().unwrap_or_default()
    }

    fn upgraded(&self) -> MutexGuard<'_, HashMap<u64, Upgraded>> {
        self.upgraded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that has ceased to speak HTTP, as a whole or on some of its streams.
struct Upgraded {
    socket: Arc<OpenSocket>,
    streams: usize,
}

/// Takes one from the count of connections when dropped.
pub(crate) struct Counted(Arc<Shared>);

impl Counted {
    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.connections.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

/// A connection's descriptor, for as long as it is open, wherever its owner has gone.
pub(crate) struct OpenSocket {
    // Held while the descriptor is used, so that its owner cannot close it then.
    fd: Mutex<Option<RawFd>>,
    upgraded: AtomicBool,
    lingers: AtomicBool,
}

impl OpenSocket {
    pub(crate) const fn new(fd: RawFd) -> Self {
        Self {
            fd: Mutex::new(Some(fd)),
            upgraded: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
        }
    }

    /// To be called before the descriptor is closed. Returns whether the
    /// connection was upgraded.
    pub(crate) fn close(&self) -> bool {
        *self.fd() = None;
        self.upgraded.load(Ordering::SeqCst)
    }

    /// Notes that the client may go on sending after the last response.
    pub(crate) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    /// Whether the client has sent, or may go on sending, what nobody will read.
    pub(crate) fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed) || self.has_input()
    }

    /// Whether bytes have arrived that were not read yet.
    pub(crate) fn has_input(&self) -> bool {
        use nix::sys::socket::{MsgFlags, recv};
        let fd = self.fd();
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        fd.is_some_and(|fd| recv(fd, &mut [0], flags).is_ok_and(|length| length > 0))
    }

    fn cut(&self) {
        if let Some(fd) = *self.fd() {
            // Its owner then reads the end of the stream, and lets go of it.
            let _ = shutdown(fd, Shutdown::Both);
        }
    }

    fn mark_upgraded(&self) -> bool {
        let fd = self.fd();
        self.upgraded.store(fd.is_some(), Ordering::SeqCst);
        fd.is_some()
    }

    fn fd(&self) -> MutexGuard<'_, Option<RawFd>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn connection_that_is_upgraded_after_the_end_was_ordered_is_cut() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let socket = Arc::new(OpenSocket::new(ours.as_raw_fd()));
        let shared = Shared::default();
        shared.advance(Phase::Ended);
        assert!(theirs.read(&mut [0]).is_err(), "it is open");
        shared.adopt(1, &socket);
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    }
}
