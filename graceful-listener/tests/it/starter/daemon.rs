//! A super-daemon under test, in a directory of its own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::processes::{MARK, is_running, kill_marked};
use super::worker;
use crate::{child, process};

/// Whose `start_server` it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Program {
    Ours,
    Perl,
}

impl Program {
    pub(super) fn path(self) -> PathBuf {
        match self {
            Self::Ours => env!("CARGO_BIN_EXE_start_server").into(),
            Self::Perl => "/usr/bin/start_server".into(),
        }
    }
}

/// Runs a test with our program and, at the same time, with Perl's.
pub(super) fn both(test: impl Fn(Program) + Sync) {
    let perl = has_perl();
    thread::scope(|scope| {
        let ours = scope.spawn(|| test(Program::Ours));
        let perl = perl.then(|| scope.spawn(|| test(Program::Perl)));
        let results = [("ours", Some(ours)), ("Perl's", perl)];
        for (whose, result) in results {
            if let Some(Err(cause)) = result.map(thread::ScopedJoinHandle::join) {
                eprintln!("the failure above is that of {whose} start_server");
                panic::resume_unwind(cause);
            }
        }
    });
}

pub(super) fn has_perl() -> bool {
    // Another program of this name may come first in the PATH.
    child::has("perl") && child::has("start_server") && Program::Perl.path().exists()
}

/// A started super-daemon. Everything it has started is killed in the end.
pub(super) struct Daemon {
    pub(super) dir: TempDir,
    program: Program,
    child: Option<Child>,
    was_told_to_end: AtomicBool,
}

/// A command line in the making.
pub(super) struct Start {
    dir: TempDir,
    program: Program,
    options: Vec<OsString>,
    worker: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Start {
    pub(super) fn new(program: Program) -> Self {
        let worker = worker::command();
        let words = std::iter::once(worker.get_program()).chain(worker.get_args());
        let environment = worker
            .get_envs()
            .filter_map(|(name, value)| Some((name.into(), value?.into())));
        Self {
            dir: tempfile::tempdir().unwrap(),
            program,
            options: Vec::new(),
            worker: words.map(Into::into).collect(),
            environment: environment.collect(),
        }
    }

    pub(super) fn options<T: AsRef<OsStr>>(mut self, options: impl IntoIterator<Item = T>) -> Self {
        self.options
            .extend(options.into_iter().map(|option| option.as_ref().into()));
        self
    }

    /// A pid file and a status file, whose paths are relative to the directory.
    pub(super) fn files(self) -> Self {
        self.options(["--pid-file=pid", "--status-file=status"])
    }

    /// Runs this shell command instead of the worker that serves.
    pub(super) fn shell(mut self, script: &str) -> Self {
        self.worker = ["/bin/sh", "-c", script].map(Into::into).to_vec();
        self
    }

    pub(super) fn program(mut self, words: &[&str]) -> Self {
        self.worker = words.iter().map(Into::into).collect();
        self
    }

    pub(super) fn words(mut self, words: Vec<OsString>) -> Self {
        self.worker = words;
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().into()));
        self
    }

    pub(super) fn ours(mut self) -> Self {
        self.program = Program::Ours;
        self
    }

    /// Makes a file in the directory.
    pub(super) fn file(self, name: &str, text: &str) -> Self {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn command(&self) -> Command {
        self.command_of(&self.program.path())
    }

    pub(super) fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .args(&self.options)
            .arg("--")
            .args(&self.worker)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        for variable in UNWANTED {
            command.env_remove(variable);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env(MARK, self.dir.path());
        command
    }

    /// Starts it, with its output in the file `output`.
    pub(super) fn start(self) -> Daemon {
        let mut command = self.command();
        self.start_as(&mut command)
    }

    /// Has it started by a command that executes what its last arguments are.
    pub(super) fn start_by(self, mut command: Command) -> Daemon {
        let own = self.command();
        command
            .arg(own.get_program())
            .args(own.get_args())
            .current_dir(self.dir())
            .stdin(Stdio::null());
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.start_as(&mut command)
    }

    pub(super) fn start_as(self, command: &mut Command) -> Daemon {
        let output = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.dir.path().join(OUTPUT))
            .unwrap();
        let child = command
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Daemon {
            dir: self.dir,
            program: self.program,
            child: Some(child),
            was_told_to_end: AtomicBool::new(false),
        }
    }

    /// Stands for a daemon that is started in another way.
    pub(super) fn daemon(self) -> Daemon {
        Daemon {
            dir: self.dir,
            program: self.program,
            child: None,
            was_told_to_end: AtomicBool::new(false),
        }
    }

    /// Starts it with `--daemonize` and a log file, and waits for the launcher.
    pub(super) fn daemonize(self) -> (Daemon, Output) {
        let start = self.options(["--daemonize", "--log-file=output"]);
        let output = finish(start.command());
        (start.daemon(), output)
    }

    /// Runs it to its end, which has to come on its own.
    pub(super) fn run(self) -> Output {
        let output = finish(self.command());
        kill_marked(self.dir.path());
        output
    }
}

impl Daemon {
    /// Starts the worker that serves, on a TCP port of its own, without waiting
    /// for the blind second.
    pub(super) fn serving(program: Program) -> Self {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0"])
            .start();
        daemon.wait_for_log("serving as generation 1");
        // It has to be taken for serving before it may end.
        daemon.wait_for_generations(&[1]);
        daemon
    }

    pub(super) fn pid(&self) -> i32 {
        match &self.child {
            Some(child) => child.id().cast_signed(),
            None => wait_for("a pid file", || self.read("pid")?.trim().parse().ok()),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn read(&self, name: &str) -> Option<String> {
        fs::read(self.path(name))
            .ok()
            .map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        // A worker that starts at this moment sees all of it, or none.
        let draft = self.path(".draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.path(name)).unwrap();
    }

    pub(super) fn log(&self) -> String {
        self.read(OUTPUT).unwrap_or_default()
    }

    /// Waits until the log contains all of the texts, and returns it.
    pub(super) fn wait_for_log(&self, text: &str) -> String {
        self.wait_for_logs(text, 1)
    }

    /// Waits until the log contains the text this many times, and returns it.
    pub(super) fn wait_for_logs(&self, text: &str, times: usize) -> String {
        self.wait(&format!("{times} times {text:?} in the log"), || {
            Some(self.log()).filter(|log| log.matches(text).count() >= times)
        })
    }

    /// Waits until a file of its directory contains the text, and returns it.
    pub(super) fn wait_for_text(&self, file: &str, text: &str) -> String {
        self.wait(&format!("{text:?} in {file}"), || {
            self.read(file).filter(|content| content.contains(text))
        })
    }

    /// Waits for a condition; a failure shows the log.
    pub(super) fn wait<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut looked = Instant::now();
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}; the log of {:?}:\n{}",
                self.program,
                self.log()
            );
            self.wake_perl(&mut looked);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn wake_perl(&self, looked: &mut Instant) {
        if self.program != Program::Perl {
            return;
        }
        let child = self.child.as_ref().map(|child| child.id().cast_signed());
        if let Some(pid) = child.or_else(|| self.read("pid")?.trim().parse().ok()) {
            let was_told_to_end = self.was_told_to_end.load(Ordering::Relaxed);
            process::wake_perl(pid, was_told_to_end, looked);
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        if signal == Signal::SIGTERM {
            self.was_told_to_end.store(true, Ordering::Relaxed);
        }
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for its end, and returns how it ended.
    pub(super) fn wait_for_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let mut looked = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                return status;
            }
            self.wake_perl(&mut looked);
            assert!(
                Instant::now() < deadline,
                "it does not end; the log:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it with TERM, and returns the whole log.
    pub(super) fn stop(&mut self) -> String {
        self.signal(Signal::SIGTERM);
        let status = self.wait_for_exit();
        assert_eq!(
            status.code(),
            Some(0),
            "it ended with {status}, signal {:?}",
            status.signal()
        );
        self.log()
    }

    /// Returns what the workers have said they are, in the order of their starts:
    /// generation and process id.
    pub(super) fn workers(&self) -> Vec<(u64, i32)> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| {
            line.split_once("serving as generation ")?
                .1
                .split_once(" pid ")
        });
        lines
            .map(|(generation, pid)| (generation.parse().unwrap(), pid.trim().parse().unwrap()))
            .collect()
    }

    /// Waits for the worker of a generation, and returns its process id.
    pub(super) fn worker(&self, generation: u64) -> i32 {
        self.wait(&format!("generation {generation}"), || {
            self.workers()
                .into_iter()
                .find(|(found, _)| *found == generation)
                .map(|(_, pid)| pid)
        })
    }

    /// Returns the address that the worker found its first TCP socket bound to.
    pub(super) fn address(&self) -> String {
        self.wait("an address", || {
            let log = self.log();
            log.lines()
                .find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()))
        })
    }

    /// Returns the address that the super-daemon's own TCP socket is bound to.
    pub(super) fn own_address(&self) -> SocketAddr {
        let sockets: Vec<_> = fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter_map(|link| {
                Some(
                    link.to_str()?
                        .strip_prefix("socket:[")?
                        .strip_suffix(']')?
                        .to_owned(),
                )
            })
            .collect();
        // Lines may be missing from a table that changes while it is read.
        let port = self.wait("its socket", || {
            let table = fs::read_to_string("/proc/net/tcp").unwrap();
            let mut lines = table
                .lines()
                .skip(1)
                .map(|line| line.split_whitespace().collect::<Vec<_>>());
            let listening = lines
                .find(|fields| fields[3] == "0A" && sockets.iter().any(|inode| inode == fields[9]));
            u16::from_str_radix(listening?[1].split_once(':')?.1, 16).ok()
        });
        ([127, 0, 0, 1], port).into()
    }

    /// Asks whoever serves for one of the things it knows.
    ///
    /// A worker that ends cuts the connections it has: then the next one is asked.
    pub(super) fn ask(&self, question: &str) -> String {
        let address = self.address();
        self.wait("an answer", || worker::ask(&address, question).ok())
    }

    /// Waits until this generation answers, and no earlier one can.
    pub(super) fn wait_for_answer_of(&self, generation: u64) {
        self.wait(&format!("an answer of generation {generation}"), || {
            let earlier = self
                .workers()
                .into_iter()
                .filter(|(number, _)| *number < generation);
            let gone = earlier.map(|(_, pid)| pid).all(|pid| !is_running(pid));
            (gone && self.ask("generation") == generation.to_string()).then_some(())
        });
    }

    /// Runs our program with these options, in the same directory.
    pub(super) fn control(&self, options: &[&str]) -> Output {
        self.control_of(Program::Ours, options)
    }

    pub(super) fn control_of(&self, program: Program, options: &[&str]) -> Output {
        if options.contains(&"--stop") {
            self.was_told_to_end.store(true, Ordering::Relaxed);
        }
        let mut command = Command::new(program.path());
        command.args(options).current_dir(self.dir.path());
        if self.program == Program::Ours {
            return finish(command);
        }
        thread::scope(|scope| {
            let output = scope.spawn(|| finish(command));
            let mut looked = Instant::now();
            while !output.is_finished() {
                self.wake_perl(&mut looked);
                thread::sleep(Duration::from_millis(5));
            }
            output.join().unwrap()
        })
    }

    /// Returns the generations in the status file.
    pub(super) fn generations(&self) -> Vec<u64> {
        let text = self.read("status").unwrap_or_default();
        text.lines()
            .map(|line| line.split_once(':').unwrap().0.parse().unwrap())
            .collect()
    }

    pub(super) fn wait_for_generations(&self, generations: &[u64]) {
        self.wait(
            &format!("generations {generations:?} in the status file"),
            || (self.generations() == generations).then_some(()),
        );
    }

    /// Gives up the super-daemon, to be started in the same directory again.
    pub(super) fn again(mut self, options: &[&str]) -> Start {
        self.child = None;
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        let mut start = Start::new(self.program).options(options);
        start.dir = dir;
        start
    }

    /// Ends it without a chance to clean up.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(child) = &mut self.child {
            child.wait().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        kill_marked(self.dir.path());
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }
}

/// Runs a command to its end. One that does not come to it is killed, with all it
/// has started, and that is a failure.
pub(super) fn finish(mut command: Command) -> Output {
    static COMMANDS: AtomicUsize = AtomicUsize::new(0);
    let number = COMMANDS.fetch_add(1, Ordering::Relaxed);
    let own = format!("command {number} of {}", std::process::id());
    let dir = command.get_envs().find(|(name, _)| *name == MARK);
    let mark = dir
        .and_then(|(_, dir)| dir)
        .map_or(own.into(), PathBuf::from);
    command.env(MARK, &mark);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let (done, end) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let is_late = end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        if is_late {
            kill_marked(&mark);
        }
        is_late
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    let is_late = watchdog.join().unwrap();
    assert!(!is_late, "{command:?} has not ended: {}", stderr(&output));
    output
}

/// Waits for a condition.
pub(super) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The number behind `text` in a log.
pub(super) fn number_after(log: &str, text: &str) -> i32 {
    let rest = log
        .split_once(text)
        .unwrap_or_else(|| panic!("no {text:?} in:\n{log}"))
        .1;
    rest.split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

pub(super) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(super) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Where the output of a super-daemon goes.
const OUTPUT: &str = "output";
/// What the test itself may have been started with.
const UNWANTED: [&str; 12] = [
    "AUTO_RESTART_INTERVAL",
    "ENABLE_AUTO_RESTART",
    "ENVDIR",
    "KILL_OLD_DELAY",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "SERVER_STARTER_GENERATION",
    "SERVER_STARTER_PORT",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];
const PATIENCE: Duration = Duration::from_secs(60);
