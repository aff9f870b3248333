//! Processes: those that were started for a test, and what /proc says of one.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process;

/// Kills every process that was started for this directory.
pub(super) fn kill_marked(dir: &Path) {
    // A super-daemon may be starting another one.
    for _ in 0..3 {
        for pid in marked(dir) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Returns the processes that were started for this directory and still run.
pub(super) fn marked(dir: &Path) -> Vec<i32> {
    let mark = [MARK.as_bytes(), b"=", dir.as_os_str().as_encoded_bytes()].concat();
    let own = std::process::id().cast_signed();
    processes()
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|entry| entry == mark)
        })
        .collect()
}

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns true if the process runs: exists and is no zombie.
pub(super) fn is_running(pid: i32) -> bool {
    !process::is_gone(pid.cast_unsigned())
}

/// Returns a line of `/proc/PID/status`.
pub(super) fn proc_status(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
        .unwrap_or_default()
}

/// Set in everything that is started for a test, to be found again.
pub(super) const MARK: &str = "GRACEFUL_LISTENER_TEST_DIR";
