//! Everything through the public API, with real sockets, processes and signals.

mod ports;
