//! Disks that are full or read-only.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;

use file_rotatelogs::{Clock, Compression, ErrorPolicy, NonBlocking, RotateLogs};

use crate::child::{Child, Start};
use crate::support::{DAY, Events, Hands, PATIENCE, Scratch, contents, need, run, utc, wait_until};

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
fn half_of_a_compressed_file_takes_no_room_on_a_full_disk() {
    let Some(mount) = Mount::new("size=256k") else {
        return;
    };
    // Not to be made smaller.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(200 * 1024)
    .collect();
    let path = mount.0.join("a.2020");
    fs::write(&path, &noise).unwrap();
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(mount.0.join("a.%Y")).compress(Compression::Gzip))
        .build()
        .unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(events.count("cannot compress"), 1, "{:?}", events.all());
    assert!(!mount.0.join(".a.2020.gz.tmp").exists());
    assert_eq!(contents(&path), noise);
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
