use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Fleet, SLEEP, end_alone, shell, wait_for_end};
use crate::process;

#[test]
fn killed_supervisor_is_followed_by_one_that_adopts_what_runs() {
    let mut fleet = Fleet::with("web", &format!("{SLEEP}instances = 3"));
    let before = fleet.wait_for("web", &["RUNNING"; 3]);
    fleet.kill();
    kill(Pid::from_raw(before[1].cast_signed()), Signal::SIGKILL).unwrap();
    wait_for_end(before[1]);
    fleet.start();
    // One that nobody has reaped yet is adopted too, and found to have ended.
    fleet.wait_for_log("processes, whose supervisor is gone");
    let after = fleet.wait("a third one", || {
        let pids = fleet.wait_for("web", &["RUNNING"; 3]);
        (pids[1] != before[1]).then_some(pids)
    });
    assert_eq!((after[0], after[2]), (before[0], before[2]));
    assert_eq!(fleet.children(), [after[1]], "nothing is doubled");
    assert_eq!(fleet.pid_files().len(), 3);
}

#[test]
fn end_of_an_adopted_process_is_seen_with_its_status() {
    let definition = shell(
        "trap 'exit 42' USR1; echo > up; while :; do sleep 0.05; done",
        "restart = \"always\"\ndirectory = \".\"",
    );
    let mut fleet = Fleet::with("web", &definition);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.wait_for_file("up");
    fleet.kill();
    fleet.start();
    fleet.wait_for_log("adopted 1 processes");
    kill(Pid::from_raw(before[0].cast_signed()), Signal::SIGUSR1).unwrap();
    let line = fleet.wait_for_log("web:0 RUNNING -> EXITED");
    assert!(
        line.contains("exited with code 42, which is not accepted"),
        "{line}"
    );
    fleet.wait("another", || {
        (fleet.wait_for("web", &["RUNNING"]) != before).then_some(())
    });
}

#[test]
fn adopted_process_can_be_stopped_and_restarted() {
    let mut fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.kill();
    fleet.start();
    fleet.command("restart-web").unwrap();
    let after = fleet.wait_for("web", &["RUNNING"]);
    assert_ne!(after, before);
    wait_for_end(before[0]);
    fleet.command("stop-web").unwrap();
    wait_for_end(after[0]);
}

#[test]
fn what_a_killed_supervisor_was_just_starting_does_not_keep_the_next_one_out() {
    let mut fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.kill();
    // A process that is not a program yet has what the supervisor had open.
    let held = fs::File::open(fleet.path().join("fleet.pid")).unwrap();
    held.lock().unwrap();
    fleet.start();
    fleet.wait_for_log("is gone, waiting for what it was starting");
    drop(held);
    fleet.wait_for_log("adopted 1 processes");
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
}

#[test]
fn reused_process_id_is_never_taken_for_ours() {
    let mut fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.kill();
    let file = &fleet.pid_files()[0];
    let text = fs::read_to_string(file).unwrap();
    // This test's own process, under a number that once was the program's.
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(file, format!("{}\n{rest}", std::process::id())).unwrap();
    fleet.start();
    let after = fleet.wait("a start", || {
        let pids = fleet.wait_for("web", &["RUNNING"]);
        (pids != before && pids[0] != std::process::id()).then_some(pids)
    });
    assert_eq!(fleet.children(), after);
    kill(Pid::from_raw(before[0].cast_signed()), Signal::SIGKILL).unwrap();
}

#[test]
fn what_was_stopped_or_scaled_stays_so_when_the_supervisor_is_killed() {
    let mut fleet = Fleet::with("web", SLEEP);
    fleet.program("jobs", &format!("{SLEEP}instances = 2"));
    fleet.wait_for("jobs", &["RUNNING"; 2]);
    fleet.command("stop-web").unwrap();
    fleet.command("scale-jobs-4").unwrap();
    fleet.kill();
    fleet.start();
    fleet.wait_for_log("adopted 4 processes");
    fleet.command("signal-jobs-CONT").unwrap();
    fleet.wait_for("jobs", &["RUNNING"; 4]);
    fleet.wait_for("web", &["STOPPED"]);
    assert!(fleet.children().is_empty());
}

#[test]
fn job_that_is_done_is_not_done_again_when_the_supervisor_is_killed() {
    let definition = shell(
        "echo done >> jobs",
        "restart = \"never\"\ndirectory = \".\"",
    );
    let mut fleet = Fleet::with("job", &definition);
    fleet.wait_for("job", &["EXITED"]);
    fleet.kill();
    fleet.program("web", SLEEP);
    fleet.start();
    fleet.wait_for("web", &["RUNNING"]);
    fleet.wait_for("job", &["EXITED"]);
    assert_eq!(fleet.wait_for_file("jobs"), "done\n");
    fleet.command("start-job").unwrap();
    fleet.wait("it to be done once more", || {
        (fleet.wait_for_file("jobs") == "done\ndone\n").then_some(())
    });
}

#[test]
fn program_that_was_removed_meanwhile_is_stopped() {
    let mut fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.kill();
    fleet.remove_program("web");
    fleet.start();
    wait_for_end(before[0]);
    fleet.wait_for_log("web: removed");
}

#[test]
fn program_that_was_spoilt_meanwhile_goes_on_as_it_was() {
    let mut fleet = Fleet::with("web", SLEEP);
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.kill();
    fleet.program("web", "command = 1");
    fleet.start();
    fleet.wait_for_log("the definition before goes on running");
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
    kill(Pid::from_raw(before[0].cast_signed()), Signal::SIGKILL).unwrap();
    fleet.wait("another process by the old definition", || {
        (fleet.wait_for("web", &["RUNNING"]) != before).then_some(())
    });
}

#[test]
fn program_that_was_changed_meanwhile_is_replaced() {
    let mut fleet = Fleet::with("web", &format!("{SLEEP}instances = 2"));
    fleet.wait_for("web", &["RUNNING"; 2]);
    fleet.kill();
    fleet.program(
        "web",
        &format!("{SLEEP}instances = 2").replace("600", "601"),
    );
    fleet.start();
    fleet.wait("both replaced", || {
        let pids = fleet.wait_for("web", &["RUNNING"; 2]);
        pids.iter()
            .all(|pid| process::command_line(*pid) == b"sleep\x00601\x00")
            .then_some(())
    });
}

#[test]
fn restart_that_was_under_way_is_completed_by_the_next_supervisor() {
    let definition = format!("{SLEEP}instances = 4").replace("0s", "400ms");
    let mut fleet = Fleet::with("web", &definition);
    let before = fleet.wait_for("web", &["RUNNING"; 4]);
    fleet.submit("restart-web");
    fleet.wait_for_log("it is to be replaced");
    fleet.kill();
    fleet.start();
    fleet.answer("restart-web").unwrap();
    let after = fleet.wait_for("web", &["RUNNING"; 4]);
    assert!(before.iter().all(|pid| !after.contains(pid)));
    before.into_iter().for_each(wait_for_end);
}

#[test]
fn log_command_outlives_the_supervisor_that_is_killed_and_stays_the_only_one() {
    let definition = shell(
        "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done",
        "restart = \"always\"\ndirectory = \".\"\nlog = \"| sh -c 'echo $$ >> readers; exec cat >> lines'\"",
    );
    let mut fleet = Fleet::empty();
    let definition = definition.replace(
        "readers",
        &fleet.path().join("readers").display().to_string(),
    );
    let definition = definition.replace(
        "lines'",
        &format!("{}'", fleet.path().join("lines").display()),
    );
    fleet.program("web", &definition);
    fleet.start();
    let before = fleet.wait_for("web", &["RUNNING"]);
    let lines = |fleet: &Fleet| fleet.wait_for_file("lines").lines().count();
    fleet.wait("lines", || (lines(&fleet) > 3).then_some(()));
    fleet.kill();
    fleet.start();
    fleet.wait_for_log("adopted 1 processes");
    let count = lines(&fleet);
    fleet.wait("more lines", || (lines(&fleet) > count + 3).then_some(()));
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
    fleet.command("upgrade").unwrap();
    let count = lines(&fleet);
    fleet.wait("more lines", || (lines(&fleet) > count + 3).then_some(()));
    let readers = fleet.wait_for_file("readers");
    assert_eq!(readers.lines().count(), 1, "{readers}");
    let reader: u32 = readers.trim().parse().unwrap();
    kill(Pid::from_raw(reader.cast_signed()), Signal::SIGKILL).unwrap();
    fleet.wait("another reader", || {
        (fleet.wait_for_file("readers").lines().count() == 2).then_some(())
    });
    let count = lines(&fleet);
    fleet.wait("more lines", || (lines(&fleet) > count + 3).then_some(()));
    assert_eq!(fleet.wait_for("web", &["RUNNING"]), before);
}

#[test]
fn adopted_pool_can_be_stopped_before_it_is_counted_again() {
    let mut fleet = Fleet::empty();
    let definition = SLEEP.to_owned()
        + "directory = \".\"\ninstances = { command = \"sleep $(cat pause); echo 2\", interval = \"1s\", max = 5 }";
    fs::write(fleet.path().join("pause"), "0\n").unwrap();
    fleet.program("pool", &definition);
    fleet.start();
    let before = fleet.wait_for("pool", &["RUNNING"; 2]);
    fleet.kill();
    fs::write(fleet.path().join("pause"), "600\n").unwrap();
    fleet.start();
    fleet.wait_for_log("adopted 2 processes");
    assert_eq!(fleet.wait_for("pool", &["RUNNING"; 2]), before);
    fleet.command("stop-pool").unwrap();
    before.into_iter().for_each(wait_for_end);
}

#[test]
fn job_that_is_done_once_more_has_one_place_for_the_next_supervisor() {
    let script = "[ -e once ] && exec sleep 600; echo > once";
    let mut fleet = Fleet::with(
        "job",
        &shell(script, "restart = \"never\"\ndirectory = \".\""),
    );
    fleet.wait_for("job", &["EXITED"]);
    fleet.command("restart-job").unwrap();
    let before = fleet.wait_for("job", &["RUNNING"]);
    fleet.kill();
    fleet.start();
    fleet.wait_for_log("adopted 1 processes");
    fleet.command("signal-job-CONT").unwrap();
    assert_eq!(fleet.wait_for("job", &["RUNNING"]), before);
}

#[test]
fn generation_that_was_not_written_down_is_known_by_its_processes() {
    let mut fleet = Fleet::with("web", SLEEP);
    fleet.wait_for("web", &["RUNNING"]);
    fleet.command("restart-web").unwrap();
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.kill();
    // The disk was full, say.
    let path = fleet.path().join("run/web.json");
    let text = fs::read_to_string(&path).unwrap();
    let older = text.replace("\"generation\":2", "\"generation\":1");
    assert_ne!(older, text);
    fs::write(path, older).unwrap();
    fleet.start();
    fleet.wait_for_log("adopted 1 processes");
    fleet.command("restart-web").unwrap();
    assert_ne!(fleet.wait_for("web", &["RUNNING"]), before);
    assert_eq!(fleet.program_status("web")["generation"], 3);
}

#[test]
fn job_that_ended_while_nobody_looked_is_not_done_again() {
    let mut fleet = Fleet::with("job", &shell("exec sleep 600", "restart = \"never\""));
    let before = fleet.wait_for("job", &["RUNNING"]);
    fleet.kill();
    kill(Pid::from_raw(before[0].cast_signed()), Signal::SIGKILL).unwrap();
    wait_for_end(before[0]);
    // It may still be there for its new parent to reap; here it is gone for sure.
    let file = &fleet.pid_files()[0];
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, text.replace("\nstart ", "\nstart 1")).unwrap();
    fleet.start();
    fleet.wait_for("job", &["EXITED"]);
    let exit = &fleet.program_status("job")["instances"][0]["exit"];
    assert_eq!(exit, "ended while no supervisor ran");
    assert!(fleet.children().is_empty());
}

#[test]
fn process_of_which_nothing_else_is_known_is_ended() {
    let script = "trap 'echo told > told; exit' TERM; echo > up; while :; do sleep 0.05; done";
    let mut fleet = Fleet::with("web", &shell(script, "directory = \".\""));
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.wait_for_file("up");
    fleet.kill();
    fs::remove_file(fleet.path().join("run/web.json")).unwrap();
    fleet.start();
    fleet.wait_for_log("of which nothing else is known: sending TERM");
    wait_for_end(before[0]);
    fleet.wait_for_file("told");
    fleet.wait("another", || {
        (fleet.wait_for("web", &["RUNNING"]) != before).then_some(())
    });
    assert_eq!(fleet.children().len(), 1);
}

#[test]
fn what_processes_have_left_is_killed_by_the_next_supervisor() {
    let script = "[ -e $FLEET_PROGRAM ] || { (trap '' TERM; exec sleep 617) & \
                  echo $! > new.$FLEET_PROGRAM; mv new.$FLEET_PROGRAM $FLEET_PROGRAM; }; \
                  exec sleep 600";
    let definition = shell(
        script,
        "directory = \".\"\nrestart = \"always\"\nstop_timeout = \"1h\"",
    );
    let mut fleet = Fleet::empty();
    fleet.program("watched", &definition);
    fleet.program("alone", &definition);
    fleet.start();
    let [watched, alone] = ["watched", "alone"].map(|name| fleet.wait_for(name, &["RUNNING"])[0]);
    let helpers = ["watched", "alone"].map(|name| {
        let helper = fleet.wait_for_file(name).trim().parse().unwrap();
        fleet.wait("it to ignore TERM", || {
            let is_sleep = process::command_line(helper).starts_with(b"sleep\0");
            is_sleep.then_some(helper)
        })
    });
    kill(Pid::from_raw(watched.cast_signed()), Signal::SIGKILL).unwrap();
    fleet.wait_for_log("watched:0 RUNNING -> EXITED");
    assert_eq!(fleet.left_files().len(), 1);
    fleet.kill();
    end_alone(alone);
    // Only files tell of them now; they are not lost with a supervisor.
    for _ in 0..2 {
        fleet.start();
        fleet.wait("its inbox to be looked at", || {
            fleet.command("signal-watched-CONT").ok()
        });
        fleet.kill();
    }
    fleet.start();
    helpers.into_iter().for_each(wait_for_end);
    fleet.wait("the end of the files", || {
        fleet.left_files().is_empty().then_some(())
    });
}

#[test]
fn what_is_left_of_a_process_that_ended_without_a_supervisor_is_told_to_end() {
    // One that knows nothing of us is in the group, too.
    let script = "sleep 618 & \
                  env -i sh -c 'trap \"echo > told; exit\" TERM; echo > up; while :; do sleep 0.02; done' & \
                  exec sleep 600";
    let mut fleet = Fleet::with(
        "web",
        &shell(script, "directory = \".\"\nrestart = \"always\""),
    );
    let before = fleet.wait_for("web", &["RUNNING"]);
    fleet.wait_for_file("up");
    fleet.kill();
    end_alone(before[0]);
    fleet.start();
    fleet.wait_for_file("told");
    fleet.wait("the end of the group", || {
        process::group(before[0]).is_empty().then_some(())
    });
    fleet.wait("another process", || {
        (fleet.wait_for("web", &["RUNNING"]) != before).then_some(())
    });
}

#[test]
fn group_of_strangers_is_never_taken_for_what_a_process_has_left() {
    let ours = [("FLEET_PROGRAM", "web"), ("FLEET_INSTANCE", "0")];
    let others = [("FLEET_PROGRAM", "web"), ("FLEET_INSTANCE", "1")];
    for (variables, leader_lives, boot) in [
        (others, false, None),
        (ours, true, None),
        (ours, false, Some("another")),
    ] {
        let mut fleet = Fleet::with("web", SLEEP);
        let before = fleet.wait_for("web", &["RUNNING"]);
        fleet.kill();
        let stranger = |group: i32| {
            let mut command = Command::new("cat");
            command.env_clear().envs(variables).process_group(group);
            command.stdin(Stdio::piped()).spawn().unwrap()
        };
        let mut leader = stranger(0);
        let number = leader.id();
        let mut member = stranger(number.cast_signed());
        if !leader_lives {
            leader.kill().unwrap();
            leader.wait().unwrap();
        }
        // The number once was the program's.
        let file = &fleet.pid_files()[0];
        let text = fs::read_to_string(file).unwrap();
        let (_, rest) = text.split_once('\n').unwrap();
        let (rest, of_then) = rest.split_once("boot ").unwrap();
        let (now, note) = of_then.split_once('\n').unwrap();
        let boot = boot.unwrap_or(now);
        fs::write(file, format!("{number}\n{rest}boot {boot}\n{note}")).unwrap();
        fleet.start();
        fleet.wait("another process", || {
            (fleet.wait_for("web", &["RUNNING"]) != before).then_some(())
        });
        // A signal would end it before it reads that there is no more.
        drop(member.stdin.take());
        assert!(member.wait().unwrap().success(), "{variables:?} {boot}");
        drop(leader.stdin.take());
        let end = leader.wait().unwrap();
        assert_eq!(end.success(), leader_lives, "{variables:?} {boot}");
        kill(Pid::from_raw(before[0].cast_signed()), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn what_was_stopped_is_started_with_the_machine() {
    let mut fleet = Fleet::with("web", SLEEP);
    fleet.wait_for("web", &["RUNNING"]);
    fleet.command("stop-web").unwrap();
    fleet.kill();
    let path = fleet.path().join("run/web.json");
    let text = fs::read_to_string(&path).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(boot.trim_end()), "{text}");
    fs::write(path, text.replace(boot.trim_end(), "another")).unwrap();
    fleet.start();
    fleet.wait_for("web", &["RUNNING"]);
}
