use std::error::Error;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Buf, Bytes, Incoming};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::activity::Activity;
use super::stream::Endpoints;

type BoxError = Box<dyn Error + Send + Sync>;

/// The user's service on one connection: it sees each request begin and end.
pub(super) struct Requests<S> {
    pub(super) service: S,
    pub(super) endpoints: Endpoints,
    pub(super) activity: Arc<Activity>,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Requests<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<InFlightBody<B>>;
    type Error = BoxError;
    type Future = InFlight<S>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let guard = Guard::new(&self.activity);
        if !request.body().is_end_stream() {
            self.activity.expect_body();
        }
        request.extensions_mut().insert(self.endpoints.clone());
        let version = request.version();
        let mut service = self.service.clone();
        // Most services are always ready. One that is not is asked again by
        // whoever can be woken.
        let is_ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
        let state = match is_ready {
            Poll::Ready(Ok(())) => State::Called {
                future: service.call(request),
            },
            Poll::Ready(Err(error)) => State::Failed {
                error: Some(error.into()),
            },
            Poll::Pending => State::Waiting {
                service,
                request: Some(request),
            },
        };
        InFlight {
            state,
            version,
            guard: Some(guard),
        }
    }
}

pin_project! {
    /// A request until its response has a head.
    pub(super) struct InFlight<S: Service<Request<Incoming>>> {
        #[pin]
        state: State<S, S::Future>,
        version: Version,
        guard: Option<Guard>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F> {
        Waiting { service: S, request: Option<Request<Incoming>> },
        Called { #[pin] future: F },
        Failed { error: Option<BoxError> },
    }
}

impl<S, B> Future for InFlight<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<InFlightBody<B>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let future = match this.state.as_mut().project() {
                StateProjection::Called { future } => {
                    let mut response = ready!(future.poll(cx)).map_err(Into::into)?;
                    let guard = this.guard.take();
                    if guard.as_ref().is_some_and(|guard| guard.0.is_last()) {
                        ask_to_close(&mut response, *this.version);
                    }
                    return Poll::Ready(Ok(response.map(|body| InFlightBody { body, guard })));
                }
                StateProjection::Waiting { service, request } => {
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    let Some(request) = request.take() else {
                        unreachable!("the state changes with the request");
                    };
                    service.call(request)
                }
                StateProjection::Failed { error } => match error.take() {
                    Some(error) => return Poll::Ready(Err(error)),
                    None => unreachable!("a future that has ended is not polled"),
                },
            };
            this.state.set(State::Called { future });
        }
    }
}

/// Tells the client that this is the connection's last response.
fn ask_to_close<B>(response: &mut Response<B>, version: Version) {
    // What has been upgraded has its own way to end.
    if version >= Version::HTTP_2 || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    if version == Version::HTTP_11 {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    } else {
        // There it goes without saying, and hyper would say the opposite too.
        response.headers_mut().remove(CONNECTION);
        *response.version_mut() = version;
    }
}

pin_project! {
    /// A response's body, with which its request ends.
    pub(super) struct InFlightBody<B> {
        #[pin]
        body: B,
        guard: Option<Guard>,
    }
}

impl<B: Body> Body for InFlightBody<B> {
    type Data = InFlightData<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        let in_flight = |data| InFlightData {
            data,
            _guard: if this.body.is_end_stream() {
                this.guard.take()
            } else {
                this.guard.as_ref().map(|guard| Guard::new(&guard.0))
            },
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(in_flight))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A part of a response: hyper has it for as long as it is being sent, which is often longer
/// than it has the body.
pub(super) struct InFlightData<D> {
    data: D,
    _guard: Option<Guard>,
}

impl<D: Buf> Buf for InFlightData<D> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'a>(&'a self, parts: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(parts)
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.data.copy_to_bytes(length)
    }
}

/// Counts a request as being answered for as long as it lives.
struct Guard(Arc<Activity>);

impl Guard {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.request_begins();
        Self(Arc::clone(activity))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.request_ends();
    }
}
