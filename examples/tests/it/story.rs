//! One request, one story: its id and its statements in every log.

use serde_json::Value;
use tempfile::TempDir;

use crate::client::{get, get_with, post};
use crate::program::eventually;
use crate::standalone::{log_lines, read_lines, start};

#[test]
fn a_request_is_followed_by_its_id_from_the_answer_through_both_logs() {
    // None is told of a second time because it still ran.
    let (dir, mut service) = start(&["--log-format", "story", "--slow-query", "1h"]);
    let address = service.wait_for_address();
    let created = post(
        address,
        "/links",
        "application/json",
        r#"{"url": "http://example.com/"}"#,
    );
    let code = created.json()["code"].as_str().unwrap().to_owned();
    let followed = get(address, &format!("/{code}"));
    let id = followed.header("x-request-id").unwrap();
    assert_ne!(created.header("x-request-id").unwrap(), id);
    assert!(
        id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );

    let access = with_id(&dir, "access", id, 1);
    let [_, generation, duration, count, time, slowest] = last_words(&access[0]);
    assert_eq!(generation, "1", "{}", access[0]);
    assert_eq!(count, "2", "a hit finds its link and counts: {}", access[0]);
    let number = |word: &str| word.parse::<u64>().unwrap();
    assert!(number(slowest) > 0, "{}", access[0]);
    assert!(number(slowest) <= number(time), "{}", access[0]);
    assert!(number(time) <= number(duration), "{}", access[0]);

    let sql = with_id(&dir, "sql", id, 2);
    for (line, statement) in sql.iter().zip(["Query: SELECT", "Exec: UPDATE"]) {
        assert!(line.contains(statement), "{line}");
    }
}

#[test]
fn an_error_answer_names_the_request() {
    let (_dir, mut service) = start(&[]);
    let address = service.wait_for_address();
    let unknown = get(address, "/nosuch1");
    let id = unknown.header("x-request-id").unwrap();
    assert_eq!(unknown.json()["request_id"], id);
    let page = get_with(address, "/nosuch1", "Accept: text/html\r\n");
    let id = page.header("x-request-id").unwrap();
    assert!(page.body.contains(id), "{}", page.body);
    let wrong = get_with(address, "/links", "Accept: text/html\r\n");
    assert_eq!(wrong.status, 405);
    assert_eq!(wrong.header("allow"), Some("POST"), "{wrong:?}");
}

#[test]
fn an_id_from_elsewhere_is_believed_of_a_trusted_proxy_alone() {
    let given = "X-Request-Id: abc-123\r\nX-Forwarded-For: 192.0.2.7\r\n";
    let id = |options: &[&str], headers: &str| {
        let (dir, mut service) = start(options);
        let answer = get_with(service.wait_for_address(), "/healthz", headers);
        let line = eventually("the access line", || log_lines(&dir, "access").pop());
        let client = line.split(' ').next().unwrap().to_owned();
        (answer.header("x-request-id").unwrap().to_owned(), client)
    };
    let trusting = ["--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "::1"];
    assert_ne!(id(&trusting, given).0, "abc-123");
    let trusting = [
        "--trusted-proxy",
        "10.0.0.0/8",
        "--trusted-proxy",
        "127.0.0.1",
    ];
    assert_eq!(
        id(&trusting, given),
        ("abc-123".to_owned(), "192.0.2.7".to_owned())
    );
    for unusable in ["two words", "\u{e9}", &"a".repeat(129), ""] {
        let (made, _) = id(&trusting, &format!("X-Request-Id: {unusable}\r\n"));
        assert_eq!(made.len(), 16, "{unusable:?} became {made}");
    }
}

#[test]
fn json_logs_are_objects_with_the_request_in_each() {
    let (dir, mut service) = start(&["--json", "--debug-routes", "--slow-query", "1ms"]);
    let address = service.wait_for_address();
    let answer = get_with(
        address,
        "/report?steps=200000",
        "User-Agent: \"\\\u{9b}31m\u{ff}\r\n",
    );
    assert_eq!(answer.status, 200);
    let id = answer.header("x-request-id").unwrap();

    let access = with_id(&dir, "access", id, 1);
    let access: Value = serde_json::from_str(&access[0]).unwrap();
    assert_eq!(access["request"], id);
    assert_eq!(access["path"], "/report?steps=200000");
    assert_eq!(access["method"], "GET");
    assert_eq!(access["status"], 200);
    assert_eq!(access["bytes"], answer.body.len());
    assert_eq!(access["generation"], 1);
    assert_eq!(access["client"], "127.0.0.1");
    assert_eq!(access["sql_count"], 1);
    for number in [
        "duration_us",
        "sql_time_us",
        "sql_wait_us",
        "sql_slowest_us",
    ] {
        assert!(access[number].as_u64() > Some(0), "{number} in {access}");
    }
    let number = |name: &str| access[name].as_u64().unwrap();
    assert_eq!(number("sql_slowest_us"), number("sql_time_us"), "{access}");
    assert!(
        number("sql_wait_us") + number("sql_time_us") <= number("duration_us"),
        "{access}"
    );
    let time = access["time"].as_str().unwrap();
    assert!(
        chrono::DateTime::parse_from_str(time, "%Y-%m-%dT%H:%M:%S%.6f%z").is_ok(),
        "{time}"
    );

    let sql = with_id(&dir, "sql", id, 1);
    for line in &sql {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["request"], id, "{line}");
        assert!(event["elapsed"].is_f64(), "{line}");
    }
    service.signal("TERM");
    assert_eq!(service.wait().code(), Some(0));
    for line in service.said() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(event["message"].is_string(), "{line}");
    }
}

#[test]
fn a_request_that_nobody_waited_for_has_its_statements_counted() {
    use std::io::Write;

    let (dir, mut service) = start(&["--log-format", "story", "--debug-routes"]);
    let address = service.wait_for_address();
    let mut impatient = std::net::TcpStream::connect(address).unwrap();
    impatient
        .write_all(b"GET /report?steps=2000000000 HTTP/1.1\r\nHost: t\r\n\r\n")
        .unwrap();
    eventually("the report running", || {
        log_lines(&dir, "sql")
            .iter()
            .any(|line| line.contains("WITH RECURSIVE"))
            .then_some(())
    });
    drop(impatient);
    let line = eventually("the line of the request", || {
        log_lines(&dir, "access").pop()
    });
    assert!(line.contains(" 499 "), "{line}");
    let [.., count, time, _] = last_words(&line);
    assert_eq!(count, "1", "{line}");
    assert!(time.parse::<u64>().unwrap() > 0, "{line}");
}

#[test]
fn values_are_in_the_sql_log_on_request_only() {
    for (what, expected) in [
        ("hidden", "args = <1 hidden>"),
        ("kinds", "args = [text(7)]"),
        ("values", "args = [\"nosuch1\"]"),
    ] {
        let (dir, mut service) = start(&["--sql-args", what]);
        get(service.wait_for_address(), "/nosuch1");
        let line = eventually("the statement", || {
            let lines = log_lines(&dir, "sql");
            lines.into_iter().find(|line| line.contains("WHERE code"))
        });
        assert!(line.contains(expected), "{what}: {line}");
    }
}

#[test]
fn logs_are_rotated_by_size_and_no_line_is_lost() {
    let (dir, mut service) = start(&["--rotate-bytes", "1000"]);
    let address = service.wait_for_address();
    for _ in 0..50 {
        get(address, "/healthz");
    }
    service.signal("TERM");
    service.wait();
    let mut lines = 0;
    let mut files = 0;
    for entry in std::fs::read_dir(dir.path().join("logs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("access.2") {
            assert!(path.metadata().unwrap().len() <= 1000, "{name}");
            lines += read_lines(&path).len();
            files += 1;
        }
    }
    assert_eq!(lines, 50);
    assert!(files > 2, "{files} files");
}

/// The lines of a log in which the id is, when there are as many.
fn with_id(dir: &TempDir, log: &str, id: &str, number: usize) -> Vec<String> {
    eventually("the lines of the request", || {
        let lines = log_lines(dir, log).into_iter();
        let lines: Vec<_> = lines.filter(|line| line.contains(id)).collect();
        (lines.len() >= number).then_some(lines)
    })
}

/// What the format `story` has behind the combined format.
fn last_words(line: &str) -> [&str; 6] {
    let mut words: Vec<_> = line.rsplit(' ').take(6).collect();
    words.reverse();
    words.try_into().expect("six words")
}
