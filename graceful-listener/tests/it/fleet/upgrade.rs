use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Fleet, SLEEP, shell, wait_for_end};
use crate::process;

#[test]
fn upgrade_goes_on_under_the_same_pid_with_the_same_children() {
    let fleet = Fleet::with("web", &format!("{SLEEP}instances = 3"));
    let before = fleet.wait_for("web", &["RUNNING"; 3]);
    let pid = fleet.pid();
    let answer = fleet.command("upgrade").unwrap();
    assert!(answer.contains("goes on"), "{answer}");
    assert_eq!(fleet.pid(), pid);
    assert_eq!(fleet.wait_for("web", &["RUNNING"; 3]), before);
    assert_eq!(fleet.children().len(), 3, "children stay children");
    kill(Pid::from_raw(before[0].cast_signed()), Signal::SIGKILL).unwrap();
    let line = fleet.wait_for_log("web:0 RUNNING -> EXITED");
    assert!(line.contains("killed by signal 9"), "{line}");
    fleet.wait("another", || {
        (fleet.wait_for("web", &["RUNNING"; 3])[0] != before[0]).then_some(())
    });
    assert_eq!(fleet.children().len(), 3);
}

#[test]
fn one_upgrade_answers_all_who_have_asked_for_it() {
    let fleet = Fleet::with("web", SLEEP);
    fleet.wait_for("web", &["RUNNING"]);
    fleet.signal(Signal::SIGSTOP);
    process::wait_until_stopped(fleet.pid());
    for tag in 0..5 {
        fleet.submit(&format!("upgrade@{tag}"));
    }
    fleet.signal(Signal::SIGCONT);
    for tag in 0..5 {
        fleet.answer(&format!("upgrade@{tag}")).unwrap();
    }
    assert_eq!(fleet.log().matches("goes on after").count(), 1);
}

#[test]
fn many_upgrades_leak_nothing() {
    let fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.command("upgrade").unwrap();
    let descriptors = process::descriptors(fleet.pid()).len();
    for _ in 0..5 {
        fleet.command("upgrade").unwrap();
    }
    fleet.wait("as few descriptors as before", || {
        (process::descriptors(fleet.pid()).len() <= descriptors).then_some(())
    });
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
}

#[test]
fn program_that_cannot_take_over_is_not_executed() {
    let mut fleet = Fleet::empty();
    fleet.program("web", SLEEP);
    let link = fleet.path().join("the-fleet");
    symlink(env!("CARGO_BIN_EXE_fleet"), &link).unwrap();
    fleet.start_as(&link);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fs::remove_file(&link).unwrap();
    symlink("/bin/false", &link).unwrap();
    let why = fleet.command("upgrade").unwrap_err();
    assert!(
        why.contains("cannot take over: it exited with code 1"),
        "{why}"
    );
    fs::remove_file(&link).unwrap();
    let why = fleet.command("upgrade").unwrap_err();
    assert!(
        why.contains("failed to execute") && why.contains("No such file"),
        "{why}"
    );
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
    symlink(env!("CARGO_BIN_EXE_fleet"), &link).unwrap();
    fleet.command("upgrade").unwrap();
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
}

#[test]
fn usr2_upgrades_too() {
    let fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.signal(Signal::SIGUSR2);
    fleet.wait_for_log("goes on after");
    fleet.command("signal-web-CONT").unwrap();
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
}

#[test]
fn what_a_process_has_left_is_killed_after_an_upgrade() {
    let definition = shell(
        "(trap '' TERM; exec sleep 617) & echo $! > left.new; mv left.new left; exec sleep 600",
        "directory = \".\"\nrestart = \"always\"\nstop_timeout = \"2s\"",
    );
    let fleet = Fleet::with("web", &definition);
    let pids = fleet.wait_for("web", &["RUNNING"]);
    let left = fleet.wait_for_file("left").trim().parse().unwrap();
    fleet.wait("it to ignore TERM", || {
        process::command_line(left)
            .starts_with(b"sleep\0")
            .then_some(())
    });
    kill(Pid::from_raw(pids[0].cast_signed()), Signal::SIGKILL).unwrap();
    fleet.wait_for_log("RUNNING -> EXITED");
    fleet.command("upgrade").unwrap();
    wait_for_end(left);
}

#[test]
fn program_whose_file_is_gone_is_known_as_such_after_an_upgrade() {
    let script = "trap 'while ! [ -e go ]; do sleep 0.02; done; exit' TERM; echo > up; \
                  while :; do sleep 0.02; done";
    let fleet = Fleet::with(
        "web",
        &shell(script, "directory = \".\"\nstop_timeout = \"1h\""),
    );
    fleet.wait_for_file("up");
    fleet.remove_program("web");
    fleet.wait_for_log("its file is gone, stopping it");
    fleet.command("upgrade").unwrap();
    fs::write(fleet.path().join("go"), "").unwrap();
    fleet.wait_for_log("web: removed");
    let log = fleet.log();
    assert_eq!(log.matches("its file is gone, stopping it").count(), 1);
}

#[test]
fn generation_that_was_given_up_is_not_begun_again_after_an_upgrade() {
    let listen = "listen = [\"127.0.0.1:0\"]\ninstances = 2\nstop_timeout = \"1h\"\nretries = 0";
    let fleet = Fleet::with("web", &format!("{SLEEP}{listen}"));
    let before = fleet.wait_for("web", &["RUNNING"; 2]);
    // When the second one fails, the first one is there, and takes its time to end.
    let script = "[ $FLEET_INSTANCE = 1 ] && { while ! [ -e up ]; do sleep 0.02; done; exit 3; }; \
                  trap 'while ! [ -e go ]; do sleep 0.02; done; exit' TERM; echo > up; \
                  while :; do sleep 0.02; done";
    let bad = shell(script, &format!("directory = \".\"\n{listen}"));
    fleet.program("web", &bad.replace("\"0s\"", "\"1h\""));
    let error = || fleet.program_status("web")["error"].clone();
    fleet.wait("an error", || error().is_string().then_some(()));
    let why = error();
    assert!(
        why.as_str().unwrap().contains("generation 2 is FATAL"),
        "{why}"
    );
    fleet.command("upgrade").unwrap();
    assert_eq!(error(), why);
    fs::write(fleet.path().join("go"), "").unwrap();
    assert_eq!(fleet.wait_for("web", &["RUNNING"; 2]), before);
    assert_eq!(error(), why);
}

#[test]
fn number_that_was_counted_holds_after_an_upgrade() {
    let mut fleet = Fleet::empty();
    let definition = SLEEP.to_owned()
        + "directory = \".\"\ninstances = { command = \"sleep $(cat pause); echo 2\", interval = \"20ms\" }";
    fleet.write("pause", "0\n");
    fleet.program("pool", &definition);
    fleet.start();
    let before = fleet.wait_for("pool", &["RUNNING"; 2]);
    fleet.write("pause", "600\n");
    fleet.command("upgrade").unwrap();
    assert_eq!(fleet.program_status("pool")["wanted"], 2);
    assert_eq!(fleet.wait_for("pool", &["RUNNING"; 2]), before);
}

#[test]
fn room_that_was_kept_for_a_pid_file_is_given_back_after_an_upgrade() {
    let definition = shell("exit 3", "backoff = \"1h\"\nbackoff_max = \"1h\"");
    let fleet = Fleet::with("web", &definition.replace("\"0s\"", "\"1h\""));
    fleet.wait_for("web", &["BACKOFF"]);
    let room = fleet.path().join("run/web.0.new");
    assert!(room.exists());
    fleet.command("upgrade").unwrap();
    assert!(room.exists());
    fleet.command("stop-web").unwrap();
    assert!(!room.exists());
}
