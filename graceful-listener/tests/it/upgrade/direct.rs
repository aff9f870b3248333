//! The upgrader without `serve`.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use graceful_listener::{Listeners, Socket, Upgrader};
use nix::fcntl::{FcntlArg, fcntl};

use crate::child;
use crate::http::DEADLINE;

/// With what the text that it travels in gives a meaning to.
const PASSED: &str = "a=1;b/%3B";

const DIRECT: &str = "upgrade::direct::child_upgrades_without_serving";

/// Uses the upgrader itself, with sockets of every kind.
#[test]
fn child_upgrades_without_serving() {
    if !child::plays(DIRECT) {
        return;
    }
    let specs = std::env::var("SPECS").unwrap();
    let mut listeners = Listeners::inherit_or_bind(specs.split(' ')).unwrap();
    let taken = listeners.take_passed(PASSED);
    if taken.is_none() {
        let bound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        listeners.push(bound).unwrap();
    }
    let bound = listeners.iter().last().unwrap().address().to_string();
    let specs = format!("{specs} {}", bound.replace(':', ":u"));
    let upgrader = Upgrader::new(&listeners)
        .unwrap()
        .timeout(Duration::MAX)
        .before_spawn(move |command| {
            command
                .env("TOLD", "by the predecessor")
                .env("SPECS", &specs);
            Ok(())
        });
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"through the pipe").unwrap();
    drop(writer);
    let upgrader = upgrader
        .pass(PASSED, reader)
        .pass("unwanted", File::open("/").unwrap());
    for listener in &listeners {
        let kind = match listener.socket() {
            Socket::Tcp(_) => "tcp",
            Socket::Udp(_) => "udp",
            _ => "unix",
        };
        eprintln!("{} {kind} {}", listeners.generation(), listener.address());
    }
    if listeners.generation() == 2 {
        eprintln!("told {:?}", std::env::var("TOLD"));
        let taken = taken.unwrap();
        let flags = fcntl(&taken, FcntlArg::F_GETFD).unwrap();
        let text = std::io::read_to_string(File::from(taken)).unwrap();
        eprintln!("passed {text}, closed on exec {}", flags != 0);
        eprintln!("again {}", listeners.take_passed(PASSED).is_some());
        eprintln!("predecessor {}", upgrader.has_predecessor());
        let early = upgrader.wait_for_predecessor(Duration::from_millis(20));
        upgrader.ready().unwrap();
        let late = upgrader.wait_for_predecessor(DEADLINE);
        eprintln!("predecessor {}", upgrader.has_predecessor());
        eprintln!("waited {early} {late}");
        return;
    }
    eprintln!("waited {}", upgrader.wait_for_predecessor(DEADLINE));
    eprintln!("early: {}", upgrader.upgrade().unwrap_err());
    upgrader.ready().unwrap();
    eprintln!("predecessor {}", upgrader.has_predecessor());
    let successor = upgrader.upgrade().unwrap();
    eprintln!("successor {}", successor.id());
    upgrader.ready().unwrap();
    eprintln!("late: {}", upgrader.upgrade().unwrap_err());
    let careless = Upgrader::new(&listeners)
        .unwrap()
        .before_spawn(|_| panic!("as it is tested"));
    careless.ready().unwrap();
    for _ in 0..2 {
        let error = careless.upgrade().unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        eprintln!("careless: {source}");
    }
    let other = Upgrader::new(&listeners)
        .unwrap()
        .command("/nonexistent/program", ["argument"]);
    other.ready().unwrap();
    eprintln!("other: {}", other.upgrade().unwrap_err());
    other.cancel();
    eprintln!("cancelled: {}", other.upgrade().unwrap_err());
    let lost = Upgrader::new(&listeners).unwrap();
    let gone = tempfile::tempdir().unwrap();
    std::env::set_current_dir(&gone).unwrap();
    drop(gone);
    eprintln!("lost: {}", lost.pid_file("app.pid").unwrap_err());
}

#[test]
fn upgrader_works_without_serve_and_for_every_kind_of_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let specs = format!(
        "127.0.0.1:u0 {} @graceful-{} 127.0.0.1:0 127.0.0.1:0 127.0.0.1:0",
        path.display(),
        std::process::id()
    );
    let output = child::role(DIRECT)
        .env("SPECS", specs)
        .stdout(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("lost: cannot find the directory of pid file app.pid\n"),
        "{text}"
    );
    let said = |start: &str| {
        let lines: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix(start))
            .map(str::to_owned)
            .collect();
        assert!(!lines.is_empty(), "{start}: {text}");
        lines
    };
    assert_eq!(
        said("1 "),
        said("2 "),
        "the sockets are the same, in the same order"
    );
    assert_eq!(said("1 ").len(), 7);
    assert_eq!(said("passed "), ["through the pipe, closed on exec true"]);
    assert_eq!(said("again "), ["false"]);
    assert_eq!(said("waited "), ["true", "false true"]);
    assert!(said("early: ")[0].contains("not ready itself yet"));
    assert!(said("late: ")[0].contains("has taken over already"));
    assert!(said("other: ")[0].contains("cannot start /nonexistent/program"));
    assert_eq!(
        said("careless: "),
        ["before_spawn panicked", "before_spawn panicked"]
    );
    assert!(said("cancelled: ")[0].contains("this process is ending"));
    assert_eq!(said("told ")[0], "Ok(\"by the predecessor\")");
    assert_eq!(said("predecessor "), ["false", "true", "false"]);
    assert!(!path.exists(), "the last one removes the file");
}
