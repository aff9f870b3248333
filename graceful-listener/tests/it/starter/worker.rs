//! The server that the super-daemons under test run: this binary in a role.
//!
//! What it does is told by the file `mode` in its directory, or `serve` if there
//! is none. It answers each line of a connection, or each datagram.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::process;
use std::thread;
use std::time::Duration;

use graceful_listener::{Notifier, NotifyMessage, PortName, Ports};
use signal_hook::consts::{SIGHUP, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::child;

/// Writes a line at once, so that those of two processes never mix.
macro_rules! say {
    ($($text:tt)*) => {
        io::stderr().write_all(format!("{}\n", format!($($text)*)).as_bytes()).unwrap()
    };
}

const ROLE: &str = "starter::worker::worker_of_a_super_daemon";

pub(super) fn command() -> process::Command {
    child::role(ROLE)
}

#[test]
fn worker_of_a_super_daemon() {
    if child::plays(ROLE) {
        play();
    }
}

/// Connects, asks one question, and returns the answer.
pub(super) fn ask(address: &str, question: &str) -> io::Result<String> {
    talk(&mut TcpStream::connect(address)?, question)
}

pub(super) fn talk(stream: &mut (impl Read + Write), question: &str) -> io::Result<String> {
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer.trim_end().into()),
    }
}

#[expect(
    clippy::exit,
    reason = "a worker that ends at once is what is asked for"
)]
fn play() {
    let generation = std::env::var("SERVER_STARTER_GENERATION").unwrap_or_default();
    let mode = fs::read_to_string("mode").unwrap_or_default();
    let mut ready = false;
    let mut leave = true;
    let mut end = false;
    for order in mode.split_whitespace() {
        let (verb, object) = order.split_once('=').unwrap_or((order, ""));
        match verb {
            "exit" => process::exit(object.parse().unwrap()),
            "hang" => loop {
                thread::park();
            },
            "sleep" => thread::sleep(Duration::from_millis(object.parse().unwrap())),
            "crash" => process::abort(),
            "ready" => ready = true,
            "stay" => leave = false,
            "end" => end = true,
            "await" => {
                while !fs::exists(object).unwrap() {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            "say" => say!("{object}"),
            other => panic!("no order {other}"),
        }
    }
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGUSR1, SIGUSR2]).unwrap();
    let ports = std::env::var_os(Ports::VARIABLE).unwrap_or_default();
    let ports = Ports::parse(&ports).unwrap();
    for (name, fd) in ports.iter() {
        listen(name, fd);
    }
    say!("serving as generation {generation} pid {}", process::id());
    if ready {
        let message = NotifyMessage::new()
            .ready()
            .status(&format!("generation {generation} is well"));
        Notifier::from_env().unwrap().send(&message).unwrap();
    }
    if end {
        process::exit(3);
    }
    for signal in &mut signals {
        let name = match signal {
            SIGHUP => "HUP",
            SIGTERM => "TERM",
            SIGUSR1 => "USR1",
            _ => "USR2",
        };
        say!("generation {generation} received {name}");
        if leave {
            process::exit(0);
        }
    }
}

#[expect(unsafe_code, reason = "the descriptor is ours by the protocol")]
fn listen(name: &PortName, number: RawFd) {
    // SAFETY: the super-daemon has opened it for this process alone.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let is_datagram = nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::SockType)
        .unwrap()
        == nix::sys::socket::SockType::Datagram;
    match name {
        PortName::Path(_) => {
            let listener = UnixListener::from(fd);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    thread::spawn(move || serve(stream.unwrap()));
                }
            });
        }
        _ if is_datagram => {
            let socket = UdpSocket::from(fd);
            say!("receiving on {}", socket.local_addr().unwrap());
            thread::spawn(move || {
                let mut text = [0; 100];
                loop {
                    let (length, sender) = socket.recv_from(&mut text).unwrap();
                    let question = String::from_utf8_lossy(&text[..length]).into_owned();
                    socket
                        .send_to(answer(&question).as_bytes(), sender)
                        .unwrap();
                }
            });
        }
        _ => {
            let listener = TcpListener::from(fd);
            say!("listening on {}", listener.local_addr().unwrap());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    thread::spawn(move || serve(stream.unwrap()));
                }
            });
        }
    }
}

fn serve(stream: impl Read + Write) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut question = String::new();
        if stream.read_line(&mut question).unwrap_or(0) == 0 {
            return;
        }
        if stream
            .get_mut()
            .write_all(format!("{}\n", answer(&question)).as_bytes())
            .is_err()
        {
            return;
        }
    }
}

fn answer(question: &str) -> String {
    match question
        .trim()
        .split_once(' ')
        .unwrap_or((question.trim(), ""))
    {
        ("generation", _) => std::env::var("SERVER_STARTER_GENERATION").unwrap(),
        ("pid", _) => process::id().to_string(),
        ("env", name) => std::env::var_os(name).map_or("unset".into(), |value| {
            format!("={}", value.as_encoded_bytes().escape_ascii())
        }),
        ("cwd", _) => std::env::current_dir().unwrap().display().to_string(),
        ("readlink", path) => {
            fs::read_link(path).map_or("none".into(), |path| path.display().to_string())
        }
        ("status", key) => super::processes::proc_status(process::id().cast_signed(), key),
        ("limits", _) => fs::read_to_string("/proc/self/limits")
            .unwrap()
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap()
            .into(),
        (other, _) => format!("no answer to {other:?}"),
    }
}
