//! The log: where it goes, and what its lines look like.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Child;
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::{Program, Start, both, stderr, wait_for};

#[test]
fn log_file_is_appended_to_and_takes_all_output() {
    both(|program| {
        let start = Start::new(program).file("log", "before\n");
        let mut daemon = start
            .options(["--interval=0", "--log-file=log"])
            .shell("echo to standard output; echo to standard error >&2; exec sleep 600")
            .start();
        let log = daemon.wait_for_text("log", "standard error");
        assert!(
            log.starts_with("before\n") && log.contains("to standard output"),
            "{log}"
        );
        daemon.stop();
        let log = daemon.read("log").unwrap();
        assert!(log.ends_with("exiting\n"), "{log}");
        // Where it is started from sees that it does.
        assert!(daemon.log().contains("starting now..."), "{}", daemon.log());
    });
}

#[test]
fn log_file_that_cannot_be_opened_is_an_error_that_names_it() {
    both(|program| {
        let output = Start::new(program)
            .options(["--log-file=nowhere/log"])
            .run();
        assert_eq!(output.status.code(), Some(2));
        assert!(
            stderr(&output).contains("failed to open log file:nowhere/log"),
            "{}",
            stderr(&output)
        );
    });
}

#[test]
fn log_file_that_is_a_pipe_without_a_reader_is_not_waited_for() {
    let start = Start::new(Program::Ours)
        .options(["--log-file=pipe"])
        .program(&["true"]);
    nix::unistd::mkfifo(&start.dir().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = start.run();
    assert_eq!(output.status.code(), Some(nix::libc::ENXIO));
    let text = stderr(&output);
    assert!(text.contains("failed to open log file:pipe"), "{text}");
}

#[test]
fn log_file_that_is_a_pipe_with_a_reader_takes_all_output() {
    let start = Start::new(Program::Ours)
        .options(["--interval=0", "--log-file=pipe"])
        .shell("echo up; exec sleep 617");
    let pipe = start.dir().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe);
    let mut lines = BufReader::new(reader.unwrap()).lines();
    let daemon = start.start();
    assert!(lines.any(|line| line.unwrap() == "up"));
    drop(daemon);
}

#[test]
fn log_file_is_opened_again_on_usr1() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--port=127.0.0.1:0", "--log-file=log"])
        .start();
    daemon.wait_for_text("log", "serving as generation 1");
    fs::rename(daemon.path("log"), daemon.path("log.1")).unwrap();
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_text("log", "received USR1, opened log again");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_text("log", "serving as generation");
}

#[test]
fn log_file_opened_again_takes_standard_output_and_has_the_mode_of_the_first() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--log-file=log"])
        .shell("echo up; exec sleep 637")
        .start();
    daemon.wait_for_text("log", "up\n");
    let mode = || fs::metadata(daemon.path("log")).unwrap().mode();
    let before = mode();
    fs::rename(daemon.path("log"), daemon.path("log.1")).unwrap();
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_text("log", "received USR1, opened log again");
    assert_eq!(mode(), before);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_text("log", "up\n");
}

#[test]
fn log_lines_have_the_time_if_asked() {
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--log-format=text"])
        .shell("exec sleep 600")
        .start();
    daemon.wait_for_log("starting new worker");
    let log = daemon.stop();
    for line in log.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(chrono_like(time), "{line}");
        assert!(
            rest.starts_with(&format!("start_server[{}]: ", daemon.pid())),
            "{line}"
        );
    }
    assert!(log.contains("]: exiting\n"), "{log}");
}

/// `2026-01-02T03:04:05.678+09:00`
fn chrono_like(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    [
        "0000-00-00T00:00:00.000+00:00",
        "0000-00-00T00:00:00.000-00:00",
    ]
    .contains(&shape.as_str())
}

#[test]
fn log_lines_are_json_if_asked() {
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--log-format=json", "--dir=."])
        .shell("exec sleep 600")
        .start();
    daemon.wait_for_log("starting new worker");
    let log = daemon.stop();
    for line in log.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(chrono_like(value["time"].as_str().unwrap()), "{line}");
        assert_eq!(value["program"], "start_server");
        assert_eq!(value["pid"], daemon.pid());
        assert!(value["message"].is_string());
    }
    assert!(log.contains("\"exiting\""), "{log}");
}

#[test]
fn reader_of_the_log_that_stalls_does_not_stall_the_deploy() {
    let (mut stalled, _reader) = Stalled::start();
    stalled.signal(Signal::SIGTERM);
    assert!(stalled.child.wait().unwrap().success());
}

#[test]
fn lines_that_the_reader_of_the_log_had_no_room_for_are_counted() {
    let (stalled, mut reader) = Stalled::start();
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut text = Vec::new();
    let _ = reader.read_to_end(&mut text);
    text.clear();
    stalled.signal(Signal::SIGHUP);
    let told = " lines of this log could not be written\n";
    let lost = wait_for("the count", || {
        let _ = reader.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let (before, _) = text.split_once(told)?;
        Some(before.lines().next_back()?.parse::<u32>().unwrap())
    });
    // At least that it was asked for a generation, started it, and told the old one.
    assert!(lost >= 3, "{lost}");
}

/// A super-daemon that has restarted while nobody read the full pipe it logs to.
struct Stalled {
    start: Start,
    child: Child,
}

impl Stalled {
    fn start() -> (Self, PipeReader) {
        let start = Start::new(Program::Ours)
            .files()
            .options(["--interval=0"])
            .shell("exec sleep 600");
        let (reader, writer) = std::io::pipe().unwrap();
        let mut full = writer.try_clone().unwrap();
        let mut command = start.command();
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = command.spawn().unwrap();
        let stalled = Self { start, child };
        stalled.wait_for_generation("1:");
        // There is no room for another line.
        fcntl(&full, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        while full.write(&[b'x'; 4096]).is_ok() {}
        stalled.signal(Signal::SIGHUP);
        stalled.wait_for_generation("2:");
        (stalled, reader)
    }

    fn wait_for_generation(&self, wanted: &str) {
        let status = self.start.dir().join("status");
        wait_for("a generation", || {
            let text = fs::read_to_string(&status).ok()?;
            text.starts_with(wanted).then_some(())
        });
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn last_lines_are_known_of_a_log_file_that_was_cut_short_meanwhile() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0", "--wait-ready"])
        .options(["--retry-delay=600", "--retry-max-delay=600"])
        .options(["--log-file=log"])
        .file("log", &"an old line\n".repeat(1000))
        .file("mode", "ready")
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "say=waits await=cut say=last-words exit=3");
    let options = ["--restart", "--pid-file=pid", "--status-file=status"];
    thread::scope(|scope| {
        let restart = scope.spawn(|| daemon.control(&options));
        daemon.wait_for_text("log", "waits");
        let log = fs::OpenOptions::new().write(true).open(daemon.path("log"));
        log.unwrap().set_len(0).unwrap();
        daemon.write("cut", "");
        let output = restart.join().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains("| last-words\n"), "{text}");
    });
}

#[test]
fn log_file_is_readable_by_its_group_only_as_the_mask_says() {
    let daemon = Start::new(Program::Ours)
        .options([
            "--interval=0",
            "--log-file=log",
            "--umask=027",
            "--port=127.0.0.1:0",
        ])
        .shell("umask; exec sleep 600")
        .start();
    daemon.wait_for_text("log", "0027");
    assert_eq!(
        fs::metadata(daemon.path("log")).unwrap().mode() & 0o777,
        0o640
    );
}
