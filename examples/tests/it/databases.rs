//! The service on the databases that outlive one machine.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use sql_trace::{TestMysql, TestPostgres, TestServerError};
use tempfile::TempDir;

use crate::client::{get, post};
use crate::program::{Program, eventually, left_out, service};
use crate::standalone::{log_lines, start};

#[test]
fn postgresql_keeps_links_over_a_restart_of_the_service() {
    if let Some(server) = started(TestPostgres::start()) {
        links_survive_a_restart(&server.url());
    }
}

#[test]
fn mariadb_keeps_links_over_a_restart_of_the_service() {
    if let Some(server) = started(TestMysql::start()) {
        links_survive_a_restart(&server.url());
    }
}

#[test]
fn sqlite_keeps_links_over_a_restart_of_the_service() {
    let dir = TempDir::new().unwrap();
    links_survive_a_restart(&format!("sqlite:{}", dir.path().join("links.db").display()));
}

#[test]
fn postgresql_statement_is_told_of_while_it_runs() {
    if let Some(server) = started(TestPostgres::start()) {
        statement_is_told_of_while_it_runs(&server.url());
    }
}

#[test]
fn mariadb_statement_is_told_of_while_it_runs() {
    if let Some(server) = started(TestMysql::start()) {
        statement_is_told_of_while_it_runs(&server.url());
    }
}

#[test]
fn sqlite_statement_is_told_of_while_it_runs() {
    statement_is_told_of_while_it_runs("sqlite:service.db");
}

fn statement_is_told_of_while_it_runs(url: &str) {
    let options = [
        "--debug-routes",
        "--slow-query",
        "10ms",
        "--database-url",
        url,
    ];
    let (dir, mut service) = start(&options);
    let mut client = TcpStream::connect(service.wait_for_address()).expect("it listens");
    client
        .write_all(b"GET /report?steps=400000000 HTTP/1.1\r\nHost: t\r\n\r\n")
        .expect("it reads");
    eventually("the report, before it is done", || {
        let mut lines = log_lines(&dir, "sql").into_iter();
        lines
            .find(|line| line.contains(" AS work") || line.contains("FROM work)"))
            .filter(|line| line.contains("still running"))
    });
}

fn links_survive_a_restart(url: &str) {
    let dir = TempDir::new().expect("a directory");
    let start = || {
        let mut command = service();
        command.current_dir(&dir).args([
            "--listen",
            "127.0.0.1:0",
            "--debug-routes",
            // None is told of a second time because it still ran.
            "--slow-query",
            "1h",
            "--database-url",
            url,
        ]);
        Program::start(command)
    };

    let mut service = start();
    let address = service.wait_for_address();
    let created: Vec<(String, i64)> = (0..3)
        .map(|n| {
            let body = format!(r#"{{"url": "https://example.com/{n}"}}"#);
            let created = post(address, "/links", "application/json", &body);
            assert_eq!(created.status, 201, "{created:?}");
            // Which of two of the same millisecond is newer, none can tell.
            thread::sleep(Duration::from_millis(2));
            let created = created.json();
            let code = created["code"].as_str().expect("a code");
            (
                code.to_owned(),
                created["created_at"].as_i64().expect("a time"),
            )
        })
        .collect();
    let first = &*created[0].0;
    assert_eq!(get(address, &format!("/{first}")).status, 302);
    // Longer than what is slow by default.
    assert_eq!(get(address, "/report?steps=3000000").json()["links"], 3);
    service.signal("TERM");
    assert_eq!(service.wait().code(), Some(0));

    let mut service = start();
    let address = service.wait_for_address();
    let stats = get(address, &format!("/{first}/stats")).json();
    assert_eq!(stats["hits"], 1);
    assert_eq!(stats["url"], "https://example.com/0");
    let swapped = first.chars().map(|c| match c.is_ascii_lowercase() {
        true => c.to_ascii_uppercase(),
        false => c.to_ascii_lowercase(),
    });
    let swapped: String = swapped.collect();
    // A code may have no letters.
    let can_be_swapped = swapped != first;
    if can_be_swapped {
        assert_eq!(
            get(address, &format!("/{swapped}")).status,
            404,
            "case tells codes apart"
        );
    }
    let page = get(address, "/").body;
    let place = |code: &str| page.find(code).expect("listed");
    for (older, newer) in created
        .iter()
        .flat_map(|older| created.iter().map(move |newer| (older, newer)))
    {
        // Not in the order of the requests, in which clocks may be set back.
        if older.1 < newer.1 {
            assert!(
                place(&newer.0) < place(&older.0),
                "newest first: {created:?}"
            );
        }
    }

    eventually("the statements of both runs", || {
        let lines = log_lines(&dir, "sql");
        let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!(count("still running"), 0, "not within the hour: {lines:#?}");
        (count("Exec: INSERT INTO links") == 3
            && count("Exec: UPDATE links") == 1
            && count("Query: SELECT code, url, hits, created_at FROM links WHERE")
                == 2 + usize::from(can_be_swapped)
            && count(" Open") >= 2)
            .then_some(())
    });
}

/// The server, or `None` with a plain word where none is installed.
fn started<T>(server: Result<T, TestServerError>) -> Option<T> {
    match server {
        Ok(server) => Some(server),
        Err(error) => {
            left_out(&error.to_string());
            None
        }
    }
}
