use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::moment::Moment;
use crate::cli::process::{Cgroup, Exit, Process, Signal};

/// One generation: a process that was started, and what has become of it.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) process: Process,
    pub(crate) generation: u64,
    pub(crate) phase: Phase,
    /// When it was started.
    pub(crate) since: Moment,
    /// When it is killed if it has not ended by then.
    pub(crate) kill_at: Option<Moment>,
    /// What it last said of itself with `STATUS=`.
    pub(crate) status: Option<String>,
    pub(crate) cgroup: Option<Cgroup>,
    /// Where the log ended when it was started.
    pub(crate) mark: Option<u64>,
    /// What its process group is still to be told of its end.
    pub(crate) untold: Option<Signal>,
}

/// Where a generation stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// It has to show that it can serve.
    Starting,
    /// It serves.
    Serving,
    /// Its successor serves, and it has not been told yet.
    Old,
    /// It has been told to end.
    Ending,
    /// It did not come up, and is being killed.
    Failed,
}

impl Worker {
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Tells the worker to end, by `grace` at the latest.
    ///
    /// The time runs from the first telling.
    pub(crate) fn end(&mut self, signal: Signal, grace: Option<Duration>) -> io::Result<()> {
        if self.phase != Phase::Failed {
            self.phase = Phase::Ending;
        }
        if self.kill_at.is_none() {
            self.kill_at = grace.map(|grace| Moment::now() + grace);
        }
        let sent = self.process.signal(signal);
        // A stopped process would not see it.
        sent.and_then(|()| self.process.signal(Signal::CONT))
    }

    /// Kills the worker and everything it has started.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.kill_at = None;
        self.process.kill_all(self.cgroup.as_ref())
    }

    /// Reaps the worker if it has ended.
    ///
    /// What else is left of a worker that ended on its own is told to end with
    /// `leftover`, while the number of its process group is still its own. If another
    /// parent was first to reap it, that may have been too late.
    pub(crate) fn try_wait(&mut self, leftover: Option<Signal>) -> io::Result<Option<Exit>> {
        if let Some(signal) = leftover
            && self.process.has_ended()?
        {
            match self.process.signal_group(signal) {
                Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {
                    self.untold = leftover.filter(|_| !self.process.is_child());
                }
                other => other?,
            }
        }
        self.process.try_wait()
    }
}
