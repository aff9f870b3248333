use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;

use crate::log::Log;
use crate::variables::Variables;
use crate::watch::Watch;

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
    /// The start of the machine.
    pub(crate) boot: String,
    /// Something has changed that the status file does not show yet.
    pub(crate) changed: Cell<bool>,
}
