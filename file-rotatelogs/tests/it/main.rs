//! Speaks only through the public API.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a panic is how a test fails, and it tells what was left out"
)]

mod allocator;
mod child;
mod compression;
mod cost;
mod disk;
mod faults;
mod link;
mod non_blocking;
mod pattern;
mod processes;
mod program;
mod retention;
mod ring;
mod rotation;
mod settings;
mod support;
mod time;
mod torture;
mod upstream;
