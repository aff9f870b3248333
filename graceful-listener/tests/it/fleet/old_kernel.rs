//! Kernels that know less of pidfds than this one may.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Fleet, SLEEP, shell, wait_for_end};
use crate::child;

/// Starts the supervisor as on a kernel before 6.9. False without a C compiler.
fn start(fleet: &mut Fleet) -> bool {
    if !child::has("cc") {
        return false;
    }
    let (source, program): (PathBuf, PathBuf) = (
        fleet.path().join("old_kernel.c"),
        fleet.path().join("old-kernel"),
    );
    if !program.exists() {
        fs::write(&source, include_str!("old_kernel.c")).unwrap();
        let compiled = Command::new("cc")
            .arg("-o")
            .args([&program, &source])
            .status();
        assert!(compiled.unwrap().success());
    }
    fleet.start_by(&format!("exec {} \"$@\"", program.display()));
    true
}

#[test]
fn group_is_killed_where_a_pidfd_does_not_reach_it() {
    let mut fleet = Fleet::empty();
    let script = "trap '' TERM; sleep 600 & echo $! > child; wait; wait; sleep 600";
    fleet.program(
        "deaf",
        &shell(script, "directory = \".\"\nstop_timeout = \"100ms\""),
    );
    if !start(&mut fleet) {
        return;
    }
    let leader = fleet.wait_for("deaf", &["RUNNING"])[0];
    let child = fleet.wait_for_file("child").trim().parse().unwrap();
    fleet.command("stop-deaf").unwrap();
    wait_for_end(leader);
    wait_for_end(child);
}

#[test]
fn processes_are_adopted_and_their_end_is_seen_where_a_pidfd_tells_nothing() {
    let mut fleet = Fleet::empty();
    fleet.program("web", SLEEP);
    if !start(&mut fleet) {
        return;
    }
    let before = fleet.wait_for("web", &["RUNNING"]);
    kill(Pid::from_raw(before[0].cast_signed()), Signal::SIGKILL).unwrap();
    fleet.wait_for_log("RUNNING -> EXITED: process");
    let before = fleet.wait("another", || {
        let now = fleet.wait_for("web", &["RUNNING"]);
        (now != before).then_some(now)
    });
    fleet.kill();
    start(&mut fleet);
    fleet.wait_for_log("adopted 1 processes");
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
    kill(Pid::from_raw(before[0].cast_signed()), Signal::SIGKILL).unwrap();
    let after = fleet.wait("another", || {
        let now = fleet.wait_for("web", &["RUNNING"]);
        (now != before).then_some(now)
    });
    assert_eq!(fleet.children(), after);
    fleet.command("upgrade").unwrap();
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), after);
    fleet.command("stop-web").unwrap();
    wait_for_end(after[0]);
}
