//! What real super-daemons hand over.

use std::env;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use super::ROLE;
use crate::child;
use crate::http::Client;
use crate::service::{Service, set};

fn start_server(program: &str, arguments: &[String]) -> Vec<String> {
    let role = child::role(ROLE);
    let mut starter = Command::new("timeout")
        .args(["--signal=KILL", "60", program, "--interval=1"])
        .args(arguments)
        .arg("--")
        // It is started again and again when it ends; the first time is enough.
        .args(["sh", "-c", "\"$@\"; kill $PPID; exec sleep 60", "sh"])
        .arg(role.get_program())
        .args(role.get_args())
        .envs(
            role.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut starter.stderr.take().unwrap(), &mut text).unwrap();
    starter.wait().unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn perls_start_server_hands_over_every_kind_of_socket() {
    if child::has("start_server") {
        hands_over_every_kind_of_socket("start_server");
    }
}

#[test]
fn our_start_server_hands_over_every_kind_of_socket() {
    hands_over_every_kind_of_socket(env!("CARGO_BIN_EXE_start_server"));
}

fn hands_over_every_kind_of_socket(program: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a=b.sock").display().to_string();
    let arguments = [
        "--port=0",
        "--port=127.0.0.1:0",
        "--port=[::1]:0",
        "--port=127.0.0.1:u0",
        &format!("--path={path}"),
    ];
    let lines = start_server(program, &arguments.map(str::to_owned));
    assert!(
        lines
            .iter()
            .any(|line| line == "ServerStarter generation 1"),
        "{lines:?}"
    );
    let path = format!("unix {path}");
    for expected in [
        "tcp 0.0.0.0:",
        "tcp 127.0.0.1:",
        "tcp [::1]:",
        "udp 127.0.0.1:",
        &path,
    ] {
        let line = lines
            .iter()
            .find(|line| line.starts_with(&format!("inherited {expected}")));
        assert!(
            line.is_some_and(|line| line.ends_with("closes true blocks false")),
            "{expected}: {lines:?}"
        );
    }
}

#[test]
fn relative_path_is_the_starters_wherever_the_program_runs() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let mut starter = Command::new(env!("CARGO_BIN_EXE_start_server"));
    starter
        .args(["--path=app.sock", "--dir=elsewhere", "--"])
        .current_dir(directory.path())
        .env(set::SPECS, "./app.sock");
    child::append(&mut starter, &Service::command());
    let service = Service::start(&mut starter);
    service.wait_for("serving address=app.sock");
    let response = Client::connect_unix(&directory.path().join("app.sock"))
        .unwrap()
        .get("/");
    assert_eq!(response.unwrap().body, "hello");
}

#[test]
fn systemd_socket_activate_hands_over_named_sockets() {
    if !child::has("systemd-socket-activate") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let port = crate::port::free();
    let role = child::role(ROLE);
    // It passes on only what it is told to.
    let environment: Vec<_> = role
        .get_envs()
        .filter_map(|(name, value)| {
            Some(format!("--setenv={}={}", name.to_str()?, value?.to_str()?))
        })
        .collect();
    let activator = Command::new("systemd-socket-activate")
        .arg(format!("--listen=127.0.0.1:{port}"))
        .arg(format!("--listen={}", path.display()))
        .arg("--fdname=http:admin")
        .args(environment)
        .arg(role.get_program())
        .args(role.get_args())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It starts the program when somebody connects.
    let mut connection = None;
    crate::drain::eventually("connected", || {
        connection = UnixStream::connect(&path).ok();
        connection.is_some()
    });
    let output = activator.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("Systemd generation 1"), "{text}");
    assert!(
        text.contains(&format!(
            "inherited tcp 127.0.0.1:{port} http closes true blocks false"
        )),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "inherited unix {} admin closes true",
            path.display()
        )),
        "{text}"
    );
    assert!(path.exists());
}
