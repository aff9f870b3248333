use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::libc::pid_t;
use nix::unistd::{AccessFlags, Gid, Uid, access, chown};

/// A control group (version 2) that holds one program and all its descendants.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Creates the group `name` below `parent`, or takes the one that is there.
    pub(crate) fn create(parent: &Path, name: &str) -> io::Result<Self> {
        let path = parent.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Self { path }),
        }
    }

    /// Creates a group below `parent` that nobody has yet, called `stem` and a number.
    pub(crate) fn create_new(parent: &Path, stem: &str) -> io::Result<Self> {
        let mut number = 0_u64;
        loop {
            let path = parent.join(format!("{stem}-{number}"));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                made => return made.map(|()| Self { path }),
            }
        }
    }

    /// Returns the groups below `parent` whose names begin like this.
    pub(crate) fn below(parent: &Path, stem: &str) -> Vec<Self> {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().as_bytes().starts_with(stem.as_bytes()))
            .map(|entry| Self { path: entry.path() })
            .collect()
    }

    /// Goes on holding a group that exists.
    pub(crate) const fn from_path(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file through which a process enters.
    pub(crate) fn procs(&self) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.procs"))
    }

    /// Removes the group, if nothing is in it any more.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Returns the ids of the processes in it.
    pub(crate) fn members(&self) -> Vec<pid_t> {
        let list = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills every process in it, those included that left the process group.
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// Returns this process's own group if its parts have been handed to it: the
    /// directory is marked by systemd's `Delegate=`, and we may write there.
    pub(crate) fn delegated() -> Option<PathBuf> {
        let own = fs::read("/proc/self/cgroup").ok()?;
        let own = own
            .split(|&byte| byte == b'\n')
            .find_map(|line| line.strip_prefix(b"0::/"))?;
        let own = Path::new(OsStr::from_bytes(own));
        let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(Path::new)
            .into_iter()
            .find(|root| root.join("cgroup.procs").exists())?;
        let path = root.join(own);
        let marked = [c"user.delegate", c"trusted.delegate"]
            .iter()
            .any(|name| super::has_attribute(&path, name));
        (marked && path.join("cgroup.kill").exists() && Self::writable(&path)).then_some(path)
    }

    /// Lets a user make groups below `path`, as systemd does for `User=`.
    pub(crate) fn give(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
        for name in [
            "",
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.threads",
        ] {
            chown(&path.join(name), Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Returns true if groups can be made below `path`, and processes moved into them.
    pub(crate) fn writable(path: &Path) -> bool {
        let writable = |path: &Path| access(path, AccessFlags::W_OK).is_ok();
        writable(path) && writable(&path.join("cgroup.procs"))
    }
}
