//! `AnyPool` with URLs whose scheme says that it is traced.

use std::sync::Once;

use futures_util::{StreamExt, TryStreamExt};
use sql_trace::{ArgsMode, TracedPool, Tracer, writer};
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, Executor};

use crate::databases::Database;
use crate::tracers::{Log, default_lines};

pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        sql_trace::any::install_drivers().unwrap();
        assert!(sql_trace::any::install_drivers().is_err(), "once only");
    });
}

async fn pool(url: &str) -> AnyPool {
    let options = AnyPoolOptions::new().max_connections(1);
    options.connect(url).await.unwrap()
}

/// What a program does through `AnyPool`, and what is told of it.
async fn is_traced<DB: Database>(test: &str) {
    install();
    let Some(scratch) = DB::scratch(test).await else {
        return;
    };
    let words = |lines: &[&str]| -> Vec<String> { lines.iter().map(|l| DB::words(l)).collect() };
    let sql = |text: &str| sqlx::AssertSqlSafe(DB::words(text));
    let (scheme, rest) = scratch.url.split_once(':').unwrap();
    let plain = pool(&scratch.url).await;
    default_lines();
    plain.execute("SELECT 1").await.unwrap();
    assert_eq!(default_lines(), [""; 0], "the plain scheme is not traced");

    let pool = pool(&format!("{scheme}-trace:{rest}")).await;
    pool.execute("CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(100))")
        .await
        .unwrap();
    sqlx::query(sql("INSERT INTO t VALUES ({1}, {2}), ({3}, {4})"))
        .bind(1)
        .bind("it's")
        .bind(2)
        .bind(None::<String>)
        .execute(&pool)
        .await
        .unwrap();
    let (id, name): (i32, String) = sqlx::query_as(sql("SELECT id, name FROM t WHERE id = {1}"))
        .bind(1)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!((id, name.as_str()), (1, "it's"));
    let rows: Vec<_> = sqlx::query("SELECT id FROM t")
        .fetch(&pool)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        default_lines(),
        words(&[
            "Open (T)",
            "Query: CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(100)); args = [] (T)",
            "Exec: INSERT INTO t VALUES ({1}, {2}), ({3}, {4}); args = [int, text(4), int, null] (T)",
            "Query: SELECT id, name FROM t WHERE id = {1}; args = [int] (T)",
            "Query: SELECT id FROM t; args = [] (T)",
        ])
    );

    let missing = sqlx::query("SELECT * FROM missing");
    assert!(missing.fetch_all(&pool).await.is_err());
    let missing = sqlx::query("SELECT * FROM missing");
    assert!(missing.fetch_optional(&pool).await.is_err());
    let mut rows = sqlx::query("SELECT id FROM t").fetch(&pool);
    rows.next().await.unwrap().unwrap();
    drop(rows);
    pool.prepare(sqlx::SqlSafeStr::into_sql_str("SELECT 2"))
        .await
        .unwrap();
    assert_eq!(
        default_lines(),
        words(&[
            "Query: SELECT * FROM missing; args = []; err = \"{no such table line}\" (T)",
            "Query: SELECT * FROM missing; args = []; err = \"{no such table line}\" (T)",
            "Query: SELECT id FROM t; args = []; cancelled after 1 row (T)",
            "Prepare: SELECT 2 (T)",
        ])
    );

    let mut transaction = pool.begin().await.unwrap();
    let mut inner = sqlx::Acquire::begin(&mut *transaction).await.unwrap();
    inner.execute("DELETE FROM t").await.unwrap();
    inner.rollback().await.unwrap();
    let inner = sqlx::Acquire::begin(&mut *transaction).await.unwrap();
    inner.commit().await.unwrap();
    transaction.commit().await.unwrap();
    pool.begin().await.unwrap().rollback().await.unwrap();
    drop(pool.begin().await.unwrap());
    sqlx::Connection::ping(&mut *pool.acquire().await.unwrap())
        .await
        .unwrap();
    let begun_by_hand = pool.begin_with(sql("{begin}")).await.unwrap();
    begun_by_hand.rollback().await.unwrap();
    pool.close().await;
    assert_eq!(
        default_lines(),
        words(&[
            "Begin (T)",
            "Savepoint (T)",
            "Exec: DELETE FROM t; args = [] (T)",
            "RollbackTo (T)",
            "Savepoint (T)",
            "Release (T)",
            "Commit (T)",
            "Begin (T)",
            "Rollback (T)",
            "Begin (T)",
            "Rollback; on drop (T)",
            "Begin: {begin} (T)",
            "Rollback (T)",
            "Close (T)",
        ])
    );

    let broken = DB::broken_url(&scratch.url).replacen(scheme, &format!("{scheme}-trace"), 1);
    let options = AnyPoolOptions::new().max_connections(1);
    assert!(options.connect(&broken).await.is_err());
    assert_eq!(
        default_lines(),
        words(&["Open; err = \"{cannot open line}\" (T)"])
    );
}

#[tokio::test]
async fn any_pool_is_traced_on_sqlite() {
    is_traced::<sqlx::Sqlite>("any::sqlite").await;
}

#[tokio::test]
async fn any_pool_is_traced_on_postgres() {
    is_traced::<sqlx::Postgres>("any::postgres").await;
}

#[tokio::test]
async fn any_pool_is_traced_on_mysql() {
    is_traced::<sqlx::MySql>("any::mysql").await;
}

#[tokio::test]
async fn traced_pool_takes_any_database() {
    install();
    let log = Log::default();
    let raw = pool("sqlite::memory:").await;
    let tracer = writer(log.clone()).args(ArgsMode::Values { max: 64 });
    let pool = TracedPool::<sqlx::Any>::new(raw, tracer);
    sqlx::query("SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?")
        .bind(true)
        .bind(None::<i32>)
        .bind(i16::MIN)
        .bind(i32::MIN)
        .bind(i64::MAX)
        .bind(1.1f32)
        .bind(0.1f64)
        .bind("it's")
        .bind(vec![0u8, 255])
        .execute(&pool)
        .await
        .unwrap();
    pool.begin().await.unwrap().commit().await.unwrap();
    assert!(log.has(concat!(
        "Exec: SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?; args = [true, NULL, -32768, -2147483648, ",
        "9223372036854775807, 1.1, 0.1, \"it's\", 0x00ff] (T)"
    )));
    assert!(log.has("Commit (T)"));
}
