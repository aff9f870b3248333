//! The small programs, each run once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use tempfile::TempDir;

use crate::client::get;
use crate::program::{Program, command, eventually};
use crate::standalone::{has_read, read_lines};

#[test]
fn access_log_prints_a_line_per_request_and_failures_apart() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let mut command = command(env!("CARGO_BIN_EXE_access-log"));
    command.env("BIND_ADDR", "127.0.0.1:0");
    let mut program = Program::start_with_output(command, std::fs::File::create(&out).unwrap());
    let address = eventually("its address", || {
        let first = read_lines(&out).into_iter().next()?;
        first.strip_prefix("listening on http://")?.parse().ok()
    });
    assert_eq!(get(address, "/").body, "hello\n");
    assert_eq!(get(address, "/nothing").status, 404);
    assert_eq!(get(address, "/broken").status, 500);
    // The first: a 404 is none.
    let failure = program.wait_for_line("the failure", |line| Some(line.to_owned()));
    assert_eq!(failure, "failed: GET /broken HTTP/1.1 500");
    let lines = eventually("three lines", || {
        let lines = read_lines(&out);
        (lines.len() == 4).then_some(lines)
    });
    assert!(lines[1].starts_with("127.0.0.1 - - ["), "{}", lines[1]);
    let (_, tail) = lines[1].split_once("] ").unwrap();
    let time = tail.strip_prefix(r#""GET / HTTP/1.1" 200 6 "-" "-" "#);
    assert!(time.is_some_and(|t| t.parse::<u64>().is_ok()), "{tail}");
}

#[test]
fn access_log_refuses_a_wrong_format_and_shows_the_place() {
    let output = command(env!("CARGO_BIN_EXE_access-log"))
        .env("LOG_FORMAT", "%h %Z")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("directive %Z"), "{stderr}");
}

#[test]
fn rotating_log_keeps_five_files_and_compresses_the_old_ones() {
    let dir = TempDir::new().unwrap();
    let output = command(env!("CARGO_BIN_EXE_rotating-log"))
        .arg(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.starts_with("1000 records, 0 dropped, all compressed: true\n"),
        "{said}"
    );
    let last = read_lines(&dir.path().join("app.log"));
    assert!(
        last.last()
            .unwrap()
            .ends_with("something happened number=1000"),
        "{last:?}"
    );
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("app.2"))
        .collect();
    let compressed = names.iter().filter(|name| name.ends_with(".gz")).count();
    assert_eq!((names.len(), compressed), (5, 4), "{names:?}");
}

#[test]
fn rotating_log_says_what_it_cannot_do() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (directory, records, reason) in [
        (dir.path(), "many", "RECORDS: `many` is not a number"),
        (&file, "1", "file\": File exists"),
    ] {
        let output = command(env!("CARGO_BIN_EXE_rotating-log"))
            .arg(directory)
            .env("RECORDS", records)
            .output()
            .unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("rotating-log: "), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn traced_queries_shows_time_arguments_slow_ones_and_failures() {
    let mut program = command(env!("CARGO_BIN_EXE_traced-queries"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stdout = program.stdout.take().unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert!(program.wait().unwrap().success());
    // Any of them may be slow as well, on a machine that stood still.
    for words in [
        &["Open", " ("][..],
        &["Exec: INSERT INTO users (name) VALUES (?); args = [\"Mary \\\"Kay\\\"\"]"],
        &[
            "Query: SELECT name FROM users WHERE id > ?; args = [1]",
            "; request = \"request-1\" (",
        ],
        &[
            "Query: WITH RECURSIVE",
            "; slow",
            "; request = \"request-1\" (",
        ],
        &["Query: WITH RECURSIVE", "; still running"],
        &["Exec: SELECT nope; args = []; err = \"SQLite 1: no such column: nope\""],
        &["request-1: 2 statements, "],
        &["Close", " ("],
    ] {
        let is_it =
            |line: &str| line.starts_with(words[0]) && words.iter().all(|word| line.contains(word));
        assert!(said.lines().any(is_it), "{words:?} is not in:\n{said}");
    }
}

#[test]
fn graceful_answers_with_its_generation_and_says_what_may_be_asked_for() {
    let mut command = command(env!("CARGO_BIN_EXE_graceful"));
    command.env("BIND_ADDR", "127.0.0.1:0");
    let mut program = Program::start(command);
    let address = program.wait_for_address();
    for (path, status, body) in [
        ("/", 200, "hello\n"),
        ("/sleep?ms=20", 200, "slept 20 ms\n"),
        ("/sleep?ms=x", 400, "ask for /sleep?ms=N\n"),
        ("/sleep", 400, "ask for /sleep?ms=N\n"),
        ("/nothing", 404, "ask for / or /sleep?ms=N\n"),
    ] {
        let answer = get(address, path);
        assert_eq!((answer.status, &*answer.body), (status, body), "{path}");
        assert_eq!(answer.header("x-gen"), Some("1"), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/plain"), "{path}");
    }
    program.signal("TERM");
    assert!(program.wait().success());
}

#[test]
fn graceful_drains_for_as_long_as_its_environment_says() {
    let mut command = command(env!("CARGO_BIN_EXE_graceful"));
    command.env("BIND_ADDR", "127.0.0.1:0");
    command.env("DRAIN_TIMEOUT_MS", "100");
    let mut program = Program::start(command);
    let address = program.wait_for_address();
    let mut client = TcpStream::connect(address).unwrap();
    client
        .write_all(b"GET /sleep?ms=60000 HTTP/1.1\r\nHost: t\r\n\r\n")
        .unwrap();
    let port = client.local_addr().unwrap().port();
    eventually("the request read", || {
        has_read(address.port(), port).then_some(())
    });
    program.signal("TERM");
    assert!(program.wait().success());
    let said = program.said().join("\n");
    let words = "the drain has taken longer than 100ms";
    assert!(said.contains(words), "{said}");
}

#[test]
fn graceful_waits_for_the_next_process_for_as_long_as_its_environment_says() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("sleep");
    symlink(env!("CARGO_BIN_EXE_graceful"), &path).unwrap();
    let mut command = command(&path);
    command.arg("600");
    command.env("BIND_ADDR", "127.0.0.1:0");
    command.env("UPGRADE_TIMEOUT_MS", "100");
    let mut program = Program::start(command);
    let address = program.wait_for_address();
    // What is started in its place, with its arguments, never says that it is ready.
    std::fs::remove_file(&path).unwrap();
    symlink("/bin/sleep", &path).unwrap();
    program.signal("USR2");
    program.wait_for_line("that it goes on", |line| {
        (line.contains("not upgraded, serving on") && line.contains("was not ready within 100ms"))
            .then_some(())
    });
    assert_eq!(get(address, "/").body, "hello\n");
    program.signal("TERM");
    assert!(program.wait().success());
}

#[test]
fn graceful_refuses_a_time_that_is_no_number() {
    for variable in ["DRAIN_TIMEOUT_MS", "UPGRADE_TIMEOUT_MS"] {
        let output = command(env!("CARGO_BIN_EXE_graceful"))
            .env(variable, "10s")
            .output()
            .unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        let reason = format!("{variable}: `10s` is not a number of milliseconds");
        assert!(said.contains(&reason), "{said}");
    }
}
