//! Files and directories that vanish, permissions that are lost.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use file_rotatelogs::{Clock, RotateLogs};

use crate::child::{Child, Start};
use crate::support::{
    Events, Hands, Scratch, before_logs_look, contents, expect, is_root, names, run, tree, utc,
    wait_until, wait_until_logs_look,
};

#[test]
fn deleted_file_is_noticed_though_the_callers_clock_stands_still() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 5, 10, 12, 30, 0));
    let logs = RotateLogs::builder(scratch.join("a.%H"))
        .clock(hands.on(Clock::utc()))
        .build()
        .unwrap();
    fs::remove_file(logs.current_path()).unwrap();
    wait_until("there is a file again", || {
        writeln!(&logs, "x").unwrap();
        logs.current_path().exists()
    });
}

#[test]
fn deleted_file_is_noticed_and_opened_anew() {
    let scratch = Scratch::new();
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(scratch.join("a.log")).link(scratch.join("current")))
        .build()
        .unwrap();
    writeln!(&logs, "before").unwrap();
    fs::remove_file(scratch.join("a.log")).unwrap();
    wait_until("a file is there again", || {
        writeln!(&logs, "after").unwrap();
        scratch.join("a.log").exists()
    });
    assert!(contents(&scratch.join("a.log")).starts_with(b"after\n"));
    assert_eq!(names(scratch.path()), ["a.log", "current"]);
    assert!(
        events.all()[1].ends_with("(moved or deleted)"),
        "{:?}",
        events.all()
    );
}

#[test]
fn first_record_after_a_pause_finds_the_file_gone() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 1, 1, 0, 0, 0));
    let logs = RotateLogs::builder(scratch.join("a.%Y"))
        .clock(hands.on(Clock::utc()))
        .build()
        .unwrap();
    writeln!(&logs, "before").unwrap();
    fs::remove_file(scratch.join("a.2026")).unwrap();
    // The hands stand still; the half second is that of a clock nobody can stop.
    wait_until_logs_look();
    writeln!(&logs, "after").unwrap();
    assert_eq!(tree(scratch.path()), expect([("a.2026", "after\n")]));
}

#[test]
fn moved_file_keeps_what_was_written_and_a_new_one_is_begun() {
    let (scratch, logs) = before_logs_look(|| {
        let scratch = Scratch::new();
        let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
        writeln!(&logs, "before").unwrap();
        // As logrotate does.
        fs::rename(scratch.join("a.log"), scratch.join("a.log.1")).unwrap();
        writeln!(&logs, "meanwhile").unwrap();
        (scratch, logs)
    });
    logs.reopen().unwrap();
    writeln!(&logs, "after").unwrap();
    assert_eq!(
        tree(scratch.path()),
        expect([("a.log", "after\n"), ("a.log.1", "before\nmeanwhile\n")])
    );
    fs::rename(scratch.join("a.log.1"), scratch.join("a.log.2")).unwrap();
    fs::rename(scratch.join("a.log"), scratch.join("a.log.1")).unwrap();
    fs::write(scratch.join("a.log"), "made by logrotate\n").unwrap();
    logs.reopen().unwrap();
    writeln!(&logs, "third").unwrap();
    assert_eq!(
        contents(&scratch.join("a.log")),
        b"made by logrotate\nthird\n"
    );
    drop(logs);
    // A restart goes on with the name without a number too, even where logrotate leaves none.
    fs::rename(scratch.join("a.log"), scratch.join("a.log.3")).unwrap();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    assert_eq!(logs.current_path(), scratch.join("a.log"));
}

#[test]
fn reopen_changes_nothing_when_the_file_is_in_its_place() {
    let scratch = Scratch::new();
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(scratch.join("a.log")))
        .build()
        .unwrap();
    writeln!(&logs, "x").unwrap();
    logs.reopen().unwrap();
    writeln!(&logs, "y").unwrap();
    assert_eq!(tree(scratch.path()), expect([("a.log", "x\ny\n")]));
    assert_eq!(events.all().len(), 1);
}

#[test]
fn generation_that_is_deleted_is_made_again_under_its_name() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    logs.rotate().unwrap();
    logs.rotate().unwrap();
    fs::remove_file(scratch.join("a.log.2")).unwrap();
    logs.reopen().unwrap();
    writeln!(&logs, "x").unwrap();
    assert_eq!(contents(&scratch.join("a.log.2")), b"x\n");
    assert_eq!(names(scratch.path()).len(), 3);
}

#[test]
fn vanished_directory_is_made_again() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("x/%Y/a.log"))
        .clock(Hands::at(utc(2026, 1, 1, 0, 0, 0)).on(Clock::utc()))
        .link(scratch.join("x/current"))
        .build()
        .unwrap();
    writeln!(&logs, "before").unwrap();
    fs::remove_dir_all(scratch.join("x")).unwrap();
    wait_until("it is there again", || {
        writeln!(&logs, "after").unwrap();
        scratch.join("x/2026/a.log").exists() && scratch.join("x/current").exists()
    });
    assert!(contents(&scratch.join("x/current")).starts_with(b"after\n"));
}

/// Another user's processes for this one, when it is root's; else one of its own.
fn start_as_user() -> Child {
    Child::start_as(&Start {
        under: &[],
        user: is_root().then_some(65_534),
    })
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory that the other user may write in.
fn shared(scratch: &Scratch) -> PathBuf {
    set_mode(scratch.path(), 0o755);
    let directory = scratch.join("logs");
    fs::create_dir(&directory).unwrap();
    set_mode(&directory, 0o777);
    directory
}

#[test]
fn rotation_without_permission_keeps_the_file_until_there_is_one_again() {
    let scratch = Scratch::with_programs();
    let directory = shared(&scratch);
    let mut child = start_as_user();
    let log = format!("pattern={}/a.log", directory.to_str().unwrap());
    let link = format!("link={}/current", directory.to_str().unwrap());
    child.open(&[&log, &link, "bytes=20"]).unwrap();
    child.tell("write\tbefore it was full").unwrap();
    set_mode(&directory, 0o555);
    for number in 0..20 {
        child.tell(&format!("write\t{number}")).unwrap();
    }
    assert!(child.tell("rotate").is_err());
    assert!(child.tell("path").unwrap().ends_with("a.log"));
    assert_eq!(
        contents(&directory.join("a.log")).len(),
        19 + 10 * 2 + 10 * 3
    );
    assert_eq!(child.tell("lost").unwrap(), "0");
    set_mode(&directory, 0o777);
    wait_until("it rotates again", || {
        child.tell("write\tx").unwrap();
        child.tell("path").unwrap().ends_with("a.log.1")
    });
    let events = child.tell("events").unwrap();
    assert_eq!(events.matches("cannot rotate to").count(), 1, "{events}");
    assert_eq!(events.matches("can rotate to").count(), 1, "{events}");
    assert_eq!(
        fs::read_link(directory.join("current")).unwrap(),
        Path::new("a.log.1")
    );
}

#[test]
fn removal_without_permission_is_told_once_and_done_when_it_can_be() {
    let scratch = Scratch::with_programs();
    let directory = shared(&scratch);
    for name in ["a.2020", "a.2021", "a.2022.gz"] {
        fs::write(directory.join(name), "x").unwrap();
    }
    fs::write(directory.join(".a.%Y.lock"), "").unwrap();
    fs::write(directory.join("a.2023"), "").unwrap();
    set_mode(&directory.join(".a.%Y.lock"), 0o666);
    set_mode(&directory, 0o555);
    let mut child = start_as_user();
    let log = format!("pattern={}/a.%Y", directory.to_str().unwrap());
    child.open(&[&log, "files=1", "lazy"]).unwrap();
    child.tell("settle").unwrap();
    let events = child.tell("events").unwrap();
    assert_eq!(events.matches("cannot remove").count(), 3, "{events}");
    assert_eq!(names(&directory).len(), 4);
    set_mode(&directory, 0o777);
    child.tell("write\tx").unwrap();
    child.tell("settle").unwrap();
    let events = child.tell("events").unwrap();
    assert_eq!(events.matches("cannot").count(), 3, "{events}");
    assert_eq!(events.matches("can remove").count(), 3, "{events}");
    assert_eq!(names(&directory).len(), 1);
}

#[test]
fn directory_that_cannot_be_listed_is_told_as_the_limits_cannot_hold() {
    let scratch = Scratch::with_programs();
    let directory = shared(&scratch);
    fs::write(directory.join("a.2020"), "x").unwrap();
    set_mode(&directory, 0o333);
    let mut child = start_as_user();
    let log = format!("pattern={}/a.%Y", directory.to_str().unwrap());
    child.open(&[&log, "files=1"]).unwrap();
    child.tell("settle").unwrap();
    child.tell("rotate").unwrap();
    child.tell("settle").unwrap();
    let told = format!("list {directory:?}");
    let events = child.tell("events").unwrap();
    assert_eq!(
        events.matches(&format!("cannot {told}")).count(),
        1,
        "{events}"
    );
    set_mode(&directory, 0o777);
    child.tell("rotate").unwrap();
    child.tell("settle").unwrap();
    let events = child.tell("events").unwrap();
    assert_eq!(
        events.matches(&format!("can {told}")).count(),
        1,
        "{events}"
    );
    assert_eq!(names(&directory).len(), 1);
}

#[test]
fn lock_that_is_another_users_holds_up_a_rotation_all_the_same() {
    let scratch = Scratch::with_programs();
    let directory = shared(&scratch);
    let lock = fs::File::create(directory.join(".a.log.lock")).unwrap();
    set_mode(&directory.join(".a.log.lock"), 0o444);
    let mut child = start_as_user();
    let log = format!("pattern={}/a.log", directory.to_str().unwrap());
    child.open(&[&log]).unwrap();
    lock.lock().unwrap();
    let begun = Instant::now();
    child.tell("rotate").unwrap();
    // It waits for a second, by a clock that may be late.
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(900), "{waited:?}");
    assert_eq!(names(&directory), ["a.log", "a.log.1"]);
}

#[test]
fn lock_is_no_way_to_another_file_and_does_not_hang() {
    let scratch = Scratch::with_programs();
    let lock = scratch.join(".a.log.lock");
    fs::write(scratch.join("precious"), "precious").unwrap();
    let pipe = || assert!(run(Command::new("mkfifo").arg(&lock)).success());
    let link = || std::os::unix::fs::symlink("precious", &lock).unwrap();
    let dangling = || std::os::unix::fs::symlink("nowhere", &lock).unwrap();
    for put_in_its_place in [&pipe as &dyn Fn(), &link, &dangling] {
        put_in_its_place();
        let logs = RotateLogs::builder(scratch.join("a.log"))
            .rotate_at_bytes(3)
            .build()
            .unwrap();
        logs.rotate().unwrap();
        for _ in 0..3 {
            writeln!(&logs, "x").unwrap();
        }
        drop(logs);
        fs::remove_file(&lock).unwrap();
    }
    assert_eq!(contents(&scratch.join("precious")), b"precious");
    assert!(!scratch.join("nowhere").exists());
    let text: Vec<String> = tree(scratch.path()).into_values().collect();
    assert_eq!(text.concat().matches("x\n").count(), 9);
}

#[test]
fn file_of_another_user_that_may_not_be_written_is_an_error_with_its_name() {
    let scratch = Scratch::with_programs();
    let directory = shared(&scratch);
    fs::write(directory.join("a.log"), "precious").unwrap();
    set_mode(&directory.join("a.log"), 0o444);
    let mut child = start_as_user();
    let log = format!("pattern={}/a.log", directory.to_str().unwrap());
    let error = child.open(&[&log]).unwrap_err();
    assert!(
        error.contains("pattern: cannot open") && error.contains("a.log"),
        "{error}"
    );
    assert_eq!(contents(&directory.join("a.log")), b"precious");
}

#[test]
fn lost_directory_and_lost_permission_are_an_error_until_both_are_back() {
    let scratch = Scratch::with_programs();
    let outer = shared(&scratch);
    let mut child = start_as_user();
    let log = format!("pattern={}/inner/a.log", outer.to_str().unwrap());
    child.open(&[&log]).unwrap();
    child.tell("write\tbefore").unwrap();
    set_mode(&outer, 0o777);
    fs::remove_dir_all(outer.join("inner")).unwrap();
    set_mode(&outer, 0o555);
    wait_until("the loss is noticed", || child.tell("write\tlost").is_err());
    let error = child.tell("write\tlost").unwrap_err();
    assert!(error.contains("ermission denied"), "{error}");
    set_mode(&outer, 0o777);
    child.tell("write\tafter").unwrap();
    assert_eq!(contents(&outer.join("inner/a.log")), b"after\n");
    let lost: u64 = child.tell("lost").unwrap().parse().unwrap();
    assert!(lost >= 2, "{lost}");
    let events = child.tell("events").unwrap();
    assert_eq!(events.matches("cannot write to").count(), 1, "{events}");
    assert!(
        events.contains(&format!("again, {lost} records were lost")),
        "{events}"
    );
}

#[test]
fn what_is_no_regular_file_is_refused_and_does_not_hang() {
    let scratch = Scratch::with_programs();
    fs::create_dir(scratch.join("directory")).unwrap();
    assert!(run(Command::new("mkfifo").arg(scratch.join("pipe"))).success());
    for path in [
        scratch.join("directory"),
        scratch.join("pipe"),
        PathBuf::from("/dev/null"),
    ] {
        let error = RotateLogs::builder(&path).build().unwrap_err();
        assert_eq!(error.setting(), "pattern", "{path:?}");
    }
    let reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(scratch.join("pipe"));
    RotateLogs::builder(scratch.join("pipe"))
        .build()
        .unwrap_err();
    let mut lazy = RotateLogs::builder(scratch.join("pipe"))
        .lazy(true)
        .build()
        .unwrap();
    for _ in 0..2 {
        let error = lazy.write_all(b"x\n").unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
    }
    drop(reader);
}

#[test]
fn recovery_tells_what_was_lost_since_it_failed_and_not_before() {
    let scratch = Scratch::new();
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(scratch.join("d/a.log")).lazy(true))
        .build()
        .unwrap();
    for (round, lost) in [1, 2].into_iter().enumerate() {
        fs::remove_dir_all(scratch.join("d")).unwrap();
        fs::write(scratch.join("d"), "no directory").unwrap();
        // The file of the round before is given up; in the first there is none.
        assert_eq!(logs.reopen().is_err(), round > 0);
        for _ in 0..lost {
            assert!(writeln!(&logs, "lost").is_err());
        }
        fs::remove_file(scratch.join("d")).unwrap();
        writeln!(&logs, "kept").unwrap();
        let told = format!("again, {lost} records were lost");
        let last = events
            .all()
            .into_iter()
            .rfind(|event| event.starts_with("can write"));
        assert!(last.is_some_and(|event| event.ends_with(&told)), "{told}");
    }
    assert_eq!(logs.lost(), 3);
}
