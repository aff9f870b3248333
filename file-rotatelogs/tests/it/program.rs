//! The program `rotatelogs`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::{
    self, Quiet, Scratch, contents, expect, leave_out, names, need, start, tree, wait_until,
};

mod input;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rotatelogs");

/// The program at work, with our end of the pipe.
struct Piped(Child);

impl Piped {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self(start(
            Command::new(PROGRAM)
                .args(arguments)
                .current_dir(directory)
                .env("TZ", "Asia/Tokyo")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        ))
    }

    fn write(&mut self, text: &str) {
        let mut pipe = self.0.stdin.as_ref().unwrap();
        pipe.write_all(text.as_bytes()).unwrap();
    }

    fn signal(&self, name: &str) {
        signal(&self.0, name);
    }

    /// Ends the input and waits for the program to end.
    fn end(mut self) -> Output {
        drop(self.0.stdin.take());
        self.0.wait_with_output().unwrap()
    }
}

fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{name}"), &child.id().to_string()]);
    assert!(support::run(&mut kill).success());
}

/// Feeds the program and waits for its end.
#[track_caller]
fn run(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let mut piped = Piped::start(directory, arguments);
    piped.write(input);
    let output = piped.end();
    assert!(output.status.success(), "{output:?}");
    output
}

/// The seconds since 1970, never ahead of the kernel's coarse clock.
fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    now.tv_sec
}

#[test]
fn lines_go_to_the_file_of_the_day_with_a_link() {
    let arguments = ["--link", "current.log", "log.%Y%m%d"];
    let scratch = loop {
        let scratch = Scratch::with_programs();
        let day = |now: i64| (now + 9 * 3600) / 86_400;
        let today = day(now());
        run(scratch.path(), &arguments, "one\ntwo\n");
        run(scratch.path(), &arguments, "three\n");
        // Again, when it was midnight meanwhile.
        if day(now()) == today {
            break scratch;
        }
    };
    let files = tree(scratch.path());
    assert_eq!(files.len(), 2, "{files:?}");
    let (name, text) = files.last_key_value().unwrap();
    assert_eq!(text, "one\ntwo\nthree\n");
    assert_eq!(files["current.log"], format!("-> {name}"));
}

#[test]
fn help_teaches_and_wrong_arguments_are_told() {
    let scratch = Scratch::with_programs();
    let help = Piped::start(scratch.path(), &["--help"]).end();
    let text = String::from_utf8(help.stdout).unwrap();
    for words in [
        "strftime",
        "--link",
        "--max-age",
        "--compress",
        "CustomLog",
        "start_server",
        "USR1",
        "Exit status",
        "never split",
        "86400 -300",
    ] {
        assert!(text.contains(words), "--help tells of {words}");
    }
    for (arguments, words) in [
        (&[][..], "LOGFILE"),
        (&["a.%Q", "5M"], "unknown directive \"%Q\" at byte"),
        (&["a", "5X"], "5X"),
        (&["a", "0"], "0: neither seconds"),
        (&["a", "86400", "60", "5M"], "come last"),
        (&["-l", "a", "86400", "60"], "exclude each other"),
        (&["--timezone", "Nowhere/Land", "a", "5M"], "Nowhere/Land"),
        (&["--every", "1h", "a", "5M"], "cannot be used with"),
        (&["--size", "0", "a"], "number of bytes"),
        (&["--max-files", "0", "a"], "max_files"),
        (&["-n", "3", "--max-files", "3", "a", "5M"], "ring"),
        (&["--every", "1h", "a.%Y"], "stays the same"),
        (&["--mode", "444", "a"], "0o444"),
    ] {
        let scratch = Scratch::with_programs();
        let output = Piped::start(scratch.path(), arguments).end();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(message.contains(words), "{arguments:?}: {message}");
        assert!(names(scratch.path()).is_empty(), "{arguments:?}");
    }
}

#[test]
fn names_are_those_of_apaches_program() {
    // In UTC, local time or minutes from UTC; by the second when there is no directive.
    let day = 86_400;
    let before = now();
    let scratch = Scratch::with_programs();
    run(scratch.path(), &["day", "86400"], "x\n");
    run(scratch.path(), &["size", "5M"], "x\n");
    run(scratch.path(), &["both", "3600", "5M"], "x\n");
    run(scratch.path(), &["local.%Y%m%d%H", "86400", "540"], "x\n");
    run(scratch.path(), &["-l", "zone.%Y%m%d%H", "86400"], "x\n");
    run(scratch.path(), &["utc.%Y%m%d%H", "86400"], "x\n");
    run(scratch.path(), &["behind.%Y%m%d%H", "86400", "-300"], "x\n");
    let after = now();
    let found = names(scratch.path());
    let of = |start: &str| {
        let name = found.iter().find(|name| name.starts_with(start)).unwrap();
        name[start.len()..].to_owned()
    };
    let same = |value: String, make: &dyn Fn(i64) -> i64| {
        let value: i64 = value.parse().unwrap();
        assert!((make(before)..=make(after)).contains(&value), "{value}");
    };
    same(of("day."), &|now| now / day * day);
    same(of("size."), &|now| now);
    same(of("both."), &|now| now / 3600 * 3600);
    // The hour of midnight, in each zone its own.
    let date = |seconds: i64| {
        let time = jiff::Timestamp::from_second(seconds).unwrap();
        let date = jiff::tz::Offset::UTC.to_datetime(time);
        let (year, month, day) = (
            i64::from(date.year()),
            i64::from(date.month()),
            i64::from(date.day()),
        );
        ((year * 100 + month) * 100 + day) * 100
    };
    same(of("utc."), &date);
    same(of("local."), &|now| date(now + 9 * 3600));
    same(of("zone."), &|now| date(now + 9 * 3600));
    same(of("behind."), &|now| date(now - 5 * 3600));
}

#[test]
fn names_agree_with_the_real_program_of_apache() {
    let Some(apache) = ["/usr/bin/rotatelogs", "/usr/sbin/rotatelogs"]
        .into_iter()
        .find(|path| {
            Path::new(path).exists()
                && fs::canonicalize(path).unwrap() != fs::canonicalize(PROGRAM).unwrap()
        })
    else {
        leave_out("Apache's rotatelogs is not installed");
        return;
    };
    for arguments in [
        &["x", "86400"][..],
        &["x", "3600", "5M"],
        &["x.%Y-%m-%d-%H", "86400"],
        &["-l", "x.%Y-%m-%d-%H_%M_%S", "86400"],
        &["x.%Y-%m-%d-%H", "3600", "-300"],
        &["x.%Y-%m-%d-%H", "3600", "345"],
        &["-t", "x", "5M"],
        &["-n", "3", "x", "5M"],
        &["-f", "x.%j", "86400"],
        &["-D", "deep/%Y/x", "86400"],
    ] {
        // The hour may change between the two runs, but not each time.
        let agree = (0..3).any(|_| {
            let found = [apache, PROGRAM].map(|program| {
                let scratch = Scratch::with_programs();
                let mut child = start(
                    Command::new(program)
                        .args(arguments)
                        .current_dir(scratch.path())
                        .env("TZ", "Asia/Kathmandu")
                        .stdin(Stdio::piped()),
                );
                child.stdin.take().unwrap().write_all(b"line\n").unwrap();
                assert!(child.wait().unwrap().success(), "{program} {arguments:?}");
                tree(scratch.path())
            });
            assert_eq!(found[0].len(), 1, "{arguments:?} {found:?}");
            found[0] == found[1]
        });
        assert!(agree, "{arguments:?}");
    }
}

#[test]
fn program_is_run_with_the_new_file_and_the_old() {
    let scratch = Scratch::with_programs();
    let script = scratch.join("script");
    // A program that is started meanwhile would have it open for writing for a moment, and
    // then it cannot be run.
    let quiet = Quiet::new();
    fs::write(
        &script,
        "#!/bin/sh\ncat\necho \"$# ${1##*/} ${2##*/}\" >> calls\n",
    )
    .unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    drop(quiet);
    let mut piped = Piped::start(scratch.path(), &["-p", "./script", "--size", "5", "a.log"]);
    let calls = || fs::read_to_string(scratch.join("calls")).unwrap_or_default();
    piped.write("one\n");
    wait_until("it is run first", || calls() == "1 a.log \n");
    piped.write("two\n");
    wait_until("it is run again", || {
        calls() == "1 a.log \n2 a.log.1 a.log\n"
    });
    assert!(piped.end().status.success());

    let output = run(scratch.path(), &["-p", "./missing", "b.log"], "one\n");
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("./missing")
    );
}

#[test]
fn verbose_tells_what_is_done() {
    let scratch = Scratch::with_programs();
    let output = run(
        scratch.path(),
        &["-v", "--size", "5", "--max-files", "2", "a.log"],
        "one\ntwo\nthree\n",
    );
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("opened") && message.contains("rotated"),
        "{message}"
    );
    let output = run(scratch.path(), &["b.log"], "one\n");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn first_term_waits_for_the_end_of_input_and_the_second_ends_at_once() {
    let scratch = Scratch::with_programs();
    for signal in ["TERM", "INT"] {
        let wait_for = |what: &str, end: &[u8]| {
            wait_until(what, || {
                fs::read(scratch.join("a.log")).is_ok_and(|text| text.ends_with(end))
            });
        };
        let mut piped = Piped::start(scratch.path(), &["a.log"]);
        piped.write("before\n");
        wait_for("it is written", b"before\n");
        piped.signal(signal);
        piped.write("after\n");
        wait_for("it still writes", b"after\n");
        assert!(piped.end().status.success());

        let mut piped = Piped::start(scratch.path(), &["a.log"]);
        piped.write("first\n");
        wait_for("it is written", b"first\n");
        piped.signal(signal);
        // It looks for signals after each time that it reads.
        piped.write("second\n");
        wait_for("it still writes", b"second\n");
        piped.write("whole\npart");
        wait_for("it has seen the signal", b"whole\n");
        assert!(piped.0.try_wait().unwrap().is_none(), "it goes on");
        piped.signal(signal);
        let status = piped.0.wait().unwrap();
        assert!(status.success(), "{status}");
        assert_eq!(
            contents(&scratch.join("a.log")),
            b"before\nafter\nfirst\nsecond\nwhole\npart"
        );
        fs::remove_file(scratch.join("a.log")).unwrap();
    }
}

#[test]
fn hangup_opens_a_moved_file_anew() {
    let scratch = Scratch::with_programs();
    let mut piped = Piped::start(scratch.path(), &["a.log"]);
    piped.write("one\n");
    wait_until("it is written", || {
        fs::read(scratch.join("a.log")).is_ok_and(|text| text == b"one\n")
    });
    fs::rename(scratch.join("a.log"), scratch.join("moved")).unwrap();
    piped.signal("HUP");
    wait_until("there is a new file", || scratch.join("a.log").exists());
    piped.write("two\n");
    assert!(piped.end().status.success());
    assert_eq!(
        tree(scratch.path()),
        expect([("a.log", "two\n"), ("moved", "one\n")])
    );
}

#[test]
fn old_files_are_compressed_and_removed() {
    let scratch = Scratch::with_programs();
    let mut piped = Piped::start(
        scratch.path(),
        &["--size", "5", "--compress", "--max-files", "3", "a.log"],
    );
    for number in 1..=6 {
        piped.write(&format!("no {number}\n"));
    }
    wait_until("all is in order", || {
        names(scratch.path()) == ["a.log.3.gz", "a.log.4.gz", "a.log.5"]
    });
    assert!(piped.end().status.success());
    assert_eq!(contents(&scratch.join("a.log.4.gz")), b"no 5\n");
    let zstd = Scratch::with_programs();
    let mut piped = Piped::start(zstd.path(), &["--size", "5", "--compress=zstd", "a.log"]);
    piped.write("no 1\nno 2\n");
    wait_until("it is compressed", || {
        names(zstd.path()) == ["a.log.1", "a.log.zst"]
    });
    assert!(piped.end().status.success());
}

#[test]
fn ring_of_files_is_written_over() {
    let scratch = Scratch::with_programs();
    let lines = |from: u32, to: u32| (from..to).map(|n| format!("no {n}\n")).collect::<String>();
    run(scratch.path(), &["-n", "3", "a", "5B"], &lines(0, 5));
    assert_eq!(
        tree(scratch.path()),
        expect([("a", "no 3\n"), ("a.1", "no 4\n"), ("a.2", "no 2\n")])
    );
    // Begins with the first, and appends to it unless told to empty it.
    run(scratch.path(), &["-n", "3", "a", "1K"], "more\n");
    assert_eq!(contents(&scratch.join("a")), b"no 3\nmore\n");
    run(scratch.path(), &["-n", "3", "-t", "a", "1K"], "new\n");
    assert_eq!(contents(&scratch.join("a")), b"new\n");
}

#[test]
fn truncated_file_is_emptied_instead_of_rotated() {
    let scratch = Scratch::with_programs();
    fs::write(scratch.join("a"), "old\n").unwrap();
    run(scratch.path(), &["-t", "a", "5B"], "no 1\nno 2\nno 3\n");
    assert_eq!(tree(scratch.path()), expect([("a", "no 3\n")]));

    // -T appends to the first and empties those that come after.
    for second in 0..60 {
        fs::write(scratch.join(&format!("b.{second:02}")), "old\n").unwrap();
    }
    let mut piped = Piped::start(scratch.path(), &["-T", "b.%S", "1"]);
    let changed = || {
        let files = tree(scratch.path());
        files.values().filter(|text| text.contains("new")).count()
    };
    wait_until("three seconds have lines", || {
        piped.write("new\n");
        std::thread::sleep(Duration::from_millis(100));
        changed() >= 3
    });
    assert!(piped.end().status.success());
    let files = tree(scratch.path());
    assert_eq!(files.len(), 61, "none has a number: {files:?}");
    let new: Vec<&String> = files.values().filter(|text| text.contains("new")).collect();
    assert_eq!(
        new.iter()
            .filter(|text| text.starts_with("old\nnew\n"))
            .count(),
        1,
        "{new:?}"
    );
    assert_eq!(
        new.iter().filter(|text| text.starts_with("new\n")).count(),
        new.len() - 1
    );
}

#[test]
fn period_that_the_name_does_not_show_is_told_and_the_name_decides() {
    let scratch = Scratch::with_programs();
    let output = run(scratch.path(), &["a.%Y", "3600"], "x\n");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("stays the same"), "{message}");
    assert_eq!(names(scratch.path()).len(), 1);
    assert!(names(scratch.path())[0].starts_with("a.2"));
}

#[test]
fn file_that_cannot_be_written_costs_lines_and_the_exit_status_tells() {
    if !need("prlimit") {
        return;
    }
    let scratch = Scratch::with_programs();
    let mut child = start(
        Command::new("prlimit")
            .args(["--fsize=1000:", PROGRAM, "a.log"])
            .current_dir(scratch.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    let line = format!("{}\n", "x".repeat(99));
    let mut pipe = child.stdin.take().unwrap();
    for _ in 0..15 {
        pipe.write_all(line.as_bytes()).unwrap();
    }
    drop(pipe);
    let mut message = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut message)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(
        message.contains("cannot write") && message.contains("5 lines were lost"),
        "{message}"
    );
    assert_eq!(contents(&scratch.join("a.log")), line.repeat(10).as_bytes());
}

#[test]
fn failure_and_recovery_are_told_without_being_asked() {
    let scratch = Scratch::with_programs();
    let mut piped = Piped::start(scratch.path(), &["d/a.log"]);
    // It makes the directory before it reads.
    wait_until("it is ready", || scratch.join("d").exists());
    wait_until("the directory is in the way", || {
        fs::remove_dir(scratch.join("d")).is_ok()
    });
    fs::write(scratch.join("d"), "no directory").unwrap();
    piped.write("lost\n");
    let mut messages = BufReader::new(piped.0.stderr.take().unwrap());
    let mut message = String::new();
    messages.read_line(&mut message).unwrap();
    assert!(message.starts_with("rotatelogs: cannot "), "{message}");
    wait_until("all that was written is lost", || {
        fs::remove_file(scratch.join("d")).is_ok()
    });
    piped.write("kept\n");
    wait_until("it is written", || {
        fs::read(scratch.join("d/a.log")).is_ok_and(|text| text.ends_with(b"kept\n"))
    });
    let output = piped.end();
    let mut rest = String::new();
    messages.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains("again, 1 records were lost"),
        "{message}{rest}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn new_file_is_forced_at_the_start_when_asked() {
    let scratch = Scratch::with_programs();
    for (arguments, line) in [
        (&["a.log"][..], "one\n"),
        (&["a.log"], "two\n"),
        (&["--force-new-file", "a.log"], "three\n"),
    ] {
        run(scratch.path(), arguments, line);
    }
    assert_eq!(
        tree(scratch.path()),
        expect([("a.log", "one\ntwo\n"), ("a.log.1", "three\n")])
    );
}

#[test]
fn several_processes_share_the_files() {
    let scratch = Scratch::with_programs();
    let arguments = ["--size", "4K", "--link", "current", "a.log"];
    let mut children: Vec<Piped> = (0..3)
        .map(|_| Piped::start(scratch.path(), &arguments))
        .collect();
    let mut number = 0;
    wait_until("there are some files", || {
        for _ in 0..50 {
            for (index, child) in children.iter_mut().enumerate() {
                child.write(&format!("{index} {number} {}\n", "x".repeat(20)));
            }
            number += 1;
        }
        number >= 500 && names(scratch.path()).len() > 6
    });
    for child in children {
        let output = child.end();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
    let files = tree(scratch.path());
    let mut lines: Vec<String> = files
        .values()
        .filter(|text| !text.starts_with("-> "))
        .flat_map(|text| text.lines().map(str::to_owned))
        .collect();
    assert_eq!(lines.len(), number * 3);
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), number * 3);
}

/// The original of Server::Starter, in Perl, with us behind its pipe.
#[test]
fn start_server_logs_through_the_pipe() {
    if !need("start_server") {
        return;
    }
    let scratch = Scratch::with_programs();
    let log = format!("| exec {PROGRAM} --link current.log 'server.%Y.log' 31622400");
    let mut child = start(
        Command::new("start_server")
            .args(["--log-file", &log, "--interval=1", "--", "sh", "-c"])
            .arg("trap 'echo goodbye; exit 0' TERM; echo \"worker $$ says hello\"; while :; do sleep 0.1; done")
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    let log = || fs::read_to_string(scratch.join("current.log")).unwrap_or_default();
    wait_until("the worker is heard", || log().contains("says hello\n"));
    signal(&child, "HUP");
    wait_until("the next worker is heard", || {
        log().matches("says hello\n").count() == 2
    });
    wait_until("the first says goodbye", || log().contains("goodbye\n"));
    signal(&child, "TERM");
    wait_until("the last line arrives", || {
        log().matches("goodbye\n").count() == 2
    });
    child.wait().unwrap();
    let lines = log();
    assert!(lines.lines().all(|line| !line.is_empty()), "{lines}");
}
