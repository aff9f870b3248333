use std::io;
use std::time::Duration;

use super::worker::Worker;
use crate::moment::Moment;
use crate::process::{Cgroup, Process, Signal, lineage};

/// What a worker that has ended has left behind: processes of its group, or the
/// control group it was in.
#[derive(Debug)]
pub(crate) struct Leftovers {
    process: Process,
    cgroup: Option<Cgroup>,
    /// When they are killed if they have not ended by then.
    pub(crate) kill_at: Option<Moment>,
    /// How often it was found that something lives.
    looks: u32,
}

impl Leftovers {
    /// Takes note of a worker that is reaped; `None` if nothing of it is left.
    pub(crate) fn of(worker: Worker, grace: Option<Duration>) -> Option<Self> {
        let kill_at = worker.kill_at.or(grace.map(|grace| Moment::now() + grace));
        let mut left = Self {
            process: worker.process,
            cgroup: worker.cgroup,
            kill_at,
            looks: 0,
        };
        (!left.are_gone()).then_some(left)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Looks whether anything is left, and removes the control group if not.
    pub(crate) fn are_gone(&mut self) -> bool {
        self.looks = self.looks.saturating_add(1);
        match &self.cgroup {
            Some(cgroup) => cgroup.remove().is_ok(),
            None => !self.process.has_group(),
        }
    }

    /// Returns true if they may be about to end: it is worth to look again soon.
    pub(crate) const fn are_fresh(&self) -> bool {
        self.looks < MANY_LOOKS
    }

    /// Signals all of them. It fails only for those that have ended already.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = self.process.signal_group(signal);
        self.signal_strays(signal);
    }

    /// Signals those that have left the process group, but not the control group.
    pub(crate) fn signal_strays(&self, signal: Signal) {
        let members = self.cgroup.as_ref().map(Cgroup::members);
        for pid in members.into_iter().flatten() {
            let group = lineage(pid).next().map(|(_, group)| group);
            if group != Some(self.process.pid())
                && let Ok(stray) = Process::from_stranger(pid)
            {
                let _ = stray.signal(signal);
            }
        }
    }

    /// Kills all of them.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        (self.kill_at, self.looks) = (None, 0);
        match &self.cgroup {
            Some(cgroup) => cgroup.kill(),
            None => self.process.signal_group(Signal::KILL),
        }
    }
}

const MANY_LOOKS: u32 = 50;
