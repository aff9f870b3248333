//! Sockets that the process binds itself, for which nothing is inherited.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use graceful_listener::{Address, ListenError, Listeners, Origin, Socket};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use socket2::{Domain, Type};

use crate::child;
use crate::inherit::{self, tcp};
use crate::systemd::namespaces;

fn bind(specs: &[&str]) -> Result<Listeners, ListenError> {
    Listeners::bind(specs)
}

/// What is left of a Unix socket of which nobody has a descriptor any more.
///
/// It never listens: a copy that another thread's child has for a moment would keep
/// it alive.
pub(crate) fn leave_dead_socket(path: &Path) {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let address = socket2::SockAddr::unix(path).unwrap();
    socket.bind(&address).unwrap();
}

fn addresses(listeners: &Listeners) -> Vec<String> {
    listeners
        .iter()
        .map(|listener| listener.address().to_string())
        .collect()
}

#[test]
fn two_sockets_of_port_zero_get_two_ports() {
    let listeners = bind(&["127.0.0.1:0", "127.0.0.1:0"]).unwrap();
    let addresses = addresses(&listeners);
    assert_ne!(addresses[0], addresses[1]);
    assert_eq!(listeners.origin(), Origin::Bound);
}

#[test]
fn second_socket_of_one_address_is_refused_with_the_specification() {
    let first = bind(&["127.0.0.1:0"]).unwrap();
    let spec = addresses(&first).remove(0);
    let error = bind(&[&spec]).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on `{spec}`"));
    let ListenError::Bind { source, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn port_of_a_connection_that_has_just_ended_can_be_bound() {
    let spec = format!("127.0.0.1:{}", crate::port::free());
    let first = bind(&[&spec]).unwrap();
    let client = TcpStream::connect(&spec).unwrap();
    let Socket::Tcp(listener) = first.iter().next().unwrap().socket() else {
        panic!("it is TCP")
    };
    // Whoever closes first keeps the address busy for a minute.
    drop(listener.accept().unwrap());
    drop(client);
    drop(first);
    // What another thread starts has a copy of the socket until it is executed.
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = bind(&[&spec]) {
        assert!(Instant::now() < deadline, "{error:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn both_wildcards_of_one_port_can_be_bound_together() {
    for host in ["", "0.0.0.0:"] {
        let port = crate::port::free();
        let specs = [format!("[::]:{port}"), format!("{host}{port}")];
        let listeners = Listeners::bind(specs).unwrap();
        assert_eq!(
            addresses(&listeners),
            [format!("[::]:{port}"), format!("0.0.0.0:{port}")]
        );
    }
}

#[test]
fn wildcard_of_ipv6_alone_takes_ipv4_too() {
    let listeners = bind(&["[::]:0"]).unwrap();
    let port = listeners
        .iter()
        .next()
        .unwrap()
        .address()
        .as_inet()
        .unwrap()
        .port();
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
}

#[test]
fn host_name_is_resolved() {
    let listeners = bind(&["localhost:0"]).unwrap();
    let address = listeners.iter().next().unwrap().address();
    assert!(address.ip().unwrap().is_loopback(), "{address}");
}

#[test]
fn second_address_of_a_host_name_is_bound_if_the_first_is_not_free() {
    let mut hosts = tempfile::NamedTempFile::new().unwrap();
    hosts.write_all(b"127.0.0.1 two\n127.0.0.2 two\n").unwrap();
    let with_hosts = |script: &str| {
        let mut shell = namespaces();
        shell.arg(format!("mount --bind \"$HOSTS\" /etc/hosts && {script}"));
        shell.arg("sh").env("HOSTS", hosts.path());
        shell
    };
    let probe = with_hosts("getent ahosts two").output();
    let known = probe.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    );
    let addresses = ["127.0.0.1", "127.0.0.2"];
    if !addresses.iter().all(|address| known.contains(address)) {
        child::left_out("no host can be named here");
        return;
    }
    // Whichever is the first one.
    for (taken, free) in [(0, 1), (1, 0)] {
        let port = crate::port::free();
        let _taken = TcpListener::bind((addresses[taken], port)).unwrap();
        let mut heir = with_hosts("exec \"$@\"");
        child::append(&mut heir, &child::role(inherit::ROLE));
        let output = heir.env("SPECS", format!("two:{port}")).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let bound = format!("bound tcp {}:{port} ", addresses[free]);
        assert!(text.contains(&bound), "{text}");
    }
}

#[test]
fn udp_is_bound_where_the_specification_says_so() {
    let listeners = bind(&["127.0.0.1:u0", "u0", "[::1]:u0"]).unwrap();
    assert!(
        listeners
            .iter()
            .all(|listener| matches!(listener.socket(), Socket::Udp(_)))
    );
    assert!(addresses(&listeners)[2].starts_with("[::1]:"));
}

#[test]
fn specification_that_is_none_is_refused_with_the_reason() {
    for (spec, reason) in [
        ("", "no name"),
        ("127.0.0.1:99999", "not a number from 0 to 65535"),
        ("u99999", "not a number from 0 to 65535"),
        (":80", "neither a host name nor an address"),
        ("/a;b", "would not be read back"),
        ("localhost:http", "not a number from 0 to 65535"),
        ("127.0.0.1:", "not a number from 0 to 65535"),
        ("u", "needs a slash: ./u"),
        ("nowhere", "needs a slash: ./nowhere"),
        ("localhost", "needs a slash: ./localhost"),
        ("127.0.0.1", "needs a slash: ./127.0.0.1"),
        ("80 ", "needs a slash: ./80 "),
        ("@", "needs a slash: ./@"),
    ] {
        let error = bind(&[spec]).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on `{spec}`"));
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(reason), "{spec}: {source}");
        assert!(!Path::new(spec).exists(), "{spec}");
    }
}

#[test]
fn sockets_are_taken_out_by_specification() {
    let mut listeners = bind(&["127.0.0.1:0", "127.0.0.1:u0"]).unwrap();
    let spec = addresses(&listeners).remove(0);
    let error = listeners.take("127.0.0.1:1").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("no socket for `127.0.0.1:1`, available are "),
        "{error}"
    );
    let taken = listeners.take(&spec).unwrap();
    assert!(matches!(taken.into_parts().0, Socket::Tcp(_)));
    let error = listeners.refuse_unclaimed().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("nothing serves the socket 127.0.0.1:"),
        "{error}"
    );
    listeners.take("127.0.0.1:u0").unwrap();
    assert!(listeners.is_empty());
    listeners.refuse_unclaimed().unwrap();
}

#[test]
fn socket_that_was_bound_by_other_means_is_added() {
    let mut listeners = bind(&[]).unwrap();
    let socket = tcp();
    let address = socket.local_addr().unwrap().to_string();
    listeners.push(socket).unwrap();
    assert_eq!(addresses(&listeners), [address.as_str()]);
    let added = listeners.take(&address).unwrap();
    assert!(!added.is_inherited());
    let flags = fcntl(added.socket(), FcntlArg::F_GETFL).unwrap();
    assert_ne!(flags & OFlag::O_NONBLOCK.bits(), 0);
}

#[test]
fn unix_socket_is_removed_with_its_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let listeners = bind(&[path.to_str().unwrap()]).unwrap();
    UnixStream::connect(&path).unwrap();
    assert_eq!(addresses(&listeners), [path.display().to_string()]);
    drop(listeners);
    assert!(!path.exists());
}

#[test]
fn dead_unix_socket_is_replaced_and_a_living_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let spec = path.to_str().unwrap();
    leave_dead_socket(&path);
    assert!(path.exists());
    let listeners = bind(&[spec]).unwrap();
    let ListenError::Bind { source, .. } = bind(&[spec]).unwrap_err() else {
        panic!("it is bound")
    };
    assert_eq!(source.to_string(), "another process listens on the path");
    UnixStream::connect(&path).unwrap();
    drop(listeners);
}

#[test]
fn busy_unix_socket_is_not_taken_for_dead_and_does_not_block() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let busy = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    busy.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    busy.listen(0).unwrap();
    let _queued = UnixStream::connect(&path).unwrap();
    assert!(bind(&[path.to_str().unwrap()]).is_err());
    assert!(path.exists());
}

#[test]
fn file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("precious");
    fs::write(&path, "data").unwrap();
    let ListenError::Bind { source, .. } = bind(&[path.to_str().unwrap()]).unwrap_err() else {
        panic!("it is bound")
    };
    assert_eq!(source.to_string(), "the path exists and is not a socket");
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

#[test]
fn successors_socket_file_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let listeners = bind(&[path.to_str().unwrap()]).unwrap();
    fs::remove_file(&path).unwrap();
    let _successor = UnixListener::bind(&path).unwrap();
    drop(listeners);
    assert!(path.exists());
}

#[test]
fn one_of_many_who_replace_a_dead_socket_at_once_gets_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    for _ in 0..50 {
        leave_dead_socket(&path);
        let results: Vec<_> = std::thread::scope(|scope| {
            let binders: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| bind(&[path.to_str().unwrap()])))
                .collect();
            binders
                .into_iter()
                .map(|binder| binder.join().unwrap())
                .collect()
        });
        let bound: Vec<_> = results.iter().flatten().collect();
        assert_eq!(bound.len(), 1, "{results:?}");
        let Socket::Unix(listener) = bound[0].iter().next().unwrap().socket() else {
            panic!("it is Unix")
        };
        let _client = UnixStream::connect(&path).unwrap();
        listener
            .accept()
            .expect("the client has reached the one that was told that it has the socket");
        drop(results);
        assert!(!path.exists());
    }
}

#[test]
fn udp_socket_does_not_take_ipv4_from_a_tcp_socket_of_its_port() {
    let port = crate::port::free();
    let _listeners = bind(&[&format!("[::]:{port}"), &format!("u{port}")]).unwrap();
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
}

#[test]
fn ipv4_client_of_an_ipv6_socket_has_an_ipv4_address() {
    let v4 = Ipv4Addr::new(192, 0, 2, 7);
    for ip in [IpAddr::from(v4), v4.to_ipv6_mapped().into()] {
        let address = Address::from(SocketAddr::from((ip, 80)));
        assert_eq!(address.ip(), Some(v4.into()));
    }
}

#[test]
fn abstract_socket_has_no_file() {
    let name = format!("@graceful-listener-{}", std::process::id());
    let listeners = bind(&[&name]).unwrap();
    assert_eq!(addresses(&listeners), std::slice::from_ref(&name));
    assert!(!Path::new(&name).exists());
}

#[test]
fn listening_sockets_are_close_on_exec_and_do_not_block() {
    let listeners = bind(&["127.0.0.1:0", "127.0.0.1:u0"]).unwrap();
    for listener in &listeners {
        let flags = fcntl(listener.socket(), FcntlArg::F_GETFD).unwrap();
        assert!(flags & FdFlag::FD_CLOEXEC.bits() != 0);
        let flags = fcntl(listener.socket(), FcntlArg::F_GETFL).unwrap();
        assert!(flags & OFlag::O_NONBLOCK.bits() != 0);
    }
    let fd: OwnedFd = listeners.into_iter().next().unwrap().into_parts().0.into();
    assert!(fd.as_raw_fd() > 2);
}
