use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::moment::Moment;

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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy {
        restart: Restart::Always,
        start_time: Duration::from_secs(1),
        ready_time: None,
        retries: 2,
        backoff: Duration::from_millis(100),
        backoff_max: Duration::from_millis(150),
        stop_time: Duration::from_secs(10),
        lifetime: None,
    };

    /// Applies events, each some milliseconds after the one before.
    fn play(policy: &Policy, events: &[(u64, Event)]) -> (Machine, Vec<Option<Action>>) {
        let mut now = 1_000_000;
        let mut machine = Machine::new(Moment::from_millis(now));
        let mut actions = Vec::new();
        for (millis, event) in events {
            now += millis;
            let (next, action) = machine.step(*event, Moment::from_millis(now), policy);
            machine = next;
            actions.push(action);
        }
        (machine, actions)
    }

    fn state(policy: &Policy, events: &[(u64, Event)]) -> State {
        play(policy, events).0.state()
    }

    const ENDED: Event = Event::Ended { accepted: true };
    const FAILED: Event = Event::Ended { accepted: false };
    const START: [(u64, Event); 2] = [(0, Event::Start), (0, Event::Spawned)];

    fn after_start(more: &[(u64, Event)]) -> Vec<(u64, Event)> {
        [&START, more].concat()
    }

    #[test]
    fn start_is_over_when_it_has_run_for_its_start_time() {
        let events = after_start(&[(999, Event::Due)]);
        assert_eq!(state(&POLICY, &events), State::Starting);
        let events = after_start(&[(1000, Event::Due)]);
        assert_eq!(state(&POLICY, &events), State::Running);
        let at_once = Policy {
            start_time: Duration::ZERO,
            ..POLICY
        };
        assert_eq!(state(&at_once, &START), State::Running);
    }

    #[test]
    fn end_within_the_start_time_is_a_failed_start_whatever_the_code() {
        for end in [ENDED, FAILED] {
            let (machine, _) = play(&POLICY, &after_start(&[(500, end)]));
            assert_eq!(machine.state(), State::Backoff);
            let ended = 1_000_500;
            assert!(!machine.wants_start(Moment::from_millis(ended + 99)));
            assert!(machine.wants_start(Moment::from_millis(ended + 100)));
        }
    }

    #[test]
    fn pause_doubles_up_to_its_cap_and_retries_run_out() {
        let mut events = vec![(0, Event::Start)];
        let mut pauses = Vec::new();
        for _ in 0..2 {
            events.extend([(1000, Event::Spawned), (0, FAILED)]);
            let (machine, _) = play(&POLICY, &events);
            assert_eq!(machine.state(), State::Backoff);
            let now =
                Moment::from_millis(1_000_000 + events.iter().map(|(time, _)| time).sum::<u64>());
            pauses.push((machine.deadline().unwrap() - now).as_millis());
        }
        assert_eq!(pauses, [100, 150]);
        events.extend([(1000, Event::Spawned), (0, FAILED)]);
        assert_eq!(state(&POLICY, &events), State::Fatal);
        events.push((0, Event::Start));
        let (machine, _) = play(&POLICY, &events);
        assert!(machine.wants_start(Moment::from_millis(1_100_000)));
    }

    #[test]
    fn running_resets_the_failures() {
        let mut events = vec![(0, Event::Start)];
        for _ in 0..5 {
            events.extend([(1000, Event::Spawned), (0, FAILED)]);
            events.extend([(1000, Event::Spawned), (1000, Event::Due), (0, FAILED)]);
            assert_eq!(state(&POLICY, &events), State::Exited);
        }
    }

    #[test]
    fn restart_rule_decides_what_follows_an_end() {
        let running = |restart, end| {
            let policy = Policy { restart, ..POLICY };
            let events = after_start(&[(1000, Event::Due), (500, end)]);
            let machine = play(&policy, &events).0;
            (
                machine.state(),
                machine.wants_start(Moment::from_millis(2_000_000)),
            )
        };
        assert_eq!(running(Restart::Always, ENDED), (State::Exited, true));
        assert_eq!(running(Restart::Always, FAILED), (State::Exited, true));
        assert_eq!(running(Restart::OnFailure, ENDED), (State::Exited, false));
        assert_eq!(running(Restart::OnFailure, FAILED), (State::Exited, true));
        assert_eq!(running(Restart::Never, ENDED), (State::Exited, false));
        assert_eq!(running(Restart::Never, FAILED), (State::Exited, false));
        let starting =
            |restart, end| state(&Policy { restart, ..POLICY }, &after_start(&[(500, end)]));
        assert_eq!(starting(Restart::OnFailure, ENDED), State::Exited);
        assert_eq!(starting(Restart::OnFailure, FAILED), State::Backoff);
        assert_eq!(starting(Restart::Never, ENDED), State::Exited);
        assert_eq!(starting(Restart::Never, FAILED), State::Fatal);
    }

    #[test]
    fn crashes_one_after_the_other_are_slowed_down_without_a_start_time() {
        let policy = Policy {
            start_time: Duration::ZERO,
            ..POLICY
        };
        let mut events = vec![(0, Event::Start), (0, Event::Spawned), (0, FAILED)];
        assert_eq!(state(&policy, &events), State::Exited);
        events.extend([(0, Event::Spawned), (999, FAILED)]);
        let (machine, _) = play(&policy, &events);
        assert_eq!(machine.state(), State::Backoff);
        assert_eq!(machine.deadline(), Some(Moment::from_millis(1_001_099)));
        events.extend([(200, Event::Due), (0, Event::Spawned), (1000, FAILED)]);
        assert_eq!(state(&policy, &events), State::Exited);
    }

    #[test]
    fn stop_terminates_then_kills_and_ends_stopped() {
        let mut events = after_start(&[(1000, Event::Due), (0, Event::Stop)]);
        let (machine, actions) = play(&POLICY, &events);
        assert_eq!(machine.state(), State::Stopping);
        assert_eq!(actions.last(), Some(&Some(Action::Terminate)));
        events.push((9_999, Event::Due));
        assert_eq!(play(&POLICY, &events).1.last(), Some(&None));
        events.push((1, Event::Due));
        assert_eq!(play(&POLICY, &events).1.last(), Some(&Some(Action::Kill)));
        events.push((1, FAILED));
        let (machine, _) = play(&POLICY, &events);
        assert_eq!(machine.state(), State::Stopped);
        assert!(!machine.wants_start(Moment::from_millis(9_000_000)));
    }

    #[test]
    fn what_is_replaced_is_started_again() {
        let events = after_start(&[(1000, Event::Due), (0, Event::Replace), (5, FAILED)]);
        let (machine, _) = play(&POLICY, &events);
        assert_eq!(machine.state(), State::Stopped);
        assert!(machine.wants_start(Moment::from_millis(1_001_005)));
    }

    #[test]
    fn what_has_lived_long_enough_is_replaced() {
        let policy = Policy {
            lifetime: Some(Duration::from_secs(5)),
            ..POLICY
        };
        let mut events = after_start(&[(1000, Event::Due), (3_999, Event::Due)]);
        assert_eq!(state(&policy, &events), State::Running);
        events.push((1, Event::Due));
        let (machine, actions) = play(&policy, &events);
        assert_eq!(machine.state(), State::Stopping);
        assert_eq!(actions.last(), Some(&Some(Action::Terminate)));
        assert!(machine.is_wanted());
    }

    #[test]
    fn what_does_not_get_ready_in_time_is_ended_and_tried_again() {
        let policy = Policy {
            ready_time: Some(Duration::from_secs(3)),
            ..POLICY
        };
        assert_eq!(
            state(&policy, &after_start(&[(2_999, Event::Due)])),
            State::Starting
        );
        assert_eq!(
            state(&policy, &after_start(&[(2_999, Event::Ready)])),
            State::Running
        );
        let mut events = after_start(&[(3_000, Event::Due)]);
        let (machine, actions) = play(&policy, &events);
        assert_eq!(
            (machine.state(), actions.last()),
            (State::Stopping, Some(&Some(Action::Terminate)))
        );
        events.push((1, FAILED));
        assert_eq!(state(&policy, &events), State::Backoff);
        let last = events.len() - 1;
        events.insert(last, (0, Event::Stop));
        assert_eq!(state(&policy, &events), State::Stopped);
    }

    #[test]
    fn want_of_room_is_not_the_programs_failure() {
        let mut events = vec![(0, Event::Start)];
        for _ in 0..20 {
            events.push((1000, Event::SpawnFailed { own: false }));
            assert_eq!(state(&POLICY, &events), State::Backoff);
        }
        for _ in 0..3 {
            events.push((1000, Event::SpawnFailed { own: true }));
        }
        assert_eq!(state(&POLICY, &events), State::Fatal);
    }

    #[test]
    fn process_that_was_found_goes_on_where_it_was() {
        let now = Moment::from_millis(100_000);
        let young = Machine::found(Moment::from_millis(99_500), false, &POLICY, now);
        assert_eq!(young.state(), State::Starting);
        assert_eq!(young.deadline(), Some(Moment::from_millis(100_500)));
        let old = Machine::found(Moment::from_millis(99_000), false, &POLICY, now);
        assert_eq!(old.state(), State::Running);
        let policy = Policy {
            ready_time: Some(Duration::from_secs(3)),
            ..POLICY
        };
        let unready = Machine::found(Moment::from_millis(99_000), false, &policy, now);
        assert_eq!(unready.state(), State::Starting);
        let ready = Machine::found(Moment::from_millis(99_000), true, &policy, now);
        assert_eq!(ready.state(), State::Running);
    }

    #[test]
    fn process_that_was_found_too_old_is_told_to_end() {
        let now = Moment::from_millis(100_000);
        for start_time in [Duration::ZERO, Duration::from_secs(1)] {
            let policy = Policy {
                start_time,
                lifetime: Some(Duration::from_secs(5)),
                ..POLICY
            };
            let old = Machine::found(Moment::from_millis(90_000), false, &policy, now);
            assert_eq!(old.state(), State::Running);
            assert_eq!(old.deadline(), Some(Moment::from_millis(95_000)));
            let (stopping, action) = old.step(Event::Due, now, &policy);
            assert_eq!(stopping.state(), State::Stopping);
            assert_eq!(action, Some(Action::Terminate));
        }
    }

    #[test]
    fn time_asked_for_prolongs_the_start_and_the_stop_and_shortens_nothing() {
        let extend = |secs| Event::Extend {
            by: Duration::from_secs(secs),
        };
        let slow = Policy {
            ready_time: Some(Duration::from_secs(5)),
            ..POLICY
        };
        let deadline = |policy: &Policy, more: &[(u64, Event)]| {
            let deadline = play(policy, &after_start(more)).0.deadline();
            deadline.map(|at| at.as_millis() - 1_000_000)
        };
        assert_eq!(deadline(&slow, &[(4000, extend(3))]), Some(7000));
        assert_eq!(deadline(&slow, &[(1000, extend(3))]), Some(5000));
        let stop = |secs| [(0, Event::Stop), (9000, extend(secs))];
        assert_eq!(deadline(&slow, &stop(5)), Some(14_000));
        assert_eq!(deadline(&slow, &stop(0)), Some(10_000));
        // A start time is no patience, and what was killed is killed.
        assert_eq!(deadline(&POLICY, &[(500, extend(3))]), Some(1000));
        let killed = [(0, Event::Stop), (10_000, Event::Due), (0, extend(9))];
        assert_eq!(deadline(&POLICY, &killed), None);
        let (ready, _) = play(&slow, &after_start(&[(0, Event::Ready), (0, extend(9))]));
        assert_eq!((ready.state(), ready.deadline()), (State::Running, None));
    }

    /// What an instance is to anybody who looks from outside.
    #[derive(Debug, Default)]
    struct Model {
        wanted: bool,
        process: bool,
        told: bool,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            1 => Just(Event::Start),
            1 => Just(Event::Stop),
            1 => Just(Event::Replace),
            1 => Just(Event::Ready),
            1 => (0_u64..20).prop_map(|secs| Event::Extend { by: Duration::from_secs(secs) }),
            1 => any::<bool>().prop_map(|own| Event::SpawnFailed { own }),
            3 => Just(Event::Spawned),
            3 => any::<bool>().prop_map(|accepted| Event::Ended { accepted }),
            4 => Just(Event::Due),
        ]
    }

    fn policy() -> impl Strategy<Value = Policy> {
        let restart = prop_oneof![
            Just(Restart::Always),
            Just(Restart::OnFailure),
            Just(Restart::Never)
        ];
        (
            restart,
            0_u64..3,
            0_u32..4,
            proptest::option::of(0_u64..4),
            proptest::option::of(1_u64..9),
        )
            .prop_map(|(restart, start, retries, ready, lifetime)| Policy {
                restart,
                start_time: Duration::from_secs(start),
                ready_time: ready.map(Duration::from_secs),
                retries,
                lifetime: lifetime.map(Duration::from_secs),
                ..POLICY
            })
    }

    proptest! {
        #[test]
        fn machine_agrees_with_the_model(
            policy in policy(),
            events in proptest::collection::vec((0_u64..4000, event()), 1..60),
        ) {
            let mut now = 1_000_000;
            let mut machine = Machine::new(Moment::from_millis(now));
            let mut model = Model::default();
            for (time, event) in events {
                now += time;
                let moment = Moment::from_millis(now);
                let possible = match event {
                    Event::Spawned | Event::SpawnFailed { .. } => machine.wants_start(moment),
                    Event::Ended { .. } => model.process,
                    _ => true,
                };
                if !possible {
                    continue;
                }
                let before = machine;
                let (next, action) = machine.step(event, moment, &policy);
                machine = next;
                match event {
                    Event::Start => model.wanted = true,
                    Event::Stop => model.wanted = false,
                    Event::Spawned => {
                        prop_assert!(model.wanted && !model.process, "started what was not to be");
                        (model.process, model.told) = (true, false);
                    }
                    Event::Ended { .. } => model.process = false,
                    _ => {}
                }
                match action {
                    Some(Action::Terminate) => {
                        prop_assert!(model.process && !model.told, "told twice, or nobody");
                        model.told = true;
                    }
                    Some(Action::Kill) => {
                        prop_assert!(model.process && model.told, "killed without a word");
                        prop_assert_eq!(before.state(), State::Stopping);
                        prop_assert!(before.deadline().is_some_and(|at| at <= moment));
                    }
                    None => {}
                }
                let state = machine.state();
                prop_assert_eq!(machine.is_wanted(), model.wanted);
                prop_assert_eq!(state.is_alive(), model.process, "{:?}", state);
                prop_assert_eq!(state == State::Stopping, model.process && model.told);
                if !model.wanted {
                    prop_assert!(matches!(state, State::Stopped | State::Stopping), "{:?}", state);
                }
                // Nothing gets stuck: it rests, or something is going to happen.
                let rests = match state {
                    State::Fatal => true,
                    State::Exited => policy.restart != Restart::Always,
                    State::Running => true,
                    State::Stopped => !model.wanted,
                    // It was told, and killed.
                    State::Stopping => true,
                    _ => false,
                };
                prop_assert!(
                    rests || machine.deadline().is_some() || machine.wants_start(moment),
                    "{:?}", machine
                );
                if matches!(state, State::Fatal) && before.state() != State::Fatal {
                    let failed_start = matches!(
                        event,
                        Event::Ended { .. } | Event::SpawnFailed { own: true }
                    );
                    prop_assert!(failed_start, "{:?}", event);
                }
            }
        }
    }
}
