//! A sink that keeps its lines, and a body that does what it is told.

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
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

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
) -> impl tower::Service<
    http::Request<T>,
    Response = http::Response<B>,
    Error = Infallible,
    Future = std::future::Ready<Result<http::Response<B>, Infallible>>,
> + Clone
where
    F: Fn(http::Request<T>) -> http::Response<B> + Clone,
{
    tower::service_fn(move |request| std::future::ready(Ok(answer(request))))
}
