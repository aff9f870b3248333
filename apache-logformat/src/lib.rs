//! Apache LogFormat strings compiled into a tower layer that writes one exact line per request.
//!
//! ```
//! use apache_logformat::{AccessLogLayer, LogFormat, SharedWriter};
//! use std::{convert::Infallible, io};
//! use tower::{ServiceBuilder, service_fn};
//!
//! let service = ServiceBuilder::new()
//!     .layer(AccessLogLayer::new(
//!         LogFormat::combined(),
//!         SharedWriter::new(io::stdout()),
//!     ))
//!     .service(service_fn(async |_: http::Request<String>| {
//!         Ok::<_, Infallible>(http::Response::new(String::from("hello")))
//!     }));
//! ```
//!
//! # The parts
//!
//! * [`LogFormat`] is a parsed format: the text of httpd's `LogFormat`, or of
//!   nginx's `log_format`. It decides what a line holds, how values are
//!   [escaped](Escape), and in which [`Zone`] instants are printed.
//! * [`Exchange`] is what a line is made of: the facts of one request and its
//!   response, as bytes. The layer fills one in for every request. A server
//!   without tower fills it in itself, and needs nothing but these two.
//! * [`LogSink`] is where a line goes: a closure, a `Mutex` around a writer, or a
//!   [`SharedWriter`] around a file, standard output, a socket or a rotating log.
//! * [`AccessLogLayer`] puts them together. [`Output`]s add more logs to it, each
//!   with a format, a sink, a filter and a [`Sampling`] of its own.
//!
//! # When the line is written
//!
//! At the response's end: when the last frame of its body is handed on. Until
//! then [`Notes`] may change, and durations, byte counts and trailers are those
//! of the end. However a response ends, there is one line:
//!
//! | end | status | `%X` | [`Outcome`] |
//! | --- | --- | --- | --- |
//! | the body ends, or there is none (also HEAD, 204, 304, 101) | as sent | `+` or `-` | [`Complete`](Outcome::Complete) |
//! | the body is dropped when its known length is reached | as sent | `+` or `-` | [`Complete`](Outcome::Complete) |
//! | the body is dropped before its end: the client went away | as sent | `X` | [`AbortedInBody`](Outcome::AbortedInBody) |
//! | the body fails | as sent | `X` | [`BodyError`](Outcome::BodyError) |
//! | the future is dropped before the head: the client went away | 499 | `X` | [`AbortedBeforeHead`](Outcome::AbortedBeforeHead) |
//! | the service fails | 500 | `X` | [`ServiceError`](Outcome::ServiceError) |
//! | the service, or its body, panics; the panic goes on | 500, or as sent | `X` | [`Panic`](Outcome::Panic) |
//!
//! An upgraded connection (101) is logged at the switch, `-` as `%X`; what becomes of it
//! afterwards no layer sees.
//!
//! # What the layer cannot see
//!
//! Only the server knows the connection, so it has to tell. With axum and the
//! `axum` feature, `into_make_service_with_connect_info` is enough for the peer's
//! address. Any other server puts a [`ConnectionInfo`] into the extensions of its
//! requests, or [`AccessLogLayer::connection`] makes one of what is there.
//! Behind a proxy, [`TrustedProxies`] finds out who the client is.
//!
//! The service tells who the user is ([`RemoteUser`]), which id the request has
//! ([`RequestId`]), which [`Route`] matched and whatever else ([`Notes`], [`Env`])
//! by extensions of the request or the response.
//!
//! What nobody tells prints as `-`. The README has a table of all directives.
//!
//! # What it costs the service
//!
//! A format captures what it prints and nothing else, into buffers that each
//! thread uses again: once a thread has served a few requests, logging allocates
//! nothing, but for what it hands over: the tables behind `%{NAME}n`, `%{NAME}e` and
//! `%{NAME}^ti`, axum's route (`%R`), an event that somebody listens to.
//!
//! A sink that fails, blocks or panics changes no response: failures are
//! [counted](AccessLogLayer::failures) and [told](AccessLogLayer::on_failure).
//!
//! # Secrets
//!
//! By default the values of `Authorization`, `Proxy-Authorization`, `Cookie` and
//! `Set-Cookie` are masked where a format prints the whole field; [`Redaction`]
//! masks more, or nothing.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `axum`: reads axum's `ConnectInfo<SocketAddr>` and `MatchedPath`.
//! * `bundled-tzdata`: carries the time zone database inside the program.
//! * `tracing`: each exchange as one structured event, by `Output::event`.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod body;
mod client;
mod config;
mod connection;
mod cookie;
mod directive;
mod entry;
mod escape;
#[cfg(feature = "tracing")]
mod event;
mod exchange;
mod facts;
mod failures;
mod fields;
mod format;
mod future;
mod host;
mod json;
mod layer;
mod needs;
mod nginx;
mod output;
mod parse;
mod path;
mod record;
mod redaction;
mod sampling;
mod service;
mod sink;
mod strftime;
mod time;
mod timestamp;
mod value;
mod zone;

pub use body::ResponseBody;
pub use client::{NetworkError, TrustedProxies};
pub use connection::{ConnectionInfo, TlsInfo};
pub use escape::Escape;
pub use exchange::{ConnectionStatus, Exchange, Outcome};
pub use facts::{
    ClientHost, ClientIp, Env, Filename, Notes, RemoteUser, RequestId, RequestTrailers, Route,
    WireBytes,
};
pub use failures::Failures;
pub use fields::Fields;
pub use format::LogFormat;
pub use future::ResponseFuture;
pub use layer::AccessLogLayer;
pub use output::Output;
pub use parse::ParseError;
pub use redaction::Redaction;
pub use sampling::Sampling;
pub use service::AccessLog;
pub use sink::{LogSink, SharedWriter};
pub use timestamp::Timestamp;
pub use zone::{Zone, ZoneError};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
