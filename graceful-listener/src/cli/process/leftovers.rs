use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::libc::pid_t;

use super::{Cgroup, Members, Process, Signal, lineage};
use crate::cli::moment::Moment;

/// What a process that has ended has left behind: others of its group, or the
/// control group it was in.
#[derive(Debug)]
pub(crate) struct Leftovers {
    pid: pid_t,
    /// Not known if it had ended before anybody looked.
    process: Option<Process>,
    cgroup: Option<Cgroup>,
    /// The others of its group, where no pidfd of its own reaches them.
    members: Option<Members>,
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
            members: None,
            kill_at,
            note: None,
            fresh_until: Moment::now() + AFTER_THE_END,
        }
    }

    /// Takes note of what is left in the group of a process that ended while nobody looked,
    /// if `is_ours` is true of any there.
    pub(crate) fn in_group(
        pid: pid_t,
        is_ours: impl Fn(pid_t) -> bool,
        kill_at: Option<Moment>,
    ) -> Self {
        Self {
            members: Some(Members::recognised(pid, is_ours)),
            ..Self::new(pid, None, None, kill_at)
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
        let reached = cgroup.is_some() || process.has_group().is_some();
        let members = (!reached).then(|| Members::of(&process));
        let left = Self {
            members,
            ..Self::new(process.pid(), Some(process), cgroup, kill_at)
        };
        (!left.are_gone()).then_some(left)
    }

    /// Goes on after `exec` with those that [`Leftovers::members`] told of.
    pub(crate) fn resume_members(&mut self, pids: &[pid_t]) {
        self.members = (!pids.is_empty()).then(|| Members::resume(self.pid, pids));
    }

    /// Returns the ids of those that only their own pidfds reach.
    pub(crate) fn members(&self) -> Vec<pid_t> {
        self.members.as_ref().map(Members::pids).unwrap_or_default()
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
        match (&self.cgroup, &self.members) {
            (Some(cgroup), _) => cgroup.remove().is_ok(),
            (None, Some(members)) => members.are_gone(),
            (None, None) => {
                let group = self.process.as_ref().and_then(Process::has_group);
                group != Some(true)
            }
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
    pub(crate) fn signal(&mut self, signal: Signal) {
        if let Some(members) = &mut self.members {
            members.signal(signal);
        }
        let group = self.process.as_ref().filter(|_| self.members.is_none());
        let told = group.is_some_and(|process| process.signal_group(signal).is_ok());
        self.signal_cgroup(signal, told.then_some(self.pid));
    }

    /// Signals those that have left the process group, but not the control group.
    pub(crate) fn signal_strays(&self, signal: Signal) {
        self.signal_cgroup(signal, Some(self.pid));
    }

    /// Signals those in the control group, but for those of the process group `told`.
    fn signal_cgroup(&self, signal: Signal, told: Option<pid_t>) {
        let Some(cgroup) = &self.cgroup else { return };
        let members = cgroup.members().into_iter();
        let held: Vec<_> = members
            .filter(|&pid| told.is_none() || lineage(pid).next().map(|(_, group)| group) != told)
            .filter_map(|pid| Process::from_stranger(pid).ok())
            .collect();
        // A number may have become a stranger's before it was taken hold of.
        let members = cgroup.members();
        for process in held.iter().filter(|held| members.contains(&held.pid())) {
            let _ = process.signal(signal);
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
        match (&self.cgroup, &mut self.members, &self.process) {
            (Some(cgroup), ..) => return cgroup.kill(),
            (None, Some(members), _) => members.kill(),
            (None, None, Some(process)) => return process.signal_group(Signal::KILL),
            (None, None, None) => {}
        }
        Ok(())
    }
}

/// What has been told to end with the process has ended soon after it, or takes its
/// time.
const AFTER_THE_END: Duration = Duration::from_secs(1);
/// What is killed has ended by then, or waits for something in the kernel.
const AFTER_KILL: Duration = Duration::from_secs(10);
