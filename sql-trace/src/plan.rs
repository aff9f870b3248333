use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Error, Row};

use crate::block_on::block_on;
use crate::event::{ConnectionId, Event, Failure, Op, Outcome};
use crate::sql::Dialect;
use crate::statement;
use crate::subject::Teller;

/// Finds out the query plans of slow statements on SQLite.
///
/// It asks on a connection of its own, which cannot write, in a thread of its
/// own, so that the service's connections and tasks have no part in it.
#[derive(Debug)]
pub(crate) struct Plans {
    shared: Arc<Shared>,
    threshold: Duration,
    /// The shortest time between two plans.
    every: Duration,
    last: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Shared {
    teller: Teller,
    options: SqliteConnectOptions,
    busy: AtomicBool,
}

impl Plans {
    pub(crate) fn new(
        teller: Teller,
        options: &SqliteConnectOptions,
        threshold: Duration,
        every: Duration,
    ) -> Self {
        let options = options
            .clone()
            .create_if_missing(false)
            .busy_timeout(Duration::from_millis(100))
            .disable_statement_logging();
        // A database in memory cannot be opened read-only.
        let name = options.get_filename().to_string_lossy();
        let in_memory = name.starts_with("file:") || name == ":memory:";
        let options = if in_memory {
            options.pragma("query_only", "ON")
        } else {
            options.read_only(true)
        };
        Self {
            shared: Arc::new(Shared {
                teller,
                options,
                busy: AtomicBool::new(false),
            }),
            threshold,
            every,
            last: Mutex::new(None),
        }
    }

    /// Asks for the plan of a statement that has ended, if it was slow, reads
    /// only, and it is time for another.
    pub(crate) fn consider(&self, event: &Event<'_>) {
        let (Op::Exec | Op::Query, Some(statement), Some(elapsed)) =
            (event.op, event.statement, event.elapsed)
        else {
            return;
        };
        if elapsed < self.threshold
            || matches!(event.outcome, Outcome::Err(_))
            || !self.shared.teller.enabled(Op::Plan)
            || !statement::reads_only(statement, Dialect::Sqlite)
            || !self.is_time()
            || self.shared.busy.swap(true, Ordering::Acquire)
        {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let statement = statement.to_owned();
        let request = event.request.map(ToOwned::to_owned);
        let connection = event.connection;
        let started = thread::Builder::new()
            .name("sql-trace-plan".to_owned())
            .spawn(move || {
                shared.explain(&statement, connection, request.as_deref());
                shared.busy.store(false, Ordering::Release);
            });
        if started.is_err() {
            self.shared.busy.store(false, Ordering::Release);
        }
    }

    fn is_time(&self) -> bool {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.saturating_duration_since(last) < self.every) {
            return false;
        }
        *last = Some(now);
        true
    }
}

impl Shared {
    fn explain(&self, statement: &str, connection: Option<ConnectionId>, request: Option<&str>) {
        let started = Instant::now();
        let result = block_on(plan(&self.options, statement));
        let (outcome, plan) = match &result {
            Ok(plan) => (Outcome::Ok, Some(plan.as_str())),
            Err(e) => (Outcome::Err(Failure::new(e)), None),
        };
        self.teller.tell(&mut Event {
            connection,
            statement: Some(statement),
            elapsed: Some(started.elapsed()),
            request,
            plan,
            ..Event::plain(Op::Plan, &self.teller.target, outcome)
        });
    }
}

/// The steps of the plan, each indented by `>` for each step it is part of.
///
/// <https://www.sqlite.org/eqp.html>
async fn plan(options: &SqliteConnectOptions, statement: &str) -> Result<String, Error> {
    let mut connection = SqliteConnection::connect_with(options).await?;
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
    let rows = sqlx::raw_sql(explain).fetch_all(&mut connection).await?;
    let mut plan = String::new();
    let mut depths = vec![(0, 0)];
    for row in &rows {
        let (id, parent): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let depth = depths
            .iter()
            .find(|(id, _)| *id == parent)
            .map_or(0, |(_, depth)| *depth);
        depths.push((id, depth + 1));
        if !plan.is_empty() {
            plan.push_str("; ");
        }
        for _ in 0..depth {
            plan.push_str("> ");
        }
        plan.push_str(row.try_get(3)?);
    }
    connection.close().await?;
    Ok(plan)
}
