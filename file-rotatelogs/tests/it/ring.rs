//! A fixed number of files, written over and over.

use std::fs;
use std::io::Write;

use file_rotatelogs::RotateLogs;

use crate::support::{Scratch, expect, tree};

#[test]
fn emptied_file_begins_with_the_record_and_no_empty_line() {
    let scratch = Scratch::new();
    fs::write(scratch.join("a.log"), "unfinished").unwrap();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .ring(1)
        .start_empty(true)
        .finish_lines(true)
        .build()
        .unwrap();
    writeln!(&logs, "new").unwrap();
    assert_eq!(tree(scratch.path()), expect([("a.log", "new\n")]));
}

#[test]
fn emptied_file_can_be_shared_with_another_writer() {
    let scratch = Scratch::new();
    let open = || {
        RotateLogs::builder(scratch.join("a.log"))
            .ring(1)
            .build()
            .unwrap()
    };
    let one = open();
    writeln!(&one, "old").unwrap();
    one.rotate().unwrap();
    let other = open();
    writeln!(&other, "of the other").unwrap();
    writeln!(&one, "of the one").unwrap();
    assert_eq!(
        tree(scratch.path()),
        expect([("a.log", "of the other\nof the one\n")])
    );
    // Nobody empties what another writes to.
    assert!(one.rotate().is_err());
    drop(other);
    one.rotate().unwrap();
    assert_eq!(tree(scratch.path()), expect([("a.log", "")]));
}
