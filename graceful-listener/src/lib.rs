//! Takes over listening sockets, drains gracefully and deploys without losing a request.

mod ports;

pub use ports::{PortName, Ports, PortsError};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
