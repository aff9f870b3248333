//! Keeps programs running that files describe.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    graceful_listener::fleet(env::args_os())
}
