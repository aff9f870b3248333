//! The databases that the tests run on.

use std::io::Write;
use std::sync::{Arc, Mutex, Weak};

use sql_trace::{TestMysql, TestPostgres, TestServerError, TestServerOptions};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection};
use tempfile::TempDir;

/// The PostgreSQL server that the tests running now share. The last of them
/// ends it, so that nothing is left behind. On a machine with many processors
/// they are many, with several connections each.
pub(crate) fn postgres() -> Result<Arc<TestPostgres>, TestServerError> {
    static SERVER: Mutex<Weak<TestPostgres>> = Mutex::new(Weak::new());
    let options = TestServerOptions::new()
        .arg("-c")
        .arg("max_connections=500");
    shared(&SERVER, || TestPostgres::start_with(options))
}

/// The MariaDB server that the tests running now share.
pub(crate) fn mysql() -> Result<Arc<TestMysql>, TestServerError> {
    static SERVER: Mutex<Weak<TestMysql>> = Mutex::new(Weak::new());
    let options = TestServerOptions::new().arg("--max-connections=500");
    shared(&SERVER, || TestMysql::start_with(options))
}

fn shared<S>(
    server: &Mutex<Weak<S>>,
    start: impl FnOnce() -> Result<S, TestServerError>,
) -> Result<Arc<S>, TestServerError> {
    let mut server = server.lock().unwrap();
    if let Some(running) = server.upgrade() {
        return Ok(running);
    }
    let started = Arc::new(start()?);
    *server = Arc::downgrade(&started);
    Ok(started)
}

/// An empty database of one's own, for as long as this value lives.
pub(crate) struct Scratch {
    pub(crate) url: String,
    _held: Held,
}

#[expect(dead_code, reason = "held for what they do when they are dropped")]
enum Held {
    File(TempDir),
    Postgres(Arc<TestPostgres>),
    Mysql(Arc<TestMysql>),
}

/// A kind of database that the tests run on.
pub(crate) trait Database: sql_trace::TraceDatabase {
    /// Makes an empty database. `None`, and a word on standard error, if there
    /// is no server to make it on.
    async fn scratch(test: &str) -> Option<Scratch>;

    /// A URL at which no connection can be opened.
    fn broken_url(url: &str) -> String;

    /// Puts this database's own words where `text` has `{placeholders}`.
    fn words(text: &str) -> String;
}

impl Database for sqlx::Sqlite {
    async fn scratch(_: &str) -> Option<Scratch> {
        let directory = tempfile::tempdir().unwrap();
        Some(Scratch {
            url: format!("sqlite://{}/test.db?mode=rwc", directory.path().display()),
            _held: Held::File(directory),
        })
    }

    fn broken_url(_: &str) -> String {
        "sqlite:///nonexistent/test.db".to_owned()
    }

    fn words(text: &str) -> String {
        numbered(text, |_| "?".to_owned())
            .replace("{unique violation}", "1555")
            .replace("{unique violation line}", "SQLite 1555")
            .replace("{no such table}", "1")
            .replace("{no such table line}", "SQLite 1")
            .replace("{cannot open}", "14")
            .replace("{cannot open line}", "SQLite 14")
            .replace("{begin}", "BEGIN IMMEDIATE")
            .replace("{select two, one}", "SELECT ?2, ?1")
            .replace(
                "{slow}",
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000) \
                 SELECT count(*) FROM n",
            )
    }
}

impl Database for sqlx::Postgres {
    async fn scratch(test: &str) -> Option<Scratch> {
        let server = match postgres() {
            Ok(server) => server,
            Err(e) => {
                leave_out(test, &e);
                return None;
            }
        };
        let name = format!("s{}", next());
        let mut connection = PgConnection::connect(&server.url()).await.unwrap();
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create)
            .execute(&mut connection)
            .await
            .unwrap();
        Some(Scratch {
            url: server.url_of(&name),
            _held: Held::Postgres(server),
        })
    }

    fn broken_url(url: &str) -> String {
        let (server, query) = url.split_once('?').unwrap();
        let server = server.rsplit_once('/').unwrap().0;
        format!("{server}/no_such_database?{query}")
    }

    fn words(text: &str) -> String {
        numbered(text, |n| format!("${n}"))
            .replace("{unique violation}", "23505")
            .replace("{unique violation line}", "SQLSTATE 23505")
            .replace("{no such table}", "42P01")
            .replace("{no such table line}", "SQLSTATE 42P01")
            .replace("{cannot open}", "3D000")
            .replace("{cannot open line}", "SQLSTATE 3D000")
            .replace("{begin}", "START TRANSACTION READ ONLY")
            .replace("{select two, one}", "SELECT $2::TEXT, $1::INT4")
            .replace("{slow}", "SELECT pg_sleep(30)")
    }
}

impl Database for sqlx::MySql {
    async fn scratch(test: &str) -> Option<Scratch> {
        let server = match mysql() {
            Ok(server) => server,
            Err(e) => {
                leave_out(test, &e);
                return None;
            }
        };
        let name = format!("s{}", next());
        let mut connection = MySqlConnection::connect(&server.url()).await.unwrap();
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create)
            .execute(&mut connection)
            .await
            .unwrap();
        Some(Scratch {
            url: server.url_of(&name),
            _held: Held::Mysql(server),
        })
    }

    fn broken_url(url: &str) -> String {
        let (server, query) = url.split_once('?').unwrap();
        let server = server.rsplit_once('/').unwrap().0;
        format!("{server}/no_such_database?{query}")
    }

    fn words(text: &str) -> String {
        numbered(text, |_| "?".to_owned())
            .replace("{unique violation}", "23000")
            .replace("{unique violation line}", "SQLSTATE 23000 (1062)")
            .replace("{no such table}", "42S02")
            .replace("{no such table line}", "SQLSTATE 42S02 (1146)")
            .replace("{cannot open}", "42000")
            .replace("{cannot open line}", "SQLSTATE 42000 (1049)")
            .replace("{begin}", "START TRANSACTION READ ONLY")
            .replace("{select two, one}", "SELECT ?, ?")
            .replace("{slow}", "SELECT sleep(30)")
    }
}

/// Replaces `{1}`, `{2}` and so on.
fn numbered(text: &str, placeholder: impl Fn(usize) -> String) -> String {
    let mut text = text.to_owned();
    for n in 1..=9 {
        text = text.replace(&format!("{{{n}}}"), &placeholder(n));
    }
    text
}

fn next() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Whether the test must be left out for want of PostgreSQL, which is said on
/// standard error.
pub(crate) fn postgres_is_missing(test: &str) -> bool {
    postgres().inspect_err(|e| leave_out(test, e)).is_err()
}

pub(crate) fn mysql_is_missing(test: &str) -> bool {
    mysql().inspect_err(|e| leave_out(test, e)).is_err()
}

fn leave_out(test: &str, e: &TestServerError) {
    assert!(
        e.to_string().contains("is installed") && std::env::var_os("TEST_REQUIRE_ALL").is_none(),
        "{test}: {e}"
    );
    // Around the test harness, which would keep it to itself.
    let _ = writeln!(std::io::stderr(), "LEFT OUT {test}: {e}");
}
