//! Zones, daylight saving time, calendars, and clocks that jump.

use std::fs;
use std::io::Write;
use std::time::Duration;

use file_rotatelogs::{Clock, RotateLogs};

use crate::support::{
    DAY, HOUR, Hands, PATIENCE, Scratch, contents, expect, names, tree, utc, wait_until, zone,
};

/// Writes a line each quarter of an hour from one instant to another and returns how many
/// lines each file has.
fn quarters(clock: &str, pattern: &str, every: u64, from: i64, to: i64) -> Vec<(String, usize)> {
    let scratch = Scratch::new();
    let hands = Hands::at(from);
    let logs = RotateLogs::builder(scratch.join(pattern))
        .clock(hands.on(zone(clock)))
        .rotate_every(Duration::from_secs(every))
        .build()
        .unwrap();
    let mut now = from;
    while now < to {
        hands.set(now);
        writeln!(&logs, "{now}").unwrap();
        now += 900;
    }
    let mut last = i64::MIN;
    let mut files: Vec<_> = tree(scratch.path()).into_iter().collect();
    files.sort_by_key(|(_, text)| text.lines().next().unwrap().parse::<i64>().unwrap());
    files
        .into_iter()
        .map(|(name, text)| {
            for line in text.lines() {
                let time: i64 = line.parse().unwrap();
                assert!(time > last, "files follow each other in time");
                last = time;
            }
            (name, text.lines().count())
        })
        .collect()
}

fn count<const N: usize>(files: [(&str, usize); N]) -> Vec<(String, usize)> {
    files
        .into_iter()
        .map(|(name, lines)| (name.to_owned(), lines))
        .collect()
}

#[test]
fn hour_that_is_repeated_has_two_files() {
    for (name, from) in [
        ("Europe/Berlin", utc(2026, 10, 24, 23, 0, 0)),
        ("America/New_York", utc(2026, 11, 1, 4, 0, 0)),
    ] {
        let files = quarters(name, "%H", 3600, from, from + 4 * HOUR);
        let hours = if name == "Europe/Berlin" {
            ["01", "02", "02.1", "03"]
        } else {
            ["00", "01", "01.1", "02"]
        };
        assert_eq!(files, count(hours.map(|hour| (hour, 4))), "{name}");
        let files = quarters(name, "%H%z", 3600, from, from + 4 * HOUR);
        let hours = if name == "Europe/Berlin" {
            ["01+0200", "02+0200", "02+0100", "03+0100"]
        } else {
            ["00-0400", "01-0400", "01-0500", "02-0500"]
        };
        assert_eq!(files, count(hours.map(|hour| (hour, 4))), "{name}");
    }
}

#[test]
fn hour_that_is_skipped_has_no_file() {
    for (name, from, hours) in [
        (
            "Europe/Berlin",
            utc(2026, 3, 29, 0, 0, 0),
            ["01", "03", "04"],
        ),
        (
            "America/New_York",
            utc(2026, 3, 8, 6, 0, 0),
            ["01", "03", "04"],
        ),
    ] {
        let files = quarters(name, "%H", 3600, from, from + 3 * HOUR);
        assert_eq!(files, count(hours.map(|hour| (hour, 4))), "{name}");
    }
}

#[test]
fn day_of_23_or_25_hours_is_one_file_from_midnight_to_midnight() {
    for (name, from, hours) in [
        ("Europe/Berlin", utc(2026, 3, 28, 23, 0, 0), 23),
        ("Europe/Berlin", utc(2026, 10, 24, 22, 0, 0), 25),
        ("America/New_York", utc(2026, 3, 8, 5, 0, 0), 23),
        ("America/New_York", utc(2026, 11, 1, 4, 0, 0), 25),
    ] {
        let end = from + i64::from(hours) * HOUR;
        let files = quarters(name, "%d", 86_400, from - HOUR, end + HOUR);
        let lines: Vec<usize> = files.iter().map(|(_, lines)| *lines).collect();
        assert_eq!(lines, [4, hours as usize * 4, 4], "{name} {files:?}");
    }
}

#[test]
fn period_longer_than_the_change_goes_on_through_it() {
    // Clocks go back within 00-06: seven hours. They go forth within 00-06: five hours.
    let back = utc(2026, 10, 24, 22, 0, 0);
    let files = quarters("Europe/Berlin", "%H", 6 * 3600, back, back + 13 * HOUR);
    assert_eq!(files, count([("00", 28), ("06", 24)]));
    let forth = utc(2026, 3, 28, 23, 0, 0);
    let files = quarters("Europe/Berlin", "%H", 6 * 3600, forth, forth + 11 * HOUR);
    assert_eq!(files, count([("00", 20), ("06", 24)]));
    // A period whose beginning is skipped begins at the jump, under its own name.
    let files = quarters("Europe/Berlin", "%H", 7200, forth + HOUR, forth + 4 * HOUR);
    assert_eq!(files, count([("00", 4), ("02", 4), ("04", 4)]));
}

#[test]
fn half_hour_change_of_lord_howe_is_followed() {
    // 2026-04-05 02:00 (+11) becomes 01:30 (+10:30).
    let back = utc(2026, 4, 4, 15, 0, 0);
    let files = quarters(
        "Australia/Lord_Howe",
        "%H%M",
        1800,
        back - HOUR,
        back + HOUR,
    );
    assert_eq!(
        files,
        count([("0100", 2), ("0130", 2), ("0130.1", 2), ("0200", 2)])
    );
    let files = quarters(
        "Australia/Lord_Howe",
        "%H",
        3600,
        back - HOUR,
        back + 3 * HOUR / 2,
    );
    assert_eq!(files, count([("01", 4), ("01.1", 2), ("02", 4)]));
    // 2026-10-04 02:00 (+10:30) becomes 02:30 (+11).
    let forth = utc(2026, 10, 3, 15, 30, 0);
    let files = quarters(
        "Australia/Lord_Howe",
        "%H%M",
        1800,
        forth - HOUR,
        forth + HOUR,
    );
    assert_eq!(
        files,
        count([("0100", 2), ("0130", 2), ("0230", 2), ("0300", 2)])
    );
}

#[test]
fn days_begin_at_midnight_in_each_zone() {
    for (name, midnight) in [
        ("Asia/Tokyo", utc(2026, 1, 1, 15, 0, 0)),
        ("Pacific/Honolulu", utc(2026, 1, 2, 10, 0, 0)),
        ("Europe/Berlin", utc(2026, 1, 1, 23, 0, 0)),
        ("America/New_York", utc(2026, 1, 2, 5, 0, 0)),
        ("Australia/Lord_Howe", utc(2026, 1, 1, 13, 0, 0)),
        ("Asia/Kathmandu", utc(2026, 1, 1, 18, 15, 0)),
    ] {
        let files = quarters(name, "%Y%m%d", 86_400, midnight - HOUR, midnight + HOUR);
        assert_eq!(files, count([("20260101", 4), ("20260102", 4)]), "{name}");
    }
}

#[test]
fn quarters_of_kathmandu_are_whole_hours_of_its_own_clock() {
    let hour = utc(2026, 1, 1, 18, 15, 0);
    let files = quarters("Asia/Kathmandu", "%H%M", 3600, hour - HOUR, hour + HOUR);
    assert_eq!(files, count([("2300", 4), ("0000", 4)]));
}

#[test]
fn leap_day_and_year_end_have_their_files() {
    let day = |from| quarters("UTC0", "%Y-%m-%d %j %G-W%V", 86_400, from, from + 3 * DAY);
    let names =
        |files: Vec<(String, usize)>| files.into_iter().map(|file| file.0).collect::<Vec<_>>();
    assert_eq!(
        names(day(utc(2028, 2, 28, 0, 0, 0))),
        [
            "2028-02-28 059 2028-W09",
            "2028-02-29 060 2028-W09",
            "2028-03-01 061 2028-W09"
        ]
    );
    assert_eq!(
        names(day(utc(2026, 2, 27, 0, 0, 0))),
        [
            "2026-02-27 058 2026-W09",
            "2026-02-28 059 2026-W09",
            "2026-03-01 060 2026-W09"
        ]
    );
    assert_eq!(
        names(day(utc(2026, 12, 30, 0, 0, 0))),
        [
            "2026-12-30 364 2026-W53",
            "2026-12-31 365 2026-W53",
            "2027-01-01 001 2026-W53"
        ]
    );
}

#[test]
fn weeks_begin_on_monday_and_odd_periods_at_their_multiples() {
    let thursday = utc(2026, 1, 1, 0, 0, 0);
    let files = quarters("UTC0", "%F", 7 * 86_400, thursday, thursday + 8 * DAY);
    assert_eq!(
        files,
        count([("2025-12-29", 4 * 96), ("2026-01-05", 4 * 96)])
    );
    let files = quarters("UTC0", "%F-%H", 9 * 3600, thursday, thursday + DAY);
    let lines: usize = files.iter().map(|file| file.1).sum();
    assert_eq!(lines, 96);
    assert!(files.len() <= 4, "{files:?}");
}

#[test]
fn restart_in_the_second_run_of_an_hour_does_not_append_to_the_first() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 10, 25, 0, 30, 0));
    let open = || {
        RotateLogs::builder(scratch.join("%Y%m%d%H"))
            .clock(hands.on(zone("Europe/Berlin")))
            .build()
            .unwrap()
    };
    writeln!(&open(), "first").unwrap();
    writeln!(&open(), "first again").unwrap();
    hands.advance(HOUR);
    writeln!(&open(), "second").unwrap();
    writeln!(&open(), "second again").unwrap();
    assert_eq!(
        tree(scratch.path()),
        expect([
            ("2026102502", "first\nfirst again\n"),
            ("2026102502.1", "second\nsecond again\n"),
        ])
    );
}

#[test]
fn two_writers_agree_on_the_files_of_a_repeated_hour() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 10, 25, 0, 59, 0));
    let open = || {
        RotateLogs::builder(scratch.join("%Y%m%d%H"))
            .clock(hands.on(zone("Europe/Berlin")))
            .build()
            .unwrap()
    };
    let (one, other) = (open(), open());
    for logs in [&one, &other] {
        writeln!({ logs }, "first").unwrap();
    }
    hands.advance(60);
    for logs in [&one, &other] {
        writeln!({ logs }, "second").unwrap();
    }
    hands.advance(HOUR);
    for logs in [&other, &one] {
        writeln!({ logs }, "third").unwrap();
    }
    assert_eq!(
        tree(scratch.path()),
        expect([
            ("2026102502", "first\nfirst\n"),
            ("2026102502.1", "second\nsecond\n"),
            ("2026102503", "third\nthird\n"),
        ])
    );
}

#[test]
fn name_that_comes_round_again_is_not_mixed_with_the_last_time() {
    let scratch = Scratch::new();
    fs::write(scratch.join("a.Fri"), "last week\n").unwrap();
    let week_ago = std::time::SystemTime::now() - Duration::from_secs(7 * 86_400);
    fs::File::options()
        .write(true)
        .open(scratch.join("a.Fri"))
        .unwrap()
        .set_modified(week_ago)
        .unwrap();
    let today = std::time::SystemTime::now();
    let seconds = today
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    let friday = (seconds / DAY..).find(|day| (day + 4) % 7 == 5).unwrap() * DAY;
    let hands = Hands::at(friday - 3600);
    let logs = RotateLogs::builder(scratch.join("a.%a"))
        .clock(hands.on(Clock::utc()))
        .build()
        .unwrap();
    hands.advance(HOUR);
    writeln!(&logs, "this week").unwrap();
    assert_eq!(contents(&scratch.join("a.Fri")), b"last week\n");
    assert_eq!(contents(&scratch.join("a.Fri.1")), b"this week\n");
}

#[test]
fn empty_file_of_the_last_time_is_used_when_its_name_comes_round_again() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 5, 10, 12, 30, 0));
    fs::File::create(scratch.join("a.12"))
        .unwrap()
        .set_modified(crate::support::at(utc(2026, 5, 9, 12, 0, 0)))
        .unwrap();
    let logs = RotateLogs::builder(scratch.join("a.%H"))
        .clock(hands.on(Clock::utc()))
        .build()
        .unwrap();
    writeln!(&logs, "today").unwrap();
    assert_eq!(tree(scratch.path()), expect([("a.12", "today\n")]));
}

#[test]
fn clock_set_back_by_less_than_a_day_changes_nothing() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 5, 10, 12, 30, 0));
    let logs = RotateLogs::builder(scratch.join("a.%Y%m%d%H"))
        .clock(hands.on(Clock::utc()))
        .build()
        .unwrap();
    writeln!(&logs, "at twelve").unwrap();
    for hours in [1, 5, 10] {
        hands.advance(-hours * HOUR);
        writeln!(&logs, "back").unwrap();
    }
    hands.set(utc(2026, 5, 10, 12, 59, 59));
    writeln!(&logs, "caught up").unwrap();
    assert_eq!(names(scratch.path()), ["a.2026051012"]);
    hands.advance(1);
    writeln!(&logs, "at one").unwrap();
    assert_eq!(names(scratch.path()), ["a.2026051012", "a.2026051013"]);
}

#[test]
fn clock_set_back_for_good_never_writes_to_an_older_file() {
    let scratch = Scratch::new();
    fs::write(scratch.join("a.20260503"), "older\n").unwrap();
    fs::write(scratch.join("a.20260502.gz"), "").unwrap();
    let hands = Hands::at(utc(2026, 5, 10, 12, 0, 0));
    let open = || {
        RotateLogs::builder(scratch.join("a.%Y%m%d"))
            .clock(hands.on(Clock::utc()))
            .build()
            .unwrap()
    };
    let (one, other) = (open(), open());
    writeln!(&one, "future").unwrap();
    hands.set(utc(2026, 5, 3, 12, 0, 0));
    writeln!(&one, "one").unwrap();
    writeln!(&other, "other").unwrap();
    assert_eq!(
        names(scratch.path()),
        ["a.20260502.gz", "a.20260503", "a.20260503.1", "a.20260510"]
    );
    assert_eq!(contents(&scratch.join("a.20260503")), b"older\n");
    assert_eq!(contents(&scratch.join("a.20260503.1")), b"one\nother\n");
    hands.set(utc(2026, 5, 1, 12, 0, 0));
    writeln!(&one, "new").unwrap();
    hands.set(utc(2026, 5, 2, 12, 0, 0));
    writeln!(&one, "after what is compressed").unwrap();
    assert_eq!(contents(&scratch.join("a.20260501")), b"new\n");
    assert_eq!(
        contents(&scratch.join("a.20260502.1")),
        b"after what is compressed\n"
    );
}

#[test]
fn clock_that_jumps_forward_skips_the_periods_between() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 5, 10, 12, 0, 0));
    let logs = RotateLogs::builder(scratch.join("a.%Y%m%d"))
        .clock(hands.on(Clock::utc()))
        .max_files(10)
        .build()
        .unwrap();
    writeln!(&logs, "x").unwrap();
    hands.set(utc(2033, 5, 10, 12, 0, 0));
    writeln!(&logs, "y").unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(names(scratch.path()), ["a.20260510", "a.20330510"]);
}

#[test]
fn clock_before_1970_and_far_ahead_is_no_trouble() {
    let scratch = Scratch::new();
    for seconds in [
        -DAY * 365,
        utc(1969, 12, 31, 23, 59, 59),
        0,
        utc(2261, 1, 1, 0, 0, 0),
    ] {
        let logs = RotateLogs::builder(scratch.join("a.%Y%m%d"))
            .clock(Hands::at(seconds).on(zone("America/New_York")))
            .build()
            .unwrap();
        writeln!(&logs, "x").unwrap();
    }
    assert_eq!(
        names(scratch.path()),
        ["a.19681231", "a.19691231", "a.22601231"]
    );
}

#[test]
fn own_clock_and_all_kinds_of_zones_tell_the_time() {
    let now = utc(2026, 7, 1, 12, 0, 0);
    for (clock, name) in [
        (Clock::utc(), "12+0000"),
        (Clock::fixed_offset(-3 * 3600).unwrap(), "09-0300"),
        (zone("Asia/Tokyo"), "21+0900"),
        (Clock::zone("EST5EDT,M3.2.0,M11.1.0").unwrap(), "08-0400"),
    ] {
        let scratch = Scratch::new();
        let logs = RotateLogs::builder(scratch.join("%H%z"))
            .clock(Hands::at(now).on(clock))
            .build()
            .unwrap();
        assert_eq!(logs.current_path(), scratch.join(name));
    }
    assert_eq!(Clock::zone("Nowhere/Land").unwrap_err().setting(), "clock");
    assert_eq!(Clock::fixed_offset(86_400).unwrap_err().setting(), "clock");
    // The kernel's coarse clock is a little late, and any may be set meanwhile.
    wait_until("it tells the system's time", || {
        let before = std::time::SystemTime::now() - Duration::from_secs(1);
        let ours = Clock::local().now();
        before <= ours && ours <= std::time::SystemTime::now()
    });
}
