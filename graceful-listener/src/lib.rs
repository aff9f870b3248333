//! Takes over listening sockets, drains gracefully and deploys without losing a request.
//!
//! A deploy loses requests in four places: where the port is closed and opened
//! again, where the queue of accepted connections is thrown away, where an idle
//! connection is closed just as a request comes, and where the old process ends before
//! the new one can serve. This crate keeps the socket open, leaves the queue to whoever
//! comes next, lingers, and waits for readiness.
//!
//! # A service that can be replaced
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use graceful_listener::{Listeners, Upgrader, serve};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let app = Router::new().route("/", get(async || "Hello"));
//! let listeners = Listeners::inherit_or_bind(["127.0.0.1:8080"])?;
//! let upgrader = Upgrader::new(&listeners)?;
//! serve(listeners, app).upgrader(upgrader).await?;
//! # Ok(())
//! # }
//! ```
//!
//! It runs under `start_server`, whether this crate's or Perl's, under systemd with its
//! sockets, and by itself: SIGUSR2 then has the new program take over. SIGTERM
//! ends it when everybody has been answered.
//!
//! # The parts
//!
//! Each can be used without the others.
//!
//! - [`Listeners`] takes the sockets that the process has inherited, or binds
//!   them. Everything that was inherited is checked, and what nobody claims refused.
//! - [`serve`](serve()) speaks HTTP on them, and drains when it is told to. [`Drain`] is
//!   the handle that tells and orders it; what a drain waits for is written there.
//! - [`Upgrader`] starts the next process in this one's place.
//! - [`Notifier`] tells a service manager that the process is ready, or that it stops;
//!   [`serve`](serve()) does so by itself. [`NotifyReceiver`] is the other end.
//! - [`PidFile`] holds a pid file by its lock, [`Daemonize`] goes to the background.
//! - [`Ports`] reads and writes Server::Starter's variable, for those who want only that.
//!
//! # Without HTTP
//!
//! A server of another protocol takes the sockets out and asks for the rest itself:
//!
//! ```
//! use graceful_listener::{Listeners, Notifier, NotifyMessage, Socket};
//!
//! let mut listeners = Listeners::inherit_or_bind(["127.0.0.1:0", "127.0.0.1:u0"])?;
//! let (socket, _file) = listeners.take("127.0.0.1:u0")?.into_parts();
//! let Socket::Udp(_dns) = socket else { panic!("it was asked for with a u") };
//! // Everything else is set up; from here on this process can be told to stop.
//! Notifier::from_env()?.send(&NotifyMessage::new().ready())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Cargo features
//!
//! - `tokio`: sockets as tokio's types, [`Socket::into_tokio`].
//! - `serve`: [`serve`](serve()) and [`Drain`], over hyper.
//! - `cli`: the programs `start_server` and `fleet`, see the README.
//!
//! None is on by default; without any, no runtime is needed.
//!
//! # Logs
//!
//! [`serve`](serve()) tells what happens through [`tracing`](https://docs.rs/tracing), and through
//! [`log`](https://docs.rs/log) if nobody listens there.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
#[cfg(feature = "cli")]
mod cli;
mod daemonize;
mod detach;
#[cfg(feature = "serve")]
mod drain;
mod inherit;
mod listeners;
mod notify;
mod pid_file;
mod ports;
#[cfg(feature = "serve")]
mod serve;
mod socket;
mod socket_file;
mod spec;
mod upgrade;

pub use address::Address;
#[cfg(all(feature = "cli", fuzzing))]
#[doc(hidden)]
pub use cli::fuzz;
#[cfg(feature = "cli")]
pub use cli::{fleet, start_server};
pub use daemonize::{Daemon, Daemonize, DaemonizeError};
#[cfg(feature = "serve")]
pub use drain::{Drain, DrainGuard, Served};
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
pub use upgrade::{Successor, UpgradeError, Upgrader};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
