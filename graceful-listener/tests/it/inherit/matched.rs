//! Which of the inherited sockets is meant by a specification.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::{heir, port, tcp};

#[test]
fn sockets_are_matched_with_the_specifications_in_their_order() {
    let (first, second) = (tcp(), tcp());
    let (one, two) = (port(&first), port(&second));
    let lines = heir()
        .set(
            "SERVER_STARTER_PORT",
            format!("127.0.0.1:{one}=3;127.0.0.1:{two}=4"),
        )
        .set("SPECS", format!("127.0.0.1:{two} 127.0.0.1:{one}"))
        .give(first)
        .give(second)
        .says();
    assert!(
        lines[1].starts_with(&format!("inherited tcp 127.0.0.1:{two} ")),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with(&format!("inherited tcp 127.0.0.1:{one} ")),
        "{lines:?}"
    );
}

#[test]
fn port_zero_is_matched_by_its_name() {
    let (first, second) = (
        TcpListener::bind("0.0.0.0:0").unwrap(),
        TcpListener::bind("0.0.0.0:0").unwrap(),
    );
    let (one, two) = (port(&first), port(&second));
    let lines = heir()
        .set("SERVER_STARTER_PORT", "0=3;0=4")
        .set("SPECS", "0 0")
        .give(first)
        .give(second)
        .says();
    assert!(
        lines[1].starts_with(&format!("inherited tcp 0.0.0.0:{one} ")),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with(&format!("inherited tcp 0.0.0.0:{two} ")),
        "{lines:?}"
    );
}

#[test]
fn wildcards_match_across_families_and_host_names_by_address() {
    let wildcard = TcpListener::bind("0.0.0.0:0").unwrap();
    let local = tcp();
    let (one, two) = (port(&wildcard), port(&local));
    let lines = heir()
        .set("LISTEN_FDS", "2")
        .listen_pid()
        .set("SPECS", format!("localhost:{two} [::]:{one}"))
        .give(wildcard)
        .give(local)
        .says();
    assert!(
        lines[1].starts_with(&format!("inherited tcp 127.0.0.1:{two} ")),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with(&format!("inherited tcp 0.0.0.0:{one} ")),
        "{lines:?}"
    );
}

#[test]
fn udp_and_tcp_of_one_port_are_told_apart() {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let port = port(&tcp);
    let lines = heir()
        .set(
            "SERVER_STARTER_PORT",
            format!("127.0.0.1:{port}=3;127.0.0.1:{port}=4"),
        )
        .set("SPECS", format!("127.0.0.1:{port} 127.0.0.1:u{port}"))
        .give(udp)
        .give(tcp)
        .says();
    assert!(lines[1].starts_with("inherited tcp "), "{lines:?}");
    assert!(lines[2].starts_with("inherited udp "), "{lines:?}");
}

#[test]
fn unix_socket_is_matched_through_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let link = directory.path().join("link.sock");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let lines = heir()
        .set("LISTEN_FDS", "1")
        .listen_pid()
        .set("SPECS", link.to_str().unwrap())
        .give(UnixListener::bind(&path).unwrap())
        .says();
    let expected = format!("inherited unix {} ", path.display());
    assert!(lines[1].starts_with(&expected), "{lines:?}");
}

#[test]
fn abstract_socket_is_matched_by_its_name() {
    let name = format!("graceful-inherit-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let lines = heir()
        .set("LISTEN_FDS", "1")
        .listen_pid()
        .set("SPECS", format!("@{name}"))
        .give(UnixListener::bind_addr(&address).unwrap())
        .says();
    let taken = format!("inherited unix @{name} ");
    assert!(lines[1].starts_with(&taken), "{lines:?}");
}

#[test]
fn inherited_sockets_are_kept_whatever_else_would_be_bound() {
    let lines = heir().set("OR_BIND", "127.0.0.1:0").says();
    assert!(lines[1].starts_with("bound tcp 127.0.0.1:"), "{lines:?}");
    let listener = tcp();
    let port = port(&listener);
    let lines = heir()
        .set("SERVER_STARTER_PORT", format!("127.0.0.1:{port}=3"))
        .set("OR_BIND", "127.0.0.1:0")
        .give(listener)
        .says();
    let kept = format!("inherited tcp 127.0.0.1:{port} ");
    assert!(lines[1].starts_with(&kept), "{lines:?}");
    assert!(lines[2].starts_with("again: "), "{lines:?}");
}
