//! Files that go on to the new process: the pid file, and those of Unix sockets.

use std::fs;

use graceful_listener::PidFile;
use nix::sys::signal::Signal;

use super::{failing, generation_at};
use crate::drain::eventually;
use crate::http::Client;
use crate::service::{Service, send, set};

#[test]
fn pid_file_is_the_new_processes_as_soon_as_it_serves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.pid");
    let mut service = Service::on_a_port(&[(set::PID_FILE, path.to_str().unwrap())]);
    let old = service.pid();
    assert_eq!(PidFile::holder(&path).unwrap(), Some(old));
    service.signal(Signal::SIGUSR2);
    let new = service.generation(2).pid;
    service.wait_for("has taken over");
    assert_eq!(PidFile::holder(&path).unwrap(), Some(new));
    assert!(service.wait().success());
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("{new}\n"),
        "the old one leaves it alone"
    );
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    send(new, Signal::SIGTERM);
    eventually("it is removed", || !path.exists());
}

#[test]
fn pid_file_of_a_new_process_that_fails_is_the_old_ones_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.pid");
    let (service, _directory, _) = failing(
        "killed at pid file",
        &[(set::PID_FILE, path.to_str().unwrap())],
    );
    service.signal(Signal::SIGUSR2);
    service.wait_for("not upgraded, serving on");
    assert_eq!(PidFile::holder(&path).unwrap(), Some(service.pid()));
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("{}\n", service.pid())
    );
}

#[test]
fn second_service_with_the_same_pid_file_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.pid");
    let first = Service::on_a_port(&[(set::PID_FILE, path.to_str().unwrap())]);
    let mut second = Service::start(
        Service::command()
            .env(set::SPECS, "127.0.0.1:0")
            .env(set::PID_FILE, &path),
    );
    assert!(!second.wait().success());
    assert_eq!(PidFile::holder(&path).unwrap(), Some(first.pid()));
}

#[test]
fn unix_sockets_file_goes_on_to_the_new_process_and_is_removed_by_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let mut service = Service::start(Service::command().env(set::SPECS, &path));
    service.wait_for("serving address");
    service.signal(Signal::SIGUSR2);
    let new = service.generation(2).pid;
    assert!(service.wait().success());
    let response = Client::connect_unix(&path).unwrap().get("/").unwrap();
    assert_eq!(response.header("x-gen"), Some("2"));
    send(new, Signal::SIGTERM);
    eventually("it is removed", || !path.exists());
}

#[test]
fn unix_sockets_file_outlives_a_new_process_that_fails() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let (mut service, _directory, _) =
        failing("exit at prepared", &[(set::SPECS, path.to_str().unwrap())]);
    service.signal(Signal::SIGUSR2);
    service.wait_for("not upgraded, serving on");
    Client::connect_unix(&path).unwrap().get("/").unwrap();
    service.signal(Signal::SIGTERM);
    assert!(service.wait().success());
    assert!(!path.exists());
}

#[test]
fn unix_sockets_file_that_the_new_process_does_not_want_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let specs = format!("127.0.0.1:0 {}", path.display());
    let (mut service, _directory, while_file) = failing(
        "exit at prepared",
        &[
            (set::SPECS, specs.as_str()),
            (set::NEXT_SPECS, "127.0.0.1:0"),
        ],
    );
    service.signal(Signal::SIGUSR2);
    service.wait_for("not upgraded, serving on");
    let response = Client::connect_unix(&path).unwrap().get("/").unwrap();
    assert_eq!(
        response.header("x-gen"),
        Some("1"),
        "the old one still wants it"
    );
    fs::remove_file(while_file).unwrap();
    service.signal(Signal::SIGUSR2);
    assert!(service.wait().success());
    assert!(!path.exists());
    assert_eq!(generation_at(service.address()), "2");
}
