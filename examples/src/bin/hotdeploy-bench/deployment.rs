//! The service under `start_server`, in a directory of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A running service.
#[derive(Debug)]
pub(crate) struct Deployment {
    starter: Child,
    messages: Receiver<String>,
    said: Vec<String>,
    status: PathBuf,
}

impl Deployment {
    /// Starts it; `options` are the service's.
    pub(crate) fn start(dir: &Path, options: &[String]) -> Result<Self, String> {
        let status = dir.join("status");
        let mut command = Command::new(sibling("start_server")?);
        command
            .args(["--port", "127.0.0.1:0", "--wait-ready=60", "--status-file"])
            .arg(&status)
            .arg("--")
            .arg(sibling("service")?)
            .args(["--json", "--debug-routes", "--trusted-proxy", "127.0.0.1"])
            .args(options)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut starter = command
            .spawn()
            .map_err(|error| format!("cannot run {command:?}: {error}"))?;
        let (sender, messages) = channel();
        if let Some(stderr) = starter.stderr.take() {
            let mut copy = File::create(dir.join("messages")).ok();
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if let Some(copy) = &mut copy {
                        let _ = writeln!(copy, "{line}");
                    }
                    let _ = sender.send(line);
                }
            });
        }
        Ok(Self {
            starter,
            messages,
            said: Vec::new(),
            status,
        })
    }

    /// Waits until the service serves.
    pub(crate) fn address(&mut self) -> Result<SocketAddr, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.messages.recv_timeout(left) else {
                return Err(format!(
                    "the service does not serve:\n{}",
                    self.said.join("\n")
                ));
            };
            let message: Value = serde_json::from_str(&line).unwrap_or_default();
            self.said.push(line);
            if message["message"] == "serving"
                && let Some(address) = message["address"].as_str()
            {
                return address.parse().map_err(|_| format!("serves on {address}"));
            }
        }
    }

    /// The generations that run, with the pids of their workers, oldest first.
    pub(crate) fn generations(&self) -> Vec<(u64, i32)> {
        let text = std::fs::read_to_string(&self.status).unwrap_or_default();
        let line = |line: &str| {
            let (generation, pid) = line.split_once(':')?;
            Some((generation.parse().ok()?, pid.parse().ok()?))
        };
        let mut generations: Vec<_> = text.lines().filter_map(line).collect();
        generations.sort_unstable();
        generations
    }

    /// Asks for the next generation, and waits until it serves alone.
    pub(crate) fn deploy(&self) -> Result<(), String> {
        let newest = |all: &[(u64, i32)]| all.last().map_or(0, |(generation, _)| *generation);
        let before = newest(&self.generations());
        self.signal(Signal::HUP)?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let now = self.generations();
            if now.len() == 1 && newest(&now) > before {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(format!("generation {before} was not replaced"))
    }

    /// Ends it, and returns how it ended and all that was said.
    pub(crate) fn stop(mut self) -> Result<(ExitStatus, Vec<String>), String> {
        self.signal(Signal::TERM)?;
        let status = self.starter.wait().map_err(|error| error.to_string())?;
        // Up to the end, when every process that could say something has ended.
        while let Ok(line) = self.messages.recv_timeout(PATIENCE) {
            self.said.push(line);
        }
        Ok((status, std::mem::take(&mut self.said)))
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = Pid::from_child(&self.starter);
        kill_process(pid, signal).map_err(|error| format!("kill: {error}"))
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // Its workers drain and end when it is told to end, even after a failure here.
        if matches!(self.starter.try_wait(), Ok(None)) {
            let _ = self.signal(Signal::TERM);
            let _ = self.starter.wait();
        }
    }
}

/// A program of the workspace: all are built into one directory.
fn sibling(name: &str) -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = this.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    Err(format!(
        "{} is missing: run cargo build --bins",
        path.display()
    ))
}

const PATIENCE: Duration = Duration::from_secs(120);
