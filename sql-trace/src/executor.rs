//! The one path that every statement takes.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::future::BoxFuture;
use futures_core::stream::{BoxStream, Stream};
use pin_project_lite::pin_project;
use sqlx::pool::PoolConnection;
use sqlx::{Describe, Either, Error, Execute, Executor, SqlStr};

use crate::acquire::Acquire;
use crate::connection::{TracedConnection, TracedPoolConnection};
use crate::database::{Step, TraceDatabase};
use crate::event::{ConnectionId, Op};
use crate::handed::{Handed, Slot};
use crate::pool::{Shared, TracedPool};
use crate::span::Span;
use crate::subject::Subject;
use crate::transaction::TracedTransaction;

impl<'c, DB: TraceDatabase> Executor<'c> for &'c mut TracedConnection<'_, DB> {
    type Database = DB;

    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<DB::QueryResult, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let (steps, span) = self.on().many(Op::Exec, query);
        Box::pin(drain(steps, span))
    }

    fn execute_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<DB::QueryResult, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let (steps, span) = self.on().many(Op::Exec, query);
        Box::pin(Results {
            steps: Steps { steps, span },
        })
    }

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step<DB>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, DB>,
    {
        match self.on().many(Op::Query, query) {
            (steps, None) => steps,
            (steps, span) => Box::pin(Steps { steps, span }),
        }
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<DB::Row>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let (steps, span) = self.on().many(Op::Query, query);
        Box::pin(collect(steps, span))
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<DB::Row>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let On { raw, subject, id } = self.on();
        let Some(interest) = subject.interest(Op::Query) else {
            return DB::fetch_optional(raw, query);
        };
        let (span, parts) = Span::of_query(subject, interest, Op::Query, query);
        Box::pin(Spanned {
            inner: DB::fetch_optional(raw, parts),
            span: span.on(id),
            finish: |span, result| span.finish_optional(result.map(Option::is_some)),
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
    ) -> BoxFuture<'e, Result<DB::Statement, Error>>
    where
        'c: 'e,
    {
        let On { raw, subject, id } = self.on();
        let Some(interest) = subject.interest(Op::Prepare) else {
            return DB::prepare_with(raw, sql, parameters);
        };
        Box::pin(Spanned::<DB, _> {
            span: Span::of_text(subject, interest, Op::Prepare, sql.clone()).on(id),
            inner: DB::prepare_with(raw, sql, parameters),
            finish: |span, result| span.finish(result.map(drop)),
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<DB>, Error>>
    where
        'c: 'e,
    {
        let On { raw, subject, id } = self.on();
        let Some(interest) = subject.interest(Op::Describe) else {
            return DB::describe(raw, sql);
        };
        Box::pin(Spanned::<DB, _> {
            span: Span::of_text(subject, interest, Op::Describe, sql.clone()).on(id),
            inner: DB::describe(raw, sql),
            finish: |span, result| span.finish(result.map(drop)),
        })
    }
}

/// The two that dereference to a connection run their statements on it.
macro_rules! through_connection {
    ([$($generics:tt)*] $executor:ty) => {
        impl<$($generics)*> Executor<'t> for $executor {
            type Database = DB;

            fn execute<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxFuture<'e, Result<DB::QueryResult, Error>>
            where
                't: 'e,
                E: 'q + Execute<'q, DB>,
            {
                Executor::execute(&mut **self, query)
            }

            fn execute_many<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxStream<'e, Result<DB::QueryResult, Error>>
            where
                't: 'e,
                E: 'q + Execute<'q, DB>,
            {
                Executor::execute_many(&mut **self, query)
            }

            fn fetch_many<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxStream<'e, Result<Step<DB>, Error>>
            where
                't: 'e,
                E: 'q + Execute<'q, DB>,
            {
                Executor::fetch_many(&mut **self, query)
            }

            fn fetch_all<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxFuture<'e, Result<Vec<DB::Row>, Error>>
            where
                't: 'e,
                E: 'q + Execute<'q, DB>,
            {
                Executor::fetch_all(&mut **self, query)
            }

            fn fetch_optional<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxFuture<'e, Result<Option<DB::Row>, Error>>
            where
                't: 'e,
                E: 'q + Execute<'q, DB>,
            {
                Executor::fetch_optional(&mut **self, query)
            }

            fn prepare_with<'e>(
                self,
                sql: SqlStr,
                parameters: &'e [DB::TypeInfo],
            ) -> BoxFuture<'e, Result<DB::Statement, Error>>
            where
                't: 'e,
            {
                Executor::prepare_with(&mut **self, sql, parameters)
            }

            fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<DB>, Error>>
            where
                't: 'e,
            {
                Executor::describe(&mut **self, sql)
            }
        }
    };
}

through_connection!(['t, 'c, DB: TraceDatabase] &'t mut TracedTransaction<'c, DB>);
through_connection!(['t, DB: TraceDatabase] &'t mut TracedPoolConnection<DB>);

impl<'p, DB: TraceDatabase> Executor<'p> for &'_ TracedPool<DB> {
    type Database = DB;

    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<DB::QueryResult, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let pool = self.shared();
        Box::pin(async move {
            let Some(interest) = pool.subject.interest(Op::Exec) else {
                let mut connection = pool.quietly_acquired().await?;
                return drain::<DB>(DB::fetch_many(&mut connection, query), None).await;
            };
            let (span, parts) = Span::of_query(&pool.subject, interest, Op::Exec, query);
            let mut span = span.waiting();
            let mut connection = pool.acquired_for(&mut span).await?;
            drain(DB::fetch_many(&mut connection, parts), Some(span)).await
        })
    }

    fn execute_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<DB::QueryResult, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        Box::pin(Results {
            steps: pool_stream(self.shared(), Op::Exec, query),
        })
    }

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step<DB>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        Box::pin(pool_stream(self.shared(), Op::Query, query))
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<DB::Row>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let pool = self.shared();
        Box::pin(async move {
            let Some(interest) = pool.subject.interest(Op::Query) else {
                let mut connection = pool.quietly_acquired().await?;
                return collect::<DB>(DB::fetch_many(&mut connection, query), None).await;
            };
            let (span, parts) = Span::of_query(&pool.subject, interest, Op::Query, query);
            let mut span = span.waiting();
            let mut connection = pool.acquired_for(&mut span).await?;
            collect(DB::fetch_many(&mut connection, parts), Some(span)).await
        })
    }

    fn fetch_one<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<DB::Row, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let pool = self.shared();
        Box::pin(async move { pool.fetch_optional(query).await?.ok_or(Error::RowNotFound) })
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<DB::Row>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let pool = self.shared();
        Box::pin(async move { pool.fetch_optional(query).await })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
    ) -> BoxFuture<'e, Result<DB::Statement, Error>>
    where
        'p: 'e,
    {
        let pool = self.shared();
        Box::pin(async move {
            let Some(interest) = pool.subject.interest(Op::Prepare) else {
                let mut connection = pool.quietly_acquired().await?;
                return DB::prepare_with(&mut connection, sql, parameters).await;
            };
            let mut span =
                Span::of_text(&pool.subject, interest, Op::Prepare, sql.clone()).waiting();
            let mut connection = pool.acquired_for(&mut span).await?;
            let result = DB::prepare_with(&mut connection, sql, parameters).await;
            span.finish(result.as_ref().map(drop));
            result
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<DB>, Error>>
    where
        'p: 'e,
    {
        let pool = self.shared();
        Box::pin(async move {
            let Some(interest) = pool.subject.interest(Op::Describe) else {
                let mut connection = pool.quietly_acquired().await?;
                return DB::describe(&mut connection, sql).await;
            };
            let mut span =
                Span::of_text(&pool.subject, interest, Op::Describe, sql.clone()).waiting();
            let mut connection = pool.acquired_for(&mut span).await?;
            let result = DB::describe(&mut connection, sql).await;
            span.finish(result.as_ref().map(drop));
            result
        })
    }
}

impl<DB: TraceDatabase> Shared<DB> {
    async fn fetch_optional<'q, E>(&self, query: E) -> Result<Option<DB::Row>, Error>
    where
        E: 'q + Execute<'q, DB>,
    {
        let Some(interest) = self.subject.interest(Op::Query) else {
            let mut connection = self.quietly_acquired().await?;
            return DB::fetch_optional(&mut connection, query).await;
        };
        let (span, parts) = Span::of_query(&self.subject, interest, Op::Query, query);
        let mut span = span.waiting();
        let mut connection = self.acquired_for(&mut span).await?;
        let result = DB::fetch_optional(&mut connection, parts).await;
        span.finish_optional(result.as_ref().map(Option::is_some));
        result
    }

    /// Takes a connection for a statement that nobody wants to hear of.
    async fn quietly_acquired(&self) -> Result<PoolConnection<DB>, Error> {
        if !self.subject.enabled(Op::Open) {
            return self.pool.acquire().await;
        }
        let mut acquire = Acquire::begin();
        let result = acquire.run(self.pool.acquire()).await;
        if let Err(e) = &result {
            acquire.tell_if_failed_open(&self.subject, e);
        }
        result
    }

    /// Takes a connection for the statement of `span`.
    async fn acquired_for(&self, span: &mut Span<'_, DB>) -> Result<PoolConnection<DB>, Error> {
        let mut acquire = Acquire::begun_at(span.start());
        let result = acquire.run(self.pool.acquire()).await;
        match &result {
            Ok(_) => span.acquired(&acquire),
            Err(e) => {
                acquire.tell_if_failed_open(&self.subject, e);
                span.finish(result.as_ref().map(drop));
            }
        }
        result
    }
}

pub(crate) type StepStream<'e, DB> = BoxStream<'e, Result<Step<DB>, Error>>;

/// Where a statement runs, and who is told.
pub(crate) struct On<'e, DB: TraceDatabase> {
    pub(crate) raw: &'e mut DB::Connection,
    pub(crate) subject: &'e Arc<Subject>,
    pub(crate) id: Option<ConnectionId>,
}

impl<'e, DB: TraceDatabase> On<'e, DB> {
    /// The steps of a statement, and its span, if anybody wants one.
    #[inline]
    fn many<'q: 'e, E>(self, op: Op, query: E) -> (StepStream<'e, DB>, Option<Span<'e, DB>>)
    where
        E: 'q + Execute<'q, DB>,
    {
        match self.subject.interest(op) {
            None => (DB::fetch_many(self.raw, query), None),
            Some(interest) => {
                let (span, parts) = Span::of_query(self.subject, interest, op, query);
                (DB::fetch_many(self.raw, parts), Some(span.on(self.id)))
            }
        }
    }
}

/// Runs a statement to its end for its result.
async fn drain<DB: TraceDatabase>(
    mut steps: StepStream<'_, DB>,
    mut span: Option<Span<'_, DB>>,
) -> Result<DB::QueryResult, Error> {
    if let Some(span) = &mut span {
        span.start();
    }
    let mut total = DB::QueryResult::default();
    let result = loop {
        match next(&mut steps).await {
            Some(Ok(Either::Left(result))) => {
                if let Some(span) = &mut span {
                    span.result(&result);
                }
                total.extend([result]);
            }
            Some(Ok(Either::Right(_))) => {
                if let Some(span) = &mut span {
                    span.row_kept();
                }
            }
            Some(Err(e)) => break Err(e),
            None => break Ok(total),
        }
    };
    if let Some(span) = &mut span {
        span.finish(result.as_ref().map(drop));
    }
    result
}

/// Runs a statement to its end for its rows.
async fn collect<DB: TraceDatabase>(
    mut steps: StepStream<'_, DB>,
    mut span: Option<Span<'_, DB>>,
) -> Result<Vec<DB::Row>, Error> {
    if let Some(span) = &mut span {
        span.start();
    }
    let mut rows = Vec::new();
    let result = loop {
        match next(&mut steps).await {
            Some(Ok(Either::Left(_))) => {}
            Some(Ok(Either::Right(row))) => {
                if let Some(span) = &mut span {
                    span.row_kept();
                }
                rows.push(row);
            }
            Some(Err(e)) => break Err(e),
            None => break Ok(rows),
        }
    };
    if let Some(span) = &mut span {
        span.finish(result.as_ref().map(drop));
    }
    result
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

/// A future of the driver's, with the span that it ends.
pub(crate) struct Spanned<'e, DB: TraceDatabase, T> {
    // Above the span, so that the driver has let go before the end is told.
    pub(crate) inner: BoxFuture<'e, Result<T, Error>>,
    pub(crate) span: Span<'e, DB>,
    pub(crate) finish: fn(&mut Span<'e, DB>, Result<&T, &Error>),
}

// Nothing in it is pinned but what the box holds.
impl<DB: TraceDatabase, T> Unpin for Spanned<'_, DB, T> {}

impl<DB: TraceDatabase, T> Future for Spanned<'_, DB, T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.span.start();
        let result = ready!(this.inner.as_mut().poll(cx));
        (this.finish)(&mut this.span, result.as_ref());
        Poll::Ready(result)
    }
}

/// A stream of the driver's, with the span that it ends.
pub(crate) struct Steps<'e, DB: TraceDatabase> {
    // Above the span, so that the driver has let go before the end is told.
    pub(crate) steps: StepStream<'e, DB>,
    pub(crate) span: Option<Span<'e, DB>>,
}

// Nothing in it is pinned but what the box holds.
impl<DB: TraceDatabase> Unpin for Steps<'_, DB> {}

impl<DB: TraceDatabase> Stream for Steps<'_, DB> {
    type Item = Result<Step<DB>, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(span) = &mut this.span else {
            return this.steps.as_mut().poll_next(cx);
        };
        span.start();
        span.reader_is_back();
        let item = ready!(this.steps.as_mut().poll_next(cx));
        match &item {
            Some(Ok(step)) => span.step(step),
            Some(Err(e)) => span.finish(Err(e)),
            None => span.finish(Ok(())),
        }
        Poll::Ready(item)
    }
}

/// A stream of a statement on a pool: the connection that the rows borrow from
/// must live as long as they, which an `async` block can do and a struct not.
fn pool_stream<'e, 'q: 'e, DB, E>(
    pool: Arc<Shared<DB>>,
    op: Op,
    query: E,
) -> impl Stream<Item = Result<Step<DB>, Error>> + Send + 'e
where
    DB: TraceDatabase,
    E: 'q + Execute<'q, DB>,
{
    let slot = Slot::empty();
    let filled = Arc::clone(&slot);
    let run = async move {
        let Some(interest) = pool.subject.interest(op) else {
            let mut connection = pool.quietly_acquired().await?;
            let mut steps = DB::fetch_many(&mut connection, query);
            while let Some(step) = next(&mut steps).await {
                filled.hand_out(step?).await;
            }
            return Ok(());
        };
        let (span, parts) = Span::of_query(&pool.subject, interest, op, query);
        let mut span = span.waiting();
        let mut connection = pool.acquired_for(&mut span).await?;
        let mut steps = DB::fetch_many(&mut connection, parts);
        while let Some(step) = next(&mut steps).await {
            match step {
                Ok(step) => {
                    span.step(&step);
                    filled.hand_out(step).await;
                    span.reader_is_back();
                }
                Err(e) => {
                    span.finish(Err(&e));
                    return Err(e);
                }
            }
        }
        span.finish(Ok(()));
        Ok(())
    };
    Handed::new(run, slot)
}

pin_project! {
    /// The results of a stream without its rows.
    struct Results<S> {
        #[pin]
        steps: S,
    }
}

impl<S, R, T> Stream for Results<S>
where
    S: Stream<Item = Result<Either<R, T>, Error>>,
{
    type Item = Result<R, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut steps = self.project().steps;
        loop {
            match ready!(steps.as_mut().poll_next(cx)) {
                Some(Ok(Either::Right(_))) => {}
                Some(Ok(Either::Left(result))) => return Poll::Ready(Some(Ok(result))),
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                None => return Poll::Ready(None),
            }
        }
    }
}
