//! Programs whose output a command reads.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Fleet, shell, wait_for_end};
use crate::{executable, process};

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

/// A supervisor with the program `web`, which a shell runs.
fn with(script: &str, log: &str, more: &str) -> Fleet {
    let mut fleet = Fleet::empty();
    let log = log.replace("DIR", &fleet.path().display().to_string());
    let script = script.replace("DIR", &fleet.path().display().to_string());
    let definition = shell(&script, &format!("log = '''| {log}'''\n{more}"));
    fleet.program("web", &definition);
    fleet.start();
    fleet
}

/// Waits for the process that reads what the programs write.
fn keeper(fleet: &Fleet) -> u32 {
    let is_one = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name == "fleet-log\n")
    };
    fleet.wait("a keeper of the log", || {
        fleet.children().into_iter().find(is_one)
    })
}

/// Waits for the process that it gives everything to.
fn command(fleet: &Fleet, keeper: u32) -> u32 {
    fleet.wait("a log command", || {
        process::children(keeper).first().copied()
    })
}

fn output(fleet: &Fleet) -> Vec<String> {
    let instance = &fleet.program_status("web")["instances"][0];
    let lines = instance["output"].as_array();
    let lines = lines.into_iter().flatten();
    lines.map(|line| line.as_str().unwrap().into()).collect()
}

/// Says that it is there, and fails as soon as the file `fail` is.
const FAILS: &str =
    "echo begins; until [ -e DIR/fail ]; do sleep 0.01; done; echo last words; exit 3";
/// Counts without end. While there is the file `pause` it says in the file `paused`
/// what it has counted to.
const COUNTS: &str = "i=0; while :; do echo line $i; \
    while [ -e DIR/pause ]; do echo line $i > DIR/paused; sleep 0.01; done; \
    i=$((i+1)); sleep 0.005; done";

/// Waits until the lines of [`COUNTS`] are there up to some more, each once.
fn wait_for_lines(fleet: &Fleet) {
    let read = || fs::read_to_string(fleet.path().join("lines")).unwrap_or_default();
    let before = read().lines().count();
    fleet.wait("more lines", || {
        (read().lines().count() > before + 5).then_some(())
    });
    let text = read();
    let whole = &text[..=text.rfind('\n').unwrap()];
    for (number, line) in whole.lines().enumerate() {
        assert_eq!(line, format!("line {number}"), "a line is lost or doubled");
    }
}

#[test]
fn failed_instance_shows_its_last_lines_though_a_command_has_read_them() {
    let fleet = with(
        "echo >> DIR/tries; echo attempt $(wc -l < DIR/tries); exit 3",
        "cat >> DIR/lines",
        "restart = \"never\"\nretries = 0",
    );
    fleet.wait_for("web", &["EXITED"]);
    fleet.wait_for_log("web:0 | attempt 1");
    fleet.wait("its line", || {
        (output(&fleet) == ["attempt 1"]).then_some(())
    });
    let _ = fleet.command("start-web");
    // What the one before has said is no part of it.
    fleet.wait_for_log("web:0 | attempt 2");
    fleet.wait("its own line", || {
        (output(&fleet) == ["attempt 2"]).then_some(())
    });
    fleet.wait("both", || {
        (fleet.wait_for_file("lines") == "attempt 1\nattempt 2\n").then_some(())
    });
}

#[test]
fn last_lines_are_told_that_a_slow_command_has_not_read_yet() {
    let fleet = with(
        FAILS,
        "while [ -e DIR/programs ]; do sleep 0.1; done",
        "restart = \"never\"",
    );
    fleet.wait_for("web", &["RUNNING"]);
    let keeper = keeper(&fleet);
    send(keeper, Signal::SIGSTOP);
    fs::write(fleet.path().join("fail"), "").unwrap();
    fleet.wait_for("web", &["EXITED"]);
    assert_eq!(output(&fleet), ["begins", "last words"]);
    send(keeper, Signal::SIGCONT);
}

#[test]
fn last_lines_are_known_to_the_supervisors_after_the_one_that_started_it() {
    let mut fleet = with(FAILS, "cat >> DIR/lines", "restart = \"never\"");
    let before = fleet.wait_for("web", &["RUNNING"]);
    let keeper = keeper(&fleet);
    assert_eq!(fleet.wait_for_file("lines"), "begins\n");
    fleet.command("upgrade").unwrap();
    fleet.kill();
    fleet.start();
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
    fleet.command("upgrade").unwrap();
    fs::write(fleet.path().join("fail"), "").unwrap();
    fleet.wait_for("web", &["EXITED"]);
    assert_eq!(output(&fleet), ["last words"]);
    assert!(!process::is_gone(keeper), "another one keeps the log");
}

#[test]
fn keeper_that_is_killed_loses_no_line_and_doubles_none() {
    let fleet = with(COUNTS, "cat >> DIR/lines", "");
    for _ in 0..2 {
        let keeper = keeper(&fleet);
        wait_for_lines(&fleet);
        send(keeper, Signal::SIGKILL);
        wait_for_end(keeper);
    }
    wait_for_lines(&fleet);
    fleet
        .wait_for_log("keeper of log command killed by signal 9 (SIGKILL), starting it again: cat");
}

#[test]
fn log_command_that_dies_while_no_supervisor_runs_is_started_again() {
    let mut fleet = with(COUNTS, "exec cat >> DIR/lines", "");
    let before = fleet.wait_for("web", &["RUNNING"]);
    wait_for_lines(&fleet);
    let keeper = keeper(&fleet);
    fleet.kill();
    let cat = command(&fleet, keeper);
    // What a command has read and not written is lost with it.
    fleet.write("pause", "");
    let last = fleet.wait_for_file("paused");
    fleet.wait("all to be written", || {
        fleet.wait_for_file("lines").ends_with(&last).then_some(())
    });
    send(cat, Signal::SIGKILL);
    wait_for_end(cat);
    fs::remove_file(fleet.path().join("pause")).unwrap();
    wait_for_lines(&fleet);
    fleet.start();
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
    wait_for_lines(&fleet);
}

#[test]
fn log_command_that_is_missing_is_told_and_has_everything_when_it_comes() {
    let fleet = with(COUNTS, "DIR/reader", "");
    fleet.wait_for_log("failed to execute log command");
    assert!(fleet.log().contains("/reader: No such file or directory"));
    fleet.wait_for("web", &["RUNNING"]);
    let reader = fleet.path().join(".reader");
    let script = format!("#!/bin/sh\nexec cat >> {}/lines\n", fleet.path().display());
    executable::write(&reader, &script);
    fs::rename(reader, fleet.path().join("reader")).unwrap();
    wait_for_lines(&fleet);
}

#[test]
fn program_does_not_wait_for_a_log_command_that_is_missing() {
    // More than the pipes hold.
    let fleet = with(
        "head -c 4000000 /dev/zero; echo; echo done > DIR/written; exec sleep 600",
        "DIR/reader",
        "",
    );
    assert_eq!(fleet.wait_for_file("written"), "done\n");
    let keeper = keeper(&fleet);
    fleet.remove_program("web");
    wait_for_end(keeper);
    fleet.wait_for_log("bytes of output were lost, as the log command does not run");
}

#[test]
fn log_command_reads_to_the_end_when_the_fleet_stops_and_nothing_of_it_is_left() {
    let fleet = with(
        "trap 'echo farewell; exit' TERM; echo hello; while :; do sleep 0.01; done",
        "cat >> DIR/lines",
        "",
    );
    fleet.wait_for("web", &["RUNNING"]);
    assert_eq!(fleet.wait_for_file("lines"), "hello\n");
    let keeper = keeper(&fleet);
    let cat = command(&fleet, keeper);
    // As a service manager does that tells all processes to end.
    send(keeper, Signal::SIGTERM);
    send(cat, Signal::SIGTERM);
    let lines = fleet.path().join("lines");
    fleet.signal(Signal::SIGTERM);
    fleet.wait("the last line", || {
        (fs::read_to_string(&lines).unwrap() == "hello\nfarewell\n").then_some(())
    });
    fleet.stop();
    wait_for_end(keeper);
}

#[test]
fn output_wakes_the_keeper_alone_and_not_the_supervisor() {
    let fleet = with(COUNTS, "cat >> DIR/lines", "");
    fleet.wait_for("web", &["RUNNING"]);
    wait_for_lines(&fleet);
    let switches = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary"));
        line.unwrap()
            .rsplit('\t')
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let keeper = keeper(&fleet);
    // It may have something to do for a while, such as to write its status.
    fleet.wait("output that does not wake the supervisor", || {
        let before = (switches(fleet.pid()), switches(keeper));
        wait_for_lines(&fleet);
        wait_for_lines(&fleet);
        let is_awake = switches(keeper) > before.1;
        (is_awake && switches(fleet.pid()) == before.0).then_some(())
    });
}
