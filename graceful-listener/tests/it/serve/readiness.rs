//! A service that is not ready whenever a request comes.

use std::io;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use graceful_listener::{Drain, Listeners, serve};
use hyper::body::Incoming;
use tower_service::Service;

use super::{blocking, inet, with_runtime};
use crate::http::Client;

/// A service that is ready when it is asked for the second time, or fails instead.
struct Shy {
    app: Router,
    asked: usize,
    fails: bool,
}

impl Shy {
    fn new(fails: bool) -> Self {
        Self {
            app: Router::new().route("/", get(async || "hello")),
            asked: 0,
            fails,
        }
    }
}

impl Clone for Shy {
    /// What was asked of one says nothing of another.
    fn clone(&self) -> Self {
        Self {
            app: self.app.clone(),
            asked: 0,
            fails: self.fails,
        }
    }
}

impl Service<Request<Incoming>> for Shy {
    type Response = Response;
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = io::Result<Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.asked += 1;
        if self.fails {
            return Poll::Ready(Err(io::Error::other("on purpose")));
        }
        if self.asked == 1 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        assert!(self.asked > 1, "it is not ready");
        let mut app = self.app.clone();
        Box::pin(async move { app.call(request).await.map_err(|never| match never {}) })
    }
}

/// The bodies of two answers on one connection.
fn ask_twice(shy: Shy) -> [io::Result<String>; 2] {
    with_runtime(async || {
        let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
        let address = inet(&listeners, 0);
        let drain = Drain::new();
        let serve = serve(listeners, shy).drain(drain.clone()).without_signals();
        let served = tokio::spawn(serve.into_future());
        let answers = blocking(move || {
            let mut client = Client::connect(address).unwrap();
            [(); 2].map(|()| client.get("/").map(|response| response.body))
        })
        .await;
        drain.start();
        assert_eq!(served.await.unwrap().unwrap().cut, 0);
        answers
    })
}

#[test]
fn service_is_not_called_before_it_is_ready() {
    for answer in ask_twice(Shy::new(false)) {
        assert_eq!(answer.unwrap(), "hello");
    }
}

#[test]
fn service_that_fails_to_be_ready_ends_the_connection() {
    for answer in ask_twice(Shy::new(true)) {
        let kind = answer.unwrap_err().kind();
        assert_ne!(kind, io::ErrorKind::WouldBlock, "it is never closed");
    }
}
