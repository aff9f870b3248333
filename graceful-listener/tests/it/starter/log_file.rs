//! The log: where it goes, and what its lines look like.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;

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
    let start = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--signal-on-hup=TERM"])
        .shell("exec sleep 600");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = start.command();
    let mut full = writer.try_clone().unwrap();
    let mut child = command
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    drop(command);
    let dir = start.dir().to_owned();
    let generation = |wanted: &str| {
        wait_for("a generation", || {
            fs::read_to_string(dir.join("status"))
                .ok()
                .filter(|text| text.starts_with(wanted))
        })
    };
    generation("1:");
    // Nobody reads, and there is no room for another line.
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&full, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    while full.write(&[b'x'; 4096]).is_ok() {}
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGHUP).unwrap();
    generation("2:");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    drop((reader, start));
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
