use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use sqlx::any::{AnyArguments, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::{Any, Describe, Either, Error, SqlStr};
use sqlx_core::any::AnyConnectionBackend;

use super::through::TraceAny;
use crate::event::{ConnectionId, Op};
use crate::executor::{Spanned, Steps};
use crate::operation::Operation;
use crate::span::Span;
use crate::sql::Dialect;
use crate::statement;
use crate::subject::Subject;

/// A connection of sqlx's driver that tells what is done with it.
pub(crate) struct Traced<DB: TraceAny> {
    raw: DB::Connection,
    told: Told,
}

/// Who is told of a connection; tells of its end if nobody closes it.
struct Told {
    subject: Arc<Subject>,
    id: Option<ConnectionId>,
    closed: bool,
}

impl Drop for Told {
    fn drop(&mut self) {
        if !self.closed {
            self.subject
                .tell_on_drop(Op::Close, self.id, std::time::Duration::ZERO);
        }
    }
}

impl<DB: TraceAny> Traced<DB> {
    pub(crate) fn new(
        raw: DB::Connection,
        subject: Arc<Subject>,
        id: Option<ConnectionId>,
    ) -> Self {
        let told = Told {
            subject,
            id,
            closed: false,
        };
        Self { raw, told }
    }

    /// The operation, or the one that corresponds to it inside a transaction.
    fn at_depth(&self, outermost: usize, op: Op, nested: Op) -> Op {
        if self.raw.get_transaction_depth() > outermost {
            nested
        } else {
            op
        }
    }

    fn op_of(&self, text: &SqlStr) -> Op {
        let dialect = Dialect::of(self.told.subject.target.name);
        if statement::changes_rows(text.as_str(), dialect) {
            Op::Exec
        } else {
            Op::Query
        }
    }
}

/// Awaits `$future`, which is told as `$op`.
macro_rules! told {
    ($told:expr, $op:expr, $statement:expr, $future:expr) => {{
        let mut operation = Operation::begin(&$told.subject, $op, $told.id).statement($statement);
        let result = $future.await;
        operation.finish(result.as_ref().map(drop));
        result
    }};
}

impl<DB: TraceAny> AnyConnectionBackend for Traced<DB> {
    fn name(&self) -> &str {
        self.raw.name()
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        let Self { raw, mut told } = *self;
        told.closed = true;
        Box::pin(async move { told!(told, Op::Close, None, Box::new(raw).close()) })
    }

    fn close_hard(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        let Self { raw, mut told } = *self;
        told.closed = true;
        Box::pin(async move { told!(told, Op::Close, None, Box::new(raw).close_hard()) })
    }

    /// Tells of a ping that failed. The others are the pool's, which pings
    /// before each statement and after it.
    fn ping(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            let mut operation = Operation::begin(&self.told.subject, Op::Ping, self.told.id);
            let result = AnyConnectionBackend::ping(&mut self.raw).await;
            if result.is_ok() {
                operation.forget();
            }
            operation.finish(result.as_ref().map(drop));
            result
        })
    }

    fn begin(&mut self, statement: Option<SqlStr>) -> BoxFuture<'_, Result<(), Error>> {
        let op = self.at_depth(0, Op::Begin, Op::Savepoint);
        Box::pin(async move {
            let begin = AnyConnectionBackend::begin(&mut self.raw, statement.clone());
            told!(self.told, op, statement, begin)
        })
    }

    fn commit(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        let op = self.at_depth(1, Op::Commit, Op::Release);
        Box::pin(async move { told!(self.told, op, None, self.raw.commit()) })
    }

    fn rollback(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        let op = self.at_depth(1, Op::Rollback, Op::RollbackTo);
        Box::pin(async move { told!(self.told, op, None, self.raw.rollback()) })
    }

    fn start_rollback(&mut self) {
        let op = self.at_depth(1, Op::Rollback, Op::RollbackTo);
        let started = Instant::now();
        self.raw.start_rollback();
        let Told { subject, id, .. } = &self.told;
        subject.tell_on_drop(op, *id, started.elapsed());
    }

    fn get_transaction_depth(&self) -> usize {
        self.raw.get_transaction_depth()
    }

    fn cached_statements_size(&self) -> usize {
        AnyConnectionBackend::cached_statements_size(&self.raw)
    }

    fn clear_cached_statements(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        AnyConnectionBackend::clear_cached_statements(&mut self.raw)
    }

    fn shrink_buffers(&mut self) {
        AnyConnectionBackend::shrink_buffers(&mut self.raw);
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        AnyConnectionBackend::flush(&mut self.raw)
    }

    fn should_flush(&self) -> bool {
        AnyConnectionBackend::should_flush(&self.raw)
    }

    fn fetch_many(
        &mut self,
        text: SqlStr,
        persistent: bool,
        mut arguments: Option<AnyArguments>,
    ) -> BoxStream<'_, Result<Either<AnyQueryResult, AnyRow>, Error>> {
        let op = self.op_of(&text);
        let Told { subject, id, .. } = &self.told;
        let span = subject.interest(op).map(|interest| {
            let args = arguments.as_mut();
            Span::<Any>::of_arguments(subject, interest, op, text.clone(), args).on(*id)
        });
        let steps = self.raw.fetch_many(text, persistent, arguments);
        Box::pin(Steps { steps, span })
    }

    fn fetch_optional(
        &mut self,
        text: SqlStr,
        persistent: bool,
        mut arguments: Option<AnyArguments>,
    ) -> BoxFuture<'_, Result<Option<AnyRow>, Error>> {
        let op = self.op_of(&text);
        let Told { subject, id, .. } = &self.told;
        let Some(interest) = subject.interest(op) else {
            return self.raw.fetch_optional(text, persistent, arguments);
        };
        let args = arguments.as_mut();
        let span = Span::<Any>::of_arguments(subject, interest, op, text.clone(), args);
        Box::pin(Spanned {
            inner: self.raw.fetch_optional(text, persistent, arguments),
            span: span.on(*id),
            finish: |span, result| span.finish_optional(result.map(Option::is_some)),
        })
    }

    fn prepare_with<'c, 'q: 'c>(
        &'c mut self,
        text: SqlStr,
        parameters: &[AnyTypeInfo],
    ) -> BoxFuture<'c, Result<AnyStatement, Error>> {
        let Told { subject, id, .. } = &self.told;
        let Some(interest) = subject.interest(Op::Prepare) else {
            return self.raw.prepare_with(text, parameters);
        };
        Box::pin(Spanned::<Any, _> {
            span: Span::of_text(subject, interest, Op::Prepare, text.clone()).on(*id),
            inner: self.raw.prepare_with(text, parameters),
            finish: |span, result| span.finish(result.map(drop)),
        })
    }

    fn describe(&mut self, text: SqlStr) -> BoxFuture<'_, Result<Describe<Any>, Error>> {
        let Told { subject, id, .. } = &self.told;
        let Some(interest) = subject.interest(Op::Describe) else {
            return AnyConnectionBackend::describe(&mut self.raw, text);
        };
        Box::pin(Spanned::<Any, _> {
            span: Span::of_text(subject, interest, Op::Describe, text.clone()).on(*id),
            inner: AnyConnectionBackend::describe(&mut self.raw, text),
            finish: |span, result| span.finish(result.map(drop)),
        })
    }
}

impl<DB: TraceAny> fmt::Debug for Traced<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traced")
            .field("database", &DB::NAME)
            .field("id", &self.told.id)
            .finish_non_exhaustive()
    }
}
