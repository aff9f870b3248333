//! What signals do to a service, in a process of its own.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use graceful_listener::NotifyReceiver;
use nix::sys::signal::Signal;

use crate::child;
use crate::drain::eventually;
use crate::http::{Client, Response};
use crate::process::is_gone;
use crate::service::{Service, send, set};

/// A client whose request has arrived and takes so many milliseconds.
fn slow(service: &Service, milliseconds: u32) -> Client<TcpStream> {
    let mut client = Client::connect(service.address()).unwrap();
    client
        .send(&format!(
            "GET /sleep?ms={milliseconds} HTTP/1.1\r\nHost: test\r\n\r\n"
        ))
        .unwrap();
    client
}

/// A client whose request is answered when it is let go.
struct Held {
    client: Client<TcpStream>,
    gate: tempfile::NamedTempFile,
}

fn held(service: &Service) -> Held {
    let gate = tempfile::NamedTempFile::new().unwrap();
    let mut client = Client::connect(service.address()).unwrap();
    let path = format!("/while?exists={}", gate.path().display());
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    client.send(&request).unwrap();
    Held { client, gate }
}

impl Held {
    fn let_go(mut self) -> Response {
        self.gate.close().unwrap();
        let response = self.client.response().unwrap();
        assert_eq!((response.status(), response.body.as_str()), (200, "gone"));
        response
    }
}

fn refuses(service: &Service) {
    eventually(
        "refused",
        || matches!(TcpStream::connect(service.address()), Err(error) if error.kind() == ErrorKind::ConnectionRefused),
    );
}

#[test]
fn term_and_int_let_requests_finish() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut service = Service::on_a_port(&[]);
        let held = held(&service);
        service.signal(signal);
        service.wait_for("draining");
        assert!(held.let_go().closes());
        assert!(service.wait().success());
        service.wait_for("generation 1 is done, cut 0 upgraded 0");
    }
}

#[test]
fn repeated_term_is_harmless() {
    let mut service = Service::on_a_port(&[]);
    let held = held(&service);
    for count in 1..5 {
        service.signal(Signal::SIGTERM);
        service.wait_for_count("SIGTERM received", count);
    }
    // One interrupt is one wish more to end, not the order to do so at once.
    service.signal(Signal::SIGINT);
    service.wait_for("SIGINT received");
    held.let_go();
    assert!(service.wait().success());
    service.wait_for("cut 0");
}

#[test]
fn second_int_ends_at_once_and_says_what_it_has_cut() {
    let mut service = Service::on_a_port(&[(set::DRAIN_TIMEOUT_MS, "600000")]);
    let mut clients = [slow(&service, 60_000), slow(&service, 60_000)];
    // Connections are accepted in their order.
    Client::connect(service.address())
        .unwrap()
        .get("/")
        .unwrap();
    service.signal(Signal::SIGINT);
    service.wait_for("draining");
    service.signal(Signal::SIGINT);
    let line = service.wait_for("of them upgraded: 0");
    // The last client may not be seen to be gone yet.
    assert!(
        line.contains("connections cut: 2,") || line.contains("connections cut: 3,"),
        "{line}"
    );
    for client in &mut clients {
        assert!(client.response().is_err());
    }
    assert!(service.wait().success());
}

#[test]
fn signals_are_the_programs_if_it_wants_them() {
    let service = Service::on_a_port(&[(set::WITHOUT_SIGNALS, "1")]);
    service.wait_for("SIGTERM is the program's");
    for count in 1..5 {
        service.signal(Signal::SIGTERM);
        service.wait_for_count("the program has SIGTERM", count);
        let mut client = Client::connect(service.address()).unwrap();
        assert_eq!(client.get("/healthz").unwrap().status(), 200);
    }
    let log = service.log();
    assert!(
        !log.iter().any(|line| line.contains("SIGTERM received")),
        "{log:#?}"
    );
}

#[test]
fn deadline_of_the_drain_is_kept_and_reported() {
    let mut service = Service::on_a_port(&[(set::DRAIN_TIMEOUT_MS, "200")]);
    let _client = slow(&service, 60_000);
    service.signal(Signal::SIGTERM);
    service.wait_for("the drain has taken longer than 200ms");
    service.wait_for("connections cut: 1, of them upgraded: 0");
    assert!(service.wait().success());
    assert_eq!(
        service
            .log()
            .iter()
            .filter(|line| line.contains("taken longer"))
            .count(),
        1
    );
}

#[test]
fn health_check_fails_while_the_service_drains() {
    let service = Service::on_a_port(&[]);
    // Waited for longer than one that has asked already.
    let mut probe = Client::connect(service.address()).unwrap();
    let mut other = Client::connect(service.address()).unwrap();
    assert_eq!(other.get("/healthz").unwrap().status(), 200);
    let _client = slow(&service, 60_000);
    service.signal(Signal::SIGTERM);
    refuses(&service);
    assert_eq!(probe.get("/healthz").unwrap().status(), 503);
}

#[test]
fn ready_is_said_when_the_service_can_be_reached_and_stopped() {
    for _ in 0..10 {
        let receiver = NotifyReceiver::bind().unwrap();
        let mut command = Service::command();
        let mut service = Service::start(
            command
                .env(set::SPECS, "127.0.0.1:0")
                .env("NOTIFY_SOCKET", receiver.name()),
        );
        let mut ready = None;
        eventually("ready", || {
            ready = receiver.receive().unwrap();
            ready.is_some()
        });
        let ready = ready.unwrap();
        assert_eq!((ready.pid, ready.message.is_ready()), (service.pid(), true));
        // The very next thing, which would kill a process that is not prepared.
        let client = slow(&service, 100);
        service.signal(Signal::SIGTERM);
        let mut client = client;
        assert_eq!(client.response().unwrap().status(), 200);
        drop(client);
        assert!(service.wait().success());
        let mut stopping = None;
        eventually("stopping", || {
            stopping = receiver.receive().unwrap();
            stopping.is_some()
        });
        let stopping = stopping.unwrap();
        assert!(stopping.message.is_stopping());
    }
}

#[test]
fn service_without_anybody_to_notify_serves() {
    for socket in ["/nonexistent/notify", "nonsense"] {
        let service = Service::on_a_port(&[("NOTIFY_SOCKET", socket)]);
        assert_eq!(
            Client::connect(service.address())
                .unwrap()
                .get("/")
                .unwrap()
                .status(),
            200
        );
        service.wait_for(if socket == "nonsense" {
            "nobody will be notified"
        } else {
            "cannot notify"
        });
    }
}

#[test]
fn manager_that_does_not_listen_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let deaf = UnixDatagram::bind(&path).unwrap();
    let other = UnixDatagram::unbound().unwrap();
    other.connect(&path).unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send(b"STATUS=full").is_ok() {}
    let mut service = Service::on_a_port(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    service.wait_for("cannot notify");
    let mut client = Client::connect(service.address()).unwrap();
    assert_eq!(client.get("/").unwrap().status(), 200);
    drop(client);
    // There is room for one message.
    deaf.recv(&mut [0; 64]).unwrap();
    service.signal(Signal::SIGTERM);
    assert!(service.wait().success());
    deaf.set_nonblocking(true).unwrap();
    let mut message = [0; 4096];
    let mut last = String::new();
    while let Ok(length) = deaf.recv(&mut message) {
        last = String::from_utf8_lossy(&message[..length]).into_owned();
    }
    assert!(last.starts_with("STOPPING=1\n"), "{last}");
}

#[test]
fn worker_that_drains_through_several_restarts_answers() {
    if !child::has("start_server") {
        return;
    }
    let role = Service::command();
    let mut starter = Command::new("start_server");
    starter.args(["--port=127.0.0.1:0", "--interval=1", "--"]);
    child::append(&mut starter, &role);
    let mut service = Service::start(starter.env(set::DRAIN_TIMEOUT_MS, "600000"));
    service.wait_for("serving address");
    let first = service.generation(1).pid;
    let held = held(&service);
    // Connections are accepted in their order.
    Client::connect(service.address())
        .unwrap()
        .get("/")
        .unwrap();
    for restart in 1..4 {
        service.signal(Signal::SIGHUP);
        service.wait_for_count("killing old workers", restart);
    }
    service.wait_for_count("SIGTERM received", 3);
    assert!(!is_gone(first));
    assert_eq!(held.let_go().header("x-gen"), Some("1"));
    eventually("it ends", || is_gone(first));
    send(service.pid(), Signal::SIGTERM);
    assert!(service.wait().success());
}
