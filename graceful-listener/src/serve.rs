mod accept;
mod activity;
mod coarse_clock;
mod connection;
mod last_ping;
mod manager;
mod request;
mod signals;
mod stream;
mod streams;
mod upgrades;
mod watched;

use std::error::Error;
use std::fmt;
use std::future::{IntoFuture, Ready, pending, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Interval, sleep_until, timeout};
use tower_service::Service;
use tracing::{info, warn};

use self::accept::{Acceptor, Listening};
use self::connection::Limits;
use self::manager::Manager;
use self::signals::Signals;
pub use self::stream::{Endpoints, Stream};
use self::upgrades::Upgrades;
use crate::address::Address;
use crate::drain::{Drain, Phase, Served, Shared};
use crate::listeners::{Listener, Listeners, Origin};
use crate::notify::NotifyMessage;
use crate::socket::TokioSocket;
use crate::upgrade::{Predecessor, UpgradeError, Upgrader};

/// Serves HTTP/1.1 and HTTP/2 until the process is asked to stop, and ends
/// without losing a request.
///
/// The service is any tower service that is cheap to clone, such as an axum
/// `Router`. It finds [`Endpoints`] in the extensions of its requests.
///
/// Await the returned value. It resolves when the service has drained:
/// because SIGTERM or SIGINT has come, because its [`Drain`] was started, or
/// because another process has taken over. A second SIGINT ends it at once;
/// another SIGTERM changes nothing, as super-daemons repeat it.
///
/// When nothing can fail any more, whoever has started this process is told:
/// `READY=1` to `NOTIFY_SOCKET`, and the process that this one replaces. Then the
/// first connection is accepted. `STOPPING=1` follows when the drain begins,
/// `WATCHDOG=1` twice in each interval that systemd asks for.
///
/// # Defaults
///
/// | option | default |
/// | --- | --- |
/// | [`drain_timeout`](Serve::drain_timeout) | 30 s |
/// | [`linger`](Serve::linger) | 1 s |
/// | [`header_read_timeout`](Serve::header_read_timeout) | 30 s |
/// | [`keep_alive_timeout`](Serve::keep_alive_timeout) | 75 s |
/// | [`max_connections`](Serve::max_connections) | no limit |
///
/// When the process is out of descriptors or memory, clients are left in the
/// socket's queue and accepting is tried again, at first after 5 ms, later every
/// second. `TCP_NODELAY` is set on every connection.
///
/// A response is sent for as long as its client takes to read it. A client that closes its
/// connection, or only its sending side, is taken for gone, and its request is dropped.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use graceful_listener::{Listeners, serve};
///
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let app = Router::new().route("/", get(async || "Hello"));
///     let listeners = Listeners::inherit_or_bind(["127.0.0.1:8080", "/run/hello.sock"])?;
///     let served = serve(listeners, app).drain_timeout(Duration::from_secs(20)).await?;
///     if served.cut > 0 {
///         eprintln!("{} connections had to be cut", served.cut);
///     }
///     Ok(())
/// }
/// ```
pub fn serve<S>(listeners: Listeners, service: S) -> Serve<S> {
    Serve {
        listeners,
        service,
        acceptor: |stream| ready(Ok(stream)),
        options: Options {
            limits: Limits {
                header_read_timeout: Duration::from_secs(30),
                keep_alive_timeout: Duration::from_secs(75),
                linger: Duration::from_secs(1),
            },
            drain_timeout: Duration::from_secs(30),
            max_connections: None,
            signals: true,
            upgrader: None,
            drain: Drain::new(),
        },
    }
}

/// Serves HTTP when awaited, see [`serve`](serve()).
#[must_use = "nothing is served before it is awaited"]
pub struct Serve<S, F = fn(Stream) -> Ready<io::Result<Stream>>> {
    listeners: Listeners,
    service: S,
    acceptor: F,
    options: Options,
}

impl<S, F> Serve<S, F> {
    /// Sets how long a drain may take before what is left is closed. The default is 30 s.
    pub const fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.options.drain_timeout = timeout;
        self
    }

    /// Sets how long a kept-alive connection has to have been idle before a drain
    /// closes it. The default is 1 s.
    ///
    /// A client that uses its connections more often than this never meets one
    /// that is closed under it. An HTTP/2 connection, which is told at once, is
    /// open for as long to streams that were on their way.
    pub const fn linger(mut self, linger: Duration) -> Self {
        self.options.limits.linger = linger;
        self
    }

    /// Sets how long a client may take for the head of a request. The default is 30 s.
    ///
    /// The time begins when the connection is accepted, which includes a TLS
    /// handshake, and later with the first byte of a request. A connection that
    /// takes longer is closed.
    pub const fn header_read_timeout(mut self, timeout: Duration) -> Self {
        self.options.limits.header_read_timeout = timeout;
        self
    }

    /// Sets how long a connection may wait for its next request. The default is
    /// 75 s, more than the 60 s after which load balancers close it themselves.
    pub const fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.options.limits.keep_alive_timeout = timeout;
        self
    }

    /// Caps the connections that are open at a time. There is no limit by default.
    ///
    /// More clients wait in the sockets' queues.
    pub const fn max_connections(mut self, max: usize) -> Self {
        self.options.max_connections = Some(max);
        self
    }

    /// Sets the handle that tells, and orders, the drain.
    pub fn drain(mut self, drain: Drain) -> Self {
        self.options.drain = drain;
        self
    }

    /// Makes SIGUSR2, or the [signal](Upgrader::signal) that it says, replace this process.
    ///
    /// When another process has taken over, this one drains. An upgrade that
    /// fails is logged, and this process serves on. A signal that comes
    /// while an upgrade is under way makes another one: by this process, or if
    /// it is replaced by then, by its successor.
    pub fn upgrader(mut self, upgrader: Upgrader) -> Self {
        self.options.upgrader = Some(upgrader);
        self
    }

    /// Leaves SIGTERM and SIGINT alone: only the [`Drain`] ends the service.
    pub const fn without_signals(mut self) -> Self {
        self.options.signals = false;
        self
    }

    /// Sets what is done with each connection before HTTP is spoken, a TLS
    /// handshake for example.
    ///
    /// A connection for which it fails, or takes longer than the
    /// [`header_read_timeout`](Self::header_read_timeout), is closed.
    pub fn acceptor<G, Fut, T>(self, acceptor: G) -> Serve<S, G>
    where
        G: Fn(Stream) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Serve {
            listeners: self.listeners,
            service: self.service,
            acceptor,
            options: self.options,
        }
    }
}

impl<S, F> fmt::Debug for Serve<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listeners", &self.listeners)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<S, B, F, Fut, T> IntoFuture for Serve<S, F>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    F: Fn(Stream) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<T>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = Result<Served, ServeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self {
                listeners,
                service,
                acceptor,
                options,
            } = self;
            let limits = options.limits.in_reach();
            let shared = Arc::clone(options.drain.shared());
            let connection = move |stream: Stream| {
                let (acceptor, service, shared) =
                    (acceptor.clone(), service.clone(), Arc::clone(&shared));
                tokio::spawn(connection::run(stream, acceptor, service, limits, shared));
            };
            options.run(listeners, connection).await
        })
    }
}

/// Tells why a service cannot be served.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// There is no socket.
    NoSockets,
    /// A UDP socket is among the listeners. [Take](Listeners::take) it out before.
    Udp(Address),
    /// The runtime does not take a socket.
    Socket {
        /// Where it is bound.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// A signal cannot be watched.
    Signal(io::Error),
    /// This process cannot take the place of its predecessor.
    Ready(UpgradeError),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSockets => f.write_str("there is no socket to serve"),
            Self::Udp(address) => write!(f, "cannot serve HTTP on the UDP socket {address}"),
            Self::Socket { address, .. } => write!(f, "cannot serve on {address}"),
            Self::Signal(_) => f.write_str("cannot watch for signals"),
            Self::Ready(error) => error.fmt(f),
        }
    }
}

impl Error for ServeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Socket { source, .. } | Self::Signal(source) => Some(source),
            Self::Ready(error) => error.source(),
            Self::NoSockets | Self::Udp(_) => None,
        }
    }
}

#[derive(Debug)]
struct Options {
    limits: Limits,
    drain_timeout: Duration,
    max_connections: Option<usize>,
    signals: bool,
    upgrader: Option<Upgrader>,
    drain: Drain,
}

impl Options {
    async fn run(
        mut self,
        listeners: Listeners,
        serve: impl Fn(Stream) + Clone + Send + 'static,
    ) -> Result<Served, ServeError> {
        let mut signals = Signals::new(self.signals).map_err(ServeError::Signal)?;
        let mut upgrades = Upgrades::new(self.upgrader.take()).map_err(ServeError::Signal)?;
        let predecessor = listeners.predecessor().cloned();
        // From here to the first accept nothing can fail but the pid file. A process
        // that is killed before it has said that it is ready has accepted nothing,
        // so nothing is lost with it.
        let acceptors = self.acceptors(listeners)?;
        let manager = Manager::from_env();
        let is_main = match (upgrades.upgrader(), &predecessor) {
            (Some(upgrader), _) => upgrader.take_over().map_err(ServeError::Ready)?,
            (None, Some(predecessor)) => {
                predecessor.release();
                false
            }
            (None, None) => true,
        };
        if is_main {
            manager
                .tell(NotifyMessage::new().ready().status("serving"))
                .await;
        }
        let mut accepting = JoinSet::new();
        for acceptor in acceptors {
            info!(address = %acceptor.address, "serving");
            accepting.spawn(acceptor.run(serve.clone()));
        }

        let shared = self.drain.shared();
        let mut watchdog = manager.watchdog();
        if let Some(predecessor) = predecessor {
            tokio::spawn(report_end_of(predecessor));
        }
        let mut began = None;
        loop {
            tokio::select! {
                // The drain is told before its end is noticed.
                biased;
                () = shared.reached(Phase::Ended) => break,
                name = signals.next() => {
                    info!("{name} received");
                    if signals.wants_to_end_now() {
                        shared.advance(Phase::Ended);
                    }
                    shared.advance(Phase::Draining);
                }
                () = upgrades.replaced(), if began.is_none() => {
                    shared.hand_over();
                    shared.advance(Phase::Draining);
                }
                () = shared.reached(Phase::Draining), if began.is_none() => {
                    began = Some(Instant::now());
                    upgrades.cancel().await;
                    let status = format!("draining, open connections: {}", self.drain.connections());
                    info!("{status}");
                    if !shared.is_handed_over() {
                        let message = NotifyMessage::new().stopping().status(&status).extend_timeout(self.drain_timeout);
                        manager.tell(message).await;
                    }
                }
                () = tick(&mut watchdog) => manager.tell(NotifyMessage::new().watchdog()).await,
                () = all_gone(&mut accepting, shared) => break,
                () = sleep_from(began, self.drain_timeout), if began.is_some() => {
                    warn!("the drain has taken longer than {:?}", self.drain_timeout);
                    shared.advance(Phase::Ended);
                }
            }
        }
        let served = shared.cut();
        if served.held > 0 {
            warn!(
                "work that held up the drain and is not finished: {}",
                served.held
            );
        }
        if served.cut > 0 {
            warn!(
                "connections cut: {}, of them upgraded: {}",
                served.cut, served.cut_upgraded
            );
            // They end on their own tasks, in a moment.
            let _ = timeout(A_MOMENT, all_gone(&mut accepting, shared)).await;
        }
        if let Some(began) = began {
            info!("drained within {:?}", began.elapsed());
        }
        Ok(served)
    }

    fn acceptors(&self, listeners: Listeners) -> Result<Vec<Acceptor>, ServeError> {
        if listeners.is_empty() {
            return Err(ServeError::NoSockets);
        }
        // Any other predecessor is about to end, and with it its sockets.
        let has_starter = matches!(listeners.origin(), Origin::ServerStarter | Origin::Systemd);
        let permits = self
            .max_connections
            .map(|max| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))));
        let acceptor = |listener: Listener| {
            let address = listener.address().clone();
            let is_shared = has_starter && listener.is_inherited();
            let (socket, file) = listener.into_parts();
            let listener = match socket.into_tokio() {
                Ok(TokioSocket::Tcp(listener)) => Listening::Tcp(listener),
                Ok(TokioSocket::Unix(listener)) => Listening::Unix(listener),
                Ok(TokioSocket::Udp(_)) => return Err(ServeError::Udp(address)),
                Err(source) => return Err(ServeError::Socket { address, source }),
            };
            Ok(Acceptor {
                listener,
                address,
                file,
                permits: permits.clone(),
                is_shared,
                shared: Arc::clone(self.drain.shared()),
            })
        };
        listeners.into_iter().map(acceptor).collect()
    }
}

/// Waits until no socket is accepted from and no connection is left.
async fn all_gone(accepting: &mut JoinSet<()>, shared: &Shared) {
    while let Some(ended) = accepting.join_next().await {
        pass_panic_on(ended);
    }
    shared.emptied().await;
}

fn pass_panic_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

async fn sleep_from(began: Option<Instant>, time: Duration) {
    match began.and_then(|began| began.checked_add(time)) {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

async fn report_end_of(predecessor: Arc<Predecessor>) {
    if predecessor.ended().await.is_ok() {
        info!(
            "process {}, which this one has replaced, has ended",
            predecessor.pid()
        );
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => pending().await,
    }
}

/// How long connections that were cut get to be closed.
const A_MOMENT: Duration = Duration::from_secs(1);
