//! Traced databases for [`sqlx::AnyPool`], chosen by the scheme of a URL:
//! `sqlite-trace:`, `postgres-trace:`, `mysql-trace:`.
//!
//! For programs that read their database from a configuration and use it through
//! `AnyPool`: with [`install_drivers`] at the start, the configuration decides
//! what is traced, as `sql.Register` lets programs in Go. Who is told is the
//! [default tracer](crate::set_default_tracer).
//!
//! # Examples
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! sql_trace::any::install_drivers()?;
//! let pool = sqlx::AnyPool::connect("sqlite-trace::memory:").await?;
//! let n: i64 = sqlx::query_scalar("SELECT 7").fetch_one(&pool).await?;
//! assert_eq!(n, 7);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sqlite"))]
//! # fn main() {}
//! ```
//!
//! # Limits
//!
//! A driver sees less than [`TracedPool`](crate::TracedPool) does, which takes
//! [`sqlx::Any`] as well and has none of these limits but the last:
//!
//! - one tracer for all, set before the first connection is opened;
//! - [`Op::Exec`](crate::Op::Exec) is what by its text changes rows, and
//!   [`Op::Query`](crate::Op::Query) what does not: the driver is not told which
//!   was called;
//! - no [`Op::Acquire`](crate::Op::Acquire), and no time spent waiting for a
//!   connection: the pool is above the driver;
//! - [`Op::Ping`](crate::Op::Ping) only if it fails: the pool pings all the time;
//! - no watchdog, plans or spans, which are options of a pool;
//! - migrations do not run through these schemes, but through the plain ones;
//! - the drivers of a process are installed once, so that
//!   `sqlx::any::install_default_drivers` must not be called as well;
//! - values are of the few types that `Any` has.
//!
//! The feature pins the version of `sqlx-core`, which alone has what it takes.

use sqlx::error::BoxDynError;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
use sqlx_core::any::driver::AnyDriver;

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod connection;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod through;

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
use self::through::Through;

/// What a scheme ends with that is traced.
pub(crate) const TRACED: &str = "-trace";

/// The driver of `sqlite-trace:` URLs.
#[cfg(feature = "sqlite")]
pub const SQLITE: AnyDriver = AnyDriver::without_migrate::<Through<sqlx::Sqlite>>();

/// The driver of `postgres-trace:` and `postgresql-trace:` URLs.
#[cfg(feature = "postgres")]
pub const POSTGRES: AnyDriver = AnyDriver::without_migrate::<Through<sqlx::Postgres>>();

/// The driver of `mysql-trace:` and `mariadb-trace:` URLs.
#[cfg(feature = "mysql")]
pub const MYSQL: AnyDriver = AnyDriver::without_migrate::<Through<sqlx::MySql>>();

/// Installs the traced drivers and sqlx's own, for the databases whose features
/// are on. To be called once, in place of `sqlx::any::install_default_drivers`.
///
/// # Errors
///
/// Fails if drivers have been installed in this process.
pub fn install_drivers() -> Result<(), BoxDynError> {
    sqlx_core::any::driver::install_drivers(&[
        #[cfg(feature = "sqlite")]
        SQLITE,
        #[cfg(feature = "sqlite")]
        sqlx::sqlite::any::DRIVER,
        #[cfg(feature = "postgres")]
        POSTGRES,
        #[cfg(feature = "postgres")]
        sqlx::postgres::any::DRIVER,
        #[cfg(feature = "mysql")]
        MYSQL,
        #[cfg(feature = "mysql")]
        sqlx::mysql::any::DRIVER,
    ])
}
