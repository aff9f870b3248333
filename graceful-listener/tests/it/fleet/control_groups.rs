//! What becomes of a program's processes where the supervisor's control group was
//! handed to it.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fixture::{Fleet, SLEEP, end_alone, shell, wait, wait_for_end};
use crate::control_group::ControlGroup;
use crate::process;

/// A supervisor in a control group.
fn start(fleet: &mut Fleet, group: &ControlGroup) {
    let procs = group.path().join("cgroup.procs");
    fleet.start_by(&format!("echo $$ > {}; exec \"$@\"", procs.display()));
}

/// A program whose helper has a session of its own and ignores TERM; `main` is what
/// it does itself.
fn with_helper(main: &str) -> String {
    shell(
        &format!(
            "(trap '' TERM; exec setsid sleep 613) & echo $! > helper.new; mv helper.new helper; {main}"
        ),
        "directory = \".\"\nstop_timeout = \"300ms\"\nrestart = \"always\"",
    )
}

fn helper(fleet: &Fleet) -> u32 {
    let helper = fleet.wait_for_file("helper").trim().parse().unwrap();
    fs::remove_file(fleet.path().join("helper")).unwrap();
    fleet.wait("the helper's own session", || {
        process::command_line(helper)
            .starts_with(b"sleep\0")
            .then_some(helper)
    })
}

fn wait_until_empty(group: &ControlGroup) {
    wait(
        "the removal of the control groups",
        || format!("{:?}", group.below()),
        || group.below().is_empty().then_some(()),
    );
}

/// A supervisor in a delegated control group, and a program that ends as little by itself as
/// its helper does.
struct Stubborn {
    fleet: Fleet,
    group: ControlGroup,
    pid: u32,
    helper: u32,
}

impl Stubborn {
    fn start(name: &str) -> Option<Self> {
        let group = ControlGroup::delegated(name)?;
        let mut fleet = Fleet::empty();
        let definition = with_helper("trap '' TERM; while :; do sleep 0.1; done");
        fleet.program("web", &definition);
        start(&mut fleet, &group);
        let pid = fleet.wait_for("web", &["RUNNING"])[0];
        let helper = helper(&fleet);
        Some(Self {
            fleet,
            group,
            pid,
            helper,
        })
    }

    /// Stops the program, of which nothing is left then.
    fn stop(self) {
        self.fleet.command("stop-web").unwrap();
        wait_for_end(self.pid);
        wait_for_end(self.helper);
        wait_until_empty(&self.group);
    }
}

#[test]
fn stop_timeout_kills_the_whole_control_group_and_it_is_removed() {
    let Some(web) = Stubborn::start("fleet-kill") else {
        return;
    };
    assert_eq!(web.group.below(), ["fleet-web.0-0"]);
    web.stop();
}

#[test]
fn what_a_process_leaves_in_its_control_group_is_told_and_killed() {
    let Some(group) = ControlGroup::delegated("fleet-left") else {
        return;
    };
    let mut fleet = Fleet::empty();
    fleet.program("web", &with_helper("exec sleep 600"));
    let told = "trap 'echo told; exit' TERM; echo up > up; while :; do sleep 0.1; done";
    fs::write(fleet.path().join("told"), told).unwrap();
    let definition = shell("setsid sh ./told & exec sleep 600", "directory = \".\"");
    fleet.program("mild", &definition);
    start(&mut fleet, &group);
    let pids = fleet.wait_for("web", &["RUNNING"]);
    let first = helper(&fleet);
    // The next life has a group of its own, which is not killed with what is left.
    kill(Pid::from_raw(pids[0].cast_signed()), Signal::SIGKILL).unwrap();
    let second = helper(&fleet);
    wait_for_end(first);
    fleet.wait_for_log(&format!(
        "sending KILL to what process {} has left",
        pids[0]
    ));
    assert!(!process::is_gone(second));
    fleet.wait_for_file("up");
    let log = fs::File::open(fleet.path().join("log/mild.log")).unwrap();
    fleet.stop();
    let text = std::io::read_to_string(log).unwrap();
    wait_for_end(second);
    assert!(text.contains("told\n"), "{text}");
    assert!(group.below().is_empty(), "{:?}", group.below());
}

#[test]
fn adopted_process_is_killed_with_its_control_group() {
    let Some(mut web) = Stubborn::start("fleet-adopt") else {
        return;
    };
    web.fleet.kill();
    start(&mut web.fleet, &web.group);
    web.fleet.wait_for_log("adopted 1 processes");
    web.stop();
}

#[test]
fn control_groups_are_known_after_an_upgrade() {
    let Some(web) = Stubborn::start("fleet-upgrade") else {
        return;
    };
    web.fleet.command("upgrade").unwrap();
    web.stop();
}

#[test]
fn what_is_left_of_a_process_that_ended_without_a_supervisor_is_ended() {
    let Some(group) = ControlGroup::delegated("fleet-gone") else {
        return;
    };
    let definition = shell(
        "(trap 'echo > told; exit' TERM; echo > up; while :; do sleep 0.02; done) & \
         setsid sleep 614 & echo $! > helper.new; mv helper.new helper; exec sleep 600",
        "directory = \".\"\nrestart = \"always\"",
    );
    let mut fleet = Fleet::empty();
    fleet.program("web", &definition);
    start(&mut fleet, &group);
    let pids = fleet.wait_for("web", &["RUNNING"]);
    let first = helper(&fleet);
    fleet.wait_for_file("up");
    fleet.kill();
    end_alone(pids[0]);
    start(&mut fleet, &group);
    let second = helper(&fleet);
    wait_for_end(first);
    fleet.wait_for_file("told");
    assert!(!process::is_gone(second));
    fleet.stop();
    wait_for_end(second);
    assert!(group.below().is_empty(), "{:?}", group.below());
}

#[test]
fn control_group_that_was_not_delegated_is_left_alone() {
    let Some(group) = ControlGroup::new("fleet-plain") else {
        return;
    };
    let mut fleet = Fleet::empty();
    fleet.program("web", SLEEP);
    start(&mut fleet, &group);
    let pids = fleet.wait_for("web", &["RUNNING"]);
    assert!(group.below().is_empty(), "{:?}", group.below());
    let members = fs::read_to_string(group.path().join("cgroup.procs")).unwrap();
    assert!(
        members.lines().any(|line| line == pids[0].to_string()),
        "{members}"
    );
}

#[test]
fn what_a_process_has_left_is_killed_by_the_next_supervisor() {
    let Some(group) = ControlGroup::delegated("fleet-heir") else {
        return;
    };
    let mut fleet = Fleet::empty();
    let definition = with_helper("exec sleep 600").replace("300ms", "1h");
    fleet.program("web", &definition);
    start(&mut fleet, &group);
    let pids = fleet.wait_for("web", &["RUNNING"]);
    let first = helper(&fleet);
    kill(Pid::from_raw(pids[0].cast_signed()), Signal::SIGKILL).unwrap();
    let second = helper(&fleet);
    // Only a file tells of the first one now; it is not lost with a supervisor.
    for _ in 0..2 {
        fleet.kill();
        start(&mut fleet, &group);
        fleet.wait("its inbox to be looked at", || {
            fleet.command("signal-web-CONT").ok()
        });
    }
    wait_for_end(first);
    fleet.wait("the end of the file", || {
        let mut files = fs::read_dir(fleet.path().join("run")).unwrap();
        let is_left = |path: PathBuf| path.extension().is_some_and(|end| end == "left");
        (!files.any(|file| is_left(file.unwrap().path()))).then_some(())
    });
    assert!(!process::is_gone(second));
    assert_eq!(group.below(), ["fleet-web.0-1"]);
}

#[test]
fn control_groups_in_which_nothing_was_born_are_removed() {
    let Some(group) = ControlGroup::delegated("fleet-unborn") else {
        return;
    };
    fs::create_dir(group.path().join("fleet-gone.0-3")).unwrap();
    fs::create_dir(group.path().join("another")).unwrap();
    let mut fleet = Fleet::empty();
    fleet.program("web", SLEEP);
    start(&mut fleet, &group);
    fleet.wait_for("web", &["RUNNING"]);
    assert_eq!(group.below(), ["another", "fleet-web.0-0"]);
    // What is in one dies, as a process does that was killed while it was made.
    let dying = group.path().join("fleet-dying.0-0");
    fs::create_dir(&dying).unwrap();
    let mut child = std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap();
    fs::write(dying.join("cgroup.procs"), child.id().to_string()).unwrap();
    fleet.kill();
    start(&mut fleet, &group);
    fleet.wait_for_log("adopted 1 processes");
    fleet.command("signal-web-CONT").unwrap();
    assert_eq!(child.try_wait().unwrap(), None, "it may be another fleet's");
    child.kill().unwrap();
    child.wait().unwrap();
    fleet.wait("the removal of the control group", || {
        (group.below() == ["another", "fleet-web.0-0"]).then_some(())
    });
}
