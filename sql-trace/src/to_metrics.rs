use metrics::{Label, Unit};

use crate::args::ArgsMode;
use crate::attributes::is_for_database;
use crate::event::{Event, Op};
use crate::tracer::Tracer;

/// Records the duration of each operation with the [`metrics`] facade, as
/// OpenTelemetry's histogram `db.client.operation.duration` in seconds.
///
/// Its labels are [`Event::attributes`]. The conventions advise buckets of
/// 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5 and 10 seconds, which are set in
/// the recorder.
#[must_use]
pub fn to_metrics() -> ToMetrics {
    metrics::describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Duration of database client operations."
    );
    ToMetrics(())
}

/// A tracer that records metrics; made by [`to_metrics`].
#[derive(Clone, Copy, Debug)]
pub struct ToMetrics(());

const DURATION: &str = "db.client.operation.duration";

impl Tracer for ToMetrics {
    fn enabled(&self, op: Op) -> bool {
        is_for_database(op)
    }

    fn args_mode(&self) -> ArgsMode {
        ArgsMode::Hidden
    }

    fn trace(&self, event: &Event<'_>) {
        if let (true, Some(elapsed)) = (event.is_operation(), event.elapsed) {
            let mut labels = Vec::new();
            event.attributes(|name, value| labels.push(Label::new(name, value.to_owned())));
            metrics::histogram!(DURATION, labels).record(elapsed.as_secs_f64());
        }
    }
}
