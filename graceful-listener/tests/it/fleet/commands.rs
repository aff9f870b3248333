use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use super::fixture::{Fleet, SLEEP, shell, wait_for_end};

#[test]
fn stop_ends_all_instances_and_start_brings_them_back() {
    let fleet = Fleet::with("web", &format!("{SLEEP}instances = 2"));
    let before = fleet.wait_for("web", &["RUNNING"; 2]);
    assert_eq!(fleet.command("stop-web").unwrap(), "web is stopped");
    // The answer is there, so is the state.
    assert_eq!(
        fleet.instances("web"),
        [("STOPPED".into(), None), ("STOPPED".into(), None)]
    );
    before.into_iter().for_each(wait_for_end);
    assert_eq!(fleet.program_status("web")["stopped"], true);
    assert_eq!(fleet.command("start-web").unwrap(), "web runs 2 times");
    fleet.wait_for("web", &["RUNNING"; 2]);
    assert!(!fleet.path().join("inbox/start-web").exists());
}

#[test]
fn restart_replaces_every_process() {
    let fleet = Fleet::with("web", &format!("{SLEEP}instances = 3"));
    let before = fleet.wait_for("web", &["RUNNING"; 3]);
    fleet.command("restart-web").unwrap();
    let after = fleet.wait_for("web", &["RUNNING"; 3]);
    assert!(
        before.iter().all(|pid| !after.contains(pid)),
        "{before:?} {after:?}"
    );
    before.into_iter().for_each(wait_for_end);
    assert_eq!(fleet.program_status("web")["generation"], 2);
}

#[test]
fn restart_goes_on_behind_a_process_that_takes_its_time_to_end() {
    let definition = shell(
        "trap 'sleep 0.3; exit' TERM; echo >> up; while :; do sleep 0.05; done",
        "instances = 3",
    );
    let fleet = Fleet::with("web", &definition);
    let before = fleet.wait_for("web", &["RUNNING"; 3]);
    fleet.wait("all traps", || {
        (fleet.wait_for_file("up").len() == 3).then_some(())
    });
    fleet.command("restart-web").unwrap();
    let after = fleet.wait_for("web", &["RUNNING"; 3]);
    assert!(before.iter().all(|pid| !after.contains(pid)));
}

#[test]
fn restart_of_what_is_stopped_starts_it() {
    let fleet = Fleet::with("web", &format!("{SLEEP}autostart = false"));
    fleet.wait_for("web", &["STOPPED"]);
    assert!(fleet.children().is_empty());
    fleet.command("restart-web").unwrap();
    fleet.wait_for("web", &["RUNNING"]);
}

#[test]
fn scale_goes_both_ways_and_lasts_until_the_file_says_otherwise() {
    let fleet = Fleet::with("web", &format!("{SLEEP}instances = 2"));
    let before = fleet.wait_for("web", &["RUNNING"; 2]);
    assert_eq!(fleet.command("scale-web-4").unwrap(), "web runs 4 times");
    assert_eq!(fleet.wait_for("web", &["RUNNING"; 4])[..2], before);
    fleet.command("scale-web-1").unwrap();
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before[..1]);
    fleet.program("web", &format!("{SLEEP}instances = 3"));
    fleet.wait_for("web", &["RUNNING"; 3]);
}

#[test]
fn signal_reaches_every_instance() {
    let definition = shell(
        "trap 'echo $FLEET_INSTANCE >> got' USR1; echo >> up; while :; do sleep 0.05; done",
        "instances = 2\ndirectory = \".\"",
    );
    let fleet = Fleet::with("web", &definition);
    fleet.wait_for("web", &["RUNNING"; 2]);
    fleet.wait("both traps", || {
        (fleet.wait_for_file("up").len() == 2).then_some(())
    });
    assert_eq!(
        fleet.command("signal-web-USR1").unwrap(),
        "USR1 sent to 2 processes"
    );
    fleet.wait("both signals", || {
        let text = fleet.wait_for_file("got");
        let mut got: Vec<&str> = text.lines().collect();
        got.sort_unstable();
        (got == ["0", "1"]).then_some(())
    });
}

#[test]
fn command_that_cannot_be_is_failed_with_the_reason() {
    let fleet = Fleet::with("web", &format!("{SLEEP}autostart = false"));
    let why = fleet.command("start-nope").unwrap_err();
    assert!(
        why.starts_with("there is no program nope: no file "),
        "{why}"
    );
    let why = fleet.command("signal-web-USR1").unwrap_err();
    assert_eq!(why, "web has no process");
    for nonsense in ["explode-web", "scale-web-many", "signal-web-NOSUCH"] {
        let why = fleet.command(nonsense).unwrap_err();
        assert!(!why.is_empty(), "{nonsense}");
    }
}

#[test]
fn what_is_no_file_in_the_inbox_is_told_and_does_nothing() {
    let fleet = Fleet::with("web", SLEEP);
    fleet.wait_for("web", &["RUNNING"]);
    let inbox = fleet.path().join("inbox");
    fs::create_dir_all(inbox.join("stop-web@1/kept")).unwrap();
    fleet.wait_for_log("ignored stop-web@1 in ");
    mkfifo(&inbox.join("stop-web@2"), Mode::S_IRWXU).unwrap();
    assert_eq!(
        fleet.answer("stop-web@2").unwrap_err(),
        "is a FIFO, expected a file"
    );
    symlink(
        fleet.path().join("programs/web.toml"),
        inbox.join("stop-web@3"),
    )
    .unwrap();
    assert_eq!(
        fleet.answer("stop-web@3").unwrap_err(),
        "is a symbolic link, expected a file"
    );
    fleet.command("signal-web-CONT").unwrap();
    fleet.wait_for("web", &["RUNNING"]);
    assert!(inbox.join("stop-web@1/kept").exists());
    assert!(fleet.path().join("programs/web.toml").exists());
    assert_eq!(fleet.log().matches("ignored stop-web@1").count(), 1);
    // Another one of the same name is another one.
    fs::remove_dir_all(inbox.join("stop-web@1")).unwrap();
    fleet.command("signal-web-CONT").unwrap();
    fs::create_dir(inbox.join("stop-web@1")).unwrap();
    fleet.wait("a second word", || {
        (fleet.log().matches("ignored stop-web@1").count() == 2).then_some(())
    });
}

#[test]
fn start_that_comes_to_nothing_is_failed() {
    let definition = format!(
        "{}autostart = false\n",
        shell("exit 7", "retries = 0").replace("\"0s\"", "\"1h\"")
    );
    let fleet = Fleet::with("web", &definition);
    fleet.wait_for("web", &["STOPPED"]);
    let why = fleet.command("start-web").unwrap_err();
    assert!(
        why.contains("web:0 is FATAL") && why.contains("exited with code 7"),
        "{why}"
    );
}

#[test]
fn stop_that_comes_in_between_fails_the_start() {
    let definition = SLEEP.replace("0s", "1h");
    let fleet = Fleet::with("web", &definition);
    fleet.wait_for("web", &["STARTING"]);
    fleet.submit("start-web");
    fleet.wait_for_log("command start-web");
    fleet.command("stop-web").unwrap();
    assert_eq!(
        fleet.answer("start-web").unwrap_err(),
        "stop-web came in between"
    );
    fleet.wait_for("web", &["STOPPED"]);
}

#[test]
fn commands_given_while_nobody_listens_are_carried_out_later() {
    let mut fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.kill();
    fleet.submit("restart-web");
    fleet.start();
    fleet.answer("restart-web").unwrap();
    assert_ne!(fleet.wait_for("web", &["RUNNING"]), before);
    before.into_iter().for_each(wait_for_end);
}

#[test]
fn half_written_command_is_not_taken() {
    let fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fs::write(fleet.path().join("inbox/.stop-web"), "").unwrap();
    fleet.command("signal-web-CONT").unwrap();
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
    assert!(fleet.path().join("inbox/.stop-web").exists());
}

#[test]
fn hangup_reads_everything_again_and_stops_nothing() {
    let fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.signal(Signal::SIGHUP);
    fleet.wait_for_log("received HUP");
    fleet.command("signal-web-CONT").unwrap();
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
}

#[test]
fn stopped_process_can_be_stopped() {
    let fleet = Fleet::with("web", SLEEP);
    let pids = fleet.wait_for("web", &["RUNNING"]);
    kill(Pid::from_raw(pids[0].cast_signed()), Signal::SIGSTOP).unwrap();
    fleet.command("stop-web").unwrap();
    let log = fleet.log();
    assert!(!log.contains("sending KILL"), "{log}");
}

#[test]
fn without_inotify_it_is_looked_every_second() {
    let mut fleet = Fleet::empty();
    let allowed = std::process::Command::new("unshare")
        .args([
            "-Ur",
            "sh",
            "-c",
            "echo 0 > /proc/sys/user/max_inotify_instances",
        ])
        .output()
        .is_ok_and(|output| output.status.success());
    if !allowed {
        crate::child::left_out("user namespaces are not to be had");
        return;
    }
    fleet.start_by(
        "exec unshare -Ur sh -c 'echo 0 > /proc/sys/user/max_inotify_instances; exec \"$@\"' sh \"$@\"",
    );
    fleet.wait_for_log("looking into it every second");
    fleet.program("web", SLEEP);
    fleet.wait_for("web", &["RUNNING"]);
    fleet.command("stop-web").unwrap();
    fleet.remove_program("web");
    fleet.wait_for_log("web: removed");
    // What a link leads to does not show that the link has come anew.
    let target = fleet.path().join("target");
    fs::write(&target, SLEEP).unwrap();
    let link = fleet.path().join("programs/link.toml");
    for _ in 0..2 {
        symlink(&target, &link).unwrap();
        fleet.wait_for("link", &["RUNNING"]);
        fs::remove_file(&link).unwrap();
        fleet.wait("the end of it", || {
            fleet.program_status("link").is_null().then_some(())
        });
    }
}

#[test]
fn answer_that_cannot_be_written_is_tried_again_unless_the_question_is_taken_back() {
    let fleet = Fleet::with("web", &SLEEP.replace("0s", "1h"));
    fleet.wait_for("web", &["STARTING"]);
    fleet.submit("start-web");
    fleet.wait_for_log("command start-web");
    fs::remove_file(fleet.path().join("inbox/start-web")).unwrap();
    for place in ["done", "failed"] {
        fs::remove_dir(fleet.path().join(place)).unwrap();
    }
    fleet.submit("stop-web");
    fleet.wait_for_log("failed to answer stop-web");
    fs::create_dir(fleet.path().join("done")).unwrap();
    assert_eq!(fleet.answer("stop-web").unwrap(), "web is stopped");
    let log = fleet.log();
    assert!(!log.contains("failed to answer start-web"), "{log}");
    let done = log
        .lines()
        .filter(|line| line.ends_with("command stop-web"));
    assert_eq!(done.count(), 1, "{log}");
}
