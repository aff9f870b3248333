//! Kernels on which a pidfd does not reach the group of a process that is reaped.

use std::process::Command;

use nix::sys::signal::Signal;

use super::daemon::{Daemon, Program, Start, is_running, number_after};
use crate::control_group::ControlGroup;
use crate::old_kernel;

/// A worker that leaves a helper, which ignores TERM.
const LEAVES: &str = "trap '' TERM; sleep 621 & trap - TERM; echo $SERVER_STARTER_GENERATION leaves $!; exec sleep 622";

/// Starts it as on a kernel before 6.9. `None` without a C compiler.
fn start(options: &[&str], script: &str) -> Option<Daemon> {
    let start = Start::new(Program::Ours)
        .files()
        .options(["--interval=0"])
        .options(options)
        .shell(script);
    let launcher = old_kernel::launcher(start.dir())?;
    Some(start.start_by(Command::new(launcher)))
}

fn wait_for_end(daemon: &Daemon, pid: i32) {
    daemon.wait("the end of the helper", || (!is_running(pid)).then_some(()));
}

#[test]
fn what_an_old_worker_leaves_is_killed_where_a_pidfd_does_not_reach_it() {
    let Some(daemon) = start(&["--stop-timeout=1"], LEAVES) else {
        return;
    };
    let helper = number_after(&daemon.wait_for_log("1 leaves"), "1 leaves ");
    daemon.wait_for_generations(&[1]);
    daemon.signal(Signal::SIGHUP);
    wait_for_end(&daemon, helper);
    let later = number_after(&daemon.wait_for_log("2 leaves"), "2 leaves ");
    assert!(is_running(later), "that of the serving one is left alone");
}

#[test]
fn what_an_old_worker_has_left_is_known_after_an_upgrade_where_a_pidfd_does_not_reach_it() {
    let Some(daemon) = start(&["--stop-timeout=3"], LEAVES) else {
        return;
    };
    let helper = number_after(&daemon.wait_for_log("1 leaves"), "1 leaves ");
    daemon.wait_for_generations(&[1]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log(" died, status:");
    daemon.wait_for_generations(&[2]);
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_log("goes on with generation");
    wait_for_end(&daemon, helper);
}

#[test]
fn what_a_worker_leaves_is_told_at_the_stop_where_a_pidfd_does_not_reach_it() {
    assert_told_at_the_stop(&[]);
}

#[test]
fn what_a_worker_leaves_is_told_by_the_control_group_where_a_pidfd_does_not_reach_it() {
    let Some(group) = ControlGroup::new("old-kernel") else {
        return;
    };
    assert_told_at_the_stop(&[&format!("--cgroup={}", group.path().display())]);
}

fn assert_told_at_the_stop(options: &[&str]) {
    let Some(mut daemon) = start(
        options,
        "(trap 'sleep 0.5; echo left last; exit' TERM; echo helping; while :; do sleep 0.1; done) & \
         exec sleep 623",
    ) else {
        return;
    };
    daemon.wait_for_log("helping");
    daemon.wait_for_generations(&[1]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log(" died, status:");
    daemon.wait_for_logs("helping", 2);
    let log = daemon.stop();
    assert_eq!(log.matches("left last").count(), 2, "{log}");
    assert!(log.ends_with("exiting\n"), "{log}");
}
