//! Tests of the crate's public interface.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod allocations;
mod client;
mod ends;
mod escape;
mod event;
mod facts;
mod golden;
mod lines;
mod outputs;
mod parse;
mod record;
mod redaction;
mod server;
mod sinks;
mod strftime;
