//! Speaks only through the public API.

mod pattern;
mod rotation;
mod support;
mod upstream;
