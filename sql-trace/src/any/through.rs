//! A driver of sqlx has a whole family of types. `AnyConnection` uses two of
//! them: the connection and its options. The others stand for nothing, and
//! cannot be made.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;
use sqlx::any::AnyConnectOptions;
use sqlx::error::BoxDynError;
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{
    Arguments, Column, ColumnIndex, ConnectOptions, Connection, Database, Either, Encode, Error,
    FromRow, IntoArguments, Row, SqlStr, Statement, Transaction, Type, Value, ValueRef,
};
use sqlx_core::Url;
use sqlx_core::any::AnyConnectionBackend;
use sqlx_core::transaction::TransactionManager;

use super::TRACED;
use super::connection::Traced;
use crate::database::TraceDatabase;
use crate::event::Op;
use crate::operation::Operation;
use crate::roster::next_id;
use crate::subject::Subject;
use crate::tracer::default_tracer;

/// A database of sqlx's that `AnyPool` can have, and be traced.
pub(crate) trait TraceAny: TraceDatabase<Connection: AnyConnectionBackend> {
    const SCHEMES: &'static [&'static str];

    fn options(any: &AnyConnectOptions) -> Result<OptionsOf<Self>, Error>;
}

type OptionsOf<DB> = <<DB as Database>::Connection as Connection>::Options;

macro_rules! trace_any {
    ($database:ty: $($scheme:literal),*) => {
        impl TraceAny for $database {
            const SCHEMES: &'static [&'static str] = &[$($scheme),*];

            fn options(any: &AnyConnectOptions) -> Result<OptionsOf<Self>, Error> {
                any.try_into()
            }
        }
    };
}
#[cfg(feature = "sqlite")]
trace_any!(sqlx::Sqlite: "sqlite-trace");
#[cfg(feature = "postgres")]
trace_any!(sqlx::Postgres: "postgres-trace", "postgresql-trace");
#[cfg(feature = "mysql")]
trace_any!(sqlx::MySql: "mysql-trace", "mariadb-trace");

/// A database whose statements are traced by its driver.
#[derive(Debug)]
pub(crate) struct Through<DB>(PhantomData<DB>);

impl<DB: TraceAny> Database for Through<DB> {
    type Connection = Traced<DB>;
    type TransactionManager = Self;
    type Row = Nothing<DB>;
    type QueryResult = DB::QueryResult;
    type Column = Nothing<DB>;
    type TypeInfo = DB::TypeInfo;
    type Value = Nothing<DB>;
    type ValueRef<'r> = Nothing<DB>;
    type Arguments = NoArguments<DB>;
    type ArgumentBuffer = ();
    type Statement = Nothing<DB>;
    const NAME: &'static str = DB::NAME;
    const URL_SCHEMES: &'static [&'static str] = DB::SCHEMES;
}

/// The options of a connection, from a URL with one of our schemes.
#[derive(Debug)]
pub(crate) struct ThroughOptions<DB: TraceAny>(OptionsOf<DB>);

impl<DB: TraceAny> Clone for ThroughOptions<DB> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<DB: TraceAny> TryFrom<&AnyConnectOptions> for ThroughOptions<DB> {
    type Error = Error;

    fn try_from(any: &AnyConnectOptions) -> Result<Self, Error> {
        let url = any.database_url.as_str();
        // Not by `set_scheme`, which has rules of its own about which may
        // follow which.
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        let scheme = scheme.strip_suffix(TRACED).unwrap_or(scheme);
        let mut plain: AnyConnectOptions = format!("{scheme}:{rest}").parse()?;
        plain.log_settings = any.log_settings.clone();
        Ok(Self(DB::options(&plain)?))
    }
}

impl<DB: TraceAny> FromStr for ThroughOptions<DB> {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Error> {
        Self::try_from(&url.parse::<AnyConnectOptions>()?)
    }
}

impl<DB: TraceAny> ConnectOptions for ThroughOptions<DB> {
    type Connection = Traced<DB>;

    fn from_url(url: &Url) -> Result<Self, Error> {
        Self::try_from(&AnyConnectOptions::from_url(url)?)
    }

    async fn connect(&self) -> Result<Traced<DB>, Error> {
        let subject = Arc::new(Subject::new(default_tracer(), DB::target(&self.0)));
        let mut operation = Operation::begin(&subject, Op::Open, None);
        let result = self.0.connect().await;
        let id = result.is_ok().then(next_id);
        operation.on(id);
        operation.finish(result.as_ref().map(drop));
        drop(operation);
        Ok(Traced::new(result?, subject, id))
    }

    fn log_statements(self, level: LevelFilter) -> Self {
        Self(self.0.log_statements(level))
    }

    fn log_slow_statements(self, level: LevelFilter, duration: Duration) -> Self {
        Self(self.0.log_slow_statements(level, duration))
    }
}

impl<DB: TraceAny> Connection for Traced<DB> {
    type Database = Through<DB>;
    type Options = ThroughOptions<DB>;

    async fn close(self) -> Result<(), Error> {
        AnyConnectionBackend::close(Box::new(self)).await
    }

    async fn close_hard(self) -> Result<(), Error> {
        AnyConnectionBackend::close_hard(Box::new(self)).await
    }

    async fn ping(&mut self) -> Result<(), Error> {
        AnyConnectionBackend::ping(self).await
    }

    async fn begin(&mut self) -> Result<Transaction<'_, Through<DB>>, Error> {
        Transaction::begin(self, None).await
    }

    fn shrink_buffers(&mut self) {
        AnyConnectionBackend::shrink_buffers(self);
    }

    async fn flush(&mut self) -> Result<(), Error> {
        AnyConnectionBackend::flush(self).await
    }

    fn should_flush(&self) -> bool {
        AnyConnectionBackend::should_flush(self)
    }
}

impl<DB: TraceAny> TransactionManager for Through<DB> {
    type Database = Self;

    async fn begin(connection: &mut Traced<DB>, statement: Option<SqlStr>) -> Result<(), Error> {
        AnyConnectionBackend::begin(connection, statement).await
    }

    async fn commit(connection: &mut Traced<DB>) -> Result<(), Error> {
        connection.commit().await
    }

    async fn rollback(connection: &mut Traced<DB>) -> Result<(), Error> {
        connection.rollback().await
    }

    fn start_rollback(connection: &mut Traced<DB>) {
        connection.start_rollback();
    }

    fn get_transaction_depth(connection: &Traced<DB>) -> usize {
        AnyConnectionBackend::get_transaction_depth(connection)
    }
}

#[derive(Debug)]
pub(crate) struct NoArguments<DB>(PhantomData<DB>);

impl<DB> Default for NoArguments<DB> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<DB: TraceAny> Arguments for NoArguments<DB> {
    type Database = Through<DB>;

    fn reserve(&mut self, _: usize, _: usize) {}

    fn add<'t, T>(&mut self, _: T) -> Result<(), BoxDynError>
    where
        T: Encode<'t, Through<DB>> + Type<Through<DB>>,
    {
        Err("a traced driver takes arguments of sqlx::Any only".into())
    }

    fn len(&self) -> usize {
        0
    }
}

/// What is never made.
pub(crate) struct Nothing<DB>(Infallible, PhantomData<fn() -> DB>);

impl<DB> Clone for Nothing<DB> {
    fn clone(&self) -> Self {
        match self.0 {}
    }
}

impl<DB> fmt::Debug for Nothing<DB> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl<DB: TraceAny> Row for Nothing<DB> {
    type Database = Through<DB>;

    fn columns(&self) -> &[Self] {
        match self.0 {}
    }

    fn try_get_raw<I: ColumnIndex<Self>>(&self, _: I) -> Result<Self, Error> {
        match self.0 {}
    }
}

impl<DB: TraceAny> Column for Nothing<DB> {
    type Database = Through<DB>;

    fn ordinal(&self) -> usize {
        match self.0 {}
    }

    fn name(&self) -> &str {
        match self.0 {}
    }

    fn type_info(&self) -> &DB::TypeInfo {
        match self.0 {}
    }
}

impl<DB: TraceAny> Value for Nothing<DB> {
    type Database = Through<DB>;

    fn as_ref(&self) -> Self {
        match self.0 {}
    }

    fn type_info(&self) -> Cow<'_, DB::TypeInfo> {
        match self.0 {}
    }

    fn is_null(&self) -> bool {
        match self.0 {}
    }
}

impl<DB: TraceAny> ValueRef<'_> for Nothing<DB> {
    type Database = Through<DB>;

    fn to_owned(&self) -> Self {
        match self.0 {}
    }

    fn type_info(&self) -> Cow<'_, DB::TypeInfo> {
        match self.0 {}
    }

    fn is_null(&self) -> bool {
        match self.0 {}
    }
}

impl<DB: TraceAny> Statement for Nothing<DB> {
    type Database = Through<DB>;

    fn into_sql(self) -> SqlStr {
        match self.0 {}
    }

    fn sql(&self) -> &SqlStr {
        match self.0 {}
    }

    fn parameters(&self) -> Option<Either<&[DB::TypeInfo], usize>> {
        match self.0 {}
    }

    fn columns(&self) -> &[Self] {
        match self.0 {}
    }

    fn query(&self) -> Query<'_, Through<DB>, NoArguments<DB>> {
        match self.0 {}
    }

    fn query_with<A>(&self, _: A) -> Query<'_, Through<DB>, A>
    where
        A: IntoArguments<Through<DB>>,
    {
        match self.0 {}
    }

    fn query_as<O>(&self) -> QueryAs<'_, Through<DB>, O, NoArguments<DB>>
    where
        O: for<'r> FromRow<'r, Self>,
    {
        match self.0 {}
    }

    fn query_as_with<'s, O, A>(&'s self, _: A) -> QueryAs<'s, Through<DB>, O, A>
    where
        O: for<'r> FromRow<'r, Self>,
        A: IntoArguments<Through<DB>>,
    {
        match self.0 {}
    }

    fn query_scalar<O>(&self) -> QueryScalar<'_, Through<DB>, O, NoArguments<DB>>
    where
        (O,): for<'r> FromRow<'r, Self>,
    {
        match self.0 {}
    }

    fn query_scalar_with<'s, O, A>(&'s self, _: A) -> QueryScalar<'s, Through<DB>, O, A>
    where
        (O,): for<'r> FromRow<'r, Self>,
        A: IntoArguments<Through<DB>>,
    {
        match self.0 {}
    }
}
