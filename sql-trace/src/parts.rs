use std::marker::PhantomData;

use sqlx::error::BoxDynError;
use sqlx::{Execute, SqlStr, Statement};

use crate::database::TraceDatabase;

/// A query taken apart, so that its text and arguments can be looked at, and
/// put together again for the driver.
pub(crate) struct Parts<DB: TraceDatabase, E> {
    source: Source<E>,
    pub(crate) arguments: Result<Option<DB::Arguments>, BoxDynError>,
    persistent: bool,
    database: PhantomData<fn() -> DB>,
}

enum Source<E> {
    /// Keeps its prepared statement, whose borrow ends with it.
    Prepared(E),
    Text(SqlStr),
}

impl<DB: TraceDatabase, E> Parts<DB, E> {
    /// Takes a query apart, and gives its text apart from it.
    #[inline]
    pub(crate) fn of<'q>(mut query: E) -> (SqlStr, Self)
    where
        E: Execute<'q, DB>,
    {
        // The order matters: `persistent` of a mapped query is only right
        // after its arguments were taken, as drivers do, and `sql` consumes.
        let arguments = query.take_arguments();
        let persistent = query.persistent();
        let (text, source) = match query.statement().map(|statement| statement.sql().clone()) {
            Some(text) => (text, Source::Prepared(query)),
            None => {
                let text = query.sql();
                (text.clone(), Source::Text(text))
            }
        };
        let parts = Self {
            source,
            arguments,
            persistent,
            database: PhantomData,
        };
        (text, parts)
    }
}

impl<'q, DB, E> Execute<'q, DB> for Parts<DB, E>
where
    DB: TraceDatabase,
    E: Execute<'q, DB>,
{
    #[inline]
    fn sql(self) -> SqlStr {
        match self.source {
            Source::Prepared(query) => query.sql(),
            Source::Text(text) => text,
        }
    }

    #[inline]
    fn statement(&self) -> Option<&DB::Statement> {
        match &self.source {
            Source::Prepared(query) => query.statement(),
            Source::Text(_) => None,
        }
    }

    #[inline]
    fn take_arguments(&mut self) -> Result<Option<DB::Arguments>, BoxDynError> {
        std::mem::replace(&mut self.arguments, Ok(None))
    }

    #[inline]
    fn persistent(&self) -> bool {
        self.persistent
    }
}
