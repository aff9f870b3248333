//! An exchange as one structured event.

use std::borrow::Cow;

use tracing::Level;

use crate::{
    exchange::{Exchange, Outcome},
    host, path,
};

/// Emits `exchange` as an event of the target `access_log`.
pub(crate) fn emit(exchange: &Exchange<'_>) {
    let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    let host = exchange.named_host();
    let named = host.and_then(host::name);
    let port = host.and_then(|host| host::split_port(host)?.1);
    let (path, query) = path::split(exchange.method, exchange.target);

    let facts = Facts {
        method: String::from_utf8_lossy(exchange.method),
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
    };
    // The level has to be a constant.
    if exchange.status >= 500 {
        facts.emit_error();
    } else {
        facts.emit_info();
    }
}

struct Facts<'a> {
    method: Cow<'a, str>,
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

macro_rules! emit {
    ($name:ident, $level:expr) => {
        fn $name(&self) {
            tracing::event!(
                target: "access_log",
                $level,
                http.request.method = &*self.method,
                url.path = &*self.path,
                url.query = self.query.as_deref(),
                url.scheme = self.scheme,
                http.response.status_code = self.status,
                http.route = self.route.as_deref(),
                network.protocol.name = "http",
                network.protocol.version = self.version.as_deref(),
                client.address = self.client.as_deref(),
                network.peer.address = self.peer.as_deref(),
                network.peer.port = self.peer_port,
                server.address = self.server.as_deref(),
                server.port = self.server_port,
                user_agent.original = self.user_agent.as_deref(),
                "error.type" = self.error.as_deref(),
                duration_us = self.duration,
                response_body_bytes = self.body_bytes,
            );
        }
    };
}

impl Facts<'_> {
    emit!(emit_info, Level::INFO);
    emit!(emit_error, Level::ERROR);
}
