//! Takes over listening sockets, drains gracefully and deploys without losing a request.

mod notify;
mod pid_file;
mod ports;

pub use notify::{Notification, Notifier, NotifyError, NotifyMessage, NotifyReceiver};
pub use pid_file::{PidFile, PidFileError};
pub use ports::{PortName, Ports, PortsError};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
