//! Takes over listening sockets, drains gracefully and deploys without losing a request.

mod address;
mod daemonize;
#[cfg(feature = "cli")]
mod descriptor;
mod detach;
#[cfg(feature = "serve")]
mod drain;
#[cfg(feature = "cli")]
mod failure;
mod inherit;
mod listeners;
#[cfg(feature = "cli")]
mod log;
#[cfg(feature = "cli")]
mod log_command;
#[cfg(feature = "cli")]
mod manager;
#[cfg(feature = "cli")]
mod moment;
mod notify;
mod pid_file;
mod ports;
#[cfg(feature = "cli")]
mod privileges;
#[cfg(feature = "cli")]
mod process;
#[cfg(feature = "serve")]
mod serve;
mod socket;
mod socket_file;
#[cfg(feature = "cli")]
mod sockets;
mod spec;
#[cfg(feature = "cli")]
mod starter;
mod upgrade;
#[cfg(feature = "cli")]
mod watch;

pub use address::Address;
pub use daemonize::{Daemon, Daemonize, DaemonizeError};
#[cfg(feature = "serve")]
pub use drain::{Drain, Served};
pub use inherit::InheritError;
pub use listeners::{ListenError, Listener, Listeners, Origin};
pub use notify::{Notification, Notifier, NotifyError, NotifyMessage, NotifyReceiver};
pub use pid_file::{PidFile, PidFileError};
pub use ports::{PortName, Ports, PortsError};
#[cfg(feature = "serve")]
pub use serve::{Endpoints, Serve, ServeError, Stream, serve};
pub use socket::Socket;
#[cfg(feature = "tokio")]
pub use socket::TokioSocket;
pub use socket_file::SocketFile;
#[cfg(feature = "cli")]
pub use starter::command_line::start_server;
pub use upgrade::{Successor, UpgradeError, Upgrader};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
