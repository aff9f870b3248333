//! A driver for sqlx that answers each statement at once with one row, so that
//! what is measured is the layer above it. Its arguments are SQLite's.

use std::fmt::{self, Display};
use std::str::FromStr;

use futures_core::future::BoxFuture;
use futures_core::stream::{BoxStream, Stream};
use log::LevelFilter;
use sql_trace::{Target, TraceDatabase};
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArguments, SqliteArgumentsBuffer, SqliteTypeInfo};
use sqlx::{
    Arguments, Column, ColumnIndex, ConnectOptions, Connection, Database, Describe, Either, Error,
    Execute, Executor, Row, SqlStr, Sqlite, Statement, Transaction, Type, TypeInfo, Value,
    ValueRef,
};
use sqlx_core::Url;
use sqlx_core::transaction::TransactionManager;

#[derive(Debug)]
pub(crate) struct Null;

impl Database for Null {
    type Connection = NullConnection;
    type TransactionManager = NullTransactions;
    type Row = NullRow;
    type QueryResult = NullResult;
    type Column = NullColumn;
    type TypeInfo = NullType;
    type Value = NullValue;
    type ValueRef<'r> = NullValueRef;
    type Arguments = NullArguments;
    type ArgumentBuffer = SqliteArgumentsBuffer;
    type Statement = NullStatement;
    const NAME: &'static str = "SQLite";
    const URL_SCHEMES: &'static [&'static str] = &["null"];
}

impl TraceDatabase for Null {
    type Captured = <Sqlite as TraceDatabase>::Captured;

    fn target(_: &NullOptions) -> Target {
        Target::default()
    }

    fn capture(args: &mut NullArguments) -> Self::Captured {
        Sqlite::capture(&mut args.0)
    }

    fn rows_affected(_: &NullResult) -> u64 {
        0
    }

    fn fetch_many<'e, 'q: 'e, E>(
        connection: &'e mut NullConnection,
        query: E,
    ) -> BoxStream<'e, Result<Either<NullResult, NullRow>, Error>>
    where
        E: 'q + Execute<'q, Self>,
    {
        connection.fetch_many(query)
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        connection: &'e mut NullConnection,
        query: E,
    ) -> BoxFuture<'e, Result<Option<NullRow>, Error>>
    where
        E: 'q + Execute<'q, Self>,
    {
        connection.fetch_optional(query)
    }

    fn prepare_with<'e>(
        connection: &'e mut NullConnection,
        sql: SqlStr,
        parameters: &'e [NullType],
    ) -> BoxFuture<'e, Result<NullStatement, Error>> {
        connection.prepare_with(sql, parameters)
    }

    fn describe<'e>(
        connection: &'e mut NullConnection,
        sql: SqlStr,
    ) -> BoxFuture<'e, Result<Describe<Self>, Error>> {
        connection.describe(sql)
    }
}

#[derive(Debug, Default)]
pub(crate) struct NullConnection;

impl<'c> Executor<'c> for &'c mut NullConnection {
    type Database = Null;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        mut query: E,
    ) -> BoxStream<'e, Result<Either<NullResult, NullRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Null>,
    {
        std::hint::black_box(query.take_arguments().is_ok());
        std::hint::black_box(query.sql());
        Box::pin(Once(Some(Ok(Either::Right(NullRow)))))
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        mut query: E,
    ) -> BoxFuture<'e, Result<Option<NullRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Null>,
    {
        Box::pin(async move {
            std::hint::black_box(query.take_arguments().is_ok());
            std::hint::black_box(query.sql());
            Ok(Some(NullRow))
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        _: &'e [NullType],
    ) -> BoxFuture<'e, Result<NullStatement, Error>>
    where
        'c: 'e,
    {
        Box::pin(std::future::ready(Ok(NullStatement(sql))))
    }

    fn describe<'e>(self, _: SqlStr) -> BoxFuture<'e, Result<Describe<Null>, Error>>
    where
        'c: 'e,
    {
        let error = Error::Protocol("the null driver describes nothing".to_owned());
        Box::pin(std::future::ready(Err(error)))
    }
}

struct Once<T>(Option<T>);

impl<T: Unpin> Stream for Once<T> {
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        std::task::Poll::Ready(self.0.take())
    }
}

impl Connection for NullConnection {
    type Database = Null;
    type Options = NullOptions;

    async fn close(self) -> Result<(), Error> {
        Ok(())
    }

    async fn close_hard(self) -> Result<(), Error> {
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn begin(&mut self) -> Result<Transaction<'_, Null>, Error> {
        Transaction::begin(self, None).await
    }

    fn shrink_buffers(&mut self) {}

    async fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn should_flush(&self) -> bool {
        false
    }
}

#[derive(Clone, Debug)]
pub(crate) struct NullOptions;

impl FromStr for NullOptions {
    type Err = Error;

    fn from_str(_: &str) -> Result<Self, Error> {
        Ok(Self)
    }
}

impl ConnectOptions for NullOptions {
    type Connection = NullConnection;

    fn from_url(_: &Url) -> Result<Self, Error> {
        Ok(Self)
    }

    async fn connect(&self) -> Result<NullConnection, Error> {
        Ok(NullConnection)
    }

    fn log_statements(self, _: LevelFilter) -> Self {
        self
    }

    fn log_slow_statements(self, _: LevelFilter, _: std::time::Duration) -> Self {
        self
    }
}

#[derive(Debug)]
pub(crate) struct NullTransactions;

impl TransactionManager for NullTransactions {
    type Database = Null;

    async fn begin(_: &mut NullConnection, _: Option<SqlStr>) -> Result<(), Error> {
        Ok(())
    }

    async fn commit(_: &mut NullConnection) -> Result<(), Error> {
        Ok(())
    }

    async fn rollback(_: &mut NullConnection) -> Result<(), Error> {
        Ok(())
    }

    fn start_rollback(_: &mut NullConnection) {}

    fn get_transaction_depth(_: &NullConnection) -> usize {
        0
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct NullArguments(SqliteArguments);

impl Arguments for NullArguments {
    type Database = Null;

    fn reserve(&mut self, additional: usize, size: usize) {
        self.0.reserve(additional, size);
    }

    fn add<'t, T>(&mut self, value: T) -> Result<(), BoxDynError>
    where
        T: Encode<'t, Null> + Type<Null>,
    {
        Arguments::add(&mut self.0, Through(value))
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

sqlx_core::impl_into_arguments_for_arguments!(NullArguments);

struct Through<T>(T);

impl<'t, T: Encode<'t, Null>> Encode<'t, Sqlite> for Through<T> {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        self.0.encode_by_ref(buffer)
    }
}

impl<T> Type<Sqlite> for Through<T> {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }
}

macro_rules! as_sqlite {
    ($($type:ty),*) => {$(
        impl Encode<'_, Null> for $type {
            fn encode_by_ref(
                &self,
                buffer: &mut SqliteArgumentsBuffer,
            ) -> Result<IsNull, BoxDynError> {
                <Self as Encode<'_, Sqlite>>::encode_by_ref(self, buffer)
            }
        }

        impl Type<Null> for $type {
            fn type_info() -> NullType {
                NullType
            }
        }
    )*};
}
as_sqlite!(i64, Vec<u8>, String);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NullType;

impl Display for NullType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NULL")
    }
}

impl TypeInfo for NullType {
    fn is_null(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        "NULL"
    }
}

#[derive(Debug, Default)]
pub(crate) struct NullResult;

impl Extend<Self> for NullResult {
    fn extend<I: IntoIterator<Item = Self>>(&mut self, _: I) {}
}

#[derive(Debug)]
pub(crate) struct NullRow;

impl Row for NullRow {
    type Database = Null;

    fn columns(&self) -> &[NullColumn] {
        &[]
    }

    fn try_get_raw<I: ColumnIndex<Self>>(&self, _: I) -> Result<NullValueRef, Error> {
        Err(Error::ColumnIndexOutOfBounds { index: 0, len: 0 })
    }
}

#[derive(Debug)]
pub(crate) struct NullColumn;

impl Column for NullColumn {
    type Database = Null;

    fn ordinal(&self) -> usize {
        0
    }

    fn name(&self) -> &str {
        ""
    }

    fn type_info(&self) -> &NullType {
        &NullType
    }
}

#[derive(Debug)]
pub(crate) struct NullValue;

impl Value for NullValue {
    type Database = Null;

    fn as_ref(&self) -> NullValueRef {
        NullValueRef
    }

    fn type_info(&self) -> std::borrow::Cow<'_, NullType> {
        std::borrow::Cow::Owned(NullType)
    }

    fn is_null(&self) -> bool {
        true
    }
}

#[derive(Debug)]
pub(crate) struct NullValueRef;

impl<'r> ValueRef<'r> for NullValueRef {
    type Database = Null;

    fn to_owned(&self) -> NullValue {
        NullValue
    }

    fn type_info(&self) -> std::borrow::Cow<'_, NullType> {
        std::borrow::Cow::Owned(NullType)
    }

    fn is_null(&self) -> bool {
        true
    }
}

#[derive(Clone, Debug)]
pub(crate) struct NullStatement(SqlStr);

impl Statement for NullStatement {
    type Database = Null;

    fn into_sql(self) -> SqlStr {
        self.0
    }

    fn sql(&self) -> &SqlStr {
        &self.0
    }

    fn parameters(&self) -> Option<Either<&[NullType], usize>> {
        None
    }

    fn columns(&self) -> &[NullColumn] {
        &[]
    }

    sqlx_core::impl_statement_query!(NullArguments);
}
