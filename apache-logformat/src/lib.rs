//! Apache LogFormat strings compiled into a tower layer that writes one exact line per request.

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
