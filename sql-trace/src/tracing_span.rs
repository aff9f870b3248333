use tracing::field::{Empty, display};

use crate::attributes::{summary, system_name};
use crate::event::{Event, Op, Outcome};
use crate::subject::Subject;
use crate::to_tracing::{TARGET, at_level};

/// The `tracing` span of one operation, if spans are wanted.
pub(crate) struct TracingSpan(Option<tracing::Span>);

impl TracingSpan {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Begins a span inside the one that is current.
    pub(crate) fn begin(subject: &Subject, op: Op, text: Option<&str>) -> Self {
        let Some(level) = subject.spans else {
            return Self(None);
        };
        if !at_level!(level, enabled!()) {
            return Self(None);
        }
        let target = &subject.target;
        let summary = text.map(|text| summary(text, target.name));
        let name = match &summary {
            Some(summary) if !summary.is_empty() => summary,
            _ => op.as_str(),
        };
        Self(Some(at_level!(
            level,
            span!(
                "db",
                otel.name = name,
                otel.kind = "client",
                otel.status_code = Empty,
                db.system.name = system_name(target.name),
                db.namespace = target.namespace,
                db.query.text = text,
                db.query.summary = summary,
                db.operation.name = text.is_none().then_some(op.as_str()),
                db.response.status_code = Empty,
                error.type = Empty,
                server.address = target.address,
                server.port = target.port,
                outcome = Empty,
                args = Empty,
                connection = Empty,
                rows_returned = Empty,
                rows_affected = Empty,
                acquire = Empty,
            )
        )))
    }

    /// Ends the span with what is known of the operation now.
    pub(crate) fn end(&mut self, event: &Event<'_>) {
        let Some(span) = self.0.take() else {
            return;
        };
        span.record("outcome", event.outcome.as_str());
        if let Some(args) = &event.args {
            span.record("args", display(args));
        }
        if let Some(connection) = event.connection {
            span.record("connection", connection.get());
        }
        if event.first_row.is_some() {
            span.record("rows_returned", event.rows_returned);
        }
        if let Some(affected) = event.rows_affected {
            span.record("rows_affected", affected);
        }
        if let Some(acquire) = event.acquire {
            span.record("acquire", acquire.as_secs_f64());
        }
        if let Outcome::Err(failure) = &event.outcome {
            span.record("otel.status_code", "ERROR");
            match failure.code() {
                Some(code) => {
                    span.record("db.response.status_code", &*code);
                    span.record("error.type", &*code);
                }
                None => {
                    span.record("error.type", failure.kind());
                }
            }
        }
    }
}
