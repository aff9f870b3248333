//! `hotdeploy-bench`, in short: under load, through deploys and rotations, with
//! faults in the middle, no request is lost and no line.

use std::process::Output;

use sql_trace::TestPostgres;

use crate::program::{command, left_out, left_out_here, sibling};

#[test]
fn deploys_and_rotations_under_load_lose_no_request_and_no_line() {
    let said = bench(&["--deploys", "5"]);
    assert!(said.contains("5 deploys, 6 generations"), "{said}");
    assert!(said.contains(": 0 failed, 0 answered 503"), "{said}");
    assert!(said.contains(": 0 lost, 0 doubled, 0 unreadable"), "{said}");
}

#[test]
fn a_killed_worker_fails_no_request_but_those_it_had_and_each_is_named() {
    let said = bench(&["--deploys", "2", "--fault", "kill-worker"]);
    assert!(said.contains("2 deploys, 4 generations"), "{said}");
    assert!(said.contains("failed requests have a line"), "{said}");
}

#[test]
fn a_locked_database_delays_requests_and_fails_none() {
    let options = ["--fault", "lock-database", "--fault-seconds", "1"];
    let said = bench(&[&["--deploys", "2"][..], &options].concat());
    assert!(said.contains(": 0 failed, 0 answered 503"), "{said}");
}

#[test]
fn a_restart_of_postgresql_leaves_the_service_answering() {
    if let Err(error) = TestPostgres::start() {
        return left_out(&format!("a restart of PostgreSQL: {error}"));
    }
    let options = ["--fault", "restart-postgres", "--fault-seconds", "2"];
    let said = bench(&[&["--deploys", "2"][..], &options].concat());
    assert!(said.contains(": 0 failed, "), "{said}");
    assert!(!said.contains(" 0 answered 503"), "it was not gone: {said}");
}

#[test]
fn lines_lost_to_a_full_disk_are_reported_to_the_last_one() {
    let options = ["--fault", "full-log-disk", "--fault-seconds", "2"];
    let output = run(&[&["--deploys", "2"][..], &options].concat());
    let said = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    if stderr.contains("cannot mount a tmpfs") {
        // Not a program that could be installed: a right that is not ours.
        return left_out_here("what a full log disk loses, as no disk can be mounted");
    }
    assert!(output.status.success(), "{said}{stderr}");
    assert!(said.contains(": 0 failed, 0 answered 503"), "{said}");
    let lost = |before: &str| -> u64 {
        let (_, rest) = said.split_once(before).unwrap();
        let digits = rest
            .trim_start()
            .split(|c: char| !c.is_ascii_digit())
            .next();
        digits.unwrap().parse().unwrap()
    };
    let reported = lost("the service reports");
    let missing = lost("files:");
    assert!(missing > 0, "{said}");
    // The disk may have been full just before the end of a line, which the next one puts
    // right: of each process that wrote meanwhile one at most.
    assert!(
        missing <= reported && reported <= missing + 2,
        "not all is reported, or more: {said}"
    );
    assert!(
        said.contains(&format!("files: {missing} lost, 0 doubled")),
        "{said}"
    );
}

/// Runs it for six seconds, and returns what it says when nothing was lost.
fn bench(options: &[&str]) -> String {
    let output = run(options);
    let said = String::from_utf8(output.stdout).expect("text");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{stderr}");
    said
}

fn run(options: &[&str]) -> Output {
    sibling("start_server", "graceful-listener");
    command(env!("CARGO_BIN_EXE_hotdeploy-bench"))
        .args(["--seconds", "6", "--rotate-bytes", "50000", "--think", "10"])
        .args(["--keep-alive", "6", "--per-request", "3"])
        .args(options)
        .output()
        .expect("it runs")
}
