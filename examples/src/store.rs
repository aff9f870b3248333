use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sql_trace::SharedTracer;
use sql_trace::mysql::{MySqlPool, MySqlPoolOptions};
use sql_trace::postgres::{PgPool, PgPoolOptions};
use sql_trace::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{Connection, MySqlConnection, PgConnection};
use tokio::time::timeout;
use url::Url;

use crate::{Code, Link, Target};

/// The links, in SQLite, PostgreSQL or MariaDB.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool,
}

impl Store {
    /// Connects to the database that `url` names (`sqlite:`, `postgres:`,
    /// `mysql:` or `mariadb:`) and brings its tables up to date. An SQLite
    /// file is created when it is not there. `tracer` is told of every
    /// statement, and of one that takes as long as `slow` while it still runs.
    ///
    /// # Errors
    ///
    /// When the URL is of no known scheme, the database cannot be reached, or
    /// its tables cannot be brought up to date.
    pub async fn connect(
        url: &str,
        tracer: SharedTracer,
        slow: Duration,
    ) -> Result<Self, StoreError> {
        let failed =
            |error| StoreError::new(format!("connect to {}", without_password(url)), error);
        let pool = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => {
                let options: SqliteConnectOptions = url.parse().map_err(failed)?;
                let options = options
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .busy_timeout(PATIENCE);
                let pool = SqlitePoolOptions::new()
                    .tracer(tracer)
                    .still_running(slow)
                    .acquire_timeout(PATIENCE);
                Pool::Sqlite(pool.connect_with(options).await.map_err(failed)?)
            }
            Some("postgres" | "postgresql") => {
                let pool = PgPoolOptions::new()
                    .tracer(tracer)
                    .still_running(slow)
                    .acquire_timeout(PATIENCE);
                match pool.connect(url).await {
                    Ok(pool) => Pool::Postgres(pool),
                    Err(error) => return Err(failed(reason::<PgConnection>(url, error).await)),
                }
            }
            Some("mysql" | "mariadb") => {
                let pool = MySqlPoolOptions::new()
                    .tracer(tracer)
                    .still_running(slow)
                    .acquire_timeout(PATIENCE);
                match pool.connect(url).await {
                    Ok(pool) => Pool::MySql(pool),
                    Err(error) => return Err(failed(reason::<MySqlConnection>(url, error).await)),
                }
            }
            _ => {
                let reason = "the URL begins with none of sqlite:, postgres:, mysql: and mariadb:";
                return Err(failed(sqlx::Error::Configuration(reason.into())));
            }
        };
        let store = Self { pool };
        store
            .migrate()
            .await
            .map_err(|error| failed(error.into()))?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), MigrateError> {
        match &self.pool {
            Pool::Sqlite(pool) => sqlx::migrate!("migrations/sqlite").run(pool).await,
            Pool::Postgres(pool) => sqlx::migrate!("migrations/postgres").run(pool).await,
            Pool::MySql(pool) => sqlx::migrate!("migrations/mysql").run(pool).await,
        }
    }

    /// Stores a link under a new code.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn insert(&self, target: &Target) -> Result<Link, StoreError> {
        let failed = |error| StoreError::new("insert a link", error);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let created_at = i64::try_from(now).unwrap_or(i64::MAX);
        loop {
            let code = Code::random().map_err(|e| failed(sqlx::Error::Io(e.into())))?;
            let inserted = on_pool!(self, pool, sql => sqlx::query(sql.insert)
                .bind(code.as_str())
                .bind(target.as_str())
                .bind(created_at)
                .execute(pool)
                .await
                .map(|_| ()));
            match inserted {
                Ok(()) => {
                    return Ok(Link {
                        code,
                        url: target.as_str().to_owned(),
                        hits: 0,
                        created_at,
                    });
                }
                Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Finds the link of a code.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn find(&self, code: &Code) -> Result<Option<Link>, StoreError> {
        let row: Option<Row> = on_pool!(self, pool, sql => sqlx::query_as(sql.find)
            .bind(code.as_str())
            .fetch_optional(pool)
            .await)
        .map_err(|error| StoreError::new("find a link", error))?;
        Ok(row.map(link))
    }

    /// Counts one more hit of a link.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn count_hit(&self, code: &Code) -> Result<(), StoreError> {
        on_pool!(self, pool, sql => sqlx::query(sql.count_hit)
            .bind(code.as_str())
            .execute(pool)
            .await
            .map(|_| ()))
        .map_err(|error| StoreError::new("count a hit", error))
    }

    /// The newest links, at most `limit`, newest first.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn newest(&self, limit: u32) -> Result<Vec<Link>, StoreError> {
        let rows: Vec<Row> = on_pool!(self, pool, sql => sqlx::query_as(sql.newest)
            .bind(i64::from(limit))
            .fetch_all(pool)
            .await)
        .map_err(|error| StoreError::new("list the newest links", error))?;
        Ok(rows.into_iter().map(link).collect())
    }

    /// Runs a deliberately slow query, of about `steps` steps of work for the
    /// database, and gives the number of links.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn report(&self, steps: u32) -> Result<i64, StoreError> {
        on_pool!(self, pool, sql => sqlx::query_scalar(sql.report)
            .bind(i64::from(steps))
            .fetch_one(pool)
            .await)
        .map_err(|error| StoreError::new("make the report", error))
    }

    /// Closes all connections, after the statements that still run on them.
    pub async fn close(&self) {
        on_pool!(self, pool, _sql => pool.close().await);
    }
}

/// Why a pool has no connection, where it says only that it has waited too long: it tries
/// again for as long as a server refuses it.
async fn reason<C: Connection>(url: &str, error: sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::PoolTimedOut => match timeout(A_TRY, C::connect(url)).await {
            Ok(Err(reason)) => reason,
            _ => error,
        },
        _ => error,
    }
}

/// A database's URL as it can be shown: no password, and none of the parameters,
/// which may be secret too.
#[must_use]
pub fn without_password(url: &str) -> String {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    let hidden = format!("{scheme}:***");
    let Ok(mut shown) = Url::parse(url) else {
        return hidden;
    };
    // Without slashes only SQLite's says where what begins.
    if shown.cannot_be_a_base() && scheme != "sqlite" {
        return hidden;
    }
    if shown.password().is_none() && shown.query().is_none() {
        return url.to_owned();
    }
    if shown.password().is_some() && shown.set_password(Some("***")).is_err() {
        return hidden;
    }
    if shown.query().is_some() {
        shown.set_query(Some("***"));
    }
    shown.into()
}

/// A statement that the database did not carry out.
#[derive(Debug)]
pub struct StoreError {
    attempted: String,
    source: sqlx::Error,
}

impl StoreError {
    fn new(attempted: impl Into<String>, source: sqlx::Error) -> Self {
        Self {
            attempted: attempted.into(),
            source,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}", self.attempted)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[derive(Clone, Debug)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    MySql(MySqlPool),
}

/// The statements in one database's dialect.
struct Statements {
    insert: &'static str,
    find: &'static str,
    count_hit: &'static str,
    newest: &'static str,
    report: &'static str,
}

const POSTGRES: Statements = Statements {
    insert: "INSERT INTO links (code, url, created_at) VALUES ($1, $2, $3)",
    find: "SELECT code, url, hits, created_at FROM links WHERE code = $1",
    count_hit: "UPDATE links SET hits = hits + 1 WHERE code = $1",
    newest: "SELECT code, url, hits, created_at FROM links ORDER BY created_at DESC, code LIMIT $1",
    report: "SELECT COUNT(*) FROM links, (SELECT COUNT(*) FROM generate_series(1, $1)) AS work",
};

const SQLITE: Statements = Statements {
    report: "WITH RECURSIVE work (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM work WHERE n < $1) \
             SELECT COUNT(*) FROM links, (SELECT COUNT(*) FROM work)",
    ..POSTGRES
};

const MYSQL: Statements = Statements {
    insert: "INSERT INTO links (code, url, created_at) VALUES (?, ?, ?)",
    find: "SELECT code, url, hits, created_at FROM links WHERE code = ?",
    count_hit: "UPDATE links SET hits = hits + 1 WHERE code = ?",
    newest: "SELECT code, url, hits, created_at FROM links ORDER BY created_at DESC, code LIMIT ?",
    report: "SELECT COUNT(*) FROM links, (SELECT BENCHMARK(?, SHA1('work'))) AS work",
};

/// Does the same on whichever pool there is: sqlx's types differ by database,
/// the program text does not.
macro_rules! on_pool {
    ($store:expr, $pool:ident, $sql:ident => $body:expr) => {
        match &$store.pool {
            Pool::Sqlite($pool) => {
                let $sql = &SQLITE;
                $body
            }
            Pool::Postgres($pool) => {
                let $sql = &POSTGRES;
                $body
            }
            Pool::MySql($pool) => {
                let $sql = &MYSQL;
                $body
            }
        }
    };
}
use on_pool;

type Row = (String, String, i64, i64);

fn link((code, url, hits, created_at): Row) -> Link {
    Link {
        code: Code::stored(code),
        url,
        hits,
        created_at,
    }
}

/// How long a request waits for a connection, or for a locked SQLite file.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last try to connect may take, which only asks for the reason.
const A_TRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sqlite_lets_readers_beside_a_writer_and_waits_ten_seconds_for_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("links.db").display());
        let tracer = sql_trace::Tracer::shared(sql_trace::writer(std::io::sink()));
        let store = Store::connect(&url, tracer, PATIENCE).await.unwrap();
        let Pool::Sqlite(pool) = &store.pool else {
            panic!("{url} is SQLite's");
        };
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(pool)
            .await
            .unwrap();
        assert_eq!(mode, "wal");
        let wait: i64 = sqlx::query_scalar("PRAGMA busy_timeout")
            .fetch_one(pool)
            .await
            .unwrap();
        assert_eq!(wait, 10_000);
    }

    #[test]
    fn no_form_of_a_url_shows_its_password() {
        for (url, shown) in [
            ("sqlite:service.db", "sqlite:service.db"),
            ("sqlite::memory:", "sqlite::memory:"),
            ("postgres://links@db/links", "postgres://links@db/links"),
            (
                "postgres://links:secret@db/links",
                "postgres://links:***@db/links",
            ),
            (
                "postgres:///links?host=/run&password=secret",
                "postgres:///links?***",
            ),
            ("postgres://links:secret@db:99999/links", "postgres:***"),
            ("postgres:links:secret@db/links", "postgres:***"),
            ("secret", ":***"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
