//! The response's head.

use std::{
    pin::Pin,
    task::{Context, Poll},
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
        match this.inner.poll(cx) {
            Poll::Pending => {
                guard.disarm();
                Poll::Pending
            }
            Poll::Ready(Ok(response)) => {
                guard.disarm();
                let mut entry = this.entry.take();
                if let Some(entry) = &mut entry {
                    entry.answer(&response);
                }
                Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, entry))))
            }
            Poll::Ready(Err(error)) => {
                guard.disarm();
                if let Some(mut entry) = this.entry.take() {
                    entry.finish(Outcome::ServiceError);
                }
                Poll::Ready(Err(error))
            }
        }
    }
}
