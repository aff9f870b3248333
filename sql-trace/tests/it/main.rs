//! The crate as its users see it: through the public API, on real databases.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod allocations;
mod any;
mod arguments;
mod databases;
mod facades;
mod hiding;
mod macros;
mod null;
mod pools;
mod random;
mod readme;
mod recorder;
mod results;
mod scenarios;
mod scopes;
mod servers;
mod times;
mod tracers;
mod wanted;
mod watching;
