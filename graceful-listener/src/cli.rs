//! The programs `start_server` and `fleet`, and what both are made of.

mod account;
mod birth;
mod descriptor;
mod failure;
mod fleet;
#[cfg(fuzzing)]
pub mod fuzz;
mod log;
mod log_command;
mod log_keeper;
mod log_tail;
mod manager;
mod moment;
mod process;
mod sockets;
mod starter;
mod succession;
mod variables;
mod watch;

pub use self::fleet::command_line::fleet;
pub use self::starter::command_line::start_server;
