use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Fleet, SLEEP, shell, wait_for_end};
use crate::process;

fn end(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

#[test]
fn program_whose_file_comes_is_started_and_whose_file_goes_is_stopped() {
    let mut fleet = Fleet::empty();
    fleet.start();
    fleet.wait_for_log("supervises");
    fleet.program("web", &format!("{SLEEP}instances = 3"));
    let pids = fleet.wait_for("web", &["RUNNING"; 3]);
    assert_eq!(fleet.children().len(), 3);
    assert_eq!(fleet.pid_files().len(), 3);
    fleet.remove_program("web");
    fleet.wait("nothing of it", || {
        fleet.program_status("web").is_null().then_some(())
    });
    pids.into_iter().for_each(wait_for_end);
    assert!(fleet.pid_files().is_empty());
    assert!(!fleet.path().join("run/web.json").exists());
    assert!(fleet.children().is_empty());
}

#[test]
fn killed_instance_is_replaced_and_the_others_stay() {
    let fleet = Fleet::with("web", &format!("{SLEEP}instances = 3"));
    let before = fleet.wait_for("web", &["RUNNING"; 3]);
    end(before[1]);
    let after = fleet.wait("another process", || {
        let pids = fleet.wait_for("web", &["RUNNING"; 3]);
        (pids[1] != before[1]).then_some(pids)
    });
    assert_eq!((after[0], after[2]), (before[0], before[2]));
    let line = fleet.wait_for_log("web:1 RUNNING -> EXITED");
    assert!(
        line.contains(&format!(
            "process {} killed by signal 9 (SIGKILL)",
            before[1]
        )),
        "{line}"
    );
    assert_eq!(fleet.program_status("web")["instances"][1]["starts"], 2);
    assert_eq!(fleet.children().len(), 3);
}

#[test]
fn start_counts_when_it_has_lasted() {
    let definition = SLEEP.replace("0s", "700ms");
    let begun = Instant::now();
    let fleet = Fleet::with("web", &definition);
    fleet.wait_for("web", &["RUNNING"]);
    assert!(begun.elapsed() >= Duration::from_millis(700));
    let log = fleet.log();
    let at = |part: &str| {
        log.find(part)
            .unwrap_or_else(|| panic!("no {part} in {log}"))
    };
    assert!(at("web:0 STOPPED -> STARTING") < at("web:0 STARTING -> RUNNING"));
}

#[test]
fn worker_that_exits_in_its_start_second_is_tried_again_and_then_given_up() {
    let definition = shell(
        "echo tried >> tries; echo out; echo why >&2; exit 3",
        "retries = 2\nbackoff = \"10ms\"",
    )
    .replace("\"0s\"", "\"1h\"");
    let fleet = Fleet::with("web", &format!("{definition}directory = \".\""));
    fleet.wait_for("web", &["FATAL"]);
    let tries = fs::read_to_string(fleet.path().join("tries")).unwrap();
    assert_eq!(tries.lines().count(), 3);
    let log = fleet.log();
    assert_eq!(log.matches("web:0 STARTING -> BACKOFF").count(), 2, "{log}");
    assert_eq!(log.matches("web:0 STARTING -> FATAL").count(), 1, "{log}");
    assert!(
        log.contains("exited with code 3, which is not accepted,"),
        "{log}"
    );
    assert!(log.contains("web:0 | why"), "{log}");
    let instance = &fleet.program_status("web")["instances"][0];
    assert_eq!(instance["output"], serde_json::json!(["out", "why"]));
    assert!(fleet.children().is_empty());
    let why = fleet.command("start-web").unwrap_err();
    assert!(
        why.contains("web:0 is FATAL: process ") && why.contains("exited with code 3"),
        "{why}"
    );
    assert!(why.ends_with("out\nwhy"), "{why}");
}

#[test]
fn pauses_between_failed_starts_double_up_to_their_cap() {
    let definition = shell(
        "date +%s%N >> times; exit 1",
        "retries = 5\nbackoff = \"100ms\"\nbackoff_max = \"300ms\"\ndirectory = \".\"",
    )
    .replace("\"0s\"", "\"1h\"");
    let fleet = Fleet::with("web", &definition);
    fleet.wait_for("web", &["FATAL"]);
    let text = fs::read_to_string(fleet.path().join("times")).unwrap();
    let times: Vec<u128> = text.lines().map(|line| line.parse().unwrap()).collect();
    let gaps: Vec<u128> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) / 1_000_000)
        .collect();
    assert_eq!(gaps.len(), 5);
    for (gap, least) in gaps.iter().zip([100, 200, 300, 300, 300]) {
        assert!(*gap >= least, "{gaps:?}");
    }
}

#[test]
fn restart_on_failure_leaves_what_ends_well() {
    let definition = shell(
        "sleep 0.2; exit 4",
        "restart = \"on-failure\"\nexit_codes = [0, 4]",
    );
    let fleet = Fleet::with("web", &definition);
    fleet.wait_for("web", &["EXITED"]);
    assert_eq!(fleet.program_status("web")["instances"][0]["starts"], 1);
    let line = fleet.wait_for_log("RUNNING -> EXITED");
    assert!(line.contains("exited with code 4 after"), "{line}");
}

#[test]
fn restart_always_starts_again_what_ends_well() {
    let fleet = Fleet::with("web", &shell("sleep 0.1", "restart = \"always\""));
    fleet.wait("a third start", || {
        let starts = fleet.program_status("web")["instances"][0]["starts"].as_u64();
        starts.is_some_and(|starts| starts >= 3).then_some(())
    });
}

#[test]
fn restart_never_leaves_what_fails() {
    let fleet = Fleet::with("web", &shell("sleep 0.2; exit 1", "restart = \"never\""));
    fleet.wait_for("web", &["EXITED"]);
    assert_eq!(fleet.program_status("web")["instances"][0]["starts"], 1);
}

#[test]
fn worker_that_ignores_term_is_killed_with_all_it_has_started() {
    let definition = shell(
        "trap '' TERM; sleep 600 & echo $! > child; sleep 600; wait",
        "stop_timeout = \"300ms\"\ndirectory = \".\"",
    );
    let fleet = Fleet::with("web", &definition);
    let pids = fleet.wait_for("web", &["RUNNING"]);
    let child: u32 = fleet.wait_for_file("child").trim().parse().unwrap();
    fleet.command("stop-web").unwrap();
    fleet.wait_for("web", &["STOPPED"]);
    fleet.wait_for_log("web:0 has not ended within ");
    wait_for_end(pids[0]);
    wait_for_end(child);
}

#[test]
fn what_a_dead_worker_has_left_is_ended_too() {
    let definition = shell(
        "sleep 600 & echo $! > child; sleep 0.1; exit 1",
        "restart = \"never\"\ndirectory = \".\"",
    );
    let fleet = Fleet::with("web", &definition);
    let child: u32 = fleet.wait_for_file("child").trim().parse().unwrap();
    fleet.wait_for("web", &["EXITED"]);
    wait_for_end(child);
}

#[test]
fn supervisor_sleeps_while_what_a_dead_worker_has_left_takes_its_time() {
    let definition = shell(
        "(trap '' TERM; exec sleep 621) & echo $! > helper; exec sleep 600",
        "restart = \"never\"\ndirectory = \".\"\nstop_timeout = \"1h\"",
    );
    let fleet = Fleet::with("web", &definition);
    let pids = fleet.wait_for("web", &["RUNNING"]);
    let helper: u32 = fleet.wait_for_file("helper").trim().parse().unwrap();
    fleet.wait("it to ignore TERM", || {
        let is_sleep = process::command_line(helper).starts_with(b"sleep\0");
        is_sleep.then_some(())
    });
    end(pids[0]);
    fleet.wait_for("web", &["EXITED"]);
    let sleeps = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", fleet.pid())).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('S')
    };
    fleet.wait("it to sleep for a while", || {
        let mut looks = (0..10).map(|_| sleep(Duration::from_millis(5)));
        looks.all(|()| sleeps()).then_some(())
    });
    assert!(!process::is_gone(helper));
    end(helper);
}

#[test]
fn forking_worker_is_not_mistaken_for_one_that_runs() {
    let definition = shell(
        "(trap '' TERM; exec sleep 600) & echo $! > child",
        "restart = \"always\"\nretries = 0\nstop_timeout = \"200ms\"\ndirectory = \".\"",
    )
    .replace("\"0s\"", "\"1h\"");
    let fleet = Fleet::with("web", &definition);
    fleet.wait_for("web", &["FATAL"]);
    let child: u32 = fleet.wait_for_file("child").trim().parse().unwrap();
    wait_for_end(child);
}

#[test]
fn program_that_is_not_there_is_told_with_its_name() {
    let fleet = Fleet::with("web", "command = \"/nowhere/program\"\nretries = 0");
    fleet.wait_for("web", &["FATAL"]);
    let exit = fleet.program_status("web")["instances"][0]["exit"].clone();
    assert_eq!(
        exit,
        "/nowhere/program: failed to execute the program: No such file or directory"
    );
    assert!(fleet.pid_files().is_empty());
}

#[test]
fn bad_file_is_refused_with_line_and_key_and_the_old_one_goes_on() {
    let fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.program("web", "command = \"sleep\"\nnonsense = 1\n");
    let error = fleet.wait("an error", || {
        fleet.program_status("web")["error"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(error.contains("programs/web.toml:2: nonsense"), "{error}");
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
    fleet.program("web", SLEEP);
    fleet.wait("no error", || {
        fleet.program_status("web")["error"].is_null().then_some(())
    });
    assert_eq!(
        fleet.wait_for("web", &["RUNNING"]),
        before,
        "nothing has changed"
    );
}

#[test]
fn bad_file_of_a_new_program_is_shown_and_hurts_no_other() {
    let fleet = Fleet::with("web", SLEEP);
    fleet.program("bad", "command = 3");
    let error = fleet.wait("an error", || {
        fleet.program_status("bad")["error"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(error.contains("programs/bad.toml:1: command"), "{error}");
    fleet.wait_for("web", &["RUNNING"]);
    let why = fleet.command("start-bad").unwrap_err();
    assert_eq!(why, error);
}

#[test]
fn changed_command_replaces_the_instances_one_after_the_other() {
    let definition = format!("{SLEEP}instances = 3").replace("0s", "100ms");
    let fleet = Fleet::with("web", &definition);
    let before = fleet.wait_for("web", &["RUNNING"; 3]);
    fleet.program("web", &definition.replace("600", "601"));
    let mut least = 3;
    fleet.wait("three others", || {
        let instances = fleet.instances("web");
        let running = instances.iter().filter(|(state, _)| state == "RUNNING");
        least = least.min(running.clone().count());
        (running
            .filter(|(_, pid)| !before.contains(&pid.unwrap()))
            .count()
            == 3)
            .then_some(())
    });
    assert!(least >= 2, "{least} of 3 ran");
    for pid in fleet.wait_for("web", &["RUNNING"; 3]) {
        assert_eq!(process::command_line(pid), b"sleep\x00601\x00");
    }
}

#[test]
fn rolling_restart_halts_at_an_instance_that_does_not_come_up() {
    let definition = format!("{SLEEP}instances = 3");
    let fleet = Fleet::with("web", &definition);
    let before = fleet.wait_for("web", &["RUNNING"; 3]);
    fleet.program(
        "web",
        "command = \"false\"\ninstances = 3\nretries = 0\nstart_seconds = \"1h\"",
    );
    fleet.wait_for("web", &["FATAL", "RUNNING", "RUNNING"]);
    let error = fleet.wait("an error", || {
        fleet.program_status("web")["error"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(error.contains("2 older go on running"), "{error}");
    let now = fleet.wait_for("web", &["FATAL", "RUNNING", "RUNNING"]);
    assert_eq!(now, before[1..]);
    fleet.program("web", &definition);
    fleet.wait_for("web", &["RUNNING"; 3]);
}

#[test]
fn change_of_what_no_process_sees_replaces_none() {
    let fleet = Fleet::with("web", &format!("{SLEEP}instances = 2"));
    let before = fleet.wait_for("web", &["RUNNING"; 2]);
    fleet.program(
        "web",
        &format!("{SLEEP}instances = 3\nstop_timeout = \"1s\"\npriority = 1"),
    );
    let after = fleet.wait_for("web", &["RUNNING"; 3]);
    assert_eq!(after[..2], before);
    fleet.program("web", &format!("{SLEEP}instances = 1"));
    let after = fleet.wait_for("web", &["RUNNING"]);
    assert_eq!(after, before[..1]);
    wait_for_end(before[1]);
}

#[test]
fn everything_ends_with_the_supervisor_that_is_told_to_end() {
    let fleet = Fleet::with("web", &format!("{SLEEP}instances = 5"));
    let pids = fleet.wait_for("web", &["RUNNING"; 5]);
    let run = fleet.path().join("run");
    let keep = fleet.path().join("status.json");
    fleet.wait_for_log("web:4");
    drop((run, keep));
    let log = fleet.stop();
    assert!(log.contains("received TERM"), "{log}");
    pids.into_iter().for_each(wait_for_end);
}

#[test]
fn zero_instances_are_none_and_scaling_makes_some() {
    let fleet = Fleet::with("web", &format!("{SLEEP}instances = 0"));
    fleet.wait("the program", || {
        (!fleet.program_status("web").is_null()).then_some(())
    });
    assert!(fleet.children().is_empty());
    fleet.command("scale-web-2").unwrap();
    fleet.wait_for("web", &["RUNNING"; 2]);
}

#[test]
fn second_supervisor_of_a_directory_is_refused() {
    let fleet = Fleet::with("web", SLEEP);
    fleet.wait_for("web", &["RUNNING"]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fleet"))
        .arg("run")
        .arg(fleet.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&fleet.pid().to_string()), "{text}");
    assert_eq!(fleet.children().len(), 1);
}

#[test]
fn no_zombie_and_no_descriptor_is_left_of_many_lives() {
    let fleet = Fleet::with(
        "web",
        &shell(
            "exit 1",
            "restart = \"always\"\nbackoff = \"1ms\"\nbackoff_max = \"2ms\"",
        ),
    );
    fleet.program("other", SLEEP);
    fleet.wait_for("other", &["RUNNING"]);
    let starts = || fleet.program_status("web")["instances"][0]["starts"].as_u64();
    fleet.wait("lives", || {
        starts().is_some_and(|starts| starts > 20).then_some(())
    });
    let before = process::descriptors(fleet.pid()).len();
    fleet.wait("more lives", || {
        starts().is_some_and(|starts| starts > 120).then_some(())
    });
    fleet.command("stop-web").unwrap();
    fleet.wait("as few descriptors as before", || {
        (process::descriptors(fleet.pid()).len() <= before + 1).then_some(())
    });
    fleet.wait("the end of all zombies", || {
        let task = format!("/proc/{0}/task/{0}/children", fleet.pid());
        let children = fs::read_to_string(task).unwrap();
        (children.split_whitespace().count() == 1).then_some(())
    });
}

#[test]
fn program_whose_file_comes_back_before_it_has_ended_begins_anew() {
    let script = "trap 'while ! [ -e go ]; do sleep 0.02; done; exit' TERM; echo >> up; \
                  while :; do sleep 0.02; done";
    let definition = shell(script, "directory = \".\"\nstop_timeout = \"1h\"");
    let fleet = Fleet::with("web", &definition);
    fleet.wait_for("web", &["RUNNING"]);
    fleet.command("scale-web-2").unwrap();
    fleet.wait_for("web", &["RUNNING"; 2]);
    fleet.wait("both traps", || {
        (fleet.wait_for_file("up").len() == 2).then_some(())
    });
    fleet.submit("stop-web");
    fleet.wait_for("web", &["STOPPING"; 2]);
    fleet.remove_program("web");
    fleet.wait_for_log("web: its file is gone");
    fleet.program("web", &definition);
    fleet.wait_for_log("web: its file has changed");
    fs::write(fleet.path().join("go"), "").unwrap();
    // Neither the number nor the stop was meant for this one.
    fleet.wait_for("web", &["RUNNING"]);
    assert_eq!(fleet.program_status("web")["stopped"], false);
}
