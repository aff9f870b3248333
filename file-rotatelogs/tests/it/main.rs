//! Speaks only through the public API.

mod allocator;
mod child;
mod compression;
mod cost;
mod faults;
mod non_blocking;
mod pattern;
mod processes;
mod retention;
mod rotation;
mod settings;
mod support;
mod time;
mod torture;
mod upstream;
