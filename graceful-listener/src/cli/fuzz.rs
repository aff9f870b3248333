//! What the fuzzer reaches of the parsers; compiled for it alone.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cli::fleet::{Command, Definition, Note};
use crate::cli::process::Identity;
use crate::cli::sockets::PortSpec;
use crate::cli::variables::{self, Variables};
use crate::spec::Spec;
use crate::upgrade::{Files, Handover};

/// Reads a definition, or tells its mistakes.
pub fn definition(text: &str) -> Result<(), String> {
    Definition::parse(Path::new("fuzz.toml"), text).map(drop)
}

/// Reads the name of a command's file and writes it again.
pub fn command(name: &str) -> Result<String, String> {
    Command::parse(name).map(|command| command.to_string())
}

/// Reads a pid file and writes it again.
pub fn pid_file(text: &str) -> Option<String> {
    let (identity, rest) = Identity::parse(text)?;
    Some(identity.write() + &Note::parse(rest)?.write())
}

/// Reads a file of variables, or tells the line that is wrong.
pub fn variables(text: &[u8]) -> Result<Variables, usize> {
    let mut variables = Variables::new();
    variables::parse(text, &mut variables).map(|()| variables)
}

/// Reads an address to bind.
pub fn address(text: &[u8]) -> Result<(), String> {
    let read = Spec::parse(OsStr::from_bytes(text));
    read.map(drop).map_err(|error| error.to_string())
}

/// Reads what follows `--port`.
pub fn port(text: &[u8]) -> Result<(), String> {
    PortSpec::parse(OsStr::from_bytes(text)).map(drop)
}

/// Reads what the process before has left, and writes it again.
pub fn handover(text: &OsStr) -> Result<OsString, String> {
    Handover::parse(text).map(|handover| handover.to_os_string())
}

/// Reads what it has left besides the sockets, and writes it again; returns all
/// descriptors, too.
pub fn files(text: &OsStr, handover: &OsStr) -> Result<(OsString, Vec<RawFd>), String> {
    let handover = Handover::parse(handover)?;
    let files = Files::parse(text, &handover)?;
    let Handover { ready, alive, .. } = handover;
    let sockets = handover.ports.iter().map(|(_, fd)| fd);
    let descriptors = files.0.iter().map(|(_, fd)| *fd).chain([ready, alive]);
    Ok((files.to_os_string(), descriptors.chain(sockets).collect()))
}
