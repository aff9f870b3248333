//! What a service manager is told of an upgrade.

use std::fs;
use std::process::Command;

use graceful_listener::{NotifyMessage, NotifyReceiver};
use nix::sys::signal::Signal;

use super::failing;
use crate::child;
use crate::drain::eventually;
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
