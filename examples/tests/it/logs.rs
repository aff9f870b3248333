//! Logs that cannot be written, and what may and may not stand in them.

use std::fs::{self, File};
use std::thread;
use std::time::Duration;

use sqlx::{Connection, Executor, SqliteConnection};

use crate::client::{get, post};
use crate::program::{Program, eventually, service};
use crate::standalone::{log_lines, start};

#[test]
fn lines_that_are_lost_are_counted_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = service();
    command.current_dir(&dir);
    command.args(["--listen", "127.0.0.1:0"]);
    command.args(["--access-log", "-", "--sql-log", "-"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut service = Program::start_with_output(command, full);
    let address = service.wait_for_address();
    for _ in 0..3 {
        assert_eq!(get(address, "/").status, 200, "its log is not its trouble");
    }
    service.signal("TERM");
    assert_eq!(service.wait().code(), Some(0));
    let said = service.said().join("\n");
    let lost = |log: &str| -> u64 {
        let words = format!("lines of the {log} log were lost lost=");
        let (_, rest) = said
            .split_once(&words)
            .unwrap_or_else(|| panic!("no {words}: {said}"));
        let number = rest.lines().next().unwrap();
        number.parse().unwrap()
    };
    assert_eq!(lost("access"), 3);
    assert!(lost("SQL") > 3, "{said}");
}

#[test]
fn log_that_fails_is_warned_of_and_so_is_its_recovery() {
    let (dir, mut service) = start(&[]);
    let address = service.wait_for_address();
    let logs = dir.path().join("logs");
    fs::remove_dir_all(&logs).unwrap();
    fs::write(&logs, "in the way").unwrap();
    for (kind, way) in [("cannot ", true), ("can ", false)] {
        if !way {
            fs::remove_file(&logs).unwrap();
        }
        eventually(kind, || {
            assert_eq!(
                get(address, "/").status,
                200,
                "its logs are not its trouble"
            );
            let told = |service: &mut Program, log: &str| {
                service.has_said(&["WARN", &format!("{log}: {kind}")])
            };
            (told(&mut service, "access log") && told(&mut service, "SQL log")).then_some(())
        });
    }
    service.signal("TERM");
    assert_eq!(service.wait().code(), Some(0));
    assert!(!log_lines(&dir, "access").is_empty());
}

#[test]
fn both_ends_of_a_connection_can_be_in_the_access_log() {
    let (dir, mut service) = start(&["--log-format", "%h %A:%{local}p"]);
    let address = service.wait_for_address();
    get(address, "/healthz");
    let line = eventually("the line", || log_lines(&dir, "access").pop());
    assert_eq!(line, format!("127.0.0.1 {address}"));
}

#[test]
fn formats_of_the_access_log_are_known_by_their_names() {
    for (name, head, tail) in [
        (
            "common",
            "127.0.0.1 - - [",
            "\"GET /healthz HTTP/1.1\" 200 6",
        ),
        ("combined", "127.0.0.1 - - [", " 200 6 \"-\" \"-\""),
        (
            "vhost_combined",
            "-:- 127.0.0.1 - - [",
            " 200 6 \"-\" \"-\"",
        ),
    ] {
        let (dir, mut service) = start(&["--log-format", name]);
        get(service.wait_for_address(), "/healthz");
        let line = eventually("the line", || log_lines(&dir, "access").pop());
        assert!(
            line.starts_with(head) && line.ends_with(tail),
            "{name}: {line}"
        );
    }
}

#[test]
fn statement_that_waits_is_told_of_by_the_sql_log_alone_and_when_it_was_asked_for() {
    for (slow, told) in [("20ms", true), ("1h", false)] {
        let (dir, mut service) = start(&["--slow-query", slow]);
        let address = service.wait_for_address();
        let url = format!("sqlite://{}/service.db", dir.path().display());
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let mut other = runtime.block_on(SqliteConnection::connect(&url)).unwrap();
        runtime.block_on(other.execute("BEGIN IMMEDIATE")).unwrap();
        let body = r#"{"url": "http://example.com/"}"#;
        let waiting = thread::spawn(move || post(address, "/links", "application/json", body));
        let insert = |words: &str| {
            let lines = log_lines(&dir, "sql");
            let mut lines = lines
                .iter()
                .filter(|line| line.contains("INSERT INTO links"));
            lines.any(|line| line.contains(words))
        };
        if told {
            eventually("it is told of while it waits", || {
                insert("still running").then_some(())
            });
        }
        // Longer than what sqlx warns of by itself.
        thread::sleep(Duration::from_millis(1200));
        runtime.block_on(other.execute("ROLLBACK")).unwrap();
        assert_eq!(waiting.join().unwrap().status, 201);
        assert_eq!(insert("still running"), told, "--slow-query {slow}");
        assert_eq!(insert("; slow"), told, "--slow-query {slow}");
        service.signal("TERM");
        assert_eq!(service.wait().code(), Some(0));
        let said = service.said().join("\n");
        assert!(!said.contains("slow"), "sqlx tells of it, too: {said}");
    }
}
