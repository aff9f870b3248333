use super::launch::MIN_GAP;
use super::worker::{Phase, Worker};
use super::{Starter, pids};
use crate::cli::failure::reason;
use crate::cli::log_command::LogCommand;
use crate::cli::moment::Moment;
use crate::cli::process::{Exit, Leftovers, Reaped, Signal, reap_stranger};

/// How generations end, and what becomes of those that ended on their own.
impl Starter {
    pub(super) fn kill_old(&mut self) {
        self.kill_old_at = None;
        self.log.line("killing old workers");
        for worker in &mut self.old {
            if let Err(error) = worker.end(self.options.signal_on_hup, self.options.stop_timeout) {
                self.log.line(format_args!(
                    "failed to signal old worker {}: {}",
                    worker.pid(),
                    reason(&error)
                ));
            }
        }
        let lingers = |worker: &Worker| worker.phase != Phase::Failed;
        while self.old.iter().filter(|worker| lingers(worker)).count() > self.options.max_old {
            let Some(index) = self.old.iter().position(lingers) else {
                break;
            };
            let mut oldest = self.old.remove(index);
            self.log.line(format_args!(
                "more than {} old workers are left, sending KILL to the oldest, {}",
                self.options.max_old,
                oldest.pid()
            ));
            oldest.phase = Phase::Failed;
            self.kill(oldest);
        }
        self.manager.ready(self.generation);
    }

    pub(super) fn stop(&mut self, signal: Signal) {
        let sent = if signal == Signal::INT {
            Signal::TERM
        } else {
            self.options.signal_on_term
        };
        self.log.line(format_args!(
            "received {signal}, sending {sent} to all workers:{}",
            pids(self.workers())
        ));
        self.stopping = true;
        self.manager.stopping();
        (self.start_at, self.verdict_at, self.kill_old_at) = (None, None, None);
        let left = self.current.take().into_iter().chain(self.candidate.take());
        self.old.extend(left);
        for left in &mut self.leftovers {
            left.signal(sent);
        }
        for worker in &mut self.old {
            if let Err(error) = worker.end(sent, self.options.stop_timeout) {
                self.log.line(format_args!(
                    "failed to signal worker {}: {}",
                    worker.pid(),
                    reason(&error)
                ));
            }
        }
    }

    /// Kills those that were told to end and have had their time.
    pub(super) fn kill_late(&mut self) {
        let now = Moment::now();
        for worker in &mut self.old {
            if worker.kill_at.is_none_or(|at| at > now) {
                continue;
            }
            self.log.line(format_args!(
                "worker {} has not ended in time, sending KILL to it and what it has started",
                worker.pid()
            ));
            if let Err(error) = worker.kill() {
                self.log.line(format_args!(
                    "failed to kill worker {}: {}",
                    worker.pid(),
                    reason(&error)
                ));
            }
        }
    }

    pub(super) fn kill(&mut self, mut worker: Worker) {
        if let Err(error) = worker.kill() {
            self.log.line(format_args!(
                "failed to kill worker {}: {}",
                worker.pid(),
                reason(&error)
            ));
        }
        self.old.push(worker);
    }

    /// Takes note of the processes that have ended.
    pub(super) fn reap(&mut self) {
        let ended = |worker: &mut Worker, leftover| match worker.try_wait(leftover) {
            Ok(exit) => exit,
            // Somebody else took its status; it has ended all the same.
            Err(_) => Some(Exit::Unknown),
        };
        let term = Some(self.options.signal_on_term);
        for index in (0..self.old.len()).rev() {
            let worker = &mut self.old[index];
            // What one leaves that has served may be finishing its work.
            let leftover = term.filter(|_| self.stopping || worker.phase == Phase::Failed);
            if let Some(exit) = ended(worker, leftover) {
                let worker = self.old.remove(index);
                self.buried(worker, exit);
            }
        }
        if let Some(exit) = self
            .candidate
            .as_mut()
            .and_then(|worker| ended(worker, term))
            && let Some(worker) = self.candidate.take()
        {
            self.verdict_at = None;
            self.log.line(format_args!(
                "new worker {} seems to have failed to start, exit status:{}",
                worker.pid(),
                exit.raw()
            ));
            let why = format!(
                "{exit} after {:.1} secs",
                worker.since.elapsed().as_secs_f64()
            );
            self.fail(worker.generation, worker.since, why, worker.mark);
            self.look_after_what_is_left(worker);
        }
        if let Some(exit) = self.current.as_mut().and_then(|worker| ended(worker, term))
            && let Some(worker) = self.current.take()
        {
            self.current_died(worker, exit);
        }
        // Children that nobody here started: of the program that executed this
        // one, or orphans, if this is the first process of a container.
        let helpers = [
            self.log_command.as_ref().and_then(LogCommand::pid),
            self.trial_pid(),
        ];
        let ours =
            |pid| self.workers().any(|worker| worker.pid() == pid) || helpers.contains(&Some(pid));
        while let Ok(Reaped::Stranger) = reap_stranger(ours) {}
    }

    fn buried(&mut self, worker: Worker, exit: Exit) {
        let status = if exit == Exit::Unknown {
            "unknown".into()
        } else {
            exit.raw().to_string()
        };
        if self.stopping {
            self.log.line(format_args!(
                "worker {} died, status:{status}",
                worker.pid()
            ));
        } else {
            self.log.line(format_args!(
                "old worker {} died, status:{status}",
                worker.pid()
            ));
        }
        self.write_status();
        self.look_after_what_is_left(worker);
    }

    fn look_after_what_is_left(&mut self, worker: Worker) {
        // A process that has ended is there to be seen for ever.
        let _ = self.watch.remove(&worker.process);
        let grace = self.options.stop_timeout;
        let kill_at = worker.kill_at.or(grace.map(|grace| Moment::now() + grace));
        let mut left = Leftovers::of(worker.process, worker.cgroup, kill_at);
        if let Some(left) = &mut left {
            match worker.untold {
                Some(signal) => left.signal(signal),
                None if self.stopping => left.signal_strays(self.options.signal_on_term),
                None => {}
            }
        }
        self.leftovers.extend(left);
    }

    fn current_died(&mut self, worker: Worker, exit: Exit) {
        // The old generation has not been told yet: it takes over again.
        if self.kill_old_at.take().is_some()
            && let Some(index) = self.old.iter().rposition(|old| old.phase == Phase::Old)
        {
            let mut before = self.old.remove(index);
            before.phase = Phase::Serving;
            self.current = Some(before);
            self.log.line(format_args!(
                "new worker {} seems to have failed to start, exit status:{}",
                worker.pid(),
                exit.raw()
            ));
            self.restarting = true;
            self.fail(
                worker.generation,
                worker.since,
                format!("{exit} before the old workers were told to end"),
                worker.mark,
            );
            self.write_status();
            self.look_after_what_is_left(worker);
            return;
        }
        let next = if self.candidate.is_none() {
            "restarting"
        } else {
            "its successor is starting"
        };
        self.log.line(format_args!(
            "worker {} died unexpectedly with status:{}, {next}",
            worker.pid(),
            exit.raw()
        ));
        if self.candidate.is_none() {
            // Whatever pause a failed restart has earned: now nobody serves.
            let soon = worker.since + self.options.interval.max(MIN_GAP);
            self.start_at = Some(self.start_at.map_or(soon, |at| at.min(soon)));
        }
        self.look_after_what_is_left(worker);
    }

    /// Forgets what is gone of the workers that have ended, and kills what should be.
    pub(super) fn sweep(&mut self) {
        self.leftovers.retain_mut(|left| !left.are_gone());
        let now = Moment::now();
        let is_due = |left: &&mut Leftovers| left.kill_at.is_some_and(|at| at <= now);
        for left in self.leftovers.iter_mut().filter(is_due) {
            self.log.line(format_args!(
                "what worker {} has started has not ended in time, sending KILL to it",
                left.pid()
            ));
            if let Err(error) = left.kill() {
                self.log.line(format_args!(
                    "failed to kill what worker {} has started: {}",
                    left.pid(),
                    reason(&error)
                ));
            }
        }
    }
}
