//! The link that leads to the current file.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use file_rotatelogs::RotateLogs;

use crate::support::{Events, Scratch, expect, tree, wait_until};

#[test]
fn link_leads_to_the_open_file_at_every_moment() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .link(scratch.join("current"))
        .rotate_at_bytes(64)
        .build()
        .unwrap();
    let link = scratch.join("current");
    let watched = link.clone();
    let looks = Arc::new(AtomicU32::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let (count, stop) = (Arc::clone(&looks), Arc::clone(&done));
    let watcher = thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            fs::File::open(&watched).expect("the link always leads to a file");
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut number = 0;
    while number < 2000 || looks.load(Ordering::Relaxed) < 500 && !watcher.is_finished() {
        writeln!(&logs, "record number {number}").unwrap();
        number += 1;
    }
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    assert_eq!(
        fs::canonicalize(&link).unwrap(),
        fs::canonicalize(logs.current_path()).unwrap()
    );
}

#[test]
fn link_is_relative_within_a_tree_and_absolute_without() {
    let scratch = Scratch::new();
    for (pattern, link, target) in [
        ("x/a.log", "x/current", "a.log"),
        ("x/a.log", "x/deeper/current", "../a.log"),
        ("x/deeper/a.log", "x/current", "deeper/a.log"),
        ("x/log/a.log", "x/logs/current", "../log/a.log"),
    ] {
        let logs = RotateLogs::builder(scratch.join(pattern))
            .link(scratch.join(link))
            .build()
            .unwrap();
        let found = fs::read_link(scratch.join(link)).unwrap();
        assert_eq!(found.to_str(), Some(target), "{link}");
        assert!(
            fs::canonicalize(scratch.join(link))
                .unwrap()
                .ends_with("a.log")
        );
        drop(logs);
    }
    let shm = std::path::Path::new("/dev/shm");
    if shm.is_dir() && !scratch.path().starts_with(shm) {
        let there = tempfile::tempdir_in(shm).unwrap();
        let link = there.path().join("current");
        let logs = RotateLogs::builder(scratch.join("b.log"))
            .link(&link)
            .build()
            .unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), logs.current_path());
    }
}

#[test]
fn link_is_relative_to_where_its_directory_really_is() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.join("real/deep/logs")).unwrap();
    symlink("real/deep/logs", scratch.join("short")).unwrap();
    let logs = RotateLogs::builder(scratch.join("data/a.log"))
        .link(scratch.join("short/current"))
        .build()
        .unwrap();
    writeln!(&logs, "x").unwrap();
    assert_eq!(fs::read(scratch.join("short/current")).unwrap(), b"x\n");
    let text = fs::read_link(scratch.join("short/current")).unwrap();
    assert_eq!(text.to_str(), Some("../../../data/a.log"));
}

#[test]
fn leftovers_of_a_killed_process_are_no_obstacle() {
    let scratch = Scratch::new();
    symlink("nowhere", scratch.join(".current.tmp")).unwrap();
    symlink("a.gone", scratch.join("current")).unwrap();
    fs::write(scratch.join(".a.log.lock"), "- /nowhere/a.log.77\n").unwrap();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .link(scratch.join("current"))
        .build()
        .unwrap();
    writeln!(&logs, "x").unwrap();
    assert_eq!(
        tree(scratch.path()),
        expect([("a.log", "x\n"), ("current", "-> a.log")])
    );
    assert!(fs::symlink_metadata(scratch.join(".current.tmp")).is_err());
}

#[test]
fn link_that_is_taken_away_or_turned_comes_back() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .link(scratch.join("current"))
        .build()
        .unwrap();
    for damage in [
        (|path| fs::remove_file(path).unwrap()) as fn(&std::path::Path),
        |path| {
            fs::remove_file(path).unwrap();
            symlink("elsewhere", path).unwrap();
        },
    ] {
        damage(&scratch.join("current"));
        wait_until("the link leads to the file again", || {
            writeln!(&logs, "x").unwrap();
            fs::read_link(scratch.join("current")).is_ok_and(|target| target.ends_with("a.log"))
        });
    }
}

#[test]
fn file_in_the_place_of_the_link_is_left_alone() {
    let scratch = Scratch::new();
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(scratch.join("a.log")).link(scratch.join("current")))
        .build()
        .unwrap();
    fs::remove_file(scratch.join("current")).unwrap();
    fs::write(scratch.join("current"), "precious").unwrap();
    logs.rotate().unwrap();
    logs.rotate().unwrap();
    assert_eq!(fs::read(scratch.join("current")).unwrap(), b"precious");
    assert_eq!(events.count("cannot link"), 1, "{:?}", events.all());
    fs::remove_file(scratch.join("current")).unwrap();
    logs.rotate().unwrap();
    assert_eq!(events.count("can link"), 1, "{:?}", events.all());
    assert_eq!(tree(scratch.path())["current"], "-> a.log.3");
}

#[test]
fn what_is_in_the_way_of_the_next_link_is_named() {
    let scratch = Scratch::new();
    let events = Events::default();
    fs::create_dir(scratch.join(".current.tmp")).unwrap();
    let logs = events
        .of(RotateLogs::builder(scratch.join("a.log")).link(scratch.join("current")))
        .build()
        .unwrap();
    writeln!(&logs, "x").unwrap();
    let told = events.all().concat();
    let obstacle = format!("{:?}: ", scratch.join(".current.tmp"));
    assert!(
        told.contains("cannot link") && told.contains(&obstacle),
        "{told}"
    );
}
