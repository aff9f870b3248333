//! This binary again, as another process that plays one of the roles below.
//!
//! A role is an ordinary test to the harness; without its variable it does nothing.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::process::Command;

pub(crate) const ROLE: &str = "GRACEFUL_LISTENER_TEST_ROLE";

/// A command that runs the test `name` with the variable that makes it act.
pub(crate) fn role(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([
            name,
            "--exact",
            "--nocapture",
            "--test-threads=1",
            "--quiet",
        ])
        .env(ROLE, name);
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(variable);
    }
    command
}

/// Whether this process was started to play the role.
pub(crate) fn plays(name: &str) -> bool {
    env::var_os(ROLE).as_deref() == Some(OsStr::new(name))
}

/// Whether a program is installed. What is left out without it is told, and is
/// a failure where everything is required.
pub(crate) fn has(program: &str) -> bool {
    let found = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .any(|path| path.join(program).is_file());
    if !found {
        assert!(
            env::var_os("TEST_REQUIRE_ALL").is_none(),
            "{program} is not installed"
        );
        left_out(&format!("{program} is not installed"));
    }
    found
}

/// Tells what is left out here, past the harness, which keeps what a passing test prints.
pub(crate) fn left_out(why: &str) {
    let _ = writeln!(io::stderr(), "left out: {why}");
}

/// Has the role played by a process that `starter` starts, as the last of its arguments say.
pub(crate) fn append(starter: &mut Command, role: &Command) {
    starter.arg(role.get_program()).args(role.get_args());
    starter.envs(
        role.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
}
