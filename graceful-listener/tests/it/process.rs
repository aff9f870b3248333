//! What /proc says of processes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid};

/// Whether it has ended with all its threads; one that nobody has waited for has.
pub(crate) fn is_gone(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // The first thread may be a zombie while others still have what was open.
    let threads = fields.get(17).copied().unwrap_or_default();
    matches!(fields[0], "Z" | "X") && matches!(threads, "" | "0" | "1")
}

/// Waits until a process that was sent SIGSTOP stands still.
pub(crate) fn wait_until_stopped(pid: u32) {
    crate::drain::eventually("it stands still", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('T')
    });
}

/// Whether the process is this binary, or a copy of it, in one of its roles.
pub(crate) fn is_role(pid: i32) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    variables.any(|variable| variable.starts_with(crate::child::ROLE.as_bytes()))
}

/// What the descriptors of a process refer to.
pub(crate) fn descriptors(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let mut targets: Vec<_> = entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target: PathBuf| target.display().to_string())
        .collect();
    targets.sort();
    targets
}

/// What a program started by this process has open, besides its standard streams.
pub(crate) fn descriptors_of_a_child() -> Vec<String> {
    let output = Command::new("sh")
        .args([
            "-c",
            "for fd in /proc/$$/fd/*; do echo \"${fd##*/} $(readlink $fd)\"; done",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let number = |line: &str| line.split(' ').next().unwrap().parse::<u32>().unwrap();
    let beyond = text
        .lines()
        .filter(|line| number(line) > 2 && line.contains(' '));
    beyond
        .filter(|line| !line.ends_with(' '))
        .map(str::to_owned)
        .collect()
}

/// The processes that this one has started and that still run.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(
            text.split_whitespace()
                .map(|child| child.parse::<u32>().unwrap()),
        );
    }
    children.retain(|&child| !is_gone(child));
    children
}

/// Those of a process group that have not ended.
pub(crate) fn group(number: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let number = Pid::from_raw(number.cast_signed());
    let is_in = |pid: &u32| getpgid(Some(Pid::from_raw(pid.cast_signed()))) == Ok(number);
    pids.filter(is_in).filter(|&pid| !is_gone(pid)).collect()
}

/// Returns nothing of a process that has ended.
pub(crate) fn command_line(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

pub(crate) fn link(pid: u32, name: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/{name}")).unwrap()
}

/// Wakes Perl's `start_server` every other second that it waits for the end of a worker.
///
/// It sleeps over a signal that comes just before it begins to wait, until another one
/// comes. It ignores SIGALRM; but that is handled before a SIGTERM, by leaving the wait
/// without a look at the rest. So `was_told_to_end` sends SIGTERM again, which does nothing
/// when the first was heard.
pub(crate) fn wake_perl(pid: i32, was_told_to_end: bool, looked: &mut Instant) {
    if looked.elapsed() < Duration::from_secs(2) {
        return;
    }
    *looked = Instant::now();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let place = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    let is_perl = exe.file_name().is_some_and(|name| name == "perl");
    if is_perl && place == "do_wait" {
        let signal = if was_told_to_end {
            Signal::SIGTERM
        } else {
            Signal::SIGALRM
        };
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
