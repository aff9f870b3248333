//! Unix sockets: their files, their modes, and who removes them.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::{AT_ONCE, echo_ports};
use crate::bind::leave_dead_socket;
use crate::starter::daemon::{Program, Start, both, finish, stderr};
use crate::starter::processes::proc_status;
use crate::starter::worker::talk;

#[test]
fn unix_socket_serves_and_is_removed_in_the_end() {
    both(|program| {
        let mut daemon = Start::new(program)
            .options(AT_ONCE)
            .options(["--path=a.sock"])
            .start();
        daemon.wait_for_log("serving as");
        let path = daemon.path("a.sock");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o777, "{mode:o}");
        assert_eq!(
            talk(&mut UnixStream::connect(&path).unwrap(), "generation").unwrap(),
            "1"
        );
        daemon.signal(Signal::SIGHUP);
        daemon.wait("the second generation", || {
            let answer = talk(&mut UnixStream::connect(&path).unwrap(), "generation");
            answer.is_ok_and(|answer| answer == "2").then_some(())
        });
        daemon.stop();
        assert!(!path.exists());
    });
}

#[test]
fn stale_socket_file_is_replaced() {
    both(|program| {
        let start = Start::new(program)
            .options(AT_ONCE)
            .options(["--path=a.sock"]);
        leave_dead_socket(&start.dir().join("a.sock"));
        let daemon = start.start();
        daemon.wait_for_log("removing existing socket file:a.sock");
        daemon.wait_for_log("serving as");
        assert_eq!(
            talk(
                &mut UnixStream::connect(daemon.path("a.sock")).unwrap(),
                "generation"
            )
            .unwrap(),
            "1"
        );
    });
}

#[test]
fn file_that_is_no_socket_is_left_alone() {
    let start = Start::new(Program::Ours)
        .options(["--path=precious"])
        .file("precious", "data");
    let path = start.dir().join("precious");
    let output = finish(start.command());
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("precious: it exists and is not a socket"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fs::read_to_string(path).unwrap(), "data");
}

#[test]
fn socket_file_of_a_successor_is_left_alone() {
    let mut first = Start::new(Program::Ours)
        .options(AT_ONCE)
        .options(["--path=a.sock"])
        .start();
    first.wait_for_log("serving as");
    let path = first.path("a.sock");
    let second = Start::new(Program::Ours)
        .options(AT_ONCE)
        .options(["--path", path.to_str().unwrap()])
        .start();
    second.wait_for_log("serving as");
    first.stop();
    assert!(path.exists(), "the first removed what was the second's");
    assert_eq!(
        talk(&mut UnixStream::connect(&path).unwrap(), "generation").unwrap(),
        "1"
    );
}

#[test]
fn socket_files_of_a_failed_start_are_removed() {
    both(|program| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let start = Start::new(program).options(["--path=a.sock", "--path=nowhere/b.sock"]);
        let path = start.dir().join("a.sock");
        let output = finish(start.command());
        assert!(!output.status.success());
        assert!(
            stderr(&output).contains("failed to listen to file nowhere/b.sock"),
            "{}",
            stderr(&output)
        );
        assert!(!path.exists());
        drop(taken);
    });
}

#[test]
fn socket_mode_is_what_is_asked_for() {
    let daemon = Start::new(Program::Ours)
        .options(AT_ONCE)
        .options(["--path=a.sock", "--socket-mode=0640"])
        .start();
    daemon.wait_for_log("serving as");
    let mode = fs::metadata(daemon.path("a.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640, "{mode:o}");
}

#[test]
fn paths_that_cannot_be_passed_on_are_refused() {
    for (path, reason) in [("8080", "./8080"), ("a;b", "`;`")] {
        let output = Start::new(Program::Ours)
            .options([format!("--path={path}")])
            .run();
        assert_eq!(output.status.code(), Some(255));
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
}

#[test]
fn mask_of_the_worker_is_not_that_of_the_socket_file() {
    both(|program| {
        let daemon = Start::new(program)
            .options(["--interval=0", "--port=127.0.0.1:0", "--path=a.sock"])
            .start();
        let own = proc_status(std::process::id().cast_signed(), "Umask");
        assert_eq!(daemon.ask("status Umask"), own);
    });
}

#[test]
fn backlog_is_that_of_unix_sockets_too() {
    both(|program| {
        let daemon = echo_ports(program)
            .options(["--path=a.sock", "--backlog=1"])
            .start();
        daemon.wait_for_log("ports are ");
        let address = socket2::SockAddr::unix(daemon.path("a.sock")).unwrap();
        let clients: Vec<_> = (0..10)
            .map(|_| {
                let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                // Nobody accepts: there is room, or there is none.
                (client.connect(&address).is_ok(), client)
            })
            .collect();
        let connected = clients.iter().filter(|(connected, _)| *connected).count();
        assert!((1..=3).contains(&connected), "{connected} with room for 1");
    });
}
