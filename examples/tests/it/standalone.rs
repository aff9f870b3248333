//! The service alone, on a port of its own.

use std::path::Path;
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use crate::client::{get, get_with, post, send};
use crate::program::{Program, eventually, left_out_here, service};

#[test]
fn a_link_is_stored_followed_counted_and_listed() {
    let (_dir, mut service) = start(&[]);
    let address = service.wait_for_address();

    let created = post(
        address,
        "/links",
        "application/json",
        r#"{"url": "https://example.com/a?b=c"}"#,
    );
    assert_eq!(created.status, 201, "{created:?}");
    let code = created.json()["code"].as_str().unwrap().to_owned();
    assert_eq!(created.header("location"), Some(&*format!("/{code}")));

    for _ in 0..3 {
        let followed = get(address, &format!("/{code}"));
        assert_eq!(followed.status, 302);
        assert_eq!(
            followed.header("location"),
            Some("https://example.com/a?b=c")
        );
        let caching = followed.header("cache-control");
        assert_eq!(caching, Some("no-store"), "each visit is to be counted");
    }
    let head = send(
        address,
        &format!("HEAD /{code} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"),
    );
    assert_eq!(head.unwrap().status, 302, "a HEAD request is answered");

    let stats = get(address, &format!("/{code}/stats")).json();
    assert_eq!(stats["hits"], 3, "GET counts, HEAD does not");
    assert_eq!(stats["url"], "https://example.com/a?b=c");

    let page = get(address, "/");
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    assert!(page.body.contains("<form"), "the page has a form");
    assert!(
        page.body.contains(&code) && page.body.contains(">3<"),
        "{}",
        page.body
    );
}

#[test]
fn a_form_is_answered_with_json_for_programs_and_a_page_for_browsers() {
    let (_dir, mut service) = start(&[]);
    let address = service.wait_for_address();
    let form = "application/x-www-form-urlencoded";

    let created = post(address, "/links", form, "url=http%3A%2F%2Fexample.com%2F");
    assert_eq!(created.status, 201);
    assert_eq!(created.json()["url"], "http://example.com/");

    let body = "url=http%3A%2F%2Fexample.com%2F";
    let browser = send(
        address,
        &format!(
            "POST /links HTTP/1.1\r\nHost: t\r\nAccept: text/html,*/*;q=0.8\r\nContent-Type: {form}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
    )
    .unwrap();
    assert_eq!(browser.status, 303);
    let page = get(address, browser.header("location").unwrap());
    assert!(page.body.contains("Your short link"), "{}", page.body);
}

#[test]
fn bad_input_gets_a_4xx_with_its_reason() {
    let (_dir, mut service) = start(&[]);
    let address = service.wait_for_address();
    let form = "application/x-www-form-urlencoded";
    let json = "application/json";
    let large = format!("url=http://example.com/{}", "a".repeat(20_000));
    let long = format!("url=http://example.com/{}", "a".repeat(3_000));
    for (content_type, body, status, reason) in [
        (form, "", 422, "empty"),
        (form, "link=x", 422, "empty"),
        (form, "url=", 422, "empty"),
        (form, "url=nothing", 422, "not an absolute URL"),
        (
            form,
            "url=javascript%3Aalert(1)",
            422,
            "only http and https",
        ),
        (form, &long, 422, "at most 2048"),
        (form, &large, 413, "limit"),
        (json, "{}", 422, "empty"),
        (json, "{\"url\": 1}", 400, "url"),
        (json, "{\"url\"", 400, "EOF"),
        ("text/plain", "http://example.com/", 415, "application/json"),
    ] {
        let answer = post(address, "/links", content_type, body);
        assert_eq!(answer.status, status, "{content_type} {body}: {answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(reason), "{content_type} {body}: {error}");
    }
    for (path, status) in [
        ("/nosuch1", 404),
        ("/nosuch1/stats", 404),
        ("/%2e%2e%2fetc", 404),
        ("/no/such/page", 404),
        ("/links", 405),
        ("/sleep?ms=1", 404),
        ("/report", 404),
    ] {
        let answer = get(address, path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.json()["error"].is_string(), "{path}: {answer:?}");
    }
    let page = get_with(address, "/nosuch1", "Accept: text/html\r\n");
    assert_eq!(page.status, 404);
    assert!(
        page.body.contains("no link has this code"),
        "a browser sees the reason: {}",
        page.body
    );
}

#[test]
fn media_types_are_known_in_any_case_and_with_parameters() {
    let (_dir, mut service) = start(&[]);
    let address = service.wait_for_address();
    let json = r#"{"url": "http://example.com/"}"#;
    for (content_type, body) in [
        ("application/json; charset=utf-8", json),
        ("Application/JSON", json),
        (
            "application/x-www-form-urlencoded ;charset=UTF-8",
            "url=http://example.com/",
        ),
    ] {
        let answer = post(address, "/links", content_type, body);
        assert_eq!(answer.status, 201, "{content_type}: {answer:?}");
    }
}

#[test]
fn a_problem_has_one_content_type_and_one_length() {
    let (_dir, mut service) = start(&[]);
    let address = service.wait_for_address();
    for (accept, content_type) in [("*/*", "application/json"), ("text/html", "text/html")] {
        let answer = get_with(address, "/nosuch1", &format!("Accept: {accept}\r\n"));
        let types = answer.headers("content-type");
        assert_eq!(types.len(), 1, "{answer:?}");
        assert!(types[0].starts_with(content_type), "{answer:?}");
        assert_eq!(answer.headers("content-length").len(), 1, "{answer:?}");
    }
}

#[test]
fn the_page_lists_the_twenty_newest_links() {
    let (_dir, mut service) = start(&[]);
    let address = service.wait_for_address();
    let rows = || get(address, "/").body.matches("<td class=\"url\"").count();
    assert!(get(address, "/").body.contains("No links yet"));
    for number in 1..=21 {
        let url = format!("url=http://example.com/{number}");
        let form = "application/x-www-form-urlencoded";
        assert_eq!(post(address, "/links", form, &url).status, 201);
        assert_eq!(rows(), number.min(20));
    }
    let page = get(address, "/?created=%3Cb%3E");
    assert_eq!(page.status, 200);
    assert!(
        !page.body.contains("Your short link"),
        "what cannot be a code is not shown: {}",
        page.body
    );
}

#[test]
fn debug_routes_sleep_and_report() {
    let (_dir, mut service) = start(&["--debug-routes"]);
    let address = service.wait_for_address();
    assert_eq!(get(address, "/sleep?ms=1").status, 200);
    assert_eq!(get(address, "/sleep?ms=60001").status, 400);
    assert_eq!(get(address, "/sleep?ms=x").status, 400);
    assert_eq!(get(address, "/sleep").status, 400);
    assert_eq!(get(address, "/report?steps=1000").json()["links"], 0);
}

#[test]
fn the_access_log_has_one_combined_line_per_request_through_the_link() {
    let (dir, mut service) = start(&[]);
    let address = service.wait_for_address();
    post(
        address,
        "/links",
        "application/json",
        r#"{"url": "http://example.com/"}"#,
    );
    let unknown = get_with(
        address,
        "/nosuch1?q=1",
        "Referer: http://r/\r\nUser-Agent: a \"quoted\" \\ agent\r\n",
    );
    get(address, "/healthz");

    let lines = eventually("three access lines", || {
        let lines = log_lines(&dir, "access");
        (lines.len() >= 3).then_some(lines)
    });
    let link = dir.path().join("logs/access.log");
    assert!(link.is_symlink(), "{} is a link", link.display());
    assert_eq!(
        read_lines(&link).last(),
        lines.last(),
        "it leads to the current file"
    );
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(
        lines.iter().all(|line| line.starts_with("127.0.0.1 - - [")),
        "{lines:#?}"
    );
    assert!(
        lines[0].contains(r#"] "POST /links HTTP/1.1" 201 "#),
        "{}",
        lines[0]
    );
    assert!(lines[0].ends_with(r#" "-" "-""#), "{}", lines[0]);
    let (_, tail) = lines[1].split_once("] ").unwrap();
    assert_eq!(
        tail,
        format!(
            r#""GET /nosuch1?q=1 HTTP/1.1" 404 {} "http://r/" "a \"quoted\" \\ agent""#,
            unknown.body.len()
        )
    );
    assert!(
        lines[2].contains(r#""GET /healthz HTTP/1.1" 200 6 "#),
        "{}",
        lines[2]
    );
}

#[test]
fn the_sql_log_has_open_exec_and_query_with_durations() {
    let (dir, mut service) = start(&["--debug-routes", "--slow-query", "1ms"]);
    let address = service.wait_for_address();
    post(
        address,
        "/links",
        "application/json",
        r#"{"url": "http://example.com/secret"}"#,
    );
    get(address, "/");
    get(address, "/report?steps=2000000");

    let lines = eventually("the slow report", || {
        let lines = log_lines(&dir, "sql");
        lines
            .iter()
            .any(|line| line.contains("WITH RECURSIVE"))
            .then_some(lines)
    });
    let line = |what: &str| {
        let found = lines.iter().find(|line| line.contains(what));
        found
            .unwrap_or_else(|| panic!("no {what} in {lines:#?}"))
            .as_str()
    };
    assert!(line("Open").contains("s)"), "{}", line("Open"));
    assert!(line("Exec: INSERT INTO links").contains("s)"));
    assert!(line("Query: SELECT code, url, hits, created_at FROM links ORDER BY").contains("s)"));
    assert!(
        line("WITH RECURSIVE").contains("slow"),
        "{}",
        line("WITH RECURSIVE")
    );
    assert!(
        !lines.iter().any(|line| line.contains("secret")),
        "values are not printed by default"
    );
}

#[test]
fn sigterm_lets_a_running_request_complete_and_exits_with_0() {
    use std::io::{Read, Write};

    let (dir, mut service) = start(&["--debug-routes"]);
    let address = service.wait_for_address();
    let mut client = std::net::TcpStream::connect(address).unwrap();
    client
        .write_all(b"GET /sleep?ms=1000 HTTP/1.1\r\nHost: t\r\n\r\n")
        .unwrap();
    let port = client.local_addr().unwrap().port();
    eventually("the request read", || {
        has_read(address.port(), port).then_some(())
    });
    service.signal("TERM");
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("slept 1000 ms\n"), "{answer}");
    assert_eq!(service.wait().code(), Some(0));
    let lines = log_lines(&dir, "access");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("/sleep?ms=1000 HTTP/1.1\" 200")),
        "{lines:?}"
    );
}

#[test]
fn drain_timeout_is_the_one_that_was_asked_for() {
    use std::io::Write;

    let (_dir, mut service) = start(&["--debug-routes", "--drain-timeout", "100ms"]);
    let address = service.wait_for_address();
    let mut client = std::net::TcpStream::connect(address).unwrap();
    client
        .write_all(b"GET /sleep?ms=60000 HTTP/1.1\r\nHost: t\r\n\r\n")
        .unwrap();
    let port = client.local_addr().unwrap().port();
    eventually("the request read", || {
        has_read(address.port(), port).then_some(())
    });
    service.signal("TERM");
    assert_eq!(service.wait().code(), Some(0));
    let said = service.said().join("\n");
    for words in [
        "the drain has taken longer than 100ms",
        "1 connections were cut by --drain-timeout",
    ] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}

#[test]
fn healthz_answers_503_in_a_drain() {
    use std::io::{Read, Write};

    // Asks over and over on one connection until it is closed. That the drain begins while
    // an answer is on its way may happen, but not each time.
    let last_answer = || {
        let (_dir, mut service) = start(&[]);
        let mut client = std::net::TcpStream::connect(service.wait_for_address()).unwrap();
        let mut last = String::new();
        for count in 0.. {
            if count == 10 {
                service.signal("TERM");
            }
            let sent = client.write_all(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n");
            let mut answer = [0; 1000];
            match sent.and_then(|()| client.read(&mut answer)) {
                Ok(0) | Err(_) => break,
                Ok(length) => last = String::from_utf8(answer[..length].to_vec()).unwrap(),
            }
        }
        assert_eq!(service.wait().code(), Some(0));
        last
    };
    let mut answers = (0..20).map(|_| last_answer());
    assert!(answers.any(|last| last.starts_with("HTTP/1.1 503") && last.ends_with("draining\n")));
}

#[test]
fn parameters_of_the_database_are_not_told_at_the_start() {
    let (_dir, mut service) = start(&["--database-url", "sqlite:service.db?mode=rwc"]);
    service.wait_for_address();
    let told = service.wait_for_line("where the links are", |line| {
        Some(line.split_once("links are kept in ")?.1.to_owned())
    });
    assert_eq!(told, "sqlite:service.db?***");
}

#[test]
fn database_is_closed_after_the_last_request() {
    let (dir, mut service) = start(&[]);
    get(service.wait_for_address(), "/");
    service.signal("TERM");
    assert_eq!(service.wait().code(), Some(0));
    let lines = log_lines(&dir, "sql");
    assert!(lines.last().unwrap().contains(" Close"), "{lines:?}");
}

#[test]
fn database_that_fails_is_told_with_503_and_when_to_come_back() {
    use sqlx::Connection;

    let (dir, mut service) = start(&[]);
    let address = service.wait_for_address();
    let url = format!("sqlite://{}/service.db", dir.path().display());
    let drop_links = async {
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let drop = sqlx::raw_sql("DROP TABLE links");
        drop.execute(&mut connection).await.unwrap();
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(drop_links);
    let failed = get(address, "/");
    assert_eq!(failed.status, 503, "{failed:?}");
    assert_eq!(failed.header("retry-after"), Some("1"));
    let error = failed.json()["error"].to_string();
    assert!(error.contains("the database does not answer"), "{error}");
    assert!(!error.contains("links"), "its own words are for the log");
}

#[test]
fn log_files_of_the_asked_age_are_removed() {
    let dir = TempDir::new().unwrap();
    let logs = dir.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let (old, young) = (
        logs.join("access.20200101.log"),
        logs.join("access.20200102.log"),
    );
    for (path, days) in [(&old, 3), (&young, 1)] {
        let file = std::fs::File::create(path).unwrap();
        let age = std::time::Duration::from_secs(days * 24 * 3600);
        file.set_modified(std::time::SystemTime::now() - age)
            .unwrap();
    }
    let mut command = service();
    command
        .current_dir(&dir)
        .args(["--listen", "127.0.0.1:0", "--log-max-age", "2days"]);
    let mut service = Program::start(command);
    get(service.wait_for_address(), "/healthz");
    eventually("the old file removed", || (!old.exists()).then_some(()));
    assert!(young.exists());
}

#[test]
fn access_lines_go_to_standard_output_on_request() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let mut command = service();
    command
        .current_dir(&dir)
        .args(["--listen", "127.0.0.1:0", "--access-log", "-"]);
    let mut service = Program::start_with_output(command, std::fs::File::create(&out).unwrap());
    let address = service.wait_for_address();
    get(address, "/healthz");
    eventually("the line", || (read_lines(&out).len() == 1).then_some(()));
}

#[test]
fn wrong_options_are_refused_with_the_value_and_the_reason() {
    let dir = TempDir::new().unwrap();
    for (options, words) in [
        (&["--log-format", "%h %Z"][..], &["%Z", "--log-format"][..]),
        (
            &["--log-format", "combind"],
            &["combind", "--log-format", "directive"],
        ),
        (&["--slow-query", "fast"], &["fast", "--slow-query"]),
        (&["--drain-timeout=-1s"], &["-1s", "--drain-timeout"]),
        (&["--database-url", "oracle://x"], &["sqlite:"]),
        (
            &["--database-url", "sqlite:nowhere/x.db"],
            &["connect to sqlite:nowhere/x.db", "unable to open"],
        ),
        (
            &[
                "--database-url",
                "postgres://me:secret@localhost/?sslmode=odd",
            ],
            &["postgres://me:***@localhost/", "odd"],
        ),
        (&["--listen", "nowhere"], &["`nowhere`", "./nowhere"]),
        (
            &["--access-log", "logs/%Q.log"],
            &["access log logs/%Q.log", "unknown directive"],
        ),
        (&["--sql-log", "/"], &["SQL log /"]),
        (&["--listen", "127.0.0.1:99999"], &["99999"]),
        (&["--trusted-proxy", "10.0.0.0/33"], &["10.0.0.0/33"]),
        (
            &["--json", "--log-format", "%h"],
            &["--json", "--log-format"],
        ),
        (&["--sql-args", "some"], &["some", "kinds"]),
        (&["--rotate-bytes", "many"], &["many", "--rotate-bytes"]),
        (&["--no-such-option"], &["--no-such-option"]),
    ] {
        let mut command = service();
        // What is refused late is refused on any port, and not for one in use.
        command.current_dir(&dir).args(["--listen", "127.0.0.1:0"]);
        let output = command.args(options).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{options:?} was taken");
        assert!(!stderr.contains("secret"), "{stderr}");
        for word in words {
            assert!(
                stderr.contains(word),
                "{options:?}: {word} is not in {stderr}"
            );
        }
    }
}

#[test]
fn database_that_refuses_connections_is_named_with_the_reason() {
    thread::scope(|scope| {
        for scheme in ["postgres", "mariadb"] {
            scope.spawn(move || {
                let dir = TempDir::new().unwrap();
                // Nobody listens on tcpmux.
                let url = format!("{scheme}://127.0.0.1:1/links");
                let output = service()
                    .current_dir(&dir)
                    .args(["--listen", "127.0.0.1:0", "--database-url", &url])
                    .output()
                    .unwrap();
                let stderr = String::from_utf8(output.stderr).unwrap();
                assert!(!output.status.success(), "{stderr}");
                let wanted = format!("could not connect to {url}: ");
                assert!(stderr.contains(&wanted), "{stderr}");
                assert!(stderr.contains("Connection refused"), "{stderr}");
            });
        }
    });
}

#[test]
fn help_documents_every_option_with_its_default() {
    let output = service().arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for word in [
        "--listen",
        "127.0.0.1:8080",
        "--access-log",
        "--access-log-link",
        "--log-format",
        "combined",
        "--sql-log",
        "--slow-query",
        "--database-url",
        "--drain-timeout",
        "--debug-routes",
        "--json",
        "--trusted-proxy",
        "--rotate-bytes",
        "--log-max-age",
        "--sql-args",
        "story",
    ] {
        assert!(help.contains(word), "{word} is not in:\n{help}");
    }
}

/// Starts the service in a directory of its own.
pub(crate) fn start(options: &[&str]) -> (TempDir, Program) {
    let dir = TempDir::new().expect("a directory");
    let mut command: Command = service();
    command
        .current_dir(&dir)
        .args(["--listen", "127.0.0.1:0"])
        .args(options);
    (dir, Program::start(command))
}

/// The lines of a log, from all its files: it may be midnight in the middle of a test.
pub(crate) fn log_lines(dir: &TempDir, log: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir.path().join("logs")) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(&format!("{log}.2")))
    });
    files.sort();
    files.iter().flat_map(|path| read_lines(path)).collect()
}

pub(crate) fn read_lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Whether all that one end of a connection has sent has been read by the other.
pub(crate) fn has_read(server: u16, client: u16) -> bool {
    const EMPTY: &str = "00000000";
    let queues = |local: u16, remote: u16| {
        // Anew for either end, as the file is not of one moment: what the one end has sent
        // has arrived at the other before that is looked at.
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("procfs");
        let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
        sockets.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_it = fields[1].ends_with(&local) && fields[2].ends_with(&remote);
            let queues = fields[4].split_once(':').expect("two queues");
            is_it.then(|| (queues.0 == EMPTY, queues.1 == EMPTY))
        })
    };
    queues(client, server).is_some_and(|(all_sent, _)| all_sent)
        && queues(server, client).is_some_and(|(_, all_read)| all_read)
}

#[test]
fn several_addresses_are_listened_on_a_unix_socket_among_them() {
    use std::io::{Read, Write};

    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return left_out_here("several addresses, as there is no IPv6");
    }
    let dir = TempDir::new().unwrap();
    let mut command = service();
    command.current_dir(&dir);
    command.args([
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "[::1]:0",
        "--listen",
        "./socket",
    ]);
    let mut service = Program::start(command);
    let address = service.wait_for_address();
    assert_eq!(get(address, "/healthz").status, 200);
    let v6 = service.wait_for_line("its IPv6 address", |line| {
        line.split_once("serving address=[::1]:")?
            .1
            .parse::<u16>()
            .ok()
    });
    assert_eq!(
        get(format!("[::1]:{v6}").parse().unwrap(), "/healthz").status,
        200
    );

    let path = dir.path().join("socket");
    let mut socket = eventually("the socket", || {
        std::os::unix::net::UnixStream::connect(&path).ok()
    });
    socket.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");

    service.signal("TERM");
    assert_eq!(service.wait().code(), Some(0));
    assert!(!path.exists(), "its own socket file is removed");
    let lines = log_lines(&dir, "access");
    let hosts: Vec<_> = lines
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(
        hosts,
        ["127.0.0.1", "::1", "-"],
        "a Unix socket's client has no address"
    );
}
