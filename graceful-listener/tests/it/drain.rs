//! How a service ends: nothing that was sent to it in time is lost.

use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use graceful_listener::{Drain, Listeners, Serve, ServeError, Served, serve};
use tokio::sync::Notify;

use crate::http::{Client, DEADLINE};

/// A service on its own runtime, in this process.
struct Service {
    address: SocketAddr,
    drain: Drain,
    release: std::sync::Arc<Notify>,
    thread: JoinHandle<Result<Served, ServeError>>,
}

impl Service {
    fn start() -> Self {
        Self::with(|serve| serve)
    }

    fn with(options: impl FnOnce(Serve<Router>) -> Serve<Router> + Send + 'static) -> Self {
        let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
        let address = listeners
            .iter()
            .next()
            .unwrap()
            .address()
            .as_inet()
            .unwrap();
        let (drain, release) = (Drain::new(), std::sync::Arc::new(Notify::new()));
        let (handle, gate) = (drain.clone(), std::sync::Arc::clone(&release));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let app = Router::new().route("/", get(async || "hello")).route(
                "/held",
                get(async move || {
                    gate.notified().await;
                    "held"
                }),
            );
            runtime.block_on(async {
                options(serve(listeners, app).drain(handle).without_signals()).await
            })
        });
        Self {
            address,
            drain,
            release,
            thread,
        }
    }

    fn connect(&self) -> Client<TcpStream> {
        Client::connect(self.address).unwrap()
    }

    fn end(self) -> Served {
        self.thread.join().unwrap().unwrap()
    }
}

/// Waits for something that another thread or process does.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn request_in_flight_is_answered_and_told_to_close() {
    let service = Service::start();
    let mut client = service.connect();
    client
        .send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    eventually("accepted", || service.drain.connections() == 1);
    service.drain.start();
    service.release.notify_one();
    let response = client.response().unwrap();
    assert_eq!((response.status(), response.body.as_str()), (200, "held"));
    assert!(response.closes());
    assert!(client.is_closed());
    assert_eq!(service.end().cut, 0);
}
