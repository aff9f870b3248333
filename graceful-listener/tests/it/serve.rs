//! What a served connection gets: its limits and its addresses.

mod readiness;
mod slow_reader;
mod tls;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::Path;
use axum::routing::get;
use axum::{Extension, Router};
use graceful_listener::{Drain, Endpoints, Listeners, ServeError, Upgrader, serve};
use socket2::SockRef;

use crate::child;
use crate::drain::{CLOCK_LAG, Service, eventually};
use crate::http::Client;
use crate::service;

/// Runs the test's own listeners and routes, and ends them with the test.
fn with_runtime<T>(test: impl AsyncFnOnce() -> T) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test())
}

/// Lets blocking code speak to a service that runs beside it.
async fn blocking<T: Send + 'static>(code: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(code).await.unwrap()
}

#[test]
fn defaults_are_the_documented_ones() {
    let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
    let upgrader = Upgrader::new(&listeners).unwrap();
    assert!(format!("{upgrader:?}").contains("timeout: 60s"));
    let serve = format!("{:?}", serve(listeners, whoami()));
    for default in [
        "header_read_timeout: 30s",
        "keep_alive_timeout: 75s",
        "linger: 1s",
        "drain_timeout: 30s",
        "max_connections: None",
        "signals: true",
        "upgrader: None",
    ] {
        assert!(serve.contains(default), "{default}: {serve}");
    }
}

fn whoami() -> Router {
    Router::new().route(
        "/",
        get(async |Extension(endpoints): Extension<Endpoints>| {
            format!("{} {}", endpoints.peer(), endpoints.local())
        }),
    )
}

fn inet(listeners: &Listeners, index: usize) -> SocketAddr {
    listeners
        .iter()
        .nth(index)
        .unwrap()
        .address()
        .as_inet()
        .unwrap()
}

#[test]
fn endpoints_are_in_the_requests_extensions() {
    with_runtime(async || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let listeners =
            Listeners::bind(["127.0.0.1:0", "0.0.0.0:0", "[::]:0", path.to_str().unwrap()])
                .unwrap();
        let specific = inet(&listeners, 0);
        let wildcards = [inet(&listeners, 1), inet(&listeners, 2)];
        let drain = Drain::new();
        let served = tokio::spawn(
            serve(listeners, whoami())
                .drain(drain.clone())
                .without_signals()
                .into_future(),
        );
        blocking(move || {
            let mut client = Client::connect(specific).unwrap();
            let own = client.stream().local_addr().unwrap();
            assert_eq!(client.get("/").unwrap().body, format!("{own} {specific}"));

            for local in [
                SocketAddr::from((Ipv4Addr::new(127, 0, 0, 5), wildcards[0].port())),
                SocketAddr::from((Ipv6Addr::LOCALHOST, wildcards[1].port())),
            ] {
                let mut client = Client::connect(local).unwrap();
                let own = client.stream().local_addr().unwrap();
                assert_eq!(
                    client.get("/").unwrap().body,
                    format!("{own} {local}"),
                    "the address that was connected to"
                );
            }

            let mut client = Client::connect_unix(&path).unwrap();
            assert_eq!(
                client.get("/").unwrap().body,
                format!("unix: {}", path.display())
            );
        })
        .await;
        drain.start();
        served.await.unwrap().unwrap();
    });
}

#[test]
fn connections_send_small_responses_at_once() {
    with_runtime(async || {
        let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
        let address = inet(&listeners, 0);
        let (drain, seen) = (Drain::new(), Arc::new(AtomicBool::new(false)));
        let writer = Arc::clone(&seen);
        let serve = serve(listeners, whoami())
            .drain(drain.clone())
            .without_signals()
            .acceptor(move |stream| {
                writer.store(
                    SockRef::from(&stream).tcp_nodelay().unwrap(),
                    Ordering::SeqCst,
                );
                std::future::ready(Ok(stream))
            });
        let served = tokio::spawn(serve.into_future());
        blocking(move || Client::connect(address).unwrap().get("/").unwrap()).await;
        assert!(seen.load(Ordering::SeqCst), "TCP_NODELAY is not set");
        drain.start();
        served.await.unwrap().unwrap();
    });
}

/// Head and body are sent in one piece or in two.
#[test]
fn responses_of_every_size_arrive_whole() {
    fn text(length: usize) -> String {
        ('a'..='w').cycle().take(length).collect()
    }
    with_runtime(async || {
        let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
        let address = inet(&listeners, 0);
        let drain = Drain::new();
        let handler = get(async |Path(length): Path<usize>| text(length));
        let app = Router::new().route("/{length}", handler);
        let serve = serve(listeners, app).drain(drain.clone()).without_signals();
        let served = tokio::spawn(serve.into_future());
        blocking(move || {
            let mut client = Client::connect(address).unwrap();
            for length in (0..1100).chain([8_191, 8_192, 16_384, 1_000_000]) {
                let response = client.get(&format!("/{length}")).unwrap();
                assert!(response.body == text(length), "{length} bytes");
            }
        })
        .await;
        drain.start();
        served.await.unwrap().unwrap();
    });
}

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(2);

fn closed_after(client: &mut Client<TcpStream>, since: Instant) -> Duration {
    let read = client.read(&mut [0]);
    let gave_up = read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(!gave_up, "it is never closed");
    since.elapsed()
}

/// A connection that has had its first answer, to a request that was not too late.
fn connect_and_ask_in_time(service: &Service) -> Client<TcpStream> {
    let mut found = None;
    eventually("a request in time", || {
        let mut client = service.connect();
        found = client.get("/").is_ok().then_some(client);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn silent_connection_is_closed_after_the_header_timeout() {
    let service = Service::with(|serve| serve.header_read_timeout(SHORT));
    let began = Instant::now();
    let elapsed = closed_after(&mut service.connect(), began);
    assert!(elapsed >= SHORT, "{elapsed:?}");
    eventually("closed", || service.drain.connections() == 0);
    service.drain.start();
    service.end();
}

#[test]
fn head_that_comes_byte_by_byte_is_cut_off() {
    let service = Service::with(|serve| {
        serve
            .header_read_timeout(SHORT)
            .keep_alive_timeout(Duration::from_secs(600))
    });
    let connected = Instant::now();
    let fresh = service.connect();
    assert_is_cut_off(fresh, connected);
    let used = connect_and_ask_in_time(&service);
    assert_is_cut_off(used, Instant::now());
    service.drain.start();
    service.end();
}

fn assert_is_cut_off(mut client: Client<TcpStream>, since: Instant) {
    // Each byte comes well within the time, all of them do not.
    let text = "GET / HTTP/1.1\r\nHost: slow\r\n".repeat(50);
    let is_cut_off = text.chars().any(|byte| {
        std::thread::sleep(Duration::from_millis(10));
        client.send(&byte.to_string()).is_err()
    });
    assert!(is_cut_off, "it never is");
    let elapsed = since.elapsed();
    assert!(elapsed >= SHORT, "it is cut off after {elapsed:?}");
}

#[test]
fn header_timeout_of_a_kept_alive_connection_begins_with_the_first_byte() {
    let service = Service::with(|serve| {
        serve
            .header_read_timeout(SHORT)
            .keep_alive_timeout(Duration::from_secs(600))
    });
    let mut client = connect_and_ask_in_time(&service);
    // Idle for longer than a head may take.
    let mut silent = service.connect();
    let _ = silent.read(&mut [0]);
    assert_eq!(client.get("/").unwrap().status(), 200);
    let sent = Instant::now();
    client.send("GET").unwrap();
    let elapsed = closed_after(&mut client, sent);
    assert!(elapsed >= SHORT, "{elapsed:?}");
    service.drain.start();
    service.end();
}

#[test]
fn header_timeout_begins_anew_with_each_request() {
    let service = Service::with(|serve| {
        serve
            .header_read_timeout(SHORT)
            .keep_alive_timeout(Duration::from_secs(600))
    });
    eventually("a request in two pieces in time", || {
        let mut client = connect_and_ask_in_time(&service);
        client.send("GET / HTTP/1.1\r\n").unwrap();
        std::thread::sleep(SHORT / 4);
        let sent = client.send("Host: test\r\n\r\n");
        if sent.and_then(|()| client.response()).is_err() {
            return false;
        }
        std::thread::sleep(SHORT / 4);
        let sent = Instant::now();
        client.send("GET").unwrap();
        let elapsed = closed_after(&mut client, sent);
        assert!(elapsed >= SHORT, "{elapsed:?}");
        true
    });
    service.drain.start();
    service.end();
}

#[test]
fn handler_may_take_longer_than_the_header() {
    let service = Service::with(|serve| serve.header_read_timeout(SHORT));
    let mut held = None;
    eventually("a request in time", || {
        let mut client = service.connect();
        let sent = client.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut silent = service.connect();
        closed_after(&mut silent, Instant::now());
        client.stream().set_nonblocking(true).unwrap();
        let waits = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
        let is_held = sent.is_ok() && client.read(&mut [0]).is_err_and(waits);
        client.stream().set_nonblocking(false).unwrap();
        held = is_held.then_some(client);
        is_held
    });
    let mut client = held.unwrap();
    service.release();
    assert_eq!(client.response().unwrap().body, "held");
    service.drain.start();
    drop(client);
    service.end();
}

#[test]
fn idle_connection_is_closed_after_the_keep_alive_timeout() {
    let service = Service::with(|serve| {
        serve
            .keep_alive_timeout(LONG)
            .header_read_timeout(Duration::from_secs(600))
    });
    // Silent at first, so that it is watched for its header's timeout.
    let mut client = service.connect();
    service.until_connections(1);
    let asked = Instant::now();
    client.get("/").unwrap();
    assert!(client.is_closed(), "in an orderly way");
    let elapsed = asked.elapsed();
    assert!(elapsed + CLOCK_LAG >= LONG, "{elapsed:?}");
    service.drain.start();
    drop(client);
    service.end();
}

#[test]
fn longest_limits_are_never_reached() {
    let service = Service::with(|serve| {
        serve
            .header_read_timeout(Duration::MAX)
            .keep_alive_timeout(Duration::MAX)
            .linger(Duration::MAX)
            .max_connections(usize::MAX)
    });
    let mut clients: Vec<_> = (0..20).map(|_| service.connect()).collect();
    service.until_connections(20);
    for client in &mut clients {
        for _ in 0..2 {
            assert_eq!(client.get("/").unwrap().status(), 200);
        }
    }
    service.drain.start();
    // Idle, and not closed before the linger time is over.
    for client in &mut clients {
        assert!(client.get("/").unwrap().closes());
    }
    drop(clients);
    service.end();
}

#[test]
fn more_connections_than_the_cap_wait_for_their_turn() {
    let service = Service::with(|serve| serve.max_connections(2));
    let (first, second) = (service.connect_and_ask(), service.connect_and_ask());
    let mut third = service.connect();
    third.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    third.stream().set_read_timeout(Some(SHORT)).unwrap();
    assert!(third.response().is_err(), "it has to wait");
    assert_eq!(service.drain.connections(), 2);
    third
        .stream()
        .set_read_timeout(Some(crate::http::DEADLINE))
        .unwrap();
    drop(first);
    assert_eq!(third.response().unwrap().status(), 200);
    drop((second, third));
    service.drain.start();
    service.end();
}

#[test]
fn socket_that_nobody_uses_takes_no_connection_from_the_cap() {
    with_runtime(async || {
        let listeners = Listeners::bind(["127.0.0.1:0", "127.0.0.1:0"]).unwrap();
        let addresses = [inet(&listeners, 0), inet(&listeners, 1)];
        let drain = Drain::new();
        let serve = serve(listeners, whoami())
            .drain(drain.clone())
            .without_signals()
            .max_connections(1);
        let served = tokio::spawn(serve.into_future());
        blocking(move || {
            for address in addresses.into_iter().cycle().take(6) {
                for _ in 0..2 {
                    let mut client = Client::connect(address).unwrap();
                    assert_eq!(client.get("/").unwrap().status(), 200);
                }
            }
        })
        .await;
        drain.start();
        served.await.unwrap().unwrap();
    });
}

#[test]
fn nothing_to_serve_is_an_error() {
    with_runtime(async || {
        let mut listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
        listeners.take("127.0.0.1:0").unwrap();
        let error = serve(listeners, whoami()).await.unwrap_err();
        assert!(matches!(error, ServeError::NoSockets));
        let listeners = Listeners::bind(["127.0.0.1:u0"]).unwrap();
        let error = serve(listeners, whoami()).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot serve HTTP on the UDP socket 127.0.0.1:"),
            "{error}"
        );
    });
}

#[test]
fn service_that_is_not_awaited_any_more_accepts_nothing() {
    with_runtime(async || {
        let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
        let address = inet(&listeners, 0);
        let task = tokio::spawn(serve(listeners, whoami()).without_signals().into_future());
        blocking(move || Client::connect(address).unwrap().get("/").unwrap()).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        blocking(move || eventually("refused", || TcpStream::connect(address).is_err())).await;
    });
}

#[test]
fn panic_while_accepting_is_the_services() {
    struct Careless(Arc<AtomicBool>);
    impl Clone for Careless {
        fn clone(&self) -> Self {
            assert!(!self.0.load(Ordering::SeqCst), "on purpose");
            Self(Arc::clone(&self.0))
        }
    }
    with_runtime(async || {
        let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
        let address = inet(&listeners, 0);
        let panics = Arc::new(AtomicBool::new(false));
        let careless = Careless(Arc::clone(&panics));
        let serve = serve(listeners, whoami())
            .without_signals()
            .acceptor(move |stream| {
                let _ = &careless;
                std::future::ready(Ok(stream))
            });
        let served = tokio::spawn(serve.into_future());
        blocking(move || Client::connect(address).unwrap().get("/").unwrap()).await;
        panics.store(true, Ordering::SeqCst);
        let _last = TcpStream::connect(address).unwrap();
        assert!(served.await.unwrap_err().is_panic());
    });
}

#[test]
fn out_of_descriptors_it_waits_and_then_accepts_again() {
    let mut limited = std::process::Command::new("sh");
    let role = service::Service::command();
    limited.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]);
    child::append(&mut limited, &role);
    let service = service::Service::start(limited.env(service::set::SPECS, "127.0.0.1:0"));
    service.wait_for("serving address");
    let address = service.address();
    let began = Instant::now();
    let mut clients: Vec<_> = (0..100)
        .map(|_| Client::connect(address).unwrap())
        .collect();
    service.wait_for("cannot accept connections");
    // Doubling from 5 ms, the ninth is a second long: it was waited for 1.3 s before.
    service.wait_for_count("cannot accept connections", 9);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(1275), "{waited:?}");
    service.wait_for("delay=1s");
    let mut count = 9;
    eventually("it sleeps for a second", || {
        let ticks = cpu_ticks(service.pid());
        count += 1;
        service.wait_for_count("cannot accept connections", count);
        // Of 10 ms.
        cpu_ticks(service.pid()) - ticks < 30
    });
    assert_eq!(
        clients[0].get("/").unwrap().status(),
        200,
        "who was accepted is served"
    );
    clients.truncate(1);
    let mut late = Client::connect(address).unwrap();
    assert_eq!(late.get("/").unwrap().status(), 200);
    // The next time it begins anew.
    clients.extend((0..100).map(|_| Client::connect(address).unwrap()));
    service.wait_for_count("delay=5ms", 2);
}

/// User and system time in clock ticks.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn unix_and_tcp_sockets_are_served_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let specs = format!("127.0.0.1:0 [::1]:0 {}", path.display());
    let mut service =
        service::Service::start(service::Service::command().env(service::set::SPECS, specs));
    service.wait_for_count("serving address", 3);
    let addresses = service.generation(1).addresses;
    for address in &addresses[..2] {
        assert_eq!(
            Client::connect(address.parse().unwrap())
                .unwrap()
                .get("/")
                .unwrap()
                .body,
            "hello"
        );
    }
    assert_eq!(
        Client::connect_unix(&path).unwrap().get("/").unwrap().body,
        "hello"
    );
    service.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(service.wait().success());
    assert!(UnixStream::connect(&path).is_err());
    assert!(!path.exists(), "its own socket's file is removed");
}

#[test]
fn programs_that_the_service_starts_see_none_of_its_descriptors() {
    if !child::has("start_server") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let role = service::Service::command();
    let mut starter = std::process::Command::new("start_server");
    starter.args([
        "--port=127.0.0.1:0",
        &format!("--path={}", path.display()),
        "--",
    ]);
    child::append(&mut starter, &role);
    let service = service::Service::start(&mut starter);
    service.wait_for_count("serving address", 2);
    let mut client = Client::connect_unix(&path).unwrap();
    // What else there is has been open in this test already.
    let response = client.get("/descriptors").unwrap();
    assert!(!response.body.contains("socket:"), "{}", response.body);
}
