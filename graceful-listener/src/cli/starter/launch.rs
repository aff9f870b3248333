use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Duration;

use super::worker::{Phase, Worker};
use super::{Setback, Starter, pids};
use crate::cli::failure::Failure;
use crate::cli::moment::Moment;
use crate::cli::process::{Cgroup, Process, Signal, Spawn, SpawnError, Step};

/// How generations begin, until they serve or have failed.
impl Starter {
    pub(super) fn begin_restart(&mut self) {
        self.pending = false;
        self.failures = 0;
        self.restarting = true;
        self.manager.reloading();
        let last_serves = |current: &Worker| current.generation == self.generation;
        let soonest = self.begun + self.options.interval.max(MIN_GAP);
        if self.current.as_ref().is_some_and(last_serves) || soonest <= Moment::now() {
            self.start_generation();
        } else {
            // However often a restart is asked for, failures are no storm.
            self.start_at = Some(self.start_at.map_or(soonest, |at| at.min(soonest)));
        }
    }

    /// Starts the first generation. A program that cannot be executed at all is a
    /// mistake in the command line, and ends the super-daemon.
    pub(super) fn start_first(&mut self) -> Result<(), Failure> {
        (self.generation, self.begun) = (self.generation + 1, Moment::now());
        let worker = self.spawn()?;
        self.try_out(worker);
        Ok(())
    }

    /// Starts the next generation beside the one that serves.
    pub(super) fn start_generation(&mut self) {
        self.start_at = None;
        (self.generation, self.begun) = (self.generation + 1, Moment::now());
        match self.spawn() {
            Ok(worker) => self.try_out(worker),
            Err(failure) => {
                let reason = failure.to_string();
                self.log.line(format_args!(
                    "new worker of generation {} seems to have failed to start: {reason}",
                    self.generation
                ));
                self.fail(self.generation, Moment::now(), reason, None);
            }
        }
    }

    fn try_out(&mut self, worker: Worker) {
        self.log
            .line(format_args!("starting new worker {}", worker.pid()));
        let patience = self.options.wait_ready.unwrap_or(self.options.interval);
        self.verdict_at = Some(worker.since + patience);
        self.candidate = Some(worker);
    }

    fn spawn(&self) -> Result<Worker, Failure> {
        let mut variables = self.environment.load().map_err(Failure::new)?;
        let ports = self.sockets.ports()?;
        variables.insert("SERVER_STARTER_PORT".into(), ports.to_os_string());
        variables.insert(
            "SERVER_STARTER_GENERATION".into(),
            self.generation.to_string().into(),
        );
        if let Some(receiver) = &self.readiness {
            variables.insert("NOTIFY_SOCKET".into(), receiver.name().into());
        }
        let (program, args) = self
            .options
            .exec
            .split_first()
            .ok_or_else(|| Failure::new("server program not specified"))?;
        let cgroup = self.cgroup.as_ref().and_then(|parent| {
            let name = format!("start_server-{}-{}", std::process::id(), self.generation);
            Cgroup::create(parent, &name).ok()
        });
        let activation = self
            .activation
            .as_ref()
            .map(|activation| activation.variables(&self.sockets));
        let env: Vec<(OsString, OsString)> = variables
            .into_iter()
            .chain(activation.iter().flatten().cloned())
            .collect();
        let spawn = Spawn {
            dir: self.options.dir.as_deref(),
            descriptors: &self.sockets.descriptors(),
            listen_pid: activation.is_some_and(|variables| !variables.is_empty()),
            ignored_signals: &[Signal::PIPE],
            death_signal: self.options.die_with_parent,
            cgroup: cgroup.as_ref(),
            ..Spawn::new(program, args, &env)
        };
        // Before it can write anything.
        let mark = self.mark_log();
        let process = spawn
            .spawn()
            .map_err(|error| self.explain(program, &error))?;
        let worker = Worker {
            process,
            generation: self.generation,
            phase: Phase::Starting,
            since: Moment::now(),
            kill_at: None,
            status: None,
            cgroup,
            mark,
            untold: None,
        };
        if let Err(error) = self.watch(&worker.process) {
            // Nobody would know of it.
            let _ = worker.process.signal_group(Signal::KILL);
            return Err(Failure::io("failed to watch the worker", &error));
        }
        Ok(worker)
    }

    pub(super) fn watch(&self, process: &Process) -> io::Result<()> {
        self.watch
            .add(process, u64::from(process.pid().unsigned_abs()))
    }

    fn explain(&self, program: &OsStr, error: &SpawnError) -> Failure {
        match (error.step, &self.options.dir) {
            (Step::Dir, Some(dir)) => {
                Failure::io(format!("failed to chdir:{}", dir.display()), &error.error)
            }
            (Step::Exec, _) => Failure::io(
                format!("failed to exec {}", program.display()),
                &error.error,
            ),
            (step, _) => Failure::io(step, &error.error),
        }
    }

    /// Takes the candidate for the serving generation.
    pub(super) fn accept(&mut self) {
        // One that has ended since it was ready is about to be reaped as failed.
        let lives = |worker: &mut Worker| !worker.process.has_ended().unwrap_or(false);
        let Some(mut worker) = self.candidate.take_if(lives) else {
            return;
        };
        self.verdict_at = None;
        self.failures = 0;
        self.last_start = Moment::now();
        worker.phase = Phase::Serving;
        if let Some(mut before) = self.current.replace(worker) {
            before.phase = Phase::Old;
            self.old.push(before);
        }
        self.write_status();
        self.tell_launcher(Ok(()));
        if std::mem::take(&mut self.restarting) {
            self.log.line(format_args!(
                "new worker is now running, sending {} to old workers:{}",
                self.options.signal_on_hup,
                pids(self.old.iter())
            ));
            let delay = self.old_delay();
            if delay > Duration::ZERO && !self.old.is_empty() {
                self.log.line(format_args!(
                    "sleeping {} secs before killing old workers",
                    delay.as_secs_f64()
                ));
                self.kill_old_at = Some(Moment::now() + delay);
            } else {
                self.kill_old();
            }
        } else {
            self.manager.ready(self.generation);
        }
    }

    /// Gives up on the candidate, which runs but does not serve.
    pub(super) fn reject(&mut self, why: &str) {
        let Some(mut worker) = self.candidate.take() else {
            return;
        };
        self.verdict_at = None;
        self.log.line(format_args!(
            "new worker {} seems to have failed to start: {why}, sending {} to it",
            worker.pid(),
            self.options.signal_on_term
        ));
        worker.phase = Phase::Failed;
        let grace = self
            .options
            .stop_timeout
            .unwrap_or(REJECT_GRACE)
            .min(REJECT_GRACE);
        // It fails only for one that has ended already.
        let _ = worker.end(self.options.signal_on_term, Some(grace));
        self.old.push(worker);
        self.fail(
            self.generation,
            self.old[self.old.len() - 1].since,
            why.into(),
            self.old[self.old.len() - 1].mark,
        );
    }

    /// Goes back to what was before a generation that failed, and plans the next attempt.
    pub(super) fn fail(&mut self, generation: u64, since: Moment, why: String, mark: Option<u64>) {
        let output = self.log_since(mark);
        self.failures = self.failures.saturating_add(1);
        let now = Moment::now();
        let (gap, wait) = self.pause();
        let at = (since + gap).max(now + wait);
        if self.launcher.is_some() {
            self.log.line(format_args!(
                "generation {generation} failed: {why}; giving up"
            ));
        } else if !self.stopping {
            self.start_at = Some(at);
            let serving = match &self.current {
                Some(current) => format!(
                    "generation {} (worker {}) goes on serving",
                    current.generation,
                    current.pid()
                ),
                None => "no generation serves".into(),
            };
            self.log.line(format_args!(
                "generation {generation} failed: {why}; {serving}; trying again in {:.1} secs",
                (at - now).as_secs_f64()
            ));
            let text = format!("Generation {generation} failed: {why}; {serving}");
            self.manager.failed(&text, self.current.is_some());
        }
        self.last_failure = Some(Setback {
            generation,
            reason: why,
            output,
            at: now,
        });
    }

    /// Returns how far apart two attempts begin, and how long the next one waits
    /// at least, by the failures so far.
    fn pause(&self) -> (Duration, Duration) {
        let first = self
            .options
            .retry_delay
            .unwrap_or(self.options.interval)
            .max(MIN_GAP);
        let doublings = self.failures.saturating_sub(1).min(32);
        let gap = first
            .saturating_mul(1 << doublings.min(31))
            .min(self.options.retry_max_delay.max(first));
        (gap, gap - first)
    }
}

/// The shortest time from one start to the next: `--interval=0` must not become a storm.
pub(super) const MIN_GAP: Duration = Duration::from_millis(100);
/// What a worker that never got ready has to end, whatever `--stop-timeout` says.
const REJECT_GRACE: Duration = Duration::from_secs(5);
