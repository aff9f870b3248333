use std::os::unix::fs::symlink;

use super::*;

fn status(programs: usize) -> Status {
    let instance = InstanceStatus {
        index: 3,
        state: State::Backoff,
        pid: Some(42),
        since: 1_700_000_000_123,
        ready: true,
        status: Some("7 of 9\tpages".into()),
        starts: 7,
        exit: Some("process 41 exited with code 1".into()),
        output: vec!["no such \"thing\"".into()],
    };
    let program = |number| ProgramStatus {
        name: format!("p{number}"),
        wanted: 4,
        stopped: true,
        generation: 2,
        error: Some("line\nline".into()),
        waiting_for: Some("db".into()),
        instances: vec![instance.clone()],
    };
    Status {
        version: "1.2.3".into(),
        pid: 41,
        since: 1_700_000_000_000,
        starts_waiting: 5,
        programs: (0..programs).map(program).collect(),
    }
}

#[test]
fn status_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status.json");
    for programs in [0, 1, 5000] {
        let status = status(programs);
        status.write(&path).unwrap();
        assert_eq!(Status::read(&path).unwrap(), status);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn states_are_written_as_supervisord_names_them() {
    let text = serde_json::to_value(status(1)).unwrap();
    let instance = &text["programs"][0]["instances"][0];
    assert_eq!(instance["state"], "BACKOFF");
    assert_eq!(instance["pid"], 42);
    assert_eq!(text["programs"][0]["wanted"], 4);
}

#[test]
fn what_an_older_program_did_not_write_has_defaults() {
    let text = r#"{ "pid": 5, "programs": [{ "name": "a", "later": 1, "instances": [{ "index": 0, "state": "RUNNING" }] }] }"#;
    let status: Status = serde_json::from_str(text).unwrap();
    assert_eq!(status.programs[0].instances[0].state, State::Running);
    assert_eq!(status.programs[0].instances[0].pid, None);
}

#[test]
fn status_that_cannot_be_written_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status.json");
    status(1).write(&path).unwrap();
    // Something is in the way of the draft that cannot be removed.
    fs::create_dir_all(dir.path().join("status.json.tmp/x")).unwrap();
    assert!(status(2).write(&path).is_err());
    assert_eq!(Status::read(&path).unwrap(), status(1));
}

#[test]
fn nothing_is_written_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("status.json"), dir.path().join("other"));
    fs::write(&other, "mine").unwrap();
    symlink(&other, dir.path().join("status.json.tmp")).unwrap();
    symlink(&other, &path).unwrap();
    status(1).write(&path).unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    assert_eq!(Status::read(&path).unwrap(), status(1));
}
