//! What a service manager is told of an upgrade.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;
use std::time::{Duration, Instant};

use graceful_listener::{Listeners, NotifyMessage, NotifyReceiver, Upgrader};
use nix::sys::signal::Signal;

use super::failing;
use crate::child;
use crate::drain::eventually;
use crate::http::Client;
use crate::process::is_gone;
use crate::service::{Service, send, set};

fn next(receiver: &NotifyReceiver) -> (u32, NotifyMessage) {
    let mut received = None;
    eventually("a notification", || {
        received = receiver.receive().unwrap();
        received.is_some()
    });
    let notification = received.unwrap();
    (notification.pid, notification.message)
}

#[test]
fn service_manager_is_told_who_the_main_process_is() {
    let receiver = NotifyReceiver::bind().unwrap();
    let (service, _directory, while_file) = failing(
        "exit at prepared",
        &[("NOTIFY_SOCKET", receiver.name().to_str().unwrap())],
    );
    let old = service.pid();
    let (pid, message) = next(&receiver);
    assert_eq!((pid, message.is_ready()), (old, true));

    service.signal(Signal::SIGUSR2);
    let (pid, message) = next(&receiver);
    assert_eq!((pid, message.is_reloading()), (old, true));
    assert!(message.value("MONOTONIC_USEC").is_some());
    let (pid, message) = next(&receiver);
    assert_eq!(
        (pid, message.is_ready()),
        (old, true),
        "it goes on after a failure"
    );
    assert!(
        message
            .value("STATUS")
            .unwrap()
            .starts_with("still serving: new process"),
        "{message}"
    );
    assert_eq!(message.value("MAINPID"), None);

    fs::remove_file(while_file).unwrap();
    service.signal(Signal::SIGUSR2);
    assert!(next(&receiver).1.is_reloading());
    let (pid, message) = next(&receiver);
    let new = service.wait_for_count("generation 2 is process", 2);
    let new: u32 = new.split(' ').nth(4).unwrap().parse().unwrap();
    assert_eq!(
        (pid, message.value("MAINPID")),
        (old, Some(new.to_string().as_str()))
    );
    assert!(message.is_ready());
    let (pid, message) = next(&receiver);
    assert_eq!(
        (pid, message.value("BARRIER")),
        (old, Some("1")),
        "it waits until that is understood"
    );
    eventually("the old one ends", || is_gone(old));
    send(new, Signal::SIGTERM);
    let (pid, message) = next(&receiver);
    assert_eq!(
        (pid, message.is_stopping()),
        (new, true),
        "the old one has said nothing of stopping: {message}"
    );
    assert_eq!(message.value("EXTEND_TIMEOUT_USEC"), Some("30000000"));
}

#[test]
fn watchdog_is_fed_and_goes_on_to_the_new_process() {
    let receiver = NotifyReceiver::bind().unwrap();
    let role = Service::command();
    let mut shell = Command::new("sh");
    // As systemd sets it: for this process alone.
    shell.args(["-c", "WATCHDOG_PID=$$ exec \"$@\"", "sh"]);
    child::append(&mut shell, &role);
    shell
        .env(set::SPECS, "127.0.0.1:0")
        .env("NOTIFY_SOCKET", receiver.name())
        .env("WATCHDOG_USEC", "100000");
    let service = Service::start(&mut shell);
    let fed_by = |pid| {
        let mut fed = 0;
        eventually("the watchdog is fed", || {
            while let Some(notification) = receiver.receive().unwrap() {
                fed += u32::from(
                    notification.pid == pid && notification.message.value("WATCHDOG") == Some("1"),
                );
            }
            fed > 3
        });
    };
    fed_by(service.pid());
    service.signal(Signal::SIGUSR2);
    fed_by(service.generation(2).pid);
}

#[test]
fn watchdog_is_fed_twice_in_its_time() {
    const TIME: Duration = Duration::from_secs(1);
    const COUNT: u32 = 5;
    eventually("it is fed in time", || {
        let receiver = NotifyReceiver::bind().unwrap();
        let began = Instant::now();
        let _service = Service::start(
            Service::command()
                .env(set::SPECS, "127.0.0.1:0")
                .env("NOTIFY_SOCKET", receiver.name())
                .env("WATCHDOG_USEC", TIME.as_micros().to_string()),
        );
        let mut fed = 0;
        while fed < COUNT {
            fed += u32::from(next(&receiver).1.value("WATCHDOG") == Some("1"));
        }
        // The first comes at once. Of one in each time, the last would come now at the soonest.
        began.elapsed() < TIME * (COUNT - 1)
    });
}

#[test]
fn new_process_without_an_upgrader_leaves_it_to_the_old_one_to_speak() {
    let receiver = NotifyReceiver::bind().unwrap();
    let notify = ("NOTIFY_SOCKET", receiver.name().to_str().unwrap());
    let service = Service::on_a_port(&[notify, (set::UPGRADERS, "1")]);
    let old = service.pid();
    assert!(next(&receiver).1.is_ready());
    service.signal(Signal::SIGUSR2);
    assert!(next(&receiver).1.is_reloading());
    let new = service.generation(2).pid;
    let (pid, message) = next(&receiver);
    let new_pid = new.to_string();
    assert_eq!(
        (pid, message.value("MAINPID")),
        (old, Some(new_pid.as_str()))
    );
    assert_eq!(next(&receiver).1.value("BARRIER"), Some("1"));
    eventually("the old one ends", || is_gone(old));
    send(new, Signal::SIGTERM);
    let (pid, message) = next(&receiver);
    assert_eq!((pid, message.is_stopping()), (new, true), "{message}");
}

#[test]
fn new_process_speaks_for_itself_if_its_predecessor_is_dead() {
    let receiver = NotifyReceiver::bind().unwrap();
    let notify = ("NOTIFY_SOCKET", receiver.name().to_str().unwrap());
    let (mut service, _directory, while_file) = failing("wait at prepared", &[notify]);
    assert!(next(&receiver).1.is_ready());
    service.signal(Signal::SIGUSR2);
    assert!(next(&receiver).1.is_reloading());
    service.wait_for("waiting at prepared");
    service.signal(Signal::SIGKILL);
    service.wait();
    fs::remove_file(while_file).unwrap();
    let (pid, message) = next(&receiver);
    assert_eq!(
        (pid, message.is_ready()),
        (service.generation(2).pid, true),
        "{message}"
    );
}

/// The old process waits until its manager has read of the new one.
#[test]
fn termination_after_the_new_process_has_taken_over_ends_both() {
    eventually("it is terminated while it waits", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = ("NOTIFY_SOCKET", path.to_str().unwrap());
        let mut service = Service::on_a_port(&[notify]);
        service.signal(Signal::SIGUSR2);
        let mut message = [0; 4096];
        loop {
            let length = manager.recv(&mut message).unwrap();
            if NotifyMessage::parse(&message[..length])
                .value("MAINPID")
                .is_some()
            {
                break;
            }
        }
        // The barrier behind it stays where it is.
        service.signal(Signal::SIGTERM);
        assert!(service.wait().success());
        let log = service.log();
        let is_told = |line: &String| line.contains("has taken over, and is told to end");
        if !log.iter().any(is_told) {
            return false;
        }
        let new = service.generation(2).pid;
        eventually("the new one ends too", || is_gone(new));
        true
    });
}

#[test]
fn service_without_an_upgrader_says_that_it_is_ready() {
    let receiver = NotifyReceiver::bind().unwrap();
    let notify = ("NOTIFY_SOCKET", receiver.name().to_str().unwrap());
    let service = Service::on_a_port(&[notify, (set::UPGRADERS, "0")]);
    let (pid, message) = next(&receiver);
    assert_eq!((pid, message.is_ready()), (service.pid(), true));
}

#[test]
fn manager_that_cannot_be_told_of_the_new_process_is_reported() {
    let mut service = Service::on_a_port(&[("NOTIFY_SOCKET", "/nonexistent/s")]);
    service.signal(Signal::SIGUSR2);
    let new = service.generation(2).pid;
    service.wait_for(&format!(
        "the service manager does not know of process {new}: cannot notify `/nonexistent/s`"
    ));
    assert!(service.wait().success());
}

const READY: &str = "upgrade::managed::child_is_ready";

/// Says so without being served.
#[test]
fn child_is_ready() {
    if child::plays(READY) {
        let upgrader = Upgrader::new(&Listeners::bind(["127.0.0.1:0"]).unwrap()).unwrap();
        let ready = upgrader.ready().map_err(|error| error.to_string());
        eprintln!("{ready:?}");
    }
}

#[test]
fn service_manager_is_told_without_serve_too() {
    let receiver = NotifyReceiver::bind().unwrap();
    let mut role = child::role(READY);
    let output = role.env("NOTIFY_SOCKET", receiver.name()).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "Ok(())\n");
    let message = next(&receiver).1;
    assert!(message.is_ready(), "{message}");
    assert_eq!(message.value("STATUS"), Some("serving"));
    let output = role
        .env("NOTIFY_SOCKET", "/nonexistent/s")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "Err(\"cannot notify `/nonexistent/s`\")\n"
    );
}

/// With a path that cannot be written where the sockets are named.
#[test]
fn systemds_names_go_on_to_the_new_process_and_its_variables_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a;b.sock");
    let mut shell = Command::new("sh");
    shell
        .args([
            "-c",
            "export LISTEN_PID=$$; exec \"$@\" 3<&0 0</dev/null",
            "sh",
        ])
        .stdin(OwnedFd::from(UnixListener::bind(&path).unwrap()))
        .envs([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "http")])
        // What is left of a super-daemon that gave us nothing.
        .env("SERVER_STARTER_GENERATION", "7");
    child::append(&mut shell, &Service::command());
    let mut service = Service::start(&mut shell);
    service.wait_for("serving address");
    let first = service.generation(1);
    assert_eq!((&*first.origin, &*first.labels), ("Systemd", "http"));
    service.signal(Signal::SIGUSR2);
    let second = service.generation(2);
    assert_eq!((&*second.origin, &*second.labels), ("Upgrade", "http"));
    assert!(service.wait().success());
    let response = Client::connect_unix(&path).unwrap().get("/").unwrap();
    assert_eq!(response.header("x-gen"), Some("2"));
    let environment = fs::read(format!("/proc/{}/environ", second.pid)).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    let is_left = |variable: &&str| {
        variable.starts_with("LISTEN_") || variable.starts_with("SERVER_STARTER_")
    };
    assert_eq!(environment.split('\0').find(is_left), None);
}
