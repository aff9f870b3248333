//! `--daemonize`: what the launcher tells, and what the daemon is.

use std::fs;
use std::net::TcpListener;
use std::process::{Output, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getsid};

use super::daemon::{Program, Start, both, finish, stderr};
use super::processes::{is_running, marked, proc_status};

#[test]
fn daemon_is_detached_and_its_sockets_listen_when_the_launcher_returns() {
    both(|program| {
        let start = Start::new(program)
            .files()
            .options(["--interval=0", "--path=a.sock"]);
        let (daemon, output) = start.daemonize();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        std::os::unix::net::UnixStream::connect(daemon.path("a.sock")).unwrap();
        let pid = daemon.pid();
        let own = getsid(None).unwrap();
        let session = getsid(Some(Pid::from_raw(pid))).unwrap();
        assert_ne!(session, own);
        assert_ne!(
            session.as_raw(),
            pid,
            "a session's leader can get a terminal again"
        );
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/fd/0")).unwrap().to_str(),
            Some("/dev/null")
        );
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
            daemon.dir.path().canonicalize().unwrap()
        );
        daemon.wait_for_log("serving as generation 1");
        daemon.signal(Signal::SIGTERM);
        daemon.wait("its end", || (!is_running(pid)).then_some(()));
        assert!(!daemon.path("pid").exists() && !daemon.path("a.sock").exists());
    });
}

#[test]
fn daemon_keeps_a_socket_that_is_its_standard_input() {
    both(|program| {
        let (daemon, output) = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0=0"])
            .daemonize();
        assert!(output.status.success(), "{}", stderr(&output));
        daemon.wait_for_log("serving as generation 1");
        assert_eq!(daemon.ask("generation"), "1");
    });
}

#[test]
fn launcher_tells_why_the_daemon_did_not_start() {
    let mut holder = Start::new(Program::Ours)
        .files()
        .options(["--interval=0"])
        .shell("exec sleep 600")
        .start();
    holder.wait("the pid file", || holder.read("pid"));
    let pid_file = format!("--pid-file={}", holder.path("pid").display());
    for (options, words, text) in [
        (&[][..], &["./missing"][..], "failed to exec ./missing"),
        (&["--dir=nowhere"], &["true"], "failed to chdir:nowhere"),
        (
            &["--status-file=nowhere/status"],
            &["true"],
            "nowhere/status",
        ),
        (&[&pid_file], &["true"], "is held by the running process"),
        (
            &["--user=no-such-user"],
            &["true"],
            "--user no-such-user: no such user",
        ),
    ] {
        let (_daemon, output) = Start::new(Program::Ours)
            .options(options)
            .program(words)
            .daemonize();
        assert!(!output.status.success(), "{options:?} {words:?}");
        assert!(
            stderr(&output).contains(text),
            "{options:?} {words:?}: {}",
            stderr(&output)
        );
    }
    holder.stop();
}

#[test]
fn launcher_tells_why_a_socket_could_not_be_bound() {
    both(|program| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        for (address, code) in [("192.0.2.1:0", 99), (&taken, 98)] {
            let (daemon, output) = Start::new(program)
                .files()
                .options([format!("--port={address}")])
                .program(&["true"])
                .daemonize();
            assert_eq!(output.status.code(), Some(code), "{address}");
            let text = stderr(&output);
            let told = format!("failed to bind to {address}:");
            assert!(text.contains(&told), "{address}: {text}");
            assert!(!daemon.path("pid").exists() && !daemon.path("status").exists());
        }
    });
}

#[test]
fn output_of_the_launcher_ends_with_it_though_a_log_command_goes_on() {
    let start = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--daemonize", "--log-file=| cat >> output"])
        .program(&["sleep", "639"]);
    // Whoever reads the output of the launcher waits for its end.
    let output = finish(start.command());
    assert!(output.status.success(), "{}", stderr(&output));
    start.daemon().wait_for_log("starting new worker");
}

#[test]
fn launcher_waits_for_readiness_if_it_is_waited_for() {
    let start = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready", "--port=127.0.0.1:0"])
        .file("mode", "ready");
    let (daemon, output) = start.daemonize();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(daemon.generations(), [1]);
    daemon.signal(Signal::SIGTERM);

    let start = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready", "--port=127.0.0.1:0"])
        .file("mode", "exit=4");
    let (daemon, output) = start.daemonize();
    assert_ne!(output.status.code(), Some(0));
    assert!(
        stderr(&output).contains("generation 1 failed: exited with code 4"),
        "{}",
        stderr(&output)
    );
    daemon.wait("its end", || {
        marked(daemon.dir.path()).is_empty().then_some(())
    });
    assert!(!daemon.path("pid").exists());
}

#[test]
fn launcher_gives_up_with_the_first_generation_that_is_late() {
    let start = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready=1"])
        .program(&["sleep", "608"]);
    let (daemon, output) = start.daemonize();
    assert_eq!(output.status.code(), Some(255));
    let told = "generation 1 failed: not ready within 1 secs";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));
    let log = daemon.log();
    assert!(log.contains(&format!("{told}; giving up")), "{log}");
    assert_eq!(log.matches("starting new worker").count(), 1, "{log}");
}

#[test]
fn generation_that_is_late_does_not_outlive_the_daemon_that_gives_up() {
    let (daemon, output) = Start::new(Program::Ours)
        .options(["--wait-ready=1", "--stop-timeout=0.5"])
        .shell("trap '' TERM; while :; do sleep 0.1; done")
        .daemonize();
    assert_eq!(output.status.code(), Some(255));
    daemon.wait("the end of all", || {
        marked(daemon.dir.path()).is_empty().then_some(())
    });
}

/// What the launcher tells of a daemon that is signalled while it is starting `sleep`.
fn launched(secs: &str, signal: Signal) -> Output {
    let start = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready", "--daemonize", "--log-file=output"])
        .program(&["sleep", secs]);
    let launcher = start.command().stderr(Stdio::piped()).spawn().unwrap();
    let daemon = start.daemon();
    daemon.wait_for_log("starting new worker");
    daemon.signal(signal);
    launcher.wait_with_output().unwrap()
}

#[test]
fn launcher_tells_that_the_daemon_was_killed_while_it_was_starting() {
    let output = launched("636", Signal::SIGKILL);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(
        told.contains("the daemon died while it was starting"),
        "{told}"
    );
}

#[test]
fn launcher_does_not_take_an_early_stop_for_a_start() {
    let output = launched("609", Signal::SIGTERM);
    assert_eq!(output.status.code(), Some(255));
    let told = stderr(&output);
    assert!(
        told.contains("told to stop before a generation served"),
        "{told}"
    );
}

#[test]
fn daemon_keeps_the_mask_it_was_started_with() {
    both(|program| {
        let start = Start::new(program).files().options([
            "--interval=0",
            "--port=127.0.0.1:0",
            "--daemonize",
            "--log-file=output",
        ]);
        let own = start.command();
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", "umask 027; exec \"$0\" \"$@\""])
            .arg(own.get_program())
            .args(own.get_args())
            .current_dir(start.dir())
            .stdin(Stdio::null());
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = finish(command);
        let daemon = start.daemon();
        assert!(output.status.success(), "{}", stderr(&output));
        daemon.worker(1);
        assert_eq!(daemon.ask("status Umask"), "0027");
    });
}

#[test]
fn orphans_of_a_worker_are_not_the_daemons() {
    both(|program| {
        let (daemon, output) = Start::new(program)
            .files()
            .options(["--interval=0"])
            .shell(
                "(sh -c 'echo $$ > orphan.new; exec sleep 650' &); \
                 until [ -s orphan.new ]; do sleep 0.02; done; mv orphan.new orphan; exec sleep 651",
            )
            .daemonize();
        assert!(output.status.success(), "{}", stderr(&output));
        let orphan = daemon.wait("an orphan", || daemon.read("orphan"));
        let parent = proc_status(orphan.trim().parse().unwrap(), "PPid");
        assert_ne!(parent, daemon.pid().to_string());
    });
}

#[test]
fn launcher_does_not_wait_for_the_interval() {
    both(|program| {
        let (daemon, output) = Start::new(program)
            .files()
            .options(["--interval=600"])
            .program(&["sleep", "653"])
            .daemonize();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(is_running(daemon.pid()));
        assert!(!daemon.path("status").exists());
    });
}
