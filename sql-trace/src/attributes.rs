use crate::event::{Event, Op, Outcome};
use crate::sql::Dialect;
use crate::statement;

impl Event<'_> {
    /// Hands the event's OpenTelemetry attributes to `each`: name and value.
    ///
    /// They are the stable ones of the [semantic conventions for databases]
    /// 1.42: `db.system.name`, `db.namespace`, `server.address`,
    /// `server.port`, `db.query.summary`, `db.operation.name` (for operations
    /// that are no statements), `db.response.status_code` and `error.type`.
    /// All of them have few different values, so that they suit a metric.
    /// `db.query.text`, which does not, is [`Event::statement`].
    ///
    /// [semantic conventions for databases]:
    ///     https://opentelemetry.io/docs/specs/semconv/database/database-spans/
    ///
    /// # Examples
    ///
    /// ```
    /// use sql_trace::{Event, Op, Tracer};
    ///
    /// // `db.client.operation.duration`, by hand.
    /// let tracer = |event: &Event<'_>| {
    ///     let (true, Some(elapsed)) = (event.is_operation(), event.elapsed) else {
    ///         return;
    ///     };
    ///     let mut labels = Vec::new();
    ///     event.attributes(|name, value| labels.push(format!("{name}={value}")));
    ///     eprintln!("{} {labels:?}", elapsed.as_secs_f64());
    /// };
    /// # fn is_tracer(_: impl Tracer) {}
    /// # is_tracer(tracer);
    /// ```
    pub fn attributes(&self, mut each: impl FnMut(&'static str, &str)) {
        let database = self.database;
        each("db.system.name", system_name(database.name));
        if let Some(namespace) = &database.namespace {
            each("db.namespace", namespace);
        }
        if let Some(address) = &database.address {
            each("server.address", address);
        }
        if let Some(port) = database.port {
            each("server.port", &port.to_string());
        }
        match self.statement {
            Some(statement) => each("db.query.summary", &summary(statement, database.name)),
            None => each("db.operation.name", self.op.as_str()),
        }
        if let Outcome::Err(failure) = &self.outcome {
            match failure.code() {
                Some(code) => {
                    each("db.response.status_code", &code);
                    each("error.type", &code);
                }
                None => each("error.type", failure.kind()),
            }
        }
    }

    /// Whether it is one of the operations that OpenTelemetry's
    /// `db.client.operation.duration` counts: those that the database is asked
    /// to do, at their end.
    ///
    /// Waiting for a connection, opening and closing one are not, nor are
    /// [`Op::Plan`], [`Op::Repeated`] and [`Op::Untraced`], nor a statement that is
    /// [still running](Outcome::Running) or was
    /// [left to the driver](Outcome::OnDrop).
    #[must_use]
    pub fn is_operation(&self) -> bool {
        is_for_database(self.op) && !matches!(self.outcome, Outcome::Running | Outcome::OnDrop)
    }
}

/// Whether operations of this kind are what a database is asked to do.
pub(crate) const fn is_for_database(op: Op) -> bool {
    !matches!(
        op,
        Op::Open | Op::Acquire | Op::Close | Op::Plan | Op::Repeated | Op::Untraced
    )
}

/// OpenTelemetry's name of a database system. What sqlx calls MySQL may be
/// MariaDB, which nothing tells on this side.
pub(crate) fn system_name(name: &str) -> &'static str {
    match name {
        "PostgreSQL" => "postgresql",
        "MySQL" => "mysql",
        "SQLite" => "sqlite",
        _ => "other_sql",
    }
}

/// `db.query.summary` of a statement.
pub(crate) fn summary(statement: &str, database: &str) -> String {
    statement::summary(statement, Dialect::of(database))
}
