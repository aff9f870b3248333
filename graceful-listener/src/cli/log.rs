use std::cell::Cell;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use chrono::{Local, SecondsFormat};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// Writes the super-daemon's own lines to standard error, which is the log.
///
/// A line that cannot be written without waiting is dropped and counted: a reader
/// that stalls must not stall the deploy.
#[derive(Debug)]
pub(crate) struct Log {
    program: &'static str,
    format: LogFormat,
    lost: Cell<u64>,
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum LogFormat {
    /// The message alone, as Server::Starter writes it.
    #[default]
    Plain,
    /// Time, program and process id before the message.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "plain" => Ok(Self::Plain),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected plain, text or json".into()),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl Log {
    pub(crate) const fn new(program: &'static str, format: LogFormat) -> Self {
        Self {
            program,
            format,
            lost: Cell::new(0),
        }
    }

    pub(crate) const fn format(&self) -> LogFormat {
        self.format
    }

    /// Writes one line.
    pub(crate) fn line(&self, message: impl fmt::Display) {
        let lost = self.lost.get();
        if lost > 0 && self.write(&format!("{lost} lines of this log could not be written")) {
            self.lost.set(0);
        }
        if !self.write(&message.to_string()) {
            self.lost.set(self.lost.get() + 1);
        }
    }

    /// Notes where the log ends now; `None` if it is no file to be read again.
    pub(crate) fn mark(&self) -> Option<u64> {
        let log = fs::metadata(LOG).ok()?;
        log.is_file().then_some(log.len())
    }

    /// Returns the last lines written since `mark`, by whomever.
    pub(crate) fn since(&self, mark: u64) -> Vec<String> {
        tail(Path::new(LOG), mark)
    }

    fn write(&self, message: &str) -> bool {
        let line = self.render(message);
        let stderr = io::stderr();
        // A pipe that is ready takes at least PIPE_BUF bytes at once; anything
        // longer could wait for its reader.
        for part in line.as_bytes().chunks(libc::PIPE_BUF) {
            let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
            let writable = poll(&mut ready, PollTimeout::ZERO).is_ok()
                && ready[0]
                    .revents()
                    .is_some_and(|now| now.contains(PollFlags::POLLOUT));
            if !writable || write(&stderr, part) != Ok(part.len()) {
                return false;
            }
        }
        true
    }

    fn render(&self, message: &str) -> String {
        let time = || Local::now().to_rfc3339_opts(SecondsFormat::Millis, false);
        let pid = std::process::id();
        match self.format {
            LogFormat::Plain => format!("{message}\n"),
            LogFormat::Text => format!("{} {}[{pid}]: {message}\n", time(), self.program),
            LogFormat::Json => {
                let line = serde_json::json!({
                    "time": time(),
                    "program": self.program,
                    "pid": pid,
                    "message": message,
                });
                format!("{line}\n")
            }
        }
    }
}

/// Takes out what a terminal would obey, and what would begin another line.
pub(crate) fn printable(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Returns the last lines that were written to a file since it was `mark` bytes
/// long: at most ten, and none if it cannot be read.
pub(crate) fn tail(path: &Path, mark: u64) -> Vec<String> {
    let read = || {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        // A file that was cut short meanwhile is read from its beginning.
        let start = if mark > end { 0 } else { mark };
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(MAX_OUTPUT))))?;
        let mut text = Vec::new();
        file.take(MAX_OUTPUT).read_to_end(&mut text)?;
        io::Result::Ok(text)
    };
    last_lines(&read().unwrap_or_default())
}

/// Returns the last lines of a text: at most ten.
pub(crate) fn last_lines(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(MAX_LINES)..].to_vec()
}

/// Opens a file to append output to, made with the permissions `mode` if there is none.
///
/// One that is a pipe has to have a reader, who is not waited for here; but whoever
/// writes to it may be.
pub(crate) fn append_to(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.append(true).create(true).mode(mode);
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

/// Standard error, to be opened once more.
const LOG: &str = "/proc/self/fd/2";
/// How much of the end of a log is looked at for its last lines.
pub(crate) const MAX_OUTPUT: u64 = 4096;
const MAX_LINES: usize = 10;
