//! Lines that a real httpd and a real nginx wrote.

use std::{borrow::Cow, env, fs, path::Path};

use apache_logformat::{Escape, LogFormat};
use serde_json::Value;

use crate::record::{Record, bytes};

const LINES: &str = include_str!("../data/apache-lines.jsonl");
const FORMATS: &str = include_str!("../data/apache-formats.jsonl");
const NGINX_LINES: &str = include_str!("../data/nginx-lines.jsonl");

/// Names a directory with files of the same names and kinds, which are then
/// compared instead.
const RECORDS: &str = "GOLDEN_RECORDS";

/// Lines that are not written as the original writes them, by the rules below.
const DEVIATIONS: &[&str] = &[
    // httpd's strings end at a NUL, which hides the rest of a path from the log.
    "target-76~0",
    "target-76~2",
    "target-76~3",
    // nginx passes bytes that are not UTF-8, and the line is no JSON then.
    "ngx-target-9~json",
    "ngx-esc-hi1~xaj",
    "ngx-esc-hi1~comb_json",
    "ngx-esc-hi2~xaj",
    "ngx-esc-hi2~comb_json",
    // nginx passes DEL, which is a control character of terminals.
    "ngx-esc-del~xaj",
    "ngx-esc-del~comb_json",
];

/// Lines that show how far the server had read, which their records do not say.
const UNTOLD: &[&str] = &["ngx-method-get~vars", "ngx-raw-9~combined"];

/// Returns the line that is expected of this crate.
fn expected(record: &Record) -> Vec<u8> {
    if record.escape == "json" {
        let line = String::from_utf8_lossy(&record.expected);
        let escaped = line.chars().map(|character| match character {
            '\u{fffd}' => r"\uFFFD".to_owned(),
            '\u{7f}'..='\u{9f}' => format!(r"\u{:04X}", u32::from(character)),
            _ => character.to_string(),
        });
        return escaped.collect::<String>().into_bytes();
    }
    record.expected.clone()
}

/// Cuts `line` as httpd's strings end.
fn cut_at_nul(record: &Record, line: Vec<u8>) -> Vec<u8> {
    if !record.has_tag("nul-truncation") {
        return line;
    }
    let mut line = String::from_utf8(line).unwrap();
    while let Some(nul) = line.find(r"\x00") {
        let length = line[nul..].find([' ', '|', '"']);
        line.drain(nul..length.map_or(line.len(), |length| nul + length));
    }
    line.into_bytes()
}

fn data(name: &str, vendored: &'static str) -> Cow<'static, str> {
    match env::var_os(RECORDS) {
        Some(directory) => fs::read_to_string(Path::new(&directory).join(name))
            .unwrap_or_default()
            .into(),
        None => vendored.into(),
    }
}

fn records(name: &str, vendored: &'static str) -> Vec<Record> {
    Record::all(&data(name, vendored))
}

fn compare(records: &[Record], line: impl Fn(&Record) -> Vec<u8>) {
    let mut wrong = Vec::new();
    for record in records {
        let expected = expected(record);
        let whole = line(record);
        let got = cut_at_nul(record, whole.clone());
        if env::var_os(RECORDS).is_none() {
            assert_eq!(
                whole != record.expected,
                got != expected || DEVIATIONS.contains(&&*record.id),
                "{} is a deviation or is none",
                record.id
            );
        }
        if got != expected {
            wrong.push(format!(
                "{}: {}\n  expected {}\n  got      {}",
                record.id,
                record.format.escape_ascii(),
                expected.escape_ascii(),
                got.escape_ascii(),
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} lines differ\n{}",
        wrong.len(),
        records.len(),
        wrong.join("\n")
    );
}

#[test]
fn records_are_whole() {
    assert_eq!(LINES.lines().count(), 1161);
    assert_eq!(FORMATS.lines().count(), 469);
    assert_eq!(NGINX_LINES.lines().count(), 138);
    let through_the_layer = |line: &Record| line.level != "raw" && line.http_types;
    let lines = Record::all(LINES);
    assert_eq!(
        lines.iter().filter(|line| through_the_layer(line)).count(),
        1071
    );
}

#[test]
fn lines_of_httpd_come_out_of_the_layer() {
    let mut records = records("apache-lines.jsonl", LINES);
    records.retain(|record| record.level != "raw" && record.http_types);
    compare(&records, |record| record.send(&apache(record)));
}

#[test]
fn lines_of_httpd_come_out_of_bytes() {
    let records = records("apache-lines.jsonl", LINES);
    compare(&records, |record| record.render(&apache(record)));
}

#[test]
fn formats_are_accepted_and_rejected_as_httpd_does() {
    for line in formats().1 {
        let text = bytes(&line["format"]).unwrap();
        // This crate knows the directives of mod_ssl.
        let accepted = line["accepted"] == true || line["accepted_with_mod_ssl"] == true;
        match LogFormat::try_from(&*text) {
            Ok(format) => {
                assert!(accepted, "{line}");
                assert_eq!(format.as_bytes(), text, "{line}");
            }
            Err(error) => {
                assert!(!accepted, "{line}");
                assert_eq!(error.message(), line["error"], "{line}");
            }
        }
    }
}

#[test]
fn odd_formats_are_printed_as_httpd_does() {
    let (reference, formats) = formats();
    for line in formats {
        let Some(expected) = bytes(&line["line"]) else {
            continue;
        };
        let text = bytes(&line["format"]).unwrap();
        let format = LogFormat::try_from(&*text).unwrap();
        let got = reference.render(&format.with_zone(reference.zone()));
        assert_eq!(
            got.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "{line}"
        );
    }
}

#[test]
fn lines_of_nginx_come_out_of_the_layer() {
    let mut records = nginx_service();
    records.retain(Record::fits_http_types);
    compare(&records, |record| record.send(&nginx(record)));
}

#[test]
fn lines_of_nginx_come_out_of_bytes() {
    let mut records = records("nginx-lines.jsonl", NGINX_LINES);
    records.retain(|record| record.escape != "none" && !UNTOLD.contains(&&*record.id));
    compare(&records, |record| record.render(&nginx(record)));
}

fn nginx_service() -> Vec<Record> {
    let mut records = records("nginx-lines.jsonl", NGINX_LINES);
    records.retain(|record| record.level == "service" && record.escape != "none");
    records
}

/// The request that odd formats were printed of, and the formats.
fn formats() -> (Record, Vec<Value>) {
    let data = data("apache-formats.jsonl", FORMATS);
    let mut lines = data
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let reference = Record::new(lines.next().unwrap()["reference"].take());
    (reference, lines.collect())
}

fn apache(record: &Record) -> LogFormat {
    let format = LogFormat::try_from(&*record.format).unwrap();
    format.with_zone(record.zone())
}

fn nginx(record: &Record) -> LogFormat {
    let escape = match &*record.escape {
        "json" => Escape::Json,
        _ => Escape::Nginx,
    };
    let format = LogFormat::nginx(&record.format, escape).unwrap();
    format.with_zone(record.zone())
}
