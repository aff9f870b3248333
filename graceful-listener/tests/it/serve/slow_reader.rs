//! Clients that take their time to read a response, which hyper has in hand as a whole.

use std::future::ready;
use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use graceful_listener::{Drain, Listeners, Stream, serve};
use http_body_util::BodyExt;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{SHORT, blocking, closed_after, inet, with_runtime};
use crate::drain::{LARGE, Service, eventually};
use crate::http::{Client, Response};
use crate::http2;

fn with_short_limits(linger: Duration) -> Service {
    Service::with(move |serve| {
        serve
            .header_read_timeout(SHORT)
            .keep_alive_timeout(SHORT)
            .linger(linger)
    })
}

/// A connection of which the head of a large response has been read.
fn begin(service: &Service) -> Client<TcpStream> {
    let mut begun = None;
    eventually("a request in time", || {
        let mut client = service.connect();
        let sent = client.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n");
        begun = sent.and_then(|()| client.head()).is_ok().then_some(client);
        begun.is_some()
    });
    begun.unwrap()
}

/// Returns when others have been closed that had nothing to wait for.
fn outlast_the_limits(service: &Service) {
    for _ in 0..4 {
        closed_after(&mut service.connect(), Instant::now());
    }
}

#[test]
fn response_is_sent_for_longer_than_the_limits() {
    let service = with_short_limits(Duration::ZERO);
    let mut client = begin(&service);
    outlast_the_limits(&service);
    client.read_exact(&mut vec![0; LARGE]).unwrap();
    assert!(client.is_closed(), "it is idle in the end");
    service.drain.start();
    service.end();
}

#[test]
fn response_is_sent_to_its_end_in_a_drain() {
    let service = with_short_limits(Duration::ZERO);
    let mut client = begin(&service);
    let mut silent: Vec<_> = (0..4).map(|_| service.connect()).collect();
    service.drain.start();
    for client in &mut silent {
        closed_after(client, Instant::now());
    }
    // Nobody can connect any more whose end would tell that the limits are over.
    std::thread::sleep(SHORT * 4);
    client.read_exact(&mut vec![0; LARGE]).unwrap();
    drop(client);
    assert_eq!(service.end().cut, 0);
}

#[test]
fn stream_is_sent_for_longer_than_the_limits() {
    let service = with_short_limits(Duration::ZERO);
    http2::run(async || {
        let (mut sender, _end) = http2::connect_and_ask(service.address).await;
        let response = sender.send_request(http2::request("/large")).await.unwrap();
        outlast_the_limits(&service);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes().len(), LARGE);
    });
    service.drain.start();
    assert_eq!(service.end().cut, 0);
}

/// As the streams of most TLS libraries it takes one buffer at a time.
struct OneByOne(Stream);

impl AsyncRead for OneByOne {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for OneByOne {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Reads a response through an acceptor, and late.
fn read_late<B>(body: B) -> Response
where
    B: Fn() -> Body + Clone + Send + Sync + 'static,
{
    with_runtime(async || {
        let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
        let address = inet(&listeners, 0);
        let drain = Drain::new();
        let app = Router::new().route("/", get(async move || body()));
        let serve = serve(listeners, app)
            .drain(drain.clone())
            .without_signals()
            .header_read_timeout(SHORT)
            .keep_alive_timeout(SHORT)
            .acceptor(|stream| {
                // The kernel takes little of it.
                let narrowed = SockRef::from(&stream).set_send_buffer_size(32 << 10);
                ready(narrowed.map(|()| OneByOne(stream)))
            });
        let served = tokio::spawn(serve.into_future());
        let response = blocking(move || {
            let mut begun = None;
            eventually("a request in time", || {
                let mut client = Client::connect(address).unwrap();
                let sent = client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
                let answered = sent.and_then(|()| client.stream().peek(&mut [0]));
                begun = answered.is_ok_and(|length| length > 0).then_some(client);
                begun.is_some()
            });
            let mut client = begun.unwrap();
            for _ in 0..4 {
                closed_after(&mut Client::connect(address).unwrap(), Instant::now());
            }
            client.response().unwrap()
        })
        .await;
        drain.start();
        assert_eq!(served.await.unwrap().unwrap().cut, 0);
        response
    })
}

#[test]
fn response_through_an_acceptor_is_sent_for_longer_than_the_limits() {
    let response = read_late(|| vec![b'x'; SOME].into());
    assert_eq!(response.body.len(), SOME);
}

#[test]
fn last_part_of_a_body_of_unknown_length_is_sent_for_longer_than_the_limits() {
    let part = || Ok::<_, io::Error>("x".repeat(SOME));
    let response = read_late(move || Body::from_stream(futures_util::stream::iter([part()])));
    assert_eq!(response.body.len(), SOME);
}

/// Less than hyper is content to have in hand, more than the kernel takes.
const SOME: usize = 390_000;
