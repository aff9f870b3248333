//! What a worker has open when it begins.

use std::fs;
use std::process::Command;

use graceful_listener::Ports;
use nix::sys::signal::Signal;

use super::daemon::{Daemon, Program, Start, both};
use crate::{child, process};

#[test]
fn worker_gets_the_standard_streams_and_the_sockets_and_nothing_else() {
    both(|program| {
        let start = Start::new(program).files().options([
            "--interval=0",
            "--port=127.0.0.1:0",
            "--path=a.sock",
            "--log-file=log",
        ]);
        let daemon = listing_what_it_inherits(start.shell("kill -STOP $$"));
        assert_descriptors(&daemon, "log", 1, |number, target| match number {
            0 => target == "/dev/null",
            1 | 2 => target.ends_with("/log"),
            _ => false,
        });
    });
}

#[test]
fn worker_gets_no_descriptor_that_readiness_a_log_command_or_an_upgrade_needs() {
    if !child::has("systemd-notify") {
        return;
    }
    let start = Start::new(Program::Ours).files().options([
        "--interval=0",
        "--port=127.0.0.1:0",
        "--path=a.sock",
        "--wait-ready",
        "--log-file=| exec cat >> log",
    ]);
    let script = "systemd-notify --ready; kill -STOP $$";
    let daemon = listing_what_it_inherits(start.shell(script));
    let is_standard = |number: i32, target: &str| match number {
        0 => target == "/dev/null",
        1 | 2 => target.starts_with("pipe:"),
        _ => false,
    };
    assert_descriptors(&daemon, "log", 1, is_standard);
    daemon.wait_for_generations(&[1]);
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_text("log", "goes on with generation");
    daemon.signal(Signal::SIGHUP);
    assert_descriptors(&daemon, "log", 2, is_standard);
}

/// Starts it so that its output begins with what it inherits of the test's own
/// descriptors, which it passes on.
fn listing_what_it_inherits(start: Start) -> Daemon {
    let mut list = Command::new("sh");
    list.args(["-c", "ls -l /proc/self/fd; exec \"$0\" \"$@\""]);
    start.start_by(list)
}

/// Waits until the worker of this generation has stopped itself, and looks at what it has open.
fn assert_descriptors(
    daemon: &Daemon,
    log: &str,
    generation: u64,
    is_standard: impl Fn(i32, &str) -> bool,
) {
    let pid = daemon.wait("the worker", || {
        let text = daemon.read(log)?;
        let mut started = text.lines().filter_map(|line| {
            let pid = line.strip_prefix("starting new worker ")?;
            pid.parse::<u32>().ok()
        });
        started.find(|pid| variable(*pid, "SERVER_STARTER_GENERATION") == generation.to_string())
    });
    process::wait_until_stopped(pid);
    let inherited: Vec<_> = daemon
        .log()
        .lines()
        .filter_map(|line| {
            let (before, target) = line.split_once(" -> ")?;
            let number: i32 = before.rsplit_once(' ')?.1.parse().ok()?;
            // The directory is open only for the list itself.
            (number > 2 && !target.starts_with("/proc/")).then(|| (number, target.to_owned()))
        })
        .collect();
    let told = variable(pid, Ports::VARIABLE).parse::<Ports>().unwrap();
    let mut missing: Vec<i32> = told.iter().map(|(_, number)| number).collect();
    assert_eq!(missing.len(), 2);
    missing.extend([0, 1, 2]);
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let path = entry.unwrap().path();
        let target = fs::read_link(&path).unwrap().display().to_string();
        let number: i32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        missing.retain(|expected| *expected != number);
        let is_socket = told.iter().any(|(_, socket)| socket == number);
        assert!(
            is_standard(number, &target)
                || is_socket && target.starts_with("socket:")
                || inherited.contains(&(number, target.clone())),
            "{number} is {target}; not the worker's, nor of {inherited:?}"
        );
    }
    assert!(missing.is_empty(), "{missing:?} are not open");
}

/// What a process has found in its environment.
fn variable(pid: u32, name: &str) -> String {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let mut variables = environment.split('\0');
    variables
        .find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_default()
        .into()
}
