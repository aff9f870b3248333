//! What each signal does, and that none of them kills the super-daemon.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::{Daemon, Program, Start, both};
use super::processes::is_running;

#[test]
fn child_signal_that_is_ignored_from_the_start_hides_no_end_of_a_worker() {
    // A shell would not do it.
    let mut ignoring = Command::new("env");
    ignoring.arg("--ignore-signal=CHLD");
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .start_by(ignoring);
    let first = daemon.worker(1);
    daemon.wait_for_generations(&[1]);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    daemon.wait_for_log(&format!("worker {first} died unexpectedly with status:9"));
    daemon.worker(2);
}

#[test]
fn term_ends_the_workers_and_then_the_super_daemon() {
    both(|program| {
        let mut daemon = Daemon::serving(program);
        let worker = daemon.worker(1);
        let log = daemon.stop();
        for text in [
            format!("received TERM, sending TERM to all workers:{worker}"),
            "generation 1 received TERM".into(),
            format!("worker {worker} died, status:0"),
            "exiting".into(),
        ] {
            assert!(log.contains(&text), "{text}: {log}");
        }
        assert!(!is_running(worker));
        assert!(!daemon.path("pid").exists() && !daemon.path("status").exists());
    });
}

#[test]
fn int_always_sends_term() {
    both(|program| {
        let mut daemon = Start::new(program)
            .options([
                "--interval=0",
                "--port=127.0.0.1:0",
                "--signal-on-term=USR1",
            ])
            .start();
        let worker = daemon.worker(1);
        daemon.signal(Signal::SIGINT);
        assert!(daemon.wait_for_exit().success());
        let log = daemon.log();
        assert!(
            log.contains(&format!(
                "received INT, sending TERM to all workers:{worker}"
            )),
            "{log}"
        );
        assert!(log.contains("generation 1 received TERM"), "{log}");
    });
}

#[test]
fn signal_on_term_is_what_the_workers_get() {
    both(|program| {
        for name in ["USR1", "sigusr1", "10"] {
            let mut daemon = Start::new(program)
                .options([
                    "--interval=0",
                    "--port=127.0.0.1:0",
                    "--signal-on-term",
                    name,
                ])
                .start();
            daemon.worker(1);
            let log = daemon.stop();
            assert!(log.contains("generation 1 received USR1"), "{name}: {log}");
        }
    });
}

#[test]
fn signal_on_hup_is_what_old_workers_get() {
    both(|program| {
        let daemon = Start::new(program)
            .options([
                "--interval=0",
                "--port=127.0.0.1:0",
                "--signal-on-hup=SigUsr1",
            ])
            .start();
        let first = daemon.worker(1);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log(&format!(
            "new worker is now running, sending USR1 to old workers:{first}"
        ));
        daemon.wait_for_log("generation 1 received USR1");
        daemon.wait_for_log(&format!("old worker {first} died, status:0"));
    });
}

#[test]
fn every_restart_tells_all_old_workers_again() {
    both(|program| {
        let daemon = Start::new(program)
            .file("mode", "stay")
            .options(["--interval=0", "--port=127.0.0.1:0"])
            .start();
        let first = daemon.worker(1);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("generation 1 received TERM");
        let second = daemon.worker(2);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_logs("generation 1 received TERM", 2);
        let log = daemon.wait_for_log("generation 2 received TERM");
        assert!(names_both(&log, "old", first, second), "{log}");
    });
}

/// Whether TERM was sent to these, in either order: Perl's sorts them as text.
fn names_both(log: &str, which: &str, one: i32, other: i32) -> bool {
    let told = |pids| log.contains(&format!("sending TERM to {which} workers:{pids}\n"));
    told(format!("{one},{other}")) || told(format!("{other},{one}"))
}

#[test]
fn alarm_is_ignored() {
    both(|program| {
        let daemon = Daemon::serving(program);
        daemon.signal(Signal::SIGALRM);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_answer_of(2);
    });
}

#[test]
fn quit_stops_as_term_does() {
    let mut daemon = Start::new(Program::Ours)
        .files()
        .options([
            "--interval=0",
            "--port=127.0.0.1:0",
            "--signal-on-term=USR1",
        ])
        .start();
    let worker = daemon.worker(1);
    daemon.signal(Signal::SIGQUIT);
    assert!(daemon.wait_for_exit().success());
    let log = daemon.log();
    assert!(
        log.contains(&format!(
            "received QUIT, sending USR1 to all workers:{worker}"
        )),
        "{log}"
    );
    assert!(!is_running(worker));
}

#[test]
fn usr1_reaches_a_worker_that_handles_it() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "stay")
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .start();
    daemon.worker(1);
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_log("generation 1 received USR1");
    assert_eq!(daemon.ask("generation"), "1");
}

#[test]
fn usr1_and_winch_do_not_reach_a_worker_they_would_kill() {
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=0"])
        .program(&["sleep", "600"])
        .start();
    let log = daemon.wait_for_log("starting new worker ");
    let worker: i32 = log
        .lines()
        .find_map(|line| line.strip_prefix("starting new worker ")?.parse().ok())
        .unwrap();
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_log(&format!(
        "received USR1, not passed on: worker {worker} does not handle it"
    ));
    daemon.signal(Signal::SIGWINCH);
    assert!(is_running(worker));
    let log = daemon.stop();
    assert!(
        log.contains(&format!("worker {worker} died, status:15")),
        "{log}"
    );
}

#[test]
fn signals_that_count_workers_or_lines_are_passed_on() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0"])
        .shell(
            "for name in TTIN TTOU WINCH; do trap \"echo heard $name\" $name; done; \
             echo up; while :; do sleep 0.05; done",
        )
        .start();
    daemon.wait_for_log("up\n");
    for signal in [Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGWINCH] {
        daemon.signal(signal);
        daemon.wait_for_log(&format!("heard {}\n", &signal.as_str()[3..]));
    }
}

#[test]
fn signal_is_passed_on_to_a_generation_that_is_starting_too() {
    let daemon = Start::new(Program::Ours)
        .options(["--wait-ready=600"])
        .shell("trap 'echo heard' USR1; echo up; while :; do sleep 0.05; done")
        .start();
    daemon.wait_for_log("up\n");
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_log("heard\n");
}

#[test]
fn stop_ends_a_start_that_is_under_way() {
    both(|program| {
        let mut daemon = Start::new(program)
            .options(["--interval=600", "--port=127.0.0.1:0"])
            .start();
        let worker = daemon.worker(1);
        let log = daemon.stop();
        assert!(
            log.contains(&format!("sending TERM to all workers:{worker}")),
            "{log}"
        );
        assert!(!is_running(worker));
    });
}

#[test]
fn stop_between_two_failed_starts_starts_no_more() {
    let mut daemon = Start::new(Program::Ours)
        .file("mode", "exit=1")
        .options(["--interval=0", "--retry-delay=600", "--retry-max-delay=600"])
        .options(["--wait-ready", "--port=127.0.0.1:0"])
        .start();
    daemon.wait_for_log("trying again");
    let log = daemon.stop();
    assert_eq!(log.matches("starting new worker").count(), 1, "{log}");
    assert!(
        log.contains("received TERM, sending TERM to all workers:none"),
        "{log}"
    );
}

#[test]
fn stop_in_the_pause_after_a_failure_starts_no_more_while_it_waits() {
    let mut daemon = Start::new(Program::Ours)
        .file("mode", "ready stay")
        .files()
        .options(["--wait-ready", "--port=127.0.0.1:0"])
        .options(["--retry-delay=1", "--retry-max-delay=1"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "exit=1");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("trying again");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_log("generation 1 received TERM");
    let told = Instant::now();
    daemon.wait("two pauses", || {
        (told.elapsed() >= Duration::from_secs(2)).then_some(())
    });
    kill(Pid::from_raw(daemon.worker(1)), Signal::SIGKILL).unwrap();
    assert!(daemon.wait_for_exit().success());
    let log = daemon.log();
    let (_, after) = log.split_once("received TERM, sending").unwrap();
    assert!(!after.contains("starting new worker"), "{log}");
}

#[test]
fn second_term_and_hangup_while_stopping_change_nothing() {
    both(|program| {
        let mut daemon = Start::new(program)
            .file("mode", "stay")
            .options(["--interval=0", "--port=127.0.0.1:0"])
            .start();
        let worker = daemon.worker(1);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_log("generation 1 received TERM");
        daemon.signal(Signal::SIGTERM);
        daemon.signal(Signal::SIGHUP);
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        assert!(daemon.wait_for_exit().success());
        let log = daemon.log();
        assert_eq!(log.matches("received TERM, sending").count(), 1, "{log}");
        assert_eq!(log.matches("starting new worker").count(), 1, "{log}");
        assert!(!log.contains("received HUP"), "{log}");
    });
}

#[test]
fn term_and_hangup_that_come_together_stop_it() {
    for _ in 0..10 {
        let mut daemon = Daemon::serving(Program::Ours);
        daemon.signal(Signal::SIGHUP);
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait_for_exit().success());
        assert!(
            super::processes::marked(daemon.dir.path()).is_empty(),
            "a worker is left:\n{}",
            daemon.log()
        );
    }
}

#[test]
fn signal_of_the_terminal_reaches_the_super_daemon_alone() {
    // A whole process group is what Ctrl-C goes to; the worker must hear of it
    // once, from the super-daemon.
    use std::os::unix::process::CommandExt;
    let start = Start::new(Program::Ours)
        .file("mode", "")
        .options(["--interval=0", "--port=127.0.0.1:0"]);
    let mut command = start.command();
    command.process_group(0);
    let mut daemon = start.start_as(&mut command);
    let worker = daemon.worker(1);
    kill(Pid::from_raw(-daemon.pid()), Signal::SIGINT).unwrap();
    assert!(daemon.wait_for_exit().success());
    let log = daemon.log();
    assert!(
        log.contains(&format!("worker {worker} died, status:0")),
        "{log}"
    );
}

#[test]
fn status_file_tells_who_is_left_while_all_generations_are_stopped() {
    both(|program| {
        let mut daemon = Start::new(program)
            .file("mode", "stay")
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0"])
            .start();
        let first = daemon.worker(1);
        daemon.wait_for_generations(&[1]);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("generation 1 received TERM");
        let second = daemon.worker(2);
        daemon.wait_for_generations(&[1, 2]);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_logs("generation 1 received TERM", 2);
        let log = daemon.wait_for_log("generation 2 received TERM");
        assert!(names_both(&log, "all", first, second), "{log}");
        assert_eq!(daemon.generations(), [1, 2]);
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        daemon.wait("the one that is left", || {
            (daemon.read("status")? == format!("2:{second}\n")).then_some(())
        });
        kill(Pid::from_raw(second), Signal::SIGKILL).unwrap();
        assert!(daemon.wait_for_exit().success());
        assert!(!daemon.path("status").exists());
    });
}

#[test]
fn stop_is_heard_while_the_worker_keeps_failing() {
    both(|program| {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut daemon = Start::new(program)
                .options(["--interval=1"])
                .shell("exit 1")
                .start();
            daemon.wait_for_log("seems to have failed to start, exit status:256");
            daemon.signal(signal);
            assert!(daemon.wait_for_exit().success(), "{signal}");
            let log = daemon.log();
            assert!(log.ends_with("exiting\n"), "{signal}: {log}");
            assert!(super::processes::marked(daemon.dir.path()).is_empty());
        }
    });
}
