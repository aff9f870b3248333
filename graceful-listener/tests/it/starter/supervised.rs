//! Under systemd, in control groups, within limits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};

use super::daemon::{Daemon, Program, Start, number_after, stderr, wait_for};
use super::processes::{is_running, proc_status};
use crate::child;
use crate::control_group::ControlGroup;
use crate::http::uninterrupted;

/// Plays systemd: receives what `NOTIFY_SOCKET` is told.
struct Manager {
    socket: UnixDatagram,
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Self {
            socket,
            _dir: dir,
            path,
        }
    }

    fn next(&self) -> String {
        let mut text = [0; 4096];
        let length = uninterrupted(|| self.socket.recv(&mut text)).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    /// Passes over everything up to a message with this line.
    fn wait_for(&self, line: &str) -> String {
        loop {
            let message = self.next();
            if message.lines().any(|found| found == line) {
                return message;
            }
        }
    }
}

fn start(manager: &Manager) -> Daemon {
    Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options([
            "--wait-ready",
            "--port=127.0.0.1:0",
            "--retry-delay=600",
            "--retry-max-delay=600",
        ])
        .env("NOTIFY_SOCKET", &manager.path)
        .start()
}

#[test]
fn service_manager_hears_of_start_reload_and_stop() {
    let manager = Manager::new();
    let mut daemon = start(&manager);
    let first = manager.next();
    assert!(
        first.starts_with("READY=1\n") && first.contains("STATUS=Generation 1 serves"),
        "{first}"
    );
    assert_eq!(daemon.generations(), [1], "it said so too early");
    daemon.signal(Signal::SIGHUP);
    let reloading = manager.next();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    let micros: u64 = reloading
        .split_once("MONOTONIC_USEC=")
        .unwrap()
        .1
        .parse()
        .unwrap();
    let uptime: f64 = fs::read_to_string("/proc/uptime")
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        (micros as f64 / 1e6 - uptime).abs() < 60.0,
        "{micros} {uptime}"
    );
    let ready = manager.next();
    assert!(
        ready.starts_with("READY=1\n") && ready.contains("Generation 2 serves"),
        "{ready}"
    );
    daemon.signal(Signal::SIGTERM);
    assert_eq!(manager.next(), "STOPPING=1");
    assert!(daemon.wait_for_exit().success());
}

#[test]
fn failed_reload_ends_for_the_service_manager_too() {
    let manager = Manager::new();
    let daemon = start(&manager);
    manager.wait_for("READY=1");
    daemon.write("mode", "exit=3");
    daemon.signal(Signal::SIGHUP);
    manager.wait_for("RELOADING=1");
    let message = manager.wait_for("READY=1");
    assert!(
        message.contains("STATUS=Generation 2 failed: exited with code 3"),
        "{message}"
    );
    assert!(message.contains("generation 1 (worker"), "{message}");
}

#[test]
fn failed_reload_while_nobody_serves_is_not_ready() {
    let manager = Manager::new();
    let daemon = start(&manager);
    manager.wait_for("READY=1");
    daemon.write("mode", "exit=3");
    kill(Pid::from_raw(daemon.worker(1)), Signal::SIGKILL).unwrap();
    let message = manager.next();
    assert!(
        message.starts_with("STATUS=Generation 2 failed") && !message.contains("READY=1"),
        "{message}"
    );
    daemon.signal(Signal::SIGHUP);
    manager.wait_for("RELOADING=1");
    let message = manager.next();
    assert!(
        message.contains("no generation serves") && !message.contains("READY=1"),
        "{message}"
    );
}

#[test]
fn failed_first_start_is_not_ready() {
    let manager = Manager::new();
    let daemon = Start::new(Program::Ours)
        .file("mode", "exit=3")
        .options(["--wait-ready", "--port=127.0.0.1:0", "--retry-delay=0.1"])
        .env("NOTIFY_SOCKET", &manager.path)
        .start();
    let message = manager.next();
    assert!(
        message.starts_with("STATUS=Generation 1 failed") && !message.contains("READY=1"),
        "{message}"
    );
    daemon.write("mode", "ready");
    assert!(manager.wait_for("READY=1").contains("serves"));
}

#[test]
fn watchdog_is_fed() {
    let manager = Manager::new();
    let _daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "400000")
        .start();
    for _ in 0..5 {
        manager.wait_for("WATCHDOG=1");
    }
}

#[test]
fn watchdog_of_another_process_is_not_fed() {
    let manager = Manager::new();
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=1", "--port=127.0.0.1:0"])
        .env("NOTIFY_SOCKET", &manager.path)
        .env("WATCHDOG_USEC", "200000")
        .env("WATCHDOG_PID", "1")
        .start();
    assert!(manager.next().starts_with("READY=1"));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(manager.next(), "STOPPING=1");
    assert!(daemon.wait_for_exit().success());
}

#[test]
fn service_manager_that_went_away_is_no_harm() {
    let manager = Manager::new();
    let mut daemon = start(&manager);
    manager.wait_for("READY=1");
    drop(manager);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_generations(&[2]);
    daemon.stop();
}

/// Starts it by `systemd-socket-activate`, and makes the connection that starts it.
fn activated(start: Start, listen: &[&str], names: &str) -> Daemon {
    let inner = start.command();
    let mut command = Command::new("systemd-socket-activate");
    for address in listen {
        command.arg("--listen").arg(address);
    }
    command.arg(format!("--fdname={names}"));
    // It clears the environment but for what it is told to keep.
    for (name, value) in inner
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)))
    {
        command
            .arg("-E")
            .arg(format!("{}={}", name.display(), value.display()));
    }
    start.start_by(command)
}

#[test]
fn sockets_of_systemd_are_passed_on_both_ways() {
    if !child::has("systemd-socket-activate") {
        return;
    }
    let start = Start::new(Program::Ours)
        .files()
        .file("mode", "")
        .options(["--interval=0"]);
    let path = start.dir().join("systemd.sock");
    let port = crate::port::free();
    let address = format!("127.0.0.1:{port}");
    let daemon = activated(start, &[&address, path.to_str().unwrap()], "web:admin");
    wait_for("the socket", || std::net::TcpStream::connect(&address).ok());
    daemon.wait_for_log("serving as generation 1");
    let ports = format!("={address}=3;{}=4", path.display());
    for generation in 1..=2 {
        assert_eq!(daemon.ask("env SERVER_STARTER_PORT"), ports);
        assert_eq!(daemon.ask("env LISTEN_FDS"), "=2");
        assert_eq!(daemon.ask("env LISTEN_FDNAMES"), "=web:admin");
        let pid = daemon.ask("pid");
        assert_eq!(daemon.ask("env LISTEN_PID"), format!("={pid}"));
        if generation == 1 {
            daemon.signal(Signal::SIGHUP);
            daemon.wait_for_answer_of(2);
        }
    }
    // After an upgrade it is still so, and in the end systemd's file stays.
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_log("goes on with generation 2");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_answer_of(3);
    assert_eq!(daemon.ask("env LISTEN_FDS"), "=2");
    let pid = daemon.pid();
    daemon.signal(Signal::SIGTERM);
    daemon.wait("its end", || (!is_running(pid)).then_some(()));
    assert!(path.exists());
}

#[test]
fn socket_of_systemd_takes_the_place_of_a_port_that_is_asked_for() {
    if !child::has("systemd-socket-activate") {
        return;
    }
    let port = crate::port::free();
    let start =
        Start::new(Program::Ours).options(["--interval=0", &format!("--port=localhost:{port}=9")]);
    let daemon = activated(start, &[&format!("127.0.0.1:{port}")], "web");
    wait_for("the socket", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    daemon.wait_for_log("serving as generation 1");
    assert_eq!(
        daemon.ask("env SERVER_STARTER_PORT"),
        format!("=localhost:{port}=9")
    );
    // They are no longer where systemd had put them.
    assert_eq!(daemon.ask("env LISTEN_FDS"), "unset");
}

#[test]
fn socket_of_systemd_on_any_address_is_named_by_its_port_and_is_not_taken_for_udp() {
    if !child::has("systemd-socket-activate") {
        return;
    }
    let port = crate::port::free();
    let start = Start::new(Program::Ours).options(["--interval=0", &format!("--port=u{port}")]);
    let daemon = activated(start, &[&format!("0.0.0.0:{port}")], "web");
    wait_for("the socket", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    daemon.wait_for_log("serving as generation 1");
    let ports = daemon.ask("env SERVER_STARTER_PORT");
    assert!(ports.starts_with(&format!("={port}=")), "{ports}");
    assert!(ports.ends_with(&format!(";{port}=3")), "{ports}");
    let log = daemon.log();
    assert!(
        log.contains(&format!("receiving on 0.0.0.0:{port}\n")),
        "{log}"
    );
}

#[test]
fn number_of_a_socket_of_systemd_is_not_given_to_another() {
    if !child::has("systemd-socket-activate") {
        return;
    }
    let port = crate::port::free();
    let start = Start::new(Program::Ours).options(["--port=127.0.0.1:0=3"]);
    let mut daemon = activated(start, &[&format!("127.0.0.1:{port}")], "web");
    wait_for("the socket", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    assert_eq!(daemon.wait_for_exit().code(), Some(255));
    let told = "descriptor 3 is that of a socket from systemd\n";
    assert!(daemon.log().contains(told), "{}", daemon.log());
}

#[test]
fn worker_is_not_told_of_sockets_that_are_not_where_systemd_left_them() {
    if !child::has("systemd-socket-activate") {
        return;
    }
    let address = format!("127.0.0.1:{}", crate::port::free());
    let start =
        Start::new(Program::Ours).options(["--interval=0".into(), format!("--port={address}=9")]);
    let daemon = activated(start, &[&address], "web");
    wait_for("the socket", || std::net::TcpStream::connect(&address).ok());
    daemon.wait_for_log("serving as generation 1");
    assert_eq!(
        daemon.ask("env SERVER_STARTER_PORT"),
        format!("={address}=9")
    );
    assert_eq!(daemon.ask("env LISTEN_FDS"), "unset");
}

#[test]
fn sockets_meant_for_another_process_are_not_taken() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .start();
    daemon.worker(1);
    assert_eq!(daemon.ask("env LISTEN_FDS"), "unset");
    assert!(!daemon.ask("env SERVER_STARTER_PORT").contains(';'));
}

#[test]
fn limit_on_open_files_is_raised_to_the_hard_one() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let low = hard.min(256);
    for (options, soft) in [
        (&[][..], hard),
        (&["--open-files=keep"], low),
        (&["--open-files=100"], 100),
    ] {
        let start = Start::new(Program::Ours)
            .options(["--interval=0", "--port=127.0.0.1:0"])
            .options(options);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -S -n {low}; exec \"$0\" \"$@\"")]);
        let daemon = start.start_by(command);
        daemon.worker(1);
        let limits: Vec<String> = daemon
            .ask("limits")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        assert_eq!(limits[3], soft.to_string(), "{options:?}: {limits:?}");
    }
}

#[test]
fn limit_on_open_files_above_the_hard_one_raises_both_where_that_is_allowed() {
    let probe = Command::new("sh")
        .args(["-c", "ulimit -n 200 && ulimit -n 300"])
        .output();
    if !probe.unwrap().status.success() {
        child::left_out("this user may not raise a hard limit");
        return;
    }
    let daemon = limited(Command::new("sh"));
    daemon.worker(1);
    let limits = daemon.ask("limits");
    let limits: Vec<_> = limits.split_whitespace().collect();
    assert_eq!(limits[3..5], ["300", "300"]);
}

#[test]
fn limit_on_open_files_above_the_hard_one_is_refused_where_it_may_not_be_raised() {
    let mut command = Command::new("sh");
    if nix::unistd::geteuid().is_root() {
        if !child::has("setpriv") {
            return;
        }
        command = Command::new("setpriv");
        command.args(["--inh-caps=-sys_resource", "--bounding-set=-sys_resource"]);
        command.arg("sh");
    }
    let mut daemon = limited(command);
    assert_eq!(daemon.wait_for_exit().code(), Some(nix::libc::EPERM));
    let told = "failed to set the limit on open files to 300 (the hard limit is 200): \
                Operation not permitted\n";
    assert!(daemon.log().contains(told), "{}", daemon.log());
}

/// Asks for 300 open files where 200 are allowed.
fn limited(mut command: Command) -> Daemon {
    command.args(["-c", "ulimit -n 200; exec \"$0\" \"$@\""]);
    Start::new(Program::Ours)
        .options(["--interval=0", "--port=127.0.0.1:0", "--open-files=300"])
        .start_by(command)
}

#[test]
fn mask_is_set_for_super_daemon_and_worker() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--umask=077", "--port=127.0.0.1:0"])
        .start();
    daemon.wait_for_generations(&[1]);
    assert_eq!(proc_status(daemon.pid(), "Umask"), "0077");
    assert_eq!(proc_status(daemon.worker(1), "Umask"), "0077");
    assert_eq!(
        fs::metadata(daemon.path("status"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
}

#[test]
fn who_has_left_the_process_group_is_told_by_the_control_group() {
    let Some(group) = ControlGroup::new("strays") else {
        return;
    };
    let parent = group.path();
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=0", &format!("--cgroup={}", parent.display())])
        .file(
            "stray",
            "trap 'echo stray told; exit' TERM; echo astray; while :; do sleep 0.1; done",
        )
        .shell("setsid sh ./stray & exec sleep 614")
        .start();
    daemon.wait_for_log("astray");
    let log = daemon.stop();
    assert!(log.contains("stray told"), "{log}");
    assert!(!log.contains("KILL"), "{log}");
    fs::remove_dir(parent).unwrap();
}

#[test]
fn each_generation_has_a_control_group_which_ends_with_it() {
    let Some(group) = ControlGroup::new("ends") else {
        return;
    };
    let (daemon, helper) = start_in(&group);
    assert_ended(daemon, helper, &group);
}

#[test]
fn control_group_of_a_worker_ends_with_it_after_an_upgrade_too() {
    let Some(group) = ControlGroup::new("upgrade") else {
        return;
    };
    let (daemon, helper) = start_in(&group);
    daemon.wait_for_generations(&[1]);
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_log("goes on with generation 1");
    assert_ended(daemon, helper, &group);
}

/// Its helper has left the process group, but cannot leave the control group.
fn start_in(group: &ControlGroup) -> (Daemon, i32) {
    let daemon = Start::new(Program::Ours)
        .files()
        .options([
            "--interval=0",
            "--stop-timeout=0.3",
            &format!("--cgroup={}", group.path().display()),
        ])
        .shell("trap '' TERM; setsid sleep 603 & echo helper $!; while :; do sleep 0.1; done")
        .start();
    let log = daemon.wait_for_log("helper ");
    let helper = number_after(&log, "helper ");
    daemon.wait("the helper's own session", || {
        let session = getsid(Some(Pid::from_raw(helper))).unwrap();
        (session.as_raw() == helper).then_some(())
    });
    (daemon, helper)
}

fn assert_ended(mut daemon: Daemon, helper: i32, group: &ControlGroup) {
    let log = daemon.stop();
    assert!(log.contains("sending KILL"), "{log}");
    wait_for("the helper's end", || (!is_running(helper)).then_some(()));
    assert!(group.below().is_empty(), "a control group is left behind");
}

#[test]
fn directory_that_is_no_control_group_is_refused() {
    let output = Start::new(Program::Ours).options(["--cgroup=."]).run();
    assert_eq!(output.status.code(), Some(255));
    assert!(
        stderr(&output).contains("--cgroup .: no control group"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn reused_process_id_in_the_status_file_is_nobody_to_adopt() {
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let mut daemon = Start::new(Program::Ours)
        .files()
        .file("status", &format!("7:{}\n", stranger.id()))
        .file("pid", &format!("{}\n", stranger.id()))
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.stop();
    assert!(
        stranger.try_wait().unwrap().is_none(),
        "a stranger was killed"
    );
    kill(Pid::from_raw(stranger.id().cast_signed()), Signal::SIGKILL).unwrap();
    stranger.wait().unwrap();
}
