use std::fs;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::fixture::{Fleet, SLEEP, wait_for_end};

#[test]
fn number_of_instances_is_what_a_command_prints() {
    let mut fleet = Fleet::empty();
    fs::write(fleet.path().join("wanted"), "2\n").unwrap();
    let definition = SLEEP.to_owned()
        + "directory = \".\"\ninstances = { command = \"cat wanted\", interval = \"100ms\", max = 5 }";
    fleet.program("pool", &definition);
    fleet.start();
    let before = fleet.wait_for("pool", &["RUNNING"; 2]);
    fs::write(fleet.path().join("wanted"), "4\n").unwrap();
    assert_eq!(fleet.wait_for("pool", &["RUNNING"; 4])[..2], before);
    fs::write(fleet.path().join("wanted"), "nonsense\n").unwrap();
    let line = fleet.wait_for_log("nonsense");
    assert!(line.contains("4 instances go on being wanted"), "{line}");
    fs::write(fleet.path().join("wanted"), "9\n").unwrap();
    fleet.wait_for("pool", &["RUNNING"; 5]);
    fs::write(fleet.path().join("wanted"), "1\n").unwrap();
    assert_eq!(fleet.wait_for("pool", &["RUNNING"]), before[..1]);
}

#[test]
fn command_that_counts_and_prints_no_number_is_told_once_and_shown() {
    let mut fleet = Fleet::empty();
    let count = fleet.path().join("count");
    let script = format!("echo asked >> {0}.asked; cat {0}", count.display());
    let definition = format!("{SLEEP}instances = {{ command = '{script}', interval = \"20ms\" }}");
    fleet.write("count", "2");
    fleet.program("web", &definition);
    fleet.start();
    let before = fleet.wait_for("web", &["RUNNING"; 2]);
    assert!(fleet.program_status("web")["error"].is_null());
    fleet.write("count", "many\x1b[31m");
    let error = fleet.wait("a complaint", || {
        let error = &fleet.program_status("web")["error"];
        error.as_str().map(str::to_owned)
    });
    assert!(
        error.contains("printed `many [31m`, expected a number"),
        "{error}"
    );
    let asked = || fs::read_to_string(count.with_extension("asked")).unwrap();
    let times = asked().lines().count();
    fleet.wait("three more questions", || {
        (asked().lines().count() > times + 3).then_some(())
    });
    let log = fleet.log();
    assert_eq!(log.matches("expected a number").count(), 1, "{log}");
    assert!(log.contains("2 instances go on being wanted"), "{log}");
    assert_eq!(fleet.wait_for("web", &["RUNNING"; 2]), before);
    fleet.write("count", "2");
    fleet.wait("no complaint", || {
        fleet.program_status("web")["error"].is_null().then_some(())
    });
}

/// A fleet of one program whose counting command has said 1 and hangs, with a
/// process of its own; and that process.
fn with_hanging_counter() -> (Fleet, u32) {
    let mut fleet = Fleet::empty();
    let command = "echo 1; if [ -e counted ]; then sleep 615 & echo $! > child.new; mv child.new child; wait; fi; echo > counted";
    let definition = format!(
        "{SLEEP}directory = \".\"\ninstances = {{ command = \"{command}\", interval = \"50ms\" }}"
    );
    fleet.program("pool", &definition);
    fleet.start();
    fleet.wait_for("pool", &["RUNNING"]);
    let child = fleet.wait_for_file("child").trim().parse().unwrap();
    fs::remove_file(fleet.path().join("child")).unwrap();
    (fleet, child)
}

fn counts(fleet: &Fleet) -> bool {
    fleet.path().join("run/pool.counter").exists()
}

#[test]
fn command_that_counts_is_killed_with_all_it_has_started_when_its_program_goes() {
    let (fleet, child) = with_hanging_counter();
    fleet.wait("its file", || counts(&fleet).then_some(()));
    fleet.remove_program("pool");
    wait_for_end(child);
    fleet.wait_for_log("pool: removed");
    fleet.wait("no file", || (!counts(&fleet)).then_some(()));
    fleet.wait("no process", || fleet.children().is_empty().then_some(()));
}

#[test]
fn command_that_counts_is_killed_with_all_it_has_started_when_it_is_not_asked() {
    for command in ["stop-pool", "scale-pool-2"] {
        let (fleet, child) = with_hanging_counter();
        fleet.command(command).unwrap();
        wait_for_end(child);
        fleet.wait("no file", || (!counts(&fleet)).then_some(()));
    }
}

#[test]
fn command_that_counts_is_killed_with_all_it_has_started_when_the_fleet_ends() {
    let (fleet, child) = with_hanging_counter();
    fleet.stop();
    wait_for_end(child);
}

#[test]
fn command_that_counts_is_asked_again_by_the_next_supervisor() {
    let (mut fleet, first) = with_hanging_counter();
    fleet.command("upgrade").unwrap();
    wait_for_end(first);
    let second: u32 = fleet.wait_for_file("child").trim().parse().unwrap();
    assert!(!crate::process::is_gone(second));
    fleet.kill();
    fleet.start();
    wait_for_end(second);
    fleet.wait_for("pool", &["RUNNING"]);
}

#[test]
fn command_that_counts_is_not_asked_while_the_number_is_set() {
    let mut fleet = Fleet::empty();
    let definition = SLEEP.to_owned() + "instances = { command = \"echo 2\", interval = \"20ms\" }";
    fleet.program("pool", &definition);
    fleet.start();
    fleet.wait_for("pool", &["RUNNING"; 2]);
    fleet.command("scale-pool-3").unwrap();
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    let made = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(&fleet.path().join("run"), made).unwrap();
    for _ in 0..3 {
        fleet.command("signal-pool-CONT").unwrap();
    }
    let events = inotify.read_events().unwrap_or_default();
    let mut names = events.iter().filter_map(|event| event.name.as_deref());
    let asked = names.find(|name| name.as_encoded_bytes().starts_with(b"pool.counter"));
    assert_eq!(asked, None);
}
