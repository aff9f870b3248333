//! Sockets from everybody who hands them on, and garbage from those who do not.

mod handed_over;
mod matched;
mod refused;

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use graceful_listener::{ListenError, Listeners, Socket};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use socket2::{Domain, Type};

use crate::child;
use crate::service::say;

pub(crate) const ROLE: &str = "inherit::child_listens";

/// Tells what it has got, or why it has not.
#[test]
fn child_listens() {
    if !child::plays(ROLE) {
        return;
    }
    let listeners = match (env::var("SPECS"), env::var("OR_BIND")) {
        (Ok(specs), _) => Listeners::inherit_or_bind(specs.split_whitespace()),
        (_, Ok(specs)) => {
            Listeners::inherit().and_then(|inherited| inherited.or_bind(specs.split_whitespace()))
        }
        _ => Listeners::inherit(),
    };
    match &listeners {
        Ok(listeners) => {
            say(&format!(
                "{:?} generation {}",
                listeners.origin(),
                listeners.generation()
            ));
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
                say(&format!(
                    "{how} {kind} {} {label} closes {closes} blocks {blocks}",
                    listener.address()
                ));
            }
            say(&format!("again: {}", Listeners::inherit().unwrap_err()));
            say(&format!(
                "stdin is {}",
                fs::read_link("/proc/self/fd/0").unwrap().display()
            ));
        }
        Err(error) => {
            let source = std::error::Error::source(error).map(ToString::to_string);
            say(&format!(
                "refused: {error}{}",
                source
                    .map(|source| format!(": {source}"))
                    .unwrap_or_default()
            ));
            if let ListenError::Inherit(_) = error {
                say(&format!("again: {}", Listeners::inherit().unwrap_err()));
            }
        }
    }
    drop(listeners);
    say("done");
}

/// A child to be, with descriptors 3 and on.
struct Heir {
    environment: Vec<(&'static str, String)>,
    fds: Vec<OwnedFd>,
    is_listen_pid: bool,
    role: &'static str,
}

fn heir() -> Heir {
    Heir {
        environment: Vec::new(),
        fds: Vec::new(),
        is_listen_pid: false,
        role: ROLE,
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
        let text = self.output();
        assert!(
            text.ends_with("done\n"),
            "it has not come to its end: {text}"
        );
        text.lines().map(str::to_owned).collect()
    }

    fn output(self) -> String {
        let role = child::role(self.role);
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
        String::from_utf8(output.stderr).unwrap()
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
fn host_name_of_a_super_daemons_socket_is_believed() {
    let listener = tcp();
    let port = port(&listener);
    let lines = heir()
        .set("SERVER_STARTER_PORT", format!("anywhere.invalid:{port}=3"))
        .give(listener)
        .says();
    let taken = format!("inherited tcp 127.0.0.1:{port} ");
    assert!(lines[1].starts_with(&taken), "{lines:?}");
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

const STREAMS: &str = "inherit::child_listens_on_its_standard_streams";

/// The harness writes to them before and after.
#[test]
fn child_listens_on_its_standard_streams() {
    if !child::plays(STREAMS) {
        return;
    }
    let mut report = File::from(io::stderr().as_fd().try_clone_to_owned().unwrap());
    let sockets = [(); 3].map(|()| TcpListener::bind("0.0.0.0:0").unwrap());
    dup2_stdin(&sockets[0]).unwrap();
    dup2_stdout(&sockets[1]).unwrap();
    dup2_stderr(&sockets[2]).unwrap();
    let listeners = Listeners::inherit().unwrap();
    for (fd, (listener, socket)) in listeners.iter().zip(&sockets).enumerate() {
        let is_it = listener.address().as_inet() == socket.local_addr().ok();
        let stream = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        writeln!(report, "{fd} is taken {is_it}, now {}", stream.display()).unwrap();
    }
}

#[test]
fn sockets_on_standard_streams_are_taken_and_their_numbers_kept() {
    let output = child::role(STREAMS)
        .env("SERVER_STARTER_PORT", "0=0;0=1;0=2")
        .output()
        .unwrap();
    let lines = (0..3).map(|fd| format!("{fd} is taken true, now /dev/null\n"));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        lines.collect::<String>()
    );
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

const LABELLED: &str = "inherit::child_takes_its_sockets_by_their_names";

#[test]
fn child_takes_its_sockets_by_their_names() {
    if !child::plays(LABELLED) {
        return;
    }
    let mut listeners = Listeners::inherit().unwrap();
    for label in ["admin", "admin", "http"] {
        let taken = listeners.take_labelled(label);
        let taken = taken.map(|listener| listener.address().to_string());
        eprintln!("{}, {} left", taken.unwrap_or_default(), listeners.len());
    }
}

#[test]
fn sockets_of_systemd_are_taken_out_by_their_names() {
    let sockets = [tcp(), tcp()];
    let [one, two] = [&sockets[0], &sockets[1]].map(port);
    let mut heir = heir()
        .set("LISTEN_FDS", "2")
        .set("LISTEN_FDNAMES", "http:admin")
        .listen_pid();
    heir.role = LABELLED;
    let text = sockets.into_iter().fold(heir, Heir::give).output();
    let expected = format!("127.0.0.1:{two}, 1 left\n, 1 left\n127.0.0.1:{one}, 0 left\n");
    assert_eq!(text, expected);
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
