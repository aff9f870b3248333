//! What a record costs that needs no clock to be measured.

use std::fs;
use std::io::{IoSlice, Write};
use std::time::Duration;

use file_rotatelogs::{NonBlocking, Overflow, RotateLogs};

use crate::allocator::allocations;
use crate::child::Child;
use crate::support::{Scratch, need, wait_until, wait_until_logs_look};

#[test]
fn record_is_written_without_an_allocation() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.%Y%m%d.log"))
        .link(scratch.join("current"))
        .rotate_at_bytes(1 << 30)
        .max_files(3)
        .max_age(Duration::from_secs(1_000_000))
        .on_event(|_| {})
        .build()
        .unwrap();
    let record = [b'x'; 200];
    let write = || {
        (&logs).write_all(&record).unwrap();
        writeln!(&logs, "{} {:?} {}", 1, "two", 3.5).unwrap();
        writeln!(&logs, "no arguments").unwrap();
        let parts = [IoSlice::new(&record), IoSlice::new(b"\n")];
        assert_eq!((&logs).write_vectored(&parts).unwrap(), 201);
    };
    write();
    // Looking after the file twice a second may allocate; with luck it falls between.
    let least = (0..20)
        .map(|_| allocations(|| (0..50).for_each(|_| write())))
        .min();
    assert_eq!(least, Some(0));
}

#[test]
fn record_is_queued_without_an_allocation() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    for overflow in [Overflow::Block, Overflow::DropNewest] {
        let log = NonBlocking::builder(logs.clone())
            .overflow(overflow)
            .build()
            .unwrap();
        let record = [b'x'; 200];
        let write = || {
            for _ in 0..100 {
                (&log).write_all(&record).unwrap();
                writeln!(&log, "{} {:?}", 1, "two").unwrap();
            }
        };
        // Both halves of the queue grow to what they need.
        for _ in 0..4 {
            write();
            (&log).flush().unwrap();
        }
        let least = (0..20)
            .map(|_| {
                let count = allocations(write);
                (&log).flush().unwrap();
                count
            })
            .min();
        assert_eq!(least, Some(0), "{overflow:?}");
    }
}

#[test]
fn dropped_record_costs_no_allocation() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    let log = NonBlocking::builder(logs)
        .capacity(100)
        .overflow(Overflow::DropNewest)
        .build()
        .unwrap();
    let record = [b'x'; 90];
    let write = || (0..10_000).for_each(|_| (&log).write_all(&record).unwrap());
    write();
    assert!(log.dropped() > 0);
    let least = (0..20).map(|_| allocations(write)).min();
    assert_eq!(least, Some(0));
}

#[test]
fn record_is_one_system_call() {
    if !need("strace") {
        return;
    }
    let scratch = Scratch::with_programs();
    let trace = scratch.join("trace");
    for settings in [&["lazy"][..], &["bytes=10000000", "files=5", "gzip"]] {
        let mut child = Child::traced(&[], &trace);
        let log = format!("pattern={}", scratch.join("a.%Y%m%d").to_str().unwrap());
        child.open(&[&[&*log], settings].concat()).unwrap();
        child.tell("write\tfirst").unwrap();
        child.tell("settle").unwrap();
        let begun = std::time::Instant::now();
        child.tell("count\trecord\t0\t2000").unwrap();
        let looks = 2 * begun.elapsed().as_secs() as usize + 12;
        drop(child);
        let text = fs::read_to_string(&trace).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let is_record = |line: &&&str| line.contains("\"record ");
        let from = lines.iter().position(|line| is_record(&line)).unwrap();
        let to = lines.iter().rposition(|line| is_record(&line)).unwrap();
        let writes = lines.iter().filter(is_record).count();
        assert_eq!(writes, 2000, "each record is written by one call");
        assert!(
            lines
                .iter()
                .filter(is_record)
                .all(|line| line.contains(" write("))
        );
        // It looks after the file twice a second, which strace makes long, and after its
        // size ten times or so.
        let others = to + 1 - from - writes;
        assert!(
            others < 8 * looks,
            "{others} other calls in {looks} looks: {:#?}",
            &lines[from..from + 100]
        );
    }
}

#[test]
fn file_is_brought_to_the_disk_as_often_as_the_policy_says() {
    if !need("strace") {
        return;
    }
    let synced = |settings: &[&str], act: &dyn Fn(&mut Child)| {
        let scratch = Scratch::with_programs();
        let trace = scratch.join("trace");
        let mut child = Child::traced(&["-e", "trace=fdatasync"], &trace);
        let log = format!("pattern={}", scratch.join("a.log").to_str().unwrap());
        child.open(&[&[&*log], settings].concat()).unwrap();
        act(&mut child);
        child.tell("settle").unwrap();
        drop(child);
        fs::read_to_string(&trace)
            .unwrap()
            .matches("fdatasync(")
            .count()
    };
    let rotate = |child: &mut Child| {
        child.tell("write\tx").unwrap();
        child.tell("rotate").unwrap();
        child.tell("settle").unwrap();
        child.tell("rotate").unwrap();
    };
    assert_eq!(synced(&[], &rotate), 0);
    assert_eq!(synced(&["sync=rotate"], &rotate), 2);
    assert_eq!(synced(&[], &|child| drop(child.tell("sync").unwrap())), 1);
    let write = |child: &mut Child| {
        for _ in 0..2 {
            // As long as the interval.
            wait_until_logs_look();
            for _ in 0..50 {
                child.tell("write\tx").unwrap();
            }
        }
    };
    let begun = std::time::Instant::now();
    let count = synced(&["sync=500"], &write);
    // The kernel's coarse clock may tell half a second some milliseconds early.
    let intervals = begun.elapsed().as_millis() / 480;
    assert!(count >= 2, "{count}");
    assert!(
        count as u128 <= intervals,
        "{count} in {intervals} intervals"
    );
    assert_eq!(synced(&["sync=rotate"], &write), 0);
    // Once if the machine was started long ago.
    assert!(synced(&["sync=3600000"], &write) <= 1);
}

#[test]
fn housekeeping_pauses_while_a_rotation_is_on() {
    if !need("strace") {
        return;
    }
    // What to do, what shows that it has begun, and of how many files.
    let chores = [
        ("listing", "files=100000", "statx(", 1500),
        ("removing", "files=2", "unlink(", 400),
        ("compressing", "gzip", "rename(", 120),
    ];
    for (chore, settings, call, files) in chores {
        // Where the machine stands still, the rotation may come when all is done: then
        // again, with more to do.
        let attempts = (0..6).map(|attempt| files << attempt);
        let goes_on = attempts
            .map(|files| chores_after_a_rotation(chore, settings, call, files))
            .any(|rest| rest > 20);
        assert!(goes_on, "{chore} goes on after the rotation");
    }
}

/// Rotates in the middle of a chore, sees that it pauses, and returns how many calls of it
/// come after.
fn chores_after_a_rotation(chore: &str, settings: &str, call: &str, files: u32) -> usize {
    let scratch = Scratch::with_programs();
    let (directory, trace) = (scratch.join("logs"), scratch.join("trace"));
    fs::create_dir(&directory).unwrap();
    for number in 1..=files {
        fs::write(directory.join(format!("a.log.{number}")), "old").unwrap();
    }
    let calls = "trace=statx,unlink,rename,symlink";
    let slowly = "inject=symlink:delay_enter=200000";
    let mut child = Child::traced(&["-e", calls, "-e", slowly], &trace);
    let log = format!("pattern={}", directory.join("a.log").to_str().unwrap());
    let link = format!("link={}", directory.join("current").to_str().unwrap());
    child.open(&[&log, &link, settings]).unwrap();
    let thread_of = |line: &str| line.split(' ').next().unwrap().to_owned();
    let text = || fs::read_to_string(&trace).unwrap();
    let writer = text()
        .lines()
        .find(|line| line.contains("symlink("))
        .map(thread_of)
        .unwrap();
    let is_chore = |line: &str| thread_of(line) != writer && line.contains(call);
    wait_until(chore, || text().lines().any(is_chore));
    child.tell("rotate").unwrap();
    let text = text();
    let lines: Vec<&str> = text.lines().collect();
    let rotates = |line: &str| thread_of(line) == writer && line.contains("symlink");
    let end = lines.iter().rposition(|line| rotates(line)).unwrap();
    // When something was called meanwhile, its beginning and its end are two lines.
    let begun = lines.iter().rposition(|line| line.contains("symlink("));
    let meanwhile = lines[begun.unwrap()..end]
        .iter()
        .filter(|line| is_chore(line))
        .count();
    assert!(meanwhile <= 3, "{chore}: {meanwhile} calls meanwhile");
    child.tell("settle").unwrap();
    let after = fs::read_to_string(&trace).unwrap();
    after
        .lines()
        .skip(end)
        .filter(|line| is_chore(line))
        .count()
}
