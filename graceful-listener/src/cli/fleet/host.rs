use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;

use crate::cli::failure::reason;
use crate::cli::log::Log;
use crate::cli::process::Cgroup;
use crate::cli::variables::Variables;
use crate::cli::watch::Watch;

/// What all programs of a fleet share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) log: Log,
    pub(crate) watch: Watch,
    /// The directory that is the fleet, to which paths are relative.
    pub(crate) root: PathBuf,
    /// Where the pid files are.
    pub(crate) run: PathBuf,
    /// Where the output of programs goes that say nothing of it.
    pub(crate) logs: PathBuf,
    /// What every program finds in its environment.
    pub(crate) variables: Variables,
    /// What every program has for its standard input.
    pub(crate) null: File,
    /// What `NOTIFY_SOCKET` is set to.
    pub(crate) notify: OsString,
    /// The control group below which each process gets one of its own, if it was
    /// handed to us.
    pub(crate) cgroup: Option<PathBuf>,
    /// The start of the machine.
    pub(crate) boot: String,
    /// Something has changed that the status file does not show yet.
    pub(crate) changed: Cell<bool>,
}

impl Host {
    /// Makes a control group for a process, if we may.
    pub(crate) fn cgroup_for(&self, program: &str, index: u32) -> Option<Cgroup> {
        let parent = self.cgroup.as_ref()?;
        // What the process before it has left may still be in a group of its own.
        match Cgroup::create_new(parent, &format!("{CGROUPS}{program}.{index}")) {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                self.log.line(format_args!(
                    "{program}:{index}: failed to make a control group in {}: {}; it runs without",
                    parent.display(),
                    reason(&error)
                ));
                None
            }
        }
    }
}

/// How the names of control groups begin.
pub(crate) const CGROUPS: &str = "fleet-";
