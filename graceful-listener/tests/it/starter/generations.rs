//! The life of a worker: its environment, its start, its death, its successor.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::{Daemon, Program, Start, both, finish, is_running, proc_status, stderr};

#[test]
fn generations_are_counted_from_one() {
    both(|program| {
        let daemon = Daemon::serving(program);
        assert_eq!(daemon.ask("generation"), "1");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_answer_of(2);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_answer_of(3);
    });
}

#[test]
fn every_generation_has_the_same_sockets() {
    both(|program| {
        let daemon = Daemon::serving(program);
        let ports = daemon.ask("env SERVER_STARTER_PORT");
        assert!(ports.starts_with("=127.0.0.1:0="), "{ports}");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_answer_of(2);
        assert_eq!(daemon.ask("env SERVER_STARTER_PORT"), ports);
    });
}

#[test]
fn options_are_told_to_the_worker_in_its_environment() {
    both(|program| {
        let daemon = Start::new(program)
            .file("env/COLOUR", "blue\nsecond line\n")
            .options([
                "--interval=0",
                "--port=127.0.0.1:0",
                "--envdir=env",
                "--kill-old-delay=1",
            ])
            .options(["--enable-auto-restart", "--auto-restart-interval=100"])
            // The options go first.
            .env("ENVDIR", "nowhere")
            .env("ENABLE_AUTO_RESTART", "0")
            .env("AUTO_RESTART_INTERVAL", "700")
            .start();
        daemon.wait_for_log("serving as");
        for (name, value) in [
            ("COLOUR", "=blue"),
            ("ENVDIR", "=env"),
            ("KILL_OLD_DELAY", "=1"),
            ("ENABLE_AUTO_RESTART", "=1"),
            ("AUTO_RESTART_INTERVAL", "=100"),
            ("SERVER_STARTER_GENERATION", "=1"),
        ] {
            assert_eq!(daemon.ask(&format!("env {name}")), value, "{name}");
        }
    });
}

#[test]
fn options_that_are_not_given_are_not_in_the_environment() {
    both(|program| {
        let daemon = Daemon::serving(program);
        for name in [
            "ENVDIR",
            "KILL_OLD_DELAY",
            "ENABLE_AUTO_RESTART",
            "AUTO_RESTART_INTERVAL",
            "NOTIFY_SOCKET",
        ] {
            assert_eq!(daemon.ask(&format!("env {name}")), "unset", "{name}");
        }
    });
}

#[test]
fn worker_is_started_in_the_directory_asked_for() {
    both(|program| {
        let start = Start::new(program).file("sub/keep", "");
        let sub = start.dir().join("sub").canonicalize().unwrap();
        let daemon = start
            .options([
                "--interval=0",
                "--port=127.0.0.1:0",
                "--dir=sub",
                "--pid-file=pid",
            ])
            .start();
        daemon.wait_for_log("serving as");
        assert_eq!(daemon.ask("cwd"), sub.to_str().unwrap());
        // The super-daemon itself stays where it was.
        assert!(daemon.path("pid").exists());
    });
}

#[test]
fn relative_program_is_found_in_the_directory_asked_for() {
    both(|program| {
        let start = Start::new(program).file("sub/keep", "");
        let script = "#!/bin/sh\necho here; exec sleep 600\n";
        crate::executable::write(&start.dir().join("sub/run"), script);
        let daemon = start.options(["--dir=sub"]).program(&["./run"]).start();
        daemon.wait_for_log("here");
    });
}

#[test]
fn worker_has_the_signal_state_of_perls() {
    both(|program| {
        // A program that changes nothing by itself.
        let daemon = Start::new(program)
            .program(&["grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status"])
            .start();
        let log = daemon.wait_for_log("SigCgt:");
        let mask = |status: &str, key: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap();
            // Above these are the C library's own.
            u64::from_str_radix(line.trim(), 16).unwrap() & 0x7fff_ffff
        };
        assert_eq!(mask(&log, "SigBlk:"), 0, "{log}");
        let pipe = 1 << (Signal::SIGPIPE as u64 - 1);
        // A shell's background job ignores QUIT, and all its descendants do.
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let inherited = mask(&own, "SigIgn:") & !pipe;
        assert_eq!(mask(&log, "SigIgn:") & !inherited, pipe, "{log}");
    });
}

#[test]
fn hangup_ignored_by_nohup_still_restarts_and_is_not_ignored_by_the_worker() {
    both(|program| {
        let start = Start::new(program)
            .options(["--interval=0", "--signal-on-hup=HUP"])
            .program(&["sleep", "600"]);
        let mut command = std::process::Command::new("nohup");
        let inner = start.command();
        command
            .arg(inner.get_program())
            .args(inner.get_args())
            .current_dir(start.dir());
        command.envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let daemon = start.start_as(&mut command);
        daemon.wait_for_log("starting new worker");
        daemon.wait("the program to be executed", || {
            super::daemon::marked(daemon.dir.path())
                .iter()
                .any(|pid| {
                    std::fs::read_to_string(format!("/proc/{pid}/comm"))
                        .is_ok_and(|name| name == "sleep\n")
                })
                .then_some(())
        });
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("died, status:1");
    });
}

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
        .options(["--interval=2"])
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
    let most = begun.elapsed().as_secs() / 2 + 1;
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
fn worker_leads_a_process_group_in_the_session_of_the_super_daemon() {
    let daemon = Daemon::serving(Program::Ours);
    let worker = daemon.worker(1);
    let of = |pid| {
        let pid = Some(Pid::from_raw(pid));
        (
            nix::unistd::getpgid(pid).unwrap().as_raw(),
            nix::unistd::getsid(pid).unwrap(),
        )
    };
    assert_eq!(of(worker).0, worker);
    assert_eq!(of(worker).1, of(daemon.pid()).1);
}

#[test]
fn old_worker_serves_until_the_new_one_has_lived_for_the_interval() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=4", "--port=127.0.0.1:0"])
            .start();
        daemon.wait_for_generations(&[1]);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("serving as generation 2");
        // Both serve now; the status file tells of the old one only.
        assert_eq!(daemon.generations(), [1]);
        assert!(is_running(daemon.worker(1)));
        daemon.wait_for_generations(&[2]);
        let log = daemon.log();
        let order = [
            "received HUP, spawning a new worker".to_owned(),
            format!(
                "new worker is now running, sending TERM to old workers:{}",
                daemon.worker(1)
            ),
            "killing old workers".into(),
            "generation 1 received TERM".into(),
            format!("old worker {} died, status:0", daemon.worker(1)),
        ];
        let mut rest = &log[..];
        for text in order {
            let at = rest
                .find(&text)
                .unwrap_or_else(|| panic!("{text:?} is not in its place in:\n{log}"));
            rest = &rest[at + text.len()..];
        }
    });
}

#[test]
fn hangup_during_a_start_does_not_shorten_it() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=2", "--port=127.0.0.1:0"])
        .start();
    daemon.wait_for_generations(&[1]);
    let begun = Instant::now();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_logs("starting new worker", 2);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("killing old workers");
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "the interval was cut short"
    );
}

#[test]
fn hangups_during_a_start_make_one_more_generation() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options(["--wait-ready", "--port=127.0.0.1:0"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "await=go ready");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_logs("starting new worker", 2);
    for times in 1..=5 {
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_logs("when the current start is complete", times);
    }
    daemon.write("go", "");
    daemon.wait_for_generations(&[3]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_generations(&[4]);
}

#[test]
fn kill_old_delay_keeps_both_generations() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0", "--kill-old-delay=4"])
            .start();
        daemon.wait_for_log("serving as generation 1");
        daemon.signal(Signal::SIGHUP);
        let log = daemon.wait_for_log("sleeping 4 secs before killing old workers");
        assert!(!log.contains("\nkilling old workers"), "{log}");
        daemon.wait_for_generations(&[1, 2]);
        assert!(!daemon.log().contains("generation 1 received"));
        daemon.wait_for_generations(&[2]);
        daemon.wait_for_log("generation 1 received TERM");
    });
}

#[test]
fn kill_old_delay_may_come_from_the_environment() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0"])
            .env("KILL_OLD_DELAY", "1")
            .start();
        daemon.wait_for_log("serving as generation 1");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("sleeping 1 secs before killing old workers");
        daemon.wait_for_generations(&[2]);
    });
}

#[test]
fn times_that_never_come_do_not_stop_the_super_daemon() {
    let eternity = "99999999999999999999999";
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=1", "--port=127.0.0.1:0"])
        .env("ENABLE_AUTO_RESTART", "1")
        .env("AUTO_RESTART_INTERVAL", eternity)
        .env("KILL_OLD_DELAY", eternity)
        .start();
    daemon.wait_for_log("serving as generation 1");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("before killing old workers");
    daemon.wait_for_generations(&[1, 2]);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_log("exiting");
}

#[test]
fn option_beats_the_environment_for_the_kill_old_delay() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0", "--kill-old-delay=1"])
            .env("KILL_OLD_DELAY", "600")
            .start();
        daemon.wait_for_log("serving as generation 1");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("sleeping 1 secs");
    });
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
fn stop_during_the_kill_old_delay_is_served_at_once() {
    let mut daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0", "--kill-old-delay=600"])
        .start();
    daemon.wait_for_log("serving as generation 1");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_generations(&[1, 2]);
    daemon.wait_for_log("serving as generation 2");
    let log = daemon.stop();
    assert!(
        log.contains("generation 1 received TERM") && log.contains("generation 2 received TERM"),
        "{log}"
    );
}

#[test]
fn idle_super_daemon_is_never_woken() {
    let daemon = Start::new(Program::Ours).files().options([
        "--interval=0",
        "--port=127.0.0.1:0",
        "--wait-ready",
    ]);
    let daemon = daemon.file("mode", "ready").start();
    daemon.wait_for_generations(&[1]);
    let pid = daemon.pid();
    let switches = || {
        let of = |key| proc_status(pid, key).parse::<u64>().unwrap();
        of("voluntary_ctxt_switches") + of("nonvoluntary_ctxt_switches")
    };
    // It may still have something to do at first.
    daemon.wait("three seconds of sleep", || {
        let before = switches();
        std::thread::sleep(Duration::from_secs(3));
        let sleeps = proc_status(pid, "State").starts_with('S');
        (sleeps && switches() == before).then_some(())
    });
}

#[test]
fn super_daemon_has_one_thread() {
    let daemon = Daemon::serving(Program::Ours);
    assert_eq!(proc_status(daemon.pid(), "Threads"), "1");
}

#[test]
fn crash_of_a_worker_tells_what_it_has_started_to_end() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0"])
        .shell("sleep 601 & echo started $!; wait")
        .start();
    let log = daemon.wait_for_log("started ");
    let helper: i32 = log
        .lines()
        .find_map(|line| line.strip_prefix("started ")?.parse().ok())
        .unwrap();
    // The worker may be faster to say something than whoever has started it.
    let worker = daemon.wait("the worker", || {
        let log = daemon.log();
        let mut lines = log.lines();
        lines.find_map(|line| line.strip_prefix("starting new worker ")?.parse().ok())
    });
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
fn hangup_during_the_kill_old_delay_neither_shortens_it_nor_is_lost() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0", "--kill-old-delay=4"])
            .start();
        daemon.worker(1);
        daemon.wait_for_generations(&[1]);
        let begun = Instant::now();
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("sleeping 4 secs before killing old workers");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("\nkilling old workers");
        // Perl counts whole seconds, and may take one that has just begun for one.
        assert!(
            begun.elapsed() >= Duration::from_secs(3),
            "it was cut short"
        );
        daemon.wait_for_generations(&[3]);
        let log = daemon.log();
        assert_eq!(log.matches("sleeping 4 secs").count(), 2, "{log}");
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
fn stop_during_a_restart_ends_the_old_worker_and_the_new_one() {
    both(|program| {
        let mut daemon = Start::new(program)
            .files()
            .options(["--interval=6", "--port=127.0.0.1:0"])
            .start();
        let first = daemon.worker(1);
        daemon.wait_for_generations(&[1]);
        daemon.signal(Signal::SIGHUP);
        let second = daemon.worker(2);
        let log = daemon.stop();
        assert!(!is_running(first) && !is_running(second), "{log}");
        assert_eq!(log.matches("starting new worker").count(), 2, "{log}");
    });
}

#[test]
fn worker_finds_its_sockets_with_perls_own_library() {
    both(|program| {
        let daemon = Start::new(program)
            .options(["--interval=0", "--port=127.0.0.1:0=7", "--path=a.sock"])
            .shell(
                "perl -MServer::Starter=server_ports -e '$p = server_ports(); \
                 print \"ports are \", join(\" \", map { \"$_=$p->{$_}\" } sort keys %$p), \"\\n\"'; \
                 exec sleep 628",
            )
            .start();
        if !super::daemon::has_perl() {
            return;
        }
        let log = daemon.wait_for_log("ports are ");
        assert!(log.contains("ports are 127.0.0.1:0=7 a.sock="), "{log}");
    });
}
