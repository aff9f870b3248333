//! `--wait-ready`: the worker says when it serves.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::{Daemon, Program, Start, stdout};
use super::processes::{is_running, marked, proc_status};
use crate::child;

fn start(mode: &str, options: &[&str]) -> Daemon {
    let daemon = Start::new(Program::Ours)
        .file("mode", mode)
        .files()
        .options([
            "--interval=0",
            "--port=127.0.0.1:0",
            "--retry-delay=600",
            "--retry-max-delay=600",
        ])
        .options(options)
        .start();
    daemon.wait_for_log("starting new worker");
    daemon
}

#[test]
fn worker_is_offered_a_socket_of_the_super_daemons_own() {
    let theirs = tempfile::tempdir().unwrap();
    let theirs = theirs.path().join("notify");
    let _manager = UnixDatagram::bind(&theirs).unwrap();
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options(["--port=127.0.0.1:0", "--wait-ready"])
        .env("NOTIFY_SOCKET", &theirs)
        .start();
    daemon.wait_for_generations(&[1]);
    let ours = daemon.ask("env NOTIFY_SOCKET");
    assert!(ours.starts_with("=@") && !ours.contains("notify"), "{ours}");
}

#[test]
fn without_the_option_no_socket_is_offered_not_even_the_managers() {
    let theirs = tempfile::tempdir().unwrap();
    let theirs = theirs.path().join("notify");
    let _manager = UnixDatagram::bind(&theirs).unwrap();
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .env("NOTIFY_SOCKET", &theirs)
        .env("WATCHDOG_USEC", "600000000")
        .start();
    daemon.worker(1);
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        assert_eq!(daemon.ask(&format!("env {name}")), "unset", "{name}");
    }
}

#[test]
fn old_worker_is_told_only_when_the_new_one_is_ready() {
    let daemon = start("ready", &["--wait-ready"]);
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "await=go ready");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_logs("starting new worker", 2);
    assert_eq!(daemon.ask("generation"), "1");
    assert!(!daemon.log().contains("generation 1 received"));
    daemon.write("go", "");
    daemon.wait_for_generations(&[2]);
    let log = daemon.log();
    let at = |text: &str| {
        log.find(text)
            .unwrap_or_else(|| panic!("no {text:?} in:\n{log}"))
    };
    assert!(at(&format!("worker {} is ready", daemon.worker(2))) < at("new worker is now running"));
    assert!(at("killing old workers") < at("generation 1 received TERM"));
}

#[test]
fn ready_worker_is_not_waited_for_any_longer() {
    let begun = Instant::now();
    let daemon = start("ready", &["--wait-ready=600"]);
    daemon.wait_for_generations(&[1]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_generations(&[2]);
    assert!(begun.elapsed() < Duration::from_secs(500));
}

#[test]
fn kill_old_delay_comes_after_the_readiness() {
    let daemon = start("ready", &["--wait-ready", "--kill-old-delay=3"]);
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "await=go ready");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_logs("starting new worker", 2);
    let ready = Instant::now();
    daemon.write("go", "");
    daemon.wait_for_log("sleeping 3 secs before killing old workers");
    daemon.wait_for_log("generation 1 received TERM");
    assert!(ready.elapsed() >= Duration::from_secs(3));
    daemon.wait_for_generations(&[2]);
}

#[test]
fn worker_that_is_late_is_killed_and_the_old_one_stays() {
    let daemon = start("ready", &["--wait-ready=6"]);
    daemon.wait_for_generations(&[1]);
    // It serves, but it does not say so; and it does not end when it is told.
    daemon.write("mode", "stay");
    daemon.signal(Signal::SIGHUP);
    let second = daemon.worker(2);
    daemon.wait_for_log(&format!(
        "new worker {second} seems to have failed to start: not ready within 6 secs"
    ));
    daemon.wait_for_log("generation 2 failed: not ready within 6 secs; generation 1");
    daemon.wait_for_log("generation 2 received TERM");
    assert_eq!(daemon.generations(), [1]);
    daemon.wait("its end", || (!is_running(second)).then_some(()));
    assert!(!daemon.log().contains("generation 1 received"));
    assert_eq!(daemon.ask("generation"), "1");
}

#[test]
fn worker_that_hangs_before_it_serves_is_killed() {
    let daemon = start("ready", &["--wait-ready=5.5"]);
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "hang");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 2 failed: not ready within 5.5 secs");
    daemon.wait("only one process of a worker", || {
        let workers = marked(daemon.dir.path()).len();
        // The super-daemon and the worker of generation 1.
        (workers == 2).then_some(())
    });
    assert_eq!(daemon.ask("generation"), "1");
}

#[test]
fn worker_that_dies_before_it_is_ready_has_failed() {
    let daemon = start("ready", &["--wait-ready"]);
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "sleep=300 exit=5");
    daemon.signal(Signal::SIGHUP);
    let log = daemon.wait_for_log("generation 2 failed: exited with code 5");
    assert!(
        log.contains("seems to have failed to start, exit status:1280"),
        "{log}"
    );
    assert_eq!(daemon.ask("generation"), "1");
}

#[test]
fn interval_is_not_waited_for_beside_the_readiness() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options(["--interval=600", "--port=127.0.0.1:0", "--wait-ready"])
        .start();
    daemon.wait_for_generations(&[1]);
}

#[test]
fn descendant_of_the_worker_may_say_that_it_is_ready() {
    if !child::has("systemd-notify") {
        return;
    }
    // A shell script: the message comes from a child of it that waits for the
    // barrier, as systemd-notify does.
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready"])
        .shell("systemd-notify --ready --status='all well'; echo told; exec sleep 600")
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.wait_for_log("told");
    let output = daemon.control(&["--status", "--pid-file=pid"]);
    assert!(stdout(&output).contains("all well"));
}

#[test]
fn stranger_is_not_believed() {
    let daemon = start("await=go ready", &["--wait-ready"]);
    let worker = daemon.wait("the worker", || {
        daemon.log().lines().find_map(|line| {
            line.strip_prefix("starting new worker ")?
                .parse::<i32>()
                .ok()
        })
    });
    let name = daemon.wait("its environment", || {
        let environ = std::fs::read(format!("/proc/{worker}/environ")).ok()?;
        let entry = environ
            .split(|byte| *byte == 0)
            .find_map(|entry| entry.strip_prefix(b"NOTIFY_SOCKET=@"))?;
        Some(entry.to_vec())
    });
    let address = SocketAddr::from_abstract_name(name).unwrap();
    UnixDatagram::unbound()
        .unwrap()
        .send_to_addr(b"READY=1", &address)
        .unwrap();
    daemon.wait_for_log(&format!(
        "ignored a notification from process {}, which is no worker's",
        std::process::id()
    ));
    assert!(!daemon.log().contains("is ready"));
    daemon.write("go", "");
    daemon.wait_for_log(&format!("worker {worker} is ready"));
}

#[test]
fn old_worker_cannot_vouch_for_the_new_one() {
    // The old one says READY=1 at each signal, and asks for time; the new one never does.
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready=4", "--signal-on-hup=USR1", "--retry-delay=600", "--retry-max-delay=600"])
        .shell(
            "if [ $SERVER_STARTER_GENERATION = 1 ]; then systemd-notify --ready; trap 'systemd-notify --ready EXTEND_TIMEOUT_USEC=600000000; echo vouched' USR2; fi; \
             echo up $SERVER_STARTER_GENERATION $$; while :; do sleep 0.1; done",
        );
    if !child::has("systemd-notify") {
        return;
    }
    let daemon = daemon.start();
    daemon.wait_for_generations(&[1]);
    // It is ready before it says so.
    daemon.wait_for_log("up 1 ");
    daemon.signal(Signal::SIGHUP);
    let log = daemon.wait_for_log("up 2");
    let first = log
        .lines()
        .find_map(|line| line.strip_prefix("up 1 ")?.parse().ok())
        .unwrap();
    kill(Pid::from_raw(first), Signal::SIGUSR2).unwrap();
    daemon.wait_for_log("vouched");
    daemon.wait_for_log("generation 2 failed: not ready within 4 secs");
    assert_eq!(daemon.generations(), [1]);
}

#[test]
fn crash_loop_of_ready_workers_is_no_storm() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=1", "--wait-ready"])
        .shell("systemd-notify --ready; exit 1");
    if !child::has("systemd-notify") {
        return;
    }
    let begun = Instant::now();
    let daemon = daemon.start();
    daemon.wait_for_logs("died unexpectedly", 4);
    // Three starts, each at least an interval after the one before.
    assert!(
        begun.elapsed() >= Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn worker_may_ask_for_more_time() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready=5"])
        .shell("systemd-notify EXTEND_TIMEOUT_USEC=60000000; sleep 6; systemd-notify --ready; exec sleep 600");
    if !child::has("systemd-notify") {
        return;
    }
    let daemon = daemon.start();
    daemon.wait_for_generations(&[1]);
}

#[test]
fn asking_for_less_time_takes_none_away() {
    if !child::has("systemd-notify") {
        return;
    }
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready=600"])
        .shell(
            "systemd-notify EXTEND_TIMEOUT_USEC=1000; systemd-notify --status=asked; \
             until [ -e go ]; do sleep 0.05; done; systemd-notify --ready; exec sleep 622",
        )
        .start();
    daemon.wait("it to be heard", || {
        let status = daemon.control(&["--status", "--pid-file=pid"]);
        stdout(&status).contains("asked").then_some(())
    });
    daemon.write("go", "");
    daemon.wait_for_generations(&[1]);
}

#[test]
fn descendant_whose_parent_is_gone_is_known_by_its_process_group() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready"])
        .shell("( (sleep 0.3; systemd-notify --ready) & ); exec sleep 600");
    if !child::has("systemd-notify") {
        return;
    }
    let daemon = daemon.start();
    daemon.wait_for_generations(&[1]);
}

#[test]
fn worker_that_has_ended_when_its_readiness_is_heard_has_failed() {
    let daemon = start("ready", &["--wait-ready"]);
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "await=go ready end");
    daemon.signal(Signal::SIGHUP);
    let log = daemon.wait_for_logs("starting new worker", 2);
    let worker = log.rsplit_once("starting new worker ").unwrap().1;
    let worker: i32 = worker.lines().next().unwrap().parse().unwrap();
    // Both are there to be seen at once.
    daemon.signal(Signal::SIGSTOP);
    daemon.wait("it to stand still", || {
        let state = proc_status(daemon.pid(), "State");
        state.starts_with('T').then_some(())
    });
    daemon.write("go", "");
    daemon.wait("the end of the worker", || {
        (!is_running(worker)).then_some(())
    });
    daemon.signal(Signal::SIGCONT);
    let log = daemon.wait_for_log("generation 2 failed: exited with code 3");
    assert!(log.contains(&format!("worker {worker} is ready")), "{log}");
    assert!(!log.contains("now running"), "{log}");
    assert_eq!(daemon.generations(), [1]);
}

#[test]
fn worker_that_waits_for_an_answer_to_its_readiness_is_no_stranger() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready"])
        .shell("systemd-notify --ready; echo answered; exec sleep 600");
    if !child::has("systemd-notify") {
        return;
    }
    let mut daemon = daemon.start();
    daemon.wait_for_log("answered");
    daemon.wait_for_generations(&[1]);
    let log = daemon.stop();
    assert!(!log.contains("ignored"), "{log}");
}

#[test]
fn helper_that_ends_with_the_answer_is_known_if_its_messages_are_heard_together() {
    if !child::has("systemd-notify") {
        return;
    }
    // In a session of its own, it is known only by its parents, and is gone as soon as
    // the barrier behind its message is taken.
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready", "--retry-delay=0.1"])
        .shell(
            "touch started-$SERVER_STARTER_GENERATION; \
             until [ -e go-$SERVER_STARTER_GENERATION ]; do sleep 0.01; done; \
             setsid sh -c 'systemd-notify --ready; true' & exec sleep 615",
        );
    let daemon = daemon.start();
    for generation in 1..=10 {
        daemon.wait("the start", || {
            let started = daemon.path(&format!("started-{generation}"));
            started.exists().then_some(())
        });
        daemon.signal(Signal::SIGSTOP);
        daemon.wait("it to stand still", || {
            let state = proc_status(daemon.pid(), "State");
            state.starts_with('T').then_some(())
        });
        daemon.write(&format!("go-{generation}"), "");
        // It has sent both, and waits for the answer to the second.
        daemon.wait("the helper to wait", || {
            let waits = |pid: &i32| {
                proc_status(*pid, "Name") == "systemd-notify"
                    && proc_status(*pid, "State").starts_with('S')
            };
            marked(daemon.dir.path()).iter().any(waits).then_some(())
        });
        daemon.signal(Signal::SIGCONT);
        daemon.wait_for_generations(&[generation]);
        daemon.signal(Signal::SIGHUP);
    }
    assert!(!daemon.log().contains("ignored"), "{}", daemon.log());
}
