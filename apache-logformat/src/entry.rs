//! The one line of a request, not written yet.

use std::{
    mem,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Instant,
};

use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body::Body;

use crate::{
    config::Config,
    connection::ConnectionInfo,
    exchange::{ConnectionStatus, Outcome},
    facts::{
        ClientHost, ClientIp, Env, Filename, Notes, RemoteUser, RequestId, RequestTrailers, Route,
        WireBytes,
    },
    record::Record,
    timestamp::Timestamp,
};

/// The one line of a request, not written yet.
///
/// Whatever becomes of the request, this is finished exactly once: by what ends
/// the response, or by being dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    config: Arc<Config>,
    /// Taken by finishing.
    record: Option<Box<Record>>,
    method: Kind,
}

/// What a method means for the response's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Head,
    Connect,
    Other,
}

impl Entry {
    /// Captures what `request` tells.
    pub(crate) fn new<B>(config: &Arc<Config>, request: &mut Request<B>) -> Self {
        let mut record = Record::take();
        let needs = &config.needs;
        if needs.begin {
            record.facts.begin = config.now();
        }
        record.facts.version = request.version();
        if config.clock.is_none() && (needs.end || needs.first_byte) {
            record.facts.started = Some(Instant::now());
        }
        if needs.request_line {
            record.capture_request_line(
                request.method().as_str().as_bytes(),
                request.uri(),
                &config.redaction,
            );
        }
        record.capture_request_headers(
            &needs.request_headers,
            request.headers(),
            &config.redaction,
        );
        if needs.cookies {
            record.capture_cookies(request.headers(), &config.redaction);
        }
        if needs.connection {
            capture_connection(&mut record, config, request.extensions(), request.headers());
        }
        capture_facts(&mut record, config, request.extensions());
        add_tables(&mut record, config, request.extensions_mut());
        let method = match *request.method() {
            Method::HEAD => Kind::Head,
            Method::CONNECT => Kind::Connect,
            _ => Kind::Other,
        };
        Self {
            config: Arc::clone(config),
            record: Some(record),
            method,
        }
    }

    /// Captures what the head of `response` tells; finishes when nothing follows.
    pub(crate) fn answer<B: Body>(&mut self, response: &Response<B>) {
        let Some(record) = &mut self.record else {
            return;
        };
        let needs = &self.config.needs;
        record.facts.answered = true;
        record.facts.status = response.status().as_u16();
        if needs.first_byte {
            record.facts.first_byte =
                Some(self.config.later(record.facts.begin, record.facts.started));
        }
        record.capture_response_headers(
            &needs.response_headers,
            response.headers(),
            &self.config.redaction,
        );
        capture_facts(record, &self.config, response.extensions());

        let status = response.status();
        let bodiless = self.method == Kind::Head
            || matches!(
                status,
                StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        if bodiless || response.body().is_end_stream() {
            record.facts.expected = Some(0);
            self.finish(Outcome::Complete);
            return;
        }
        record.facts.expected = if self.method == Kind::Connect && status.is_success() {
            // The connection becomes a tunnel; a server leaves the body alone.
            Some(0)
        } else {
            let length = response.headers().get(header::CONTENT_LENGTH);
            length
                .and_then(|length| length.to_str().ok()?.parse().ok())
                .or_else(|| response.body().size_hint().exact())
        };
    }

    /// Counts bytes of the response's body.
    pub(crate) fn count(&mut self, bytes: usize) {
        if let Some(record) = &mut self.record {
            record.facts.body_bytes += bytes as u64;
        }
    }

    /// Captures the fields behind the response's body.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(record) = &mut self.record {
            let names = &self.config.needs.response_trailers;
            record.capture_response_trailers(names, trailers, &self.config.redaction);
        }
    }

    /// Writes the line.
    pub(crate) fn finish(&mut self, outcome: Outcome) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        let config = &*self.config;
        record.facts.outcome = outcome;
        if !record.facts.answered {
            record.facts.status = match outcome {
                Outcome::AbortedBeforeHead => config.aborted_status,
                _ => 500,
            };
        }
        // A client of HTTP/1.0 finds the end of a body by the connection's end, unless it
        // was told the length.
        let unbounded = record.facts.answered && record.facts.expected.is_none();
        if unbounded && outcome == Outcome::Complete && record.facts.version <= Version::HTTP_10 {
            let status = &mut record.facts.connection_status;
            status.get_or_insert(ConnectionStatus::Close);
        }
        record.facts.end = if config.needs.end {
            config.later(record.facts.begin, record.facts.started)
        } else {
            record.facts.begin
        };
        record.capture_request_trailers(&config.needs.request_trailers, &config.redaction);
        let mut line = mem::take(&mut record.line);
        {
            let notes = record.facts.notes.as_ref().map(Notes::lock);
            let env = record.facts.env.as_ref().map(Env::lock);
            let mut exchange = record.exchange(
                &config.needs,
                notes.as_deref().map_or(&[], Vec::as_slice),
                env.as_deref().map_or(&[], Vec::as_slice),
            );
            config.log(&mut exchange, &mut line);
        }
        record.line = line;
        record.give_back();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(record) = &self.record else {
            return;
        };
        // A consumer that knows the length stops asking when it has everything.
        let facts = &record.facts;
        let complete = facts.expected == Some(facts.body_bytes);
        let answered = facts.answered;
        self.finish(if thread::panicking() {
            Outcome::Panic
        } else if !answered {
            Outcome::AbortedBeforeHead
        } else if complete {
            Outcome::Complete
        } else {
            Outcome::AbortedInBody
        });
    }
}

/// Finishes an entry when what it guards panics.
///
/// The panic goes on. The one who catches it will drop the future or the body
/// later, and nothing would tell that from a client that went away.
pub(crate) struct PanicGuard<'a>(&'a mut Option<Entry>);

impl<'a> PanicGuard<'a> {
    pub(crate) fn new(entry: &'a mut Option<Entry>) -> Self {
        Self(entry)
    }

    /// Lets the entry be: what was guarded did not panic.
    pub(crate) fn disarm(self) {
        mem::forget(self);
    }
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if let Some(mut entry) = self.0.take() {
            entry.finish(Outcome::Panic);
        }
    }
}

impl Config {
    /// Reads the clock.
    fn now(&self) -> Timestamp {
        let told = self.clock.as_ref().and_then(|clock| shielded(|| clock()));
        told.unwrap_or_else(Timestamp::now)
    }

    /// Reads the clock again; without one of its own the layer counts on from
    /// `begin` by the steady clock, which nobody sets.
    fn later(&self, begin: Timestamp, started: Option<Instant>) -> Timestamp {
        match started {
            Some(started) => begin.after(started.elapsed()),
            None => self.now(),
        }
    }
}

/// Calls the service's code; a panic in it must not reach the request.
fn shielded<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

fn capture_connection(
    record: &mut Record,
    config: &Config,
    extensions: &Extensions,
    headers: &HeaderMap,
) {
    record.facts.connection = match &config.connection {
        Some(connection) => shielded(|| connection(extensions)).flatten(),
        None => None,
    }
    .or_else(|| extensions.get::<ConnectionInfo>().cloned())
    .or_else(|| connect_info(extensions));
    let connection = record.facts.connection.as_ref();
    if config.needs.keepalives {
        record.facts.keepalives = connection.and_then(ConnectionInfo::next_request);
    }
    if config.needs.client {
        record.facts.client = match extensions.get::<ClientIp>() {
            Some(client) => Some(client.address()),
            None => proxies_client(config, connection, headers),
        };
    }
}

/// Returns the client that trusted proxies tell of.
fn proxies_client(
    config: &Config,
    connection: Option<&ConnectionInfo>,
    headers: &HeaderMap,
) -> Option<IpAddr> {
    let peer = connection?.peer?.ip();
    Some(config.proxies.as_ref()?.client(peer, headers))
}

#[cfg(feature = "axum")]
fn connect_info(extensions: &Extensions) -> Option<ConnectionInfo> {
    use axum::extract::ConnectInfo;

    let ConnectInfo(peer) = extensions.get::<ConnectInfo<std::net::SocketAddr>>()?;
    Some(ConnectionInfo::new(*peer))
}

#[cfg(not(feature = "axum"))]
fn connect_info(_: &Extensions) -> Option<ConnectionInfo> {
    None
}

/// Captures facts that are extensions of a request or, later, of its response.
fn capture_facts(record: &mut Record, config: &Config, extensions: &Extensions) {
    if extensions.is_empty() {
        return;
    }
    let needs = &config.needs;
    if needs.remote_user {
        keep::<RemoteUser>(&mut record.facts.remote_user, extensions);
    }
    if needs.request_id {
        keep::<RequestId>(&mut record.facts.request_id, extensions);
    }
    if needs.filename {
        keep::<Filename>(&mut record.facts.filename, extensions);
    }
    if needs.client_host {
        keep::<ClientHost>(&mut record.facts.client_host, extensions);
    }
    if needs.wire_bytes {
        keep::<WireBytes>(&mut record.facts.wire_bytes, extensions);
    }
    if needs.connection_status {
        keep::<ConnectionStatus>(&mut record.facts.connection_status, extensions);
    }
    if needs.route {
        keep::<Route>(&mut record.facts.route, extensions);
        #[cfg(feature = "axum")]
        if record.facts.route.is_none()
            && let Some(path) = extensions.get::<axum::extract::MatchedPath>()
        {
            record.facts.route = Some(Route::new(path.as_str()));
        }
    }
}

fn keep<T: Clone + Send + Sync + 'static>(kept: &mut Option<T>, extensions: &Extensions) {
    if let Some(fact) = extensions.get::<T>() {
        *kept = Some(fact.clone());
    }
}

/// Gives the request the tables that formats print, unless it has them.
fn add_tables(record: &mut Record, config: &Config, extensions: &mut Extensions) {
    let needs = &config.needs;
    if needs.notes {
        record.facts.notes = Some(extensions.get_or_insert_default::<Notes>().clone());
    }
    if needs.env {
        record.facts.env = Some(extensions.get_or_insert_default::<Env>().clone());
    }
    if !needs.request_trailers.is_empty() {
        let trailers = extensions.get_or_insert_default::<RequestTrailers>();
        record.facts.request_trailers = Some(trailers.clone());
    }
}
