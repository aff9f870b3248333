use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::definition::LogTarget;
use super::host::Host;
use super::program::Program;
use crate::cli::failure::reason;
use crate::cli::log_command::{LogCommand, own_output};
use crate::cli::log_keeper;
use crate::cli::log_tail::{self, LogTail};
use crate::cli::process::{Certificate, Identity, Process};
use crate::cli::sockets::{Held, HeldFile};
use crate::ports::{PortName, Ports};

impl Program {
    /// Takes out of a process that was adopted what its supervisor has held open
    /// for all instances: the sockets, and the pipe that leads to the log command.
    pub(crate) fn adopt_outlets(&mut self, process: &Process, host: &Host) {
        let failed = |what: &str, error: &io::Error| {
            host.log.line(format_args!(
                "{}: failed to take {what} over from process {}: {}",
                self.name,
                process.pid(),
                reason(error)
            ));
        };
        let names: Vec<_> = self.recipe.socket_names(host).collect();
        let mut taken = Vec::new();
        for name in names {
            if self.sockets.iter().any(|held| held.name == name) {
                continue;
            }
            match socket_of(process, &name) {
                Ok(held) => taken.extend(held),
                Err(error) => failed(&format!("the socket {name}"), &error),
            }
        }
        if let Some(LogTarget::Command(command)) = &self.recipe.definition.log
            && self.log.is_none()
        {
            match pipe_of(process) {
                Ok(Some((reader, writer, output))) => {
                    let (reader, writer) = (reader.into(), writer.into());
                    let mut log = LogCommand::resume(command.clone(), reader, writer, output);
                    log.process = reader_left(&host.run, &self.name);
                    let left = log.process.as_ref().and_then(tail_of);
                    let tail = match left {
                        Some(file) => LogTail::resume(file, &log.reader),
                        None => LogTail::new(&log.reader),
                    };
                    match tail {
                        Ok(tail) => log.tail = Some(tail.into()),
                        Err(error) => failed("the end of the log", &error),
                    }
                    self.log = Some(log.into());
                    self.watch_log(host);
                }
                Ok(None) => {}
                Err(error) => failed("the log", &error),
            }
        }
        taken.into_iter().for_each(|held| self.sockets.push(held));
    }

    /// Has the end of the log command told, and it written down who it is.
    pub(crate) fn watch_log(&self, host: &Host) {
        let process = self.log.as_ref().and_then(|log| log.process.as_ref());
        let Some(process) = process else { return };
        let key = super::instance::key(process);
        let watched = host.watch.add(process, key);
        let path = reader_path(&host.run, &self.name);
        if let Err(error) = watched.and_then(|()| Certificate::issue(&path, process, "")) {
            host.log.line(format_args!(
                "{}: failed to keep an eye on the log command: {}",
                self.name,
                reason(&error)
            ));
        }
    }

    /// Closes the way to the log command, which ends when it has read everything.
    pub(crate) fn close_log(&mut self, host: &Host) {
        if let Some(log) = self.log.take() {
            // One that is left is no harm: who it means has ended.
            let _ = fs::remove_file(reader_path(&host.run, &self.name));
            drop(log);
        }
    }
}

/// Returns the socket of this name that the process was given, if it was.
fn socket_of(process: &Process, name: &PortName) -> io::Result<Option<Held>> {
    let environ = fs::read(format!("/proc/{}/environ", process.pid()))?;
    let ports = environ.split(|&byte| byte == 0).find_map(|entry| {
        entry
            .strip_prefix(Ports::VARIABLE.as_bytes())?
            .strip_prefix(b"=")
    });
    let ports = ports.and_then(|text| Ports::parse(OsStr::from_bytes(text)).ok());
    let number = ports.and_then(|ports| {
        let mut found = ports.iter().filter(|(known, _)| *known == name);
        found.next().map(|(_, number)| number)
    });
    let Some(number) = number else {
        return Ok(None);
    };
    let fd = process.copy_descriptor(number)?;
    let file = match name {
        PortName::Path(path) => HeldFile::find(path).ok(),
        _ => None,
    };
    let name = name.clone();
    Ok(Some(Held { name, fd, file }))
}

/// Returns both ends of the pipe that the process writes its output to, and where
/// the output of who reads it is to go.
fn pipe_of(process: &Process) -> io::Result<Option<(OwnedFd, OwnedFd, [OwnedFd; 2])>> {
    let path = format!("/proc/{}/fd/1", process.pid());
    if !fs::metadata(&path)?.file_type().is_fifo() {
        return Ok(None);
    }
    let reader = File::open(&path)?;
    let writer = OpenOptions::new().write(true).open(&path)?;
    Ok(Some((reader.into(), writer.into(), own_output()?)))
}

/// Returns the log command that still reads the pipe, if it does.
fn reader_left(run: &Path, program: &str) -> Option<Process> {
    let text = fs::read_to_string(reader_path(run, program)).ok()?;
    let (identity, _) = Identity::parse(&text)?;
    identity.find().ok()?
}

/// Returns where the keeper of a log notes what comes last.
fn tail_of(keeper: &Process) -> Option<OwnedFd> {
    let path = format!("/proc/{}/fd/{}", keeper.pid(), log_keeper::TAIL);
    let name = fs::read_link(&path).ok()?;
    let is_one = name.to_str()?.contains(log_tail::NAME);
    let opened = is_one.then(|| File::options().read(true).write(true).open(path));
    Some(opened?.ok()?.into())
}

fn reader_path(run: &Path, program: &str) -> PathBuf {
    run.join(format!("{program}.reader"))
}
