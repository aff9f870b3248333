use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::time::sleep_until;
use tower_service::Service;
use tracing::debug;

use super::activity::{Activity, State};
use super::request::Requests;
use super::stream::Stream;
use super::streams::Streams;
use super::watched::Watched;
use crate::drain::{OpenSocket, Phase, Shared};

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) header_read_timeout: Duration,
    pub(super) keep_alive_timeout: Duration,
    pub(super) linger: Duration,
}

impl Limits {
    /// The same, but short enough for a point in time to lie that far ahead.
    pub(super) fn in_reach(self) -> Self {
        Self {
            header_read_timeout: self.header_read_timeout.min(FOR_EVER),
            keep_alive_timeout: self.keep_alive_timeout.min(FOR_EVER),
            linger: self.linger.min(FOR_EVER),
        }
    }
}

/// Serves one connection to its end.
pub(super) async fn run<S, B, F, Fut, T>(
    stream: Stream,
    acceptor: F,
    service: S,
    limits: Limits,
    shared: Arc<Shared>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    F: Fn(Stream) -> Fut,
    Fut: Future<Output = std::io::Result<T>>,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket = Arc::clone(stream.socket());
    let (id, endpoints) = (stream.id(), stream.endpoints().clone());
    let watch = Watch {
        activity: Arc::new(Activity::new(&shared, &socket, id)),
        socket: Arc::clone(&socket),
        limits,
        shared: Arc::clone(&shared),
    };
    let accepted = tokio::select! {
        // Most often there is nothing to wait for.
        biased;
        accepted = acceptor(stream) => accepted,
        () = shared.reached(Phase::Ended) => return,
        () = tokio::time::sleep(limits.header_read_timeout) => Err(std::io::ErrorKind::TimedOut.into()),
    };
    let io = match accepted {
        Ok(io) => Watched::new(
            BufReader::with_capacity(FIRST_READ, io),
            Arc::clone(&watch.activity),
            limits.linger,
        ),
        Err(error) => {
            return debug!(peer = %endpoints.peer(), %error, "connection refused by the acceptor");
        }
    };
    let service = Requests {
        service,
        endpoints: endpoints.clone(),
        activity: Arc::clone(&watch.activity),
    };
    // Boxed, so that the task is small: starting one copies it several times.
    if let Err(error) = Box::pin(watch.serve(io, service)).await {
        debug!(peer = %endpoints.peer(), error, "connection failed");
    }
    // Nothing is left of it now but what a request handler has taken for itself.
    shared.adopt(id, &socket);
}

/// Watches over a connection: that it goes on, and that it ends.
struct Watch {
    activity: Arc<Activity>,
    socket: Arc<OpenSocket>,
    limits: Limits,
    shared: Arc<Shared>,
}

impl Watch {
    async fn serve<T, S, B>(
        &self,
        io: Watched<T>,
        service: Requests<S>,
    ) -> Result<(), Box<dyn Error + Send + Sync>>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut builder = Builder::new(Streams::new(&self.activity));
        // Ours below also counts while nothing has been read, and costs nothing
        // for each request.
        builder.http1().header_read_timeout(None);
        // For WebSockets.
        builder.http2().enable_connect_protocol();
        let mut connection =
            pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));

        let changed = || self.shared.changed().notified();
        let mut change = pin!(changed());
        let mut known = None;
        let mut timer = pin!(sleep_until(tokio::time::Instant::now()));
        let mut due = None;
        let mut progress = Progress::default();
        poll_fn(|context| {
            loop {
                if let Poll::Ready(result) = connection.as_mut().poll(context) {
                    return Poll::Ready(result);
                }
                // One task has one waker, so what was polled once wakes it.
                while known != Some(self.shared.phase()) {
                    known = Some(self.shared.phase());
                    change.set(changed());
                    let _ = change.as_mut().poll(context);
                }
                // A timer that rings too early costs less than one that is set
                // anew for each request.
                let set = due.filter(|_| !timer.is_elapsed());
                if known == Some(Phase::Serving) && set.is_some() && self.is_enough(&mut progress) {
                    return Poll::Pending;
                }
                match self.next_step(Instant::now(), self.shared.phase(), &mut progress) {
                    Step::Cut => return Poll::Ready(Ok(())),
                    Step::Close => {
                        progress.closing = Some(Instant::now());
                        connection.as_mut().graceful_shutdown();
                    }
                    Step::Wait(deadline) if set.is_some_and(|due| due <= deadline) => {
                        return Poll::Pending;
                    }
                    Step::Wait(deadline) => {
                        due = Some(deadline);
                        timer.as_mut().reset(deadline.into());
                        if timer.as_mut().poll(context).is_pending() {
                            return Poll::Pending;
                        }
                    }
                }
            }
        })
        .await
    }

    /// Whether a timer that was set before rings in time, which is told without
    /// a look at the clock.
    fn is_enough(&self, progress: &mut Progress) -> bool {
        let state = self.activity.state();
        if state != State::Next {
            progress.next_since = None;
        }
        progress.closing.is_none()
            && match state {
                // It was set when the connection was accepted, or does not matter.
                State::First | State::Busy => true,
                State::Idle => progress.suits_idle,
                State::Next => progress.next_since.is_some(),
            }
    }

    fn next_step(&self, now: Instant, phase: Phase, progress: &mut Progress) -> Step {
        let Limits {
            header_read_timeout,
            keep_alive_timeout,
            linger,
        } = self.limits;
        let draining = phase == Phase::Draining;
        let or_else = |deadline, then| {
            if now < deadline {
                Step::Wait(deadline)
            } else {
                then
            }
        };
        let state = self.activity.state();
        let since = match state {
            State::First => self.activity.accepted(),
            State::Busy => now,
            State::Idle => self.activity.idle_since(),
            State::Next => progress.next_since.unwrap_or(now),
        };
        progress.next_since = (state == State::Next).then_some(since);
        // Each end of a request is later than all that deadlines were reckoned from before.
        progress.suits_idle = state == State::Idle || header_read_timeout <= keep_alive_timeout;
        if phase == Phase::Ended {
            return Step::Cut;
        }
        match (state, progress.closing) {
            (State::Busy, Some(_)) => Step::Wait(now + header_read_timeout),
            (_, Some(closing)) => or_else(since.max(closing) + header_read_timeout, Step::Cut),
            // No stream is lost by telling HTTP/2 at once.
            (_, None) if draining && self.activity.is_http2() => Step::Close,
            (State::Busy, None) => Step::Wait(now + header_read_timeout),
            (State::First | State::Next, None) => or_else(since + header_read_timeout, Step::Cut),
            (State::Idle, None) => {
                let limit = if draining { linger } else { keep_alive_timeout };
                match or_else(since + limit, Step::Close) {
                    // A request has come, and will be read in a moment.
                    Step::Close if self.socket.has_input() => Step::Wait(now + A_MOMENT),
                    step => step,
                }
            }
        }
    }
}

/// What the watch remembers from one look at a connection to the next.
#[derive(Default)]
struct Progress {
    /// When a part of a request was first seen.
    next_since: Option<Instant>,
    /// When the connection was told to close.
    closing: Option<Instant>,
    /// Whether the timer rings before a request that ends from now on is the
    /// keep-alive timeout ago.
    suits_idle: bool,
}

enum Step {
    Wait(Instant),
    /// Close it as soon as that loses nothing.
    Close,
    Cut,
}

/// How much is read before it is known which protocol the client speaks. Without
/// it, hyper-util would ask the kernel for the 24 bytes that tell, and again for the rest.
const FIRST_READ: usize = 1024;

const A_MOMENT: Duration = Duration::from_millis(10);

/// A century: nobody waits for its end, and it can be added to any time.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
