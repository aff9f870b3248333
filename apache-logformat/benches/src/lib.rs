//! What the benches and the instruction counts share: one request, one handler.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use apache_logformat::{ConnectionInfo, Exchange, Fields, Timestamp};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use tower::{Service, service_fn};

pub const AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
pub const REFERER: &str = "https://www.example.com/start?x=1&y=2";
pub const TARGET: &str = "/items/0?page=0&sort=asc";

/// Calls `with` with an exchange as a browser causes it.
pub fn with_exchange<T>(with: impl FnOnce(&mut Exchange<'_>) -> T) -> T {
    let headers = [
        (&b"host"[..], &b"www.example.com"[..]),
        (b"user-agent", AGENT.as_bytes()),
        (b"accept", b"text/html"),
        (b"referer", REFERER.as_bytes()),
    ];
    let mut exchange = Exchange::default();
    exchange.begin = Timestamp::from_micros(1_700_000_000_123_456);
    exchange.end = Timestamp::from_micros(1_700_000_000_125_000);
    exchange.peer = Some(([192, 0, 2, 71], 50123).into());
    exchange.method = b"GET";
    exchange.target = TARGET.as_bytes();
    exchange.protocol = b"HTTP/1.1";
    exchange.request_headers = Fields::from(&headers);
    exchange.status = 200;
    exchange.body_bytes = 5316;
    with(&mut exchange)
}

/// Makes the request that every service is asked.
pub fn request() -> Request<Full<Bytes>> {
    let mut request = Request::get(TARGET)
        .header(header::HOST, "www.example.com")
        .header(header::USER_AGENT, AGENT)
        .header(header::ACCEPT, "text/html")
        .header(header::REFERER, REFERER)
        .body(Full::default())
        .unwrap();
    let connection = ConnectionInfo::new(([192, 0, 2, 71], 50123).into());
    request.extensions_mut().insert(connection);
    request
}

/// Makes the handler that every layer is put around.
pub fn handler() -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future = Ready<Result<Response<Full<Bytes>>, Infallible>>,
> + Clone {
    service_fn(|_: Request<Full<Bytes>>| {
        ready(Ok(Response::new(Full::from(Bytes::from_static(b"hello")))))
    })
}

/// Serves one request, its response's body included.
pub fn serve<S, B>(service: &mut S, request: Request<Full<Bytes>>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
    B: http_body_util::BodyExt,
{
    let run = async {
        let response = service.call(request).await.unwrap();
        let mut body = pin!(response.into_body());
        while let Some(frame) = body.frame().await {
            let _ = std::hint::black_box(frame);
        }
    };
    match pin!(run).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(()) => {}
        Poll::Pending => panic!("the service waits"),
    }
}
