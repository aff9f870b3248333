//! A control group for what a test starts.
#![expect(unsafe_code, reason = "extended attributes, by the system call")]

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::child;

/// Ends with all that is in it.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    /// None where none can be made, which is told.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .into_iter()
            .find(|root| fs::metadata(format!("{root}/cgroup.procs")).is_ok());
        let own = std::process::id();
        let path = root.map(|root| format!("{root}/graceful-listener-test-{own}-{name}"));
        let path = path.filter(|path| {
            fs::create_dir(path).is_ok() && fs::metadata(format!("{path}/cgroup.kill")).is_ok()
        });
        if path.is_none() {
            child::left_out("no control group can be made here");
        }
        path.map(|path| Self { path: path.into() })
    }

    /// One that is marked as systemd does it for `Delegate=yes`.
    pub(crate) fn delegated(name: &str) -> Option<Self> {
        let group = Self::new(name)?;
        let path = CString::new(group.path.as_os_str().as_bytes()).unwrap();
        let (name, value) = (c"user.delegate", b"1");
        // SAFETY: two C strings, and a value as long as is said.
        let set =
            unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), 1, 0) };
        if set != 0 {
            child::left_out("no control group can be marked as delegated here");
            return None;
        }
        Some(group)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of those below it.
    pub(crate) fn below(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).unwrap().flatten();
        let mut names: Vec<_> = entries
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&self.path);
    }
}
