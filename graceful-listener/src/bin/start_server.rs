//! Holds listening sockets and deploys one generation of a server after the other.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    graceful_listener::start_server(env::args_os())
}
