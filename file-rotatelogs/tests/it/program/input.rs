//! What becomes of the lines that come in.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::{PROGRAM, Piped, run};
use crate::support::{Scratch, contents, expect, names, start, tree, wait_until};

#[test]
fn no_line_is_split_across_files() {
    let scratch = Scratch::with_programs();
    let mut piped = Piped::start(scratch.path(), &["--size", "100", "a.log"]);
    let mut expected = String::new();
    // Lines of all lengths, in pieces that end anywhere.
    for length in 0..400_usize {
        expected.push_str(&format!("{length} {}\n", "x".repeat(length % 130)));
    }
    for piece in expected.as_bytes().chunks(37) {
        piped.write(std::str::from_utf8(piece).unwrap());
    }
    assert!(piped.end().status.success());
    let files = tree(scratch.path());
    assert!(files.len() > 100, "{} files", files.len());
    let mut all = String::new();
    for number in 0..files.len() {
        let suffix = if number == 0 {
            String::new()
        } else {
            format!(".{number}")
        };
        let text = &files[&format!("a.log{suffix}")];
        assert!(text.ends_with('\n'), "{number}: {text:?}");
        assert!(
            text.len() <= 100 || text.lines().count() == 1,
            "{number}: {text:?}"
        );
        all.push_str(text);
    }
    assert_eq!(all, expected);
}

#[test]
fn line_that_comes_slowly_is_written_when_its_end_is_there() {
    let scratch = Scratch::with_programs();
    let mut piped = Piped::start(scratch.path(), &["--size", "10", "a.log"]);
    piped.write("first\nslow");
    wait_until("the first line is written", || {
        fs::read(scratch.join("a.log")).is_ok_and(|text| text == b"first\n")
    });
    piped.write(" and");
    piped.signal("USR1");
    wait_until("the signal is seen", || names(scratch.path()).len() == 2);
    piped.write(" steady\nnext\n");
    assert!(piped.end().status.success());
    assert_eq!(
        tree(scratch.path()),
        expect([
            ("a.log", "first\n"),
            ("a.log.1", "slow and steady\n"),
            ("a.log.2", "next\n")
        ])
    );
}

#[test]
fn line_of_more_than_a_mebibyte_is_written_as_it_comes_and_the_next_goes_on_after_it() {
    let scratch = Scratch::with_programs();
    let mut piped = Piped::start(scratch.path(), &["--size", "100K", "a.log"]);
    let part = "0123456789".repeat(300_000);
    piped.write(&part);
    wait_until("some of the line is written", || {
        fs::metadata(scratch.join("a.log")).is_ok_and(|there| there.len() > 0)
    });
    piped.write("end\nnext\n");
    assert!(piped.end().status.success());
    assert_eq!(
        tree(scratch.path()),
        expect([("a.log", &format!("{part}end\n")), ("a.log.1", "next\n")])
    );
}

#[test]
fn line_longer_than_any_buffer_is_in_one_file() {
    let scratch = Scratch::with_programs();
    let mut piped = Piped::start(scratch.path(), &["--size", "1M", "a.log"]);
    piped.write("before\n");
    let part = "0123456789".repeat(10_000);
    for _ in 0..35 {
        piped.write(&part);
    }
    piped.signal("USR1");
    piped.write("end\n");
    piped.write("after\n");
    let long_without_end = "y".repeat(3_000_000);
    piped.write(&long_without_end);
    assert!(piped.end().status.success());
    let texts: Vec<String> = tree(scratch.path()).into_values().collect();
    let all = texts.concat();
    assert_eq!(all.len(), 7 + 3_500_000 + 4 + 6 + 3_000_000);
    let long = texts
        .iter()
        .find(|text| text.contains("0123456789"))
        .unwrap();
    assert!(long.contains(&format!("{}end\n", part.repeat(35))));
    assert!(texts.iter().any(|text| text.ends_with(&long_without_end)));
    assert!(texts.len() > 1);
}

#[test]
fn last_line_without_an_end_is_written_as_it_is() {
    let scratch = Scratch::with_programs();
    run(scratch.path(), &["a.log"], "one\ntwo");
    assert_eq!(contents(&scratch.join("a.log")), b"one\ntwo");
    run(scratch.path(), &["a.log"], "three\n");
    assert_eq!(contents(&scratch.join("a.log")), b"one\ntwo\nthree\n");
}

#[test]
fn any_bytes_pass_unchanged() {
    let scratch = Scratch::with_programs();
    let mut piped = Piped::start(scratch.path(), &["a.log"]);
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let pipe = piped.0.stdin.as_mut().unwrap();
    pipe.write_all(&bytes).unwrap();
    assert!(piped.end().status.success());
    assert_eq!(contents(&scratch.join("a.log")), bytes);
}

#[test]
fn no_file_is_made_without_a_line_unless_asked_for() {
    let scratch = Scratch::with_programs();
    run(scratch.path(), &["a.%Y", "31622400"], "");
    assert!(names(scratch.path()).is_empty());
    run(scratch.path(), &["-f", "a.%Y", "31622400"], "");
    assert_eq!(names(scratch.path()).len(), 1);
    let piped = Piped::start(scratch.path(), &["-c", "b.%s", "1"]);
    wait_until("there is a file for each second", || {
        names(scratch.path()).len() >= 4
    });
    assert!(piped.end().status.success());
}

#[test]
fn input_that_cannot_be_read_is_told() {
    let scratch = Scratch::with_programs();
    let mut command = Command::new(PROGRAM);
    command
        .arg(scratch.join("a.log"))
        .stdin(fs::File::open(scratch.path()).unwrap())
        .stderr(Stdio::piped());
    let output = start(&mut command).wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.starts_with("rotatelogs: cannot read standard input: "),
        "{message}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn echo_copies_the_lines_and_stops_when_nobody_reads() {
    let scratch = Scratch::with_programs();
    let output = run(scratch.path(), &["-e", "a.log"], "one\ntwo");
    assert_eq!(output.stdout, b"one\ntwo");
    let mut piped = Piped::start(scratch.path(), &["-e", "b.log"]);
    piped.write("one\n");
    let mut reader = BufReader::new(piped.0.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    drop(reader);
    piped.write("two\n");
    wait_until("it is in the file", || {
        fs::read(scratch.join("b.log")).unwrap_or_default() == b"one\ntwo\n"
    });
    piped.write("three\n");
    let output = piped.end();
    assert!(output.status.success());
    assert_eq!(contents(&scratch.join("b.log")), b"one\ntwo\nthree\n");
    assert_eq!(
        String::from_utf8(output.stderr)
            .unwrap()
            .matches("echo")
            .count(),
        1
    );
}
