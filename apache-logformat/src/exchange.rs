//! The facts of one request and its response.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::{fields::Fields, path, timestamp::Timestamp};

/// The facts of one request and its response, as bytes.
///
/// This is what a [`LogFormat`](crate::LogFormat) prints and what a filter
/// decides on. The layer fills it in; a server without tower fills it in itself.
/// A fact left at its default is unknown and prints as `-`.
///
/// # Examples
///
/// ```
/// use apache_logformat::{Exchange, Fields, LogFormat, Timestamp, Zone};
///
/// let mut exchange = Exchange::default();
/// exchange.begin = Timestamp::from_micros(971_211_336_000_000);
/// exchange.peer = Some(([127, 0, 0, 1], 51234).into());
/// exchange.remote_user = Some(b"frank");
/// exchange.method = b"GET";
/// exchange.target = b"/apache_pb.gif";
/// exchange.protocol = b"HTTP/1.0";
/// exchange.status = 200;
/// exchange.body_bytes = 2326;
///
/// let format = LogFormat::common().with_zone(Zone::fixed(-7 * 3600, "PDT"));
/// let mut line = Vec::new();
/// format.write(&exchange, &mut line);
/// assert_eq!(
///     String::from_utf8_lossy(&line),
///     "127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] \"GET /apache_pb.gif HTTP/1.0\" 200 2326\n",
/// );
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Exchange<'a> {
    /// When the request began.
    pub begin: Timestamp,
    /// When the response ended.
    pub end: Timestamp,
    /// When the response's head was ready (`%^FB`).
    pub first_byte: Option<Timestamp>,

    /// The request line as received; put together from the method, the target
    /// and the protocol when this is `None`.
    pub request_line: Option<&'a [u8]>,
    /// The method; empty when no valid request line was read.
    pub method: &'a [u8],
    /// The request target as received, not decoded; empty when none was read.
    ///
    /// A path with its query, an absolute URI, an authority (`CONNECT`) or `*`.
    pub target: &'a [u8],
    /// The authority of an HTTP/2 or HTTP/3 request (`:authority`).
    pub authority: Option<&'a [u8]>,
    /// The path as `%U` prints it, when it is not to be derived from the target.
    pub path: Option<&'a [u8]>,
    /// The protocol, such as `HTTP/1.1`.
    pub protocol: &'a [u8],
    /// The request's header fields.
    pub request_headers: Fields<'a>,
    /// The `Cookie` fields that `%{NAME}C` searches, when they are not those of
    /// the request's header: the layer masks these apart from the others.
    pub cookies: Option<Fields<'a>>,
    /// The fields behind the request's body.
    pub request_trailers: Fields<'a>,

    /// The status code; 0 when there was no response.
    pub status: u16,
    /// The response's header fields.
    pub response_headers: Fields<'a>,
    /// The fields behind the response's body.
    pub response_trailers: Fields<'a>,
    /// Bytes of the response's body, before any chunk framing.
    pub body_bytes: u64,
    /// How the response ended.
    pub outcome: Outcome,
    /// What becomes of the connection (`%X`), when it is not to be derived from
    /// the outcome, the protocol and the `Connection` header fields.
    pub connection_status: Option<ConnectionStatus>,

    /// The address and port at the other end of the connection.
    pub peer: Option<SocketAddr>,
    /// The address and port of this end.
    pub local: Option<SocketAddr>,
    /// The client's address, when trusted proxies stand between it and the peer.
    pub client: Option<IpAddr>,
    /// The client's name (`%h`), when it was looked up.
    pub client_host: Option<&'a [u8]>,
    /// The peer's name (`%{c}h`), when it was looked up.
    pub peer_host: Option<&'a [u8]>,
    /// Requests served on the connection before this one (`%k`).
    pub keepalives: Option<u32>,
    /// Variables of mod_ssl, such as `SSL_PROTOCOL` (`%{SSL_PROTOCOL}x`).
    pub tls: Option<Fields<'a>>,
    /// Bytes received for this request, head and framing included (`%I`).
    pub bytes_received: Option<u64>,
    /// Bytes sent for this request, head and framing included (`%O`).
    pub bytes_sent: Option<u64>,

    /// The server's own name (`%v`), httpd's `ServerName`.
    pub server_name: Option<&'a [u8]>,
    /// The server's own port (`%p`); when it is `None` and the name is not, 80,
    /// or 443 over TLS.
    pub server_port: Option<u16>,
    /// Whether `%V` prints the server's own name rather than the request's, as
    /// httpd's `UseCanonicalName On`.
    pub use_canonical_name: bool,
    /// The process (`%P`).
    pub process_id: Option<u32>,
    /// The thread (`%{tid}P`).
    pub thread_id: Option<u64>,

    /// The authenticated user (`%u`).
    pub remote_user: Option<&'a [u8]>,
    /// The environment of the request (`%{NAME}e`).
    pub env: Fields<'a>,
    /// Notes of the request (`%{NAME}n`).
    pub notes: Fields<'a>,
    /// The request's id (`%L`).
    pub request_id: Option<&'a [u8]>,
    /// The connection's id (`%{c}L`).
    pub connection_id: Option<&'a [u8]>,
    /// The handler that produced the response (`%R`): a route, in a service.
    pub handler: Option<&'a [u8]>,
    /// The file that was served (`%f`).
    pub filename: Option<&'a [u8]>,
    /// How many exchanges this line stands for, when lines are sampled
    /// (`%{sample_weight}n`).
    pub weight: Option<u32>,
}

impl<'a> Exchange<'a> {
    /// Returns the time from the request's begin to the response's end; zero
    /// when the clock was set back in between.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let micros = self.end.micros_since(self.begin);
        Duration::from_micros(micros.try_into().unwrap_or(0))
    }

    /// Returns the request's path, decoded and resolved as `%U` prints it.
    #[must_use]
    pub fn path(&self) -> Cow<'a, [u8]> {
        if let Some(path) = self.path {
            return path.into();
        }
        let (raw, _) = path::split(self.method, self.target);
        if path::is_resolved(raw) {
            return raw.into();
        }
        let mut path = Vec::new();
        path::write(self.method, self.target, &mut path);
        path.into()
    }

    /// Returns the request's query, as received and without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a [u8]> {
        path::split(self.method, self.target).1
    }

    /// Returns the fields that cookies are searched in.
    pub(crate) fn cookie_fields(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.cookies
            .unwrap_or(self.request_headers)
            .get_all("cookie")
    }

    /// Returns the client's address: behind trusted proxies what they say, else
    /// the peer's.
    #[must_use]
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.client.or_else(|| self.peer_ip())
    }

    pub(crate) fn peer_ip(&self) -> Option<IpAddr> {
        Some(self.peer?.ip())
    }

    /// Returns what becomes of the connection, as `%X` tells it.
    pub(crate) fn connection_status(&self) -> ConnectionStatus {
        if let Some(status) = self.connection_status {
            return status;
        }
        if self.outcome != Outcome::Complete {
            return ConnectionStatus::Aborted;
        }
        // Behind the switch to another protocol, or to a tunnel, there are no requests.
        let is_tunnel = self.method == b"CONNECT" && (200..300).contains(&self.status);
        if is_tunnel || self.status == 101 {
            return ConnectionStatus::Close;
        }
        let says = |fields: &Fields<'_>, option: &[u8]| {
            fields.get_all("connection").any(|value| {
                value
                    .split(|&byte| byte == b',')
                    .any(|token| token.trim_ascii().eq_ignore_ascii_case(option))
            })
        };
        let either_closes =
            says(&self.request_headers, b"close") || says(&self.response_headers, b"close");
        let keeps = match self.protocol {
            b"HTTP/1.0" => says(&self.request_headers, b"keep-alive"),
            protocol => protocol.starts_with(b"HTTP/1."),
        };
        if keeps && !either_closes {
            ConnectionStatus::KeepAlive
        } else {
            ConnectionStatus::Close
        }
    }
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Outcome {
    /// All of it was handed on.
    #[default]
    Complete,
    /// The client went away before the response's head: the server dropped the
    /// service's future.
    AbortedBeforeHead,
    /// The client went away before the end of the body: the server dropped it.
    AbortedInBody,
    /// The body failed.
    BodyError,
    /// The service failed, and there was no response.
    ServiceError,
    /// The service, or the body, panicked.
    Panic,
}

/// What becomes of the connection after a response (`%X`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionStatus {
    /// It was lost before the response was complete: `X`.
    Aborted,
    /// It may serve another request: `+`.
    KeepAlive,
    /// It is closed: `-`.
    Close,
}
