//! A program of the workspace under test: started, watched, ended.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Generous: a debug build on two busy cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Program {
    /// Starts the command, which tells what it does on standard error.
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with_output(command, Stdio::null())
    }

    pub(crate) fn start_with_output(mut command: Command, output: impl Into<Stdio>) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stderr = BufReader::new(child.stderr.take().expect("standard error is a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Reads standard error up to the first line, read before or not, that
    /// `pick` makes something of.
    pub(crate) fn wait_for_line<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        if let Some(found) = self.seen.iter().find_map(|line| pick(line)) {
            return found;
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("never said {what}; it said:\n{}", self.seen.join("\n"));
            };
            let found = pick(&line);
            self.seen.push(line);
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// Whether a line has been said in which there are all these words.
    pub(crate) fn has_said(&mut self, words: &[&str]) -> bool {
        self.seen.extend(self.lines.try_iter());
        let has_all = |line: &String| words.iter().all(|word| line.contains(word));
        self.seen.iter().any(has_all)
    }

    pub(crate) fn wait_for_address(&mut self) -> SocketAddr {
        self.wait_for_line("that it serves", |line| {
            let address = match line.split_once("serving address=") {
                Some((_, address)) => address,
                None => line.split_once("\"serving\",\"address\":\"")?.1,
            };
            address.trim_end_matches("\"}").parse().ok()
        })
    }

    /// What was said on standard error, when it and all that it has started have ended.
    pub(crate) fn said(&mut self) -> &[String] {
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return &self.seen,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("some process is left; it said:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    pub(crate) fn id(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.child.id()).expect("a pid")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args(["-s", signal, &self.id().to_string()])
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "could not send {signal}"
        );
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("still running; it said:\n{}", self.seen.join("\n"));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `done` gives something.
pub(crate) fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < deadline, "never saw {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn service() -> Command {
    command(env!("CARGO_BIN_EXE_service"))
}

/// A program without what is meant for others in this process's environment.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for variable in [
        "DATABASE_URL",
        "LISTEN_FDS",
        "RUST_LOG",
        "SERVER_STARTER_PORT",
    ] {
        command.env_remove(variable);
    }
    command
}

/// A program of another package of the workspace, built when `cargo test` was
/// told of this package alone.
pub(crate) fn sibling(name: &str, package: &str) -> Command {
    let path: PathBuf = Path::new(env!("CARGO_BIN_EXE_service")).with_file_name(name);
    if !path.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--package",
            package,
            "--features",
            "cli",
            "--bin",
            name,
        ]);
        assert!(
            build.status().is_ok_and(|status| status.success()),
            "{build:?}"
        );
    }
    command(path)
}

/// Says that something is not tested because a program is not installed; a
/// failure where all are to be there.
pub(crate) fn left_out(what: &str) {
    assert!(std::env::var_os("TEST_REQUIRE_ALL").is_none(), "{what}");
    left_out_here(what);
}

/// Says what is not tested on this machine, past the harness, which keeps what
/// a passing test prints.
pub(crate) fn left_out_here(what: &str) {
    let _ = writeln!(std::io::stderr(), "left out: {what}");
}
