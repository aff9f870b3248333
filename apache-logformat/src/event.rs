//! An exchange as one structured event.

use std::{borrow::Cow, cell::LazyCell};

use tracing::Level;

use crate::{
    exchange::{Exchange, Outcome},
    host, path,
};

macro_rules! emit {
    ($level:expr, $facts:ident) => {
        tracing::event!(
            target: TARGET,
            $level,
            http.request.method = &*$facts.method,
            http.request.method_original = $facts.method_original.as_deref(),
            url.path = &*$facts.path,
            url.query = $facts.query.as_deref(),
            url.scheme = $facts.scheme,
            http.response.status_code = $facts.status,
            http.route = $facts.route.as_deref(),
            network.protocol.name = "http",
            network.protocol.version = $facts.version.as_deref(),
            client.address = $facts.client.as_deref(),
            network.peer.address = $facts.peer.as_deref(),
            network.peer.port = $facts.peer_port,
            server.address = $facts.server.as_deref(),
            server.port = $facts.server_port,
            user_agent.original = $facts.user_agent.as_deref(),
            "error.type" = $facts.error.as_deref(),
            duration_us = $facts.duration,
            response_body_bytes = $facts.body_bytes,
        );
    };
}

/// Emits `exchange` as an event of the target `access_log`, if anybody listens.
pub(crate) fn emit(exchange: &Exchange<'_>) {
    // Made when the event asks for its fields: not when nobody listens.
    let facts = LazyCell::new(|| Facts::new(exchange));
    // The level of an event has to be a constant.
    if exchange.status >= 500 {
        emit!(Level::ERROR, facts);
    } else {
        emit!(Level::INFO, facts);
    }
}

struct Facts<'a> {
    method: Cow<'a, str>,
    /// The method when it is none that OpenTelemetry knows.
    method_original: Option<Cow<'a, str>>,
    path: Cow<'a, str>,
    query: Option<String>,
    scheme: &'static str,
    status: Option<u16>,
    route: Option<String>,
    version: Option<String>,
    client: Option<String>,
    peer: Option<String>,
    peer_port: Option<u16>,
    server: Option<String>,
    server_port: Option<u16>,
    user_agent: Option<String>,
    error: Option<Cow<'static, str>>,
    duration: i64,
    body_bytes: u64,
}

impl<'a> Facts<'a> {
    fn new(exchange: &Exchange<'a>) -> Self {
        let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let named = exchange.host_name();
        let port = exchange
            .named_host()
            .and_then(|host| host::split_port(host).1);
        let (path, query) = path::split(exchange.method, exchange.target);

        let method = String::from_utf8_lossy(exchange.method);
        let (method, method_original) = if METHODS.contains(&exchange.method) {
            (method, None)
        } else {
            ("_OTHER".into(), Some(method))
        };

        Self {
            method,
            method_original,
            path: String::from_utf8_lossy(path),
            query: query.map(text),
            scheme: if exchange.tls.is_some() {
                "https"
            } else {
                "http"
            },
            status: (exchange.status != 0).then_some(exchange.status),
            route: exchange.handler.map(text),
            // As OpenTelemetry spells them.
            version: exchange
                .protocol
                .strip_prefix(b"HTTP/")
                .map(|version| match version {
                    b"2.0" => "2".into(),
                    b"3.0" => "3".into(),
                    _ => text(version),
                }),
            client: exchange
                .client_ip()
                .map(|address| address.to_canonical().to_string()),
            peer: exchange
                .peer_ip()
                .map(|address| address.to_canonical().to_string()),
            peer_port: exchange.peer.map(|peer| peer.port()),
            server: named.or(exchange.server_name).map(text),
            server_port: port
                .and_then(|port| std::str::from_utf8(port).ok()?.parse().ok())
                .or(exchange.server_port)
                .or_else(|| exchange.local.map(|local| local.port())),
            user_agent: exchange.request_headers.get("user-agent").map(text),
            error: match exchange.outcome {
                Outcome::Complete if exchange.status < 500 => None,
                Outcome::Complete => Some(Cow::Owned(exchange.status.to_string())),
                Outcome::AbortedBeforeHead => Some("aborted_before_head".into()),
                Outcome::AbortedInBody => Some("aborted_in_body".into()),
                Outcome::BodyError => Some("body_error".into()),
                Outcome::ServiceError => Some("service_error".into()),
                Outcome::Panic => Some("panic".into()),
            },
            duration: exchange.end.micros_since(exchange.begin),
            body_bytes: exchange.body_bytes,
        }
    }
}

const TARGET: &str = "access_log";

/// The methods that OpenTelemetry knows; others it calls `_OTHER`, so that nobody
/// can make up values without end.
const METHODS: &[&[u8]] = &[
    b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"QUERY",
    b"TRACE",
];
