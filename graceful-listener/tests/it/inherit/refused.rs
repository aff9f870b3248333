//! What is refused, and how it is told.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};

use super::{Heir, heir, port, tcp};
use socket2::{Domain, Type};

#[test]
fn socket_that_nobody_claims_refusal() {
    let (first, second) = (tcp(), tcp());
    let (one, two) = (port(&first), port(&second));
    let refusal = heir()
        .set(
            "SERVER_STARTER_PORT",
            format!("127.0.0.1:{one}=3;127.0.0.1:{two}=4"),
        )
        .set("SPECS", format!("127.0.0.1:{one}"))
        .give(first)
        .give(second)
        .refusal();
    assert_eq!(
        refusal,
        format!("nothing serves the socket 127.0.0.1:{two}")
    );
}

#[test]
fn specification_that_was_not_inherited_is_refused_and_told_what_was() {
    let (first, second) = (tcp(), tcp());
    let (one, two) = (port(&first), port(&second));
    let refusal = heir()
        .set(
            "SERVER_STARTER_PORT",
            format!("127.0.0.1:{one}=3;127.0.0.1:{two}=4"),
        )
        .set("SPECS", format!("127.0.0.1:{two} 127.0.0.1:1"))
        .give(first)
        .give(second)
        .refusal();
    let expected =
        format!("no socket for `127.0.0.1:1`, available are 127.0.0.1:{two}, 127.0.0.1:{one}");
    assert_eq!(refusal, expected);
}

#[test]
fn narrower_address_than_specified_does_not_match() {
    let listener = tcp();
    let port = port(&listener);
    let refusal = heir()
        .set("LISTEN_FDS", "1")
        .listen_pid()
        .set("SPECS", port.to_string())
        .give(listener)
        .refusal();
    assert!(
        refusal.starts_with(&format!("no socket for `{port}`, available are ")),
        "{refusal}"
    );
}

#[test]
fn garbage_is_refused_and_names_the_variable_the_entry_and_the_reason() {
    let table = [
        (
            "8080",
            "SERVER_STARTER_PORT: entry `8080` has no descriptor",
        ),
        (";", "SERVER_STARTER_PORT: an entry is empty"),
        ("8080=4;", "SERVER_STARTER_PORT: an entry is empty"),
        (
            "8080=x",
            "SERVER_STARTER_PORT: the descriptor of `8080=x` is not a number",
        ),
        (
            "99999=3",
            "SERVER_STARTER_PORT: the port of `99999=3` is not a number",
        ),
        (
            "8080=999",
            "SERVER_STARTER_PORT: `8080=999`: descriptor 999 is not open",
        ),
        (
            "1:8080=999",
            "SERVER_STARTER_PORT: `1:8080=999`: descriptor 999 is not open",
        ),
        (
            "8080=0",
            "SERVER_STARTER_PORT: `8080=0`: descriptor 0 is not a socket but /dev/null",
        ),
    ];
    for (text, expected) in table {
        let refusal = heir().set("SERVER_STARTER_PORT", text).refusal();
        assert!(refusal.starts_with(expected), "{text}: {refusal}");
    }
}

#[test]
fn descriptor_that_is_no_listening_socket_refusal() {
    let refused = |fd: OwnedFd, name: &str| {
        heir()
            .set("SERVER_STARTER_PORT", format!("{name}=3"))
            .give(fd)
            .refusal()
    };
    let listener = tcp();
    let address = listener.local_addr().unwrap();
    let connection = TcpStream::connect(address).unwrap();
    let own = connection.local_addr().unwrap();
    let refusal = refused(connection.into(), &own.to_string());
    assert!(
        refusal.contains("descriptor 3 is a connection, expected a listening socket"),
        "{refusal}"
    );

    let idle = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let refusal = refused(idle.into(), "8080");
    assert!(
        refusal.ends_with("`8080=3`: descriptor 3 is a stream socket that does not listen"),
        "{refusal}"
    );

    let datagrams = UnixDatagram::unbound().unwrap();
    let refusal = refused(datagrams.into(), "/run/x");
    assert!(
        refusal.contains("descriptor 3 is a socket of family 1 and type 2, expected"),
        "{refusal}"
    );

    let file = File::open("/proc/self/exe").unwrap();
    let refusal = refused(file.into(), "8080");
    assert!(
        refusal.contains("descriptor 3 is not a socket but /"),
        "{refusal}"
    );
}

#[test]
fn socket_that_is_bound_elsewhere_than_its_name_says_refusal() {
    let names = [
        "127.0.0.1:1",
        "1",
        "127.0.0.2:PORT",
        "[::1]:PORT",
        "[::2%lo]:PORT",
        "/run/x",
        "relative.sock",
    ];
    for name in names {
        let listener = tcp();
        let port = port(&listener);
        let name = name.replace("PORT", &port.to_string());
        let refusal = heir()
            .set("SERVER_STARTER_PORT", format!("{name}=3"))
            .give(listener)
            .refusal();
        let expected = format!(
            "SERVER_STARTER_PORT: `{name}=3`: descriptor 3 is bound to 127.0.0.1:{port}, not to {name}"
        );
        assert_eq!(refusal, expected);
    }
    let directory = tempfile::tempdir().unwrap();
    let unix = UnixListener::bind(directory.path().join("one")).unwrap();
    let other = directory.path().join("two").display().to_string();
    let refusal = heir()
        .set("SERVER_STARTER_PORT", format!("{other}=3"))
        .give(unix)
        .refusal();
    assert!(
        refusal.ends_with(&format!("one, not to {other}")),
        "{refusal}"
    );
}

#[test]
fn what_is_refused_once_is_refused_again_for_the_same_reason() {
    let lines = heir().set("SERVER_STARTER_PORT", "127.0.0.1:80=3").says();
    let reason = lines[0].strip_prefix("refused: ").unwrap();
    assert!(reason.contains("descriptor 3"), "{lines:?}");
    let again = lines[1].strip_prefix("again: ").unwrap();
    assert!(reason.starts_with(again), "{lines:?}");
}

#[test]
fn bad_counts_ids_and_names_are_refused() {
    let refused = |name, value: &str| heir().set(name, value);
    for count in ["x", "-1", "1.5", "99999999999", " 1"] {
        let refusal = refused("LISTEN_FDS", count).refusal();
        assert_eq!(
            refusal,
            format!("LISTEN_FDS: `{count}`: not a number in range")
        );
    }
    let refusal = refused("LISTEN_FDS", "4294967295").refusal();
    assert_eq!(
        refusal,
        "LISTEN_FDS: `4294967295`: there cannot be so many descriptors"
    );
    let refusal = refused("LISTEN_FDS", "2147483644").give(tcp()).refusal();
    assert_eq!(refusal, "LISTEN_FDS: `4`: descriptor 4 is not open");
    let refusal = refused("LISTEN_FDS", "1").set("LISTEN_PID", "me").refusal();
    assert_eq!(refusal, "LISTEN_PID: `me`: not a number in range");
    let refusal = refused("LISTEN_FDS", "1")
        .set("LISTEN_FDNAMES", "a:b")
        .give(tcp())
        .refusal();
    assert_eq!(refusal, "LISTEN_FDNAMES: `a:b`: 2 names for 1 descriptors");
    let refusal = refused("LISTEN_FDS", "2")
        .set("LISTEN_FDNAMES", "a:b")
        .give(tcp())
        .refusal();
    assert_eq!(refusal, "LISTEN_FDS: `4 (b)`: descriptor 4 is not open");
    let refusal = refused("LISTEN_FDS", "1")
        .give(File::open("/dev/null").unwrap())
        .refusal();
    assert_eq!(
        refusal,
        "LISTEN_FDS: `3`: descriptor 3 is not a socket but /dev/null"
    );
}

#[test]
fn graces_variable_is_not_believed_beside_server_starters() {
    let listener = tcp();
    let port = port(&listener);
    let lines = heir()
        .set("SERVER_STARTER_PORT", format!("127.0.0.1:{port}=3"))
        .set("LISTEN_FDS", "5")
        .give(listener)
        .says();
    assert_eq!(lines[0], "ServerStarter generation 1");
    assert!(lines[2].starts_with("again: "), "{lines:?}");
}

#[test]
fn variable_of_another_processs_upgrade_is_ignored() {
    let text = "1:5:2:3:4::127.0.0.1:80=5";
    let lines = heir()
        .set("GRACEFUL_LISTENER", text)
        .set("SPECS", "127.0.0.1:0")
        .says();
    assert_eq!(lines[0], "Bound generation 1");
    assert!(lines[1].starts_with("bound "), "{lines:?}");
}

#[test]
fn variable_of_an_upgrade_whose_processes_are_gone_is_ignored() {
    // Nobody has this id, and what the variable calls pipes is something else by now.
    let lines = forged("4194304:5:2:3:4::127.0.0.1:80=5")
        .set("SPECS", "127.0.0.1:0")
        .says();
    assert_eq!(lines[0], "Bound generation 1");
    assert!(lines[1].starts_with("bound "), "{lines:?}");
}

#[test]
fn forged_upgrade_refusal() {
    let own = std::process::id();
    let table = [
        (String::new(), "is not a number in range"),
        ("1:2".into(), "it ends before the generation"),
        ("x:1:2:3:4::".into(), "`x` is not a number in range"),
        ("1:1:2:+3:4::".into(), "`+3` is not a number in range"),
        ("1:1:2:3:3::".into(), "a descriptor is named twice"),
        ("1:1:2:3:4::80=3".into(), "a descriptor is named twice"),
        (
            "1:1:2:3:4:9:80=5".into(),
            "descriptor 9 is owned and not among the sockets",
        ),
        ("1:1:2:3:4::80=5;".into(), "an entry is empty"),
        (format!("{own}:1:2:3:99::"), "descriptor 99 is not open"),
        (format!("{own}:1:2:3:4::80=98"), "descriptor 98 is not open"),
        (
            format!("{own}:1:2:3:4::"),
            "descriptor 4 does not prove who sent this",
        ),
    ];
    for (text, expected) in table {
        let refusal = forged(&text).refusal();
        assert!(
            refusal.starts_with("GRACEFUL_LISTENER: ") && refusal.contains(expected),
            "{text}: {refusal}"
        );
    }
    for (files, expected) in [
        ("/a", "has no descriptor"),
        ("a=5", "`a` has no name"),
        ("/a=5;/b=5", "already another entry's"),
        ("/a=3", "descriptor 3 is named twice"),
        ("/a=97", "descriptor 97 is not open"),
    ] {
        let refusal = forged(&format!("{own}:1:2:3:4::"))
            .set("GRACEFUL_LISTENER_FILES", files)
            .refusal();
        assert!(
            refusal.starts_with("GRACEFUL_LISTENER_FILES: ") && refusal.contains(expected),
            "{files}: {refusal}"
        );
    }
}

/// A child of this process that gets the variable, and two descriptors that are no pipes.
fn forged(text: &str) -> Heir {
    let null = || {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
    };
    // The shell is replaced by the child, whose parent this process is then.
    heir()
        .set("GRACEFUL_LISTENER", text)
        .give(null())
        .give(null())
}
