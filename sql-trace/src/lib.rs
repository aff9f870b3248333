//! Times every sqlx statement into your own logger, with its arguments.
//!
//! The types of this crate stand in for those of sqlx: a program changes its
//! imports and the place where its pool is made, and each statement is told to a
//! [`Tracer`] as an [`Event`].
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> sqlx::Result<()> {
//! use sql_trace::sqlite::SqlitePoolOptions; // was: sqlx::sqlite::SqlitePoolOptions
//! use sql_trace::writer;
//!
//! let pool = SqlitePoolOptions::new()
//!     .tracer(writer(std::io::stderr())) // new
//!     .max_connections(1)
//!     .connect("sqlite::memory:")
//!     .await?;
//! let n: i64 = sqlx::query_scalar("SELECT ?").bind(7).fetch_one(&pool).await?;
//! // Query: SELECT ?; args = [int] (44.535µs)
//! assert_eq!(n, 7);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! # Where to look
//!
//! - To make a pool: [`TracedPoolOptions`], or [`TracedPool::new`] around one that
//!   exists. `sqlite`, `postgres` and `mysql` have aliases with sqlx's names. A
//!   single connection is [`TracedConnection::connect_traced`].
//! - To be told: [`writer`] for lines, `json`, `to_log`, `to_tracing` and
//!   `to_metrics` behind the features of their names, or a closure. The methods of
//!   [`Tracer`] combine them: [`and`](Tracer::and), [`filter`](Tracer::filter),
//!   [`slow`](Tracer::slow), [`sample`](Tracer::sample),
//!   [`obfuscate`](Tracer::obfuscate).
//! - What is told: [`Event`], its [`Op`] and its [`Outcome`].
//! - How much of values is shown: [`ArgsMode`]; their kinds by default, and of
//!   errors the code.
//! - Statements that hang: [`TracedPoolOptions::still_running`]. Why one is slow on
//!   SQLite: `TracedPoolOptions::explain_slow`.
//! - What one request did: [`trace_scope`] and [`QueryStats`], which
//!   `QueryStatsLayer` makes for each HTTP request.
//! - `AnyPool`: the module `any`.
//! - Databases for tests: `TestPostgres` and `TestMysql`.
//!
//! # What is traced
//!
//! All that runs through [`TracedPool`], [`TracedConnection`] and
//! [`TracedTransaction`], which are [`Executor`](sqlx::Executor)s: all forms of
//! queries that sqlx has, streams, prepared statements, transactions and savepoints.
//! Each operation is told exactly once, at its end: also if it failed, or its future
//! was dropped halfway. One that was never polled did nothing, and is not told.
//!
//! What takes sqlx's own types cannot be traced: an `impl Acquire`, migrations, a
//! `PgListener`, [`TracedPool::inner`], [`TracedConnection::as_inner_mut`]. It works,
//! and an [`Op::Untraced`] event marks the gap. Nothing dereferences to the raw types,
//! where statements would run unseen by mistake.
//!
//! # What it leaves alone
//!
//! A tracer never changes a statement, its result or its error. Its panics are
//! caught, and lines that cannot be written are counted, see [`LostLines`].
//!
//! # Features
//!
//! None by default. `sqlite`, `postgres`, `mysql`: the databases. `json`, `log`,
//! `tracing`, `metrics`: tracers. `tower`: `QueryStatsLayer`. `caller`:
//! `Tracer::caller`. `any`: URLs for `AnyPool`; it pins the version of `sqlx-core`.
//! `test-server`: throwaway servers, on Unix.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
#[cfg(feature = "any")]
pub mod any;
mod args;
mod attributes;
#[cfg(feature = "sqlite")]
mod block_on;
#[cfg(feature = "caller")]
mod caller;
mod connection;
mod database;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod debug_text;
mod duration;
mod escape;
mod event;
mod executor;
mod handed;
mod hooks;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "tower")]
mod layer;
mod line;
mod obfuscate;
mod operation;
mod options;
mod parts;
#[cfg(feature = "sqlite")]
mod plan;
mod pool;
mod roster;
mod scope;
mod span;
mod sql;
mod statement;
mod subject;
#[cfg(all(feature = "test-server", unix))]
mod test_server;
#[cfg(feature = "log")]
mod to_log;
#[cfg(feature = "metrics")]
mod to_metrics;
#[cfg(feature = "tracing")]
mod to_tracing;
mod tracer;
#[cfg(feature = "tracing")]
mod tracing_span;
mod transaction;
mod watchdog;
mod writer;

#[cfg(feature = "any")]
#[doc(hidden)]
pub use args::AnyCaptured;
#[cfg(feature = "sqlite")]
#[doc(hidden)]
pub use args::SqliteCaptured;
#[doc(hidden)]
pub use args::{ArgSource, Undecodable};
pub use args::{ArgValue, Args, ArgsMode};
pub use connection::{TracedConnection, TracedPoolConnection};
pub use database::TraceDatabase;
pub use event::{Caller, ConnectionId, Event, Failure, Op, Outcome, Target};
#[cfg(feature = "json")]
pub use json::{JsonLines, json};
#[cfg(feature = "tower")]
pub use layer::{QueryStatsBody, QueryStatsFuture, QueryStatsLayer, QueryStatsService};
pub use obfuscate::obfuscate;
pub use options::TracedPoolOptions;
pub use pool::TracedPool;
pub use scope::{InScope, QueryStats, trace_scope};
pub use sql::Dialect;
#[cfg(all(feature = "test-server", unix))]
pub use test_server::{TestMysql, TestPostgres, TestServerError, TestServerOptions};
#[cfg(feature = "log")]
pub use to_log::{ToLog, to_log};
#[cfg(feature = "metrics")]
pub use to_metrics::{ToMetrics, to_metrics};
#[cfg(feature = "tracing")]
pub use to_tracing::{ToTracing, to_tracing};
pub use tracer::{SharedTracer, Tracer, set_default_tracer};
pub use transaction::TracedTransaction;
pub use writer::{LostLines, Writer, writer};

/// The names that sqlx gives to its types for SQLite, for the traced ones.
#[cfg(feature = "sqlite")]
pub mod sqlite {
    /// A pool, in place of [`sqlx::SqlitePool`].
    pub type SqlitePool = crate::TracedPool<sqlx::Sqlite>;
    /// A pool's options, in place of [`sqlx::sqlite::SqlitePoolOptions`].
    pub type SqlitePoolOptions = crate::TracedPoolOptions<sqlx::Sqlite>;
    /// A connection, in place of [`sqlx::SqliteConnection`].
    pub type SqliteConnection<'c> = crate::TracedConnection<'c, sqlx::Sqlite>;
    /// A transaction, in place of [`sqlx::SqliteTransaction`].
    pub type SqliteTransaction<'c> = crate::TracedTransaction<'c, sqlx::Sqlite>;
}

/// The names that sqlx gives to its types for PostgreSQL, for the traced ones.
#[cfg(feature = "postgres")]
pub mod postgres {
    /// A pool, in place of [`sqlx::PgPool`].
    pub type PgPool = crate::TracedPool<sqlx::Postgres>;
    /// A pool's options, in place of [`sqlx::postgres::PgPoolOptions`].
    pub type PgPoolOptions = crate::TracedPoolOptions<sqlx::Postgres>;
    /// A connection, in place of [`sqlx::PgConnection`].
    pub type PgConnection<'c> = crate::TracedConnection<'c, sqlx::Postgres>;
    /// A transaction, in place of [`sqlx::PgTransaction`].
    pub type PgTransaction<'c> = crate::TracedTransaction<'c, sqlx::Postgres>;
}

/// The names that sqlx gives to its types for MySQL and MariaDB, for the
/// traced ones.
#[cfg(feature = "mysql")]
pub mod mysql {
    /// A pool, in place of [`sqlx::MySqlPool`].
    pub type MySqlPool = crate::TracedPool<sqlx::MySql>;
    /// A pool's options, in place of [`sqlx::mysql::MySqlPoolOptions`].
    pub type MySqlPoolOptions = crate::TracedPoolOptions<sqlx::MySql>;
    /// A connection, in place of [`sqlx::MySqlConnection`].
    pub type MySqlConnection<'c> = crate::TracedConnection<'c, sqlx::MySql>;
    /// A transaction, in place of [`sqlx::MySqlTransaction`].
    pub type MySqlTransaction<'c> = crate::TracedTransaction<'c, sqlx::MySql>;
}

#[cfg(all(
    doctest,
    feature = "any",
    feature = "postgres",
    feature = "sqlite",
    feature = "test-server"
))]
#[doc = include_str!("../README.md")]
struct Readme;
