//! Everything through the public API, with real sockets, processes and signals.

#![expect(
    clippy::print_stderr,
    reason = "a child tells its parent, and people what was left out"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails, in its helpers too"
)]

mod bind;
mod child;
mod control_group;

mod daemonize;
mod drain;
mod executable;
mod fleet;
mod fork;
mod hot_deploy;
mod http;
mod http2;
mod inherit;
mod load;
mod notify;
mod old_kernel;
mod pid_file;
mod port;
mod ports;
mod process;
mod serve;
mod service;
mod signals;
mod small_disk;
mod starter;
mod systemd;
mod upgrade;
