use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::log::Log;
use crate::moment::Moment;
use crate::process::{Exit, Process, Spawn};

/// The command that `--log-file '| COMMAND'` names, and the pipe it reads.
///
/// Both ends of the pipe are kept here, so the command may end and be started
/// again without the workers noticing and without a line being lost. While it
/// cannot be started, what would block the writers is thrown away, and counted.
#[derive(Debug)]
pub(crate) struct LogCommand {
    pub(crate) command: OsString,
    pub(crate) reader: PipeReader,
    pub(crate) writer: PipeWriter,
    /// What the command's own standard output and error are.
    pub(crate) output: [OwnedFd; 2],
    pub(crate) process: Option<Process>,
    since: Moment,
    failures: u32,
    retry_at: Option<Moment>,
    thrown_away: u64,
}

impl LogCommand {
    /// Starts the command.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be executed.
    pub(crate) fn start(command: OsString, keep_output: bool) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        // More than the usual 64 KiB, if we may: time to start it again in.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
        let output = if keep_output {
            [
                io::stdout().as_fd().try_clone_to_owned()?,
                io::stderr().as_fd().try_clone_to_owned()?,
            ]
        } else {
            let null = || {
                OpenOptions::new()
                    .write(true)
                    .open("/dev/null")
                    .map(OwnedFd::from)
            };
            [null()?, null()?]
        };
        let mut log = Self::resume(command, reader, writer, output);
        log.process = Some(log.spawn()?);
        Ok(log)
    }

    /// Goes on with a pipe that was kept across exec, and no command yet.
    pub(crate) fn resume(
        command: OsString,
        reader: PipeReader,
        writer: PipeWriter,
        output: [OwnedFd; 2],
    ) -> Self {
        Self {
            command,
            reader,
            writer,
            output,
            process: None,
            since: Moment::now(),
            failures: 0,
            retry_at: None,
            thrown_away: 0,
        }
    }

    /// Looks after the command: starts it again if it has ended.
    pub(crate) fn look_after(&mut self, log: &Log) -> Option<&Process> {
        let ended = self
            .process
            .as_ref()
            // Somebody else took its status; it has ended all the same.
            .map(|process| process.try_wait().unwrap_or(Some(Exit::Unknown)));
        if let Some(Some(exit)) = ended {
            self.process = None;
            if self.since.elapsed() >= HEALTHY {
                self.failures = 0;
            }
            self.failures += 1;
            let pause = if self.failures == 1 {
                Duration::ZERO
            } else {
                HEALTHY * (1 << (self.failures - 2).min(6))
            };
            self.retry_at = Some(Moment::now() + pause.min(MAX_PAUSE));
            log.line(format_args!(
                "log command {exit}, starting it again: {}",
                self.command.display()
            ));
        }
        if self.process.is_some() {
            return None;
        }
        if self.retry_at.is_none_or(|at| at <= Moment::now()) {
            match self.spawn() {
                Ok(process) => {
                    (self.since, self.retry_at) = (Moment::now(), None);
                    self.process = Some(process);
                    let lost = std::mem::take(&mut self.thrown_away);
                    if lost > 0 {
                        log.line(format_args!(
                            "{lost} bytes of output were lost while the log command did not run"
                        ));
                    }
                    return self.process.as_ref();
                }
                Err(_) => {
                    self.failures = self.failures.saturating_add(1);
                    self.retry_at =
                        Some(Moment::now() + MAX_PAUSE.min(HEALTHY * (1 << self.failures.min(6))));
                }
            }
        }
        self.make_room();
        None
    }

    /// Returns when it has to be looked after again.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        match self.process {
            Some(_) => None,
            None => Some(
                self.retry_at
                    .unwrap_or(Moment::now())
                    .min(Moment::now() + TICK),
            ),
        }
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Closes the pipe, and gives the command some time to read what is in it.
    pub(crate) fn finish(self) {
        let Self {
            reader,
            writer,
            process,
            ..
        } = self;
        drop((reader, writer));
        if let Some(process) = process {
            let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ended, PollTimeout::from(FINISH_MILLIS));
            let _ = process.try_wait();
        }
    }

    fn spawn(&self) -> io::Result<Process> {
        let env: Vec<_> = std::env::vars_os().collect();
        let words = words(&self.command);
        let [program, args @ ..] = &words[..] else {
            let empty = "the command is empty";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, empty));
        };
        let descriptors: [(BorrowedFd<'_>, i32); 3] = [
            (self.reader.as_fd(), 0),
            (self.output[0].as_fd(), 1),
            (self.output[1].as_fd(), 2),
        ];
        let process = Spawn {
            descriptors: &descriptors,
            ..Spawn::new(program, args, &env)
        }
        .spawn()?;
        Ok(process)
    }

    /// Throws away the oldest output if the pipe is full and nobody reads it.
    fn make_room(&mut self) {
        let mut full = [PollFd::new(self.writer.as_fd(), PollFlags::POLLOUT)];
        let writable = poll(&mut full, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
        if !writable {
            let mut chunk = vec![0; PIPE_SIZE as usize / 4];
            // The pipe is full, so this does not wait.
            if let Ok(length) = self.reader.read(&mut chunk) {
                self.thrown_away += length as u64;
            }
        }
    }
}

impl AsRawFd for LogCommand {
    /// Returns the end of the pipe that is written to.
    fn as_raw_fd(&self) -> i32 {
        self.writer.as_raw_fd()
    }
}

/// Takes the command apart as Perl's `open` does: at blanks, or by the shell if
/// there is anything in it that only a shell understands.
fn words(command: &OsStr) -> Vec<OsString> {
    let bytes = command.as_bytes().trim_ascii();
    if bytes.iter().any(|byte| METACHARACTERS.contains(byte)) || begins_as_script(bytes) {
        return vec!["/bin/sh".into(), "-c".into(), command.into()];
    }
    bytes
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

/// Returns true for `NAME=value ...`, `exec ...` and `. ...`, which no file is called.
fn begins_as_script(command: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let after_name = command.iter().find(|byte| !is_name(byte));
    let first_word = command.split(u8::is_ascii_whitespace).next();
    after_name == Some(&b'=') || matches!(first_word, Some(b"exec" | b"."))
}

const METACHARACTERS: &[u8] = b"$&*(){}[]'\";\\|?<>~`\n";
const PIPE_SIZE: i32 = 1 << 20;
/// A command that ran this long is started again at once.
const HEALTHY: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);
const FINISH_MILLIS: u16 = 5000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_is_used_only_where_something_needs_it() {
        assert_eq!(
            words(OsStr::new("rotatelogs -f  log 1M")),
            ["rotatelogs", "-f", "log", "1M"]
        );
        assert_eq!(
            words(OsStr::new("cat > log")),
            ["/bin/sh", "-c", "cat > log"]
        );
        for script in ["LANG=C cat", "exec cat", ". ./log.sh"] {
            assert_eq!(words(OsStr::new(script)), ["/bin/sh", "-c", script]);
        }
        assert_eq!(words(OsStr::new("execute a=b\n")), ["execute", "a=b"]);
    }
}
