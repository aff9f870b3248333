//! A sink that keeps its lines, a body that does what it is told, and requests that
//! leave one line.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use apache_logformat::{AccessLogLayer, LogFormat, LogSink};
use bytes::Bytes;
use http::{Extensions, HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Empty;
use tower::{Layer, Service};

use crate::record::block_on;

/// Keeps lines, without their line feeds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Makes a layer that writes lines of `format` here.
    pub(crate) fn layer(&self, format: &str) -> AccessLogLayer {
        AccessLogLayer::new(format.parse::<LogFormat>().unwrap(), self.clone())
    }

    /// Returns the lines so far.
    pub(crate) fn get(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the only line.
    pub(crate) fn only(&self) -> String {
        let lines = self.get();
        assert_eq!(lines.len(), 1, "one request makes one line: {lines:?}");
        lines[0].clone()
    }
}

impl LogSink for Lines {
    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let line = String::from_utf8(line.to_vec()).unwrap();
        let line = line
            .strip_suffix('\n')
            .expect("a line ends with a line feed");
        self.0.lock().unwrap().push(line.to_owned());
        Ok(())
    }
}

/// What a [`Script`] does when it is polled.
#[derive(Debug)]
pub(crate) enum Step {
    Data(&'static str),
    Trailers(HeaderMap),
    Wait,
    Fail,
    Panic,
}

/// A body that does what it is told.
#[derive(Debug, Default)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
    /// Whether it tells that the end has come before it is asked once more.
    pub(crate) tells_end: bool,
    pub(crate) size: SizeHint,
}

impl Script {
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(crate) fn telling_end(mut self) -> Self {
        self.tells_end = true;
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Step::Data(data)) => Some(Ok(Frame::data(data.into()))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail) => Some(Err(io::Error::other("the body fails"))),
            Some(Step::Panic) => panic!("the body panics"),
            Some(Step::Wait) => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.tells_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

/// Makes a service of a function from a request to a response.
pub(crate) fn answer<B, T, F>(
    answer: F,
) -> impl Service<
    Request<T>,
    Response = Response<B>,
    Error = Infallible,
    Future = std::future::Ready<Result<Response<B>, Infallible>>,
> + Clone
where
    F: Fn(Request<T>) -> Response<B> + Clone,
{
    tower::service_fn(move |request| std::future::ready(Ok(answer(request))))
}

/// Sends one request and returns the line.
pub(crate) fn line(
    format: &str,
    configure: impl FnOnce(AccessLogLayer) -> AccessLogLayer,
    request: impl FnOnce(&mut Extensions),
    response: impl Fn(&Extensions, &mut Extensions) + Clone,
) -> String {
    let lines = Lines::default();
    let service = answer(move |request: Request<()>| {
        let mut built = Response::new(Empty::<Bytes>::new());
        response(request.extensions(), built.extensions_mut());
        built
    });
    let mut service = configure(lines.layer(format)).layer(service);
    let mut built = Request::get("/").body(()).unwrap();
    request(built.extensions_mut());
    block_on(service.call(built)).unwrap();
    lines.only()
}

pub(crate) fn of_request(format: &str, request: impl FnOnce(&mut Extensions)) -> String {
    line(format, |layer| layer, request, |_, _| {})
}

pub(crate) fn of_response(format: &str, response: impl Fn(&mut Extensions) + Clone) -> String {
    line(
        format,
        |layer| layer,
        |_| {},
        move |_, extensions| response(extensions),
    )
}

pub(crate) fn configured(
    format: &str,
    configure: impl FnOnce(AccessLogLayer) -> AccessLogLayer,
) -> String {
    line(format, configure, |_| {}, |_, _| {})
}
