//! Kernels that know less of pidfds than this one may.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Fleet, SLEEP, shell, wait_for_end};
use crate::{old_kernel, process};

/// Starts the supervisor as on a kernel before 6.9. False without a C compiler.
fn start(fleet: &mut Fleet) -> bool {
    let launcher = old_kernel::launcher(fleet.path());
    if let Some(launcher) = &launcher {
        fleet.start_by(&format!("exec {} \"$@\"", launcher.display()));
    }
    launcher.is_some()
}

/// A program with a helper that ignores TERM.
fn with_deaf_helper(stop_timeout: &str) -> String {
    shell(
        "(trap '' TERM; exec sleep 619) & echo $! > helper.new; mv helper.new helper; exec sleep 620",
        &format!("directory = \".\"\nrestart = \"never\"\nstop_timeout = \"{stop_timeout}\""),
    )
}

/// Returns the helper, once it ignores TERM.
fn deaf_helper(fleet: &Fleet) -> u32 {
    let helper = fleet.wait_for_file("helper").trim().parse().unwrap();
    fleet.wait("it to ignore TERM", || {
        let is_sleep = process::command_line(helper).starts_with(b"sleep\0");
        is_sleep.then_some(helper)
    })
}

/// A program with a helper that tells of each TERM, and ends with USR1.
fn with_telling_helper() -> String {
    let script =
        "trap 'echo told >> told' TERM; trap exit USR1; echo up > up; while :; do sleep 0.02; done";
    shell(
        &format!("({script}) & echo $! > helper; exec sleep 624"),
        "directory = \".\"\nrestart = \"never\"\nstop_timeout = \"600s\"",
    )
}

fn telling_helper(fleet: &Fleet) -> u32 {
    fleet.wait_for_file("up");
    fleet.wait_for_file("helper").trim().parse().unwrap()
}

/// A fleet that runs such a program, the process, and its helper. None without a C compiler.
fn running(program: &str, helper: impl Fn(&Fleet) -> u32) -> Option<(Fleet, u32, u32)> {
    let mut fleet = Fleet::empty();
    fleet.program("web", program);
    if !start(&mut fleet) {
        return None;
    }
    let pid = fleet.wait_for("web", &["RUNNING"])[0];
    let helper = helper(&fleet);
    Some((fleet, pid, helper))
}

fn end(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

/// Waits until nobody of a group is left but those that have ended.
fn wait_for_end_of_group(fleet: &Fleet, group: u32) {
    fleet.wait("the end of the group", || {
        process::group(group).is_empty().then_some(())
    });
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

#[test]
fn what_a_process_has_left_is_killed_where_a_pidfd_does_not_reach_it() {
    let Some((fleet, pid, helper)) = running(&with_deaf_helper("300ms"), deaf_helper) else {
        return;
    };
    end(pid);
    fleet.wait_for_log(&format!("sending KILL to what process {pid} has left"));
    wait_for_end(helper);
    wait_for_end_of_group(&fleet, pid);
}

#[test]
fn what_a_process_has_left_holds_up_the_end_where_a_pidfd_does_not_reach_it() {
    let Some((fleet, pid, helper)) = running(&with_deaf_helper("300ms"), deaf_helper) else {
        return;
    };
    let log = fleet.stop();
    assert!(process::is_gone(helper), "{log}");
    assert_eq!(process::group(pid), [0; 0], "{log}");
}

#[test]
fn what_a_process_has_left_is_known_after_an_upgrade_where_a_pidfd_does_not_reach_it() {
    let Some((fleet, pid, helper)) = running(&with_deaf_helper("3s"), deaf_helper) else {
        return;
    };
    end(pid);
    fleet.wait_for_log("RUNNING -> EXITED");
    fleet.command("upgrade").unwrap();
    fleet.wait_for_log(&format!("sending KILL to what process {pid} has left"));
    wait_for_end(helper);
    wait_for_end_of_group(&fleet, pid);
}

#[test]
fn what_an_adopted_process_has_left_is_killed_where_a_pidfd_does_not_reach_it() {
    let Some((mut fleet, pid, helper)) = running(&with_deaf_helper("300ms"), deaf_helper) else {
        return;
    };
    fleet.kill();
    start(&mut fleet);
    fleet.wait_for_log("adopted 1 processes");
    end(pid);
    wait_for_end(helper);
    wait_for_end_of_group(&fleet, pid);
}

#[test]
fn what_a_process_has_left_is_told_once_where_a_pidfd_does_not_reach_it() {
    let Some((fleet, pid, helper)) = running(&with_telling_helper(), telling_helper) else {
        return;
    };
    end(pid);
    fleet.wait_for_log("RUNNING -> EXITED");
    fleet.wait_for_file("told");
    kill(Pid::from_raw(helper.cast_signed()), Signal::SIGUSR1).unwrap();
    wait_for_end(helper);
    assert_eq!(fleet.wait_for_file("told"), "told\n");
}

#[test]
fn what_an_adopted_process_has_left_is_told_where_a_pidfd_does_not_reach_it() {
    let Some((mut fleet, pid, helper)) = running(&with_telling_helper(), telling_helper) else {
        return;
    };
    fleet.kill();
    start(&mut fleet);
    fleet.wait_for_log("adopted 1 processes");
    // Whoever is its parent reaps it before the supervisor looks.
    fleet.signal(Signal::SIGSTOP);
    end(pid);
    wait_for_end(pid);
    fleet.signal(Signal::SIGCONT);
    fleet.wait_for_file("told");
    kill(Pid::from_raw(helper.cast_signed()), Signal::SIGUSR1).unwrap();
    wait_for_end(helper);
}

#[test]
fn process_of_which_nothing_else_is_known_is_killed_where_a_pidfd_does_not_reach_its_group() {
    let Some((mut fleet, pid, helper)) = running(&with_deaf_helper("600s"), deaf_helper) else {
        return;
    };
    fleet.kill();
    fleet.remove_program("web");
    std::fs::remove_file(fleet.path().join("run/web.json")).unwrap();
    start(&mut fleet);
    fleet.wait_for_log("of which nothing else is known");
    wait_for_end(helper);
    wait_for_end_of_group(&fleet, pid);
}
