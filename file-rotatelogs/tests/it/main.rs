//! Speaks only through the public API.

mod compression;
mod pattern;
mod retention;
mod rotation;
mod support;
mod time;
mod upstream;
