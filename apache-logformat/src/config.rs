//! What a layer was told.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use http::Extensions;

use crate::{
    client::TrustedProxies,
    connection::ConnectionInfo,
    exchange::Exchange,
    failures::Reporter,
    needs::Needs,
    output::{Filter, Output},
    redaction::Redaction,
    timestamp::Timestamp,
};

/// What a layer was told, shared by its services.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) outputs: Vec<Output>,
    pub(crate) filter: Option<Arc<Filter>>,
    pub(crate) needs: Needs,
    pub(crate) extra_headers: Vec<Box<str>>,
    pub(crate) clock: Option<Arc<ClockFn>>,
    pub(crate) connection: Option<Arc<ConnectionFn>>,
    pub(crate) proxies: Option<TrustedProxies>,
    pub(crate) redaction: Redaction,
    pub(crate) server_name: Option<Box<[u8]>>,
    pub(crate) server_port: Option<u16>,
    pub(crate) use_canonical_name: bool,
    pub(crate) process_id: Option<u32>,
    pub(crate) aborted_status: u16,
    pub(crate) reporter: Reporter,
}

pub(crate) type ClockFn = dyn Fn() -> Timestamp + Send + Sync;
pub(crate) type ConnectionFn = dyn Fn(&Extensions) -> Option<ConnectionInfo> + Send + Sync;

impl Config {
    pub(crate) fn new(output: Output) -> Self {
        let mut config = Self {
            outputs: vec![output],
            filter: None,
            needs: Needs::default(),
            extra_headers: Vec::new(),
            clock: None,
            connection: None,
            proxies: None,
            redaction: Redaction::default(),
            server_name: None,
            server_port: None,
            use_canonical_name: false,
            process_id: None,
            aborted_status: 499,
            reporter: Reporter::default(),
        };
        config.find_needs();
        config
    }

    /// Finds out anew what has to be captured.
    pub(crate) fn find_needs(&mut self) {
        let mut needs = Needs::default();
        for output in &self.outputs {
            match output.format() {
                Some(format) => needs.add_format(format),
                #[cfg(feature = "tracing")]
                None => needs.add_event(),
                #[cfg(not(feature = "tracing"))]
                None => {}
            }
            if output.decides() {
                needs.add_decision();
            }
        }
        if self.filter.is_some() {
            needs.add_decision();
        }
        for name in &self.extra_headers {
            needs.add_request_header(name.as_bytes());
        }
        needs.mask(&self.redaction);
        self.needs = needs;
    }

    /// Logs a finished exchange.
    pub(crate) fn log<'a>(&'a self, exchange: &mut Exchange<'a>, line: &mut Vec<u8>) {
        exchange.server_name = self.server_name.as_deref();
        exchange.server_port = self.server_port;
        exchange.use_canonical_name = self.use_canonical_name;
        if self.needs.process_id {
            exchange.process_id = Some(self.process_id.unwrap_or_else(std::process::id));
        }
        if let Some(filter) = &self.filter {
            // A filter that panics keeps the line.
            let kept = catch_unwind(AssertUnwindSafe(|| filter(exchange)));
            if matches!(kept, Ok(false)) {
                return;
            }
        }
        for output in &self.outputs {
            output.log(exchange, line, &self.reporter);
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("outputs", &self.outputs)
            .field("proxies", &self.proxies)
            .field("redaction", &self.redaction)
            .field("failures", &self.reporter)
            .finish_non_exhaustive()
    }
}
