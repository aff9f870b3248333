//! The restart that comes by itself after an interval.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::{Daemon, Program, Start, both};

#[test]
fn auto_restart_comes_after_the_interval() {
    both(|program| {
        let begun = Instant::now();
        let daemon = Start::new(program)
            .files()
            .options([
                "--interval=0",
                "--port=127.0.0.1:0",
                "--enable-auto-restart",
            ])
            .options(["--auto-restart-interval=3", "--kill-old-delay=1"])
            .start();
        daemon.wait_for_log("serving as generation 1");
        daemon.wait_for_log("autorestart triggered (interval=3)");
        // Perl counts whole seconds, and may take one that has just begun for one.
        assert!(begun.elapsed() >= Duration::from_secs(2), "it came early");
        daemon.wait_for_log("sleeping 1 secs before killing old workers");
        daemon.wait_for_log("generation 1 received TERM");
        daemon.wait_for_log("serving as generation 3");
    });
}

#[test]
fn auto_restart_is_forced_if_an_old_worker_lingers() {
    both(|program| {
        let daemon = Start::new(program)
            .file("mode", "stay")
            .files()
            .options([
                "--interval=0",
                "--port=127.0.0.1:0",
                "--enable-auto-restart",
            ])
            .options(["--auto-restart-interval=1", "--kill-old-delay=0"])
            .start();
        daemon.wait_for_log("autorestart triggered (interval=1)");
        daemon.wait_for_log("autorestart triggered (forced, interval=1)");
    });
}

#[test]
fn auto_restart_is_off_by_what_perl_takes_for_false() {
    both(|program| {
        for value in ["", "0"] {
            let daemon = Start::new(program)
                .files()
                .options(["--interval=0", "--port=127.0.0.1:0"])
                .env("ENABLE_AUTO_RESTART", value)
                .start();
            daemon.wait_for_generations(&[1]);
            daemon.signal(Signal::SIGHUP);
            let log = daemon.wait_for_log("killing old workers");
            assert!(!log.contains("sleeping"), "{value:?}: {log}");
        }
    });
}

#[test]
fn auto_restart_waits_five_seconds_before_it_kills_by_default() {
    both(|program| {
        let daemon = Start::new(program)
            .options(["--interval=0", "--port=127.0.0.1:0"])
            .env("ENABLE_AUTO_RESTART", "1")
            .env("AUTO_RESTART_INTERVAL", "600")
            .start();
        daemon.wait_for_log("serving as generation 1");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("sleeping 5 secs before killing old workers");
    });
}

#[test]
fn auto_restart_may_come_from_the_environment_alone() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0"])
            .env("ENABLE_AUTO_RESTART", "1")
            .env("AUTO_RESTART_INTERVAL", "1")
            .env("KILL_OLD_DELAY", "0")
            .start();
        daemon.wait_for_log("autorestart triggered (interval=1)");
        daemon.worker(2);
    });
}

#[test]
fn envdir_changes_the_interval_of_the_auto_restart_while_nothing_else_happens() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0", "--envdir=env"])
            .file("env/ENABLE_AUTO_RESTART", "1\n")
            .file("env/KILL_OLD_DELAY", "0\n")
            .file("env/AUTO_RESTART_INTERVAL", "600\n")
            .start();
        daemon.worker(1);
        daemon.wait_for_generations(&[1]);
        daemon.write("env/AUTO_RESTART_INTERVAL", "1\n");
        daemon.wait_for_log("autorestart triggered (interval=1)");
        daemon.worker(2);
    });
}

#[test]
fn auto_restart_does_not_come_in_the_middle_of_a_start() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=3", "--enable-auto-restart"])
            .options(["--auto-restart-interval=1", "--kill-old-delay=0"])
            .shell("exec sleep 638")
            .start();
        let log = daemon.wait_for_logs("starting new worker", 3);
        let steps = [
            "starting",
            "autorestart",
            "starting",
            "new worker is now running",
            "autorestart",
            "starting",
        ];
        let told = log.lines().filter_map(|line| {
            let is_begun = |step: &&&str| line.starts_with(**step);
            steps.iter().find(is_begun).copied()
        });
        assert_eq!(told.take(steps.len()).collect::<Vec<_>>(), steps, "{log}");
    });
}

#[test]
fn auto_restart_counts_from_a_restart_that_was_asked_for() {
    counts_from("received HUP", |daemon| daemon.signal(Signal::SIGHUP));
}

#[test]
fn auto_restart_counts_from_the_replacement_of_a_worker_that_died() {
    counts_from("died unexpectedly", |daemon| {
        daemon.wait("the death of the worker that serves", || {
            let (_, newest) = *daemon.workers().last()?;
            // It may be an old one by now, if the auto restart has come meanwhile.
            let _ = kill(Pid::from_raw(newest), Signal::SIGKILL);
            daemon.log().contains("died unexpectedly").then_some(())
        });
    });
}

/// The next auto restart comes the whole interval after this, however long the first
/// generation has served before.
fn counts_from(told: &str, cause: impl Fn(&Daemon) + Sync) {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options([
                "--interval=0",
                "--port=127.0.0.1:0",
                "--enable-auto-restart",
            ])
            .options(["--auto-restart-interval=4", "--kill-old-delay=0"])
            .start();
        daemon.worker(1);
        daemon.wait_for_generations(&[1]);
        let serves = Instant::now();
        daemon.wait("half of the interval", || {
            (serves.elapsed() >= Duration::from_secs(2)).then_some(())
        });
        let before = Instant::now();
        cause(&daemon);
        daemon.wait("the auto restart after it", || {
            let log = daemon.log();
            let (_, after) = log.split_once(told)?;
            after.contains("autorestart triggered").then_some(())
        });
        // Perl counts whole seconds, and may take one that has just begun for one.
        let elapsed = before.elapsed();
        assert!(
            elapsed >= Duration::from_secs(3),
            "it came {elapsed:?} later"
        );
    });
}

#[test]
fn auto_restart_does_not_come_in_the_pause_after_a_failure() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options(["--port=127.0.0.1:0", "--wait-ready", "--kill-old-delay=0"])
        .options(["--enable-auto-restart", "--auto-restart-interval=1"])
        .options(["--retry-delay=600", "--retry-max-delay=600"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "exit=1");
    let log = daemon.wait_for_log(" failed: exited with code 1");
    let pause = Instant::now();
    daemon.wait("three intervals", || {
        (pause.elapsed() >= Duration::from_secs(3)).then_some(())
    });
    let starts = |log: &str| log.matches("starting new worker").count();
    assert_eq!(starts(&daemon.log()), starts(&log));
}
