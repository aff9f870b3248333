use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Fleet, SLEEP, shell, wait_for_end};
use crate::process;

#[test]
fn upgrade_goes_on_under_the_same_pid_with_the_same_children() {
    let fleet = Fleet::with("web", &format!("{SLEEP}instances = 3"));
    let before = fleet.wait_for("web", &["RUNNING"; 3]);
    let pid = fleet.pid();
    let answer = fleet.command("upgrade").unwrap();
    assert!(answer.contains("goes on"), "{answer}");
    assert_eq!(fleet.pid(), pid);
    assert_eq!(fleet.wait_for("web", &["RUNNING"; 3]), before);
    assert_eq!(fleet.children().len(), 3, "children stay children");
    kill(Pid::from_raw(before[0].cast_signed()), Signal::SIGKILL).unwrap();
    let line = fleet.wait_for_log("web:0 RUNNING -> EXITED");
    assert!(line.contains("killed by signal 9"), "{line}");
    fleet.wait("another", || {
        (fleet.wait_for("web", &["RUNNING"; 3])[0] != before[0]).then_some(())
    });
    assert_eq!(fleet.children().len(), 3);
}

#[test]
fn one_upgrade_answers_all_who_have_asked_for_it() {
    let fleet = Fleet::with("web", SLEEP);
    fleet.wait_for("web", &["RUNNING"]);
    fleet.signal(Signal::SIGSTOP);
    process::wait_until_stopped(fleet.pid());
    for tag in 0..5 {
        fleet.submit(&format!("upgrade@{tag}"));
    }
    fleet.signal(Signal::SIGCONT);
    for tag in 0..5 {
        fleet.answer(&format!("upgrade@{tag}")).unwrap();
    }
    assert_eq!(fleet.log().matches("goes on after").count(), 1);
}

#[test]
fn many_upgrades_leak_nothing() {
    let fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.command("upgrade").unwrap();
    let descriptors = process::descriptors(fleet.pid()).len();
    for _ in 0..5 {
        fleet.command("upgrade").unwrap();
    }
    fleet.wait("as few descriptors as before", || {
        (process::descriptors(fleet.pid()).len() <= descriptors).then_some(())
    });
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
}

#[test]
fn program_that_cannot_take_over_is_not_executed() {
    let mut fleet = Fleet::empty();
    fleet.program("web", SLEEP);
    let link = fleet.path().join("the-fleet");
    symlink(env!("CARGO_BIN_EXE_fleet"), &link).unwrap();
    fleet.start_as(&link);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fs::remove_file(&link).unwrap();
    symlink("/bin/false", &link).unwrap();
    let why = fleet.command("upgrade").unwrap_err();
    assert!(
        why.contains("cannot take over: it exited with code 1"),
        "{why}"
    );
    fs::remove_file(&link).unwrap();
    let why = fleet.command("upgrade").unwrap_err();
    assert!(
        why.contains("failed to execute") && why.contains("No such file"),
        "{why}"
    );
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
    symlink(env!("CARGO_BIN_EXE_fleet"), &link).unwrap();
    fleet.command("upgrade").unwrap();
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
}

#[test]
fn usr2_upgrades_too() {
    let fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.signal(Signal::SIGUSR2);
    fleet.wait_for_log("goes on after");
    fleet.command("signal-web-CONT").unwrap();
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
}

#[test]
fn what_a_process_has_left_is_killed_after_an_upgrade() {
    let definition = shell(
        "(trap '' TERM; exec sleep 617) & echo $! > left.new; mv left.new left; exec sleep 600",
        "directory = \".\"\nrestart = \"always\"\nstop_timeout = \"2s\"",
    );
    let fleet = Fleet::with("web", &definition);
    let pids = fleet.wait_for("web", &["RUNNING"]);
    let left = fleet.wait_for_file("left").trim().parse().unwrap();
    fleet.wait("it to ignore TERM", || {
        process::command_line(left)
            .starts_with(b"sleep\0")
            .then_some(())
    });
    kill(Pid::from_raw(pids[0].cast_signed()), Signal::SIGKILL).unwrap();
    fleet.wait_for_log("RUNNING -> EXITED");
    fleet.command("upgrade").unwrap();
    wait_for_end(left);
}
