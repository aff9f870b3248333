//! What a program is given is what it would be given by sqlx.

use futures_util::StreamExt;
use sql_trace::sqlite::SqlitePool;
use sql_trace::{Event, Op, Tracer};
use sqlx::{Executor, Row};

use crate::tracers::pool;

/// Three pools: one that tells of everything, one of nothing, and sqlx's.
async fn pools() -> (SqlitePool, SqlitePool, sqlx::SqlitePool) {
    struct Nothing;
    impl Tracer for Nothing {
        fn enabled(&self, _: Op) -> bool {
            false
        }

        fn trace(&self, _: &Event<'_>) {}
    }
    let bare = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    (
        pool(|_: &Event<'_>| ()).await,
        pool(Nothing).await,
        bare.connect("sqlite::memory:").await.unwrap(),
    )
}

#[tokio::test]
async fn rows_affected_by_several_statements_in_one_text_are_added_up() {
    const TEXT: &str = "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2); \
                        INSERT INTO t VALUES (3), (4), (5); UPDATE t SET a = 6 WHERE a = 1";
    let (told, untold, bare) = pools().await;
    let of_sqlx = (&bare).execute(TEXT).await.unwrap();
    assert!(of_sqlx.rows_affected() >= 6);
    for pool in [told, untold] {
        let result = (&pool).execute(TEXT).await.unwrap();
        assert_eq!(result.rows_affected(), of_sqlx.rows_affected());
        assert_eq!(result.last_insert_rowid(), of_sqlx.last_insert_rowid());
        let mut connection = pool.acquire().await.unwrap();
        let again = "INSERT INTO t VALUES (7); INSERT INTO t VALUES (8), (9)";
        let result = (&mut connection).execute(again).await.unwrap();
        assert_eq!(result.rows_affected(), 3);
    }
}

#[tokio::test]
async fn row_that_is_not_there_is_sqlxs_own_error() {
    let (told, untold, bare) = pools().await;
    let nothing = "SELECT 1 WHERE FALSE";
    let of_sqlx = (&bare).fetch_one(nothing).await.unwrap_err().to_string();
    for pool in [told, untold] {
        let error = (&pool).fetch_one(nothing).await.unwrap_err();
        assert_eq!(error.to_string(), of_sqlx);
        let mut connection = pool.acquire().await.unwrap();
        let error = (&mut connection).fetch_one(nothing).await.unwrap_err();
        assert_eq!(error.to_string(), of_sqlx);
        assert!(
            (&mut connection)
                .fetch_optional(nothing)
                .await
                .unwrap()
                .is_none()
        );
        let row = (&mut connection).fetch_one("SELECT 7").await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 7);
    }
}

#[tokio::test]
async fn stream_that_has_ended_stays_ended() {
    let (told, untold, _) = pools().await;
    for pool in [told, untold] {
        for (text, rows) in [("SELECT 1", 1), ("SELECT nope", 0)] {
            let mut stream = (&pool).fetch(text);
            assert_eq!(
                stream
                    .by_ref()
                    .filter_map(async |row| row.ok())
                    .count()
                    .await,
                rows
            );
            assert!(stream.next().await.is_none());
        }
    }
}
