//! The `query!` family, whose statements were checked against a database once:
//! what it found is in `.sqlx`. After a change of a statement here:
//!
//! ```text
//! sqlite3 /tmp/users.db 'CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)'
//! SQLX_OFFLINE_DIR=$PWD/sql-trace/.sqlx DATABASE_URL=sqlite:/tmp/users.db \
//!     cargo test -p sql-trace --test it --no-run
//! ```

use sqlx::Executor;

use crate::tracers::{Log, pool};
use sql_trace::writer;

#[tokio::test]
async fn checked_queries_are_traced() {
    struct User {
        id: i64,
        name: String,
    }
    let log = Log::default();
    let pool = pool(writer(log.clone())).await;
    (&pool)
        .execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        .await
        .unwrap();
    log.take();
    let mut transaction = pool.begin().await.unwrap();
    let name = "Ann";
    sqlx::query!("INSERT INTO users (id, name) VALUES (?, ?)", 1, name)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let row = sqlx::query!("SELECT id, name FROM users WHERE name = ?", name)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!((row.id, row.name.as_str()), (1, "Ann"));
    let users = sqlx::query_as!(User, "SELECT id, name FROM users")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!((users[0].id, users[0].name.as_str()), (1, "Ann"));
    let count = sqlx::query_scalar!("SELECT count(*) FROM users")
        .fetch_one(&mut pool.acquire().await.unwrap())
        .await
        .unwrap();
    assert_eq!(count, 1);
    for line in [
        "Exec: INSERT INTO users (id, name) VALUES (?, ?); args = [int, text(3)] (T)",
        "Query: SELECT id, name FROM users WHERE name = ?; args = [text(3)] (T)",
        "Query: SELECT id, name FROM users; args = [] (T)",
        "Query: SELECT count(*) FROM users; args = [] (T)",
    ] {
        assert!(log.has(line), "{line}");
    }
}
