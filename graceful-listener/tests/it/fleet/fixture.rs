use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::process;

/// A directory of programs, and the supervisor that keeps them running.
#[derive(Debug)]
pub(super) struct Fleet {
    dir: TempDir,
    supervisor: Option<Child>,
    arguments: Vec<String>,
}

impl Fleet {
    /// A directory without programs, in which nothing runs.
    pub(super) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("programs")).unwrap();
        Self {
            dir,
            supervisor: None,
            arguments: Vec::new(),
        }
    }

    /// A supervisor with one program.
    pub(super) fn with(name: &str, definition: &str) -> Self {
        let mut fleet = Self::empty();
        fleet.program(name, definition);
        fleet.start();
        fleet
    }

    pub(super) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn start(&mut self) {
        self.start_as(Path::new(PROGRAM));
    }

    /// Starts the supervisor by a script, which has it in `$@`.
    pub(super) fn start_by(&mut self, script: &str) {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", PROGRAM]);
        self.start_with(shell);
    }

    /// Starts the supervisor under another name.
    pub(super) fn start_as(&mut self, program: &Path) {
        self.start_with(Command::new(program));
    }

    fn start_with(&mut self, mut command: Command) {
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path().join("fleet.log"))
            .unwrap();
        command
            .arg("run")
            .args(&self.arguments)
            .arg(self.path())
            .env("OF_THE_SUPERVISOR", "is inherited")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            // What is sent to the test must not reach it.
            .process_group(0);
        self.supervisor = Some(command.spawn().unwrap());
    }

    /// Writes the file of a program as people are told to: under another name first.
    pub(super) fn program(&self, name: &str, definition: &str) {
        let draft = self.path().join(format!("programs/.{name}"));
        fs::write(&draft, definition).unwrap();
        fs::rename(draft, self.path().join(format!("programs/{name}.toml"))).unwrap();
    }

    /// Writes a file that a program reads: all of it, or nothing.
    pub(super) fn write(&self, name: &str, text: &str) {
        let draft = self.path().join(format!(".{name}"));
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.path().join(name)).unwrap();
    }

    pub(super) fn remove_program(&self, name: &str) {
        fs::remove_file(self.path().join(format!("programs/{name}.toml"))).unwrap();
    }

    pub(super) fn pid(&self) -> u32 {
        self.supervisor.as_ref().unwrap().id()
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// Kills the supervisor, and nothing else.
    pub(super) fn kill(&mut self) {
        let mut supervisor = self.supervisor.take().unwrap();
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
    }

    /// Stops the supervisor as a service manager does, and returns its log.
    pub(super) fn stop(mut self) -> String {
        self.signal(Signal::SIGTERM);
        let status = self.supervisor.take().unwrap().wait().unwrap();
        assert!(status.success(), "{}", self.log());
        self.log()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path().join("fleet.log")).unwrap_or_default()
    }

    /// Gives a command, and returns the answer.
    pub(super) fn command(&self, command: &str) -> Result<String, String> {
        self.submit(command);
        self.answer(command)
    }

    pub(super) fn submit(&self, command: &str) {
        for place in ["done", "failed"] {
            let _ = fs::remove_file(self.path().join(place).join(command));
        }
        let inbox = self.path().join("inbox");
        self.wait("an inbox", || inbox.is_dir().then_some(()));
        fs::write(self.path().join(format!(".{command}")), "").unwrap();
        fs::rename(self.path().join(format!(".{command}")), inbox.join(command)).unwrap();
    }

    pub(super) fn answer(&self, command: &str) -> Result<String, String> {
        let read = |place: &str| fs::read_to_string(self.path().join(place).join(command)).ok();
        self.wait(&format!("an answer to {command}"), || {
            read("done").map(Ok).or_else(|| read("failed").map(Err))
        })
    }

    /// Returns what the status file says; null if there is none.
    pub(super) fn status(&self) -> Value {
        fs::read(self.path().join("status.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    pub(super) fn program_status(&self, name: &str) -> Value {
        let status = self.status();
        let programs = status["programs"].as_array();
        let found = programs.and_then(|all| all.iter().find(|program| program["name"] == name));
        found.cloned().unwrap_or_default()
    }

    /// Returns the instances' states, and the process ids of those that have one.
    pub(super) fn instances(&self, name: &str) -> Vec<(String, Option<u32>)> {
        let program = self.program_status(name);
        let instances = program["instances"].as_array();
        instances
            .into_iter()
            .flatten()
            .map(|instance| {
                let state = instance["state"].as_str().unwrap().to_owned();
                let pid = instance["pid"].as_u64();
                (state, pid.map(|pid| u32::try_from(pid).unwrap()))
            })
            .collect()
    }

    /// Waits until all instances of a program are in a state, and returns their
    /// process ids.
    pub(super) fn wait_for(&self, name: &str, states: &[&str]) -> Vec<u32> {
        self.wait(&format!("{name} to be {states:?}"), || {
            let instances = self.instances(name);
            let found = instances.iter().map(|(state, _)| state.as_str());
            found
                .eq(states.iter().copied())
                .then(|| instances.iter().filter_map(|(_, pid)| *pid).collect())
        })
    }

    pub(super) fn wait_for_log(&self, part: &str) -> String {
        self.wait(&format!("`{part}` in the log"), || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(part));
            line.map(str::to_owned)
        })
    }

    /// Waits until a file that a program writes is there and complete.
    pub(super) fn wait_for_file(&self, name: &str) -> String {
        let path = self.path().join(name);
        self.wait(&format!("{name} to end a line"), || {
            fs::read_to_string(&path)
                .ok()
                .filter(|text| text.ends_with('\n'))
        })
    }

    pub(super) fn wait<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        wait(what, || self.log(), condition)
    }

    /// Returns what runs below the supervisor.
    pub(super) fn children(&self) -> Vec<u32> {
        process::children(self.pid())
    }

    /// Returns the files that tell a supervisor after this one what runs.
    pub(super) fn pid_files(&self) -> Vec<PathBuf> {
        self.files_called("pid")
    }

    /// Returns the files that tell a supervisor after this one what is left of processes.
    pub(super) fn left_files(&self) -> Vec<PathBuf> {
        self.files_called("left")
    }

    fn files_called(&self, ending: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.path().join("run"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == ending)
            })
            .collect();
        files.sort();
        files
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            let _ = supervisor.kill();
            let _ = supervisor.wait();
        }
        let files = ["pid", "counter", "left"].map(|ending| self.files_called(ending));
        for file in files.concat() {
            let text = fs::read_to_string(file).unwrap_or_default();
            let pid = text
                .lines()
                .next()
                .and_then(|line| line.parse::<i32>().ok());
            let ours = text.contains("\npidfd ");
            if let Some(pid) = pid.filter(|_| ours) {
                let _ = kill(Pid::from_raw(-pid), Signal::SIGKILL);
            }
        }
    }
}

pub(super) fn wait<T>(
    what: &str,
    log: impl Fn() -> String,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited in vain for {what}; the log is\n{}",
            log()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a process has ended.
pub(super) fn wait_for_end(pid: u32) {
    wait(&format!("the end of process {pid}"), String::new, || {
        process::is_gone(pid).then_some(())
    });
}

/// Ends a process without a supervisor, and lets its new parent reap it if it does that:
/// then only the number of its group is left of it.
pub(super) fn end_alone(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    wait_for_end(pid);
    let begun = Instant::now();
    let is_there = || fs::exists(format!("/proc/{pid}")).unwrap();
    while is_there() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet");
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that stays.
pub(super) const SLEEP: &str = r#"
command = "sleep"
arguments = ["600"]
start_seconds = "0s"
restart = "always"
"#;

/// A program that the shell runs.
pub(super) fn shell(script: &str, more: &str) -> String {
    format!(
        "command = \"/bin/sh\"\narguments = [\"-c\", '''{script}''']\nstart_seconds = \"0s\"\n{more}\n"
    )
}
