//! Several processes with one log, some of them stopped or killed.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use file_rotatelogs::{Compression, RotateLogs};

use crate::child::{Child, Start};
use crate::support::{
    Events, PATIENCE, Quiet, Scratch, contents, names, need, tree, wait_until, wait_until_logs_look,
};

fn pattern(scratch: &Scratch, name: &str) -> String {
    format!("pattern={}", scratch.join(name).to_str().unwrap())
}

/// Returns how often each line is in the files of a directory, and that all are whole.
fn lines(directory: &Path) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for (name, text) in tree(directory) {
        if text.starts_with("-> ") {
            continue;
        }
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "{name} ends in the middle of a line"
        );
        for line in text.lines() {
            *found.entry(line.to_owned()).or_insert(0) += 1;
        }
    }
    found
}

#[test]
fn records_of_two_processes_are_whole_and_in_one_file() {
    let scratch = Scratch::with_programs();
    let log = pattern(&scratch, "a.log");
    let mut children = [Child::with_log(&[&log]), Child::with_log(&[&log])];
    for (index, child) in children.iter_mut().enumerate() {
        child.send(&format!("count\t{index}\t0\t5000"));
    }
    for child in &mut children {
        assert_eq!(child.answer().unwrap(), "5000");
    }
    assert_eq!(names(scratch.path()), ["a.log"]);
    let lines = lines(scratch.path());
    assert_eq!(lines.len(), 10_000);
    for index in 0..2 {
        for number in 0..5000 {
            assert_eq!(lines[&format!("{index} {number}")], 1);
        }
    }
}

#[test]
fn size_counts_what_another_process_wrote_and_both_go_on_together() {
    let scratch = Scratch::with_programs();
    let log = pattern(&scratch, "a.log");
    let limit = 256 * 1024;
    let bytes = format!("bytes={limit}");
    let mut children: Vec<Child> = (0..4).map(|_| Child::with_log(&[&log, &bytes])).collect();
    // In rounds, so that none gets far while another stands still in a rotation.
    for from in (0..10_000).step_by(500) {
        for (index, child) in children.iter_mut().enumerate() {
            child.send(&format!(
                "count\twriter number {index} of four, with some more text\t{from}\t{}",
                from + 500
            ));
        }
        for child in &mut children {
            assert_eq!(child.answer().unwrap(), "500");
        }
    }
    // Those that were done before the others follow when they look.
    for child in &mut children {
        let newest = children_newest(scratch.path());
        wait_until("it is where the newest is", || {
            child.tell("tick").unwrap();
            child.tell("path").unwrap().ends_with(&newest)
        });
    }
    let lines = lines(scratch.path());
    assert_eq!(lines.len(), 40_000);
    assert!(lines.values().all(|&count| count == 1));
    let files = tree(scratch.path());
    let total: usize = files.values().map(String::len).sum();
    for (name, text) in &files {
        // Without counting the others' bytes it would be four times the limit. A process
        // that finds another rotating goes on for ten milliseconds.
        assert!(text.len() < limit * 4, "{name} has {} bytes", text.len());
    }
    assert!(files.len() <= total / limit * 2, "{} files", files.len());
}

fn children_newest(directory: &Path) -> String {
    let number = |name: &String| {
        name.strip_prefix("a.log.")
            .map_or(0, |n| n.parse().unwrap())
    };
    names(directory).into_iter().max_by_key(number).unwrap()
}

#[test]
fn rotation_by_one_process_is_followed_by_the_other_after_half_a_second() {
    let scratch = Scratch::with_programs();
    let log = pattern(&scratch, "a.%Y");
    let link = format!("link={}", scratch.join("current").to_str().unwrap());
    let mut one = Child::with_log(&[&log, &link]);
    let mut other = Child::with_log(&[&log, &link]);
    one.tell("write\tone").unwrap();
    other.tell("write\tother").unwrap();
    one.tell("rotate").unwrap();
    let new = one.tell("path").unwrap();
    assert!(new.ends_with(".1"));
    wait_until_logs_look();
    other.tell("write\tstill").unwrap();
    assert_eq!(other.tell("path").unwrap(), new);
    assert!(
        other
            .tell("events")
            .unwrap()
            .contains("(by another process)")
    );
    assert_eq!(
        tree(scratch.path())["current"],
        format!("-> {}", &new[scratch.path().to_str().unwrap().len() + 1..])
    );
    // Both were asked by the same signal: one rotation, not two.
    one.send("rotate");
    other.send("rotate");
    one.answer().unwrap();
    other.answer().unwrap();
    let (one, other) = (one.tell("path").unwrap(), other.tell("path").unwrap());
    assert!(one.ends_with(".2") || one.ends_with(".3"), "{one}");
    assert!(other.ends_with(".2") || other.ends_with(".3"), "{other}");
}

#[test]
fn period_that_begins_is_begun_by_all_with_one_file() {
    let scratch = Scratch::with_programs();
    let log = pattern(&scratch, "a.%Y%m%d%H%M%S");
    let mut children: Vec<Child> = (0..3).map(|_| Child::with_log(&[&log])).collect();
    let mut number = 0;
    wait_until("three periods have begun", || {
        for child in &mut children {
            child.send(&format!("write\t{number}"));
            number += 1;
        }
        for child in &mut children {
            child.answer().unwrap();
        }
        names(scratch.path()).len() > 3
    });
    let files = names(scratch.path());
    assert!(
        files.iter().all(|name| name.len() == 16),
        "no generations: {files:?}"
    );
    let lines = lines(scratch.path());
    assert!((0..number).all(|number| lines[&number.to_string()] == 1));
}

#[test]
fn stopped_process_keeps_its_file_and_its_record_is_not_lost() {
    let scratch = Scratch::with_programs();
    let log = pattern(&scratch, "a.log");
    let mut stopped = Child::with_log(&[&log]);
    stopped.tell("write\tbefore").unwrap();
    stopped.signal("STOP");
    stopped.send("write\tduring");
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .compress(Compression::Gzip)
        .max_files(1)
        .build()
        .unwrap();
    let quiet = Quiet::new();
    for _ in 0..5 {
        logs.rotate().unwrap();
        assert!(logs.wait_for_housekeeping(PATIENCE));
    }
    assert_eq!(names(scratch.path()), ["a.log", "a.log.5"]);
    drop(quiet);
    stopped.signal("CONT");
    stopped.answer().unwrap();
    let lines = lines(scratch.path());
    assert_eq!(lines["before"], 1);
    assert_eq!(lines["during"], 1);
    wait_until("it has gone on to the newest", || {
        stopped.tell("write\tafter").unwrap();
        stopped.tell("path").unwrap().ends_with("a.log.5")
    });
    // The file it had is taken now.
    logs.rotate().unwrap();
    wait_until("the file is taken", || {
        logs.tick();
        stopped.tell("write\tafter").unwrap();
        names(scratch.path()).len() == 1
    });
}

#[test]
fn process_stopped_while_it_rotates_holds_up_no_writer_and_no_rotation_for_long() {
    let scratch = Scratch::with_programs();
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(scratch.join("a.log")).rotate_at_bytes(100))
        .build()
        .unwrap();
    let lock = fs::File::open(scratch.join(".a.log.lock")).unwrap();
    lock.lock().unwrap();
    wait_until("it is rotated all the same", || {
        writeln!(&logs, "{:>40}", "record").unwrap();
        logs.current_path() != scratch.join("a.log")
    });
    assert_eq!(logs.lost(), 0);
    assert!(
        fs::read(scratch.join("a.log")).unwrap().len() > 100,
        "written to meanwhile"
    );
    // A new process comes up too.
    let mut child = Child::with_log(&[&pattern(&scratch, "a.log"), "bytes=1000000"]);
    child.tell("write\tx").unwrap();
    assert_eq!(
        child.tell("path").unwrap(),
        logs.current_path().to_str().unwrap()
    );
    lock.unlock().unwrap();
    logs.rotate().unwrap();
}

#[test]
fn dead_process_leaves_no_lock() {
    let scratch = Scratch::with_programs();
    let log = pattern(&scratch, "a.log");
    let mut child = Child::with_log(&[&log]);
    child.tell("write\tx").unwrap();
    assert!(!child.kill().success());
    let _quiet = Quiet::new();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .compress(Compression::Gzip)
        .force_new_file(true)
        .build()
        .unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(names(scratch.path()), ["a.log.1", "a.log.gz"]);
}

/// Kills a process at each system call in turn by which its writing thread opens, rotates
/// and links files, by strace, and has another go on each time.
#[test]
fn process_killed_at_any_system_call_leaves_nothing_that_stops_the_next() {
    if !need("strace") {
        return;
    }
    let scenario = |child: &mut Child, scratch: &Scratch, acknowledged: &mut Vec<String>| {
        let log = pattern(scratch, "%Y/a.log");
        let link = format!("link={}", scratch.join("current").to_str().unwrap());
        child.open(&[&log, &link, "gzip", "bytes=30", "files=4"])?;
        for number in 0..7 {
            let record = format!("record number {number}");
            child.tell(&format!("write\t{record}"))?;
            acknowledged.push(record);
            if number == 3 {
                child.tell("settle")?;
            }
        }
        child.tell("settle")?;
        child.tell("close")
    };
    let scratch = Scratch::with_programs();
    let calls = calls_of(RELEVANT, |under| {
        let mut child = Child::start_as(&Start { under, user: None });
        scenario(&mut child, &scratch, &mut Vec::new()).unwrap();
    });
    assert!(calls.len() > 100, "{calls:?}");
    let step = std::env::var("KILL_STEP").map_or(2, |step| step.parse().unwrap());
    let first = std::process::id() as usize % step;
    let mut killed = 0;
    for (call, when) in calls.iter().skip(first).step_by(step) {
        let scratch = Scratch::with_programs();
        let inject = format!("inject={call}:signal=SIGKILL:when={when}");
        let when = format!("{call} {when}");
        let mut child = Child::start_as(&Start {
            under: &["strace", "-f", "-qq", "-e", &inject, "-o", "/dev/null"],
            user: None,
        });
        let mut acknowledged = Vec::new();
        let result = scenario(&mut child, &scratch, &mut acknowledged);
        match result {
            Ok(_) => drop(child),
            Err(_) => child.bury(),
        }
        killed += usize::from(result.is_err());
        let _quiet = Quiet::new();
        let logs = RotateLogs::builder(scratch.join("%Y/a.log"))
            .link(scratch.join("current"))
            .clock(file_rotatelogs::Clock::utc())
            .rotate_at_bytes(30)
            .compress(Compression::Gzip)
            .max_files(4)
            .build()
            .unwrap_or_else(|error| panic!("after {when}: {error}"));
        writeln!(&logs, "next").unwrap();
        let linked = fs::read_to_string(scratch.join("current")).unwrap();
        assert!(linked.ends_with("next\n"), "after {when}: {linked:?}");
        logs.rotate().unwrap();
        assert!(logs.wait_for_housekeeping(PATIENCE));
        let files = names(scratch.path());
        assert!(files.len() <= 5, "after {when}: {files:?}");
        let year = fs::canonicalize(scratch.join("current")).unwrap();
        let hidden: Vec<_> = fs::read_dir(year.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert!(hidden.is_empty(), "after {when}: {hidden:?}");
        // Each file is whole: reading them all asserts that.
        let lines = lines(scratch.path());
        assert!(
            lines.values().all(|&count| count == 1),
            "after {when}: {lines:?}"
        );
        assert_eq!(lines["next"], 1);
        // Of four files one is empty, one may have the last line alone.
        for record in acknowledged.iter().rev().take(2) {
            assert_eq!(lines.get(record), Some(&1), "after {when}: {lines:?}");
        }
    }
    assert!(killed > 20, "{killed}");
}

/// Kills a process at each system call in turn by which the thread that compresses and
/// removes changes anything, by strace, and has another finish the work.
#[test]
fn process_killed_while_it_tidies_leaves_every_file_whole() {
    if !need("strace") {
        return;
    }
    let prepare = || {
        let scratch = Scratch::with_programs();
        for year in 2018..=2025 {
            fs::write(
                scratch.join(&format!("a.{year}")),
                format!("{year}\n").repeat(1000),
            )
            .unwrap();
        }
        scratch
    };
    // A lazy log opens no file, so that only that thread makes these calls.
    let which =
        "flock,rename,renameat,renameat2,unlink,unlinkat,fsync,fdatasync,fchmod,fchown,utimensat";
    let tidy = |scratch: &Scratch, under: &[&str]| {
        let mut child = Child::start_as(&Start { under, user: None });
        let log = pattern(scratch, "a.%Y");
        let settings = [&*log, "gzip", "files=6", "lazy"];
        let result = child.open(&settings).and_then(|_| child.tell("settle"));
        if result.is_err() {
            child.bury();
        }
        result
    };
    let whole = prepare();
    let calls = calls_of(which, |under| {
        tidy(&whole, under).unwrap();
    });
    // Five are compressed and two removed.
    assert!(calls.len() >= 5 * 6 + 2 * 2, "{calls:?}");
    for (call, when) in calls {
        let scratch = prepare();
        let inject = format!("inject={call}:signal=SIGKILL:when={when}");
        let when = format!("{call} {when}");
        let answer = tidy(
            &scratch,
            &["strace", "-f", "-qq", "-e", &inject, "-o", "/dev/null"],
        );
        assert_eq!(answer, Err("gone".to_owned()), "it was killed at {when}");
        for (name, text) in tree(scratch.path()) {
            let year = &name[2..6];
            assert_eq!(
                text,
                format!("{year}\n").repeat(1000),
                "{name} after {when}"
            );
        }
        tidy(&scratch, &[]).unwrap();
        assert_eq!(
            names(scratch.path()),
            [
                "a.2020.gz",
                "a.2021.gz",
                "a.2022.gz",
                "a.2023.gz",
                "a.2024.gz",
                "a.2025"
            ],
            "after {when}"
        );
        for (name, text) in tree(scratch.path()) {
            assert_eq!(
                text,
                format!("{}\n", &name[2..6]).repeat(1000),
                "{name} after {when}"
            );
        }
        assert_eq!(
            fs::read_dir(scratch.path()).unwrap().count(),
            6,
            "and nothing hidden"
        );
    }
}

/// Runs something under strace and lists the calls that one of its threads made: each
/// name with 1, 2, … up to how often.
fn calls_of(which: &str, run: impl FnOnce(&[&str])) -> Vec<(String, usize)> {
    let scratch = Scratch::with_programs();
    let trace = scratch.join("trace");
    let filter = format!("trace={which}");
    run(&[
        "strace",
        "-f",
        "-qq",
        "-e",
        &filter,
        "-o",
        trace.to_str().unwrap(),
    ]);
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in fs::read_to_string(trace).unwrap().lines() {
        let mut words = line.split_whitespace();
        let thread = words.next().unwrap().to_owned();
        if let Some((name, _)) = words.next().unwrap().split_once('(') {
            *counts.entry((name.to_owned(), thread)).or_default() += 1;
        }
    }
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    for ((name, _), count) in counts {
        let known = most.entry(name).or_default();
        *known = count.max(*known);
    }
    most.into_iter()
        .flat_map(|(name, count)| (1..=count).map(move |when| (name.clone(), when)))
        .collect()
}

/// The calls by which files come, change or go.
const RELEVANT: &str = "openat,write,writev,pwrite64,ftruncate,flock,symlink,symlinkat,rename,\
    renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync,close,fchmod,fchown,\
    utimensat";

/// Records of several processes that are killed and started again at random, with one
/// that does nothing but rotate: each acknowledged record is there once and whole.
#[test]
fn acknowledged_records_survive_random_kills() {
    let records: u64 = std::env::var("TORTURE_RECORDS").map_or(4_000, |n| n.parse().unwrap());
    let report = crate::torture::run(
        4,
        records,
        256 * 1024 / if records < 50_000 { 8 } else { 1 },
    );
    assert!(report.kills > 0, "{report:?}");
    if records > 50_000 {
        println!("{report:?}");
    }
}

#[test]
fn contents_of_a_compressed_file_are_read_back() {
    // What the checks above stand on.
    let scratch = Scratch::with_programs();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"x\n").unwrap();
    fs::write(scratch.join("x.gz"), encoder.finish().unwrap()).unwrap();
    assert_eq!(contents(&scratch.join("x.gz")), b"x\n");
}

#[test]
fn without_modes_files_are_0644_and_directories_0755_less_the_umask() {
    let scratch = Scratch::with_programs();
    for (umask, file, directory) in [("0", 0o644, 0o755), ("027", 0o640, 0o750)] {
        let mut child = Child::start_as(&Start {
            under: &["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"],
            user: None,
        });
        let at = |name: &str| scratch.join(umask).join(name);
        let pattern = format!("pattern={}", at("x/a.log").display());
        child.open(&[&pattern]).unwrap();
        let mode = |name| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("x/a.log"), file, "{umask}");
        assert_eq!(mode("x/.a.log.lock"), file, "{umask}");
        assert_eq!(mode("x"), directory, "{umask}");
        assert_eq!(mode(""), directory, "{umask}");
    }
}
