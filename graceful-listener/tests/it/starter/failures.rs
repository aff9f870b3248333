//! Workers that die, and generations that never serve.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::daemon::{Daemon, Program, Start, both, finish, number_after, stderr, stdout};
use super::processes::is_running;

#[test]
fn dead_worker_is_replaced_at_once() {
    both(|program| {
        let daemon = Daemon::serving(program);
        let first = daemon.worker(1);
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        let log = daemon.wait_for_log("serving as generation 2");
        assert!(
            log.contains(&format!(
                "worker {first} died unexpectedly with status:9, restarting"
            )),
            "{log}"
        );
        assert!(!log.contains("sending TERM to old workers"), "{log}");
    });
}

#[test]
fn exit_of_a_serving_worker_is_unexpected_whatever_its_status() {
    both(|program| {
        let daemon = Daemon::serving(program);
        let first = daemon.worker(1);
        // It exits with 0 then.
        kill(Pid::from_raw(first), Signal::SIGTERM).unwrap();
        daemon.wait_for_log(&format!(
            "worker {first} died unexpectedly with status:0, restarting"
        ));
        daemon.wait_for_answer_of(2);
    });
}

#[test]
fn start_is_tried_again_until_it_succeeds() {
    both(|program| {
        let daemon = Start::new(program)
            .file("mode", "exit=3")
            .options(["--interval=3", "--port=127.0.0.1:0", "--status-file=status"])
            .start();
        let log = daemon.wait_for_log("seems to have failed to start, exit status:768");
        assert!(log.contains("starting new worker"), "{log}");
        daemon.write("mode", "");
        daemon.wait("a serving generation", || daemon.workers().first().copied());
        let (generation, pid) = daemon.workers()[0];
        assert!(generation > 1, "a failed start uses up its number");
        daemon.wait("the status file", || {
            (daemon.read("status")? == format!("{generation}:{pid}\n")).then_some(())
        });
    });
}

#[test]
fn failed_restart_leaves_the_old_worker_serving() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=3", "--port=127.0.0.1:0"])
            .start();
        daemon.wait_for_generations(&[1]);
        daemon.write("mode", "exit=1");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_logs("seems to have failed to start, exit status:256", 2);
        assert_eq!(daemon.ask("generation"), "1");
        assert_eq!(daemon.generations(), [1]);
        daemon.write("mode", "");
        daemon.wait("a later generation", || {
            (daemon.generations().first()? > &3).then_some(())
        });
        let log = daemon.wait_for_log("killing old workers");
        assert!(log.contains("generation 1 received TERM"), "{log}");
    });
}

#[test]
fn failed_restart_is_told_with_reason_and_what_goes_on() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options(["--wait-ready", "--port=127.0.0.1:0"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "say=out-of-luck exit=7");
    daemon.signal(Signal::SIGHUP);
    let log = daemon.wait_for_log("generation 2 failed: exited with code 7");
    assert!(
        log.contains(&format!(
            "generation 1 (worker {}) goes on serving",
            daemon.worker(1)
        )),
        "{log}"
    );
    assert!(log.contains("out-of-luck"), "{log}");
}

#[test]
fn failures_are_further_and_further_apart() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "exit=1")
        .options([
            "--wait-ready",
            "--retry-delay=0.2",
            "--retry-max-delay=0.8",
            "--port=127.0.0.1:0",
        ])
        .start();
    // What is told is what is left of the gap when the worker has died: that takes a while.
    let delays = daemon.wait("the longest pause but for the start", || {
        Some(delays(&daemon)).filter(|delays| delays.iter().any(|delay| *delay > 0.5))
    });
    assert!(delays[0] <= 0.2 && delays[1] <= 0.4, "{delays:?}");
    daemon.wait_for_logs("trying again in", delays.len() + 2);
    let delays = self::delays(&daemon);
    assert!(delays.iter().all(|delay| *delay <= 0.8), "{delays:?}");
}

#[test]
fn failures_that_take_longer_than_the_pause_are_no_less_apart() {
    let daemon = Start::new(Program::Ours)
        .options(["--wait-ready=2", "--retry-delay=0.5"])
        .program(&["sleep", "652"])
        .start();
    daemon.wait_for_logs("trying again in", 2);
    // As long as the gap has grown since the first.
    let delays = delays(&daemon);
    assert!(delays[1] >= 0.5, "{delays:?}");
}

#[test]
fn longest_pause_does_not_cut_a_longer_first_one() {
    let begun = Instant::now();
    let daemon = Start::new(Program::Ours)
        .options(["--retry-delay=2", "--retry-max-delay=0.1", "--wait-ready"])
        .shell("exit 1")
        .start();
    daemon.wait_for_logs("starting new worker", 2);
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

/// The pauses that were told after failed starts.
fn delays(daemon: &Daemon) -> Vec<f64> {
    let log = daemon.log();
    let told = log.lines().filter_map(|line| {
        let secs = line.split_once("trying again in ")?.1;
        secs.strip_suffix(" secs")?.parse().ok()
    });
    told.collect()
}

#[test]
fn restart_asked_for_during_the_pause_begins_at_once() {
    let daemon = Start::new(Program::Ours).files().options([
        "--interval=0",
        "--retry-delay=600",
        "--retry-max-delay=600",
    ]);
    let daemon = daemon
        .options(["--port=127.0.0.1:0", "--wait-ready"])
        .file("mode", "ready")
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "exit=1");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 2 failed");
    daemon.write("mode", "ready");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_generations(&[3]);
}

#[test]
fn hangups_while_the_new_release_fails_are_no_storm_of_starts() {
    let begun = Instant::now();
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=3"])
        .shell("[ $SERVER_STARTER_GENERATION = 1 ] && exec sleep 600; exit 1")
        .start();
    daemon.wait_for_generations(&[1]);
    let mut hangups = 0;
    daemon.wait("three failures", || {
        daemon.signal(Signal::SIGHUP);
        hangups += 1;
        (daemon.log().matches(" failed: exited with code 1").count() >= 3).then_some(())
    });
    let starts = daemon.log().matches("starting new worker").count();
    // One for each interval that has passed.
    let most = begun.elapsed().as_secs() / 3 + 1;
    assert!(
        starts as u64 <= most,
        "{hangups} hangups, {starts} starts, at most {most} expected"
    );
    assert_eq!(daemon.generations(), [1]);
}

#[test]
fn program_that_is_missing_at_a_restart_changes_nothing() {
    let start = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--retry-delay=0.1"]);
    let link = start.dir().join("app");
    std::os::unix::fs::symlink("/bin/sleep", &link).unwrap();
    let daemon = start.program(&["./app", "600"]).start();
    daemon.wait_for_generations(&[1]);
    std::fs::remove_file(&link).unwrap();
    daemon.signal(Signal::SIGHUP);
    let log = daemon.wait_for_logs("failed to exec ./app: No such file or directory", 2);
    assert!(log.contains("seems to have failed to start"), "{log}");
    assert_eq!(daemon.generations(), [1]);
    std::os::unix::fs::symlink("/bin/sleep", &link).unwrap();
    daemon.wait("a later generation", || {
        (daemon.generations().first()? > &1).then_some(())
    });
}

#[test]
fn program_that_cannot_be_executed_ends_the_first_start() {
    for (words, code, text) in [
        (
            &["./missing"][..],
            2,
            "failed to exec ./missing: No such file or directory",
        ),
        (
            &["no-such-program-anywhere"],
            2,
            "failed to exec no-such-program-anywhere",
        ),
        (
            &["/etc/passwd"],
            13,
            "failed to exec /etc/passwd: Permission denied",
        ),
    ] {
        let start = Start::new(Program::Ours)
            .files()
            .options(["--path=a.sock"])
            .program(words);
        let dir = start.dir().to_owned();
        let output = finish(start.command());
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
        assert_eq!(
            std::fs::read_dir(dir).unwrap().count(),
            0,
            "something is left behind"
        );
    }
}

#[test]
fn bad_directory_ends_the_first_start() {
    let output = Start::new(Program::Ours).options(["--dir=nowhere"]).run();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("failed to chdir:nowhere: No such file or directory"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn generation_that_dies_before_the_old_one_was_told_is_taken_back() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options([
            "--interval=0",
            "--port=127.0.0.1:0",
            "--kill-old-delay=600",
            "--retry-delay=600",
            "--retry-max-delay=600",
        ])
        .start();
    daemon.wait_for_log("serving as generation 1");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_generations(&[1, 2]);
    let second = daemon.worker(2);
    kill(Pid::from_raw(second), Signal::SIGKILL).unwrap();
    daemon.wait_for_log(
        "generation 2 failed: killed by signal 9 (SIGKILL) before the old workers were told to end",
    );
    daemon.wait_for_generations(&[1]);
    assert_eq!(daemon.ask("generation"), "1");
    assert!(!daemon.log().contains("generation 1 received"));
}

#[test]
fn successor_of_a_generation_that_died_before_the_old_one_was_told_tells_it() {
    let daemon = Start::new(Program::Ours)
        .file("env/KILL_OLD_DELAY", "600\n")
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0", "--envdir=env"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.worker(1);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("sleeping 600 secs before killing old workers");
    daemon.write("env/KILL_OLD_DELAY", "0\n");
    kill(Pid::from_raw(daemon.worker(2)), Signal::SIGKILL).unwrap();
    daemon.wait_for_log("generation 1 received TERM");
    daemon.wait_for_generations(&[3]);
}

#[test]
fn crash_of_a_worker_tells_what_it_has_started_to_end() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0"])
        .shell("sleep 601 & echo started $!; wait")
        .start();
    let log = daemon.wait_for_log("started ");
    let helper = number_after(&log, "started ");
    // It is a crash only if the worker was taken for one that serves.
    daemon.wait_for_generations(&[1]);
    let worker = number_after(&daemon.log(), "starting new worker ");
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    daemon.wait_for_log(&format!("worker {worker} died unexpectedly"));
    daemon.wait("the end of what it has started", || {
        (!is_running(helper)).then_some(())
    });
}

#[test]
fn death_of_the_serving_worker_ends_the_pause_after_a_failed_restart() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0", "--wait-ready"])
        .options(["--retry-delay=600", "--retry-max-delay=600"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "exit=1");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 2 failed");
    daemon.write("mode", "ready");
    kill(Pid::from_raw(daemon.worker(1)), Signal::SIGKILL).unwrap();
    daemon.wait_for_generations(&[3]);
}

#[test]
fn restart_asked_for_begins_with_the_shortest_pause_again() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options(["--port=127.0.0.1:0", "--wait-ready", "--retry-delay=0.3"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "exit=1");
    daemon.signal(Signal::SIGHUP);
    let before = daemon.wait("a longer pause", || {
        let delays = delays(&daemon);
        (*delays.last()? > 0.6).then_some(delays.len())
    });
    daemon.signal(Signal::SIGHUP);
    // One more start may have been under way.
    daemon.wait("the shortest pause", || {
        let delays = delays(&daemon);
        let mut after = delays[before..].iter();
        after.any(|delay| *delay <= 0.3).then_some(())
    });
}

#[test]
fn death_of_the_serving_worker_during_a_restart_starts_no_third() {
    both(|program| {
        let mut daemon = Start::new(program)
            .files()
            .options(["--interval=4", "--port=127.0.0.1:0"])
            .start();
        daemon.wait_for_generations(&[1]);
        daemon.signal(Signal::SIGHUP);
        daemon.worker(2);
        kill(Pid::from_raw(daemon.worker(1)), Signal::SIGKILL).unwrap();
        daemon.wait_for_log("killing old workers");
        daemon.wait_for_generations(&[2]);
        assert_eq!(daemon.ask("generation"), "2");
        let log = daemon.stop();
        assert_eq!(log.matches("starting new worker").count(), 2, "{log}");
        assert!(!log.contains(", restarting"), "{log}");
    });
}

#[test]
fn status_of_a_generation_that_is_being_killed_is_that_it_failed() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready stay")
        .files()
        .options(["--port=127.0.0.1:0", "--wait-ready=5"])
        .options(["--retry-delay=600", "--retry-max-delay=600"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "stay");
    daemon.signal(Signal::SIGHUP);
    let second = daemon.worker(2);
    // Those that have failed have some seconds to end.
    daemon.wait_for_log("generation 2 failed");
    let state = daemon.wait("another state", || {
        let status = daemon.control(&["--status", "--json", "--pid-file=pid"]);
        let status: Value = serde_json::from_str(&stdout(&status)).unwrap();
        let of = |pid: i32| {
            let mut found = status["generations"].as_array().unwrap().iter();
            let found = found.find(|it| it["pid"] == pid);
            found.map(|it| it["state"].as_str().unwrap().to_owned())
        };
        assert_eq!(of(daemon.worker(1)).unwrap(), "serving");
        (of(second).as_deref() != Some("starting")).then(|| of(second))
    });
    // It may have come too late to see it.
    assert!(
        matches!(state.as_deref(), None | Some("failed")),
        "{state:?}"
    );
    assert_eq!(daemon.generations(), [1]);
    // A file that is written meanwhile has only those that serve or have served.
    daemon.write("mode", "ready stay");
    daemon.signal(Signal::SIGHUP);
    daemon.wait("the next generation", || {
        let generations = daemon.generations();
        assert!(!generations.contains(&2), "{generations:?}");
        (generations == [1, 3]).then_some(())
    });
    daemon.wait_for_log("generation 1 received TERM");
    kill(Pid::from_raw(daemon.worker(1)), Signal::SIGKILL).unwrap();
    daemon.wait("the only one that serves", || {
        let generations = daemon.generations();
        assert!(!generations.contains(&2), "{generations:?}");
        (generations == [3]).then_some(())
    });
}

#[test]
fn generation_that_was_not_told_to_end_takes_over_and_not_one_that_lingers() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "stay")
        .file("env/KILL_OLD_DELAY", "0\n")
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0", "--envdir=env"])
        .options(["--retry-delay=600", "--retry-max-delay=600"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.worker(1);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 1 received TERM");
    daemon.write("env/KILL_OLD_DELAY", "600\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("sleeping 600 secs before killing old workers");
    daemon.wait_for_generations(&[1, 2, 3]);
    let (second, third) = (daemon.worker(2), daemon.worker(3));
    kill(Pid::from_raw(third), Signal::SIGKILL).unwrap();
    daemon.wait_for_log(&format!(
        "before the old workers were told to end; generation 2 (worker {second}) goes on serving"
    ));
    daemon.wait_for_generations(&[1, 2]);
    assert!(!daemon.log().contains("generation 2 received TERM"));
    let status = stdout(&daemon.control(&["--status", "--json", "--pid-file=pid"]));
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["generations"][1]["state"], "serving");
}
