//! How a service ends: nothing that was sent to it in time is lost.

mod queue;
mod unread;

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::CONNECTION;
use axum::routing::{any, get};
use graceful_listener::{Drain, Listeners, Serve, ServeError, Served, serve};
use tokio::sync::Semaphore;

use crate::http::{Client, DEADLINE};
use crate::service;

/// A service on a runtime of its own, in this process.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) drain: Drain,
    release: Arc<Semaphore>,
    thread: JoinHandle<Result<Served, ServeError>>,
}

impl Service {
    pub(crate) fn start() -> Self {
        // Long enough for a connection that must not be closed not to be.
        Self::with(|serve| serve.linger(DEADLINE))
    }

    pub(crate) fn with(
        options: impl FnOnce(Serve<Router>) -> Serve<Router> + Send + 'static,
    ) -> Self {
        let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
        let address = listeners
            .iter()
            .next()
            .unwrap()
            .address()
            .as_inet()
            .unwrap();
        let (drain, release) = (Drain::new(), Arc::new(Semaphore::new(0)));
        let (handle, app) = (drain.clone(), app(&release));
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                // One that ends at its deadline alone does not end in these tests.
                let serve = serve(listeners, app).drain_timeout(DEADLINE * 10);
                options(serve.drain(handle).without_signals()).await
            })
        });
        Self {
            address,
            drain,
            release,
            thread,
        }
    }

    pub(crate) fn connect(&self) -> Client<TcpStream> {
        Client::connect(self.address).unwrap()
    }

    /// A connection that has had its first answer.
    pub(crate) fn connect_and_ask(&self) -> Client<TcpStream> {
        let mut client = self.connect();
        let response = client.get("/").unwrap();
        assert!(!response.closes());
        client
    }

    /// A connection that has been accepted, and no more.
    fn connect_silently(&self) -> Client<TcpStream> {
        let before = self.drain.connections();
        let client = self.connect();
        self.until_connections(before + 1);
        client
    }

    pub(crate) fn until_connections(&self, count: usize) {
        eventually("connections are accepted", || {
            self.drain.connections() == count
        });
    }

    /// Lets one request to `/held`, or the rest of one to `/streamed`, go on.
    pub(crate) fn release(&self) {
        self.release.add_permits(1);
    }

    pub(crate) fn end(self) -> Served {
        eventually("the drain ends", || self.thread.is_finished());
        self.thread.join().unwrap().unwrap()
    }
}

fn app(release: &Arc<Semaphore>) -> Router {
    let held = {
        let release = Arc::clone(release);
        async move || {
            release.acquire().await.unwrap().forget();
            "held"
        }
    };
    let streamed = {
        let release = Arc::clone(release);
        async move || {
            // One part at once, the other when it is released.
            let parts =
                futures_util::stream::unfold((0, release), async |(part, release)| match part {
                    0 => Some((Ok::<_, io::Error>("first "), (1, release))),
                    1 => {
                        release.acquire().await.unwrap().forget();
                        Some((Ok("second"), (2, release)))
                    }
                    _ => None,
                });
            Body::from_stream(parts)
        }
    };
    Router::new()
        .route("/", get(async || "hello"))
        .route("/held", get(held))
        .route("/streamed", get(streamed))
        .route("/large", get(async || Bytes::from(vec![b'x'; LARGE])))
        .route(
            "/unread",
            any(async || (StatusCode::PAYLOAD_TOO_LARGE, "x".repeat(100_000))),
        )
        .route("/persistent", get(([(CONNECTION, "keep-alive")], "hello")))
        .route("/upgrade", any(service::upgrade))
        .route(
            "/panic",
            get(async || -> &'static str { panic!("on purpose") }),
        )
}

/// More than the socket buffers of both sides take.
pub(crate) const LARGE: usize = 32 << 20;

/// Waits for something that another thread or process does.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How far behind the clock of idle connections may be: it stands still while the processor
/// that ticks it is taken away from a virtual machine.
pub(crate) const CLOCK_LAG: Duration = Duration::from_millis(500);

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const GET_HELD: &str = "GET /held HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn request_in_flight_is_answered_and_told_to_close() {
    let service = Service::start();
    let mut client = service.connect_silently();
    client.send(GET_HELD).unwrap();
    service.drain.start();
    service.release();
    let response = client.response().unwrap();
    assert_eq!((response.status(), response.body.as_str()), (200, "held"));
    assert!(response.closes());
    assert!(client.is_closed());
    drop(client);
    assert_eq!(service.end(), Served::default());
}

#[test]
fn silent_connection_is_waited_for_longer_than_an_idle_one() {
    let service = Service::with(|serve| serve.linger(Duration::from_millis(50)));
    let mut silent = service.connect_silently();
    let mut idle = service.connect_and_ask();
    service.drain.start();
    assert!(idle.is_closed());
    let response = silent.get("/").unwrap();
    assert_eq!(response.body, "hello");
    assert!(response.closes());
    drop((silent, idle));
    assert_eq!(service.end().cut, 0);
}

#[test]
fn half_a_request_is_waited_for_longer_than_an_idle_connection() {
    let service = Service::with(|serve| serve.linger(Duration::from_millis(50)));
    let mut fresh = service.connect_silently();
    let mut used = service.connect_and_ask();
    let (first, second) = GET.split_at(20);
    fresh.send(first).unwrap();
    used.send(first).unwrap();
    let mut idle = service.connect_and_ask();
    service.drain.start();
    assert!(idle.is_closed());
    for mut client in [fresh, used] {
        client.send(second).unwrap();
        assert!(client.response().unwrap().closes());
    }
    drop(idle);
    assert_eq!(service.end().cut, 0);
}

#[test]
fn kept_alive_connection_is_answered_once_more_and_told_to_close() {
    let service = Service::start();
    let mut clients: Vec<_> = (0..5).map(|_| service.connect_and_ask()).collect();
    service.drain.start();
    for client in &mut clients {
        let response = client.get("/").unwrap();
        assert_eq!(response.body, "hello");
        assert!(response.closes());
        assert!(client.is_closed());
    }
    drop(clients);
    assert_eq!(service.end().cut, 0);
}

#[test]
fn idle_connection_is_closed_after_the_linger_time_and_not_before() {
    const LINGER: Duration = Duration::from_secs(2);
    let service = Service::with(|serve| serve.linger(LINGER));
    let asked = Instant::now();
    let mut client = service.connect_and_ask();
    service.drain.start();
    assert!(client.is_closed());
    let idle = asked.elapsed();
    assert!(idle + CLOCK_LAG >= LINGER, "closed after {idle:?}");
    drop(client);
    assert_eq!(service.end().cut, 0);
}

#[test]
fn linger_is_a_second_unless_it_is_set() {
    let service = Service::with(|serve| serve);
    let asked = Instant::now();
    let mut client = service.connect_and_ask();
    service.drain.start();
    assert!(client.is_closed());
    let idle = asked.elapsed();
    let linger = Duration::from_secs(1);
    assert!(idle + CLOCK_LAG >= linger, "closed after {idle:?}");
    drop(client);
    service.end();
}

#[test]
fn request_that_has_arrived_on_an_idle_connection_is_not_lost() {
    for _ in 0..50 {
        let service = Service::with(|serve| serve.linger(Duration::ZERO));
        let mut client = service.connect_and_ask();
        client.send(GET).unwrap();
        service.drain.start();
        client.response().unwrap();
        drop(client);
        assert_eq!(service.end().cut, 0);
    }
}

#[test]
fn response_that_has_begun_is_finished_and_the_next_told_to_close() {
    let service = Service::start();
    let mut client = service.connect();
    client
        .send("GET /streamed HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    let head = client.head().unwrap();
    assert!(
        !head
            .iter()
            .any(|line| line.to_lowercase().starts_with("connection:")),
        "{head:?}"
    );
    service.drain.start();
    service.release();
    assert_eq!(client.chunks().unwrap(), "first second");
    // The client was told nothing, so it may go on.
    let response = client.get("/").unwrap();
    assert!(response.closes());
    assert!(client.is_closed());
    drop(client);
    assert_eq!(service.end().cut, 0);
}

#[test]
fn slow_reader_gets_all_of_its_response() {
    let service = Service::with(|serve| serve.linger(Duration::from_millis(10)));
    let mut client = service.connect();
    client
        .send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    client.head().unwrap();
    let mut idle = service.connect_and_ask();
    service.drain.start();
    // The linger time is over when another connection has been closed for it.
    assert!(idle.is_closed());
    let mut body = vec![0; LARGE];
    client.read_exact(&mut body).unwrap();
    assert!(body.iter().all(|&byte| byte == b'x'));
    drop((client, idle));
    assert_eq!(service.end().cut, 0);
}

/// Also if it has only ended its sending side, which cannot be told from the other.
#[test]
fn client_that_has_gone_is_not_waited_for() {
    let service = Service::start();
    let mut client = service.connect_and_ask();
    client.send(GET_HELD).unwrap();
    let stream = client.into_inner();
    service.drain.start();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(service.end(), Served::default());
}

#[test]
fn nobody_can_connect_any_more() {
    let service = Service::start();
    let held = service.connect_silently();
    service.drain.start();
    eventually(
        "refused",
        || matches!(TcpStream::connect(service.address), Err(error) if error.kind() == ErrorKind::ConnectionRefused),
    );
    assert!(service.drain.connections() >= 1);
    drop(held);
    service.end();
}

#[test]
fn deadline_closes_what_is_left_and_reports_its_number() {
    let service = Service::with(|serve| {
        serve
            .drain_timeout(Duration::from_millis(100))
            .linger(DEADLINE)
    });
    let mut clients: Vec<_> = (0..3).map(|_| service.connect_silently()).collect();
    for client in &mut clients {
        client.send(GET_HELD).unwrap();
    }
    let mut upgraded = service.connect();
    upgrade(&mut upgraded);
    // Its echo may come before that.
    eventually("counted", || service.drain.upgraded() == 1);
    let began = Instant::now();
    service.drain.start();
    for client in &mut clients {
        assert!(client.response().is_err());
    }
    assert_eq!(upgraded.read(&mut [0]).unwrap(), 0);
    assert!(began.elapsed() >= Duration::from_millis(100));
    let served = service.end();
    assert_eq!((served.cut, served.cut_upgraded), (4, 1));
}

#[test]
fn end_may_be_ordered_at_once() {
    let service = Service::start();
    let mut client = service.connect_silently();
    client.send(GET_HELD).unwrap();
    let mut upgraded = service.connect();
    upgrade(&mut upgraded);
    eventually("counted", || service.drain.upgraded() == 1);
    service.drain.end_now();
    assert!(service.drain.is_draining());
    assert!(client.response().is_err());
    assert_eq!(upgraded.read(&mut [0]).unwrap(), 0);
    let served = service.end();
    assert_eq!((served.cut, served.cut_upgraded), (2, 1));
}

#[test]
fn connections_that_are_cut_are_closed_when_the_service_returns() {
    eventually("they are closed within a moment", || {
        let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
        let address = listeners.iter().next().unwrap().address().as_inet();
        let (drain, called) = (Drain::new(), Arc::new(Semaphore::new(0)));
        let (handle, calls) = (drain.clone(), Arc::clone(&called));
        // A thread of the runtime is busy for longer than the end takes.
        let handler = get(async move || {
            calls.add_permits(1);
            std::thread::sleep(Duration::from_millis(200));
        });
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            let served = runtime.block_on(async {
                let app = Router::new().route("/", handler);
                let serve = serve(listeners, app).drain(handle.clone());
                serve.without_signals().await.unwrap()
            });
            (served.cut, handle.connections())
        });
        let mut client = Client::connect(address.unwrap()).unwrap();
        client.send(GET).unwrap();
        eventually("called", || called.available_permits() == 1);
        drain.end_now();
        let (cut, left) = thread.join().unwrap();
        (cut, left) == (1, 0)
    });
}

fn upgrade(client: &mut Client<TcpStream>) {
    client
        .send("GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        .unwrap();
    let head = client.head().unwrap();
    assert!(head[0].contains("101"), "{head:?}");
    client.send("ping").unwrap();
    let mut buffer = [0; 4];
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"ping");
}

#[test]
fn upgraded_connection_is_counted_and_waited_for() {
    let service = Service::with(|serve| serve.linger(Duration::from_millis(10)));
    let mut upgraded = service.connect();
    upgrade(&mut upgraded);
    eventually("counted", || service.drain.upgraded() == 1);
    assert_eq!(service.drain.connections(), 1);
    let mut idle = service.connect_and_ask();
    service.drain.start();
    assert!(idle.is_closed());
    drop(idle);
    service.until_connections(1);
    upgraded.send("still").unwrap();
    let mut buffer = [0; 5];
    upgraded.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still");
    drop(upgraded);
    assert_eq!(service.end(), Served::default());
}

#[test]
fn upgraded_connections_that_end_are_not_counted_any_more() {
    let service = Service::start();
    for _ in 0..3 {
        let mut upgraded = service.connect();
        upgrade(&mut upgraded);
    }
    eventually("none is left", || {
        service.drain.upgraded() == 0 && service.drain.connections() == 0
    });
    drop(service.connect_and_ask());
    service.until_connections(0);
    assert_eq!(service.drain.upgraded(), 0, "nor is one that never was");
    service.drain.start();
    service.end();
}

#[test]
fn upgrade_during_the_drain_is_not_told_to_close() {
    let service = Service::start();
    let mut client = service.connect_silently();
    service.drain.start();
    client
        .send("GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        .unwrap();
    let head = client.head().unwrap();
    assert!(
        head.iter().any(|line| line == "connection: upgrade"),
        "{head:?}"
    );
    drop(client);
    service.end();
}

#[test]
fn work_that_holds_up_the_drain_is_waited_for() {
    let service = Service::start();
    let first = service.drain.hold();
    let second = service.drain.hold();
    assert_eq!(service.drain.held(), 2);
    service.drain.start();
    let drain = service.drain.clone();
    let ended = std::thread::spawn(move || service.end());
    drop(first);
    std::thread::sleep(Duration::from_millis(100));
    assert!(!ended.is_finished());
    drop(second);
    let served = ended.join().unwrap();
    assert_eq!((served.cut, served.held, drain.held()), (0, 0, 0));
}

#[test]
fn work_that_is_not_finished_at_the_deadline_is_reported() {
    let service = Service::with(|serve| serve.drain_timeout(Duration::from_millis(100)));
    let guards = [service.drain.hold(), service.drain.hold()];
    service.drain.start();
    let served = service.end();
    assert_eq!((served.cut, served.held), (0, 2));
    drop(guards);
}

#[test]
fn drain_is_seen_by_handlers_and_waiters() {
    let service = Service::start();
    assert!(!service.drain.is_draining());
    let drain = service.drain.clone();
    let waiter = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(drain.started());
    });
    service.drain.start();
    waiter.join().unwrap();
    assert!(service.drain.is_draining());
    let drain = service.drain.clone();
    service.end();
    assert!(drain.is_draining());
}

#[test]
fn second_start_changes_nothing() {
    let service = Service::start();
    let mut client = service.connect_silently();
    client.send(GET_HELD).unwrap();
    for _ in 0..5 {
        service.drain.start();
    }
    service.release();
    assert_eq!(client.response().unwrap().body, "held");
    drop(client);
    assert_eq!(service.end().cut, 0);
}

#[test]
fn drain_without_connections_ends_at_once() {
    let service = Service::start();
    let drain = service.drain.clone();
    drain.start();
    assert_eq!(service.end(), Served::default());
}

#[test]
fn panic_in_a_handler_ends_its_connection_alone() {
    let service = Service::start();
    let mut client = service.connect();
    assert!(client.get("/panic").is_err());
    let other = service.connect_and_ask();
    service.until_connections(1);
    drop(other);
    service.drain.start();
    assert_eq!(service.end().cut, 0);
}

#[test]
fn http_1_0_connections_are_answered_and_closed() {
    // A handler may have something else in mind.
    for path in ["/", "/persistent"] {
        let service = Service::start();
        let mut client = service.connect_silently();
        service.drain.start();
        client
            .send(&format!(
                "GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            ))
            .unwrap();
        let response = client.response().unwrap();
        assert_eq!(response.body, "hello");
        // Without a word, HTTP/1.0 closes.
        assert_eq!(response.header("connection"), None);
        assert!(client.is_closed());
        drop(client);
        service.end();
    }
}
