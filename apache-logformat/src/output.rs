//! One log: a format, where its lines go, and which exchanges get one.

use std::{
    any::Any,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    exchange::Exchange, failures::Reporter, format::LogFormat, sampling::Sampling, sink::LogSink,
};

/// One log: a format, where its lines go, and which exchanges get one.
///
/// A layer may have several: each exchange is captured once and offered to all.
///
/// # Examples
///
/// ```
/// use apache_logformat::{AccessLogLayer, LogFormat, Output};
///
/// let all = |line: &[u8]| Ok(());
/// let errors = |line: &[u8]| Ok(());
/// let layer = AccessLogLayer::new(LogFormat::combined(), all).output(
///     Output::new(LogFormat::vhost_combined(), errors).filter(|exchange| exchange.status >= 500),
/// );
/// ```
#[derive(Clone)]
pub struct Output {
    destination: Destination,
    filter: Option<Arc<Filter>>,
    sampling: Option<Sampling>,
    /// The last line could not be written.
    failing: Arc<AtomicBool>,
}

/// Decides whether an exchange is logged.
pub(crate) type Filter = dyn Fn(&Exchange<'_>) -> bool + Send + Sync;

#[derive(Clone)]
enum Destination {
    Line(LogFormat, Arc<dyn LogSink>),
    #[cfg(feature = "tracing")]
    Event,
}

impl Output {
    /// Makes a log of `format` that goes to `sink`.
    #[must_use]
    pub fn new(format: LogFormat, sink: impl LogSink + 'static) -> Self {
        Self::with_destination(Destination::Line(format, Arc::new(sink)))
    }

    /// Makes a log of structured events for the `tracing` crate.
    ///
    /// Each exchange becomes one event of the target `access_log`, an error when
    /// the status is 500 or more and an info otherwise. Its fields have the
    /// names of OpenTelemetry's stable HTTP attributes: `http.request.method`
    /// (`_OTHER` for one that is not common, which is then the
    /// `http.request.method_original`), `url.path`, `url.query`, `url.scheme`,
    /// `http.response.status_code`, `http.route`, `network.protocol.name`,
    /// `network.protocol.version`, `client.address`, `network.peer.address`,
    /// `network.peer.port`, `server.address`, `server.port`,
    /// `user_agent.original` and, when the status is 500 or more or the response
    /// did not end as it should, `error.type`; besides there are `duration_us` and
    /// `response_body_bytes`. A field without a value is left out.
    #[cfg(feature = "tracing")]
    #[must_use]
    pub fn event() -> Self {
        Self::with_destination(Destination::Event)
    }

    fn with_destination(destination: Destination) -> Self {
        Self {
            destination,
            filter: None,
            sampling: None,
            failing: Arc::default(),
        }
    }

    /// Logs only exchanges for which `filter` returns true.
    ///
    /// It sees the finished exchange. Of the header fields it finds those that a
    /// format prints, and those named by
    /// [`capture_header`](crate::AccessLogLayer::capture_header).
    #[must_use]
    pub fn filter(
        mut self,
        filter: impl Fn(&Exchange<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.filter = Some(Arc::new(filter));
        self
    }

    /// Logs only some of the exchanges.
    #[must_use]
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = Some(sampling);
        self
    }

    /// Returns the format, unless this makes events.
    pub(crate) fn format(&self) -> Option<&LogFormat> {
        match &self.destination {
            Destination::Line(format, _) => Some(format),
            #[cfg(feature = "tracing")]
            Destination::Event => None,
        }
    }

    /// Whether it looks at more of an exchange than its format does.
    pub(crate) fn decides(&self) -> bool {
        self.filter.is_some() || self.sampling.is_some()
    }

    /// Logs `exchange`, using `line` to put the line together.
    ///
    /// Whatever the filter, the format and the sink do, nothing gets out.
    pub(crate) fn log(&self, exchange: &mut Exchange<'_>, line: &mut Vec<u8>, reporter: &Reporter) {
        line.clear();
        let logged = catch_unwind(AssertUnwindSafe(|| self.try_log(exchange, line)));
        let error = match logged {
            Ok(Ok(())) => {
                if self.failing.load(Ordering::Relaxed) {
                    self.failing.store(false, Ordering::Relaxed);
                }
                return;
            }
            Ok(Err(error)) => error,
            Err(panic) => io::Error::other(message(&*panic)),
        };
        // The callback is the service's code, too.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            reporter.report(&error, line, &self.failing);
        }));
    }

    fn try_log(&self, exchange: &mut Exchange<'_>, line: &mut Vec<u8>) -> io::Result<()> {
        if let Some(filter) = &self.filter
            && !filter(exchange)
        {
            return Ok(());
        }
        exchange.weight = match &self.sampling {
            None => Some(1),
            Some(sampling) => match sampling.weight(exchange) {
                None => return Ok(()),
                weight => weight,
            },
        };
        match &self.destination {
            Destination::Line(format, sink) => {
                format.write(exchange, line);
                sink.write_line(line)
            }
            #[cfg(feature = "tracing")]
            Destination::Event => {
                crate::event::emit(exchange);
                Ok(())
            }
        }
    }
}

/// Returns what a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("no message"))
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("format", &self.format())
            .field("sampling", &self.sampling)
            .finish_non_exhaustive()
    }
}
