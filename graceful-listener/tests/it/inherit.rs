//! Sockets from everybody who hands them on, and garbage from those who do not.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};

use graceful_listener::{ListenError, Listeners, Socket};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use socket2::{Domain, Type};

use crate::child;
use crate::http::Client;
use crate::service::{Service, set};

const ROLE: &str = "inherit::child_listens";

/// Tells what it has got, or why it has not.
#[test]
fn child_listens() {
    if !child::plays(ROLE) {
        return;
    }
    let listeners = match env::var("SPECS") {
        Ok(specs) => Listeners::inherit_or_bind(specs.split_whitespace()),
        Err(_) => Listeners::inherit(),
    };
    match &listeners {
        Ok(listeners) => {
            eprintln!(
                "{:?} generation {}",
                listeners.origin(),
                listeners.generation()
            );
            for listener in listeners {
                let kind = match listener.socket() {
                    Socket::Tcp(_) => "tcp",
                    Socket::Udp(_) => "udp",
                    Socket::Unix(_) => "unix",
                    _ => "new",
                };
                let how = if listener.is_inherited() {
                    "inherited"
                } else {
                    "bound"
                };
                let label = listener.label().unwrap_or("-");
                let closes = fcntl(listener.socket(), FcntlArg::F_GETFD).unwrap()
                    & FdFlag::FD_CLOEXEC.bits()
                    != 0;
                let blocks = fcntl(listener.socket(), FcntlArg::F_GETFL).unwrap()
                    & OFlag::O_NONBLOCK.bits()
                    == 0;
                eprintln!(
                    "{how} {kind} {} {label} closes {closes} blocks {blocks}",
                    listener.address()
                );
            }
            eprintln!("again: {}", Listeners::inherit().unwrap_err());
            eprintln!(
                "stdin is {}",
                fs::read_link("/proc/self/fd/0").unwrap().display()
            );
        }
        Err(error) => {
            let source = std::error::Error::source(error).map(ToString::to_string);
            eprintln!(
                "refused: {error}{}",
                source
                    .map(|source| format!(": {source}"))
                    .unwrap_or_default()
            );
            if let ListenError::Inherit(_) = error {
                eprintln!("again: {}", Listeners::inherit().unwrap_err());
            }
        }
    }
    drop(listeners);
    eprintln!("done");
}

/// A child to be, with descriptors 3 and on.
struct Heir {
    environment: Vec<(&'static str, String)>,
    fds: Vec<OwnedFd>,
    is_listen_pid: bool,
}

fn heir() -> Heir {
    Heir {
        environment: Vec::new(),
        fds: Vec::new(),
        is_listen_pid: false,
    }
}

impl Heir {
    fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    fn give(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.fds.push(fd.into());
        self
    }

    /// `LISTEN_PID` is the child's own.
    fn listen_pid(mut self) -> Self {
        self.is_listen_pid = true;
        self
    }

    /// Returns what it says.
    fn says(self) -> Vec<String> {
        let role = child::role(ROLE);
        // The shell gives the descriptors their numbers: at most two come this way.
        let mut fds = self.fds.into_iter();
        let mut moves = String::new();
        let mut next = |redirection: &str| match fds.next() {
            Some(fd) => {
                moves.push_str(redirection);
                Stdio::from(fd)
            }
            None => Stdio::null(),
        };
        let (stdin, stdout) = (next(" 3<&0 0</dev/null"), next(" 4>&1 1>/dev/null"));
        assert!(fds.next().is_none());
        let pid = if self.is_listen_pid {
            "LISTEN_PID=$$; export LISTEN_PID; "
        } else {
            ""
        };
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("{pid}exec \"$@\"{moves}"))
            .arg("sh")
            .arg(role.get_program())
            .args(role.get_args())
            .envs(
                role.get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .envs(self.environment);
        for variable in [
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "SERVER_STARTER_PORT",
            "GRACEFUL_LISTENER",
            "GRACEFUL_LISTENER_FILES",
        ] {
            if !shell.get_envs().any(|(name, _)| name == variable) {
                shell.env_remove(variable);
            }
        }
        let output = shell.stdin(stdin).stdout(stdout).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.ends_with("done\n"),
            "it has not come to its end: {text}"
        );
        text.lines().map(str::to_owned).collect()
    }

    fn refusal(self) -> String {
        let lines = self.says();
        let refusal = lines[0].strip_prefix("refused: ");
        refusal
            .unwrap_or_else(|| panic!("not refused: {lines:?}"))
            .to_owned()
    }
}

pub(crate) fn tcp() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

pub(crate) fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

#[test]
fn without_variables_sockets_are_bound() {
    let lines = heir().set("SPECS", "127.0.0.1:0").says();
    assert_eq!(lines[0], "Bound generation 1");
    assert!(
        lines[1].starts_with("bound tcp 127.0.0.1:")
            && lines[1].ends_with(" - closes true blocks false"),
        "{lines:?}"
    );
    assert!(
        !lines[1].contains(":0 "),
        "the real port is told: {lines:?}"
    );
    let lines = heir().says();
    assert_eq!(lines[0], "Bound generation 1");
    assert!(
        lines[1].starts_with("again: "),
        "nothing is inherited: {lines:?}"
    );
}

#[test]
fn empty_server_starter_port_is_no_sockets() {
    let lines = heir()
        .set("SERVER_STARTER_PORT", "")
        .set("SPECS", "127.0.0.1:0")
        .says();
    assert_eq!(lines[0], "ServerStarter generation 1");
    assert!(lines[1].starts_with("bound tcp"), "{lines:?}");
}

#[test]
fn server_starter_sockets_are_taken_in_every_form() {
    let listener = tcp();
    let port = port(&listener);
    let wildcard = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let bare = wildcard.local_addr().unwrap().port();
    let lines = heir()
        .set(
            "SERVER_STARTER_PORT",
            format!("127.0.0.1:{port}=3;{bare}=4"),
        )
        .set("SERVER_STARTER_GENERATION", "7")
        .give(listener)
        .give(wildcard)
        .says();
    assert_eq!(lines[0], "ServerStarter generation 7");
    assert_eq!(
        lines[1],
        format!("inherited tcp 127.0.0.1:{port} - closes true blocks false")
    );
    assert_eq!(
        lines[2],
        format!("inherited tcp 0.0.0.0:{bare} - closes true blocks false")
    );

    let v6 = TcpListener::bind("[::1]:0").unwrap();
    let port = v6.local_addr().unwrap().port();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagrams = udp.local_addr().unwrap().port();
    let lines = heir()
        .set(
            "SERVER_STARTER_PORT",
            format!("[::1]:{port}=3;127.0.0.1:{datagrams}=4"),
        )
        .give(v6)
        .give(udp)
        .says();
    assert_eq!(
        lines[1],
        format!("inherited tcp [::1]:{port} - closes true blocks false")
    );
    assert_eq!(
        lines[2],
        format!("inherited udp 127.0.0.1:{datagrams} - closes true blocks false")
    );

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a=1.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let lines = heir()
        .set("SERVER_STARTER_PORT", format!("{}=3", path.display()))
        .give(unix)
        .says();
    assert_eq!(
        lines[1],
        format!(
            "inherited unix {} - closes true blocks false",
            path.display()
        )
    );
    assert!(
        path.exists(),
        "an inherited socket's file is not ours to remove"
    );
}

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
fn socket_on_standard_input_is_taken_and_its_number_kept() {
    let listener = tcp();
    let port = port(&listener);
    let role = child::role(ROLE);
    let output = Command::new(role.get_program())
        .args(role.get_args())
        .envs(
            role.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("SERVER_STARTER_PORT", format!("127.0.0.1:{port}=0"))
        .stdin(OwnedFd::from(listener))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(&format!(
            "inherited tcp 127.0.0.1:{port} - closes true blocks false"
        )),
        "{text}"
    );
    assert!(text.contains("stdin is /dev/null"), "{text}");
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
fn ipv4_address_of_an_ipv6_socket_is_the_one_that_is_named() {
    let socket = socket2::Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(false).unwrap();
    let address = (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0);
    let address = std::net::SocketAddr::from(address);
    socket.bind(&address.into()).unwrap();
    socket.listen(1).unwrap();
    let listener = TcpListener::from(socket);
    let port = port(&listener);
    let lines = heir()
        .set("SERVER_STARTER_PORT", format!("127.0.0.1:{port}=3"))
        .give(listener)
        .says();
    assert!(
        lines[1].starts_with(&format!("inherited tcp [::ffff:127.0.0.1]:{port} ")),
        "{lines:?}"
    );
}

#[test]
fn sockets_are_taken_once() {
    let listener = tcp();
    let port = port(&listener);
    let lines = heir()
        .set("SERVER_STARTER_PORT", format!("127.0.0.1:{port}=3"))
        .give(listener)
        .says();
    assert_eq!(
        lines[2],
        "again: the inherited sockets have already been taken"
    );
}

#[test]
fn systemd_sockets_are_taken_with_their_names() {
    let (first, second) = (tcp(), tcp());
    let (one, two) = (port(&first), port(&second));
    let lines = heir()
        .set("LISTEN_FDS", "2")
        .set("LISTEN_FDNAMES", "http:")
        .listen_pid()
        .give(first)
        .give(second)
        .says();
    assert_eq!(lines[0], "Systemd generation 1");
    assert_eq!(
        lines[1],
        format!("inherited tcp 127.0.0.1:{one} http closes true blocks false")
    );
    assert_eq!(
        lines[2],
        format!("inherited tcp 127.0.0.1:{two} - closes true blocks false")
    );
}

#[test]
fn systemd_sockets_of_another_process_are_not_ours() {
    for pid in ["1", "4194304"] {
        let lines = heir()
            .set("LISTEN_FDS", "1")
            .set("LISTEN_PID", pid)
            .give(tcp())
            .says();
        assert_eq!(lines[0], "Bound generation 1");
        assert!(lines[1].starts_with("again: "), "{lines:?}");
    }
}

#[test]
fn sockets_of_grace_are_taken_without_a_process_id() {
    let listener = tcp();
    let port = port(&listener);
    let lines = heir()
        .set("LISTEN_FDS", "1")
        .set("SPECS", format!("127.0.0.1:{port}"))
        .give(listener)
        .says();
    assert_eq!(lines[0], "Grace generation 1");
    assert!(
        lines[1].starts_with(&format!("inherited tcp 127.0.0.1:{port} ")),
        "{lines:?}"
    );
}

#[test]
fn no_descriptors_are_no_sockets() {
    for count in ["", "0"] {
        let lines = heir()
            .set("LISTEN_FDS", count)
            .set("SPECS", "127.0.0.1:0")
            .says();
        assert!(lines[1].starts_with("bound tcp "), "{count}: {lines:?}");
    }
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
fn both_protocols_may_name_the_same_sockets() {
    let (first, second) = (tcp(), tcp());
    let (one, two) = (port(&first), port(&second));
    let lines = heir()
        .set("SERVER_STARTER_PORT", format!("127.0.0.1:{one}=3"))
        .set("LISTEN_FDS", "2")
        .set("LISTEN_FDNAMES", "http:admin")
        .listen_pid()
        .give(first)
        .give(second)
        .says();
    assert_eq!(lines[0], "ServerStarter generation 1");
    assert!(
        lines[1].starts_with(&format!("inherited tcp 127.0.0.1:{one} http ")),
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with(&format!("inherited tcp 127.0.0.1:{two} admin ")),
        "{lines:?}"
    );
    assert!(
        lines[3].starts_with("again: "),
        "each is taken once: {lines:?}"
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
fn forged_upgrade_refusal() {
    let own = std::process::id();
    let table = [
        (String::new(), "is not a number in range"),
        ("1:2".into(), "it ends before the generation"),
        ("x:1:2:3:4::".into(), "`x` is not a number in range"),
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
