//! What people type, with and without a supervisor.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::fixture::{Fleet, SLEEP, shell, wait};

/// Runs `fleet` for the fleet in a directory.
pub(super) fn fleet(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().unwrap()
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    command.args(arguments).env("FLEET_DIR", dir);
    command
}

/// Starts `fleet` to read what it prints bit by bit.
fn start(dir: &Path, arguments: &[&str]) -> Child {
    let mut command = command(dir, arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Runs it and returns what it prints, if it ends well.
fn ask(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = self::fleet(fleet.path(), arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(super) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(super) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn entries(fleet: &Fleet, place: &str) -> Vec<String> {
    let entries = fs::read_dir(fleet.path().join(place)).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn commands_wait_until_they_are_carried_out() {
    let fleet = Fleet::with("web", &format!("{SLEEP}instances = 2"));
    let before = fleet.wait_for("web", &["RUNNING"; 2]);
    assert_eq!(ask(&fleet, &["stop", "web"]), "stop-web: web is stopped\n");
    fleet.wait_for("web", &["STOPPED"; 2]);
    assert_eq!(
        ask(&fleet, &["start", "web"]),
        "start-web: web runs 2 times\n"
    );
    let second = fleet.wait_for("web", &["RUNNING"; 2]);
    assert_ne!(before, second);
    assert_eq!(
        ask(&fleet, &["restart", "web"]),
        "restart-web: web runs 2 times\n"
    );
    let third = fleet.wait_for("web", &["RUNNING"; 2]);
    assert!(third.iter().all(|pid| !second.contains(pid)));
    assert_eq!(
        ask(&fleet, &["scale", "web", "1"]),
        "scale-web-1: web runs\n"
    );
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), third[..1]);
    ask(&fleet, &["signal", "web", "SIGKILL"]);
    fleet.wait("a new process", || {
        let instances = fleet.instances("web");
        (instances.len() == 1 && instances[0].1.is_some() && instances[0].1 != Some(third[0]))
            .then_some(())
    });
    let pid = fleet.pid();
    assert!(ask(&fleet, &["upgrade"]).starts_with("upgrade: fleet "));
    assert_eq!(fleet.status()["pid"], pid);
    assert_eq!(entries(&fleet, "inbox"), [""; 0]);
    assert_eq!(entries(&fleet, "done").len(), 6);
}

#[test]
fn several_programs_or_all_are_commanded_at_once() {
    let mut fleet = Fleet::empty();
    for name in ["a", "b", "c-d"] {
        fleet.program(name, SLEEP);
    }
    fleet.start();
    fleet.wait_for("c-d", &["RUNNING"]);
    let answer = ask(&fleet, &["stop", "a", "c-d"]);
    let mut lines: Vec<_> = answer.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stop-a: a is stopped", "stop-c-d: c-d is stopped"]);
    fleet.wait_for("b", &["RUNNING"]);
    assert_eq!(ask(&fleet, &["start", "--all"]).lines().count(), 3);
    for name in ["a", "b", "c-d"] {
        fleet.wait_for(name, &["RUNNING"]);
    }
}

#[test]
fn command_that_fails_is_told_with_the_reason_and_exits_with_3() {
    let fleet = Fleet::with(
        "bad",
        &shell("exit 7", "retries = 0\nautostart = false\n").replace("\"0s\"", "\"1m\""),
    );
    fleet.wait_for("bad", &["STOPPED"]);
    let output = self::fleet(fleet.path(), &["start", "bad", "missing"]);
    assert_eq!(code(&output), 3, "{output:?}");
    let text = stderr(&output);
    assert!(text.contains("start-bad: "), "{text}");
    assert!(text.contains("exited with code 7"), "{text}");
    assert!(
        text.contains("start-missing: there is no program missing"),
        "{text}"
    );
    assert_eq!(stdout(&output), "");
}

#[test]
fn without_a_supervisor_nothing_is_asked_and_5_returned() {
    let mut fleet = Fleet::with("web", SLEEP);
    fleet.wait_for("web", &["RUNNING"]);
    fleet.kill();
    for arguments in [
        &["start", "web"][..],
        &["stop", "web"],
        &["restart", "--all"],
        &["signal", "web", "USR1"],
        &["scale", "web", "5"],
        &["upgrade"],
        &["status"],
        &["status", "--watch"],
    ] {
        let output = self::fleet(fleet.path(), arguments);
        assert_eq!(code(&output), 5, "{arguments:?} {output:?}");
        let text = stderr(&output);
        assert!(
            text.starts_with("fleet is not running in ") && text.contains("fleet.pid"),
            "{text}"
        );
        assert_eq!(stdout(&output), "");
    }
    assert_eq!(entries(&fleet, "inbox"), [""; 0]);
    let output = self::fleet(fleet.path(), &["status", "--json"]);
    assert_eq!(code(&output), 5);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["running"], false);
}

#[test]
fn directory_that_is_not_there_is_told_and_exits_with_1() {
    for verb in ["run", "status", "check"] {
        let output = fleet(Path::new("/nonexistent/fleet"), &[verb]);
        assert_eq!(code(&output), 1, "{verb}: {output:?}");
        let text = stderr(&output);
        assert_eq!(
            text, "/nonexistent/fleet: No such file or directory\n",
            "{verb}"
        );
    }
}

#[test]
fn time_that_is_up_ends_the_waiting_and_not_the_command() {
    let definition = shell(
        "trap '' TERM; echo >> up; while :; do sleep 0.05; done",
        "directory = \".\"\nstop_timeout = \"1h\"",
    );
    let fleet = Fleet::with("deaf", &definition);
    let pid = fleet.wait_for("deaf", &["RUNNING"])[0];
    fleet.wait_for_file("up");
    let output = self::fleet(fleet.path(), &["stop", "deaf", "--timeout", "200ms"]);
    assert_eq!(code(&output), 4, "{output:?}");
    assert_eq!(
        stderr(&output),
        "timed out after 200ms: stop-deaf is under way\n"
    );
    assert_eq!(entries(&fleet, "inbox").len(), 1);
    fleet.wait_for("deaf", &["STOPPING"]);
    let group = nix::unistd::Pid::from_raw(-pid.cast_signed());
    nix::sys::signal::kill(group, Signal::SIGKILL).unwrap();
    fleet.wait_for("deaf", &["STOPPED"]);
    fleet.wait("the answer", || {
        (entries(&fleet, "done").len() == 1).then_some(())
    });
}

#[test]
fn supervisor_that_ends_meanwhile_leaves_the_command_to_the_next_one() {
    let definition = shell(
        "trap '' TERM; echo >> up; while :; do sleep 0.05; done",
        "directory = \".\"\nstop_timeout = \"1h\"",
    );
    let mut fleet = Fleet::with("deaf", &definition);
    let pid = fleet.wait_for("deaf", &["RUNNING"])[0];
    fleet.wait_for_file("up");
    let client = start(fleet.path(), &["stop", "deaf"]);
    fleet.wait_for("deaf", &["STOPPING"]);
    fleet.kill();
    let output = client.wait_with_output().unwrap();
    assert_eq!(code(&output), 5, "{output:?}");
    assert!(
        stderr(&output).contains("stop-deaf is left for the next one"),
        "{output:?}"
    );
    fleet.start();
    let group = nix::unistd::Pid::from_raw(-pid.cast_signed());
    nix::sys::signal::kill(group, Signal::SIGKILL).unwrap();
    fleet.wait("the answer", || {
        (entries(&fleet, "done").len() == 1).then_some(())
    });
    fleet.wait_for("deaf", &["STOPPED"]);
}

#[test]
fn client_gives_the_next_supervisor_two_seconds_to_come() {
    let definition = shell(
        "trap '' TERM; echo >> up; while :; do sleep 0.05; done",
        "directory = \".\"\nstop_timeout = \"1h\"",
    );
    let mut fleet = Fleet::with("deaf", &definition);
    fleet.wait_for("deaf", &["RUNNING"]);
    fleet.wait_for_file("up");
    let client = start(fleet.path(), &["stop", "deaf"]);
    fleet.wait_for("deaf", &["STOPPING"]);
    let killed = Instant::now();
    fleet.kill();
    let output = client.wait_with_output().unwrap();
    assert_eq!(code(&output), 5, "{output:?}");
    // It is longer by what it takes to look, and by whatever else runs here.
    assert!(
        killed.elapsed() >= Duration::from_secs(2),
        "it gave up early"
    );
}

#[test]
fn client_waits_on_through_a_quick_succession() {
    // On a machine that does much else one may take longer than the client waits.
    while !succession_is_quick() {}
}

fn succession_is_quick() -> bool {
    let definition = shell(
        "trap '' TERM; echo >> up; while :; do sleep 0.05; done",
        "directory = \".\"\nstop_timeout = \"1h\"",
    );
    let mut fleet = Fleet::with("deaf", &definition);
    let pid = fleet.wait_for("deaf", &["RUNNING"])[0];
    fleet.wait_for_file("up");
    let client = start(fleet.path(), &["stop", "deaf"]);
    fleet.wait_for("deaf", &["STOPPING"]);
    let begun = Instant::now();
    fleet.kill();
    fleet.start();
    fleet.wait_for_log(&format!("fleet[{}]: deaf:0 is process {pid}", fleet.pid()));
    let is_quick = begun.elapsed() < Duration::from_millis(1500);
    let group = nix::unistd::Pid::from_raw(-pid.cast_signed());
    nix::sys::signal::kill(group, Signal::SIGKILL).unwrap();
    let output = client.wait_with_output().unwrap();
    let went_well = stdout(&output) == "stop-deaf: deaf is stopped\n";
    assert!(went_well || !is_quick, "{output:?}");
    went_well
}

#[test]
fn command_line_that_cannot_be_understood_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (&[][..], "which command"),
        (&["begin"], "begin"),
        (&["start"], "<NAME>"),
        (&["start", "a b"], "'a b'"),
        (&["start", "a", "--all"], "--all"),
        (&["start", ".hidden"], "is no name of a program"),
        (&["stop", "a", "--timeout=soon"], "duration such as"),
        (&["signal", "web"], "<SIGNAL>"),
        (&["signal", "web", "FOO"], "unknown signal `FOO`"),
        (&["scale", "web"], "<INSTANCES>"),
        (&["scale", "web", "-1"], "-1"),
        (&["scale", "web", "100001"], "100001"),
        (&["run", "--rate=0"], "above 0"),
        (&["run", "--rate=nan"], "above 0"),
        (&["run", "--burst=0"], "0"),
        (&["run", "--log-format=xml"], "plain, text or json"),
        (&["status", "--watch=soon"], "duration such as"),
        (&["upgrade", "web"], "web"),
    ] {
        let output = fleet(dir.path(), arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {output:?}");
        let text = stderr(&output);
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn help_tells_the_commands_and_what_the_exit_status_means() {
    let dir = tempfile::tempdir().unwrap();
    let output = fleet(dir.path(), &["--help"]);
    assert_eq!(code(&output), 0);
    let text = stdout(&output);
    for part in [
        "run",
        "start",
        "stop",
        "restart",
        "signal",
        "scale",
        "status",
        "logs",
        "upgrade",
        "check",
        "FLEET_DIR",
        "Exit status:",
        "  3  it was refused",
        "  5  fleet is not running",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("check-resume"), "{text}");
    let output = fleet(dir.path(), &["--version"]);
    assert_eq!(
        stdout(&output),
        format!("fleet {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn status_tells_whether_all_that_was_asked_about_runs() {
    let mut fleet = Fleet::empty();
    fleet.program("good", &format!("{SLEEP}instances = 2"));
    let failing = shell("echo out of paper; exit 3", "retries = 0\n");
    fleet.program("bad", &failing.replace("\"0s\"", "\"1h\""));
    fleet.start();
    let pids = fleet.wait_for("good", &["RUNNING"; 2]);
    fleet.wait_for("bad", &["FATAL"]);

    let output = self::fleet(fleet.path(), &["status"]);
    assert_eq!(code(&output), 3);
    let text = stdout(&output);
    let line = |name: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(name));
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>()
    };
    assert!(
        text.starts_with(&format!(
            "fleet {} (pid {})",
            env!("CARGO_PKG_VERSION"),
            fleet.pid()
        )),
        "{text}"
    );
    assert_eq!(line("PROGRAM")[..3], ["PROGRAM", "STATE", "PID"]);
    assert_eq!(line("good")[..3], ["good", "2", "RUNNING"]);
    assert_eq!(line("bad")[..2], ["bad", "FATAL"]);
    assert!(text.contains("exited with code 3"), "{text}");
    assert_eq!(text.lines().count(), 4, "{text}");

    let text = ask(&fleet, &["status", "good"]);
    for pid in pids {
        assert!(text.contains(&format!(" {pid} ")), "{text}");
    }
    let output = self::fleet(fleet.path(), &["status", "bad"]);
    assert_eq!(code(&output), 3);
    assert!(stdout(&output).contains("\n  | out of paper\n"));

    let output = self::fleet(fleet.path(), &["status", "good", "none"]);
    assert_eq!(code(&output), 3);
    assert_eq!(stderr(&output), "none: there is no such program\n");

    let status: Value = serde_json::from_str(&ask(&fleet, &["status", "good", "--json"])).unwrap();
    assert_eq!(status["running"], true);
    assert_eq!(status["pid"], fleet.pid());
    assert_eq!(status["programs"].as_array().unwrap().len(), 1);
    assert_eq!(status["programs"][0]["name"], "good");
    assert_eq!(status["programs"][0]["instances"][1]["state"], "RUNNING");
}

#[test]
fn refused_definition_shows_in_the_exit_status_though_its_program_runs() {
    let fleet = Fleet::with("web", SLEEP);
    fleet.wait_for("web", &["RUNNING"]);
    assert_eq!(code(&self::fleet(fleet.path(), &["status"])), 0);
    fleet.program("web", "command = 5");
    fleet.wait("the error", || {
        fleet.program_status("web")["error"]
            .is_string()
            .then_some(())
    });
    let output = self::fleet(fleet.path(), &["status"]);
    assert_eq!(code(&output), 3);
    assert!(
        stdout(&output).contains("web.toml:1: command = 5"),
        "{output:?}"
    );
    fleet.wait_for("web", &["RUNNING"]);
}

#[test]
fn watched_status_is_printed_again_until_the_supervisor_ends() {
    let fleet = Fleet::with("web", SLEEP);
    fleet.wait_for("web", &["RUNNING"]);
    let mut child = start(fleet.path(), &["status", "--watch=50ms"]);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut heads = 0;
    let mut running = Some(fleet);
    for line in lines {
        if line.unwrap().starts_with("fleet ") {
            heads += 1;
        }
        if heads == 3
            && let Some(fleet) = running.take()
        {
            let path = fleet.path().to_owned();
            fleet.stop();
            assert!(!path.exists());
        }
    }
    assert!(heads >= 3);
    assert_ne!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn last_lines_of_the_log_are_printed() {
    let fleet = Fleet::with(
        "web",
        &shell(
            "for i in 1 2 3; do echo line $i; done; printf rest; exec sleep 600",
            "",
        ),
    );
    let log = fleet.path().join("log/web.log");
    fleet.wait("the output", || {
        fs::read_to_string(&log)
            .ok()
            .filter(|text| text.ends_with("rest"))
    });
    assert_eq!(
        ask(&fleet, &["logs", "web"]),
        "line 1\nline 2\nline 3\nrest"
    );
    assert_eq!(ask(&fleet, &["logs", "web", "-n", "2"]), "line 3\nrest");
    assert_eq!(ask(&fleet, &["logs", "web", "-n", "0"]), "");
    assert_eq!(
        ask(&fleet, &["logs", "web", "-n", "4"]),
        "line 1\nline 2\nline 3\nrest"
    );
    let numbers: String = (0..5000).map(|number| format!("{number}\n")).collect();
    fs::write(&log, numbers).unwrap();
    let text = ask(&fleet, &["logs", "web", "--lines=3000"]);
    assert!(text.starts_with("2000\n2001\n") && text.ends_with("\n4999\n"));
    assert_eq!(ask(&fleet, &["logs", "web"]).lines().next(), Some("4990"));
}

#[test]
fn log_is_followed_through_rotation_and_truncation() {
    let fleet = Fleet::with("web", &format!("{SLEEP}log = \"my.log\""));
    fleet.wait_for("web", &["RUNNING"]);
    let path = fleet.path().join("my.log");
    let append = |text: &str| {
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append("zero\none\n");
    let mut child = start(fleet.path(), &["logs", "web", "-f", "-n1"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "one");
    append("two\n");
    assert_eq!(next(), "two");
    fs::rename(&path, fleet.path().join("my.log.1")).unwrap();
    append("three\n");
    assert_eq!(next(), "three");
    fs::write(&path, "4\n").unwrap();
    assert_eq!(next(), "4");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn log_that_is_not_there_yet_is_waited_for_if_it_is_followed() {
    let fleet = Fleet::with("later", &format!("{SLEEP}autostart = false"));
    fleet.wait_for("later", &["STOPPED"]);
    let output = self::fleet(fleet.path(), &["logs", "later"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("later.log: No such file"),
        "{output:?}"
    );
    let mut child = start(fleet.path(), &["logs", "later", "-f"]);
    fs::write(fleet.path().join("log/later.log"), "here\n").unwrap();
    let mut text = [0; 5];
    child.stdout.take().unwrap().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"here\n");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn logs_that_cannot_be_shown_are_told() {
    let fleet = Fleet::with("piped", &format!("{SLEEP}log = \"| cat > /dev/null\""));
    let output = self::fleet(fleet.path(), &["logs", "piped"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("goes to the command `cat > /dev/null`"),
        "{output:?}"
    );
    let output = self::fleet(fleet.path(), &["logs", "none"]);
    assert_eq!(code(&output), 3);
    assert!(
        stderr(&output).contains("programs/none.toml is missing"),
        "{output:?}"
    );
}

#[test]
fn reader_of_the_status_never_sees_half_of_it() {
    let fleet = Fleet::with("web", &format!("{SLEEP}instances = 50"));
    fleet.wait_for("web", &["RUNNING"; 50]);
    let path = fleet.path().join("status.json");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for count in ["10", "50", "1", "60"] {
                ask(&fleet, &["scale", "web", count]);
            }
        });
        let mut read = 0;
        while !writer.is_finished() || read == 0 {
            let text = fs::read(&path).unwrap();
            let status: Result<Value, _> = serde_json::from_slice(&text);
            assert!(status.is_ok(), "{}", String::from_utf8_lossy(&text));
            read += 1;
        }
        writer.join().unwrap();
    });
    wait(
        "all of them",
        || fleet.log(),
        || (fleet.instances("web").len() == 60).then_some(()),
    );
}
