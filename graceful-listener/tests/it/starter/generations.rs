//! The life of a worker: its environment, its start, its death, its successor.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::daemon::{Daemon, Program, Start, both};
use super::processes::{is_running, proc_status};

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
            super::processes::marked(daemon.dir.path())
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
        let begun = Instant::now();
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("serving as generation 2");
        // Both serve now; the status file tells of the old one only.
        let (generations, lives) = (daemon.generations(), is_running(daemon.worker(1)));
        if begun.elapsed() < Duration::from_secs(4) {
            assert_eq!(generations, [1]);
            assert!(lives);
        }
        daemon.wait_for_generations(&[2]);
        let elapsed = begun.elapsed();
        assert!(elapsed >= Duration::from_secs(4) || program == Program::Perl);
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
fn interval_that_never_ends_is_none_that_is_over() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "stay")
        .options(["--interval=99999999999999999999", "--port=127.0.0.1:0"])
        .start();
    daemon.worker(1);
    // By when this is passed on, a start without an interval is over.
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_log("generation 1 received USR1");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("spawning a new worker when the current start is complete");
}

#[test]
fn kill_old_delay_keeps_both_generations() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0", "--kill-old-delay=600"])
            .start();
        daemon.wait_for_log("serving as generation 1");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("sleeping 600 secs before killing old workers");
        daemon.wait_for_generations(&[1, 2]);
        daemon.worker(2);
        let log = daemon.log();
        assert!(!log.contains("\nkilling old workers"), "{log}");
        assert!(!log.contains("generation 1 received"), "{log}");
    });
}

#[test]
fn kill_old_delay_is_waited_for() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0", "--kill-old-delay=3"])
            .start();
        daemon.wait_for_log("serving as generation 1");
        let begun = Instant::now();
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("generation 1 received TERM");
        // Perl counts whole seconds, and may take one that has just begun for one.
        assert!(begun.elapsed() >= Duration::from_secs(2), "it was short");
        daemon.wait_for_generations(&[2]);
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

#[test]
fn worker_without_sockets_finds_none_with_perls_own_library() {
    both(|program| {
        if !super::daemon::has_perl() {
            return;
        }
        let daemon = Start::new(program)
            .options(["--interval=0"])
            .shell(
                "perl -MServer::Starter=server_ports -e \
                 'print \"there are \", scalar(keys %{server_ports()}), \" ports\\n\"'; exec sleep 647",
            )
            .start();
        daemon.wait_for_log("there are 0 ports\n");
    });
}
