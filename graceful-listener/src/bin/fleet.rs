//! Temporary.
fn main() -> std::process::ExitCode {
    graceful_listener::fleet(std::env::args_os())
}
