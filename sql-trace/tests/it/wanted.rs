//! What a tracer wants of operations is what it is told, whatever else there is.

use std::sync::{Arc, Mutex};

use sql_trace::sqlite::{SqlitePool, SqlitePoolOptions};
use sql_trace::{Event, Op, SharedTracer, Tracer};
use sqlx::{Executor, SqlSafeStr};

/// A tracer of some kinds of operations, or of all.
struct Wants(Option<Op>, Told);

type Told = Arc<Mutex<Vec<(Op, String)>>>;

impl Tracer for Wants {
    fn enabled(&self, op: Op) -> bool {
        self.0.is_none_or(|wanted| wanted == op)
    }

    fn trace(&self, event: &Event<'_>) {
        let fact = format!(
            "{} {:?} {} {:?} timed: {}",
            event.outcome.as_str(),
            event.statement,
            event.rows_returned,
            event.rows_affected,
            event.elapsed.is_some()
        );
        self.1.lock().unwrap().push((event.op, fact));
    }
}

/// Everything that can be done, with each kind of executor.
async fn do_everything(tracer: impl Tracer) {
    let tracer: SharedTracer = tracer.shared();
    let options = || {
        SqlitePoolOptions::new()
            .tracer(tracer.clone())
            .max_connections(1)
    };
    let pool = options().connect_lazy("sqlite::memory:").unwrap();
    (&pool).execute("CREATE TABLE t (a)").await.unwrap();
    (&pool).execute("INSERT INTO t VALUES (1)").await.unwrap();
    (&pool).fetch_all("SELECT a FROM t").await.unwrap();
    (&pool).fetch_one("SELECT 1").await.unwrap();
    (&pool).fetch_optional("SELECT 2").await.unwrap();
    (&pool).prepare("SELECT 3".into_sql_str()).await.unwrap();
    (&pool).describe("SELECT 4".into_sql_str()).await.unwrap();
    (&pool).execute("SELECT nope").await.unwrap_err();

    let mut connection = pool.acquire().await.unwrap();
    (&mut connection).execute("DELETE FROM t").await.unwrap();
    (&mut connection).fetch_all("SELECT 5").await.unwrap();
    (&mut connection).fetch_optional("SELECT 6").await.unwrap();
    (&mut connection)
        .prepare("SELECT 7".into_sql_str())
        .await
        .unwrap();
    (&mut connection)
        .describe("SELECT 8".into_sql_str())
        .await
        .unwrap();
    connection.ping().await.unwrap();
    let _ = connection.as_inner_mut();
    let mut transaction = connection.begin().await.unwrap();
    transaction.begin().await.unwrap().commit().await.unwrap();
    transaction.begin().await.unwrap().rollback().await.unwrap();
    transaction.commit().await.unwrap();
    drop(connection.begin().await.unwrap());
    drop(connection);

    pool.begin().await.unwrap().rollback().await.unwrap();
    let _ = pool.inner();
    pool.close().await;

    let broken: SqlitePool = options()
        .connect_lazy("sqlite:///nonexistent/test.db")
        .unwrap();
    (&broken).execute("SELECT 9").await.unwrap_err();
    (&broken).fetch_all("SELECT 10").await.unwrap_err();
    broken.acquire().await.unwrap_err();
    broken.begin().await.unwrap_err();
}

#[tokio::test]
async fn each_operation_is_told_as_well_to_a_tracer_that_wants_nothing_else() {
    let all = Told::default();
    do_everything(Wants(None, all.clone())).await;
    let all = std::mem::take(&mut *all.lock().unwrap());
    for op in [
        Op::Open,
        Op::Acquire,
        Op::Prepare,
        Op::Exec,
        Op::Query,
        Op::Describe,
        Op::Begin,
        Op::Commit,
        Op::Rollback,
        Op::Savepoint,
        Op::Release,
        Op::RollbackTo,
        Op::Ping,
        Op::Close,
        Op::Untraced,
    ] {
        let told = Told::default();
        do_everything(Wants(Some(op), told.clone())).await;
        let expected: Vec<_> = all.iter().filter(|(told, _)| *told == op).collect();
        assert!(!expected.is_empty(), "{op} does not happen");
        let told = told.lock().unwrap();
        assert_eq!(told.iter().collect::<Vec<_>>(), expected, "{op} alone");
    }
}
