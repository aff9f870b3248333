//! The service on the databases that outlive one machine.

use std::thread;
use std::time::Duration;

use sql_trace::{TestMysql, TestPostgres, TestServerError};
use tempfile::TempDir;

use crate::client::{get, post};
use crate::program::{Program, eventually, left_out, service};
use crate::standalone::read_lines;

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
    let codes: Vec<String> = (0..3)
        .map(|n| {
            let body = format!(r#"{{"url": "https://example.com/{n}"}}"#);
            let created = post(address, "/links", "application/json", &body);
            assert_eq!(created.status, 201, "{created:?}");
            // Which of two of the same millisecond is newer, none can tell.
            thread::sleep(Duration::from_millis(2));
            created.json()["code"].as_str().expect("a code").to_owned()
        })
        .collect();
    assert_eq!(get(address, &format!("/{}", codes[0])).status, 302);
    assert_eq!(get(address, "/report?steps=10").json()["links"], 3);
    service.signal("TERM");
    assert_eq!(service.wait().code(), Some(0));

    let mut service = start();
    let address = service.wait_for_address();
    let stats = get(address, &format!("/{}/stats", codes[0])).json();
    assert_eq!(stats["hits"], 1);
    assert_eq!(stats["url"], "https://example.com/0");
    let swapped = codes[0].chars().map(|c| match c.is_ascii_lowercase() {
        true => c.to_ascii_uppercase(),
        false => c.to_ascii_lowercase(),
    });
    let swapped: String = swapped.collect();
    if swapped != codes[0] {
        assert_eq!(
            get(address, &format!("/{swapped}")).status,
            404,
            "case tells codes apart"
        );
    }
    let page = get(address, "/").body;
    let places: Vec<_> = codes
        .iter()
        .map(|code| page.find(code.as_str()).expect("listed"))
        .collect();
    assert!(
        places.is_sorted_by(|a, b| a > b),
        "newest first: {places:?}"
    );

    eventually("the statements of both runs", || {
        let lines = read_lines(&dir.path().join("logs/sql.log"));
        let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        (count("Exec: INSERT INTO links") == 3
            && count("Exec: UPDATE links") == 1
            && count("Query: SELECT code, url, hits, created_at FROM links WHERE") == 3
            && count("Open (") >= 2)
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
