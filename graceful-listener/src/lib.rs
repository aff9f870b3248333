//! Takes over listening sockets, drains gracefully and deploys without losing a request.

mod pid_file;
mod ports;

pub use pid_file::{PidFile, PidFileError};
pub use ports::{PortName, Ports, PortsError};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
