use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::libc::pid_t;

use super::{Cgroup, Process, Signal, lineage};
use crate::moment::Moment;

/// What a process that has ended has left behind: others of its group, or the
/// control group it was in.
#[derive(Debug)]
pub(crate) struct Leftovers {
    pid: pid_t,
    /// Not known if it had ended before anybody looked.
    process: Option<Process>,
    cgroup: Option<Cgroup>,
    /// When they are killed if they have not ended by then.
    pub(crate) kill_at: Option<Moment>,
    /// The file that tells whoever comes after us of them.
    pub(crate) note: Option<PathBuf>,
    /// Until when they may be about to end.
    fresh_until: Moment,
}

impl Leftovers {
    /// Takes note of what a process that has ended may have left.
    pub(crate) fn new(
        pid: pid_t,
        process: Option<Process>,
        cgroup: Option<Cgroup>,
        kill_at: Option<Moment>,
    ) -> Self {
        Self {
            pid,
            process,
            cgroup,
            kill_at,
            note: None,
            fresh_until: Moment::now() + AFTER_THE_END,
        }
    }

    /// Takes note of a group in which a process was killed before it was a program.
    pub(crate) fn unborn(cgroup: Cgroup) -> Self {
        Self {
            fresh_until: Moment::now() + AFTER_KILL,
            ..Self::new(0, None, Some(cgroup), None)
        }
    }

    /// Takes note of a process that is reaped; `None` if nothing of it is left.
    pub(crate) fn of(
        process: Process,
        cgroup: Option<Cgroup>,
        kill_at: Option<Moment>,
    ) -> Option<Self> {
        let left = Self::new(process.pid(), Some(process), cgroup, kill_at);
        (!left.are_gone()).then_some(left)
    }

    pub(crate) const fn pid(&self) -> pid_t {
        self.pid
    }

    pub(crate) const fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    pub(crate) const fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Looks whether anything is left, and removes the control group if not.
    pub(crate) fn are_gone(&self) -> bool {
        match &self.cgroup {
            Some(cgroup) => cgroup.remove().is_ok(),
            None => !self.process.as_ref().is_some_and(Process::has_group),
        }
    }

    /// Returns true if they may be about to end: it is worth to look again soon.
    pub(crate) fn are_fresh(&self) -> bool {
        Moment::now() < self.fresh_until
    }

    /// Returns true if all there is may be the process itself, which its parent has
    /// not reaped: it is a group of its own.
    pub(crate) fn are_a_zombie(&self) -> bool {
        let unreaped = |process: &Process| !process.is_reaped();
        self.cgroup.is_none() && self.process.as_ref().is_some_and(unreaped)
    }

    /// Signals all of them. It fails only for those that have ended already.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            let _ = process.signal_group(signal);
        }
        self.signal_strays(signal);
    }

    /// Signals those that have left the process group, but not the control group.
    pub(crate) fn signal_strays(&self, signal: Signal) {
        let members = self.cgroup.as_ref().map(Cgroup::members);
        for pid in members.into_iter().flatten() {
            let group = lineage(pid).next().map(|(_, group)| group);
            if group != Some(self.pid)
                && let Ok(stray) = Process::from_stranger(pid)
            {
                let _ = stray.signal(signal);
            }
        }
    }

    /// Leaves them to the kernel, or to nobody if none is left.
    pub(crate) fn forget(&self) {
        if let Some(note) = &self.note {
            // One that is left is no harm: what it stands for has ended.
            let _ = fs::remove_file(note);
        }
    }

    /// Kills all of them.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        (self.kill_at, self.fresh_until) = (None, Moment::now() + AFTER_KILL);
        match (&self.cgroup, &self.process) {
            (Some(cgroup), _) => cgroup.kill(),
            (None, Some(process)) => process.signal_group(Signal::KILL),
            (None, None) => Ok(()),
        }
    }
}

/// What has been told to end with the process has ended soon after it, or takes its
/// time.
const AFTER_THE_END: Duration = Duration::from_secs(1);
/// What is killed has ended by then, or waits for something in the kernel.
const AFTER_KILL: Duration = Duration::from_secs(10);
