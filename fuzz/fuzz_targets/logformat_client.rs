//! Any bytes as what a client says of its address: a proxy's word still holds.

#![no_main]

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use apache_logformat::{AccessLogLayer, ConnectionInfo, LogFormat, TrustedProxies};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Empty;
use libfuzzer_sys::fuzz_target;
use tower_layer::Layer;
use tower_service::Service;

struct Handler;

impl Service<Request<()>> for Handler {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Empty::new())))
    }
}

fuzz_target!(|claimed: &[u8]| {
    let proxies = TrustedProxies::new(["10.0.0.0/8"]).expect("a network");
    for (proxies, name, appended) in [
        (proxies.clone(), "x-forwarded-for", &b", 203.0.113.5"[..]),
        (proxies.forwarded(), "forwarded", b", for=203.0.113.5"),
    ] {
        let Ok(value) = HeaderValue::from_bytes(&[claimed, appended].concat()) else {
            return;
        };
        let line = Arc::new(Mutex::new(Vec::new()));
        let format: LogFormat = "%a".parse().expect("a format");
        let mut service = AccessLogLayer::new(format, Arc::clone(&line))
            .trusted_proxies(proxies)
            .layer(Handler);
        let mut request = Request::new(());
        request.headers_mut().insert(name, value);
        let peer = ConnectionInfo::new(([10, 0, 0, 1], 1).into());
        request.extensions_mut().insert(peer);
        let mut future = std::pin::pin!(service.call(request));
        let mut context = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_ready());
        assert_eq!(*line.lock().expect("no panic"), b"203.0.113.5\n");
    }
});
