//! Tests of the crate's public interface.

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "people are told what was left out, parents what was printed"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod allocations;
mod client;
mod connection;
mod cookies;
mod ends;
mod escape;
mod event;
mod facts;
mod golden;
mod hosts;
mod lines;
mod needs;
mod outputs;
mod parse;
mod paths;
mod readers;
mod record;
mod redaction;
mod server;
mod sinks;
mod strftime;
mod targets;
mod traffic;
