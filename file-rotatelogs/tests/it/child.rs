//! A process of its own with a log, told what to do line by line.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use file_rotatelogs::{
    Builder, Clock, Compression, ErrorPolicy, NonBlocking, Overflow, RotateLogs, SyncPolicy,
};

use crate::support::{self, Events, PATIENCE, Quiet, wait_until};

/// A process that runs until it is told to end, killed or dropped.
pub(crate) struct Child {
    process: std::process::Child,
    lines: BufReader<UnixStream>,
}

/// How to start one.
#[derive(Default)]
pub(crate) struct Start<'a> {
    /// A program and its arguments to run it under, such as `strace -f`.
    pub(crate) under: &'a [&'a str],
    /// Whom to run it as, when this process is root's.
    pub(crate) user: Option<u32>,
}

impl Child {
    pub(crate) fn start() -> Self {
        Self::start_as(&Start::default())
    }

    pub(crate) fn start_as(start: &Start<'_>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut program = env::current_exe().unwrap();
        if start.user.is_some() {
            // The other user may not be let in where this program is.
            let original = std::mem::replace(&mut program, directory.path().join("it"));
            // A program that is started meanwhile would have it open for writing, for a
            // moment, and then it could not be run.
            let _quiet = Quiet::new();
            fs::copy(original, &program).unwrap();
            for path in [directory.path(), &socket, &program] {
                fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
            }
        }
        let mut words: Vec<OsString> = start.under.iter().map(OsString::from).collect();
        words.push(program.into_os_string());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args([
                "--exact",
                "child::process_of_another_test",
                "--test-threads=1",
            ])
            .env(SOCKET, &socket)
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(user) = start.user {
            command.uid(user).gid(user);
        }
        let mut process = support::start(&mut command);
        listener.set_nonblocking(true).unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break Some(stream),
                Err(_) if process.try_wait().unwrap().is_some() => break None,
                Err(error) => assert!(std::time::Instant::now() < deadline, "no child: {error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let stream = stream.unwrap_or_else(|| UnixStream::pair().unwrap().0);
        stream.set_nonblocking(false).unwrap();
        Self {
            process,
            lines: BufReader::new(stream),
        }
    }

    /// Starts a process whose system calls are written to a file by strace.
    pub(crate) fn traced(options: &[&str], trace: &Path) -> Self {
        let trace = trace.to_str().unwrap();
        Self::start_as(&Start {
            under: &[&["strace", "-f", "-qq"], options, &["-o", trace]].concat(),
            user: None,
        })
    }

    /// Starts a process and has it open a log.
    pub(crate) fn with_log(settings: &[&str]) -> Self {
        let mut child = Self::start();
        child.open(settings).unwrap();
        child
    }

    pub(crate) fn open(&mut self, settings: &[&str]) -> Result<String, String> {
        self.tell(&format!("open\t{}", settings.join("\t")))
    }

    /// Has a command done and waits for the answer. The error is that of the log, or
    /// `gone` when the process is.
    pub(crate) fn tell(&mut self, command: &str) -> Result<String, String> {
        self.send(command);
        self.answer()
    }

    /// Sends a command without waiting.
    pub(crate) fn send(&mut self, command: &str) {
        let _ = writeln!(self.lines.get_mut(), "{command}");
    }

    pub(crate) fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) | Err(_) => return Err("gone".to_owned()),
            Ok(_) => {}
        }
        let line = line.trim_end_matches('\n');
        match line.split_once(' ') {
            Some(("ok", rest)) => Ok(rest.to_owned()),
            Some(("err", rest)) => Err(rest.to_owned()),
            _ => panic!("{line:?}"),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args([&format!("-{name}"), &self.id().to_string()]);
        assert!(support::run(&mut kill).success());
    }

    /// Waits for the end of one that is gone: what it runs under ends after it.
    pub(crate) fn bury(mut self) {
        self.process.wait().unwrap();
    }

    pub(crate) fn kill(mut self) -> ExitStatus {
        self.process.kill().unwrap();
        self.process.wait().unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The commands: `open`, `write`, `count`, `rotate`, `reopen`, `tick`, `path`, `lost`,
/// `events`, `settle`, `close`.
#[test]
fn process_of_another_test() {
    let Some(socket) = env::var_os(SOCKET) else {
        return;
    };
    let stream = UnixStream::connect(PathBuf::from(socket)).unwrap();
    let mut answers = stream.try_clone().unwrap();
    let mut process = Process::default();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        let (command, rest) = line.split_once('\t').unwrap_or((&line, ""));
        let answer = match process.obey(command, rest) {
            Ok(answer) => format!("ok {answer}\n"),
            Err(error) => format!("err {error}\n"),
        };
        answers
            .write_all(answer.replace("\n ", " ").as_bytes())
            .unwrap();
    }
}

#[derive(Default)]
struct Process {
    logs: Option<RotateLogs>,
    queue: Option<NonBlocking>,
    events: Events,
    /// A `count` is over.
    counted: Arc<AtomicBool>,
}

impl Process {
    fn obey(&mut self, command: &str, rest: &str) -> Result<String, Box<dyn std::error::Error>> {
        if command == "open" {
            let makes_room = rest.contains("room");
            let gathers = rest.contains("gather");
            let counted = Arc::clone(&self.counted);
            let builder = self.events.of_and(builder(rest), move |event| {
                if gathers && event.to_string().starts_with("cannot write") {
                    wait_until("all is queued", || counted.load(Ordering::SeqCst));
                }
                if makes_room && event.to_string().starts_with("cannot write") {
                    let id = std::process::id().to_string();
                    let mut lift = Command::new("prlimit");
                    lift.args(["--pid", &id, "--fsize=unlimited:"]);
                    assert!(lift.status().unwrap().success());
                }
            });
            let logs = builder.build()?;
            if rest.contains("queue=") {
                let overflow = if rest.contains("queue=drop") {
                    Overflow::DropNewest
                } else {
                    Overflow::Block
                };
                let queue = NonBlocking::builder(logs.clone()).overflow(overflow);
                self.queue = Some(queue.build()?);
            }
            self.logs = Some(logs);
            return Ok(String::new());
        }
        let logs = self.logs.as_ref().expect("a log is open");
        match command {
            "write" => match &self.queue {
                Some(queue) => writeln!({ queue }, "{rest}")?,
                None => writeln!({ logs }, "{rest}")?,
            },
            // Writes `PREFIX N` for each N from the first number to before the second, as
            // long as it goes, and answers how many.
            "count" => {
                let words: Vec<&str> = rest.split('\t').collect();
                let (from, to): (u64, u64) = (words[1].parse()?, words[2].parse()?);
                let mut done = 0;
                for number in from..to {
                    match &self.queue {
                        Some(queue) => writeln!({ queue }, "{} {number}", words[0])?,
                        None => writeln!({ logs }, "{} {number}", words[0])?,
                    }
                    done += 1;
                }
                self.counted.store(true, Ordering::SeqCst);
                return Ok(done.to_string());
            }
            // Writes records and, after each, how many, to another file.
            "torture" => {
                let words: Vec<&str> = rest.split('\t').collect();
                let (writer, life) = (words[0].parse()?, words[1].parse()?);
                let (first, end): (u64, u64) = (words[2].parse()?, words[3].parse()?);
                let acknowledged = fs::File::create(words[4])?;
                for number in first..end {
                    let record = crate::torture::record(writer, life, number);
                    (&*logs).write_all(record.as_bytes())?;
                    let count = (number + 1 - first).to_le_bytes();
                    acknowledged.write_all_at(&count, 0)?;
                }
            }
            "rotate_forever" => loop {
                logs.rotate()?;
                std::thread::sleep(Duration::from_millis(3));
            },
            "flush" => match &self.queue {
                Some(queue) => (&*queue).flush()?,
                None => (&*logs).flush()?,
            },
            "rotate" => logs.rotate()?,
            "reopen" => logs.reopen()?,
            "tick" => logs.tick(),
            "path" => return Ok(logs.current_path().to_str().unwrap().to_owned()),
            "lost" => return Ok(logs.lost().to_string()),
            "events" => return Ok(self.events.all().join(" | ")),
            "sync" => logs.sync_data()?,
            "settle" => assert!(logs.wait_for_housekeeping(PATIENCE)),
            "close" => {
                self.queue = None;
                self.logs = None;
            }
            other => panic!("{other}"),
        }
        Ok(String::new())
    }
}

/// Makes a builder of `pattern=…`, `link=…`, `bytes=…` and so on, separated by tabs.
fn builder(settings: &str) -> Builder {
    let mut pairs = settings
        .split('\t')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let Some(("pattern", pattern)) = pairs.next() else {
        panic!("no pattern first in {settings}");
    };
    let mut builder = RotateLogs::builder(Path::new(pattern)).clock(Clock::utc());
    for (name, value) in pairs {
        builder = match name {
            "link" => builder.link(value),
            "bytes" => builder.rotate_at_bytes(value.parse().unwrap()),
            "every" => builder.rotate_every(Duration::from_secs(value.parse().unwrap())),
            "files" => builder.max_files(value.parse().unwrap()),
            "gzip" => builder.compress(Compression::Gzip),
            "drop" => builder.on_error(ErrorPolicy::Drop),
            "lazy" => builder.lazy(true),
            "sync" if value == "rotate" => builder.sync(SyncPolicy::OnRotate),
            "sync" => builder.sync(SyncPolicy::Every(Duration::from_millis(
                value.parse().unwrap(),
            ))),
            "finish" => builder.finish_lines(true),
            "queue" | "room" | "gather" => builder,
            other => panic!("{other}"),
        };
    }
    builder
}

const SOCKET: &str = "ROTATELOGS_TEST_SOCKET";
