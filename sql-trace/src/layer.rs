use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::scope::{InScope, QueryStats, trace_scope};

/// Gives each request a [`QueryStats`] of its own, in which its statements are
/// counted and which puts the request's id into each [`Event`](crate::Event).
///
/// The id is the header `x-request-id`, or else a number. Where others find the
/// counts:
///
/// - the handler, in the request's extensions and by [`QueryStats::current`];
/// - layers outside of this one, in the response's extensions. A layer that
///   logs when the body has ended reads the counts then;
/// - a layer outside that puts a [`QueryStats`] of its own into the request's
///   extensions keeps it: it is used instead of a new one.
///
/// Both the service's future and the response's body are polled in the scope,
/// so that statements run by a streaming body are counted as well.
///
/// # Examples
///
/// ```
/// use sql_trace::QueryStatsLayer;
///
/// let layer = QueryStatsLayer::new()
///     .warn_repeats(20)
///     .id(|headers| Some(headers.get("traceparent")?.to_str().ok()?.to_owned()));
/// # let _ = layer;
/// ```
#[derive(Clone)]
pub struct QueryStatsLayer {
    id: FindId,
    repeat_limit: Option<u64>,
}

type FindId = Arc<dyn Fn(&HeaderMap) -> Option<String> + Send + Sync>;

impl QueryStatsLayer {
    /// Makes the layer.
    #[must_use]
    pub fn new() -> Self {
        Self {
            id: Arc::new(request_id),
            repeat_limit: Some(10),
        }
    }

    /// Sets where a request's id is found. A request without one is numbered.
    #[must_use]
    pub fn id<F>(mut self, id: F) -> Self
    where
        F: Fn(&HeaderMap) -> Option<String> + Send + Sync + 'static,
    {
        self.id = Arc::new(id);
        self
    }

    /// As [`QueryStats::warn_repeats`].
    #[must_use]
    pub fn warn_repeats(mut self, above: impl Into<Option<u64>>) -> Self {
        self.repeat_limit = above.into();
        self
    }

    fn scope(&self, headers: &HeaderMap) -> QueryStats {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id =
            (self.id)(headers).unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        trace_scope(id).warn_repeats(self.repeat_limit)
    }
}

/// The header's value, if it is short and can be seen.
fn request_id(headers: &HeaderMap) -> Option<String> {
    const LONGEST: usize = 128;
    let id = headers.get("x-request-id")?.to_str().ok()?;
    (!id.is_empty() && id.len() <= LONGEST).then(|| id.to_owned())
}

impl Default for QueryStatsLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for QueryStatsLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryStatsLayer")
            .field("repeat_limit", &self.repeat_limit)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for QueryStatsLayer {
    type Service = QueryStatsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        QueryStatsService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`QueryStatsLayer`] makes.
#[derive(Clone, Debug)]
pub struct QueryStatsService<S> {
    inner: S,
    layer: QueryStatsLayer,
}

impl<S, B, R> Service<Request<B>> for QueryStatsService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<QueryStatsBody<R>>;
    type Error = S::Error;
    type Future = QueryStatsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let stats = match request.extensions().get::<QueryStats>() {
            Some(stats) => stats.clone(),
            None => {
                let stats = self.layer.scope(request.headers());
                request.extensions_mut().insert(stats.clone());
                stats
            }
        };
        let entered = stats.enter();
        let future = self.inner.call(request);
        drop(entered);
        QueryStatsFuture {
            future: stats.run(future),
            stats,
        }
    }
}

pin_project! {
    /// The future of [`QueryStatsService`].
    #[derive(Debug)]
    pub struct QueryStatsFuture<F> {
        #[pin]
        future: InScope<F>,
        stats: QueryStats,
    }
}

impl<F, R, E> Future for QueryStatsFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<QueryStatsBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        response.extensions_mut().insert(this.stats.clone());
        Poll::Ready(Ok(response.map(|body| QueryStatsBody {
            body: this.stats.hold(body),
        })))
    }
}

pin_project! {
    /// The response body of [`QueryStatsService`], polled and dropped in its
    /// request's scope.
    #[derive(Debug)]
    pub struct QueryStatsBody<B> {
        #[pin]
        body: InScope<B>,
    }
}

impl<B: Body> Body for QueryStatsBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_held(|body| body.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.get().is_some_and(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.get().map(B::size_hint).unwrap_or_default()
    }
}
