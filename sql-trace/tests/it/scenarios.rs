//! One table of what a program does with a database and what is told of it,
//! run on three databases.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use sql_trace::{TracedConnection, TracedPool, TracedPoolOptions, TracedTransaction};
use sqlx::{Acquire, AssertSqlSafe, Executor, QueryBuilder, Row, SqlSafeStr, SqlStr, Statement};

use crate::databases::{Database, Scratch};
use crate::recorder::{LONG_WAIT, Recorder};

/// A machine that stands still for a while is no failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pool with one connection, open, on a database with an empty table `t`.
pub(crate) struct Stage<DB: Database> {
    pub(crate) pool: TracedPool<DB>,
    pub(crate) recorder: Recorder,
    pub(crate) scratch: Scratch,
}

impl<DB: Database> Stage<DB> {
    async fn set(test: &str) -> Option<Self> {
        let scratch = DB::scratch(test).await?;
        let recorder = Recorder::default();
        let pool = TracedPoolOptions::<DB>::new()
            .tracer(recorder.tracer())
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .connect(&scratch.url)
            .await
            .unwrap();
        (&pool)
            .execute("CREATE TABLE t (id INT NOT NULL PRIMARY KEY, name VARCHAR(100))")
            .await
            .unwrap();
        recorder.clear();
        Some(Self {
            pool,
            recorder,
            scratch,
        })
    }

    /// The statement in the words of this database.
    fn sql(&self, text: &str) -> SqlStr {
        AssertSqlSafe(DB::words(text)).into_sql_str()
    }
}

/// A scenario: what is done, and what is told of it on each database.
macro_rules! scenarios {
    ($(
        fn $name:ident($stage:ident) $body:block
        tells [$($fact:expr),* $(,)?]
        writes [$($line:expr),* $(,)?]
    )*) => {
        $(
            mod $name {
                scenarios!(@on sqlite, sqlx::Sqlite, $name($stage) $body [$($fact),*] [$($line),*]);
                scenarios!(@on postgres, sqlx::Postgres, $name($stage) $body [$($fact),*] [$($line),*]);
                scenarios!(@on mysql, sqlx::MySql, $name($stage) $body [$($fact),*] [$($line),*]);
            }
        )*
    };
    (@on $database:ident, $type:ty, $name:ident($stage:ident) $body:block [$($fact:expr),*] [$($line:expr),*]) => {
        #[tokio::test]
        async fn $database() {
            use super::*;
            type Db = $type;
            let test = concat!(stringify!($name), "::", stringify!($database));
            let Some($stage) = Stage::<Db>::set(test).await else {
                return;
            };
            let recorder = $stage.recorder.clone();
            $body
            let facts: [&str; _] = [$($fact),*];
            let lines: [&str; _] = [$($line),*];
            assert_eq!(recorder.facts(), facts.map(<$type>::words).to_vec(), "facts");
            assert_eq!(recorder.lines(), lines.map(<$type>::words).to_vec(), "lines");
        }
    };
}

scenarios! {
    fn open_is_told_for_each_connection(s) {
        let pool = TracedPoolOptions::<Db>::new()
            .tracer(s.recorder.tracer())
            .max_connections(2)
            .connect(&s.scratch.url)
            .await
            .unwrap();
        let first = pool.acquire().await.unwrap();
        let second = pool.acquire().await.unwrap();
        assert_ne!(first.id(), second.id());
    }
    tells ["Open ok c2", "Acquire ok c2", "Open ok c3", "Acquire ok c3"]
    writes ["Open (T)", "Acquire (T)", "Open (T)", "Acquire (T)"]

    fn exec_tells_rows_affected(s) {
        let sql = s.sql("INSERT INTO t VALUES ({1}, {2}), ({3}, {4})");
        sqlx::query(sql)
            .bind(1)
            .bind("it's")
            .bind(2)
            .bind(None::<String>)
            .execute(&s.pool)
            .await
            .unwrap();
        sqlx::query(s.sql("DELETE FROM t WHERE id = {1}"))
            .bind(7)
            .execute(&s.pool)
            .await
            .unwrap();
    }
    tells [
        "Exec ok c1 args=[1, \"it's\", 2, NULL] affected=2 acquire",
        "Exec ok c1 args=[7] affected=0 acquire",
    ]
    writes [
        "Exec: INSERT INTO t VALUES ({1}, {2}), ({3}, {4}); args = [int, text(4), int, null] (T)",
        "Exec: DELETE FROM t WHERE id = {1}; args = [int] (T)",
    ]

    fn exec_of_a_select_tells_no_rows_affected(s) {
        (&s.pool).execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')").await.unwrap();
        (&s.pool).execute("SELECT id FROM t").await.unwrap();
        (&s.pool).execute("CREATE TABLE u (id INT)").await.unwrap();
    }
    tells [
        "Exec ok c1 args=[] affected=2 acquire",
        "Exec ok c1 args=[] returned=2 acquire first-row",
        "Exec ok c1 args=[] acquire",
    ]
    writes [
        "Exec: INSERT INTO t VALUES (1, 'a'), (2, 'b'); args = [] (T)",
        "Exec: SELECT id FROM t; args = [] (T)",
        "Exec: CREATE TABLE u (id INT); args = [] (T)",
    ]

    fn exec_error_tells_the_code(s) {
        for _ in 0..2 {
            let _ = sqlx::query(s.sql("INSERT INTO t VALUES ({1}, {2})"))
                .bind(1)
                .bind("secret")
                .execute(&s.pool)
                .await;
        }
    }
    tells [
        "Exec ok c1 args=[1, \"secret\"] affected=1 acquire",
        "Exec error {unique violation} c1 args=[1, \"secret\"] acquire",
    ]
    writes [
        "Exec: INSERT INTO t VALUES ({1}, {2}); args = [int, text(6)] (T)",
        "Exec: INSERT INTO t VALUES ({1}, {2}); args = [int, text(6)]; err = \"{unique violation line}\" (T)",
    ]

    fn query_tells_rows_returned(s) {
        (&s.pool).execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')").await.unwrap();
        s.recorder.clear();
        let rows = sqlx::query("SELECT id, name FROM t").fetch_all(&s.pool).await.unwrap();
        assert_eq!(rows.len(), 3);
        let row: (i32, String) = sqlx::query_as(s.sql("SELECT id, name FROM t WHERE id = {1}"))
            .bind(2)
            .fetch_one(&s.pool)
            .await
            .unwrap();
        assert_eq!(row, (2, "b".to_owned()));
        let name: Option<String> = sqlx::query_scalar("SELECT name FROM t WHERE id = 9")
            .fetch_optional(&s.pool)
            .await
            .unwrap();
        assert_eq!(name, None);
        let ids: Vec<i32> = sqlx::query("SELECT id FROM t ORDER BY id")
            .map(|row: <Db as sqlx::Database>::Row| row.get::<i32, _>(0))
            .fetch(&s.pool)
            .try_collect()
            .await
            .unwrap();
        assert_eq!(ids, [1, 2, 3]);
    }
    tells [
        "Query ok c1 args=[] returned=3 acquire first-row",
        "Query ok c1 args=[2] returned=1 acquire first-row",
        "Query ok c1 args=[] acquire",
        "Query ok c1 args=[] returned=3 acquire first-row",
    ]
    writes [
        "Query: SELECT id, name FROM t; args = [] (T)",
        "Query: SELECT id, name FROM t WHERE id = {1}; args = [int] (T)",
        "Query: SELECT name FROM t WHERE id = 9; args = [] (T)",
        "Query: SELECT id FROM t ORDER BY id; args = [] (T)",
    ]

    fn query_on_a_connection_tells_the_same(s) {
        let mut connection = s.pool.acquire().await.unwrap();
        (&mut *connection).execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')").await.unwrap();
        s.recorder.clear();
        sqlx::query("SELECT id FROM t").fetch_all(&mut *connection).await.unwrap();
        sqlx::query("SELECT id FROM t").fetch_one(&mut connection).await.unwrap();
        sqlx::query("SELECT id FROM t WHERE id = 9")
            .fetch_optional(&mut *connection)
            .await
            .unwrap();
        let mut rows = sqlx::query("SELECT id FROM t").fetch(&mut *connection);
        while let Some(row) = rows.next().await {
            row.unwrap();
        }
        drop(rows);
        sqlx::query(s.sql("UPDATE t SET name = {1}"))
            .bind("z")
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    tells [
        "Query ok c1 args=[] returned=2 first-row",
        "Query ok c1 args=[] returned=1 first-row",
        "Query ok c1 args=[]",
        "Query ok c1 args=[] returned=2 first-row",
        "Exec ok c1 args=[\"z\"] affected=2",
    ]
    writes [
        "Query: SELECT id FROM t; args = [] (T)",
        "Query: SELECT id FROM t; args = [] (T)",
        "Query: SELECT id FROM t WHERE id = 9; args = [] (T)",
        "Query: SELECT id FROM t; args = [] (T)",
        "Exec: UPDATE t SET name = {1}; args = [text(1)] (T)",
    ]

    fn query_error_tells_the_code(s) {
        let _ = sqlx::query("SELECT * FROM missing").fetch_all(&s.pool).await;
        let _ = sqlx::query("SELECT * FROM missing").fetch_optional(&s.pool).await;
        let _ = sqlx::query("SELECT * FROM missing").fetch(&s.pool).next().await;
    }
    tells [
        "Query error {no such table} c1 args=[] acquire",
        "Query error {no such table} c1 args=[] acquire",
        "Query error {no such table} c1 args=[] acquire",
    ]
    writes [
        "Query: SELECT * FROM missing; args = []; err = \"{no such table line}\" (T)",
        "Query: SELECT * FROM missing; args = []; err = \"{no such table line}\" (T)",
        "Query: SELECT * FROM missing; args = []; err = \"{no such table line}\" (T)",
    ]

    fn prepared_statement_is_told_and_then_its_use(s) {
        let mut connection = s.pool.acquire().await.unwrap();
        let sql = s.sql("SELECT id FROM t WHERE id = {1}");
        let statement = (&mut connection).prepare(sql).await.unwrap();
        statement.query().bind(3).fetch_optional(&mut connection).await.unwrap();
        statement.query().bind(4).execute(&mut connection).await.unwrap();
        drop(connection);
        (&s.pool).prepare(s.sql("SELECT 1")).await.unwrap();
        assert!((&s.pool).prepare(s.sql("SELECT * FROM missing")).await.is_err());
    }
    tells [
        "Acquire ok c1",
        "Prepare ok c1",
        "Query ok c1 args=[3]",
        "Exec ok c1 args=[4]",
        "Prepare ok c1 acquire",
        "Prepare error {no such table} c1 acquire",
    ]
    writes [
        "Acquire (T)",
        "Prepare: SELECT id FROM t WHERE id = {1} (T)",
        "Query: SELECT id FROM t WHERE id = {1}; args = [int] (T)",
        "Exec: SELECT id FROM t WHERE id = {1}; args = [int] (T)",
        "Prepare: SELECT 1 (T)",
        "Prepare: SELECT * FROM missing; err = \"{no such table line}\" (T)",
    ]

    fn describe_is_told(s) {
        let described = (&s.pool).describe(s.sql("SELECT id FROM t")).await.unwrap();
        assert_eq!(described.columns.len(), 1);
        let mut connection = s.pool.acquire().await.unwrap();
        (&mut connection).describe(s.sql("SELECT name FROM t")).await.unwrap();
    }
    tells ["Describe ok c1 acquire", "Acquire ok c1", "Describe ok c1"]
    writes [
        "Describe: SELECT id FROM t (T)",
        "Acquire (T)",
        "Describe: SELECT name FROM t (T)",
    ]

    fn committed_transaction_is_told(s) {
        let mut transaction = s.pool.begin().await.unwrap();
        (&mut *transaction).execute("INSERT INTO t VALUES (1, 'a')").await.unwrap();
        (&mut transaction).execute("INSERT INTO t VALUES (2, 'b')").await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(count(&s.pool).await, 2);
    }
    tells [
        "Acquire ok c1",
        "Begin ok c1",
        "Exec ok c1 args=[] affected=1",
        "Exec ok c1 args=[] affected=1",
        "Commit ok c1",
        "Query ok c1 args=[] returned=1 acquire first-row",
    ]
    writes [
        "Acquire (T)",
        "Begin (T)",
        "Exec: INSERT INTO t VALUES (1, 'a'); args = [] (T)",
        "Exec: INSERT INTO t VALUES (2, 'b'); args = [] (T)",
        "Commit (T)",
        "Query: SELECT count(*) FROM t; args = [] (T)",
    ]

    fn rolled_back_transaction_is_told(s) {
        let mut transaction = s.pool.begin().await.unwrap();
        (&mut *transaction).execute("INSERT INTO t VALUES (1, 'a')").await.unwrap();
        transaction.rollback().await.unwrap();
        assert_eq!(count(&s.pool).await, 0);
    }
    tells [
        "Acquire ok c1",
        "Begin ok c1",
        "Exec ok c1 args=[] affected=1",
        "Rollback ok c1",
        "Query ok c1 args=[] returned=1 acquire first-row",
    ]
    writes [
        "Acquire (T)",
        "Begin (T)",
        "Exec: INSERT INTO t VALUES (1, 'a'); args = [] (T)",
        "Rollback (T)",
        "Query: SELECT count(*) FROM t; args = [] (T)",
    ]

    fn dropped_transaction_is_rolled_back_and_told(s) {
        let mut transaction = s.pool.begin().await.unwrap();
        (&mut *transaction).execute("INSERT INTO t VALUES (1, 'a')").await.unwrap();
        drop(transaction);
        assert_eq!(count(&s.pool).await, 0);
    }
    tells [
        "Acquire ok c1",
        "Begin ok c1",
        "Exec ok c1 args=[] affected=1",
        "Rollback on-drop c1",
        "Query ok c1 args=[] returned=1 acquire first-row",
    ]
    writes [
        "Acquire (T)",
        "Begin (T)",
        "Exec: INSERT INTO t VALUES (1, 'a'); args = [] (T)",
        "Rollback; on drop (T)",
        "Query: SELECT count(*) FROM t; args = [] (T)",
    ]

    fn savepoints_are_told_as_such(s) {
        let mut transaction = s.pool.begin().await.unwrap();
        {
            let mut released = transaction.begin().await.unwrap();
            assert!(released.is_in_transaction());
            (&mut *released).execute("INSERT INTO t VALUES (1, 'a')").await.unwrap();
            let back = released.begin().await.unwrap();
            back.rollback().await.unwrap();
            released.commit().await.unwrap();
            let dropped = transaction.begin().await.unwrap();
            drop(dropped);
        }
        transaction.commit().await.unwrap();
        assert_eq!(count(&s.pool).await, 1);
    }
    tells [
        "Acquire ok c1",
        "Begin ok c1",
        "Savepoint ok c1",
        "Exec ok c1 args=[] affected=1",
        "Savepoint ok c1",
        "RollbackTo ok c1",
        "Release ok c1",
        "Savepoint ok c1",
        "RollbackTo on-drop c1",
        "Commit ok c1",
        "Query ok c1 args=[] returned=1 acquire first-row",
    ]
    writes [
        "Acquire (T)",
        "Begin (T)",
        "Savepoint (T)",
        "Exec: INSERT INTO t VALUES (1, 'a'); args = [] (T)",
        "Savepoint (T)",
        "RollbackTo (T)",
        "Release (T)",
        "Savepoint (T)",
        "RollbackTo; on drop (T)",
        "Commit (T)",
        "Query: SELECT count(*) FROM t; args = [] (T)",
    ]

    fn transaction_by_closure_is_told(s) {
        let mut connection = s.pool.acquire().await.unwrap();
        connection
            .transaction(|transaction| {
                Box::pin(async move {
                    (&mut **transaction).execute("INSERT INTO t VALUES (1, 'a')").await.map(drop)
                })
            })
            .await
            .unwrap();
        let failed: Result<(), sqlx::Error> = connection
            .transaction(|transaction| {
                Box::pin(async move {
                    transaction.execute("INSERT INTO t VALUES (2, 'b')").await?;
                    Err(sqlx::Error::RowNotFound)
                })
            })
            .await;
        assert!(matches!(failed, Err(sqlx::Error::RowNotFound)));
        assert_eq!(count(&mut *connection).await, 1);
    }
    tells [
        "Acquire ok c1",
        "Begin ok c1",
        "Exec ok c1 args=[] affected=1",
        "Commit ok c1",
        "Begin ok c1",
        "Exec ok c1 args=[] affected=1",
        "Rollback ok c1",
        "Query ok c1 args=[] returned=1 first-row",
    ]
    writes [
        "Acquire (T)",
        "Begin (T)",
        "Exec: INSERT INTO t VALUES (1, 'a'); args = [] (T)",
        "Commit (T)",
        "Begin (T)",
        "Exec: INSERT INTO t VALUES (2, 'b'); args = [] (T)",
        "Rollback (T)",
        "Query: SELECT count(*) FROM t; args = [] (T)",
    ]

    fn arguments_keep_their_order(s) {
        sqlx::query(s.sql("{select two, one}"))
            .bind(1)
            .bind("two")
            .fetch_one(&s.pool)
            .await
            .unwrap();
    }
    tells ["Query ok c1 args=[1, \"two\"] returned=1 acquire first-row"]
    writes ["Query: {select two, one}; args = [int, text(3)] (T)"]

    fn stream_dropped_midway_is_cancelled(s) {
        (&s.pool).execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')").await.unwrap();
        s.recorder.clear();
        let mut rows = sqlx::query("SELECT id FROM t").fetch(&s.pool);
        rows.next().await.unwrap().unwrap();
        rows.next().await.unwrap().unwrap();
        drop(rows);
        let mut connection = s.pool.acquire().await.unwrap();
        let mut rows = sqlx::query("SELECT id FROM t").fetch(&mut *connection);
        rows.next().await.unwrap().unwrap();
        drop(rows);
    }
    tells [
        "Query cancelled c1 args=[] returned=2 acquire first-row",
        "Acquire ok c1",
        "Query cancelled c1 args=[] returned=1 first-row",
    ]
    writes [
        "Query: SELECT id FROM t; args = []; cancelled after 2 rows (T)",
        "Acquire (T)",
        "Query: SELECT id FROM t; args = []; cancelled after 1 row (T)",
    ]

    fn statement_that_times_out_is_cancelled(s) {
        let patience = Duration::from_millis(200);
        give_up(patience, sqlx::query(s.sql("{slow}")).execute(&s.pool)).await;
        give_up(patience, sqlx::query(s.sql("{slow}")).fetch_all(&s.pool)).await;
        let told = s.recorder.facts();
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("Exec cancelled"), "{told:?}");
        // The connection may still be busy with the first statement.
        assert!(told[1].starts_with("Query cancelled"), "{told:?}");
        s.recorder.clear();
    }
    tells []
    writes []

    fn unpolled_statement_is_not_told(s) {
        let never = sqlx::query("SELECT 1").execute(&s.pool);
        drop(never);
        let never = sqlx::query("SELECT 1").fetch(&s.pool);
        drop(never);
        let mut connection = s.pool.acquire().await.unwrap();
        s.recorder.clear();
        let never = sqlx::query("SELECT 1").fetch_all(&mut *connection);
        drop(never);
        let never = sqlx::query("SELECT 1").fetch(&mut *connection);
        drop(never);
    }
    tells []
    writes []

    fn two_result_sets_are_one_statement(s) {
        let sets = sqlx::raw_sql("SELECT 1; SELECT 2 AS two")
            .fetch_many(&s.pool)
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
        assert_eq!(sets.len(), 4);
        let results = sqlx::raw_sql("INSERT INTO t VALUES (1, 'a'); INSERT INTO t VALUES (2, 'b'), (3, 'c')")
            .execute_many(&s.pool)
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
        assert_eq!(results.len(), 2);
        let mut connection = s.pool.acquire().await.unwrap();
        let results = sqlx::raw_sql("SELECT 1; SELECT 2 AS two")
            .execute_many(&mut *connection)
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
        assert_eq!(results.len(), 2);
    }
    tells [
        "Query ok c1 args=[] returned=2 acquire first-row",
        "Exec ok c1 args=[] affected=3 acquire",
        "Acquire ok c1",
        "Exec ok c1 args=[] returned=2 first-row",
    ]
    writes [
        "Query: SELECT 1; SELECT 2 AS two; args = [] (T)",
        "Exec: INSERT INTO t VALUES (1, 'a'); INSERT INTO t VALUES (2, 'b'), (3, 'c'); args = [] (T)",
        "Acquire (T)",
        "Exec: SELECT 1; SELECT 2 AS two; args = [] (T)",
    ]

    fn failed_open_is_told(s) {
        let url = Db::broken_url(&s.scratch.url);
        let options = TracedPoolOptions::<Db>::new().tracer(s.recorder.tracer());
        assert!(options.clone().connect(&url).await.is_err());
        let lazy = options.connect_lazy(&url).unwrap();
        assert!(sqlx::query("SELECT 1").execute(&lazy).await.is_err());
        assert!(lazy.begin().await.is_err());
        let options = url.parse().unwrap();
        let single = TracedConnection::<Db>::connect_traced(&options, s.recorder.tracer());
        assert!(single.await.is_err());
    }
    tells [
        "Open error {cannot open}",
        "Open error {cannot open}",
        "Exec error {cannot open} args=[] acquire",
        "Open error {cannot open}",
        "Acquire error {cannot open}",
        "Open error {cannot open}",
    ]
    writes [
        "Open; err = \"{cannot open line}\" (T)",
        "Open; err = \"{cannot open line}\" (T)",
        "Exec: SELECT 1; args = []; err = \"{cannot open line}\" (T)",
        "Open; err = \"{cannot open line}\" (T)",
        "Acquire; err = \"{cannot open line}\" (T)",
        "Open; err = \"{cannot open line}\" (T)",
    ]

    fn exhausted_pool_is_told(s) {
        let pool = TracedPoolOptions::<Db>::new()
            .tracer(s.recorder.tracer())
            .max_connections(1)
            .acquire_timeout(LONG_WAIT)
            .connect_lazy(&s.scratch.url)
            .unwrap();
        // Opening may take longer than the pool waits.
        let held = loop {
            if let Ok(connection) = pool.acquire().await {
                break connection;
            }
        };
        s.recorder.clear();
        let before = Instant::now();
        let e = sqlx::query("SELECT 1").fetch_all(&pool).await.unwrap_err();
        assert!(matches!(e, sqlx::Error::PoolTimedOut), "{e}");
        assert!(before.elapsed() >= LONG_WAIT);
        assert!(pool.acquire().await.is_err());
        assert!(pool.begin().await.is_err());
        assert!(pool.try_acquire().is_none());
        assert!(pool.try_begin().await.unwrap().is_none());
        drop(held);
    }
    tells [
        "Query error pool timed out args=[] acquire",
        "Acquire error pool timed out",
        "Acquire error pool timed out",
    ]
    writes [
        "Query: SELECT 1; args = []; err = \"pool timed out\" (T)",
        "Acquire; err = \"pool timed out\" (T)",
        "Acquire; err = \"pool timed out\" (T)",
    ]

    fn wait_for_a_connection_is_told_apart(s) {
        let held = s.pool.acquire().await.unwrap();
        s.recorder.clear();
        let waiting = tokio::spawn({
            let pool = s.pool.clone();
            async move { sqlx::query("SELECT 1").execute(&pool).await.map(drop) }
        });
        // It begins to wait before the time does.
        tokio::task::yield_now().await;
        tokio::time::sleep(LONG_WAIT * 3 / 2).await;
        drop(held);
        waiting.await.unwrap().unwrap();
        assert!(s.recorder.longest_wait() >= LONG_WAIT);
    }
    tells ["Exec ok c1 args=[] returned=1 acquire first-row"]
    writes ["Exec: SELECT 1; args = [] (T)"]

    fn wait_for_a_connection_that_is_given_up_is_cancelled(s) {
        let held = s.pool.acquire().await.unwrap();
        s.recorder.clear();
        let patience = Duration::from_millis(20);
        // Nothing but what is held ends the wait.
        let waiting = sqlx::query("SELECT 1").execute(&s.pool);
        assert!(tokio::time::timeout(patience, waiting).await.is_err());
        assert!(tokio::time::timeout(patience, s.pool.acquire()).await.is_err());
        assert!(tokio::time::timeout(patience, s.pool.begin()).await.is_err());
        drop(held);
    }
    tells [
        "Exec cancelled args=[] acquire",
        "Acquire cancelled",
        "Acquire cancelled",
    ]
    writes [
        "Exec: SELECT 1; args = []; cancelled (T)",
        "Acquire; cancelled (T)",
        "Acquire; cancelled (T)",
    ]

    fn closed_pool_is_told(s) {
        s.pool.close().await;
        assert!(s.pool.is_closed());
        assert!(sqlx::query("SELECT 1").execute(&s.pool).await.is_err());
    }
    tells ["Close ok", "Exec error pool closed args=[] acquire"]
    writes [
        "Close (T)",
        "Exec: SELECT 1; args = []; err = \"pool closed\" (T)",
    ]

    fn single_connection_is_told_from_open_to_close(s) {
        let options = s.scratch.url.parse().unwrap();
        let mut single = TracedConnection::<Db>::connect_traced(&options, s.recorder.tracer())
            .await
            .unwrap();
        single.ping().await.unwrap();
        (&mut single).execute("SELECT 1").await.unwrap();
        let transaction = single.begin().await.unwrap();
        transaction.commit().await.unwrap();
        single.close().await.unwrap();
        let dropped = TracedConnection::<Db>::connect_traced(&options, s.recorder.tracer())
            .await
            .unwrap();
        drop(dropped);
    }
    tells [
        "Open ok c2",
        "Ping ok c2",
        "Exec ok c2 args=[] returned=1 first-row",
        "Begin ok c2",
        "Commit ok c2",
        "Close ok c2",
        "Open ok c3",
        "Close on-drop c3",
    ]
    writes [
        "Open (T)",
        "Ping (T)",
        "Exec: SELECT 1; args = [] (T)",
        "Begin (T)",
        "Commit (T)",
        "Close (T)",
        "Open (T)",
        "Close; on drop (T)",
    ]

    fn pooled_connection_can_be_closed_and_detached(s) {
        let first = s.pool.acquire().await.unwrap();
        first.close().await.unwrap();
        let second = s.pool.acquire().await.unwrap();
        let mut detached = second.detach();
        detached.ping().await.unwrap();
        drop(detached);
    }
    tells [
        "Acquire ok c1",
        "Close ok c1",
        "Open ok c2",
        "Acquire ok c2",
        "Ping ok c2",
        "Close on-drop c2",
    ]
    writes [
        "Acquire (T)",
        "Close (T)",
        "Open (T)",
        "Acquire (T)",
        "Ping (T)",
        "Close; on drop (T)",
    ]

    fn raw_handles_are_told_as_untraced(s) {
        async fn count_by_acquire<'a, A>(acquire: A) -> i64
        where
            A: Acquire<'a, Database = Db>,
        {
            let mut connection = acquire.acquire().await.unwrap();
            sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut *connection).await.unwrap()
        }
        async fn insert_by_begin<'a, A>(acquire: A)
        where
            A: Acquire<'a, Database = Db>,
        {
            let mut transaction = acquire.begin().await.unwrap();
            (&mut *transaction).execute("INSERT INTO t VALUES (1, 'a')").await.unwrap();
            transaction.commit().await.unwrap();
        }
        sqlx::query("SELECT 1").execute(s.pool.inner()).await.unwrap();
        insert_by_begin(&s.pool).await;
        assert_eq!(count_by_acquire(&s.pool).await, 1);
        let mut connection = s.pool.acquire().await.unwrap();
        (&mut *connection.as_inner_mut()).execute("SELECT 1").await.unwrap();
        assert_eq!(count_by_acquire(&mut *connection).await, 1);
        let mut transaction = connection.begin().await.unwrap();
        assert_eq!(count_by_acquire(&mut transaction).await, 1);
        transaction.rollback().await.unwrap();
    }
    tells [
        "Untraced ok",
        "Acquire ok c1",
        "Begin ok c1",
        "Untraced ok c1",
        "Acquire ok c1",
        "Untraced ok c1",
        "Acquire ok c1",
        "Untraced ok c1",
        "Untraced ok c1",
        "Begin ok c1",
        "Untraced ok c1",
        "Rollback ok c1",
    ]
    writes [
        "Untraced; the pool of sqlx was taken by TracedPool::inner (T)",
        "Acquire (T)",
        "Begin (T)",
        "Untraced; a transaction of sqlx was taken by Acquire::begin (T)",
        "Acquire (T)",
        "Untraced; a connection of sqlx was taken by Acquire::acquire (T)",
        "Acquire (T)",
        "Untraced; a connection of sqlx was taken by TracedConnection::as_inner_mut (T)",
        "Untraced; a connection of sqlx was taken by Acquire::acquire (T)",
        "Begin (T)",
        "Untraced; a connection of sqlx was taken by Acquire::acquire (T)",
        "Rollback (T)",
    ]

    fn generic_callers_and_spawned_tasks_are_traced(s) {
        let pool = s.pool.clone();
        tokio::spawn(async move {
            let mut transaction = pool.begin().await.unwrap();
            assert_eq!(count(&mut *transaction).await, 0);
            by_connection(&mut transaction).await;
            by_transaction(&mut transaction).await;
            transaction.commit().await.unwrap();
            assert_eq!(count(&pool).await, 0);
        })
        .await
        .unwrap();
        async fn by_connection(connection: &mut TracedConnection<'_, Db>) {
            assert_eq!(count(connection).await, 0);
        }
        async fn by_transaction(transaction: &mut TracedTransaction<'_, Db>) {
            assert_eq!(count(transaction).await, 0);
        }
    }
    tells [
        "Acquire ok c1",
        "Begin ok c1",
        "Query ok c1 args=[] returned=1 first-row",
        "Query ok c1 args=[] returned=1 first-row",
        "Query ok c1 args=[] returned=1 first-row",
        "Commit ok c1",
        "Query ok c1 args=[] returned=1 acquire first-row",
    ]
    writes [
        "Acquire (T)",
        "Begin (T)",
        "Query: SELECT count(*) FROM t; args = [] (T)",
        "Query: SELECT count(*) FROM t; args = [] (T)",
        "Query: SELECT count(*) FROM t; args = [] (T)",
        "Commit (T)",
        "Query: SELECT count(*) FROM t; args = [] (T)",
    ]

    fn built_query_is_traced(s) {
        let mut query = QueryBuilder::<Db>::new("INSERT INTO t ");
        query.push_values([(1, "a"), (2, "b")], |mut row, (id, name)| {
            row.push_bind(id).push_bind(name);
        });
        query.build().execute(&s.pool).await.unwrap();
    }
    tells ["Exec ok c1 args=[1, \"a\", 2, \"b\"] affected=2 acquire"]
    writes [
        "Exec: INSERT INTO t VALUES ({1}, {2}), ({3}, {4}); args = [int, text(1), int, text(1)] (T)",
    ]

    fn own_begin_statement_is_shown(s) {
        let begin = || s.sql("{begin}");
        let transaction = s.pool.begin_with(begin()).await.unwrap();
        transaction.rollback().await.unwrap();
        let mut connection = s.pool.acquire().await.unwrap();
        let mut transaction = connection.begin_with(begin()).await.unwrap();
        assert!(transaction.begin_with(begin()).await.is_err());
        transaction.rollback().await.unwrap();
    }
    tells [
        "Acquire ok c1",
        "Begin ok c1",
        "Rollback ok c1",
        "Acquire ok c1",
        "Begin ok c1",
        "Savepoint error begin_with inside a transaction c1",
        "Rollback ok c1",
    ]
    writes [
        "Acquire (T)",
        "Begin: {begin} (T)",
        "Rollback (T)",
        "Acquire (T)",
        "Begin: {begin} (T)",
        "Savepoint: {begin}; err = \"begin_with inside a transaction\" (T)",
        "Rollback (T)",
    ]

    fn failed_encoding_is_told_without_the_value(s) {
        struct Refuses;
        impl sqlx::Type<Db> for Refuses {
            fn type_info() -> <Db as sqlx::Database>::TypeInfo {
                <i32 as sqlx::Type<Db>>::type_info()
            }
        }
        impl sqlx::Encode<'_, Db> for Refuses {
            fn encode_by_ref(
                &self,
                _: &mut <Db as sqlx::Database>::ArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                Err("hunter2 cannot be encoded".into())
            }
        }
        let sql = s.sql("SELECT {1}");
        let e = sqlx::query(sql).bind(Refuses).execute(&s.pool).await.unwrap_err();
        assert!(e.to_string().contains("hunter2"), "{e}");
    }
    tells ["Exec error encode error c1 args=[] acquire"]
    writes ["Exec: SELECT {1}; args = []; err = \"encode error\" (T)"]
}

/// Drops a future after so long. It is not asked whether it is ready by then, as it
/// can be where the machine stood still.
async fn give_up<F: Future>(after: Duration, future: F) {
    let deadline = Instant::now() + after;
    let mut future = pin!(future);
    let mut time = pin!(tokio::time::sleep(after));
    poll_fn(|context| {
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        assert!(future.as_mut().poll(context).is_pending(), "it is not slow");
        time.as_mut().poll(context)
    })
    .await;
}

async fn count<'e, DB, E>(executor: E) -> i64
where
    DB: Database,
    E: Executor<'e, Database = DB>,
    for<'q> DB::Arguments: sqlx::IntoArguments<DB>,
    for<'r> i64: sqlx::Decode<'r, DB> + sqlx::Type<DB>,
    usize: sqlx::ColumnIndex<DB::Row>,
{
    sqlx::query_scalar("SELECT count(*) FROM t")
        .fetch_one(executor)
        .await
        .unwrap()
}
