use super::*;

const NOW: u64 = 1_800_000_000_000;

fn instance(index: u32, state: State, pid: Option<i32>, ago: u64) -> InstanceStatus {
    InstanceStatus {
        index,
        state,
        pid,
        since: NOW - ago * 1000,
        ready: false,
        status: None,
        starts: 2,
        exit: None,
        output: Vec::new(),
    }
}

fn fleet() -> Status {
    let program = |name: &str, instances: Vec<InstanceStatus>| ProgramStatus {
        name: name.into(),
        wanted: u32::try_from(instances.len()).unwrap(),
        generation: 1,
        instances,
        ..ProgramStatus::default()
    };
    let mut worker = instance(0, State::Fatal, None, 7000);
    worker.exit = Some("process 9 exited with code 3".into());
    worker.output = vec!["out of paper".into()];
    let mut refused = program("refused", Vec::new());
    refused.error = Some("x.toml:1: first\nx.toml:2: second".into());
    let mut web = program(
        "web",
        vec![
            instance(0, State::Running, Some(100), 200_000),
            instance(1, State::Running, Some(101), 90),
            instance(2, State::Backoff, None, 100_000),
        ],
    );
    web.wanted = 4;
    web.generation = 3;
    web.waiting_for = Some("db".into());
    let mut stopped = program("a-long-name", vec![instance(0, State::Stopped, None, 5)]);
    stopped.stopped = true;
    Status {
        version: "0.1.0".into(),
        pid: 77,
        since: NOW - 3_700_000,
        starts_waiting: 1,
        programs: vec![stopped, refused, web, program("worker", vec![worker])],
    }
}

#[test]
fn what_a_program_says_of_itself_is_shown_without_what_a_terminal_obeys() {
    let mut web = instance(0, State::Running, Some(100), 5);
    web.status = Some("7 of 9\x1b[31m".into());
    let mut job = instance(0, State::Fatal, None, 5);
    job.output = vec!["out of\x07paper".into()];
    let program = |name: &str, instance| ProgramStatus {
        name: name.into(),
        wanted: 1,
        instances: vec![instance],
        ..ProgramStatus::default()
    };
    let status = Status {
        programs: vec![program("job", job), program("web", web)],
        ..Status::default()
    };
    let text = render_at(NOW, &status, true);
    assert!(text.contains("  7 of 9 [31m\n"), "{text}");
    assert!(text.contains("| out of paper\n"), "{text}");
}

#[test]
fn table_has_a_line_for_each_program() {
    let expected = "\
fleet 0.1.0 (pid 77), up 1h01m: 4 programs, 5 instances: 2 RUNNING, 1 BACKOFF, 1 STOPPED, 1 FATAL; 1 start waiting
PROGRAM      STATE                     PID    SINCE  STARTS  NOTE
a-long-name  STOPPED                     -       5s       2  stopped by command
refused      -                           -        -       0  x.toml:1: first
web          2 RUNNING, 1 BACKOFF        -    1m30s       6  waits for db; 4 wanted; generation 3
worker       FATAL                       -    1h56m       2  process 9 exited with code 3
";
    assert_eq!(render_at(NOW, &fleet(), false), expected);
}

#[test]
fn table_of_named_programs_has_each_instance_and_what_it_wrote() {
    let mut fleet = fleet();
    fleet.programs.drain(..2);
    fleet.starts_waiting = 0;
    let expected = "\
fleet 0.1.0 (pid 77), up 1h01m: 2 programs, 4 instances: 2 RUNNING, 1 BACKOFF, 1 FATAL
PROGRAM  STATE                     PID    SINCE  STARTS  NOTE
web      2 RUNNING, 1 BACKOFF        -    1m30s       6  waits for db; 4 wanted; generation 3
web:0    RUNNING                   100    2d07h       2
web:1    RUNNING                   101    1m30s       2
web:2    BACKOFF                     -    1d03h       2
worker   FATAL                       -    1h56m       2  process 9 exited with code 3
  | out of paper
";
    assert_eq!(render_at(NOW, &fleet, true), expected);
}

#[test]
fn empty_fleet_is_told_as_such() {
    let status = Status {
        version: "0.1.0".into(),
        pid: 5,
        since: NOW,
        ..Status::default()
    };
    let text = render_at(NOW, &status, false);
    assert!(
        text.starts_with("fleet 0.1.0 (pid 5), up 0s: 0 programs\n"),
        "{text}"
    );
}
