use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use file_rotatelogs::{Compression, RotateLogs};

use crate::child::Child;
use crate::support::{Events, PATIENCE, Scratch, contents, expect, names, need, tree, wait_until};

const BOTH: [(Compression, &str); 2] = [(Compression::Gzip, "gz"), (Compression::Zstd, "zst")];

#[test]
fn closed_files_are_compressed_and_the_open_one_is_not() {
    for (compression, suffix) in BOTH {
        let scratch = Scratch::new();
        let events = Events::default();
        let logs = events
            .of(RotateLogs::builder(scratch.join("a.log"))
                .mode(0o640)
                .compress(compression))
            .build()
            .unwrap();
        for number in 0..3 {
            writeln!(&logs, "{number} {}", "again ".repeat(1000)).unwrap();
            logs.rotate().unwrap();
        }
        writeln!(&logs, "open").unwrap();
        assert!(logs.wait_for_housekeeping(PATIENCE));
        let expected: Vec<String> = ["a.log.1.", "a.log.2."]
            .iter()
            .map(|name| format!("{name}{suffix}"))
            .chain(["a.log.3".to_owned(), format!("a.log.{suffix}")])
            .collect();
        assert_eq!(names(scratch.path()), expected);
        for (number, name) in [format!("a.log.{suffix}"), format!("a.log.1.{suffix}")]
            .iter()
            .enumerate()
        {
            let path = scratch.join(name);
            let text = String::from_utf8(contents(&path)).unwrap();
            assert_eq!(text, format!("{number} {}\n", "again ".repeat(1000)));
            let there = fs::metadata(&path).unwrap();
            assert!(there.len() < 1000, "{} bytes", there.len());
            // The frame's descriptor says that a checksum ends it; gzip's always has one.
            let has_checksum = suffix == "gz" || fs::read(&path).unwrap()[4] & 4 != 0;
            assert!(has_checksum, "{path:?}");
            assert_eq!(there.permissions().mode() & 0o777, 0o640);
        }
        assert_eq!(events.count("compressed"), 3, "{:?}", events.all());
        assert_eq!(events.count("cannot"), 0, "{:?}", events.all());
    }
}

#[test]
fn compressed_file_has_the_times_and_the_owner_of_the_original() {
    let scratch = Scratch::new();
    fs::write(scratch.join("a.2020"), "x\n").unwrap();
    let file = fs::File::options()
        .write(true)
        .open(scratch.join("a.2020"))
        .unwrap();
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    file.set_modified(long_ago).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o604))
        .unwrap();
    let is_root = std::os::unix::fs::fchown(&file, Some(1234), Some(4321)).is_ok();
    let logs = RotateLogs::builder(scratch.join("a.%Y"))
        .compress(Compression::Gzip)
        .build()
        .unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    let there = fs::metadata(scratch.join("a.2020.gz")).unwrap();
    assert_eq!(there.modified().unwrap(), long_ago);
    assert_eq!(there.mode() & 0o777, 0o604);
    if is_root {
        assert_eq!((there.uid(), there.gid()), (1234, 4321));
    }
}

#[test]
fn what_a_process_left_that_was_killed_while_it_compressed_is_put_right() {
    let scratch = Scratch::new();
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    // Before the rename.
    fs::write(scratch.join("a.2020"), "half\n").unwrap();
    fs::write(scratch.join(".a.2020.gz.tmp"), &gzip(b"half\n")[..9]).unwrap();
    // Between rename and removal.
    fs::write(scratch.join("a.2021"), "both\n").unwrap();
    fs::write(scratch.join("a.2021.gz"), gzip(b"both\n")).unwrap();
    // Somebody removed the original meanwhile.
    fs::write(scratch.join(".a.2022.gz.tmp"), "orphan").unwrap();
    // Not ours.
    fs::write(scratch.join(".b.2022.gz.tmp"), "other").unwrap();
    fs::write(scratch.join(".a.2022.gz.tm"), "other").unwrap();
    let logs = RotateLogs::builder(scratch.join("a.%Y"))
        .compress(Compression::Gzip)
        .build()
        .unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    drop(logs);
    let mut hidden: Vec<String> = fs::read_dir(scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    hidden.sort();
    assert_eq!(hidden, [".a.%Y.lock", ".a.2022.gz.tm", ".b.2022.gz.tmp"]);
    let files = tree(scratch.path());
    assert_eq!(files["a.2020.gz"], "half\n");
    assert_eq!(files["a.2021.gz"], "both\n");
    assert_eq!(files.len(), 3, "{files:?}");
}

#[test]
fn half_of_a_compressed_file_goes_though_its_name_is_no_utf_8() {
    let scratch = Scratch::new();
    let name = |text: &[u8]| scratch.path().join(OsStr::from_bytes(text));
    fs::write(name(b".caf\xe9.2022.gz.tmp"), "orphan").unwrap();
    let logs = RotateLogs::builder(name(b"caf\xe9.%Y"))
        .compress(Compression::Gzip)
        .build()
        .unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert!(!name(b".caf\xe9.2022.gz.tmp").exists());
}

#[test]
fn compressed_file_of_other_contents_is_not_overwritten() {
    for (compression, suffix) in BOTH {
        for garbage in [false, true] {
            let scratch = Scratch::new();
            let other = if garbage {
                b"no compressed file at all".to_vec()
            } else if suffix == "gz" {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(b"other\n").unwrap();
                encoder.finish().unwrap()
            } else {
                zstd::encode_all(&b"other\n"[..], 1).unwrap()
            };
            let compressed = scratch.join(&format!("a.2020.{suffix}"));
            fs::write(scratch.join("a.2020"), "ours\n").unwrap();
            fs::write(&compressed, &other).unwrap();
            let events = Events::default();
            let logs = events
                .of(RotateLogs::builder(scratch.join("a.%Y")).compress(compression))
                .build()
                .unwrap();
            logs.rotate().unwrap();
            assert!(logs.wait_for_housekeeping(PATIENCE));
            assert_eq!(fs::read(&compressed).unwrap(), other);
            assert_eq!(fs::read(scratch.join("a.2020")).unwrap(), b"ours\n");
            assert_eq!(events.count("cannot compress"), 1, "{:?}", events.all());
            fs::remove_file(&compressed).unwrap();
            logs.rotate().unwrap();
            assert!(logs.wait_for_housekeeping(PATIENCE));
            assert_eq!(events.count("can compress"), 1, "{:?}", events.all());
            assert_eq!(contents(&compressed), b"ours\n");
        }
    }
}

#[test]
fn what_is_in_the_way_of_a_compressed_file_is_named_and_left_alone() {
    for name in ["a.2020.gz", ".a.2020.gz.tmp"] {
        let scratch = Scratch::new();
        let events = Events::default();
        fs::write(scratch.join("a.2020"), "log\n").unwrap();
        fs::create_dir(scratch.join(name)).unwrap();
        let logs = events
            .of(RotateLogs::builder(scratch.join("a.%Y")).compress(Compression::Gzip))
            .build()
            .unwrap();
        assert!(logs.wait_for_housekeeping(PATIENCE));
        let obstacle = format!("{:?}: ", scratch.join(name));
        let told = events.all().concat();
        assert!(
            told.contains("cannot compress") && told.contains(&obstacle),
            "{told}"
        );
        assert!(scratch.join(name).is_dir());
    }
    let scratch = Scratch::new();
    fs::write(scratch.join("a.2020"), "log\n").unwrap();
    symlink("nowhere", scratch.join("a.2020.gz")).unwrap();
    let logs = RotateLogs::builder(scratch.join("a.%Y"))
        .compress(Compression::Gzip)
        .build()
        .unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert!(fs::read_link(scratch.join("a.2020.gz")).is_ok());
    assert_eq!(contents(&scratch.join("a.2020")), b"log\n");
}

#[test]
fn file_of_another_writer_is_compressed_when_it_is_done_with_it() {
    let scratch = Scratch::new();
    let slow = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    writeln!(&slow, "slow").unwrap();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .compress(Compression::Gzip)
        .build()
        .unwrap();
    logs.rotate().unwrap();
    logs.rotate().unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(names(scratch.path()), ["a.log", "a.log.1.gz", "a.log.2"]);
    // The slow one goes on to where the others are, by itself.
    wait_until("the other file is compressed", || {
        writeln!(&slow, "slow").unwrap();
        logs.tick();
        names(scratch.path()) == ["a.log.1.gz", "a.log.2", "a.log.gz"]
    });
    let all: String = tree(scratch.path()).into_values().collect();
    let first = String::from_utf8(contents(&scratch.join("a.log.gz"))).unwrap();
    assert!(first.starts_with("slow\n"));
    assert!(all.len() > first.len(), "some of it in the newest file");
}

#[test]
fn files_of_before_are_compressed_at_start() {
    let scratch = Scratch::new();
    fs::write(scratch.join("a.2020"), "x\n").unwrap();
    fs::write(scratch.join("a.2020.1"), "y\n").unwrap();
    let logs = RotateLogs::builder(scratch.join("a.%Y"))
        .lazy(true)
        .compress(Compression::Zstd)
        .build()
        .unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(
        tree(scratch.path()),
        expect([("a.2020.1", "y\n"), ("a.2020.zst", "x\n")]),
        "but the newest, which a process may be about to go on with"
    );
}

/// Follows the calls by strace: a power failure must find the one or the other.
#[test]
fn original_goes_only_when_the_compressed_file_is_on_the_disk() {
    if !need("strace") {
        return;
    }
    let scratch = Scratch::with_programs();
    let trace = scratch.join("trace");
    let calls = "trace=openat,fsync,rename,renameat,renameat2,unlink,unlinkat";
    let mut child = Child::traced(&["-y", "-e", calls], &trace);
    let log = scratch.join("a.log");
    let log = log.to_str().unwrap();
    child.open(&[&*format!("pattern={log}"), "gzip"]).unwrap();
    child.tell("write\tx").unwrap();
    child.tell("rotate").unwrap();
    child.tell("settle").unwrap();
    drop(child);
    let text = fs::read_to_string(&trace).unwrap();
    let directory = scratch.path().to_str().unwrap();
    let steps = [
        ("fsync(", format!("{directory}/.a.log.gz.tmp>")),
        ("rename", format!("\"{log}.gz\"")),
        ("fsync(", format!("{directory}>")),
        ("unlink", format!("\"{log}\"")),
    ];
    let mut lines = text.lines();
    for (call, argument) in &steps {
        assert!(
            lines.any(|line| line.contains(call) && line.contains(argument)),
            "no {call} {argument} where it belongs: {text}"
        );
    }
}

#[test]
fn what_another_process_is_compressing_is_left_to_it() {
    let scratch = Scratch::new();
    fs::write(scratch.join("a.2020"), "old\n").unwrap();
    fs::write(scratch.join(".a.2020.gz.tmp"), "half").unwrap();
    // Who compresses a file has its lock.
    let original = fs::File::open(scratch.join("a.2020")).unwrap();
    original.lock().unwrap();
    let logs = RotateLogs::builder(scratch.join("a.%Y"))
        .compress(Compression::Gzip)
        .build()
        .unwrap();
    assert!(logs.wait_for_housekeeping(PATIENCE));
    assert_eq!(fs::read(scratch.join(".a.2020.gz.tmp")).unwrap(), b"half");
    assert!(!scratch.join("a.2020.gz").exists());
}

#[test]
fn each_failure_and_each_recovery_is_told_once() {
    let scratch = Scratch::new();
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(scratch.join("a.%Y")).compress(Compression::Gzip))
        .build()
        .unwrap();
    let tidy = || {
        logs.rotate().unwrap();
        assert!(logs.wait_for_housekeeping(PATIENCE));
    };
    // That of the start would compress what comes first before the other is there.
    assert!(logs.wait_for_housekeeping(PATIENCE));
    for round in 1..=2 {
        fs::write(scratch.join("a.2020"), "log\n").unwrap();
        fs::write(scratch.join("a.2020.gz"), "in the way").unwrap();
        tidy();
        tidy();
        assert_eq!(events.count("cannot compress"), round);
        fs::remove_file(scratch.join("a.2020.gz")).unwrap();
        tidy();
        assert_eq!(events.count("can compress"), round);
        assert_eq!(contents(&scratch.join("a.2020.gz")), b"log\n");
    }
}
