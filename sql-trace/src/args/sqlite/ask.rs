use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Error, Row};

use super::SqliteCaptured;
use crate::args::{ArgValue, Undecodable};
use crate::block_on::block_on;

/// Asks SQLite itself what some arguments are: kind, size, and as much of the
/// value as is wanted. It answers within a fraction of a millisecond for large
/// ones, which take many milliseconds to be printed.
///
/// It is asked on a connection of its own, to a database in memory that stays
/// empty.
pub(super) fn ask(
    args: &SqliteCaptured,
    limit: usize,
    each: &mut dyn FnMut(ArgValue<'_>),
) -> Result<(), Undecodable> {
    static CONNECTION: Mutex<Option<SqliteConnection>> = Mutex::new(None);

    let mut kept = CONNECTION.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = block_on(async {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => {
                let memory = SqliteConnectOptions::new().in_memory(true);
                let quiet = memory.disable_statement_logging();
                SqliteConnection::connect_with(&quiet).await?
            }
        };
        let answer = values(&mut connection, args, limit).await?;
        *kept = Some(connection);
        Ok::<_, Error>(answer)
    });
    for value in answer.map_err(|_| Undecodable)? {
        each(value);
    }
    Ok(())
}

async fn values(
    connection: &mut SqliteConnection,
    args: &SqliteCaptured,
    limit: usize,
) -> Result<Vec<ArgValue<'static>>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut sql = String::from("VALUES ");
    for at in 1..=args.count {
        let comma = if at > 1 { "," } else { "" };
        // Of a text, too, the bytes are wanted, not the characters.
        sql.push_str(&format!(
            "{comma}(typeof(?{at}),\
             CASE WHEN typeof(?{at}) IN ('integer','real') THEN ?{at} \
             ELSE length(CAST(?{at} AS BLOB)) END,\
             CASE WHEN typeof(?{at}) IN ('text','blob') \
             THEN substr(CAST(?{at} AS BLOB),1,{limit}) END)"
        ));
    }
    let query = sqlx::query_with(AssertSqlSafe(sql), args.to_arguments()).persistent(false);
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(value).collect()
}

fn value(row: &SqliteRow) -> Result<ArgValue<'static>, Error> {
    let kind: String = row.try_get(0)?;
    // A column of `VALUES` has no type of its own to be checked against.
    let len = || {
        row.try_get_unchecked::<i64, _>(1)
            .map(|len| len.unsigned_abs() as usize)
    };
    let bytes = || row.try_get_unchecked::<Vec<u8>, _>(2);
    Ok(match kind.as_str() {
        "null" => ArgValue::Null,
        "integer" => ArgValue::Int(row.try_get_unchecked(1)?),
        "real" => ArgValue::Float(row.try_get_unchecked(1)?),
        "text" => {
            let bytes = bytes()?;
            // The limit may have cut a character.
            let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            ArgValue::Text {
                text: Cow::Owned(text.to_owned()),
                len: Some(len()?),
            }
        }
        _ => ArgValue::Bytes {
            bytes: Cow::Owned(bytes()?),
            len: Some(len()?),
        },
    })
}
