//! One request, one story: the same id in its access line, in the lines of its
//! statements, in the program's own log and in its answer, and what its
//! statements came to in the access line.

use std::sync::Arc;
use std::time::Duration;

use apache_logformat::{AccessLogLayer, Env, Notes, RequestId, TrustedProxies};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use graceful_listener::Endpoints;
use http::{HeaderName, HeaderValue};
use sql_trace::{QueryStats, QueryStatsLayer, trace_scope};
use tracing::{Instrument, info_span};

/// The combined format with a request's story behind it: its id, the
/// generation that answered, its time in microseconds, how many statements it
/// ran, the time of all of them and of the slowest.
pub const STORY: &str = "%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-agent}i\" \
     %L %{generation}e %D %{sql_count}n %{sql_time_us}n %{sql_slowest_us}n";

/// The same as a JSON object, for a format that escapes as JSON does.
pub const STORY_JSON: &str = "{\"time\":\"%{%Y-%m-%dT%H:%M:%S}t.%{usec_frac}t%{%z}t\",\
     \"request\":\"%L\",\"generation\":%{generation}e,\"client\":\"%a\",\"host\":\"%{Host}i\",\
     \"method\":\"%m\",\"path\":\"%U%q\",\"protocol\":\"%H\",\"status\":%>s,\"bytes\":%B,\
     \"duration_us\":%D,\"referer\":\"%{Referer}i\",\"user_agent\":\"%{User-agent}i\",\
     \"sql_count\":%{sql_count}n,\"sql_time_us\":%{sql_time_us}n,\
     \"sql_wait_us\":%{sql_wait_us}n,\"sql_slowest_us\":%{sql_slowest_us}n}";

/// Tells the story of each request.
#[derive(Clone, Debug)]
pub struct Storyteller {
    trusted: TrustedProxies,
    generation: u64,
    env: Env,
}

impl Storyteller {
    /// Believes `X-Request-Id` where the peer is one of `trusted`; `generation`
    /// is the process's own.
    #[must_use]
    pub fn new(trusted: TrustedProxies, generation: u64) -> Self {
        let env = Env::new();
        env.set("generation", generation.to_string());
        Self {
            trusted,
            generation,
            env,
        }
    }

    /// Wraps a router so that each request has an id and is logged with it.
    ///
    /// The answer has the id in its header `X-Request-Id`. A format can print it
    /// (`%L`), the generation (`%{generation}e`), and these notes:
    ///
    /// | directive | value |
    /// | --- | --- |
    /// | `%{sql_count}n` | how many statements the request ran |
    /// | `%{sql_time_us}n` | how long the database took for them, in microseconds |
    /// | `%{sql_wait_us}n` | how long the request waited for connections |
    /// | `%{sql_slowest_us}n` | how long the slowest of them took |
    pub fn tell(self, router: Router, access_log: AccessLogLayer) -> Router {
        router
            .layer(QueryStatsLayer::new())
            .layer(from_fn(sum_up))
            .layer(access_log)
            .layer(from_fn_with_state(Arc::new(self), begin))
    }

    fn id(&self, request: &Request) -> HeaderValue {
        let given = request.headers().get(&REQUEST_ID);
        let peer = request.extensions().get::<Endpoints>();
        let peer = peer.and_then(|ends| Some(ends.peer().as_inet()?.ip()));
        match given.filter(|id| is_usable(id)) {
            Some(id) if peer.is_some_and(|peer| self.trusted.contains(peer)) => id.clone(),
            _ => new_id(),
        }
    }
}

async fn begin(
    State(teller): State<Arc<Storyteller>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = teller.id(&request);
    let text = id.to_str().unwrap_or_default();
    let extensions = request.extensions_mut();
    extensions.insert(RequestId::from(text));
    extensions.insert(trace_scope(text));
    extensions.insert(teller.env.clone());
    extensions.insert(Notes::new());
    let span = info_span!("request", id = text, generation = teller.generation);
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

async fn sum_up(request: Request, next: Next) -> Response {
    let _sum = Sum {
        stats: request.extensions().get().cloned(),
        notes: request.extensions().get().cloned(),
    };
    next.run(request).await
}

/// Notes what the statements came to when it is dropped, so that it is noted
/// for a request that nobody waited for, too.
struct Sum {
    stats: Option<QueryStats>,
    notes: Option<Notes>,
}

impl Drop for Sum {
    fn drop(&mut self) {
        let (Some(stats), Some(notes)) = (&self.stats, &self.notes) else {
            return;
        };
        let slowest = stats.slowest().map_or(Duration::ZERO, |(time, _)| time);
        notes.set("sql_count", stats.statements().to_string());
        for (name, time) in [
            ("sql_time_us", stats.elapsed()),
            ("sql_wait_us", stats.acquire()),
            ("sql_slowest_us", slowest),
        ] {
            notes.set(name, time.as_micros().to_string());
        }
    }
}

/// Whether an id from elsewhere can stand in a log as it is.
fn is_usable(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    (1..=LONGEST).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn new_id() -> HeaderValue {
    // Without random numbers a request still has a right to its answer.
    let id = getrandom::u64().unwrap_or_default();
    HeaderValue::try_from(format!("{id:016x}")).unwrap_or(HeaderValue::from_static("-"))
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LONGEST: usize = 128;
