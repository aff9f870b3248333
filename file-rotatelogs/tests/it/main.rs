//! Speaks only through the public API.

mod child;
mod compression;
mod pattern;
mod processes;
mod retention;
mod rotation;
mod support;
mod time;
mod torture;
mod upstream;
