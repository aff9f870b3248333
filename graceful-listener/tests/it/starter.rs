//! The real `start_server`, and beside it Perl's where both should behave alike.

mod daemon;
mod processes;
mod worker;

mod auto_restart;
mod command_line;
mod control;
mod daemonize;
mod descriptors;
mod endings;
mod environment;
mod failures;
mod generations;
mod handover;
mod log_commands;
mod log_file;
mod old_kernel;
mod orphans;
mod readiness;
mod signals;
mod sockets;
mod state_files;
mod supervised;
mod systemd;
mod torture;
mod users;
