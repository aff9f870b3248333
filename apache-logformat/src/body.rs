//! The response's body.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{
    entry::{Entry, PanicGuard},
    exchange::Outcome,
};

pin_project! {
    /// Response body of [`AccessLog`](crate::AccessLog).
    ///
    /// It is the service's body; the line is written at its end.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        entry: Option<Entry>,
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn new(inner: B, entry: Option<Entry>) -> Self {
        Self { inner, entry }
    }
}

/// Without a line to write: what middleware around the layer answers with when it
/// does not ask the service.
impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::new(B::default(), None)
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let guard = PanicGuard::new(this.entry);
        let polled = this.inner.as_mut().poll_frame(cx);
        guard.disarm();
        let frame = ready!(polled);

        let Some(entry) = this.entry else {
            return Poll::Ready(frame);
        };
        let end = match &frame {
            None => Some(Outcome::Complete),
            Some(Err(_)) => Some(Outcome::BodyError),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    entry.count(data.remaining());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    entry.trailers(trailers);
                }
                // Who knows the length does not ask again after the last frame.
                let last = frame.is_trailers() || this.inner.is_end_stream();
                last.then_some(Outcome::Complete)
            }
        };
        if let Some(outcome) = end
            && let Some(mut entry) = this.entry.take()
        {
            entry.finish(outcome);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
