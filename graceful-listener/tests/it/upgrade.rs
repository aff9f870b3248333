//! A process takes another one's place, or fails to and changes nothing.

mod direct;
mod files;
mod managed;
mod program;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use graceful_listener::{Listeners, UpgradeError, Upgrader};
use nix::sys::signal::Signal;

use crate::child;
use crate::drain::eventually;
use crate::hot_deploy::listening_socket;
use crate::http::{Client, DEADLINE};
use crate::load::{Load, Target};
use crate::process::{children, descriptors, is_gone, wait_until_stopped};
use crate::service::{Service, send, set};

fn generation_at(address: SocketAddr) -> String {
    let mut client = Client::connect(address).unwrap();
    let response = client.get("/").unwrap();
    response.header("x-gen").unwrap().to_owned()
}

/// A service that fails when its next generation starts, while the file exists.
fn failing(failure: &str, settings: &[(&str, &str)]) -> (Service, tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let while_file = directory.path().join("fails");
    fs::write(&while_file, "").unwrap();
    let mut command = Service::command();
    command
        .envs([(set::SPECS, "127.0.0.1:0"), (set::FAILURE, failure)])
        .env(set::WHILE, &while_file);
    let service = Service::start(command.envs(settings.iter().copied()));
    service.wait_for("serving address");
    (service, directory, while_file)
}

#[test]
fn new_process_serves_on_the_same_socket_and_the_old_one_ends() {
    let mut service = Service::on_a_port(&[]);
    let (address, old) = (service.address(), service.pid());
    assert_eq!(generation_at(address), "1");
    service.signal(Signal::SIGUSR2);
    let new = service.generation(2);
    assert_eq!((&*new.origin, &*new.labels), ("Upgrade", "-"));
    assert_eq!(new.addresses, [address.to_string()]);
    assert!(service.wait().success());
    assert_eq!(generation_at(address), "2");
    service.wait_for(&format!(
        "process {old}, which this one has replaced, has ended"
    ));
    send(new.pid, Signal::SIGTERM);
    eventually("the new one ends", || is_gone(new.pid));
    assert!(TcpStream::connect(address).is_err());
}

/// Every step of a start, and how it can end there.
#[test]
fn new_process_that_dies_at_any_step_leaves_the_old_one_serving() {
    for failure in [
        "killed at start",
        "killed at inherited",
        "killed at prepared",
        "exit at start",
        "exit at prepared",
    ] {
        let (mut service, _directory, while_file) = failing(failure, &[]);
        let address = service.address();
        let load = Load::new(Target::Tcp(address)).start();
        eventually("load is on", || load.requests() > 100);
        // The first failure may open what is kept open: threads, an epoll.
        service.signal(Signal::SIGUSR2);
        service.wait_for_count("not upgraded, serving on: new process", 1);
        let pipes = |pid| {
            descriptors(pid)
                .into_iter()
                .filter(|target| target.starts_with("pipe:"))
                .count()
        };
        let before = pipes(service.pid());
        for attempt in 2..5 {
            service.signal(Signal::SIGUSR2);
            let line = service.wait_for_count("not upgraded, serving on: new process", attempt);
            let how = if failure.starts_with("exit") {
                "exit status: 3"
            } else {
                "signal: 9 (SIGKILL)"
            };
            assert!(
                line.contains("ended before it was ready") && line.ends_with(how),
                "{failure}: {line}"
            );
            assert_eq!(generation_at(address), "1");
        }
        eventually(&format!("pipes are closed, {failure}"), || {
            pipes(service.pid()) <= before
        });
        eventually(&format!("no process is left, {failure}"), || {
            children(service.pid()).is_empty()
        });
        fs::remove_file(while_file).unwrap();
        service.signal(Signal::SIGUSR2);
        service.wait_for("has taken over");
        assert!(service.wait().success());
        let report = load.stop();
        assert_eq!(report.failed(), 0, "{failure}: {report}");
        assert_eq!(report.generations(), ["1", "2"]);
    }
}

#[test]
fn new_process_that_is_killed_at_any_time_leaves_the_old_one_serving() {
    // Where much else runs, even the first one may be ready before it is killed.
    assert!((0..20).any(|_| kill_later_each_time() > 0));
}

/// Returns how many new processes were killed before one was ready.
fn kill_later_each_time() -> u64 {
    let service = Service::on_a_port(&[]);
    let load = Load::new(Target::Tcp(service.address())).start();
    let said = |text: &str| {
        let log = service.log();
        log.iter().filter(|line| line.contains(text)).count()
    };
    let mut killed = 0;
    // Half a millisecond later each time, until it is too late.
    while said("has taken over") == 0 {
        service.signal(Signal::SIGUSR2);
        // In a tight loop: its start is over in a few milliseconds.
        let deadline = Instant::now() + DEADLINE;
        let new = loop {
            assert!(Instant::now() < deadline, "no new process");
            if let Some(new) = children(service.pid()).first() {
                break *new;
            }
        };
        std::thread::sleep(Duration::from_micros(killed * 500));
        send(new, Signal::SIGKILL);
        let before = killed;
        eventually("an outcome", || {
            killed = said("not upgraded, serving on") as u64;
            killed != before || said("has taken over") > 0
        });
        if killed != before {
            // Whoever has not begun to serve loses nothing when it dies.
            assert_eq!(generation_at(service.address()), "1");
            let until = load.requests() + 50;
            eventually("the old one serves", || load.requests() > until);
        }
    }
    load.stop();
    killed
}

#[test]
fn new_process_that_hangs_is_killed_after_the_timeout() {
    let (service, _directory, _) = failing("hang at prepared", &[(set::UPGRADE_TIMEOUT_MS, "300")]);
    let began = Instant::now();
    service.signal(Signal::SIGUSR2);
    let line = service.wait_for("was not ready within 300ms");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let told = line.split("not upgraded, serving on: new process ").nth(1);
    let new = told.and_then(|told| told.split(' ').next()?.parse().ok());
    let new = new.unwrap_or_else(|| panic!("{line}"));
    assert!(is_gone(new));
    assert_eq!(generation_at(service.address()), "1");
}

#[test]
fn new_process_that_will_never_say_that_it_is_ready_is_killed() {
    let (service, _directory, _) = failing("silent at inherited", &[]);
    service.signal(Signal::SIGUSR2);
    let line = service.wait_for("closed its pipe and did not say that it is ready");
    let told = line.split("not upgraded, serving on: new process ").nth(1);
    let new = told.and_then(|told| told.split(' ').next()?.parse().ok());
    let new = new.unwrap_or_else(|| panic!("{line}"));
    assert!(is_gone(new));
    assert_eq!(generation_at(service.address()), "1");
}

#[test]
fn new_process_that_ends_is_noticed_though_what_it_started_holds_its_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    fs::write(&gate, "").unwrap();
    let left_behind = format!("while test -e {}; do sleep 0.05; done", gate.display());
    let listeners = Listeners::bind(["127.0.0.1:0"]).unwrap();
    let upgrader = Upgrader::new(&listeners)
        .unwrap()
        .command("/bin/sh", ["-c", &format!("{left_behind} & exit 3")])
        .timeout(Duration::from_secs(30));
    upgrader.ready().unwrap();
    let error = upgrader.upgrade().unwrap_err();
    fs::remove_file(gate).unwrap();
    let UpgradeError::Ended { status, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(status.code(), Some(3));
}

#[test]
fn upgrades_happen_one_at_a_time() {
    let (mut service, _directory, while_file) = failing("wait at prepared", &[]);
    service.signal(Signal::SIGUSR2);
    service.wait_for("waiting at prepared");
    for _ in 0..3 {
        service.signal(Signal::SIGUSR2);
        service.wait_for("another upgrade will follow");
    }
    assert_eq!(children(service.pid()).len(), 1);
    fs::remove_file(while_file).unwrap();
    // The wish that came meanwhile goes to the successor.
    let third = service.generation(3).pid;
    assert!(service.wait().success());
    eventually("the second ends too", || is_gone(service.generation(2).pid));
    assert!(!is_gone(third));
    assert_eq!(generation_at(service.address()), "3");
    assert!(
        !service
            .log()
            .iter()
            .any(|line| line.starts_with("generation 4"))
    );
}

#[test]
fn several_generations_may_drain_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    fs::write(&gate, "").unwrap();
    let mut service = Service::on_a_port(&[(set::DRAIN_TIMEOUT_MS, "600000")]);
    let address = service.address();
    let socket = listening_socket(service.pid(), address.port());
    let mut waiting = Vec::new();
    for generation in 1..=3 {
        let mut client = Client::connect(address).unwrap();
        let path = format!("GET /while?exists={} HTTP/1.1\r\n", gate.display());
        client.send(&format!("{path}Host: test\r\n\r\n")).unwrap();
        // Accepted before this one, because connections are accepted in their order.
        assert_eq!(generation_at(address), generation.to_string());
        waiting.push(client);
        if generation < 3 {
            let old = service.generation(generation).pid;
            send(old, Signal::SIGUSR2);
            service.wait_for_count("has taken over", generation as usize);
            eventually("it accepts no more", || !descriptors(old).contains(&socket));
        }
    }
    for generation in 1..=3 {
        assert!(!is_gone(service.generation(generation).pid));
    }
    fs::remove_file(gate).unwrap();
    for (generation, mut client) in (1..).zip(waiting) {
        let response = client.response().unwrap();
        assert_eq!(response.body, "gone");
        assert_eq!(
            response.header("x-gen"),
            Some(generation.to_string().as_str())
        );
        assert_eq!(response.closes(), generation < 3);
    }
    assert!(service.wait().success());
    let second = service.generation(2).pid;
    eventually("the second ends too", || is_gone(second));
    assert_eq!(generation_at(address), "3");
}

#[test]
fn upgrade_that_was_asked_for_during_one_that_fails_is_tried() {
    let (mut service, _directory, while_file) = failing("hang at prepared", &[]);
    service.signal(Signal::SIGUSR2);
    let new = service.generation(2).pid;
    service.wait_for("hanging at prepared");
    service.signal(Signal::SIGUSR2);
    service.wait_for("another upgrade will follow");
    fs::remove_file(while_file).unwrap();
    send(new, Signal::SIGKILL);
    service.wait_for("not upgraded, serving on: new process");
    service.wait_for("has taken over");
    assert!(service.wait().success());
    assert_eq!(generation_at(service.address()), "2");
}

#[test]
fn nothing_but_the_intended_descriptors_goes_on() {
    // Left open by whoever has started it, and never closed on exec.
    let role = Service::command();
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 9</etc/passwd", "sh"]);
    child::append(&mut shell, &role);
    let service = Service::start(shell.env(set::SPECS, "127.0.0.1:0 127.0.0.1:0"));
    service.wait_for_count("serving address", 2);
    assert!(
        descriptors(service.pid())
            .iter()
            .any(|target| target == "/etc/passwd")
    );
    let count = |pid, prefix: &str| {
        descriptors(pid)
            .iter()
            .filter(|target| target.starts_with(prefix))
            .count()
    };
    let sockets = count(service.pid(), "socket:");
    let mut current = service.pid();
    for generation in 2..6 {
        send(current, Signal::SIGUSR2);
        let new = service.generation(generation).pid;
        eventually("the old one ends", || is_gone(current));
        current = new;
        assert!(
            !descriptors(current)
                .iter()
                .any(|target| target == "/etc/passwd")
        );
        assert_eq!(
            count(current, "socket:"),
            sockets,
            "generation {generation}: {:#?}",
            descriptors(current)
        );
    }
    let mut client = Client::connect(service.address()).unwrap();
    let seen = client.get("/descriptors").unwrap().body;
    assert!(
        !seen.contains("socket:") && !seen.contains("passwd"),
        "{seen}"
    );
}

#[test]
fn new_process_binds_what_is_new_and_closes_what_it_does_not_want() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let mut service = Service::on_a_port(&[(set::NEXT_SPECS, path.to_str().unwrap())]);
    let address = service.address();
    service.signal(Signal::SIGUSR2);
    assert_eq!(
        service.generation(2).addresses,
        [path.display().to_string()]
    );
    assert!(service.wait().success());
    assert_eq!(
        Client::connect_unix(&path)
            .unwrap()
            .get("/")
            .unwrap()
            .header("x-gen"),
        Some("2")
    );
    assert!(
        TcpStream::connect(address).is_err(),
        "a socket that nobody serves is closed"
    );
}

#[test]
fn upgrade_signal_can_be_another_one() {
    let number = (Signal::SIGHUP as i32).to_string();
    let mut service = Service::on_a_port(&[(set::UPGRADE_SIGNAL, &number)]);
    service.signal(Signal::SIGHUP);
    service.wait_for("has taken over");
    assert!(service.wait().success());
    assert_eq!(generation_at(service.address()), "2");
}

#[test]
fn termination_during_an_upgrade_ends_both() {
    let patient = (set::DRAIN_TIMEOUT_MS, "600000");
    let (mut service, directory, _) = failing("hang at prepared", &[patient]);
    let gate = directory.path().join("gate");
    fs::write(&gate, "").unwrap();
    let mut held = Client::connect(service.address()).unwrap();
    let path = format!("GET /while?exists={} HTTP/1.1\r\n", gate.display());
    held.send(&format!("{path}Host: test\r\n\r\n")).unwrap();
    service.signal(Signal::SIGUSR2);
    let new = service.generation(2).pid;
    service.signal(Signal::SIGTERM);
    service.wait_for("upgrade abandoned: this process is ending");
    eventually("the new one is gone", || is_gone(new));
    eventually("nobody is left in a queue", || {
        TcpStream::connect(service.address()).is_err()
    });
    fs::remove_file(gate).unwrap();
    assert_eq!(held.response().unwrap().body, "gone");
    assert!(service.wait().success());
}

#[test]
fn new_process_that_dies_before_it_is_heard_leaves_the_old_one_serving() {
    let (service, _directory, while_file) = failing("wait at prepared", &[]);
    service.signal(Signal::SIGUSR2);
    let new = service.generation(2).pid;
    service.wait_for("waiting at prepared");
    service.signal(Signal::SIGSTOP);
    wait_until_stopped(service.pid());
    fs::remove_file(while_file).unwrap();
    // It has said that it is ready before.
    service.wait_for_count("serving address", 2);
    send(new, Signal::SIGKILL);
    eventually("it is dead", || is_gone(new));
    service.signal(Signal::SIGCONT);
    service.wait_for(&format!(
        "not upgraded, serving on: new process {new} ended before it was ready"
    ));
    assert_eq!(generation_at(service.address()), "1");
}

/// A service that has been replaced and still answers a request, and its successor.
fn replaced_while_it_answers() -> (Service, Client<TcpStream>, u32) {
    let service = Service::on_a_port(&[(set::DRAIN_TIMEOUT_MS, "600000")]);
    let mut client = Client::connect(service.address()).unwrap();
    client
        .send("GET /sleep?ms=60000 HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    // Accepted before, because connections are accepted in their order.
    generation_at(service.address());
    service.signal(Signal::SIGUSR2);
    let new = service.generation(2).pid;
    service.wait_for("has taken over");
    (service, client, new)
}

#[test]
fn old_process_reports_if_its_successor_ends_before_it() {
    let (service, _client, new) = replaced_while_it_answers();
    send(new, Signal::SIGKILL);
    let line = service.wait_for(&format!(
        "process {new} took over and has ended, signal: 9 (SIGKILL)"
    ));
    assert!(line.contains("ERROR"), "{line}");
}

#[test]
fn successor_that_ends_as_it_should_is_no_error_of_its_predecessors() {
    let (service, _client, new) = replaced_while_it_answers();
    send(new, Signal::SIGTERM);
    let line = service.wait_for(&format!("process {new} took over and has ended, exit"));
    assert!(!line.contains("ERROR"), "{line}");
}

#[test]
fn new_process_whose_predecessor_dies_before_it_is_ready_serves() {
    let (mut service, _directory, while_file) = failing("wait at prepared", &[]);
    let address = service.address();
    service.signal(Signal::SIGUSR2);
    service.wait_for("waiting at prepared");
    service.signal(Signal::SIGKILL);
    service.wait();
    fs::remove_file(while_file).unwrap();
    assert_eq!(generation_at(address), "2");
    service.wait_for("which this one has replaced, has ended");
}

#[test]
fn new_process_whose_predecessor_dies_before_it_looks_finds_its_sockets() {
    let (mut service, _directory, while_file) = failing("wait at start", &[]);
    let address = service.address();
    service.signal(Signal::SIGUSR2);
    service.wait_for("waiting at start");
    service.signal(Signal::SIGKILL);
    service.wait();
    fs::remove_file(while_file).unwrap();
    assert_eq!(service.generation(2).addresses, [address.to_string()]);
    assert_eq!(generation_at(address), "2");
}

#[test]
fn first_process_of_a_container_is_not_replaced() {
    let probe = Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--fork", "true"])
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        child::left_out("no new pid namespace can be made here");
        return;
    }
    let role = Service::command();
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
    ]);
    child::append(&mut unshare, &role);
    let service = Service::start(unshare.env(set::SPECS, "127.0.0.1:0"));
    service.wait_for("serving address");
    let first = children(service.pid())[0];
    send(first, Signal::SIGUSR2);
    let line = service.wait_for("not upgraded, serving on: process 1 cannot be replaced");
    assert!(line.contains("start_server"), "{line}");
    assert!(!is_gone(first));
}

#[test]
fn worker_of_a_super_daemon_is_not_replaced() {
    if !child::has("start_server") {
        return;
    }
    let role = Service::command();
    let mut starter = Command::new("start_server");
    starter.args(["--port=127.0.0.1:0", "--"]);
    child::append(&mut starter, &role);
    let service = Service::start(&mut starter);
    service.wait_for("serving address");
    let worker = service.generation(1);
    send(worker.pid, Signal::SIGUSR2);
    service.wait_for("not upgraded, serving on: a super-daemon watches this process");
    assert_eq!(generation_at(worker.addresses[0].parse().unwrap()), "1");
}
