//! Kernels on which a pidfd does not reach the group of a process that is reaped.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::{Daemon, Program, Start, number_after};
use super::orphans::can_adopt;
use super::processes::is_running;
use crate::control_group::ControlGroup;
use crate::{old_kernel, port, process};

/// A worker that leaves a helper, which ignores TERM.
const LEAVES: &str = "trap '' TERM; sleep 621 & trap - TERM; echo $SERVER_STARTER_GENERATION leaves $!; exec sleep 622";

/// A helper that has something to do when it is told to end.
const HELPS: &str =
    "(trap 'sleep 0.5; echo left last; exit' TERM; echo helping; while :; do sleep 0.1; done)";

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
    let Some(mut daemon) = start(options, &format!("{HELPS} & exec sleep 623")) else {
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

#[test]
fn what_an_adopted_worker_leaves_is_told_at_the_stop_though_another_has_reaped_it() {
    if !can_adopt() {
        return;
    }
    let port = format!("--port=127.0.0.1:{}", port::free());
    let mut first = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", &port])
        .shell(&format!("{HELPS} & exec sleep 645"))
        .start();
    first.wait_for_log("helping");
    first.wait_for_generations(&[1]);
    let orphan = number_after(&first.log(), "starting new worker ");
    first.kill();
    let start = first
        .again(&["--interval=600", &port])
        .program(&["sleep", "646"]);
    let Some(launcher) = old_kernel::launcher(start.dir()) else {
        return;
    };
    let mut second = start.start_by(Command::new(launcher));
    second.wait_for_log(&format!("adopting worker {orphan}"));
    second.wait_for_logs("starting new worker ", 2);
    second.signal(Signal::SIGSTOP);
    process::wait_until_stopped(second.pid().cast_unsigned());
    kill(Pid::from_raw(orphan), Signal::SIGTERM).unwrap();
    second.wait("the end of the orphan", || {
        (!is_running(orphan)).then_some(())
    });
    // Where nobody reaps it, it can be told by its number.
    let deadline = Instant::now() + Duration::from_secs(2);
    while Path::new(&format!("/proc/{orphan}")).exists() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    second.signal(Signal::SIGTERM);
    second.signal(Signal::SIGCONT);
    assert!(second.wait_for_exit().success());
    let log = second.log();
    assert_eq!(log.matches("left last").count(), 1, "{log}");
    assert!(log.ends_with("exiting\n"), "{log}");
}
