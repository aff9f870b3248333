//! How generations end that do not want to, and that nothing is left behind.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::{Daemon, Program, Start, both, number_after};
use super::processes::{is_running, marked, proc_status};

/// Ignores TERM, as does what it has started.
const STUBBORN: &str =
    "trap '' TERM; sleep 602 & echo helper $!; echo worker $$ is up; while :; do sleep 0.1; done";

#[test]
fn worker_that_ignores_term_is_killed_with_what_it_has_started() {
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--stop-timeout=0.3"])
        .shell(STUBBORN)
        .start();
    let log = daemon.wait_for_log("is up");
    let (worker, helper) = (number_after(&log, "worker "), number_after(&log, "helper "));
    let log = daemon.stop();
    let killed = "has not ended in time, sending KILL to it and what it has started";
    assert_eq!(log.matches(killed).count(), 1, "{log}");
    assert!(
        log.contains(&format!("worker {worker} died, status:9")),
        "{log}"
    );
    daemon.wait("the end of the helper", || {
        (!is_running(helper)).then_some(())
    });
}

#[test]
fn old_worker_that_ignores_term_is_killed_in_the_end() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--stop-timeout=0.3"])
        .shell("trap '' TERM; [ $SERVER_STARTER_GENERATION = 2 ] && trap - TERM; echo is up; while :; do sleep 0.1; done")
        .start();
    daemon.wait_for_log("is up");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("died, status:9");
    daemon.wait_for_generations(&[2]);
}

#[test]
fn what_an_old_worker_leaves_is_killed_in_the_end() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--stop-timeout=1"])
        .shell("trap '' TERM; sleep 603 & trap - TERM; echo $SERVER_STARTER_GENERATION leaves $!; exec sleep 604")
        .start();
    let log = daemon.wait_for_log("1 leaves");
    let helper = number_after(&log, "1 leaves ");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log(" died, status:");
    // It may have something to finish.
    let lives = is_running(helper);
    let log = daemon.log();
    assert!(lives || log.contains("sending KILL"), "{log}");
    daemon.wait_for_log("has started has not ended in time, sending KILL to it");
    daemon.wait("the end of the helper", || {
        (!is_running(helper)).then_some(())
    });
    let later = number_after(&daemon.wait_for_log("2 leaves"), "2 leaves ");
    assert!(is_running(later), "that of the serving one is left alone");
}

#[test]
fn what_an_old_worker_leaves_keeps_nobody_awake() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0"])
        .shell("trap '' TERM; sleep 606 & trap - TERM; echo is up; exec sleep 607")
        .start();
    daemon.wait_for_log("is up");
    daemon.wait_for_generations(&[1]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log(" died, status:");
    let switches = || {
        let of = |key| proc_status(daemon.pid(), key);
        (
            of("voluntary_ctxt_switches"),
            of("nonvoluntary_ctxt_switches"),
        )
    };
    daemon.wait("it to sleep", || {
        let before = switches();
        thread::sleep(Duration::from_secs(1));
        let sleeps = proc_status(daemon.pid(), "State").starts_with('S');
        (sleeps && switches() == before).then_some(())
    });
}

#[test]
fn what_a_worker_leaves_is_told_and_waited_for_at_the_stop() {
    let mut daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0"])
        .shell(
            "(trap 'sleep 0.5; echo left last; exit' TERM; echo helping; while :; do sleep 0.1; done) & \
             exec sleep 605",
        )
        .start();
    daemon.wait_for_log("helping");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log(" died, status:");
    daemon.wait_for_logs("helping", 2);
    let log = daemon.stop();
    assert_eq!(log.matches("left last").count(), 2, "{log}");
    assert!(log.ends_with("exiting\n"), "{log}");
    assert_eq!(marked(daemon.dir.path()), Vec::<i32>::new());
}

#[test]
fn what_a_worker_leaves_is_killed_if_it_holds_up_the_stop() {
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--stop-timeout=1"])
        .shell("(trap '' TERM; echo helping; exec sleep 611) & exec sleep 612")
        .start();
    daemon.wait_for_log("helping");
    let log = daemon.stop();
    assert!(
        log.contains("has started has not ended in time, sending KILL"),
        "{log}"
    );
    assert_eq!(marked(daemon.dir.path()), Vec::<i32>::new());
}

#[test]
fn what_a_worker_leaves_that_was_late_is_told_to_end() {
    let daemon = Start::new(Program::Ours)
        .options([
            "--wait-ready=3",
            "--retry-delay=600",
            "--retry-max-delay=600",
        ])
        .shell("(trap 'echo told; exit' TERM; while :; do sleep 0.1; done) & exec sleep 613")
        .start();
    daemon.wait_for_log("told");
    assert!(!daemon.log().contains("sending KILL"), "{}", daemon.log());
}

#[test]
fn time_to_end_runs_from_the_first_telling() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "stay")
        .files()
        .options([
            "--interval=0",
            "--stop-timeout=1",
            "--max-old=20",
            "--port=127.0.0.1:0",
        ])
        .start();
    let first = daemon.worker(1);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 1 received TERM");
    // Each restart tells the old workers again, which must not give them more time.
    let mut generation = 2;
    daemon.wait("the end of the first generation", || {
        thread::sleep(Duration::from_millis(200));
        daemon.signal(Signal::SIGHUP);
        generation += 1;
        daemon.worker(generation);
        (!is_running(first)).then_some(())
    });
    daemon.wait_for_log(&format!("old worker {first} died, status:9"));
    assert!(!daemon.log().contains("more than 20 old workers"));
}

#[test]
fn without_a_stop_timeout_nobody_is_killed() {
    let mut daemon = Start::new(Program::Ours)
        .file("mode", "stay")
        .options(["--interval=0", "--stop-timeout=0", "--port=127.0.0.1:0"])
        .start();
    let worker = daemon.worker(1);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_log("generation 1 received TERM");
    thread::sleep(Duration::from_millis(500));
    assert!(is_running(worker));
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    assert!(daemon.wait_for_exit().success());
}

#[test]
fn no_more_old_workers_linger_than_allowed() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "stay")
        .files()
        .options(["--interval=0", "--max-old=2", "--port=127.0.0.1:0"])
        .start();
    for generation in 1..=4 {
        daemon.worker(generation);
        daemon.wait("it to be accepted", || {
            daemon.generations().contains(&generation).then_some(())
        });
        if generation < 4 {
            daemon.signal(Signal::SIGHUP);
        }
    }
    daemon.wait_for_log("more than 2 old workers are left, sending KILL to the oldest");
    daemon.wait_for_generations(&[2, 3, 4]);
    assert!(!is_running(daemon.worker(1)));
}

#[test]
fn worker_that_failed_is_not_taken_for_the_oldest_that_lingers() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready stay")
        .options(["--wait-ready=5", "--max-old=1", "--port=127.0.0.1:0"])
        .options(["--retry-delay=600", "--retry-max-delay=600"])
        .start();
    let first = daemon.worker(1);
    daemon.wait_for_log(&format!("worker {first} is ready"));
    // Two that never get ready are told to end, and have some seconds for that.
    daemon.write("mode", "stay");
    for failed in ["generation 2 failed", "generation 3 failed"] {
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log(failed);
    }
    daemon.write("mode", "ready stay");
    daemon.signal(Signal::SIGHUP);
    let fourth = daemon.worker(4);
    daemon.wait_for_log(&format!("worker {fourth} is ready"));
    daemon.wait_for_log("generation 1 received TERM");
    daemon.signal(Signal::SIGHUP);
    daemon.worker(5);
    daemon.wait_for_log(&format!(
        "more than 1 old workers are left, sending KILL to the oldest, {first}"
    ));
    daemon.wait_for_log(&format!("old worker {first} died, status:9"));
    assert!(is_running(fourth));
    let killed = daemon.log().matches("sending KILL to the oldest").count();
    assert_eq!(killed, 1, "{}", daemon.log());
}

#[test]
fn stopped_worker_is_woken_to_hear_that_it_shall_end() {
    let daemon = Daemon::serving(Program::Ours);
    let first = daemon.worker(1);
    kill(Pid::from_raw(first), Signal::SIGSTOP).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 1 received TERM");
    daemon.wait_for_log(&format!("old worker {first} died, status:0"));
    assert_eq!(daemon.ask("generation"), "2");
}

#[test]
fn stopped_worker_does_not_hold_up_the_end() {
    let mut daemon = Daemon::serving(Program::Ours);
    let first = daemon.worker(1);
    kill(Pid::from_raw(first), Signal::SIGSTOP).unwrap();
    let log = daemon.stop();
    assert!(log.contains("generation 1 received TERM"), "{log}");
}

#[test]
fn workers_die_with_the_super_daemon_if_asked() {
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--port=127.0.0.1:0", "--die-with-parent"])
        .start();
    let first = daemon.worker(1);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log(&format!("old worker {first} died"));
    let second = daemon.worker(2);
    daemon.kill();
    daemon.wait_for_log("generation 2 received TERM");
    daemon.wait("its end", || (!is_running(second)).then_some(()));
}

#[test]
fn signal_of_the_parents_death_can_be_chosen() {
    let mut daemon = Start::new(Program::Ours)
        .options([
            "--interval=0",
            "--port=127.0.0.1:0",
            "--die-with-parent=USR1",
        ])
        .start();
    daemon.worker(1);
    daemon.kill();
    daemon.wait_for_log("generation 1 received USR1");
}

#[test]
fn signal_of_the_parents_death_is_that_of_term_wherever_it_is_told() {
    for options in [
        ["--die-with-parent", "--signal-on-term=USR2"],
        ["--signal-on-term=USR2", "--die-with-parent"],
    ] {
        let mut daemon = Start::new(Program::Ours)
            .options(["--interval=0", "--port=127.0.0.1:0"])
            .options(options)
            .start();
        daemon.worker(1);
        daemon.kill();
        daemon.wait_for_log("generation 1 received USR2");
    }
}

#[test]
fn workers_outlive_a_killed_super_daemon_by_default() {
    both(|program| {
        let mut daemon = Daemon::serving(program);
        let worker = daemon.worker(1);
        daemon.kill();
        assert_eq!(daemon.ask("generation"), "1");
        assert!(is_running(worker));
    });
}

#[test]
fn fifty_starts_and_stops_leave_nothing_behind() {
    let start = Start::new(Program::Ours).files().options([
        "--interval=0",
        "--port=127.0.0.1:0",
        "--path=a.sock",
    ]);
    let start = start.options(["--log-file=| cat >> log"]);
    let dir = start.dir().to_owned();
    let mut command = start.command();
    for _ in 0..50 {
        let mut child = command.spawn().unwrap();
        super::daemon::wait_for("the status file", || {
            fs::read(dir.join("status"))
                .ok()
                .filter(|text| !text.is_empty())
        });
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success());
        let left: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(left, ["log"], "files are left");
        assert_eq!(marked(&dir), [0; 0], "processes are left");
    }
}

#[test]
fn descriptors_do_not_grow_with_the_generations() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options([
            "--interval=0",
            "--port=127.0.0.1:0",
            "--wait-ready",
            "--log-file=| cat >> output",
        ])
        .start();
    let count = || {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .unwrap()
            .count()
    };
    daemon.wait_for_generations(&[1]);
    let before = count();
    for generation in 2..=20 {
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_generations(&[generation]);
    }
    daemon.wait("as few descriptors as before", || {
        (count() <= before).then_some(())
    });
}

#[test]
fn orphans_of_a_worker_are_reaped_by_the_first_process() {
    // What a container's first process has to do.
    let unshare = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--fork", "true"])
        .output();
    if !unshare.is_ok_and(|output| output.status.success()) {
        crate::child::left_out("no pid namespace can be made");
        return;
    }
    let start = Start::new(Program::Ours).file("mode", "stay").options(["--interval=0"]).shell(
        // The orphan ends at once, with nobody but the first process to notice.
        "(sh -c 'echo $$ > orphan.new; mv orphan.new orphan; exit 7' &); \
         until [ -e orphan ]; do sleep 0.02; done; while [ -e /proc/$(cat orphan) ]; do sleep 0.02; done; echo reaped; \
         trap 'echo hung up' USR1; echo ready; while :; do sleep 0.1; done",
    );
    let mut command = std::process::Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
    ]);
    let mut daemon = start.start_by(command);
    let log = daemon.wait_for_log("ready");
    assert!(
        log.contains("start_server (pid:1) starting now..."),
        "{log}"
    );
    assert!(log.contains("reaped"), "{log}");
    let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid())).unwrap();
    let first = Pid::from_raw(child.trim().parse().unwrap());
    kill(first, Signal::SIGUSR1).unwrap();
    daemon.wait_for_log("hung up");
    kill(first, Signal::SIGTERM).unwrap();
    assert!(daemon.wait_for_exit().success(), "{}", daemon.log());
    assert!(daemon.log().contains("exiting"));
}
