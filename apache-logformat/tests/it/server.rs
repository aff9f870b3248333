//! Real servers, real sockets.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Mutex, time::Duration};

use apache_logformat::{AccessLogLayer, ConnectionInfo, LogFormat, Zone};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, service_fn};

use crate::lines::Lines;

type Body = BoxBody<Bytes, Infallible>;

/// Generous: the machines that test are slow and shared.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for something to come true; returns whether it has.
async fn comes_true(is_so: impl Fn() -> bool) -> bool {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.is_ok()
}

/// Returns the lines once there are `count`.
async fn lines(lines: &Lines, count: usize) -> Vec<String> {
    if !comes_true(|| lines.get().len() >= count).await {
        panic!("waited for {count} lines, got {:?}", lines.get());
    }
    lines.get()
}

/// The requests that are never answered.
static BEGUN: Mutex<Vec<String>> = Mutex::new(Vec::new());

async fn handle(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    fn full(text: &'static str) -> Response<Body> {
        Response::new(Full::new(Bytes::from(text)).boxed())
    }
    Ok(match request.uri().path() {
        "/hello" => full("hello"),
        "/empty" => Response::new(Empty::new().boxed()),
        "/echo" => {
            let body = request
                .into_body()
                .collect()
                .await
                .map(|body| body.to_bytes());
            Response::new(Full::new(body.unwrap_or_default()).boxed())
        }
        "/chunked" => {
            let frames = ["one", "two", "three"];
            let frames = frames.map(|text| Ok(Frame::data(Bytes::from(text))));
            Response::new(StreamBody::new(stream::iter(frames)).boxed())
        }
        "/length" => {
            // A stream that does not tell its end, with its length in the head.
            let frames = ["hello", "world"].map(|text| Ok(Frame::data(Bytes::from(text))));
            let body = StreamBody::new(stream::iter(frames)).boxed();
            let mut response = Response::new(body);
            let length = HeaderValue::from_static("10");
            response.headers_mut().insert("content-length", length);
            response
        }
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [
                Ok(Frame::data(Bytes::from("data"))),
                Ok(Frame::trailers(trailers)),
            ];
            Response::new(StreamBody::new(stream::iter(frames)).boxed())
        }
        "/endless" => {
            let frames = stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![b'x'; 1000]))));
            Response::new(StreamBody::new(frames).boxed())
        }
        "/stalls" => {
            let first = stream::iter([Ok(Frame::data(Bytes::from("start")))]);
            let frames = futures_util::StreamExt::chain(first, stream::pending());
            Response::new(StreamBody::new(frames).boxed())
        }
        "/never" => {
            BEGUN.lock().unwrap().push(request.uri().to_string());
            std::future::pending().await
        }
        "/panic" => panic!("in the handler"),
        "/upgrade" => {
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(request).await.unwrap();
                let mut io = TokioIo::new(upgraded);
                let mut byte = [0];
                io.read_exact(&mut byte).await.unwrap();
                io.write_all(&[byte[0] + 1]).await.unwrap();
            });
            let mut response = Response::new(Empty::new().boxed());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
                .headers_mut()
                .insert("upgrade", HeaderValue::from_static("plus-one"));
            response
                .headers_mut()
                .insert("connection", HeaderValue::from_static("upgrade"));
            response
        }
        _ => {
            let mut response = full("not here");
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

/// Serves HTTP/1, or HTTP/2, with `layer` around [`handle`].
async fn serve(layer: AccessLogLayer, http2: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let connection = ConnectionInfo::new(peer).local(address).count_requests();
            let service = layer.layer(service_fn(handle));
            let service = tower::ServiceBuilder::new()
                .map_request(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(connection.clone());
                    request
                })
                .service(service);
            let service = TowerToHyperService::new(service);
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                // A connection may end badly; the lines tell.
                if http2 {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(io, service).await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .with_upgrades()
                        .await;
                }
            });
        }
    });
    address
}

/// Sends `request`, which asks for the connection to be closed; returns the answer.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn http1_responses_leave_one_line_each() {
    let log = Lines::default();
    let address = serve(log.layer("%r %>s %B %X"), false).await;
    let mut expected = Vec::new();
    for (request, body, line) in [
        (get("/hello"), "hello", "GET /hello HTTP/1.1 200 5 -"),
        (get("/empty"), "", "GET /empty HTTP/1.1 200 0 -"),
        (
            get("/length"),
            "helloworld",
            "GET /length HTTP/1.1 200 10 -",
        ),
        (
            get("/chunked"),
            "3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n",
            "GET /chunked HTTP/1.1 200 11 -",
        ),
        (
            get("/a%20\"b\"?c='d'"),
            "not here",
            "GET /a%20\\\"b\\\"?c='d' HTTP/1.1 404 8 -",
        ),
        (
            get("/hello").replace("GET", "HEAD"),
            "",
            "HEAD /hello HTTP/1.1 200 0 -",
        ),
        (
            String::from("GET /hello HTTP/1.0\r\n\r\n"),
            "hello",
            "GET /hello HTTP/1.0 200 5 -",
        ),
        (
            String::from(
                "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nping",
            ),
            "ping",
            "POST /echo HTTP/1.1 200 4 -",
        ),
        (
            String::from("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
            "not here",
            "OPTIONS * HTTP/1.1 404 8 -",
        ),
        (
            get("http://B.example:80/hello?"),
            "hello",
            "GET http://B.example:80/hello? HTTP/1.1 200 5 -",
        ),
    ] {
        let answer = exchange(address, &request).await;
        assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, body, "{request}");
        expected.push(line);
        assert_eq!(lines(&log, expected.len()).await, expected);
    }
}

#[tokio::test]
async fn kept_connections_count_their_requests() {
    let log = Lines::default();
    let address = serve(log.layer("%k %X %U %A:%{local}p"), false).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Pipelined: all in one write.
    let request = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2) + &get("/empty");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(
        lines(&log, 3).await,
        [
            format!("0 + /hello {address}"),
            format!("1 + /hello {address}"),
            format!("2 - /empty {address}"),
        ]
    );
}

#[tokio::test]
async fn client_that_goes_away_in_the_body_leaves_an_x() {
    let log = Lines::default();
    let address = serve(log.layer("%U %>s %X %B"), false).await;
    for path in ["/endless", "/stalls"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(get(path).as_bytes()).await.unwrap();
        let mut some = [0; 100];
        stream.read_exact(&mut some).await.unwrap();
        drop(stream);
    }
    let mut got = lines(&log, 2).await;
    got.sort();
    let bytes = got[0].strip_prefix("/endless 200 X ").unwrap();
    assert!(bytes.parse::<u64>().unwrap() >= 1000, "{got:?}");
    assert_eq!(got[1], "/stalls 200 X 5");
}

#[tokio::test]
async fn client_that_goes_away_before_the_head_leaves_499() {
    let log = Lines::default();
    let address = serve(log.layer("%U %>s %X %B"), false).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = get("/never?http1");
    stream.write_all(request.as_bytes()).await.unwrap();
    let has_begun = || {
        BEGUN
            .lock()
            .unwrap()
            .iter()
            .any(|uri| uri == "/never?http1")
    };
    assert!(comes_true(has_begun).await, "it is handled");
    assert_eq!(log.get(), [""; 0]);
    drop(stream);
    assert_eq!(lines(&log, 1).await, ["/never 499 X 0"]);
}

#[tokio::test]
async fn upgrade_leaves_its_line_at_the_switch() {
    let log = Lines::default();
    let address = serve(log.layer("%U %>s %B"), false).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: plus-one\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert_eq!(lines(&log, 1).await, ["/upgrade 101 0"]);
    stream.write_all(&[41]).await.unwrap();
    assert_eq!(
        stream.read_u8().await.unwrap(),
        42,
        "the connection goes on"
    );
    drop(stream);
    assert_eq!(log.get().len(), 1);
}

#[tokio::test]
async fn panicking_handler_leaves_500() {
    let log = Lines::default();
    let address = serve(log.layer("%U %>s %X"), false).await;
    assert_eq!(exchange(address, &get("/panic")).await, "");
    assert_eq!(lines(&log, 1).await, ["/panic 500 X"]);
    exchange(address, &get("/hello")).await;
    assert_eq!(lines(&log, 2).await[1], "/hello 200 -");
}

#[tokio::test]
async fn hostile_requests_over_the_wire_stay_in_their_fields() {
    let log = Lines::default();
    let format = LogFormat::combined().with_zone(Zone::fixed(0, "UTC"));
    let layer = AccessLogLayer::new(format, log.clone());
    let address = serve(layer, false).await;
    let request = "GET /\"%0a%0d\\x?\\ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                   Referer: \" 200 5 \"-\" \"\\\r\nUser-Agent: \u{9b}31m\tx\u{e9}\r\n\r\n";
    exchange(address, request).await;
    let line = &lines(&log, 1).await[0];
    let (start, rest) = line.split_once("] ").unwrap();
    assert!(start.starts_with("127.0.0.1 - - ["), "{line}");
    assert_eq!(
        rest,
        r#""GET /\"%0a%0d\\x?\\ HTTP/1.1" 404 8 "\" 200 5 \"-\" \"\\" "\xc2\x9b31m\tx\xc3\xa9""#
    );
}

async fn http2(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

fn h2_get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://Www.example:81{path}"))
        .version(Version::HTTP_2)
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn http2_requests_are_printed_as_httpd_does() {
    let log = Lines::default();
    let address = serve(log.layer("%r %V %{Host}i %>s %B %X"), true).await;
    let mut sender = http2(address).await;
    let response = sender.send_request(h2_get("/hello?a=1")).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(
        lines(&log, 1).await,
        ["GET /hello?a=1 HTTP/2.0 www.example Www.example:81 200 5 -"]
    );
}

#[tokio::test]
async fn http2_trailers_arrive_and_are_printed() {
    let log = Lines::default();
    let address = serve(log.layer("%U %B %{grpc-status}^to"), true).await;
    let mut sender = http2(address).await;
    let response = sender.send_request(h2_get("/trailers")).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(lines(&log, 1).await, ["/trailers 4 0"]);
}

#[tokio::test]
async fn http2_streams_that_are_reset_leave_a_line_each() {
    let log = Lines::default();
    let address = serve(log.layer("%U %>s %X"), true).await;
    let mut sender = http2(address).await;
    // One in the body, one before the head, and the connection goes on.
    let response = sender.send_request(h2_get("/stalls")).await.unwrap();
    let mut body = response.into_body();
    Pin::new(&mut body).frame().await.unwrap().unwrap();
    let never = tokio::spawn(sender.send_request(h2_get("/never")));
    let response = sender.send_request(h2_get("/empty")).await.unwrap();
    response.into_body().collect().await.unwrap();
    lines(&log, 1).await;
    drop(body);
    never.abort();
    let mut got = lines(&log, 3).await;
    got.sort();
    assert_eq!(got, ["/empty 200 -", "/never 499 X", "/stalls 200 X"]);
    sender.send_request(h2_get("/hello")).await.unwrap();
    lines(&log, 4).await;
}

#[tokio::test]
async fn axum_tells_peer_and_route() {
    use axum::{Extension, Router, routing};

    let log = Lines::default();
    let notes = |notes: Extension<apache_logformat::Notes>| async move {
        notes.set("sql_count", "2");
        Extension(apache_logformat::RemoteUser::new("frank"))
    };
    let router = Router::new()
        .route("/items/{id}", routing::get(notes))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(log.layer("%a %R %u %{sql_count}n %U %>s %B"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });

    exchange(address, &get("/items/7")).await;
    exchange(address, &get("/nothing")).await;
    assert_eq!(
        lines(&log, 2).await,
        [
            "127.0.0.1 /items/{id} frank 2 /items/7 200 0",
            "127.0.0.1 - - - /nothing 404 0",
        ]
    );
}

#[tokio::test]
async fn layer_may_stand_around_a_whole_router() {
    use axum::{Router, routing};

    let log = Lines::default();
    let router = Router::new().route("/hello", routing::get(|| async { "hello" }));
    // `axum::serve` asks for bodies of its own type.
    let service = tower::ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(axum::body::Body::new))
        .layer(log.layer("%U %>s %B"))
        .service(router);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, tower::make::Shared::new(service)).await });
    exchange(address, &get("/hello")).await;
    exchange(address, &get("/nothing")).await;
    assert_eq!(lines(&log, 2).await, ["/hello 200 5", "/nothing 404 0"]);
}

/// A service of tonic without generated code: answers with one message.
#[derive(Clone)]
struct Greeter;

impl tonic::server::NamedService for Greeter {
    const NAME: &'static str = "hello.Greeter";
}

impl tower::Service<Request<tonic::body::Body>> for Greeter {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<tonic::body::Body>) -> Self::Future {
        let trailers = HeaderMap::from_iter([(
            "grpc-status".parse().unwrap(),
            HeaderValue::from_static("0"),
        )]);
        let message = Bytes::from_static(b"\0\0\0\0\x02\x08\x01");
        let frames = [Frame::data(message), Frame::trailers(trailers)];
        let frames = frames.map(Ok::<_, tonic::Status>);
        let body = tonic::body::Body::new(StreamBody::new(stream::iter(frames)));
        std::future::ready(Ok(Response::new(body)))
    }
}

#[tokio::test]
async fn tonic_servers_leave_a_line_for_each_call() {
    use tonic::transport::server::{Server, TcpConnectInfo, TcpIncoming};

    let log = Lines::default();
    let layer = log
        .layer("%a %r %>s %B %{grpc-status}o %{grpc-status}^to")
        .connection(|extensions| {
            let peer = extensions.get::<TcpConnectInfo>()?.remote_addr()?;
            Some(ConnectionInfo::new(peer))
        });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().layer(layer).add_service(Greeter);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let mut sender = http2(address).await;
    for path in ["/hello.Greeter/Hello", "/other.Service/Call"] {
        let request = Request::post(format!("http://{address}{path}"))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .body(Full::default());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(
        lines(&log, 2).await,
        [
            "127.0.0.1 POST /hello.Greeter/Hello HTTP/2.0 200 7 - 0",
            "127.0.0.1 POST /other.Service/Call HTTP/2.0 200 0 12 -",
        ]
    );
}
