//! The examples in the README of sqlx 0.9, first as they stand there, and then
//! with changed imports and nothing else.

use crate::databases::Database;
use crate::tracers::default_lines;

/// Writes an example's text twice: with the imports of sqlx, and with ours.
macro_rules! with_both {
    (
        sqlx { $($theirs:item)* }
        sql_trace { $($ours:item)* }
        in { $($program:item)* }
    ) => {
        pub(crate) mod as_it_stands {
            $($theirs)*
            $($program)*
        }
        pub(crate) mod traced {
            $($ours)*
            $($program)*
        }
    };
}

mod postgres {
    with_both! {
        sqlx { use sqlx::postgres::PgPoolOptions; use sqlx::{Connection, PgConnection}; }
        sql_trace { use sql_trace::postgres::{PgConnection, PgPoolOptions}; }
        in {
            pub(crate) async fn main(url: &str) -> Result<(), sqlx::Error> {
                let pool = PgPoolOptions::new()
                    .max_connections(5)
                    .connect(url).await?;

                let row: (i64,) = sqlx::query_as("SELECT $1")
                    .bind(150_i64)
                    .fetch_one(&pool).await?;

                assert_eq!(row.0, 150);

                let mut conn = PgConnection::connect(url).await?;
                super::super::conversation!(&mut conn, &pool, "$1", sqlx::postgres::PgRow);
                Ok(())
            }
        }
    }
}

mod sqlite {
    with_both! {
        sqlx { use sqlx::sqlite::SqlitePoolOptions; use sqlx::{Connection, SqliteConnection}; }
        sql_trace { use sql_trace::sqlite::{SqliteConnection, SqlitePoolOptions}; }
        in {
            pub(crate) async fn main(url: &str) -> Result<(), sqlx::Error> {
                let pool = SqlitePoolOptions::new()
                    .max_connections(5)
                    .connect(url).await?;

                let row: (i64,) = sqlx::query_as("SELECT ?")
                    .bind(150_i64)
                    .fetch_one(&pool).await?;

                assert_eq!(row.0, 150);

                let mut conn = SqliteConnection::connect(url).await?;
                super::super::conversation!(&mut conn, &pool, "?", sqlx::sqlite::SqliteRow);
                Ok(())
            }
        }
    }
}

mod mysql {
    with_both! {
        sqlx { use sqlx::mysql::MySqlPoolOptions; use sqlx::{Connection, MySqlConnection}; }
        sql_trace { use sql_trace::mysql::{MySqlConnection, MySqlPoolOptions}; }
        in {
            pub(crate) async fn main(url: &str) -> Result<(), sqlx::Error> {
                let pool = MySqlPoolOptions::new()
                    .max_connections(5)
                    .connect(url).await?;

                let row: (i64,) = sqlx::query_as("SELECT ?")
                    .bind(150_i64)
                    .fetch_one(&pool).await?;

                assert_eq!(row.0, 150);

                let mut conn = MySqlConnection::connect(url).await?;
                super::super::conversation!(&mut conn, &pool, "?", sqlx::mysql::MySqlRow);
                Ok(())
            }
        }
    }
}

/// The README's section "Querying", as one program.
macro_rules! conversation {
    ($conn:expr, $pool:expr, $placeholder:literal, $row:ty) => {{
        use futures_util::TryStreamExt;
        use sqlx::{Executor, Row};

        let (conn, pool) = ($conn, $pool);
        conn.execute("CREATE TABLE users (id INT, email VARCHAR(100), name VARCHAR(100))")
            .await?;
        conn.execute(sqlx::raw_sql("DELETE FROM users")).await?;
        sqlx::query(concat!(
            "INSERT INTO users VALUES (1, ",
            $placeholder,
            ", 'Ann')"
        ))
        .bind("ann@example.org")
        .execute(pool)
        .await?;

        let email = "ann@example.org";
        let mut rows = sqlx::query(concat!("SELECT * FROM users WHERE email = ", $placeholder))
            .bind(email)
            .fetch(&mut *conn);
        while let Some(row) = rows.try_next().await? {
            let email: &str = row.try_get("email")?;
            assert_eq!(email, "ann@example.org");
        }
        drop(rows);

        let mut stream = sqlx::query("SELECT * FROM users")
            .map(|row: $row| row.get::<String, _>("name"))
            .fetch(&mut *conn);
        while let Some(name) = stream.try_next().await? {
            assert_eq!(name, "Ann");
        }
        drop(stream);

        #[derive(sqlx::FromRow)]
        struct User {
            name: String,
            id: i32,
        }

        let mut stream = sqlx::query_as::<_, User>(concat!(
            "SELECT * FROM users WHERE email = ",
            $placeholder,
            " OR name = 'x'"
        ))
        .bind(email)
        .fetch(&mut *conn);
        let user = stream.try_next().await?.expect("a user");
        assert_eq!((user.id, user.name.as_str()), (1, "Ann"));
        drop(stream);
        conn.execute("DROP TABLE users").await?;
    }};
}
pub(crate) use conversation;

macro_rules! test {
    ($name:ident, $database:ident, $type:ty) => {
        #[tokio::test]
        async fn $name() {
            let Some(scratch) = <$type>::scratch(stringify!($name)).await else {
                return;
            };
            $database::as_it_stands::main(&scratch.url).await.unwrap();
            default_lines();
            $database::traced::main(&scratch.url).await.unwrap();
            let insert = <$type>::words(
                "Exec: INSERT INTO users VALUES (1, {1}, 'Ann'); args = [text(15)] (T)",
            );
            assert!(default_lines().contains(&insert));
        }
    };
}

test!(
    readme_of_sqlx_runs_with_changed_imports_on_sqlite,
    sqlite,
    sqlx::Sqlite
);
test!(
    readme_of_sqlx_runs_with_changed_imports_on_postgres,
    postgres,
    sqlx::Postgres
);
test!(
    readme_of_sqlx_runs_with_changed_imports_on_mysql,
    mysql,
    sqlx::MySql
);
