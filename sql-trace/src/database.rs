use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use sqlx::{Connection, Database, Describe, Either, Error, Execute, SqlStr};

use crate::args::ArgSource;
use crate::event::Target;

/// A database whose statements can be traced: `Sqlite`, `Postgres` and `MySql`,
/// each behind the feature of its name.
///
/// The methods hand over to the driver. They are written once for each
/// database because a bound `for<'c> &'c mut DB::Connection: Executor<'c>` in
/// generic code overflows the compiler's trait solver, as sqlx notes itself.
pub trait TraceDatabase: Database {
    /// Arguments as they are kept until the statement has ended.
    #[doc(hidden)]
    type Captured: ArgSource + 'static;

    #[doc(hidden)]
    fn target(options: &<Self::Connection as Connection>::Options) -> Target;

    #[doc(hidden)]
    fn capture(args: &mut Self::Arguments) -> Self::Captured;

    #[doc(hidden)]
    fn rows_affected(result: &Self::QueryResult) -> u64;

    #[doc(hidden)]
    fn fetch_many<'e, 'q: 'e, E>(
        connection: &'e mut Self::Connection,
        query: E,
    ) -> BoxStream<'e, Result<Step<Self>, Error>>
    where
        E: 'q + Execute<'q, Self>;

    #[doc(hidden)]
    fn fetch_optional<'e, 'q: 'e, E>(
        connection: &'e mut Self::Connection,
        query: E,
    ) -> BoxFuture<'e, Result<Option<Self::Row>, Error>>
    where
        E: 'q + Execute<'q, Self>;

    #[doc(hidden)]
    fn prepare_with<'e>(
        connection: &'e mut Self::Connection,
        sql: SqlStr,
        parameters: &'e [Self::TypeInfo],
    ) -> BoxFuture<'e, Result<Self::Statement, Error>>;

    #[doc(hidden)]
    fn describe<'e>(
        connection: &'e mut Self::Connection,
        sql: SqlStr,
    ) -> BoxFuture<'e, Result<Describe<Self>, Error>>;
}

/// What a statement gives: rows, and a result at the end of each set of rows.
pub(crate) type Step<DB> = Either<<DB as Database>::QueryResult, <DB as Database>::Row>;

#[cfg(any(
    feature = "any",
    feature = "mysql",
    feature = "postgres",
    feature = "sqlite"
))]
macro_rules! hand_over {
    () => {
        fn rows_affected(result: &Self::QueryResult) -> u64 {
            result.rows_affected()
        }

        fn fetch_many<'e, 'q: 'e, E>(
            connection: &'e mut Self::Connection,
            query: E,
        ) -> BoxStream<'e, Result<Step<Self>, Error>>
        where
            E: 'q + Execute<'q, Self>,
        {
            sqlx::Executor::fetch_many(connection, query)
        }

        fn fetch_optional<'e, 'q: 'e, E>(
            connection: &'e mut Self::Connection,
            query: E,
        ) -> BoxFuture<'e, Result<Option<Self::Row>, Error>>
        where
            E: 'q + Execute<'q, Self>,
        {
            sqlx::Executor::fetch_optional(connection, query)
        }

        fn prepare_with<'e>(
            connection: &'e mut Self::Connection,
            sql: SqlStr,
            parameters: &'e [Self::TypeInfo],
        ) -> BoxFuture<'e, Result<Self::Statement, Error>> {
            sqlx::Executor::prepare_with(connection, sql, parameters)
        }

        fn describe<'e>(
            connection: &'e mut Self::Connection,
            sql: SqlStr,
        ) -> BoxFuture<'e, Result<Describe<Self>, Error>> {
            sqlx::Executor::describe(connection, sql)
        }
    };
}

#[cfg(feature = "sqlite")]
impl TraceDatabase for sqlx::Sqlite {
    type Captured = crate::args::SqliteCaptured;

    fn target(options: &sqlx::sqlite::SqliteConnectOptions) -> Target {
        Target {
            name: Self::NAME,
            namespace: Some(options.get_filename().to_string_lossy().into_owned()),
            ..Target::default()
        }
    }

    fn capture(args: &mut Self::Arguments) -> Self::Captured {
        crate::args::SqliteCaptured::of(args)
    }

    hand_over!();
}

#[cfg(feature = "postgres")]
impl TraceDatabase for sqlx::Postgres {
    type Captured = sqlx::postgres::PgArguments;

    fn target(options: &sqlx::postgres::PgConnectOptions) -> Target {
        let socket = options.get_socket().map(|path| path.to_string_lossy());
        Target {
            name: Self::NAME,
            // The server's rule for a connection that names none.
            namespace: Some(
                options
                    .get_database()
                    .unwrap_or(options.get_username())
                    .to_owned(),
            ),
            port: socket.is_none().then(|| options.get_port()),
            address: Some(socket.as_deref().unwrap_or(options.get_host()).to_owned()),
        }
    }

    fn capture(args: &mut Self::Arguments) -> Self::Captured {
        args.clone()
    }

    hand_over!();
}

#[cfg(feature = "mysql")]
impl TraceDatabase for sqlx::MySql {
    type Captured = sqlx::mysql::MySqlArguments;

    fn target(options: &sqlx::mysql::MySqlConnectOptions) -> Target {
        let socket = options.get_socket().map(|path| path.to_string_lossy());
        Target {
            name: Self::NAME,
            namespace: options.get_database().map(ToOwned::to_owned),
            port: socket.is_none().then(|| options.get_port()),
            address: Some(socket.as_deref().unwrap_or(options.get_host()).to_owned()),
        }
    }

    fn capture(args: &mut Self::Arguments) -> Self::Captured {
        args.clone()
    }

    hand_over!();
}

#[cfg(feature = "any")]
impl TraceDatabase for sqlx::Any {
    type Captured = crate::args::AnyCaptured;

    fn target(options: &sqlx::any::AnyConnectOptions) -> Target {
        let url = &options.database_url;
        let scheme = url.scheme();
        let name = match scheme.strip_suffix(crate::any::TRACED).unwrap_or(scheme) {
            "sqlite" => "SQLite",
            "postgres" | "postgresql" => "PostgreSQL",
            "mysql" | "mariadb" => "MySQL",
            _ => Self::NAME,
        };
        Target {
            name,
            namespace: Some(url.path().trim_start_matches('/').to_owned()),
            address: url.host_str().map(ToOwned::to_owned),
            port: url.port(),
        }
    }

    fn capture(args: &mut Self::Arguments) -> Self::Captured {
        crate::args::AnyCaptured::of(args)
    }

    hand_over!();
}
