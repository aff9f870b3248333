//! `strftime` beside glibc's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apache_logformat::{Exchange, LogFormat, Timestamp, Zone};

/// What glibc 2.36 wrote; made by `strftime.c` beside it.
const GLIBC: &str = include_str!("../data/strftime.tsv");

#[test]
fn conversions_print_what_glibc_prints() {
    let zone = Zone::named("America/New_York").unwrap();
    let mut wrong = Vec::new();
    for line in GLIBC.lines() {
        let mut fields = line.split('\t');
        let second: i64 = fields.next().unwrap().parse().unwrap();
        let (text, expected) = (fields.next().unwrap(), fields.next().unwrap());
        // The `x` keeps words such as `sec` from being anything but a text.
        let format = LogFormat::try_from(format!("%{{x{text}}}t")).unwrap();
        let got = print(&format.with_zone(zone.clone()), second);
        let got: String = got[1..].iter().map(|byte| format!("{byte:02x}")).collect();
        if got != expected {
            wrong.push(format!("{second} `{text}`: expected {expected}, got {got}"));
        }
    }
    assert!(GLIBC.lines().count() > 3800);
    assert!(
        wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_huge_width_makes_no_huge_line() {
    let format: LogFormat = "%{%99999999999999999999d|%4000000000Y}t".parse().unwrap();
    let line = print(&format.with_zone(Zone::utc()), 0);
    assert_eq!(line.len(), 2 * 8191 + 1);
}

#[test]
fn every_instant_keeps_its_own_offset() {
    // The hour that a change to winter time repeats, and the instants beside it.
    let format: LogFormat = "%t|%{%H:%M:%S %z %Z}t".parse().unwrap();
    let format = format.with_zone(Zone::named("America/New_York").unwrap());
    let change = 1_699_164_000;
    for (second, expected) in [
        (
            change - 1,
            "[05/Nov/2023:01:59:59 -0400]|01:59:59 -0400 EDT",
        ),
        (change, "[05/Nov/2023:01:00:00 -0500]|01:00:00 -0500 EST"),
        (
            change + 1,
            "[05/Nov/2023:01:00:01 -0500]|01:00:01 -0500 EST",
        ),
        (
            change - 3600,
            "[05/Nov/2023:01:00:00 -0400]|01:00:00 -0400 EDT",
        ),
    ] {
        // Twice: a cached second must not serve another one.
        for _ in 0..2 {
            assert_eq!(String::from_utf8(print(&format, second)).unwrap(), expected);
        }
    }
}

#[test]
fn offset_that_no_zone_has_is_printed_all_the_same() {
    let format: LogFormat = "%t|%{%z}t".parse().unwrap();
    for (offset, expected) in [(i32::MIN, "-59652314"), (i32::MAX, "+59652314")] {
        let format = format.clone().with_zone(Zone::fixed(offset, "far"));
        let line = String::from_utf8(print(&format, 0)).unwrap();
        assert!(line.ends_with(&format!("|{expected}")), "{line}");
        assert!(line.contains(&format!(" {expected}]|")), "{line}");
    }
}

#[test]
fn zones_do_not_share_what_they_cache() {
    let format: LogFormat = "%t".parse().unwrap();
    let zones = [
        (Zone::utc(), "[01/Jan/1970:00:00:00 +0000]"),
        (Zone::fixed(5400, "X"), "[01/Jan/1970:01:30:00 +0130]"),
        (
            Zone::named("Asia/Tokyo").unwrap(),
            "[01/Jan/1970:09:00:00 +0900]",
        ),
        (Zone::utc(), "[01/Jan/1970:00:00:00 +0000]"),
    ];
    for (zone, expected) in &zones {
        let format = format.clone().with_zone(zone.clone());
        assert_eq!(String::from_utf8(print(&format, 0)).unwrap(), *expected);
    }
    for (zone, expected) in zones.iter().rev() {
        let format = format.clone().with_zone(zone.clone());
        assert_eq!(String::from_utf8(print(&format, 0)).unwrap(), *expected);
    }
}

#[test]
fn abbreviation_of_a_fixed_zone_is_printed_whole() {
    let format: LogFormat = "%{%Z}t".parse().unwrap();
    let format = format.with_zone(Zone::fixed(0, "Greenwich"));
    assert_eq!(String::from_utf8(print(&format, 0)).unwrap(), "Greenwich");
}

#[test]
fn years_of_other_than_four_digits_are_printed_whole() {
    let format: LogFormat = "%t".parse().unwrap();
    let format = format.with_zone(Zone::utc());
    for (second, expected) in [
        (253_402_300_800, "[01/Jan/10000:00:00:00 +0000]"),
        (-30_641_760_000, "[01/Jan/999:00:00:00 +0000]"),
    ] {
        assert_eq!(String::from_utf8(print(&format, second)).unwrap(), expected);
    }
}

#[test]
fn weeks_around_new_year_are_those_of_the_calendar() {
    let format: LogFormat = "%{%F %G-W%V-%u %g %j}t".parse().unwrap();
    let format = format.with_zone(Zone::utc());
    for year in 1600..2400 {
        for day in -4..8 {
            let first = jiff::civil::date(year, 1, 1);
            let date = first.saturating_add(jiff::Span::new().days(day));
            let week = date.iso_week_date();
            let expected = format!(
                "{date} {}-W{:02}-{} {:02} {:03}",
                week.year(),
                week.week(),
                week.weekday().to_monday_one_offset(),
                week.year() % 100,
                date.day_of_year(),
            );
            let noon = date.at(12, 0, 0, 0);
            let noon = jiff::tz::Offset::UTC.to_timestamp(noon).unwrap();
            let line = print(&format, noon.as_second());
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }
}

#[test]
fn systems_time_becomes_microseconds_on_either_side_of_1970() {
    let micros = |time: SystemTime| Timestamp::from(time).as_micros();
    assert_eq!(micros(UNIX_EPOCH), 0);
    let distance = Duration::from_micros(3_000_500);
    assert_eq!(micros(UNIX_EPOCH + distance), 3_000_500);
    assert_eq!(micros(UNIX_EPOCH - distance), -3_000_500);
}

#[test]
fn instants_before_1970_are_printed() {
    let format: LogFormat = "%{%FT%T}t.%{usec_frac}t %{sec}t %{msec}t".parse().unwrap();
    let mut exchange = Exchange::default();
    exchange.begin = Timestamp::from_micros(-1);
    let mut line = Vec::new();
    format.with_zone(Zone::utc()).write(&exchange, &mut line);
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "1969-12-31T23:59:59.999999 -1 -1\n"
    );
}

#[test]
fn an_unknown_zone_is_an_error_with_its_name() {
    let error = Zone::named("Europe/Atlantis").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot find the time zone `Europe/Atlantis`"
    );
    assert!(std::error::Error::source(&error).is_some());
}

fn print(format: &LogFormat, second: i64) -> Vec<u8> {
    let mut exchange = Exchange::default();
    exchange.begin = Timestamp::from_micros(second * 1_000_000);
    let mut line = Vec::new();
    format.write(&exchange, &mut line);
    assert_eq!(line.pop(), Some(b'\n'));
    line
}

#[test]
fn local_zone_is_that_of_the_environment() {
    const CHILD: &str = "APACHE_LOGFORMAT_TEST_LOCAL";
    let name = "strftime::local_zone_is_that_of_the_environment";
    if std::env::var_os(CHILD).is_some() {
        let format: LogFormat = "%{%FT%T%z %Z}t".parse().unwrap();
        println!(
            "<{}>",
            String::from_utf8(print(&format, 1_700_000_000)).unwrap()
        );
        return;
    }
    for (zone, expected) in [
        ("Asia/Tokyo", "<2023-11-15T07:13:20+0900 JST>"),
        ("America/New_York", "<2023-11-14T17:13:20-0500 EST>"),
        ("XYZ-3:30", "<2023-11-15T01:43:20+0330 XYZ>"),
        ("UTC", "<2023-11-14T22:13:20+0000 UTC>"),
        ("no such zone", "<2023-11-14T22:13:20+0000 UTC>"),
    ] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .env("TZ", zone)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(expected), "{zone}: {text}");
    }
}
