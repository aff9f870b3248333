//! Takes over listening sockets, drains gracefully and deploys without losing a request.

#[cfg(feature = "cli")]
mod moment;
mod notify;
mod pid_file;
mod ports;
#[cfg(feature = "cli")]
mod process;
#[cfg(feature = "cli")]
mod starter;
#[cfg(feature = "cli")]
mod watch;

pub use notify::{Notification, Notifier, NotifyError, NotifyMessage, NotifyReceiver};
pub use pid_file::{PidFile, PidFileError};
pub use ports::{PortName, Ports, PortsError};
#[cfg(feature = "cli")]
pub use starter::command_line::start_server;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
