use std::cell::RefCell;
use std::fs;
use std::io::{IoSlice, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::thread;

use file_rotatelogs::{Clock, NonBlocking, RotateLogs};

use crate::support::{
    DAY, Events, HOUR, Hands, PATIENCE, Scratch, contents, expect, names, tree, utc,
};

#[test]
fn each_call_is_one_record_in_the_file_of_its_period() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 1, 30, 23, 59, 58));
    let mut logs = RotateLogs::builder(scratch.join("a.%Y%m%d.log"))
        .clock(hands.on(Clock::utc()))
        .build()
        .unwrap();
    logs.write_all(b"one\n").unwrap();
    hands.advance(1);
    assert_eq!(logs.write(b"two\n").unwrap(), 4);
    hands.advance(1);
    writeln!(logs, "three {}", 3).unwrap();
    let parts = [IoSlice::new(b"fo"), IoSlice::new(b"ur\n")];
    assert_eq!((&logs).write_vectored(&parts).unwrap(), 5);
    (&logs).flush().unwrap();
    assert_eq!(logs.write(b"").unwrap(), 0);
    assert_eq!(
        tree(scratch.path()),
        expect([
            ("a.20260130.log", "one\ntwo\n"),
            ("a.20260131.log", "three 3\nfour\n"),
        ])
    );
    assert_eq!(logs.current_path(), scratch.join("a.20260131.log"));
}

#[test]
fn formatted_record_is_whole_though_its_pieces_are_many() {
    struct Logging(RotateLogs);
    impl std::fmt::Display for Logging {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            writeln!(&self.0, "inner {}", 1).map_err(|_| std::fmt::Error)?;
            f.write_str("outer")
        }
    }
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .rotate_at_bytes(24)
        .build()
        .unwrap();
    for number in 0..6 {
        writeln!(&logs, "{:-^5}{number}{:>5}c", 'a', number).unwrap();
    }
    writeln!(&logs, "{}", Logging(logs.clone())).unwrap();
    for (name, text) in tree(scratch.path()) {
        assert!(text.len() <= 24 && text.ends_with('\n'), "{name}: {text:?}");
    }
    let all: String = tree(scratch.path()).into_values().collect();
    assert!(all.contains("inner 1\nouter\n"), "{all:?}");
    assert_eq!(all.matches("--a--").count(), 6);
}

#[test]
fn file_never_grows_past_the_limit_but_for_a_larger_record() {
    let scratch = Scratch::new();
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(scratch.join("a.log")).rotate_at_bytes(10))
        .build()
        .unwrap();
    for record in [
        "12345\n",
        "789\n",
        "x",
        "larger than all of it\n",
        "a\n",
        "b\n",
    ] {
        (&logs).write_all(record.as_bytes()).unwrap();
    }
    assert_eq!(
        tree(scratch.path()),
        expect([
            ("a.log", "12345\n789\n"),
            ("a.log.1", "x"),
            ("a.log.2", "larger than all of it\n"),
            ("a.log.3", "a\nb\n"),
        ])
    );
    assert_eq!(events.count("rotated"), 3);
    assert!(events.all()[1].ends_with("(size)"), "{:?}", events.all());
}

#[test]
fn size_of_what_was_there_counts() {
    let scratch = Scratch::new();
    fs::write(scratch.join("a.log"), "12345\n").unwrap();
    fs::write(scratch.join("b.log"), "1234567890\n").unwrap();
    for name in ["a.log", "b.log"] {
        let logs = RotateLogs::builder(scratch.join(name))
            .rotate_at_bytes(10)
            .build()
            .unwrap();
        (&logs).write_all(b"x23\n").unwrap();
        (&logs).write_all(b"y\n").unwrap();
    }
    assert_eq!(
        tree(scratch.path()),
        expect([
            ("a.log", "12345\nx23\n"),
            ("a.log.1", "y\n"),
            ("b.log", "1234567890\n"),
            ("b.log.1", "x23\ny\n"),
        ])
    );
}

#[test]
fn generations_are_counted_past_ten_and_begin_anew_with_the_name() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 1, 1, 10, 30, 0));
    let logs = RotateLogs::builder(scratch.join("a.%H"))
        .clock(hands.on(Clock::utc()))
        .rotate_at_bytes(4)
        .build()
        .unwrap();
    for number in 100..112 {
        writeln!(&logs, "{number}").unwrap();
    }
    assert_eq!(logs.current_path(), scratch.join("a.10.11"));
    hands.advance(HOUR);
    writeln!(&logs, "200").unwrap();
    assert_eq!(logs.current_path(), scratch.join("a.11"));
    writeln!(&logs, "201").unwrap();
    assert_eq!(logs.current_path(), scratch.join("a.11.1"));
    assert_eq!(contents(&scratch.join("a.10.10")), b"110\n");
    assert_eq!(tree(scratch.path()).len(), 14);
}

#[test]
fn restart_goes_on_in_the_last_generation() {
    let scratch = Scratch::new();
    let open = || {
        RotateLogs::builder(scratch.join("a.log"))
            .rotate_at_bytes(8)
            .build()
            .unwrap()
    };
    for number in 100..125 {
        writeln!(&open(), "{number}").unwrap();
    }
    assert_eq!(open().current_path(), scratch.join("a.log.12"));
    assert_eq!(contents(&scratch.join("a.log.12")), b"124\n");
    assert_eq!(contents(&scratch.join("a.log.11")), b"122\n123\n");
    // Also when nothing tells but the files.
    fs::remove_file(scratch.join(".a.log.lock")).unwrap();
    writeln!(&open(), "125").unwrap();
    assert_eq!(contents(&scratch.join("a.log.12")), b"124\n125\n");
    fs::write(scratch.join(".a.log.lock"), b"\xff nonsense").unwrap();
    writeln!(&open(), "126").unwrap();
    assert_eq!(contents(&scratch.join("a.log.13")), b"126\n");
}

#[test]
fn name_that_is_compressed_already_is_not_used_again() {
    let scratch = Scratch::new();
    for name in ["a.log.gz", "a.log.1.gz", "a.log.3.zst"] {
        fs::write(scratch.join(name), "").unwrap();
    }
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .rotate_at_bytes(4)
        .build()
        .unwrap();
    writeln!(&logs, "one").unwrap();
    writeln!(&logs, "two").unwrap();
    assert_eq!(contents(&scratch.join("a.log.4")), b"one\n");
    assert_eq!(contents(&scratch.join("a.log.5")), b"two\n");
}

#[test]
fn next_generation_skips_names_that_others_took() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .rotate_at_bytes(4)
        .build()
        .unwrap();
    writeln!(&logs, "one").unwrap();
    fs::write(scratch.join("a.log.1"), "somebody else's, and full\n").unwrap();
    fs::write(scratch.join("a.log.2.gz"), "").unwrap();
    writeln!(&logs, "two").unwrap();
    assert_eq!(logs.current_path(), scratch.join("a.log.3"));
    assert_eq!(
        contents(&scratch.join("a.log.1")),
        b"somebody else's, and full\n"
    );
}

#[test]
fn rotate_begins_the_next_generation() {
    let scratch = Scratch::new();
    let events = Events::default();
    let hands = Hands::at(utc(2026, 1, 1, 10, 0, 0));
    let logs = events
        .of(RotateLogs::builder(scratch.join("a.%Y%m%d")).clock(hands.on(Clock::utc())))
        .build()
        .unwrap();
    writeln!(&logs, "one").unwrap();
    logs.rotate().unwrap();
    writeln!(&logs, "two").unwrap();
    logs.rotate().unwrap();
    hands.advance(DAY);
    logs.rotate().unwrap();
    writeln!(&logs, "three").unwrap();
    assert_eq!(
        tree(scratch.path()),
        expect([
            ("a.20260101", "one\n"),
            ("a.20260101.1", "two\n"),
            ("a.20260101.2", ""),
            ("a.20260102", "three\n"),
        ])
    );
    let causes: Vec<String> = events.all();
    assert!(causes[0].starts_with("opened"), "{causes:?}");
    assert!(causes[1].ends_with("(requested)"), "{causes:?}");
    assert!(causes[3].ends_with("(time)"), "{causes:?}");
}

#[test]
fn name_of_the_moment_is_taken_when_time_does_not_rotate() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 1, 1, 10, 20, 30));
    let logs = RotateLogs::builder(scratch.join("a.%Y%m%d-%H%M%S"))
        .clock(hands.on(Clock::utc()))
        .rotate_every(None)
        .rotate_at_bytes(8)
        .build()
        .unwrap();
    writeln!(&logs, "one").unwrap();
    hands.advance(DAY);
    writeln!(&logs, "two").unwrap();
    hands.advance(5);
    writeln!(&logs, "abc").unwrap();
    writeln!(&logs, "def").unwrap();
    writeln!(&logs, "ghi").unwrap();
    assert_eq!(
        tree(scratch.path()),
        expect([
            ("a.20260101-102030", "one\ntwo\n"),
            ("a.20260102-102035", "abc\ndef\n"),
            ("a.20260102-102035.1", "ghi\n"),
        ])
    );
}

#[test]
fn name_changes_as_often_as_its_finest_directive_when_nothing_is_said() {
    for (text, steps) in [
        ("%Y", vec![(364 * DAY, false), (DAY, true)]),
        ("%Y%m", vec![(30 * DAY, false), (DAY, true)]),
        (
            "%G-%V",
            vec![(3 * DAY, false), (DAY, true), (6 * DAY, false), (DAY, true)],
        ),
        ("%F", vec![(DAY - 1, false), (1, true)]),
        ("%a", vec![(DAY - 1, false), (1, true)]),
        ("%F%p", vec![(12 * HOUR - 1, false), (1, true)]),
        ("%F-%H", vec![(HOUR - 1, false), (1, true)]),
        ("%F-%H%M", vec![(59, false), (1, true)]),
        ("%T", vec![(1, true)]),
        ("%s", vec![(1, true)]),
        ("fixed", vec![(1000 * DAY, false)]),
    ] {
        let scratch = Scratch::new();
        // A Thursday.
        let hands = Hands::at(utc(2026, 1, 1, 0, 0, 0));
        let logs = RotateLogs::builder(scratch.join(text))
            .clock(hands.on(Clock::utc()))
            .build()
            .unwrap();
        let mut path = logs.current_path();
        for (seconds, rotates) in steps {
            hands.advance(seconds);
            writeln!(&logs, "x").unwrap();
            assert_eq!(
                path != logs.current_path(),
                rotates,
                "{text} after {seconds}"
            );
            path = logs.current_path();
        }
    }
}

#[test]
fn directories_of_a_period_are_made_with_it() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 12, 31, 12, 0, 0));
    let logs = RotateLogs::builder(scratch.join("%Y/%m/a.%d.log"))
        .clock(hands.on(Clock::utc()))
        .link(scratch.join("links/current"))
        .build()
        .unwrap();
    writeln!(&logs, "old").unwrap();
    hands.advance(DAY);
    writeln!(&logs, "new").unwrap();
    assert_eq!(
        tree(scratch.path()),
        expect([
            ("2026/12/a.31.log", "old\n"),
            ("2027/01/a.01.log", "new\n"),
            ("links/current", "-> ../2027/01/a.01.log"),
        ])
    );
}

#[test]
fn record_that_cannot_be_formatted_is_an_error_and_not_written_in_part() {
    struct Unprintable;
    impl std::fmt::Display for Unprintable {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            Err(std::fmt::Error)
        }
    }
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    assert!(writeln!(&logs, "before {Unprintable} after").is_err());
    let queue = NonBlocking::new(logs.clone()).unwrap();
    assert!(writeln!(&queue, "before {Unprintable} after").is_err());
    drop(queue);
    writeln!(&logs, "next").unwrap();
    assert_eq!(tree(scratch.path()), expect([("a.log", "next\n")]));
}

#[test]
fn record_larger_than_the_limit_leaves_no_empty_file_behind() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .rotate_at_bytes(10)
        .build()
        .unwrap();
    for record in ["larger than that\n", "larger again\n", "small\n"] {
        logs.clone().write_all(record.as_bytes()).unwrap();
    }
    assert_eq!(
        tree(scratch.path()),
        expect([
            ("a.log", "larger than that\n"),
            ("a.log.1", "larger again\n"),
            ("a.log.2", "small\n"),
        ])
    );
}

#[test]
fn modes_are_as_asked_whatever_the_umask() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("x/%Y/a.log"))
        .mode(0o666)
        .dir_mode(0o777)
        .build()
        .unwrap();
    logs.rotate().unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(logs.current_path()), 0o666);
    assert_eq!(
        mode(logs.current_path().parent().unwrap().to_path_buf()),
        0o777
    );
    assert_eq!(mode(scratch.join("x")), 0o777);

    let logs = RotateLogs::builder(scratch.join("y/b.log"))
        .mode(0o600)
        .build()
        .unwrap();
    assert_eq!(mode(logs.current_path()), 0o600);
    // What is there keeps what it has.
    drop(logs);
    fs::set_permissions(scratch.join("y/b.log"), fs::Permissions::from_mode(0o640)).unwrap();
    drop(
        RotateLogs::builder(scratch.join("y/b.log"))
            .mode(0o600)
            .build()
            .unwrap(),
    );
    assert_eq!(mode(scratch.join("y/b.log")), 0o640);
}

#[test]
fn without_modes_the_umask_decides() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("x/a.log"))
        .build()
        .unwrap();
    let plain = scratch.join("plain");
    fs::write(&plain, "").unwrap();
    let usual = fs::metadata(&plain).unwrap().mode() & 0o777;
    let mode = fs::metadata(logs.current_path()).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o644 & usual, "0644 less what the umask takes");
}

#[test]
fn lazy_log_has_no_file_without_a_record() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 1, 1, 10, 0, 0));
    let logs = RotateLogs::builder(scratch.join("a.%H"))
        .clock(hands.on(Clock::utc()))
        .lazy(true)
        .build()
        .unwrap();
    logs.tick();
    logs.rotate().unwrap();
    logs.reopen().unwrap();
    assert!(names(scratch.path()).is_empty());
    assert_eq!(logs.current_path(), scratch.join("a.10"));
    writeln!(&logs, "x").unwrap();
    for _ in 0..3 {
        hands.advance(HOUR);
        logs.tick();
    }
    assert_eq!(names(scratch.path()), ["a.10"]);
    writeln!(&logs, "y").unwrap();
    assert_eq!(names(scratch.path()), ["a.10", "a.13"]);
}

#[test]
fn file_of_a_ring_is_emptied_though_a_lazy_log_was_idle_as_its_period_began() {
    for is_idle in [true, false] {
        let scratch = Scratch::new();
        for name in ["a.10", "a.11"] {
            fs::write(scratch.join(name), "yesterday\n").unwrap();
        }
        let hands = Hands::at(utc(2026, 1, 1, 10, 0, 0));
        let logs = RotateLogs::builder(scratch.join("a.%H"))
            .clock(hands.on(Clock::utc()))
            .ring(1)
            .lazy(true)
            .build()
            .unwrap();
        writeln!(&logs, "ten").unwrap();
        hands.advance(HOUR);
        if is_idle {
            logs.tick();
        }
        writeln!(&logs, "eleven").unwrap();
        // A clock that is set back a little after that finds what is its own.
        hands.advance(HOUR);
        logs.tick();
        hands.advance(-1);
        writeln!(&logs, "still eleven").unwrap();
        assert_eq!(
            tree(scratch.path()),
            expect([
                ("a.10", "yesterday\nten\n"),
                ("a.11", "eleven\nstill eleven\n"),
            ])
        );
    }
}

#[test]
fn tick_rotates_an_idle_log() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 1, 1, 10, 0, 0));
    let logs = RotateLogs::builder(scratch.join("a.%H"))
        .clock(hands.on(Clock::utc()))
        .build()
        .unwrap();
    logs.tick();
    assert_eq!(names(scratch.path()), ["a.10"]);
    hands.advance(HOUR);
    logs.tick();
    assert_eq!(names(scratch.path()), ["a.10", "a.11"]);
}

#[test]
fn clones_and_threads_share_the_file_and_no_record_is_torn() {
    // The others do not wait for one that rotates for longer than a millisecond, and it
    // may stand still for longer than that. But not each time.
    let mut medians = (0..10).map(|_| {
        let mut sizes = sizes_of_files_of_four_threads();
        sizes.sort_unstable();
        sizes[sizes.len() / 2]
    });
    assert!(medians.any(|size| size <= 8000), "the limit is 4000");
}

fn sizes_of_files_of_four_threads() -> Vec<usize> {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .rotate_at_bytes(4000)
        .build()
        .unwrap();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let mut logs = logs.clone();
            thread::spawn(move || {
                for number in 0..2000 {
                    writeln!(logs, "{writer} {number} {}", "x".repeat(number % 50)).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let mut next = [0; 4];
    let mut files: Vec<_> = names(scratch.path())
        .into_iter()
        .map(|name| {
            (
                name.strip_prefix("a.log.")
                    .map_or(0, |n| n.parse::<u32>().unwrap()),
                name,
            )
        })
        .collect();
    files.sort();
    let mut sizes = Vec::new();
    for (_, name) in files {
        let text = String::from_utf8(contents(&scratch.join(&name))).unwrap();
        sizes.push(text.len());
        for line in text.lines() {
            let mut fields = line.split(' ');
            let writer: usize = fields.next().unwrap().parse().unwrap();
            let number: usize = fields.next().unwrap().parse().unwrap();
            assert_eq!(number, next[writer], "records of {writer} in their order");
            assert_eq!(fields.next().unwrap().len(), number % 50);
            next[writer] += 1;
        }
    }
    assert_eq!(next, [2000; 4]);
    sizes
}

#[test]
fn record_written_as_its_thread_ends_is_whole() {
    struct Farewell(RotateLogs);
    impl Drop for Farewell {
        fn drop(&mut self) {
            writeln!(self.0, "{:?} is over", thread::current().name()).unwrap();
        }
    }
    thread_local!(static KEPT: RefCell<Option<Farewell>> = const { RefCell::new(None) });
    let scratch = Scratch::new();
    let path = scratch.join("a.log");
    let mut logs = RotateLogs::builder(&path).build().unwrap();
    thread::spawn(move || {
        // Made before anything that the log keeps for the thread, so that it goes after.
        KEPT.with(|kept| kept.replace(Some(Farewell(logs.clone()))));
        writeln!(logs, "{:?} begins", thread::current().name()).unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(contents(&path), b"None begins\nNone is over\n");
}

#[test]
fn callback_may_write_to_the_log_and_may_panic() {
    let scratch = Scratch::new();
    let slot: Arc<std::sync::OnceLock<RotateLogs>> = Arc::default();
    let inner = Arc::clone(&slot);
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .on_event(move |event| {
            if let Some(logs) = inner.get() {
                writeln!(&*logs, "{event}").unwrap();
                panic!("of a callback, as this test wants");
            }
        })
        .build()
        .unwrap();
    slot.set(logs.clone()).ok();
    logs.rotate().unwrap();
    writeln!(&logs, "after").unwrap();
    let text = String::from_utf8(contents(&scratch.join("a.log.1"))).unwrap();
    assert!(
        text.starts_with("rotated ") && text.ends_with("after\n"),
        "{text:?}"
    );
}

#[test]
fn line_that_was_left_unfinished_is_finished_when_asked() {
    let scratch = Scratch::new();
    for (finish, result) in [(true, "half\nwhole\n"), (false, "halfwhole\n")] {
        fs::write(scratch.join("a.log"), "half").unwrap();
        let logs = RotateLogs::builder(scratch.join("a.log"))
            .finish_lines(finish)
            .build()
            .unwrap();
        writeln!(&logs, "whole").unwrap();
        assert_eq!(fs::read_to_string(scratch.join("a.log")).unwrap(), result);
    }
}

#[test]
fn descriptors_do_not_pile_up() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .link(scratch.join("current"))
        .max_files(2)
        .build()
        .unwrap();
    for _ in 0..200 {
        logs.rotate().unwrap();
    }
    assert!(logs.wait_for_housekeeping(PATIENCE));
    let ours = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.starts_with(scratch.path()))
        .count();
    assert_eq!(ours, 1);
}
