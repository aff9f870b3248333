//! What the tests of the Go and the Perl original ask, and what both get wrong.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use file_rotatelogs::{Clock, Pattern, RotateLogs};

use crate::support::{
    DAY, Events, HOUR, Hands, PATIENCE, Scratch, at, contents, expect, names, tree, utc, zone,
};

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

#[test]
fn satisfies_write_and_closes_when_dropped() {
    fn is_writer<W: Write + Clone + Send + Sync + 'static>() {}
    fn is_shared_writer<'a, W: 'a>()
    where
        &'a W: Write,
    {
    }
    is_writer::<RotateLogs>();
    is_shared_writer::<RotateLogs>();
    let scratch = Scratch::new();
    let mut sink: Box<dyn Write> =
        Box::new(RotateLogs::builder(scratch.join("a")).build().unwrap());
    sink.write_all(b"x").unwrap();
    drop(sink);
    assert_eq!(contents(&scratch.join("a")), b"x");
}

#[test]
fn log_rotates_with_the_clock_and_old_files_go() {
    for link in [None, Some("log"), Some("nest1/nest2/log")] {
        let scratch = Scratch::new();
        let hands = Hands::at(utc(2026, 4, 1, 12, 0, 0));
        let mut builder = RotateLogs::builder(scratch.join("log%Y%m%d%H%M%S"))
            .clock(hands.on(Clock::utc()))
            .rotate_every(days(1))
            .max_age(days(1));
        if let Some(link) = link {
            builder = builder.link(scratch.join(link));
        }
        let mut logs = builder.build().unwrap();
        logs.write_all(b"Hello, World").unwrap();
        let first = logs.current_path();
        assert_eq!(first, scratch.join("log20260401000000"));
        assert_eq!(contents(&first), b"Hello, World");

        hands.advance(7 * DAY);
        logs.write_all(b"Hello, World").unwrap();
        let second = logs.current_path();
        assert_eq!(second, scratch.join("log20260408000000"));
        assert_eq!(contents(&second), b"Hello, World");
        assert!(logs.wait_for_housekeeping(PATIENCE));
        assert!(!first.exists(), "the old file is removed");
        if let Some(link) = link {
            let target = fs::read_link(scratch.join(link)).unwrap();
            assert!(target.is_relative(), "{target:?}");
            assert_eq!(contents(&scratch.join(link)), b"Hello, World");
        }
    }
}

#[test]
fn number_of_files_may_be_unlimited_or_limited_and_with_age_too() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 4, 1, 12, 0, 0));
    let build = |files: Option<usize>, age: Option<Duration>| {
        let mut builder =
            RotateLogs::builder(scratch.join("log%Y%m%d")).clock(hands.on(Clock::utc()));
        builder = match files {
            Some(files) => builder.max_files(files),
            None => builder,
        };
        match age {
            Some(age) => builder.max_age(age),
            None => builder,
        }
        .build()
        .unwrap()
    };
    let write_days = |logs: RotateLogs, count: i64| {
        for _ in 0..count {
            writeln!(&logs, "x").unwrap();
            hands.advance(DAY);
        }
        writeln!(&logs, "x").unwrap();
        assert!(logs.wait_for_housekeeping(PATIENCE));
    };
    write_days(build(None, None), 4);
    assert_eq!(names(scratch.path()).len(), 5, "nothing is removed unasked");
    write_days(build(Some(2), None), 0);
    assert_eq!(names(scratch.path()), ["log20260404", "log20260405"]);
    write_days(build(Some(1), None), 1);
    assert_eq!(names(scratch.path()), ["log20260406"]);
    write_days(build(Some(4), Some(days(2))), 6);
    assert_eq!(
        names(scratch.path()),
        ["log20260410", "log20260411", "log20260412"]
    );
    write_days(build(Some(2), Some(days(20))), 0);
    assert_eq!(names(scratch.path()), ["log20260411", "log20260412"]);
}

#[test]
fn serves_as_the_output_of_a_logger() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("log")).build().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(logs)
        .with_ansi(false)
        .without_time()
        .finish();
    tracing::subscriber::with_default(subscriber, || tracing::info!("hello"));
    let text = String::from_utf8(contents(&scratch.join("log"))).unwrap();
    assert!(
        text.contains("INFO") && text.ends_with("hello\n"),
        "{text:?}"
    );
}

#[test]
fn rotate_works_with_link_and_number_of_files() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("test.%Y%m%d%H%M%S.log"))
        .link(scratch.join("test.log"))
        .rotate_every(Duration::from_secs(10))
        .max_files(3)
        .build()
        .unwrap();
    for _ in 0..50 {
        writeln!(&logs, "x").unwrap();
        logs.rotate().unwrap();
    }
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(names(scratch.path()).len(), 4, "three files and the link");
    assert!(scratch.join("test.log").exists());
}

#[test]
fn generations_of_a_fixed_name_are_counted_on() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("unchanged-pattern.log"))
        .rotate_at_bytes(10)
        .build()
        .unwrap();
    for _ in 0..11 {
        (&logs).write_all(b"Hello, World!").unwrap();
    }
    for number in 0..=10 {
        let suffix = if number == 0 {
            String::new()
        } else {
            format!(".{number}")
        };
        let path = scratch.join(&format!("unchanged-pattern.log{suffix}"));
        assert_eq!(contents(&path).len(), 13, "{path:?}");
    }
}

#[test]
fn rotate_in_a_new_second_begins_with_the_first_generation() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 4, 1, 12, 0, 0));
    let logs = RotateLogs::builder(scratch.join("unchanged-pattern.%Y%m%d%H%M%S.log"))
        .clock(hands.on(Clock::utc()))
        .build()
        .unwrap();
    for second in 1..10 {
        hands.advance(1);
        (&logs).write_all(b"Hello, World!").unwrap();
        logs.rotate().unwrap();
        let expected = format!("unchanged-pattern.2026040112000{second}.log.1");
        assert_eq!(logs.current_path(), scratch.join(&expected));
    }
}

#[test]
fn days_begin_at_local_midnight() {
    for (name, offset) in [("Asia/Tokyo", 9), ("Pacific/Honolulu", -10)] {
        for seconds in [utc(2018, 6, 1, 3, 18, 0), utc(2018, 6, 1, 23, 59, 59)] {
            let scratch = Scratch::new();
            let hands = Hands::at(seconds);
            let logs = RotateLogs::builder(scratch.join("test.%Y%m%d%H%M.log"))
                .clock(hands.on(zone(name)))
                .rotate_every(days(1))
                .build()
                .unwrap();
            let local_day = (seconds + offset * HOUR) / DAY * DAY;
            let midnight = Pattern::new("test.%Y%m%d%H%M.log").unwrap();
            let expected = midnight.path_at(at(local_day), &Clock::utc());
            assert_eq!(logs.current_path(), scratch.path().join(expected), "{name}");
        }
    }
}

#[test]
fn forced_new_file_leaves_what_is_there() {
    let scratch = Scratch::new();
    let open = |force| {
        RotateLogs::builder(scratch.join("force-new-file.log"))
            .force_new_file(force)
            .build()
            .unwrap()
    };
    (&open(false)).write_all(b"Hello, World!").unwrap();
    for number in 1..=10 {
        let logs = open(true);
        write!(&logs, "Hello, World{number}").unwrap();
        let path = scratch.join(&format!("force-new-file.log.{number}"));
        assert_eq!(logs.current_path(), path);
        assert_eq!(contents(&path), format!("Hello, World{number}").as_bytes());
    }
    assert_eq!(
        contents(&scratch.join("force-new-file.log")),
        b"Hello, World!"
    );
    let logs = open(true);
    logs.rotate().unwrap();
    assert_eq!(logs.current_path(), scratch.join("force-new-file.log.12"));
}

#[test]
fn forced_new_file_comes_with_each_change_of_the_name() {
    let scratch = Scratch::new();
    fs::write(scratch.join("a.11"), "old").unwrap();
    let hands = Hands::at(utc(2026, 4, 1, 10, 0, 0));
    let logs = RotateLogs::builder(scratch.join("a.%H"))
        .clock(hands.on(Clock::utc()))
        .force_new_file(true)
        .build()
        .unwrap();
    hands.advance(HOUR);
    (&logs).write_all(b"new").unwrap();
    assert_eq!(
        tree(scratch.path()),
        expect([("a.10", ""), ("a.11", "old"), ("a.11.1", "new")])
    );
}

#[test]
fn pattern_makes_the_path_of_a_time() {
    for (seconds, text, path) in [
        (
            utc(2018, 1, 2, 3, 4, 5),
            "/path/to/%Y/%m/%d",
            "/path/to/2018/01/02",
        ),
        (
            utc(2018, 12, 31, 23, 59, 59),
            "/log.%Y%m%d%H%M%S",
            "/log.20181231235959",
        ),
    ] {
        let pattern: Pattern = text.parse().unwrap();
        assert_eq!(pattern.path_at(at(seconds), &Clock::utc()), Path::new(path));
    }
}

#[test]
fn perl_offsets_and_periods_have_their_equivalent() {
    // Where Perl's offset shifts the day, the zone of the clock does.
    for (name, hour) in [
        ("Asia/Tokyo", 15),
        ("America/Caracas", 4),
        ("Pacific/Honolulu", 10),
        ("Australia/Adelaide", 13),
    ] {
        let scratch = Scratch::new();
        let minute = if name == "Australia/Adelaide" { 30 } else { 0 };
        // Two seconds before local midnight; in January Adelaide is 10:30 ahead.
        let hands = Hands::at(utc(2026, 1, 14, hour, minute, 0) - 2);
        let logs = RotateLogs::builder(scratch.join("%Y%m%d/test.%Y%m%d%H%M"))
            .clock(hands.on(zone(name)))
            .rotate_every(Duration::from_secs(3600))
            .build()
            .unwrap();
        writeln!(&logs, "x").unwrap();
        let before = logs.current_path();
        hands.advance(1);
        writeln!(&logs, "x").unwrap();
        assert_eq!(logs.current_path(), before, "{name}");
        hands.advance(1);
        writeln!(&logs, "x").unwrap();
        assert!(logs.current_path() != before, "{name}: an hour begins");
        assert!(
            before.to_str().unwrap().ends_with("2300"),
            "{name}: {before:?}"
        );
        assert!(
            logs.current_path().to_str().unwrap().ends_with("0000"),
            "{name}"
        );
        assert!(
            logs.current_path().parent() != before.parent(),
            "{name}: a day begins"
        );
    }
}

#[test]
fn any_kind_of_path_is_taken() {
    let scratch = Scratch::new();
    let owned: PathBuf = scratch.join("a");
    drop(
        RotateLogs::builder(&owned)
            .link(scratch.join("l").as_path())
            .build()
            .unwrap(),
    );
    drop(
        RotateLogs::builder(owned.to_str().unwrap())
            .link(scratch.join("l"))
            .build()
            .unwrap(),
    );
    drop(RotateLogs::builder(owned).build().unwrap());
    assert_eq!(names(scratch.path()), ["a", "l"]);
}

/// Upstream sorts `.10` before `.9` and so deletes the file it is writing.
#[test]
fn limit_on_files_never_takes_the_open_one_past_the_tenth_generation() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.%Y.log"))
        .clock(Hands::at(utc(2026, 1, 1, 0, 0, 0)).on(Clock::utc()))
        .link(scratch.join("current"))
        .rotate_at_bytes(100)
        .max_files(3)
        .build()
        .unwrap();
    for number in 0..14 {
        writeln!(&logs, "{number:>98}").unwrap();
        assert!(logs.wait_for_housekeeping(PATIENCE));
        assert!(logs.current_path().exists(), "after {number}");
    }
    assert_eq!(
        names(scratch.path()),
        ["a.2026.log.11", "a.2026.log.12", "a.2026.log.13", "current"]
    );
    assert!(
        String::from_utf8(contents(&scratch.join("current")))
            .unwrap()
            .contains("13")
    );
}

/// Upstream never finds the generations of a name without a directive at its end.
#[test]
fn generations_of_a_fixed_name_are_removed_too() {
    let scratch = Scratch::new();
    for text in ["fixed", "a.%Y.log"] {
        let logs = RotateLogs::builder(scratch.join(text))
            .clock(Hands::at(utc(2026, 1, 1, 0, 0, 0)).on(Clock::utc()))
            .max_files(2)
            .build()
            .unwrap();
        for _ in 0..5 {
            logs.rotate().unwrap();
        }
        assert!(logs.wait_for_housekeeping(PATIENCE));
    }
    assert_eq!(
        names(scratch.path()),
        ["a.2026.log.4", "a.2026.log.5", "fixed.4", "fixed.5"]
    );
}

/// Upstream replaces each directive by `*` and removes `app.error.log`.
#[test]
fn files_that_only_look_alike_are_never_removed() {
    let scratch = Scratch::new();
    let others = [
        "app.error.log",
        "app.20200230.log",
        "app.20200101.log.bak",
        "app.20200101.log.01",
        "app.20200101.log.gz.tmp",
        "app.20200101.log_lock",
        "app.20200101.log.20200101",
        "app.log",
        "app..log",
        "app.20200101Xlog",
        "aapp.20200101.log",
    ];
    for name in others {
        fs::write(scratch.join(name), name).unwrap();
    }
    fs::create_dir(scratch.join("app.20200102.log")).unwrap();
    fs::write(scratch.join("app.20200102.log/app.20200103.log"), "").unwrap();
    symlink("app.error.log", scratch.join("app.20200104.log")).unwrap();
    fs::write(scratch.join("app.20200105.log"), "").unwrap();
    fs::write(scratch.join("app.20200106.log.3.gz"), "").unwrap();
    let logs = RotateLogs::builder(scratch.join("app.%Y%m%d.log"))
        .clock(Hands::at(utc(2026, 1, 1, 0, 0, 0)).on(Clock::utc()))
        .max_age(days(7))
        .max_files(1)
        .max_total_bytes(1)
        .build()
        .unwrap();
    logs.rotate().unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    for name in others {
        assert!(scratch.join(name).exists(), "{name} is not ours");
    }
    assert!(scratch.join("app.20200102.log/app.20200103.log").exists());
    assert!(scratch.join("app.20200104.log").exists());
    assert!(!scratch.join("app.20200105.log").exists());
    assert!(!scratch.join("app.20200106.log.3.gz").exists());
}

/// Upstream's lock and link files stay behind when it is killed and stop it for good.
#[test]
fn leftover_lock_and_link_files_stop_nothing() {
    let scratch = Scratch::new();
    for name in ["a.2026_lock", "a.2026_symlink", ".a.%Y.lock"] {
        fs::write(scratch.join(name), "").unwrap();
    }
    let logs = RotateLogs::builder(scratch.join("a.%Y"))
        .clock(Hands::at(utc(2026, 1, 1, 0, 0, 0)).on(Clock::utc()))
        .link(scratch.join("current"))
        .max_files(1)
        .build()
        .unwrap();
    logs.rotate().unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(
        names(scratch.path()),
        ["a.2026.1", "a.2026_lock", "a.2026_symlink", "current"]
    );
    assert_eq!(tree(scratch.path())["current"], "-> a.2026.1");
}

/// Upstream prints +0000 and UTC in whatever zone.
#[test]
fn zone_in_the_name_is_that_of_the_clock() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 7, 1, 0, 0, 0));
    let logs = RotateLogs::builder(scratch.join("a.%Y%m%d%z%Z"))
        .clock(hands.on(zone("Europe/Berlin")))
        .build()
        .unwrap();
    assert_eq!(logs.current_path(), scratch.join("a.20260701+0200CEST"));
}

/// Upstream keeps on appending to one file when its name is coarser than the period.
#[test]
fn name_that_stays_the_same_for_two_periods_is_refused() {
    let scratch = Scratch::new();
    let error = RotateLogs::builder(scratch.join("a.%Y%m%d"))
        .rotate_every(Duration::from_secs(3600))
        .build()
        .unwrap_err();
    assert_eq!(error.setting(), "rotate_every");
    assert!(error.to_string().contains("3600"), "{error}");
}

/// Upstream tells an empty previous file with its first event.
#[test]
fn first_file_is_opened_not_rotated_to() {
    let scratch = Scratch::new();
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(scratch.join("a")))
        .build()
        .unwrap();
    logs.rotate().unwrap();
    let all = events.all();
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(
        all[0].starts_with("opened") && all[1].starts_with("rotated"),
        "{all:?}"
    );
    assert!(
        all[1].contains("a\" to ") && all[1].contains("a.1\""),
        "{all:?}"
    );
}

#[test]
fn forced_new_files_of_two_writers_are_the_same_in_the_next_period() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 5, 10, 12, 30, 0));
    let open = || {
        RotateLogs::builder(scratch.join("a.%H"))
            .clock(hands.on(Clock::utc()))
            .force_new_file(true)
            .build()
            .unwrap()
    };
    let (one, other) = (open(), open());
    hands.advance(HOUR);
    writeln!(&one, "one").unwrap();
    writeln!(&other, "other").unwrap();
    assert_eq!(contents(&scratch.join("a.13")), b"one\nother\n");
    assert!(!scratch.join("a.13.1").exists());
}
