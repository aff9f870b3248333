use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use file_rotatelogs::{Builder, Clock, Compression, Event, RotateLogs};

use crate::support::{DAY, Events, HOUR, Hands, PATIENCE, Scratch, names, utc, wait_until, zone};

const NOW: i64 = 1_780_315_200; // 2026-06-01 12:00 UTC

fn daily(scratch: &Scratch, hands: &Hands) -> Builder {
    RotateLogs::builder(scratch.join("a.%Y%m%d")).clock(hands.on(Clock::utc()))
}

fn build_and_wait(builder: Builder) -> RotateLogs {
    let logs = builder.build().unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    logs
}

fn put(directory: &Path, names: &[&str], bytes: usize) {
    for name in names {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![b'x'; bytes]).unwrap();
    }
}

#[test]
fn limits_are_kept_at_start() {
    let scratch = Scratch::new();
    put(
        scratch.path(),
        &["a.20260520", "a.20260530.gz", "a.20260531"],
        1,
    );
    let hands = Hands::at(NOW);
    drop(build_and_wait(daily(&scratch, &hands).max_files(2)));
    assert_eq!(names(scratch.path()), ["a.20260531", "a.20260601"]);
}

#[test]
fn limits_are_kept_by_a_lazy_log_that_writes_nothing() {
    let scratch = Scratch::new();
    put(
        scratch.path(),
        &["a.20260520", "a.20260530", "a.20260531"],
        1,
    );
    let hands = Hands::at(NOW);
    drop(build_and_wait(
        daily(&scratch, &hands).lazy(true).max_files(2),
    ));
    assert_eq!(names(scratch.path()), ["a.20260530", "a.20260531"]);
}

#[test]
fn age_is_counted_from_the_end_of_the_period_in_the_name() {
    let scratch = Scratch::new();
    put(
        scratch.path(),
        &["a.20260530", "a.20260531", "a.20260531.1.gz"],
        1,
    );
    // These were changed just now, by the system's clock, which is ahead of the hands.
    let hands = Hands::at(utc(2026, 6, 2, 0, 0, 0));
    let logs = build_and_wait(daily(&scratch, &hands).max_age(Duration::from_secs(86_400)));
    assert_eq!(
        names(scratch.path()),
        ["a.20260531", "a.20260531.1.gz", "a.20260602"]
    );
    hands.advance(1);
    drop(logs);
    let logs = build_and_wait(daily(&scratch, &hands).max_age(Duration::from_secs(86_400)));
    assert_eq!(names(scratch.path()), ["a.20260602"]);
    drop(logs);
}

#[test]
fn file_that_was_written_after_its_period_is_as_young_as_its_last_change() {
    let scratch = Scratch::new();
    put(scratch.path(), &["a.20260101", "a.20260102"], 1);
    let week_before = std::time::UNIX_EPOCH + Duration::from_secs((NOW - 7 * DAY) as u64);
    let file = fs::File::options()
        .append(true)
        .open(scratch.join("a.20260101"))
        .unwrap();
    file.set_modified(week_before).unwrap();
    let file = fs::File::options()
        .append(true)
        .open(scratch.join("a.20260102"))
        .unwrap();
    file.set_modified(week_before - Duration::from_secs(1))
        .unwrap();
    let hands = Hands::at(NOW);
    drop(build_and_wait(
        daily(&scratch, &hands).max_age(Duration::from_secs(7 * 86_400)),
    ));
    assert_eq!(names(scratch.path()), ["a.20260101", "a.20260601"]);
}

#[test]
fn age_of_a_month_counts_from_its_end() {
    let scratch = Scratch::new();
    put(scratch.path(), &["a.202603", "a.202604", "a.202605"], 1);
    let hands = Hands::at(utc(2026, 6, 5, 0, 0, 0));
    let builder = RotateLogs::builder(scratch.join("a.%Y%m")).clock(hands.on(Clock::utc()));
    let limit = |days: u64| builder.clone().max_age(Duration::from_secs(days * 86_400));
    drop(build_and_wait(limit(30)));
    assert_eq!(names(scratch.path()), ["a.202605", "a.202606"]);
    // All 31 days of May count.
    drop(build_and_wait(limit(5)));
    assert_eq!(names(scratch.path()), ["a.202605", "a.202606"]);
    drop(build_and_wait(limit(3)));
    assert_eq!(names(scratch.path()), ["a.202606"]);
}

#[test]
fn oldest_go_first_by_period_then_by_number() {
    let scratch = Scratch::new();
    let all = [
        "a.20260531",
        "a.20260531.1",
        "a.20260531.2.gz",
        "a.20260531.9.zst",
        "a.20260531.10",
        "a.20260531.100",
        "a.20260601",
    ];
    put(scratch.path(), &all, 1);
    let hands = Hands::at(NOW);
    for keep in (1..=6).rev() {
        drop(build_and_wait(daily(&scratch, &hands).max_files(keep)));
        let mut expected = all[all.len() - keep..].to_vec();
        expected.sort_unstable();
        assert_eq!(names(scratch.path()), expected, "{keep} are kept");
    }
}

#[test]
fn both_forms_of_a_file_are_one_file() {
    let scratch = Scratch::new();
    put(
        scratch.path(),
        &[
            "a.20260529",
            "a.20260530",
            "a.20260530.gz",
            "a.20260531.gz",
            "a.20260531.zst",
        ],
        1,
    );
    let hands = Hands::at(NOW);
    drop(build_and_wait(daily(&scratch, &hands).max_files(3)));
    assert_eq!(
        names(scratch.path()),
        [
            "a.20260530",
            "a.20260530.gz",
            "a.20260531.gz",
            "a.20260531.zst",
            "a.20260601"
        ]
    );
}

#[test]
fn total_of_bytes_counts_all_files_and_the_open_one() {
    let scratch = Scratch::new();
    put(
        scratch.path(),
        &[
            "a.20260528",
            "a.20260529.gz",
            "a.20260530",
            "a.20260531",
            "a.20260601",
        ],
        100,
    );
    let hands = Hands::at(NOW);
    for (bytes, count) in [(500, 5), (499, 4), (300, 3), (299, 2), (100, 1), (1, 1)] {
        drop(build_and_wait(
            daily(&scratch, &hands).max_total_bytes(bytes),
        ));
        assert_eq!(names(scratch.path()).len(), count, "{bytes} bytes");
    }
    assert_eq!(names(scratch.path()), ["a.20260601"]);
}

#[test]
fn limits_together_each_hold() {
    let scratch = Scratch::new();
    let hands = Hands::at(NOW);
    let set = |files: usize, age: u64, bytes: u64| {
        put(
            scratch.path(),
            &[
                "a.20260527",
                "a.20260528",
                "a.20260529",
                "a.20260530",
                "a.20260531",
            ],
            10,
        );
        drop(build_and_wait(
            daily(&scratch, &hands)
                .max_files(files)
                .max_age(Duration::from_secs(age * 86_400))
                .max_total_bytes(bytes),
        ));
        names(scratch.path()).len()
    };
    assert_eq!(set(4, 100, 1000), 4, "by number");
    assert_eq!(
        set(100, 1, 1000),
        2,
        "by age: the one of yesterday and of today"
    );
    assert_eq!(
        set(100, 100, 30),
        4,
        "by bytes: three of ten and the empty one"
    );
}

#[test]
fn file_that_another_writer_has_open_is_left_until_it_is_done() {
    let scratch = Scratch::new();
    let hands = Hands::at(NOW);
    let slow = daily(&scratch, &hands).build().unwrap();
    writeln!(&slow, "slow").unwrap();
    hands.advance(DAY);
    let logs = daily(&scratch, &hands)
        .max_files(1)
        .compress(Compression::Gzip)
        .build()
        .unwrap();
    logs.rotate().unwrap();
    logs.rotate().unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(names(scratch.path()), ["a.20260601", "a.20260602.2"]);
    drop(slow);
    logs.rotate().unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(names(scratch.path()), ["a.20260602.3"]);
}

#[test]
fn file_that_was_left_to_a_slow_writer_is_taken_soon_after_without_a_rotation() {
    let scratch = Scratch::new();
    let hands = Hands::at(NOW);
    let slow = daily(&scratch, &hands).build().unwrap();
    hands.advance(DAY);
    let logs = build_and_wait(daily(&scratch, &hands).max_files(1));
    assert_eq!(names(scratch.path()), ["a.20260601", "a.20260602"]);
    drop(slow);
    wait_until("the file is removed", || {
        logs.tick();
        names(scratch.path()) == ["a.20260602"]
    });
}

#[test]
fn target_of_the_link_is_never_taken() {
    let scratch = Scratch::new();
    put(
        scratch.path(),
        &["a.20260529", "a.20260530", "a.20260531"],
        1,
    );
    let hands = Hands::at(NOW);
    // Another program's idea of where the link leads, for now.
    let logs = daily(&scratch, &hands)
        .link(scratch.join("current"))
        .lazy(true)
        .max_files(1)
        .compress(Compression::Gzip);
    symlink("a.20260530", scratch.join("current")).unwrap();
    drop(build_and_wait(logs));
    assert_eq!(
        names(scratch.path()),
        ["a.20260530", "a.20260531", "current"]
    );
}

#[test]
fn directories_of_the_pattern_go_when_they_are_empty() {
    let scratch = Scratch::new();
    put(
        scratch.path(),
        &[
            "logs/2025/12/a.31",
            "logs/2026/01/a.01",
            "logs/2026/05/a.30",
            "logs/2026/05/other",
            "logs/2026/06/a.01",
        ],
        1,
    );
    fs::create_dir_all(scratch.join("logs/2024")).unwrap();
    fs::create_dir_all(scratch.join("logs/xxxx/12")).unwrap();
    let hands = Hands::at(NOW);
    let builder =
        RotateLogs::builder(scratch.join("logs/%Y/%m/a.%d")).clock(hands.on(Clock::utc()));
    drop(build_and_wait(builder.max_files(1)));
    assert_eq!(
        names(scratch.path()),
        ["logs/2026/05/other", "logs/2026/06/a.01"]
    );
    assert!(!scratch.join("logs/2025").exists());
    assert!(!scratch.join("logs/2026/01").exists());
    assert!(
        scratch.join("logs/2024").exists(),
        "nothing was removed from there"
    );
    assert!(scratch.join("logs/xxxx/12").exists());
}

#[test]
fn file_in_the_place_of_a_directory_is_left_alone_and_no_failure() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.join("2020")).unwrap();
    fs::write(scratch.join("2020/app"), "another's").unwrap();
    let events = Events::default();
    let logs =
        build_and_wait(events.of(RotateLogs::builder(scratch.join("%Y/app/a.log")).max_files(1)));
    assert_eq!(events.count("cannot"), 0, "{:?}", events.all());
    assert_eq!(fs::read(scratch.join("2020/app")).unwrap(), b"another's");
    drop(logs);
}

#[test]
fn waiting_for_the_housekeeping_tells_when_it_is_not_done() {
    let scratch = Scratch::new();
    put(scratch.path(), &["a.2020"], 1);
    let (done, is_done) = mpsc::channel::<()>();
    let is_done = Mutex::new(is_done);
    let logs = RotateLogs::builder(scratch.join("a.%Y"))
        .max_files(1)
        .on_event(move |event| {
            if matches!(event, Event::Removed { .. }) {
                let _ = is_done.lock().unwrap().recv_timeout(PATIENCE);
            }
        })
        .build()
        .unwrap();
    assert!(!logs.wait_for_housekeeping(Duration::from_millis(1)));
    drop(done);
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(names(scratch.path()).len(), 1);
}

#[test]
fn links_in_the_place_of_directories_are_not_followed() {
    let scratch = Scratch::new();
    put(scratch.path(), &["elsewhere/a.01", "logs/2026/a.01"], 1);
    symlink(scratch.join("elsewhere"), scratch.join("logs/2025")).unwrap();
    let hands = Hands::at(NOW);
    let builder = RotateLogs::builder(scratch.join("logs/%Y/a.%m")).clock(hands.on(Clock::utc()));
    drop(build_and_wait(builder.max_files(1)));
    assert!(scratch.join("elsewhere/a.01").exists());
    assert!(!scratch.join("logs/2026/a.01").exists());
}

#[test]
fn pattern_that_does_not_tell_the_time_goes_by_the_last_change() {
    let scratch = Scratch::new();
    let now = std::time::SystemTime::now();
    let seconds = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    for (name, hours) in [("a.03", 1), ("a.02", 2), ("a.23", 3), ("a.22", 40)] {
        fs::write(scratch.join(name), "x").unwrap();
        let file = fs::File::options()
            .append(true)
            .open(scratch.join(name))
            .unwrap();
        file.set_modified(now - Duration::from_secs(hours * 3600))
            .unwrap();
    }
    let hands = Hands::at(seconds - seconds % DAY + 4 * HOUR);
    let builder = || {
        RotateLogs::builder(scratch.join("a.%H"))
            .clock(hands.on(Clock::utc()))
            .lazy(true)
    };
    drop(build_and_wait(builder().max_files(3)));
    assert_eq!(names(scratch.path()), ["a.02", "a.03", "a.23"]);
    drop(build_and_wait(builder().max_files(2)));
    assert_eq!(names(scratch.path()), ["a.02", "a.03"]);
}

#[test]
fn names_of_another_offset_are_not_known() {
    let scratch = Scratch::new();
    put(
        scratch.path(),
        &["a.20260101+0100", "a.20260101+0900", "a.20250701+0100"],
        1,
    );
    let hands = Hands::at(NOW);
    let builder =
        RotateLogs::builder(scratch.join("a.%Y%m%d%z")).clock(hands.on(zone("Europe/Berlin")));
    drop(build_and_wait(builder.max_files(1)));
    assert_eq!(
        names(scratch.path()),
        ["a.20250701+0100", "a.20260101+0900", "a.20260601+0200"]
    );
}

#[test]
fn ten_thousand_old_files_are_found_and_removed() {
    let scratch = Scratch::new();
    for number in 1..=10_000 {
        fs::write(scratch.join(&format!("a.20260101.{number}")), "").unwrap();
    }
    let hands = Hands::at(NOW);
    let events = Events::default();
    let logs = events
        .of(daily(&scratch, &hands).max_files(5))
        .build()
        .unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(
        names(scratch.path()),
        [
            "a.20260101.10000",
            "a.20260101.9997",
            "a.20260101.9998",
            "a.20260101.9999",
            "a.20260601"
        ]
    );
    assert_eq!(events.count("removed"), 9996);
}

#[test]
fn link_that_is_called_like_a_log_is_neither_counted_nor_followed() {
    let scratch = Scratch::new();
    put(scratch.path(), &["kept", "a.20260530"], 1);
    symlink("kept", scratch.join("a.20260531")).unwrap();
    let hands = Hands::at(NOW);
    let limits = daily(&scratch, &hands)
        .max_files(2)
        .compress(Compression::Gzip);
    drop(build_and_wait(limits));
    assert_eq!(
        names(scratch.path()),
        ["a.20260530.gz", "a.20260531", "a.20260601", "kept"]
    );
    assert!(scratch.join("a.20260531").is_symlink());
}
