//! The sockets: how they are asked for, made, named and handed on.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

use super::daemon::{Daemon, Program, Start, both, stderr};
use super::worker::talk;
use crate::{child, port};

mod unix;

const AT_ONCE: [&str; 1] = ["--interval=0"];

/// What the worker finds in `SERVER_STARTER_PORT`, with the numbers left out.
fn names(daemon: &Daemon) -> Vec<String> {
    let log = daemon.wait_for_log("ports are ");
    let text = log
        .lines()
        .find_map(|line| line.strip_prefix("ports are "))
        .unwrap()
        .trim_matches('.')
        .to_owned();
    text.split(';')
        .filter(|entry| !entry.is_empty())
        .map(|entry| entry.rsplit_once('=').unwrap().0.into())
        .collect()
}

fn echo_ports(program: Program) -> Start {
    Start::new(program)
        .options(AT_ONCE)
        .shell("echo \"ports are .$SERVER_STARTER_PORT.\"; exec sleep 600")
}

#[test]
fn ports_come_before_paths_and_keep_their_order_and_names() {
    both(|program| {
        let port = port::free();
        let daemon = echo_ports(program)
            .options([
                "--path=b.sock",
                "--port=127.0.0.1:0",
                "--path=a.sock",
                "--port",
                &format!("{port}"),
            ])
            .options(["--port=localhost:u0", "--port=u0"])
            .start();
        let expected = [
            "127.0.0.1:0".into(),
            port.to_string(),
            "localhost:0".into(),
            "0".into(),
            "b.sock".into(),
            "a.sock".into(),
        ];
        assert_eq!(names(&daemon), expected);
    });
}

#[test]
fn without_sockets_the_variable_is_set_and_empty() {
    both(|program| {
        let daemon = Start::new(program)
            .options(AT_ONCE)
            .shell("echo \"ports are .${SERVER_STARTER_PORT-unset}.\"; exec sleep 600")
            .start();
        assert!(names(&daemon).is_empty());
    });
}

#[test]
fn every_form_of_an_address_is_bound_and_named() {
    both(|program| {
        for (spec, name) in [
            ("[::1]:0", "[::1]:0"),
            ("::1:0", "[::1]:0"),
            ("[127.0.0.1]:0", "127.0.0.1:0"),
            (" 0 ", "0"),
            ("127.0.0.1: 0", "127.0.0.1:0"),
            ("localhost:0", "localhost:0"),
            ("127.0.0.1:u0", "127.0.0.1:0"),
            ("0.0.0.0:u0", "0.0.0.0:0"),
            ("u0", "0"),
        ] {
            let daemon = echo_ports(program)
                .options([format!("--port={spec}")])
                .start();
            assert_eq!(names(&daemon), [name], "{spec}");
        }
    });
}

#[test]
fn bare_port_is_bound_on_ipv4_only() {
    both(|program| {
        let port = port::free();
        let daemon = Start::new(program)
            .options(AT_ONCE)
            .options([format!("--port={port}")])
            .start();
        daemon.wait_for_log("serving as");
        assert_eq!(daemon.address(), format!("0.0.0.0:{port}"));
        assert_eq!(daemon.ask("generation"), "1");
        assert!(
            TcpStream::connect(("::1", port)).is_err(),
            "it answers on IPv6"
        );
    });
}

#[test]
fn ipv6_socket_does_not_take_ipv4_connections() {
    both(|program| {
        let port = port::free();
        let daemon = Start::new(program)
            .options(AT_ONCE)
            .options([format!("--port=[::1]:{port}")])
            .start();
        daemon.wait_for_log("serving as");
        assert_eq!(
            talk(
                &mut TcpStream::connect(("::1", port)).unwrap(),
                "generation"
            )
            .unwrap(),
            "1"
        );
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        // The same port on IPv4 is another's to take.
        TcpListener::bind(("0.0.0.0", port)).unwrap();
    });
}

#[test]
fn any_address_of_ipv6_leaves_ipv4_alone() {
    both(|program| {
        let port = port::free();
        let daemon = Start::new(program)
            .options(AT_ONCE)
            .options([format!("--port=[::]:{port}")])
            .start();
        daemon.wait_for_log("serving as");
        TcpListener::bind(("0.0.0.0", port)).unwrap();
    });
}

#[test]
fn socket_is_given_the_number_that_is_asked_for() {
    both(|program| {
        let daemon = echo_ports(program)
            .options(["--port=127.0.0.1:0=7", "--port=u0=9"])
            .start();
        let log = daemon.wait_for_log("ports are .127.0.0.1:0=7;0=9.");
        for number in [7, 9] {
            assert!(
                log.contains(&format!("socket is duplicated to file descriptor {number}")),
                "{log}"
            );
        }
    });
}

#[test]
fn socket_may_be_the_standard_input() {
    both(|program| {
        let daemon = Start::new(program)
            .options(AT_ONCE)
            .options(["--port=127.0.0.1:0=0"])
            .shell(
                "readlink /proc/$$/fd/0; echo \"ports are .$SERVER_STARTER_PORT.\"; exec sleep 600",
            )
            .start();
        let log = daemon.wait_for_log("ports are .127.0.0.1:0=0.");
        assert!(log.contains("\nsocket:["), "{log}");
    });
}

#[test]
fn number_asked_for_twice_is_refused() {
    let output = Start::new(Program::Ours)
        .options(["--port=127.0.0.1:0=7", "--port=u0=7"])
        .run();
    assert_eq!(output.status.code(), Some(255));
    assert!(
        stderr(&output).contains("descriptor 7 is already that of 127.0.0.1:0"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn numbers_asked_for_never_meet_those_of_other_sockets() {
    // Whatever number a socket gets by itself, it is not the one another asks for.
    let options: Vec<_> = (3..20)
        .map(|number| format!("--port=127.0.0.1:0={number}"))
        .collect();
    let daemon = echo_ports(Program::Ours)
        .options(["--port=[::1]:0", "--port=u0", "--path=a"])
        .options(options)
        .start();
    let log = daemon.wait_for_log("ports are ");
    let text = log
        .lines()
        .find_map(|line| line.strip_prefix("ports are ."))
        .unwrap();
    let mut numbers: Vec<_> = text
        .trim_end_matches('.')
        .split(';')
        .map(|entry| entry.rsplit_once('=').unwrap().1)
        .collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((count, numbers.len()), (20, 20), "{text}");
}

#[test]
fn log_descriptors_are_not_given_away() {
    for number in [1, 2] {
        let output = Start::new(Program::Ours)
            .options([format!("--port=0={number}")])
            .run();
        assert_eq!(output.status.code(), Some(255));
        assert!(
            stderr(&output).contains("carries the log"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn port_in_use_is_an_error_that_names_it() {
    both(|program| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let output = Start::new(program)
            .options([format!("--port=127.0.0.1:{port}")])
            .run();
        assert_eq!(output.status.code(), Some(98), "{}", stderr(&output));
        assert!(
            stderr(&output).contains(&format!("failed to bind to 127.0.0.1:{port}")),
            "{}",
            stderr(&output)
        );
    });
}

#[test]
fn foreign_address_is_an_error_that_names_it() {
    both(|program| {
        let output = Start::new(program).options(["--port=192.0.2.1:0"]).run();
        assert_eq!(output.status.code(), Some(99), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("failed to bind to 192.0.2.1:0"),
            "{}",
            stderr(&output)
        );
    });
}

#[test]
fn what_is_no_port_is_an_error_that_names_it() {
    both(|program| {
        for spec in ["http", "80=x", "80 81", "localhost:http"] {
            let output = Start::new(program)
                .options([format!("--port={spec}")])
                .run();
            assert_eq!(output.status.code(), Some(255), "{spec}");
            assert!(
                stderr(&output).contains(&format!("invalid ``port'' value:{spec}")),
                "{}",
                stderr(&output)
            );
        }
        let output = Start::new(program)
            .options(["--port=no.such.host.invalid:80"])
            .run();
        assert!(!output.status.success());
        assert!(
            stderr(&output).contains("failed to resolve host:no.such.host.invalid"),
            "{}",
            stderr(&output)
        );
    });
}

#[test]
fn host_name_is_bound_on_ipv4_only() {
    use std::net::ToSocketAddrs;
    let name = "ip6-localhost";
    if (name, 0)
        .to_socket_addrs()
        .is_ok_and(|mut found| found.all(|address| address.is_ipv6()))
    {
        both(|program| {
            let output = Start::new(program)
                .options([format!("--port={name}:0")])
                .run();
            assert!(!output.status.success());
            assert!(
                stderr(&output).contains(&format!("failed to resolve host:{name}")),
                "{}",
                stderr(&output)
            );
        });
    } else {
        child::left_out("no host name has IPv6 addresses alone here");
    }
}

#[test]
fn port_out_of_range_is_refused() {
    let output = Start::new(Program::Ours).options(["--port=99999"]).run();
    assert_eq!(output.status.code(), Some(255));
    assert!(
        stderr(&output).contains("port 99999 is out of range"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn tcp_port_is_taken_again_while_old_connections_linger() {
    both(|program| {
        let address = format!("127.0.0.1:{}", port::free());
        let mut daemon = Start::new(program)
            .options(AT_ONCE)
            .options([format!("--port={address}")])
            .start();
        daemon.wait_for_log("serving as generation 1");
        let mut stream = TcpStream::connect(&address).unwrap();
        assert_eq!(talk(&mut stream, "generation").unwrap(), "1");
        daemon.stop();
        drop(stream);
        // The worker closed first, so its side of the connection is in TIME_WAIT.
        let again = Start::new(program)
            .options(AT_ONCE)
            .options([format!("--port={address}")])
            .start();
        again.wait_for_log("serving as generation 1");
    });
}

#[test]
fn backlog_is_what_is_asked_for() {
    both(|program| {
        let daemon = Start::new(program)
            .options(AT_ONCE)
            .options(["--port=127.0.0.1:0", "--backlog=1"])
            .file("mode", "stay")
            .shell("echo \"ports are .$SERVER_STARTER_PORT.\"; exec sleep 600")
            .start();
        daemon.wait_for_log("ports are ");
        let address = daemon.own_address();
        let clients: Vec<_> = (0..10).map(|_| begin_to_connect(address)).collect();
        let connected = || {
            let there = clients.iter().filter(|client| client.peer_addr().is_ok());
            there.count()
        };
        daemon.wait("a connection", || (connected() > 0).then_some(()));
        // None of the others comes through, however often the kernel tries.
        std::thread::sleep(Duration::from_millis(1500));
        let connected = connected();
        assert!(
            connected <= 3,
            "{connected} connections with a backlog of 1"
        );
    });
}

#[test]
fn backlog_is_large_by_default() {
    both(|program| {
        // Perl's listens with what is left of a number that is too large.
        let backlog = match program {
            Program::Ours => "--backlog=99999999999999999999",
            Program::Perl => "--backlog=0",
        };
        let daemon = echo_ports(program)
            .options(["--port=127.0.0.1:0", "--backlog=0", backlog])
            .start();
        daemon.wait_for_log("ports are ");
        let address = daemon.own_address();
        let clients: Vec<_> = (0..200).map(|_| begin_to_connect(address)).collect();
        daemon.wait("all connections", || {
            let mut clients = clients.iter();
            clients
                .all(|client| client.peer_addr().is_ok())
                .then_some(())
        });
    });
}

/// A client whose connection is made by the kernel as soon as there is room for it.
fn begin_to_connect(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let begun = socket.connect(&address.into());
    let is_begun = begun.is_err_and(|error| error.raw_os_error() == Some(libc::EINPROGRESS));
    assert!(is_begun);
    socket
}

#[test]
fn udp_is_received_by_one_generation_after_the_other() {
    both(|program| {
        let daemon = Start::new(program)
            .options(AT_ONCE)
            .options(["--port=127.0.0.1:u0"])
            .start();
        let log = daemon.wait_for_log("serving as");
        let address = log
            .lines()
            .find_map(|line| Some(line.split_once("receiving on ")?.1))
            .unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let ask = || {
            socket.send_to(b"generation", address).unwrap();
            let mut answer = [0; 10];
            socket
                .recv(&mut answer)
                .map(|length| answer[..length].to_vec())
        };
        daemon.wait("an answer", || ask().ok().filter(|answer| answer == b"1"));
        daemon.signal(Signal::SIGHUP);
        daemon.wait("an answer of the second", || {
            ask().ok().filter(|answer| answer == b"2")
        });
    });
}

#[test]
fn udp_port_in_use_is_refused() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = Start::new(Program::Ours)
        .options([format!("--port=127.0.0.1:u{port}")])
        .run();
    assert_eq!(output.status.code(), Some(98), "{}", stderr(&output));
}

#[test]
fn sockets_listen_before_the_worker_does() {
    both(|program| {
        let daemon = echo_ports(program).options(["--port=127.0.0.1:0"]).start();
        daemon.wait_for_log("ports are ");
        // Nobody accepts, yet nobody is refused.
        let stream: io::Result<TcpStream> = TcpStream::connect(daemon.own_address());
        assert!(stream.is_ok());
    });
}

#[test]
fn socket_that_is_given_a_number_has_no_other() {
    both(|program| {
        let daemon = Start::new(program)
            .options(AT_ONCE)
            .options(["--port=127.0.0.1:0=7", "--port=u0=9"])
            .shell("for fd in /proc/$$/fd/*; do echo \"fd ${fd##*/} is $(readlink $fd)\"; done; echo end; exec sleep 600")
            .start();
        let log = daemon.wait_for_log("\nend\n");
        let sockets: Vec<_> = log
            .lines()
            .filter_map(|line| line.strip_prefix("fd ")?.split_once(" is socket:"))
            .map(|(number, _)| number)
            .collect();
        assert_eq!(sockets, ["7", "9"], "{log}");
    });
}

#[test]
fn connections_wait_while_no_worker_lives() {
    both(|program| {
        let daemon = Daemon::serving(program);
        let address = daemon.address();
        daemon.write("mode", "sleep=500");
        kill(Pid::from_raw(daemon.worker(1)), Signal::SIGKILL).unwrap();
        daemon.wait_for_log("died unexpectedly");
        // Refused by nobody, answered by the next one.
        let mut stream = TcpStream::connect(&address).unwrap();
        assert_eq!(talk(&mut stream, "generation").unwrap(), "2");
    });
}
