//! HTTP/2 loses no stream when the service ends.

mod goaway;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use graceful_listener::Served;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{Connection, SendRequest, handshake};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::drain::Service;
use crate::http::DEADLINE;

type Sender = SendRequest<Empty<Bytes>>;

/// Returns the end of the connection as a task.
pub(crate) async fn connect(address: SocketAddr) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

/// A connection that has had its first answer, to a request that came before the
/// connection was closed for being idle.
pub(crate) async fn connect_and_ask(
    address: SocketAddr,
) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let asked = async {
        loop {
            let (mut sender, end) = connect(address).await;
            if sender.send_request(request("/")).await.is_ok() {
                return (sender, end);
            }
        }
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap()
}

pub(crate) fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://test{path}"))
        .body(Empty::new())
        .unwrap()
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

pub(crate) fn run<T>(test: impl AsyncFnOnce() -> T) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test())
}

#[test]
fn streams_in_flight_are_answered_and_then_the_connection_ends() {
    let service = Service::start();
    run(async || {
        let (mut sender, end) = connect(service.address).await;
        let first = sender.send_request(request("/")).await.unwrap();
        assert_eq!(first.version(), Version::HTTP_2);
        assert_eq!(text(first).await, "hello");
        let held: Vec<_> = (0..10)
            .map(|_| tokio::spawn(sender.send_request(request("/held"))))
            .collect();
        // They have arrived when one that was sent later is answered.
        sender.send_request(request("/")).await.unwrap();
        service.drain.start();
        // GOAWAY has arrived when the client does not let us send any more.
        while let Ok(response) = sender.try_send_request(request("/")).await {
            assert_eq!(text(response).await, "hello");
        }
        for _ in 0..10 {
            service.release();
        }
        for held in held {
            let response = held.await.unwrap().unwrap();
            assert!(
                response.headers().get("connection").is_none(),
                "HTTP/2 has no such header"
            );
            assert_eq!(text(response).await, "held");
        }
        end.await.unwrap().unwrap();
    });
    assert_eq!(service.end(), Served::default());
}

#[test]
fn idle_connection_is_told_to_go_away_at_once() {
    // An HTTP/1 connection would be left alone for ten minutes.
    let service = Service::with(|serve| serve.linger(Duration::from_secs(600)));
    run(async || {
        let (mut sender, end) = connect(service.address).await;
        sender.send_request(request("/")).await.unwrap();
        service.drain.start();
        end.await.unwrap().unwrap();
    });
    assert_eq!(service.end(), Served::default());
}

#[test]
fn connection_without_a_request_yet_is_told_to_go_away() {
    let service = Service::start();
    run(async || {
        let (_sender, end) = connect(service.address).await;
        service.until_connections(1);
        service.drain.start();
        end.await.unwrap().unwrap();
    });
    assert_eq!(service.end(), Served::default());
}

#[test]
fn connection_that_was_silent_is_served_in_its_turn() {
    let service = Service::start();
    run(async || {
        let stream = TcpStream::connect(service.address).await.unwrap();
        service.until_connections(1);
        service.drain.start();
        let (mut sender, connection): (Sender, Connection<_, _, _>) =
            handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let end = tokio::spawn(connection);
        // It may be told to go away before it can ask, but not be cut.
        if let Ok(response) = sender.send_request(request("/")).await {
            assert_eq!(text(response).await, "hello");
        }
        end.await.unwrap().unwrap();
    });
    assert_eq!(service.end(), Served::default());
}

#[test]
fn idle_connection_goes_away_after_the_keep_alive_timeout() {
    let service = Service::with(|serve| serve.keep_alive_timeout(Duration::from_millis(100)));
    run(async || {
        let (_sender, end) = connect_and_ask(service.address).await;
        until_closed(end).await;
    });
    service.drain.start();
    service.end();
}

async fn until_closed(end: JoinHandle<hyper::Result<()>>) {
    let closed = tokio::time::timeout(DEADLINE, end).await;
    closed.unwrap().unwrap().unwrap();
}

#[test]
fn deadline_cuts_streams_that_are_left() {
    let service = Service::with(|serve| serve.drain_timeout(Duration::from_millis(100)));
    run(async || {
        let (mut sender, _end) = connect(service.address).await;
        let held = tokio::spawn(sender.send_request(request("/held")));
        sender.send_request(request("/")).await.unwrap();
        service.drain.start();
        assert!(held.await.unwrap().is_err());
    });
    assert_eq!(service.end().cut, 1);
}

/// Opens a stream as a WebSocket would, and has its first bytes echoed.
async fn open_upgraded(sender: &mut Sender) -> TokioIo<Upgraded> {
    try_open_upgraded(sender).await.unwrap()
}

/// Fails if the connection is closed before the stream is open.
async fn try_open_upgraded(sender: &mut Sender) -> hyper::Result<TokioIo<Upgraded>> {
    // With the first answer has come what the server allows.
    sender.send_request(request("/")).await?;
    let connect = Request::connect("http://test/upgrade")
        .extension(Protocol::from_static("websocket"))
        .body(Empty::new())
        .unwrap();
    let response = sender.send_request(connect).await?;
    assert_eq!(response.status(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    assert_echo(&mut stream).await;
    Ok(stream)
}

/// A connection whose stream was opened before the connection was closed for being idle.
async fn connect_and_open_upgraded(
    address: SocketAddr,
) -> (Sender, JoinHandle<hyper::Result<()>>, TokioIo<Upgraded>) {
    let opened = async {
        loop {
            let (mut sender, end) = connect(address).await;
            if let Ok(stream) = try_open_upgraded(&mut sender).await {
                return (sender, end, stream);
            }
        }
    };
    tokio::time::timeout(DEADLINE, opened).await.unwrap()
}

async fn assert_echo(stream: &mut TokioIo<Upgraded>) {
    stream.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
}

#[test]
fn upgraded_streams_are_counted_as_their_connection() {
    let service = Service::start();
    run(async || {
        let (mut sender, _end) = connect(service.address).await;
        let mut first = open_upgraded(&mut sender).await;
        assert_eq!(
            (service.drain.upgraded(), service.drain.connections()),
            (1, 1)
        );
        let mut second = open_upgraded(&mut sender).await;
        assert_eq!(
            (service.drain.upgraded(), service.drain.connections()),
            (1, 1)
        );
        let (mut other, _other_end) = connect(service.address).await;
        let third = open_upgraded(&mut other).await;
        assert_eq!(
            (service.drain.upgraded(), service.drain.connections()),
            (2, 2)
        );
        drop(third);
        until(|| service.drain.upgraded() == 1).await;
        first.shutdown().await.unwrap();
        assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
        // The server has done with the one by the time that it answers again.
        sender.send_request(request("/")).await.unwrap();
        assert_echo(&mut second).await;
        assert_eq!(
            (service.drain.upgraded(), service.drain.connections()),
            (1, 2)
        );
        drop(second);
        until(|| service.drain.upgraded() == 0).await;
        assert_eq!(service.drain.connections(), 2, "they speak HTTP/2 on");
    });
    service.drain.start();
    assert_eq!(service.end(), Served::default());
}

/// Waits for something that the server does, while the client goes on.
async fn until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waited).await.unwrap();
}

#[test]
fn connection_with_an_upgraded_stream_is_not_idle() {
    let service = Service::with(|serve| {
        serve
            .keep_alive_timeout(Duration::from_secs(1))
            .header_read_timeout(Duration::from_secs(1))
    });
    run(async || {
        let (mut sender, end, mut stream) = connect_and_open_upgraded(service.address).await;
        // Were it idle, it would be told to go away by now, and then cut.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_echo(&mut stream).await;
        let response = sender.send_request(request("/")).await.unwrap();
        assert_eq!(text(response).await, "hello");
        drop(stream);
        // Without the stream it is idle again.
        until_closed(end).await;
    });
    service.drain.start();
    assert_eq!(service.end(), Served::default());
}

#[test]
fn drain_waits_for_an_upgraded_stream() {
    let service = Service::with(|serve| {
        serve
            .linger(Duration::from_millis(10))
            .header_read_timeout(Duration::from_secs(1))
    });
    run(async || {
        let (mut sender, end, mut stream) = connect_and_open_upgraded(service.address).await;
        service.drain.start();
        // GOAWAY has arrived when the client does not let us send any more.
        while sender.try_send_request(request("/")).await.is_ok() {}
        // As long as the client of an ordinary stream may take to go.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_echo(&mut stream).await;
        assert_eq!(
            (service.drain.upgraded(), service.drain.connections()),
            (1, 1)
        );
        drop(stream);
        until_closed(end).await;
    });
    assert_eq!(service.end(), Served::default());
}

#[test]
fn deadline_cuts_upgraded_streams_and_counts_them() {
    let service = Service::with(|serve| serve.drain_timeout(Duration::from_millis(100)));
    run(async || {
        let (mut sender, _end) = connect(service.address).await;
        let mut streams = [
            open_upgraded(&mut sender).await,
            open_upgraded(&mut sender).await,
        ];
        let (mut other, _other_end) = connect(service.address).await;
        let held = tokio::spawn(other.send_request(request("/held")));
        other.send_request(request("/")).await.unwrap();
        service.drain.start();
        for stream in &mut streams {
            let read = tokio::time::timeout(DEADLINE, stream.read(&mut [0])).await;
            assert!(!matches!(read.unwrap(), Ok(1..)), "nothing was sent");
        }
        assert!(held.await.unwrap().is_err());
    });
    let served = service.end();
    assert_eq!((served.cut, served.cut_upgraded), (2, 1));
}

/// Load over HTTP/2: each connection carries four loops.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<(AtomicU64, AtomicU64)>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let (flag, numbers) = (Arc::clone(&stop), Arc::clone(&counts));
        let thread = std::thread::spawn(move || {
            run(async || {
                let connections: Vec<_> = (0..8)
                    .map(|number| {
                        tokio::spawn(keep_asking(
                            address,
                            number,
                            Arc::clone(&flag),
                            Arc::clone(&numbers),
                        ))
                    })
                    .collect();
                let mut failures = Vec::new();
                for connection in connections {
                    failures.extend(connection.await.unwrap());
                }
                failures
            })
        });
        Self {
            stop,
            counts,
            thread,
        }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.counts.0.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.counts.1.load(Ordering::Relaxed)
    }

    /// Returns how many requests there were, how many connections, and the failures.
    pub(crate) fn stop(self) -> (u64, u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.thread.join().unwrap();
        (
            self.counts.0.load(Ordering::Relaxed),
            self.counts.1.load(Ordering::Relaxed),
            failures,
        )
    }
}

async fn keep_asking(
    address: SocketAddr,
    number: u64,
    stop: Arc<AtomicBool>,
    counts: Arc<(AtomicU64, AtomicU64)>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut asked = number;
    while !stop.load(Ordering::Relaxed) {
        let (sender, end) = connect(address).await;
        counts.1.fetch_add(1, Ordering::Relaxed);
        let loops: Vec<_> = (0..4)
            .map(|index| {
                let (mut sender, stop, counts) =
                    (sender.clone(), Arc::clone(&stop), Arc::clone(&counts));
                let mut asked = asked + index * 13;
                tokio::spawn(async move {
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        asked += 1;
                        let path = if asked.is_multiple_of(50) {
                            "/sleep?ms=300"
                        } else {
                            "/"
                        };
                        // The client itself knows that a connection is to be left.
                        if sender.ready().await.is_err() {
                            break;
                        }
                        match sender.try_send_request(request(path)).await {
                            Ok(response) if response.status() == 200 => {
                                if let Err(error) = response.into_body().collect().await {
                                    failures.push(format!("body: {error:?}"));
                                }
                            }
                            Ok(response) => failures.push(response.status().to_string()),
                            // It has never left the client.
                            Err(error) if error.message().is_some() => break,
                            Err(error) => failures.push(format!("{:?}", error.into_error())),
                        }
                        counts.0.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(4)).await;
                    }
                    failures
                })
            })
            .collect();
        for task in loops {
            failures.extend(task.await.unwrap());
        }
        drop(sender);
        asked += 17;
        if !stop.load(Ordering::Relaxed) {
            let _ = end.await;
        }
    }
    failures
}
