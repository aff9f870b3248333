//! What the layer captures of one exchange.

use std::{cell::Cell, mem, net::IpAddr, sync::LazyLock, time::Instant};

use http::{HeaderMap, Uri, Version};

use crate::{
    connection::ConnectionInfo,
    exchange::{ConnectionStatus, Exchange, Outcome},
    facts::{
        ClientHost, Env, Filename, Notes, RemoteUser, RequestId, RequestTrailers, Route, WireBytes,
    },
    fields::{Fields, Named},
    needs::{Needs, Wanted},
    path,
    redaction::Redaction,
    timestamp::Timestamp,
};

/// What the layer captures of one exchange.
///
/// Texts are copied into one buffer, and records are used again, so that
/// capturing allocates nothing once a thread has served a few requests.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The texts, one behind the other.
    arena: Vec<u8>,
    /// Where lines are put together.
    pub(crate) line: Vec<u8>,
    request_headers: Vec<(u16, Text)>,
    cookies: Vec<(u16, Text)>,
    request_trailers: Vec<(u16, Text)>,
    response_headers: Vec<(u16, Text)>,
    response_trailers: Vec<(u16, Text)>,
    /// The rest, which is made anew for every exchange.
    pub(crate) facts: Facts,
}

/// What a [`Record`] holds besides its buffers.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) begin: Timestamp,
    /// Set when durations are measured by the steady clock.
    pub(crate) started: Option<Instant>,
    pub(crate) end: Timestamp,
    pub(crate) first_byte: Option<Timestamp>,

    request_line: Option<Text>,
    method: Text,
    target: Text,
    authority: Option<Text>,
    /// Always captured: how fields are joined and connections kept hangs on it.
    pub(crate) version: Version,
    pub(crate) request_trailers: Option<RequestTrailers>,

    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    pub(crate) outcome: Outcome,
    /// The response's head was seen.
    pub(crate) answered: bool,
    /// How long the response's body is to be.
    pub(crate) expected: Option<u64>,
    pub(crate) connection_status: Option<ConnectionStatus>,

    pub(crate) connection: Option<ConnectionInfo>,
    pub(crate) client: Option<IpAddr>,
    pub(crate) client_host: Option<ClientHost>,
    pub(crate) keepalives: Option<u32>,
    pub(crate) wire_bytes: Option<WireBytes>,
    pub(crate) remote_user: Option<RemoteUser>,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) route: Option<Route>,
    pub(crate) filename: Option<Filename>,
    pub(crate) notes: Option<Notes>,
    pub(crate) env: Option<Env>,
}

/// A text's place in the arena.
#[derive(Debug, Clone, Copy, Default)]
struct Text {
    start: u32,
    end: u32,
}

/// Header fields captured by name: what [`Fields`] reads them from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Captured<'a> {
    names: &'a [Wanted],
    values: &'a [(u16, Text)],
    arena: &'a [u8],
}

impl<'a> Captured<'a> {
    /// Returns the `index`th field.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<(&'a [u8], &'a [u8])> {
        let (name, text) = self.values.get(index)?;
        Some((
            &self.names[usize::from(*name)].text,
            &self.arena[text.start as usize..text.end as usize],
        ))
    }
}

/// The names of `Record::cookies`.
static COOKIE: LazyLock<[Wanted; 1]> = LazyLock::new(|| [Wanted::new(http::header::COOKIE)]);

impl Record {
    /// Takes an empty record, one that this thread has used before if it can.
    pub(crate) fn take() -> Box<Self> {
        let kept = POOL.try_with(|pool| {
            let mut records = pool.take();
            let record = records.pop();
            pool.set(records);
            record
        });
        kept.ok().flatten().unwrap_or_default()
    }

    /// Empties the record and keeps it for another exchange.
    pub(crate) fn give_back(mut self: Box<Self>) {
        if self.arena.capacity().max(self.line.capacity()) > BUFFER_KEPT {
            return;
        }
        self.arena.clear();
        self.line.clear();
        self.request_headers.clear();
        self.cookies.clear();
        self.request_trailers.clear();
        self.response_headers.clear();
        self.response_trailers.clear();
        self.facts = Facts::default();
        // A thread that ends has no use for it.
        let _ = POOL.try_with(|pool| {
            let mut records = pool.take();
            if records.len() < RECORDS_KEPT {
                records.push(self);
            }
            pool.set(records);
        });
    }

    /// Captures the request line, method, target and protocol being parts of it.
    pub(crate) fn capture_request_line(&mut self, method: &[u8], uri: &Uri, redaction: &Redaction) {
        let version = self.facts.version;
        let path = uri.path_and_query().map(http::uri::PathAndQuery::as_str);
        let authority = uri.authority().map(http::uri::Authority::as_str);
        // HTTP/2 and HTTP/3 split the target up; no client sent it in one.
        let split = version >= Version::HTTP_2;
        if split && let Some(authority) = authority {
            self.facts.authority = Some(self.copy(authority.as_bytes()));
        }

        let line = self.arena.len();
        self.facts.method = self.copy(method);
        self.arena.push(b' ');
        let start = self.arena.len();
        match (uri.scheme_str(), authority, path) {
            (Some(scheme), Some(authority), _) if !split => {
                let mut target = mem::take(&mut self.line);
                target.clear();
                for part in [scheme, "://", authority, path.unwrap_or_default()] {
                    target.extend_from_slice(part.as_bytes());
                }
                match path::split_password(&target) {
                    Some((before, after)) => {
                        self.arena.extend_from_slice(before);
                        self.arena.extend_from_slice(b"XXXXXXXX");
                        redaction.write_uri(after, &mut self.arena);
                    }
                    None => redaction.write_uri(&target, &mut self.arena),
                }
                self.line = target;
            }
            (_, _, Some(path)) => redaction.write_uri(path.as_bytes(), &mut self.arena),
            (_, authority, None) => {
                let authority = authority.unwrap_or_default();
                self.arena.extend_from_slice(authority.as_bytes());
            }
        }
        self.facts.target = self.text_from(start);
        // A request in HTTP/0.9 ends with its target.
        if version != Version::HTTP_09 {
            self.arena.push(b' ');
            self.arena.extend_from_slice(protocol(version));
        }
        self.facts.request_line = Some(self.text_from(line));
    }

    /// Captures the request's header fields that are `wanted`.
    pub(crate) fn capture_request_headers(
        &mut self,
        wanted: &[Wanted],
        headers: &HeaderMap,
        redaction: &Redaction,
    ) {
        capture(
            wanted,
            headers,
            &mut self.arena,
            &mut self.request_headers,
            redaction,
        );
    }

    /// Captures the fields that cookies are taken from.
    pub(crate) fn capture_cookies(&mut self, headers: &HeaderMap, redaction: &Redaction) {
        for value in headers.get_all(http::header::COOKIE) {
            let start = self.arena.len();
            redaction.write_cookies(value.as_bytes(), &mut self.arena);
            let text = self.text_from(start);
            self.cookies.push((0, text));
        }
    }

    /// Captures the fields behind the request's body that are `wanted`, if somebody
    /// has set them.
    pub(crate) fn capture_request_trailers(&mut self, wanted: &[Wanted], redaction: &Redaction) {
        if let Some(trailers) = &self.facts.request_trailers
            && let Some(trailers) = trailers.get()
        {
            capture(
                wanted,
                trailers,
                &mut self.arena,
                &mut self.request_trailers,
                redaction,
            );
        }
    }

    /// Captures the response's header fields that are `wanted`.
    pub(crate) fn capture_response_headers(
        &mut self,
        wanted: &[Wanted],
        headers: &HeaderMap,
        redaction: &Redaction,
    ) {
        capture(
            wanted,
            headers,
            &mut self.arena,
            &mut self.response_headers,
            redaction,
        );
    }

    /// Captures the fields behind the response's body that are `wanted`.
    pub(crate) fn capture_response_trailers(
        &mut self,
        wanted: &[Wanted],
        trailers: &HeaderMap,
        redaction: &Redaction,
    ) {
        capture(
            wanted,
            trailers,
            &mut self.arena,
            &mut self.response_trailers,
            redaction,
        );
    }

    fn copy(&mut self, text: &[u8]) -> Text {
        let start = self.arena.len();
        self.arena.extend_from_slice(text);
        self.text_from(start)
    }

    fn text_from(&self, start: usize) -> Text {
        Text {
            start: start as u32,
            end: self.arena.len() as u32,
        }
    }

    fn text(&self, text: Text) -> &[u8] {
        &self.arena[text.start as usize..text.end as usize]
    }

    /// Returns what was captured, with what the server says of itself.
    pub(crate) fn exchange<'a>(
        &'a self,
        needs: &'a Needs,
        notes: &'a [Named],
        env: &'a [Named],
    ) -> Exchange<'a> {
        let captured = |names: &'a [Wanted], values: &'a [(u16, Text)]| {
            Fields::captured(Captured {
                names,
                values,
                arena: &self.arena,
            })
        };
        let facts = &self.facts;
        let connection = facts.connection.as_ref();
        Exchange {
            begin: facts.begin,
            end: facts.end,
            first_byte: facts.first_byte,
            request_line: facts.request_line.map(|line| self.text(line)),
            method: self.text(facts.method),
            target: self.text(facts.target),
            authority: facts.authority.map(|authority| self.text(authority)),
            protocol: protocol(facts.version),
            request_headers: captured(&needs.request_headers, &self.request_headers),
            cookies: Some(captured(&*COOKIE, &self.cookies)),
            request_trailers: captured(&needs.request_trailers, &self.request_trailers),
            status: facts.status,
            response_headers: captured(&needs.response_headers, &self.response_headers),
            response_trailers: captured(&needs.response_trailers, &self.response_trailers),
            body_bytes: facts.body_bytes,
            outcome: facts.outcome,
            connection_status: facts.connection_status,
            peer: connection.and_then(|connection| connection.peer),
            local: connection.and_then(|connection| connection.local),
            client: facts.client,
            client_host: facts.client_host.as_ref().map(ClientHost::as_bytes),
            peer_host: connection.and_then(ConnectionInfo::peer_host),
            keepalives: facts.keepalives,
            tls: connection.and_then(ConnectionInfo::tls_fields),
            bytes_received: facts.wire_bytes.as_ref().map(WireBytes::received),
            bytes_sent: facts.wire_bytes.as_ref().map(WireBytes::sent),
            remote_user: facts.remote_user.as_ref().map(RemoteUser::as_bytes),
            env: Fields::owned(env),
            notes: Fields::owned(notes),
            request_id: facts.request_id.as_ref().map(RequestId::as_bytes),
            connection_id: connection.and_then(ConnectionInfo::connection_id),
            handler: facts.route.as_ref().map(Route::as_bytes),
            filename: facts.filename.as_ref().map(Filename::as_bytes),
            ..Exchange::default()
        }
    }
}

fn capture(
    wanted: &[Wanted],
    headers: &HeaderMap,
    arena: &mut Vec<u8>,
    captured: &mut Vec<(u16, Text)>,
    redaction: &Redaction,
) {
    for (index, wanted) in wanted.iter().enumerate() {
        for value in headers.get_all(&wanted.name) {
            let start = arena.len() as u32;
            redaction.write_header(wanted.mask, value.as_bytes(), arena);
            let end = arena.len() as u32;
            captured.push((index as u16, Text { start, end }));
        }
    }
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_09 => b"HTTP/0.9",
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        Version::HTTP_3 => b"HTTP/3.0",
        _ => b"HTTP/1.1",
    }
}

/// A record whose buffers grew beyond this is freed rather than kept.
const BUFFER_KEPT: usize = 64 * 1024;

/// How many records a thread keeps.
const RECORDS_KEPT: usize = 64;

thread_local! {
    /// Taken out while in use, so that nothing can find it borrowed.
    #[expect(clippy::vec_box, reason = "a record moves with its future; a box makes that cheap")]
    static POOL: Cell<Vec<Box<Record>>> = const { Cell::new(Vec::new()) };
}
