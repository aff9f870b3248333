//! Settings that are refused, by name, before anything is opened.

use std::error::Error;
use std::fs;
use std::time::Duration;

use file_rotatelogs::{Builder, Clock, NonBlocking, Pattern, RotateLogs, SyncPolicy};

use crate::support::{Scratch, names};

#[track_caller]
fn refused(builder: Builder, setting: &str, words: &[&str]) {
    let error = builder.build().expect_err("it is refused");
    let message = error.to_string();
    assert_eq!(error.setting(), setting, "{message}");
    assert!(message.starts_with(&format!("{setting}: ")), "{message}");
    for word in words {
        assert!(message.contains(word), "{message:?} tells {word:?}");
    }
    assert!(!message.ends_with('.'), "{message}");
}

#[test]
fn pattern_is_refused_with_the_byte() {
    let scratch = Scratch::new();
    refused(RotateLogs::builder("a.%Q"), "pattern", &["%Q", "at byte 2"]);
    refused(RotateLogs::builder(""), "pattern", &["no file name"]);
    refused(
        RotateLogs::builder(scratch.join("x/")),
        "pattern",
        &["no file name"],
    );
    refused(
        RotateLogs::builder("a.log.gz"),
        "pattern",
        &["a.log.gz", "compressed"],
    );
    refused(
        RotateLogs::builder("a.%Y.zst"),
        "pattern",
        &[".zst", "compressed"],
    );
    refused(
        RotateLogs::builder("x".repeat(250)),
        "pattern",
        &["more than"],
    );
    let error = Pattern::new("%Y%").unwrap_err();
    assert_eq!(
        (error.offset(), error.to_string().as_str()),
        (2, "incomplete directive at byte 2")
    );
}

#[test]
fn period_is_refused_that_the_name_or_the_clock_does_not_show() {
    let every = |pattern: &str, period| RotateLogs::builder(pattern).rotate_every(period);
    let hours = |count: u64| Duration::from_secs(count * 3600);
    for (pattern, period) in [
        ("fixed.log", hours(24)),
        ("a.%Y%m%d", hours(12)),
        ("a.%Y%m%d", hours(23)),
        ("a.%Y%m", hours(24)),
        ("a.%Y", hours(24 * 300)),
        ("a.%M", hours(1)),
        ("a.%H", hours(24)),
        ("a.%Y%m%d%H", Duration::from_secs(60)),
        ("a.%Y%m%d%H%M", Duration::from_secs(59)),
        ("a.%z", hours(1)),
    ] {
        refused(
            every(pattern, period),
            "rotate_every",
            &[pattern, &period.as_secs().to_string()],
        );
    }
    refused(
        every("%s", Duration::ZERO),
        "rotate_every",
        &["0ns", "whole seconds"],
    );
    refused(
        every("%s", Duration::from_millis(1500)),
        "rotate_every",
        &["1.5s", "whole seconds"],
    );
    refused(
        every("%s", Duration::from_secs(u64::MAX)),
        "rotate_every",
        &["hundred years"],
    );
    let scratch = Scratch::new();
    for (pattern, period) in [
        ("a.%Y%m%d", hours(24)),
        ("b.%Y%m%d", hours(48)),
        ("c.%Y%m%d%H", hours(5)),
        ("d.%H%M", Duration::from_secs(90 * 60)),
        ("e.%Y%m", hours(24 * 31)),
        ("f.%s", Duration::from_secs(1)),
    ] {
        let pattern = scratch.join(pattern);
        let logs = RotateLogs::builder(&pattern).rotate_every(period).build();
        assert!(logs.is_ok(), "{pattern:?} {period:?}");
    }
}

#[test]
fn limits_are_refused_that_leave_nothing() {
    let new = || RotateLogs::builder("a.log");
    refused(new().rotate_at_bytes(0), "rotate_at_bytes", &["0"]);
    refused(new().max_files(0), "max_files", &["0"]);
    refused(new().max_total_bytes(0), "max_total_bytes", &["0"]);
    refused(new().max_age(Duration::ZERO), "max_age", &["0"]);
    refused(
        new().rotate_at_bytes(1000).max_total_bytes(999),
        "max_total_bytes",
        &["999", "1000", "rotate_at_bytes"],
    );
}

#[test]
fn modes_are_refused_that_lock_the_owner_out() {
    let new = || RotateLogs::builder("a.log");
    refused(new().mode(0o444), "mode", &["0o444"]);
    refused(new().mode(0o4644), "mode", &["0o4644"]);
    refused(new().dir_mode(0o644), "dir_mode", &["0o644"]);
    refused(
        new().sync(SyncPolicy::Every(Duration::from_millis(499))),
        "sync",
        &["499ms"],
    );
}

#[test]
fn link_is_refused_that_is_something_else() {
    let scratch = Scratch::new();
    fs::write(scratch.join("file"), "precious").unwrap();
    fs::create_dir(scratch.join("directory")).unwrap();
    let new = || RotateLogs::builder(scratch.join("a.%Y%m%d")).clock(Clock::utc());
    refused(
        new().link(scratch.join("file")),
        "link",
        &["file", "not a symbolic link"],
    );
    refused(
        new().link(scratch.join("directory")),
        "link",
        &["directory"],
    );
    refused(
        new().link(scratch.join("a.20200101")),
        "link",
        &["a.20200101", "itself"],
    );
    refused(
        new().link(scratch.join("a.20200101.7.gz")),
        "link",
        &["itself"],
    );
    refused(
        new().link(scratch.join("file/link")),
        "link",
        &["create the directory"],
    );
    let fixed = RotateLogs::builder(scratch.join("b")).link(scratch.join("b"));
    refused(fixed, "link", &["itself"]);
    assert_eq!(names(scratch.path()), ["file"], "and nothing was made");
    assert_eq!(fs::read(scratch.join("file")).unwrap(), b"precious");
}

#[test]
fn directory_that_cannot_be_made_is_an_error_with_its_cause_beside_it() {
    let scratch = Scratch::new();
    fs::write(scratch.join("file"), "").unwrap();
    let error = RotateLogs::builder(scratch.join("file/logs/a.log"))
        .build()
        .unwrap_err();
    assert_eq!(error.setting(), "pattern");
    assert!(
        error.to_string().contains("create the directory"),
        "{error}"
    );
    assert!(error.to_string().contains("file/logs"), "{error}");
    let cause = error.source().expect("the system's error").to_string();
    assert!(
        !error.to_string().contains(&cause),
        "said once: {error} / {cause}"
    );
    assert!(error.io_kind().is_some());
}

#[test]
fn queue_is_refused_that_takes_nothing() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    let error = NonBlocking::builder(logs).capacity(0).build().unwrap_err();
    assert_eq!(error.setting(), "capacity");
}

#[test]
fn relative_paths_stay_where_they_were_meant() {
    // What a program is told at its start must hold after it changes its directory; that
    // cannot be tried in a process with other tests, so it is read off the path.
    let scratch = Scratch::new();
    let directory = std::env::current_dir().unwrap();
    let up: std::path::PathBuf = directory.components().skip(1).map(|_| "..").collect();
    let relative = up
        .join(scratch.path().strip_prefix("/").unwrap())
        .join("a.log");
    let logs = RotateLogs::builder(&relative).build().unwrap();
    assert!(logs.current_path().is_absolute());
    assert_eq!(names(scratch.path()), ["a.log"]);
}

#[test]
fn total_may_be_as_small_as_one_file() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .rotate_at_bytes(1000)
        .max_total_bytes(1000)
        .build();
    assert!(logs.is_ok(), "{logs:?}");
}

#[test]
fn lock_is_one_file_beside_the_logs_however_long_and_deep_their_names_are() {
    let scratch = Scratch::new();
    let long = "l".repeat(150);
    for (directory, pattern, lock) in [
        (
            "one",
            "%Y/%m/a.log".to_owned(),
            ".%Y-%m-a.log.lock".to_owned(),
        ),
        (
            "two",
            format!("%Y{long}/{long}"),
            format!(".{}-{long}.lock", &long[..231 - 151]),
        ),
    ] {
        let root = scratch.join(directory);
        let logs = RotateLogs::builder(root.join(pattern)).build().unwrap();
        let hidden: Vec<String> = fs::read_dir(&root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert_eq!(hidden, [lock]);
        drop(logs);
    }
}
