use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::cli::failure::reason;
use crate::cli::log::Log;
use crate::cli::process::Process;
use crate::ports::{PortName, Ports};

/// A worker whose super-daemon is gone. It holds the sockets still.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) process: Process,
    pub(crate) generation: u64,
    pub(crate) sockets: Vec<OwnedFd>,
}

/// Finds the workers that a killed super-daemon has left with sockets of these
/// names, and takes copies of the sockets out of them.
///
/// Those that this process is not allowed to look into are reported, as they will
/// be in the way.
pub(crate) fn find(wanted: &[PortName], log: &Log) -> Vec<Orphan> {
    let wanted: Vec<PortName> = wanted
        .iter()
        .filter_map(|name| identity(name, Path::new(".")))
        .collect();
    let network = fs::read_link("/proc/self/ns/net").ok();
    if wanted.is_empty() {
        return Vec::new();
    }
    let (mut candidates, mut others) = (Vec::new(), Vec::new());
    let own = std::process::id().cast_signed();
    for pid in all_processes().filter(|pid| *pid != own) {
        match starter_variables(pid) {
            Some((ports, generation)) => {
                let dir = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
                let is_wanted = |name: &PortName| {
                    identity(name, &dir).is_some_and(|name| wanted.contains(&name))
                };
                let held: Vec<RawFd> = ports
                    .iter()
                    .filter(|(name, _)| is_wanted(name))
                    .map(|(_, fd)| fd)
                    .collect();
                let theirs = fs::read_link(format!("/proc/{pid}/ns/net")).ok();
                if !held.is_empty() && theirs == network {
                    candidates.push((pid, generation, held));
                }
            }
            None => others.push(pid),
        }
    }
    if candidates.is_empty() {
        return Vec::new();
    }
    // Whoever holds a socket without being a worker is a living super-daemon.
    let guarded: HashSet<OsString> = others.into_iter().flat_map(sockets_of).collect();
    let mut orphans = Vec::new();
    for (pid, generation, held) in candidates {
        let inodes: Vec<_> = held
            .iter()
            .filter_map(|fd| socket_inode(pid, *fd))
            .collect();
        if inodes.is_empty()
            || inodes.iter().any(|inode| guarded.contains(inode))
            || has_guardian(pid, &inodes)
        {
            continue;
        }
        match adopt(pid, &held) {
            Ok((process, sockets)) => {
                log.line(format_args!("adopting worker {pid} of generation {generation}: its super-daemon is gone"));
                orphans.push(Orphan { process, generation, sockets });
            }
            Err(error) => log.line(format_args!(
                "worker {pid} of generation {generation} still runs, its super-daemon is gone, and it cannot be adopted: {}",
                reason(&error)
            )),
        }
    }
    orphans
}

/// Returns the name if it means the same socket to every process of this network,
/// with a path made absolute: port 0 means another one to each.
fn identity(name: &PortName, dir: &Path) -> Option<PortName> {
    match name {
        PortName::Port(0) | PortName::Host(_, 0) => None,
        PortName::Path(path) => std::path::absolute(dir.join(path)).ok().map(PortName::Path),
        other => Some(other.clone()),
    }
}

fn adopt(pid: i32, held: &[RawFd]) -> std::io::Result<(Process, Vec<OwnedFd>)> {
    let process = Process::from_stranger(pid)?;
    let sockets = held
        .iter()
        .map(|fd| process.copy_descriptor(*fd))
        .collect::<Result<_, _>>()?;
    // The id may have become another's before it was held.
    if starter_variables(pid).is_none() {
        return Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    }
    Ok((process, sockets))
}

/// Returns true if the process has a parent that may be its super-daemon, or is
/// the child of another worker.
fn has_guardian(pid: i32, inodes: &[OsString]) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let parent = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
    match parent {
        Some(parent) if parent > 1 => match fs::read_dir(format!("/proc/{parent}/fd")) {
            // Not ours to look into: it may well hold them.
            Err(_) => true,
            Ok(_) => sockets_of(parent)
                .iter()
                .any(|inode| inodes.contains(inode)),
        },
        // Nobody is left above it but the first process of all.
        Some(_) => false,
        None => true,
    }
}

fn all_processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns what Server::Starter has told the process, if it was started by one.
fn starter_variables(pid: i32) -> Option<(Ports, u64)> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &str| {
        environ
            .split(|&byte| byte == 0)
            .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    let ports = Ports::parse(OsStr::from_bytes(value(Ports::VARIABLE)?)).ok()?;
    let generation = str::from_utf8(value("SERVER_STARTER_GENERATION")?)
        .ok()?
        .parse()
        .ok()?;
    Some((ports, generation))
}

fn sockets_of(pid: i32) -> Vec<OsString> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(OsString::from)
        .filter(|link| is_socket(link))
        .collect()
}

fn socket_inode(pid: i32, fd: RawFd) -> Option<OsString> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    Some(OsString::from_vec(link.into_os_string().into_vec())).filter(|link| is_socket(link))
}

fn is_socket(link: &OsStr) -> bool {
    link.as_bytes().starts_with(b"socket:")
}
