//! Speaks only through the public API.

mod rotation;
