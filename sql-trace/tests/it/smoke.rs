use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use sql_trace::sqlite::{SqliteConnection, SqlitePoolOptions};
use sql_trace::{ArgsMode, Event, Tracer};
use sqlx::{Executor, Row, Sqlite};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);
impl Log {
    fn tracer(&self) -> impl Tracer {
        let log = self.clone();
        (move |e: &Event<'_>| {
            let line = format!(
                "{e} #{:?} acq={:?} first={:?} rows={} aff={:?}",
                e.connection, e.acquire, e.first_row, e.rows_returned, e.rows_affected
            );
            log.0.lock().expect("log").push(line);
        })
        .args(ArgsMode::Values { max: 64 })
    }
}

async fn by_executor<'e, E: Executor<'e, Database = Sqlite>>(e: E) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count(*) FROM t")
        .fetch_one(e)
        .await
}
async fn by_conn(c: &mut SqliteConnection<'_>) -> sqlx::Result<i64> {
    sqlx::query("SELECT 1").execute(&mut *c).await?;
    by_executor(c).await
}

#[tokio::test]
async fn everything_runs() -> sqlx::Result<()> {
    let log = Log::default();
    let pool = SqlitePoolOptions::new()
        .tracer(log.tracer())
        .max_connections(1)
        .connect("sqlite::memory:")
        .await?;
    sqlx::query("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
        .execute(&pool)
        .await?;
    sqlx::query("INSERT INTO t VALUES (?, ?), (?, ?)")
        .bind(1i64)
        .bind("a\"q\n\u{1F600}")
        .bind(2.5)
        .bind(None::<String>)
        .execute(&pool)
        .await
        .unwrap_err();
    sqlx::query("INSERT INTO t VALUES (?, ?), (?, ?)")
        .bind(1i64)
        .bind("a\"q\n\u{1F600}")
        .bind(2)
        .bind(vec![1u8, 2, 255])
        .execute(&pool)
        .await?;
    let mut c = pool.acquire().await?;
    by_conn(&mut c).await?;
    by_conn(&mut c).await?;
    {
        let mut s = sqlx::query("SELECT * FROM t").fetch(&mut *c);
        let _: i64 = s.next().await.unwrap()?.get(0);
    }
    drop(c);
    let mut tx = pool.begin().await?;
    by_conn(&mut tx).await?;
    let mut sp = tx.begin().await?;
    by_executor(&mut *sp).await?;
    sp.commit().await?;
    drop(tx);
    let all = sqlx::query("SELECT * FROM t").fetch_all(&pool).await?;
    assert_eq!(all.len(), 2);
    let mut s = sqlx::query("SELECT * FROM t").fetch(&pool);
    while let Some(r) = s.next().await {
        r?;
    }
    drop(s);
    let _ = pool.inner();
    pool.close().await;
    Ok(())
}
