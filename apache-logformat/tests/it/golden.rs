//! Lines that a real httpd and a real nginx wrote.

use apache_logformat::{Escape, LogFormat};
use serde_json::Value;

use crate::record::{Record, bytes};

const LINES: &str = include_str!("../data/apache-lines.jsonl");
const FORMATS: &str = include_str!("../data/apache-formats.jsonl");
const NGINX_LINES: &str = include_str!("../data/nginx-lines.jsonl");

/// Lines that are not written as the original writes them, and what is written
/// instead of its text.
const DEVIATIONS: &[(&str, &str, &str)] = &[
    // httpd's strings end at a NUL, which hides the rest of a path from the log.
    (
        "target-76~0",
        "GET /%00 HTTP/1.1|/|",
        r"GET /%00 HTTP/1.1|/\x00|",
    ),
    (
        "target-76~2",
        "GET /%00 HTTP/1.1 / ",
        r"GET /%00 HTTP/1.1 /\x00 ",
    ),
    ("target-76~3", r#""uri":"/""#, r#""uri":"/\x00""#),
    // nginx passes bytes that are not UTF-8, and the line is no JSON then.
    ("ngx-target-9~json", "/\u{fffd}", r"/\uFFFD"),
    ("ngx-esc-hi1~xaj", "\u{fffd}", r"\uFFFD"),
    ("ngx-esc-hi1~comb_json", "\u{fffd}", r"\uFFFD"),
    ("ngx-esc-hi2~xaj", "\u{fffd}", r"\uFFFD"),
    ("ngx-esc-hi2~comb_json", "\u{fffd}", r"\uFFFD"),
    // nginx passes DEL, which is a control character of terminals.
    ("ngx-esc-del~xaj", "\u{7f}", r"\u007F"),
    ("ngx-esc-del~comb_json", "\u{7f}", r"\u007F"),
];

/// Lines that show how far the server had read, which their records do not say.
const UNTOLD: &[&str] = &["ngx-method-get~vars", "ngx-raw-9~combined"];

fn compare(records: &[Record], line: impl Fn(&Record) -> Vec<u8>) {
    let mut wrong = Vec::new();
    for record in records {
        let got = line(record);
        let deviation = DEVIATIONS.iter().find(|(id, ..)| *id == record.id);
        let expected = match deviation {
            Some((_, from, to)) => {
                let expected = String::from_utf8_lossy(&record.expected);
                assert!(expected.contains(from), "{} needs no deviation", record.id);
                expected.replace(from, to).into_bytes()
            }
            None => record.expected.clone(),
        };
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
fn lines_of_httpd_come_out_of_the_layer() {
    let mut records = Record::all(LINES);
    records.retain(|record| record.level != "raw" && record.http_types);
    assert_eq!(records.len(), 1071);
    compare(&records, |record| record.send(&apache(record)));
}

#[test]
fn lines_of_httpd_come_out_of_bytes() {
    let records = Record::all(LINES);
    assert_eq!(records.len(), 1161);
    compare(&records, |record| record.render(&apache(record)));
}

#[test]
fn formats_are_accepted_and_rejected_as_httpd_does() {
    let formats = formats().1;
    assert_eq!(formats.len(), 468);
    for line in formats {
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
    let mut compared = 0;
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
        compared += 1;
    }
    assert!(compared > 150, "{compared}");
}

#[test]
fn lines_of_nginx_come_out_of_the_layer() {
    let mut records = Record::all(NGINX_LINES);
    records.retain(|record| record.level == "service" && record.escape != "none");
    assert_eq!(records.len(), 113);
    records.retain(Record::fits_http_types);
    assert!(records.len() > 90, "{}", records.len());
    compare(&records, |record| record.send(&nginx(record)));
}

#[test]
fn lines_of_nginx_come_out_of_bytes() {
    let mut records = Record::all(NGINX_LINES);
    records.retain(|record| record.escape != "none" && !UNTOLD.contains(&&*record.id));
    assert_eq!(records.len(), 118);
    compare(&records, |record| record.render(&nginx(record)));
}

/// The request that odd formats were printed of, and the formats.
fn formats() -> (Record, Vec<Value>) {
    let mut lines = FORMATS
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
