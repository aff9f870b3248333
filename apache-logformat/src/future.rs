//! The response's head.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::{
    body::ResponseBody,
    entry::{Entry, PanicGuard},
    exchange::Outcome,
};

pin_project! {
    /// Response future of [`AccessLog`](crate::AccessLog).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        entry: Option<Entry>,
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) fn new(inner: F, entry: Entry) -> Self {
        Self {
            inner,
            entry: Some(entry),
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let guard = PanicGuard::new(this.entry);
        let polled = this.inner.poll(cx);
        guard.disarm();
        let result = ready!(polled);
        let mut entry = this.entry.take();
        Poll::Ready(match result {
            Ok(response) => {
                if let Some(entry) = &mut entry {
                    entry.answer(&response);
                }
                Ok(response.map(|body| ResponseBody::new(body, entry)))
            }
            Err(error) => {
                if let Some(entry) = &mut entry {
                    entry.finish(Outcome::ServiceError);
                }
                Err(error)
            }
        })
    }
}
