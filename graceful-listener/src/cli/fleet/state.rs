use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::moment::Moment;

/// Where an instance of a program stands, in the words of supervisord.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum State {
    /// Nothing runs: it is not wanted, or waits for its turn to be started.
    Stopped,
    /// It runs, and has not shown yet that it stays.
    Starting,
    /// It runs.
    Running,
    /// Its start failed, and will be tried again.
    Backoff,
    /// It was told to end.
    Stopping,
    /// It ended, and will not be started again unless its program is to run always.
    Exited,
    /// Its start failed too often.
    Fatal,
}

impl State {
    /// Returns true if there is a process in this state.
    pub(crate) const fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "STOPPED",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Backoff => "BACKOFF",
            Self::Stopping => "STOPPING",
            Self::Exited => "EXITED",
            Self::Fatal => "FATAL",
        })
    }
}

/// When an instance that has ended is started again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Restart {
    Always,
    /// If its exit code is not one of those accepted, or a signal killed it.
    OnFailure,
    Never,
}

/// The rules by which an instance goes from state to state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Policy {
    pub(crate) restart: Restart,
    /// How long it has to run until it is taken to be RUNNING.
    pub(crate) start_time: Duration,
    /// How long it may take to say that it is ready, if it has to.
    pub(crate) ready_time: Option<Duration>,
    /// Starts that may fail in a row beside the first.
    pub(crate) retries: u32,
    /// The pause after the first failure; each further one doubles it.
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
    /// How long it may take to end.
    pub(crate) stop_time: Duration,
    /// How long it may live.
    pub(crate) lifetime: Option<Duration>,
}

impl Policy {
    const fn restarts(&self, accepted: bool) -> bool {
        match self.restart {
            Restart::Always => true,
            Restart::OnFailure => !accepted,
            Restart::Never => false,
        }
    }

    /// Returns the pause after so many failures in a row.
    fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.backoff
            .saturating_mul(1 << doublings)
            .min(self.backoff_max)
    }
}

/// What happens to an instance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// It is wanted.
    Start,
    /// It is not wanted any more.
    Stop,
    /// It is wanted, but not this process.
    Replace,
    /// Its process was started.
    Spawned,
    /// Its process could not be started: for a reason of its own, or because the
    /// machine has no room for another one now.
    SpawnFailed { own: bool },
    /// It says that it is ready.
    Ready,
    /// Its process ended, with a code that is accepted or in any other way.
    Ended { accepted: bool },
    /// It asks for so much time, from now, to become ready or to end.
    Extend { by: Duration },
    /// Time has passed.
    Due,
}

/// What is to be done to the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// Tell it to end.
    Terminate,
    /// Kill it and all it has started.
    Kill,
}

/// The life of one instance: a value without a process, a clock or a file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Machine {
    state: State,
    /// It is meant to run.
    wanted: bool,
    /// When the state ends on its own.
    until: Option<Moment>,
    /// When the process was started last.
    started: Moment,
    /// It is not started for the first time: nobody has to be waited for.
    again: bool,
    /// The process did not get ready, so its end is a failed start.
    unready: bool,
    /// Starts that failed in a row.
    failures: u32,
    /// Ends in a row that came at once though the start counted as a success.
    crashes: u32,
}

impl Machine {
    /// An instance that is not wanted yet.
    pub(crate) const fn new(now: Moment) -> Self {
        Self {
            state: State::Stopped,
            wanted: false,
            until: None,
            started: now,
            again: false,
            unready: false,
            failures: 0,
            crashes: 0,
        }
    }

    /// An instance whose process was found: it has run since `started`.
    pub(crate) fn found(started: Moment, ready: bool, policy: &Policy, now: Moment) -> Self {
        let machine = Self {
            wanted: true,
            ..Self::new(now)
        };
        let (machine, _) = machine.step(Event::Spawned, started.min(now), policy);
        if ready {
            machine.step(Event::Ready, now, policy).0
        } else if policy.ready_time.is_none() && machine.state == State::Starting {
            machine.step(Event::Due, now, policy).0
        } else {
            // What has lived for too long is told so by whoever found it.
            machine
        }
    }

    /// An instance that had come to its end in this state when it was last seen.
    pub(crate) const fn ended(state: State, now: Moment) -> Self {
        Self {
            state,
            wanted: true,
            ..Self::new(now)
        }
    }

    pub(crate) const fn state(&self) -> State {
        self.state
    }

    pub(crate) const fn is_wanted(&self) -> bool {
        self.wanted
    }

    pub(crate) const fn started(&self) -> Moment {
        self.started
    }

    /// Returns true if its process goes on being started, tried again or stopped
    /// without anybody's doing.
    pub(crate) fn is_moving(&self) -> bool {
        match self.state {
            State::Starting | State::Backoff | State::Stopping => true,
            State::Stopped => self.wanted,
            State::Exited => self.again,
            State::Running | State::Fatal => false,
        }
    }

    /// Returns true if it is to be started as soon as there is room for it.
    pub(crate) fn wants_start(&self, now: Moment) -> bool {
        self.wanted
            && match self.state {
                State::Stopped => true,
                State::Exited => self.again,
                State::Backoff => self.until.is_none_or(|until| until <= now),
                _ => false,
            }
    }

    /// Returns true if the start is one that goes before: what ended is replaced
    /// without waiting for the programs it depends on.
    pub(crate) const fn is_again(&self) -> bool {
        self.again
    }

    /// Returns when [`Event::Due`] is to be told.
    pub(crate) const fn deadline(&self) -> Option<Moment> {
        self.until
    }

    /// Returns the instance after the event, and what it takes.
    pub(crate) fn step(
        mut self,
        event: Event,
        now: Moment,
        policy: &Policy,
    ) -> (Self, Option<Action>) {
        let action = match event {
            Event::Start => {
                self.wanted = true;
                match self.state {
                    State::Backoff | State::Exited | State::Fatal => self.rest(),
                    _ => {}
                }
                None
            }
            Event::Stop => {
                self.wanted = false;
                self.leave(now, policy)
            }
            Event::Replace => self.leave(now, policy),
            Event::Spawned if !self.state.is_alive() => {
                self.started = now;
                self.again = false;
                self.enter(State::Starting, None);
                match (policy.ready_time, policy.start_time) {
                    (Some(time), _) => self.until = Some(now + time),
                    (None, Duration::ZERO) => self.run(policy),
                    (None, time) => self.until = Some(now + time),
                }
                None
            }
            Event::SpawnFailed { own } if !self.state.is_alive() => {
                if own {
                    self.fail(now, policy);
                } else {
                    self.again = true;
                    let pause = policy.pause(1).max(NO_ROOM);
                    self.enter(State::Backoff, Some(now + pause));
                }
                None
            }
            Event::Ready => {
                if self.state == State::Starting && policy.ready_time.is_some() {
                    self.run(policy);
                }
                None
            }
            Event::Extend { by } => {
                let waits = match self.state {
                    State::Starting => policy.ready_time.is_some(),
                    State::Stopping => true,
                    _ => false,
                };
                if waits && let Some(until) = &mut self.until {
                    *until = (*until).max(now + by);
                }
                None
            }
            Event::Ended { accepted } if self.state.is_alive() => {
                self.end(accepted, now, policy);
                None
            }
            Event::Due if self.until.is_some_and(|until| until <= now) => self.due(now, policy),
            Event::Spawned | Event::SpawnFailed { .. } | Event::Ended { .. } | Event::Due => None,
        };
        (self, action)
    }

    const fn enter(&mut self, state: State, until: Option<Moment>) {
        self.state = state;
        self.until = until;
    }

    /// Forgets what went wrong so far.
    const fn rest(&mut self) {
        (self.failures, self.crashes) = (0, 0);
        self.again = false;
        self.enter(State::Stopped, None);
    }

    fn run(&mut self, policy: &Policy) {
        self.failures = 0;
        let until = policy.lifetime.map(|time| self.started + time);
        self.enter(State::Running, until);
    }

    fn leave(&mut self, now: Moment, policy: &Policy) -> Option<Action> {
        match self.state {
            State::Starting | State::Running => {
                self.unready = false;
                self.enter(State::Stopping, Some(now + policy.stop_time));
                Some(Action::Terminate)
            }
            // The process that does not get ready is now asked for by nobody.
            State::Stopping => {
                self.unready = false;
                None
            }
            State::Stopped | State::Backoff | State::Exited | State::Fatal => {
                self.rest();
                None
            }
        }
    }

    fn end(&mut self, accepted: bool, now: Moment, policy: &Policy) {
        match self.state {
            State::Starting if policy.restarts(accepted) => self.fail(now, policy),
            State::Starting if accepted => self.enter(State::Exited, None),
            State::Starting => self.enter(State::Fatal, None),
            State::Running if policy.restarts(accepted) => {
                self.again = true;
                if now - self.started >= HEALTHY {
                    self.crashes = 0;
                } else {
                    self.crashes = self.crashes.saturating_add(1);
                }
                if self.crashes > 1 {
                    let pause = policy.pause(self.crashes - 1);
                    self.enter(State::Backoff, Some(now + pause));
                } else {
                    self.enter(State::Exited, None);
                }
            }
            State::Running => self.enter(State::Exited, None),
            State::Stopping if std::mem::take(&mut self.unready) && self.wanted => {
                self.fail(now, policy);
            }
            _ => self.rest(),
        }
    }

    fn fail(&mut self, now: Moment, policy: &Policy) {
        self.again = true;
        self.failures = self.failures.saturating_add(1);
        if policy.restart == Restart::Never || self.failures > policy.retries {
            self.again = false;
            self.enter(State::Fatal, None);
        } else {
            let pause = policy.pause(self.failures);
            self.enter(State::Backoff, Some(now + pause));
        }
    }

    fn due(&mut self, now: Moment, policy: &Policy) -> Option<Action> {
        match self.state {
            State::Starting if policy.ready_time.is_some() => {
                self.unready = true;
                self.enter(State::Stopping, Some(now + policy.stop_time));
                Some(Action::Terminate)
            }
            State::Starting => {
                self.run(policy);
                None
            }
            State::Running => self.leave(now, policy),
            State::Stopping => {
                self.until = None;
                Some(Action::Kill)
            }
            // The time to start it again has come, which is up to the caller.
            _ => {
                self.until = None;
                None
            }
        }
    }
}

/// What ran this long did not end at once.
const HEALTHY: Duration = Duration::from_secs(1);
/// The shortest pause if there is no room for another process.
const NO_ROOM: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
