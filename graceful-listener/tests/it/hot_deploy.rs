//! The service is replaced again and again under load, and no request is lost.
//!
//! `HOT_DEPLOY_SWITCHES` sets how often, `HOT_DEPLOY_REQUESTS` how many requests
//! are made between two switches. `HOT_DEPLOY_PROGRAM` puts a program that behaves like
//! `examples/src/bin/graceful.rs` in the place of this binary's role. The figures
//! are printed.

use std::env;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::load::{Load, Report, Running, Target};
use crate::service::{Service, send, set};
use crate::{child, http2, process};

fn size(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn switches() -> u64 {
    size("HOT_DEPLOY_SWITCHES", 4)
}

fn program() -> Command {
    match env::var_os("HOT_DEPLOY_PROGRAM") {
        Some(program) => Command::new(program),
        None => Service::command(),
    }
}

/// Waits until so many requests more have been made.
fn let_run(load: &Running) {
    let until = load.requests() + size("HOT_DEPLOY_REQUESTS", 300);
    eventually("requests are made", || load.requests() >= until);
}

fn let_streams_run(load: &http2::Load) {
    let until = load.requests() + size("HOT_DEPLOY_REQUESTS", 300);
    eventually("requests are made", || load.requests() >= until);
}

/// The number behind `before` in a line.
fn number_after(line: &str, before: &str) -> u32 {
    let rest = line.split(before).nth(1).unwrap();
    rest.split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn address(service: &Service) -> SocketAddr {
    let line = service.wait_for("serving address=");
    line.split("serving address=")
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// How long each switch took.
#[derive(Default)]
struct Times {
    released: Vec<Duration>,
    gone: Vec<Duration>,
}

impl Times {
    fn wait_for_the_end_of(&mut self, old: u32, socket: &String, began: Instant) {
        eventually("the old process releases its socket", || {
            !process::descriptors(old).contains(socket)
        });
        self.released.push(began.elapsed());
        eventually("the old process ends", || process::is_gone(old));
        self.gone.push(began.elapsed());
    }

    fn median_and_max(times: &mut [Duration]) -> String {
        times.sort_unstable();
        format!("{:?} {:?}", times[times.len() / 2], times[times.len() - 1])
    }

    fn print(&mut self, name: &str, report: &Report) {
        eprintln!("{name}, {} switches\n{report}", self.gone.len());
        eprintln!(
            "listener released (median, max): {}",
            Self::median_and_max(&mut self.released)
        );
        eprintln!(
            "old process gone (median, max):  {}",
            Self::median_and_max(&mut self.gone)
        );
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + crate::http::DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The socket, as /proc names it, that a process listens with.
pub(crate) fn listening_socket(pid: u32, port: u16) -> String {
    let local = format!(":{port:04X} 00000000:0000 0A ");
    let mut socket = String::new();
    // Lines may be missing from a table that changes while it is read.
    eventually("it listens", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table.lines().find(|line| line.contains(&local));
        let inode = line.and_then(|line| line.split_whitespace().nth(9));
        socket = format!("socket:[{}]", inode.unwrap_or_default());
        inode.is_some()
    });
    assert!(process::descriptors(pid).contains(&socket));
    socket
}

#[test]
fn in_place_upgrades_lose_no_request() {
    let service = Service::start(
        program()
            .env(set::SPECS, "127.0.0.1:0")
            .env("BIND_ADDR", "127.0.0.1:0"),
    );
    let address = address(&service);
    let socket = listening_socket(service.pid(), address.port());
    let load = Load::new(Target::Tcp(address)).start();
    let mut times = Times::default();
    let mut old = service.pid();
    for switch in 1..=switches() {
        let_run(&load);
        let began = Instant::now();
        send(old, Signal::SIGUSR2);
        let new = number_after(
            &service.wait_for_count("has taken over", switch as usize),
            "process ",
        );
        times.wait_for_the_end_of(old, &socket, began);
        old = new;
    }
    let_run(&load);
    finish("in-place upgrades", load, times);
    send(old, Signal::SIGTERM);
}

#[test]
fn in_place_upgrades_lose_no_request_on_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let service = Service::start(Service::command().env(set::SPECS, &path));
    service.wait_for("serving address=");
    let load = Load::new(Target::Unix(path)).start();
    let mut old = service.pid();
    for switch in 1..=switches() {
        let_run(&load);
        send(old, Signal::SIGUSR2);
        let new = number_after(
            &service.wait_for_count("has taken over", switch as usize),
            "process ",
        );
        eventually("the old process ends", || process::is_gone(old));
        old = new;
    }
    let_run(&load);
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
}

#[test]
fn in_place_upgrades_lose_no_http2_stream() {
    let service = Service::start(
        program()
            .env(set::SPECS, "127.0.0.1:0")
            .env("BIND_ADDR", "127.0.0.1:0"),
    );
    let load = http2::Load::start(address(&service));
    let mut old = service.pid();
    for switch in 1..=switches() {
        let_streams_run(&load);
        send(old, Signal::SIGUSR2);
        let new = number_after(
            &service.wait_for_count("has taken over", switch as usize),
            "process ",
        );
        eventually("the old process ends", || process::is_gone(old));
        old = new;
    }
    let_streams_run(&load);
    finish_streams("in-place upgrades", load);
    send(old, Signal::SIGTERM);
}

/// Perl's start_server, with a socket of its own.
fn perls_start_server() -> Service {
    let mut start_server = Command::new("start_server");
    start_server.args(["--port=127.0.0.1:0", "--interval=1", "--"]);
    child::append(&mut start_server, &program());
    Service::start(&mut start_server)
}

fn worker(service: &Service, number: u64) -> u32 {
    let line = service.wait_for_count("starting new worker", number as usize);
    number_after(&line, "worker ")
}

/// Returns the new worker when the old ones have been told to end.
fn hang_up(service: &Service, switch: u64) -> u32 {
    service.signal(Signal::SIGHUP);
    let new = worker(service, switch + 1);
    service.wait_for_count(
        "new worker is now running, sending TERM to old workers",
        switch as usize,
    );
    new
}

#[test]
fn hups_of_perls_start_server_lose_no_request() {
    if !child::has("start_server") {
        return;
    }
    let mut service = perls_start_server();
    let address = address(&service);
    let mut old = worker(&service, 1);
    let socket = listening_socket(old, address.port());
    let load = Load::new(Target::Tcp(address)).start();
    let mut times = Times::default();
    for switch in 1..=switches() {
        let_run(&load);
        let new = hang_up(&service, switch);
        times.wait_for_the_end_of(old, &socket, Instant::now());
        old = new;
    }
    let_run(&load);
    finish("HUPs of Perl's start_server", load, times);
    service.signal(Signal::SIGTERM);
    assert!(service.wait().success());
}

#[test]
fn hups_of_perls_start_server_lose_no_http2_stream() {
    if !child::has("start_server") {
        return;
    }
    let mut service = perls_start_server();
    let load = http2::Load::start(address(&service));
    let mut old = worker(&service, 1);
    for switch in 1..=switches() {
        let_streams_run(&load);
        let new = hang_up(&service, switch);
        eventually("the old process ends", || process::is_gone(old));
        old = new;
    }
    let_streams_run(&load);
    finish_streams("HUPs of Perl's start_server", load);
    service.signal(Signal::SIGTERM);
    assert!(service.wait().success());
}

fn finish(name: &str, load: Running, mut times: Times) {
    let report = load.stop();
    times.print(name, &report);
    assert_eq!(report.failed(), 0, "{report}");
    assert_eq!(
        report.generations().len() as u64,
        1 + switches(),
        "every generation has answered"
    );
}

fn finish_streams(name: &str, load: http2::Load) {
    eventually("every generation has had connections", || {
        load.connections() >= 8 * (1 + switches())
    });
    let (requests, connections, failures) = load.stop();
    eprintln!(
        "{name}, HTTP/2, {} switches: {requests} requests on {connections} connections, {} failed",
        switches(),
        failures.len()
    );
    assert!(failures.is_empty(), "{failures:?}");
}
