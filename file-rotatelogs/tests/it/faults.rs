//! Disks that are full, files and directories that vanish, permissions that are lost.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use file_rotatelogs::{Clock, ErrorPolicy, NonBlocking, RotateLogs};

use crate::child::{Child, Start};
use crate::support::{
    DAY, Events, Hands, Scratch, before_logs_look, contents, expect, is_root, names, need, run,
    tree, utc, wait_until, wait_until_logs_look,
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

/// Writes until the disk is full, has room made, and writes on.
fn fill_and_recover(directory: &Path, make_room: impl Fn(), child: &mut Child, policy: &str) {
    let path = directory.join("a.log");
    let log = format!("pattern={}", path.to_str().unwrap());
    child.open(&[&log, policy]).unwrap();
    let record = |number: u32| format!("record {number:06} {}", "x".repeat(200));
    let (mut written, mut size, mut failures) = (Vec::new(), 0, 0);
    for number in 0_u32.. {
        match child.tell(&format!("write\t{}", record(number))) {
            Ok(_) => written.push(number),
            Err(error) => {
                failures += 1;
                assert!(
                    error.contains("No space left") || error.contains("File too large"),
                    "{error}"
                );
            }
        }
        let now = fs::metadata(&path).unwrap().len();
        assert!(now >= size, "the file never shrinks");
        size = now;
        let lost: usize = child.tell("lost").unwrap().parse().unwrap();
        if lost >= 5 {
            assert_eq!(failures, if policy == "drop" { 0 } else { lost });
            break;
        }
        assert!(number < 100_000, "the disk never fills up");
    }
    make_room();
    for number in 200_000..200_010 {
        child.tell(&format!("write\t{}", record(number))).unwrap();
        written.push(number);
    }
    let text = String::from_utf8(contents(&path)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let whole = |number: &u32| {
        lines
            .iter()
            .filter(|line| **line == record(*number))
            .count()
    };
    let counted_as_lost = child.tell("lost").unwrap().parse::<usize>().unwrap();
    assert_eq!(counted_as_lost, 5);
    let missing = written.iter().filter(|number| whole(number) != 1).count();
    // A dropped record was told to be written.
    assert_eq!(missing, if policy == "drop" { 5 } else { 0 });
    let torn = lines
        .iter()
        .filter(|line| line.len() != record(0).len())
        .count();
    assert!(torn <= 5, "each failure tears one record at most: {torn}");
    let events = child.tell("events").unwrap();
    assert_eq!(events.matches("cannot write to").count(), 1, "{events}");
    assert!(events.contains("5 records were lost"), "{events}");
}

#[test]
fn file_that_may_not_grow_costs_only_the_records_that_do_not_fit() {
    for policy in ["gone", "drop"] {
        let scratch = Scratch::with_programs();
        let mut child = Child::start_as(&Start {
            under: &LIMITED,
            user: None,
        });
        let id = child.id().to_string();
        if !need("prlimit") {
            return;
        }
        let make_room = || {
            let mut lift = Command::new("prlimit");
            lift.args(["--pid", &id, "--fsize=unlimited:"]);
            assert!(run(&mut lift).success());
        };
        let policy = if policy == "drop" { "drop" } else { "lazy" };
        fill_and_recover(scratch.path(), make_room, &mut child, policy);
    }
}

#[test]
fn piece_of_a_record_that_one_process_left_spoils_no_line_of_another() {
    if !need("prlimit") {
        return;
    }
    let scratch = Scratch::with_programs();
    let path = scratch.join("a.log");
    let log = format!("pattern={}", path.to_str().unwrap());
    let [mut one, mut other] = [(); 2].map(|()| {
        let mut child = Child::start_as(&Start {
            under: &LIMITED,
            user: None,
        });
        child.open(&[&log]).unwrap();
        child
    });
    let record = format!("write\t{}", "x".repeat(100));
    wait_until("the disk is full", || one.tell(&record).is_err());
    assert!(!contents(&path).ends_with(b"\n"), "a piece is left");
    other.tell("write\tlost").unwrap_err();
    for child in [&one, &other] {
        let mut lift = Command::new("prlimit");
        lift.args(["--pid", &child.id().to_string(), "--fsize=unlimited:"]);
        assert!(run(&mut lift).success());
    }
    other.tell("write\twhole").unwrap();
    one.tell("write\twhole, too").unwrap();
    let text = String::from_utf8(contents(&path)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[lines.len() - 2..], ["whole", "whole, too"]);
    assert!(lines.iter().all(|line| !line.is_empty()));
}

/// Lets no file grow past some kilobytes. XFSZ is ignored, so that the write fails
/// instead.
const LIMITED: [&str; 4] = [
    "sh",
    "-c",
    "ulimit -S -f 32; trap '' XFSZ; exec \"$@\"",
    "sh",
];

/// A file system of its own, gone when dropped.
struct Mount(Scratch);

impl Mount {
    /// Mounts one, or tells why not.
    fn new(options: &str) -> Option<Self> {
        let scratch = Scratch::with_programs();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(scratch.path())
            .stderr(std::process::Stdio::null());
        let mounted = run(&mut mount).success();
        if !mounted {
            // Not root, or root of a container only: the limit on a file's size is tested
            // everywhere.
            println!("left out: cannot mount a tmpfs");
        }
        mounted.then_some(Self(scratch))
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount
            .args(["-o", &format!("remount,{options}")])
            .arg(self.0.path());
        assert!(run(&mut mount).success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.0.path()));
    }
}

#[test]
fn full_disk_costs_only_the_records_that_do_not_fit() {
    for policy in ["lazy", "drop"] {
        let Some(mount) = Mount::new("size=256k") else {
            return;
        };
        let filler = mount.0.join("filler");
        fs::write(&filler, vec![0; 64 * 1024]).unwrap();
        let mut child = Child::start();
        fill_and_recover(
            mount.0.path(),
            || fs::remove_file(&filler).unwrap(),
            &mut child,
            policy,
        );
    }
}

#[test]
fn full_disk_keeps_the_old_file_when_there_is_no_room_for_the_next() {
    // Room for the directory, the log and the lock, but for no file more.
    let Some(mount) = Mount::new("size=1m,nr_inodes=4") else {
        return;
    };
    let hands = Hands::at(utc(2026, 1, 1, 12, 0, 0));
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(mount.0.join("a.%Y%m%d")).clock(hands.on(Clock::utc())))
        .build()
        .unwrap();
    writeln!(&logs, "one").unwrap();
    fs::write(mount.0.join("filler"), "").unwrap();
    hands.advance(DAY);
    for _ in 0..1000 {
        writeln!(&logs, "two").unwrap();
    }
    assert_eq!(logs.rotate().unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(logs.current_path(), mount.0.join("a.20260101"));
    fs::remove_file(mount.0.join("filler")).unwrap();
    wait_until("it has rotated", || {
        writeln!(&logs, "three").unwrap();
        logs.current_path() == mount.0.join("a.20260102")
    });
    assert_eq!(logs.lost(), 0);
    assert_eq!(events.count("cannot rotate"), 1, "{:?}", events.all());
    assert_eq!(events.count("can rotate"), 1, "{:?}", events.all());
    drop(logs);
}

#[test]
fn queue_on_a_full_disk_counts_what_is_lost_and_goes_on() {
    let Some(mount) = Mount::new("size=128k") else {
        return;
    };
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(mount.0.join("a.log")))
        .build()
        .unwrap();
    let log = NonBlocking::new(logs.clone()).unwrap();
    for number in 0..4000 {
        writeln!(&log, "record {number:06} {}", "x".repeat(100)).unwrap();
    }
    let error = (&log).flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let text = String::from_utf8(contents(&mount.0.join("a.log"))).unwrap();
    let whole = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with("x\n"))
        .count() as u64;
    assert_eq!(logs.lost(), 4000 - whole);
    mount.remount("size=1m");
    writeln!(&log, "after").unwrap();
    (&log).flush().unwrap();
    let text = String::from_utf8(contents(&mount.0.join("a.log"))).unwrap();
    assert_eq!(text.lines().last(), Some("after"), "on a line of its own");
    assert!(text.lines().all(|line| !line.is_empty()));
    assert_eq!(events.count("cannot write"), 1, "{:?}", events.all());
    assert!(
        events
            .all()
            .last()
            .unwrap()
            .contains(&format!("{} records were lost", 4000 - whole))
    );
    drop((log, logs));
}

#[test]
fn batch_goes_on_after_the_record_that_did_not_fit() {
    if !need("prlimit") {
        return;
    }
    let scratch = Scratch::with_programs();
    let mut child = Child::start_as(&Start {
        under: &LIMITED,
        user: None,
    });
    let log = format!("pattern={}", scratch.join("a.log").to_str().unwrap());
    // The limit is lifted as soon as a failure is told.
    child.open(&[&log, "queue=block", "room"]).unwrap();
    let padding = "x".repeat(100);
    child.tell(&format!("count\t{padding}\t0\t1000")).unwrap();
    let error = child.tell("flush").unwrap_err();
    assert!(error.contains("File too large"), "{error}");
    assert_eq!(child.tell("lost").unwrap(), "1");
    let text = String::from_utf8(contents(&scratch.join("a.log"))).unwrap();
    let whole: Vec<u32> = text
        .lines()
        .filter(|line| line.len() > padding.len())
        .filter_map(|line| line.strip_prefix(&padding)?.trim_start().parse().ok())
        .collect();
    assert_eq!(whole.len(), 999, "all the others are there");
    assert!(whole.is_sorted());
    let events = child.tell("events").unwrap();
    assert!(events.contains("1 records were lost"), "{events}");
    child.tell("flush").unwrap();
}

#[test]
fn batch_is_given_up_when_each_failure_takes_long() {
    if !need("strace") {
        return;
    }
    let scratch = Scratch::with_programs();
    let (path, trace) = (scratch.join("a.log"), scratch.join("trace"));
    let failing = "inject=write:error=EIO:delay_enter=30000";
    let mut child = Child::traced(&["-P", path.to_str().unwrap(), "-e", failing], &trace);
    let log = format!("pattern={}", path.to_str().unwrap());
    // The thread is held up by its first failure until the others are queued, so that they
    // are one batch.
    child.open(&[&log, "queue=block", "gather"]).unwrap();
    child.tell("write\tfirst").unwrap();
    wait_until("the first has failed", || {
        child.tell("events").unwrap().contains("cannot write")
    });
    child.tell("count\trecord\t0\t1000").unwrap();
    child.tell("flush").unwrap_err();
    assert_eq!(child.tell("lost").unwrap(), "1001");
    drop(child);
    let text = fs::read_to_string(&trace).unwrap();
    let writes = text.lines().filter(|line| line.contains("write(")).count();
    // A failure, and what can be tried in a tenth of a second at 30 ms each, by a clock that
    // may be late.
    assert!((1 + 2..=1 + 20).contains(&writes), "{writes} attempts");
}

#[test]
fn batch_that_is_cut_at_the_end_of_a_record_leaves_no_empty_line() {
    let Some(mount) = Mount::new("size=128k") else {
        return;
    };
    let logs = RotateLogs::builder(mount.0.join("a.log")).build().unwrap();
    let log = NonBlocking::new(logs.clone()).unwrap();
    // So that pages are full of whole records.
    for number in 0..4096 {
        writeln!(&log, "{number:>63}").unwrap();
    }
    assert_eq!((&log).flush().unwrap_err().kind(), ErrorKind::StorageFull);
    let kept = 4096 - logs.lost();
    mount.remount("size=1m");
    writeln!(&log, "after").unwrap();
    (&log).flush().unwrap();
    let text = String::from_utf8(contents(&mount.0.join("a.log"))).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines.len() as u64, kept + 1);
    assert_eq!(lines.last(), Some(&"after"));
    assert!(lines.iter().all(|line| !line.is_empty()));
}

#[test]
fn read_only_file_system_is_an_error_until_it_is_writable_again() {
    let Some(mount) = Mount::new("size=1m,ro") else {
        return;
    };
    let error = RotateLogs::builder(mount.0.join("a.log"))
        .build()
        .unwrap_err();
    assert_eq!(
        error.io_kind(),
        Some(ErrorKind::ReadOnlyFilesystem),
        "{error}"
    );
    let error = RotateLogs::builder(mount.0.join("deep/a.log"))
        .build()
        .unwrap_err();
    assert_eq!(
        error.io_kind(),
        Some(ErrorKind::ReadOnlyFilesystem),
        "{error}"
    );

    let events = Events::default();
    let builder = || RotateLogs::builder(mount.0.join("a.log")).lazy(true);
    let logs = events.of(builder()).build().unwrap();
    let dropping = builder().on_error(ErrorPolicy::Drop).build().unwrap();
    for _ in 0..3 {
        let error = writeln!(&logs, "x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
        writeln!(&dropping, "x").unwrap();
    }
    assert_eq!((logs.lost(), dropping.lost()), (3, 3));
    mount.remount("rw");
    writeln!(&logs, "y").unwrap();
    writeln!(&dropping, "z").unwrap();
    assert_eq!(contents(&mount.0.join("a.log")), b"y\nz\n");
    assert_eq!(events.count("cannot write"), 1, "{:?}", events.all());
    assert_eq!(events.count("can write"), 1, "{:?}", events.all());
    drop((logs, dropping));
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
