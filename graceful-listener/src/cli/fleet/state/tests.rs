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
        let now = Moment::from_millis(1_000_000 + events.iter().map(|(time, _)| time).sum::<u64>());
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
    let starting = |restart, end| state(&Policy { restart, ..POLICY }, &after_start(&[(500, end)]));
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
