//! The layer and its options.

use std::{io, sync::Arc};

use http::Extensions;
use tower_layer::Layer;

use crate::{
    client::TrustedProxies, config::Config, connection::ConnectionInfo, exchange::Exchange,
    failures::Failures, format::LogFormat, output::Output, redaction::Redaction,
    service::AccessLog, sink::LogSink, timestamp::Timestamp,
};

/// A tower layer that writes one line per request, at the response's true end.
///
/// It works around every `Service<Request<B>, Response = Response<B2>>` and
/// changes neither requests nor responses. The line is written when the last
/// frame of the response's body is handed on; when there is no body, with the
/// head; when the body fails or is dropped midway, then; when the service fails
/// or panics, then; and when the server drops the request because the client is
/// gone, then, with status 499.
///
/// Setters take and return the layer. Services made before a setter is called
/// keep what they were made with.
///
/// # Examples
///
/// ```
/// use apache_logformat::{AccessLogLayer, LogFormat, SharedWriter};
/// use std::{convert::Infallible, io};
/// use tower::{ServiceBuilder, service_fn};
///
/// let service = ServiceBuilder::new()
///     .layer(AccessLogLayer::new(
///         LogFormat::combined(),
///         SharedWriter::new(io::stdout()),
///     ))
///     .service(service_fn(async |_: http::Request<String>| {
///         Ok::<_, Infallible>(http::Response::new(String::from("hello")))
///     }));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct AccessLogLayer(Arc<Config>);

impl AccessLogLayer {
    /// Makes a layer that writes lines of `format` to `sink`.
    pub fn new(format: LogFormat, sink: impl LogSink + 'static) -> Self {
        Output::new(format, sink).into()
    }

    /// Adds another log, with a format, a sink, a filter and a sampling of its own.
    pub fn output(self, output: Output) -> Self {
        self.set(|config| config.outputs.push(output))
    }

    /// Logs only exchanges for which `filter` returns true, in every output.
    ///
    /// See [`Output::filter`] for what it can decide on.
    ///
    /// # Examples
    ///
    /// ```
    /// # use apache_logformat::{AccessLogLayer, LogFormat};
    /// # let sink = |_: &[u8]| Ok(());
    /// let layer = AccessLogLayer::new(LogFormat::combined(), sink)
    ///     .filter(|exchange| &*exchange.path() != b"/healthz" || exchange.status >= 400);
    /// ```
    pub fn filter(self, filter: impl Fn(&Exchange<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.set(|config| config.filter = Some(Arc::new(filter)))
    }

    /// Shows filters the request's header field `name` though no format prints it.
    pub fn capture_header(self, name: impl AsRef<str>) -> Self {
        self.set(|config| config.extra_headers.push(name.as_ref().into()))
    }

    /// Sets how a request's extensions tell what is known of its connection.
    ///
    /// Without it, or when it returns `None`, the layer looks for a
    /// [`ConnectionInfo`] among them, and with the `axum` feature for a
    /// `ConnectInfo<SocketAddr>`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use apache_logformat::{AccessLogLayer, LogFormat};
    /// # let sink = |_: &[u8]| Ok(());
    /// use apache_logformat::ConnectionInfo;
    /// use std::net::SocketAddr;
    ///
    /// /// What some server puts into the extensions.
    /// #[derive(Clone)]
    /// struct Accepted {
    ///     peer: SocketAddr,
    ///     local: SocketAddr,
    /// }
    ///
    /// let layer = AccessLogLayer::new(LogFormat::combined(), sink).connection(|extensions| {
    ///     let accepted = extensions.get::<Accepted>()?;
    ///     Some(ConnectionInfo::new(accepted.peer).local(accepted.local))
    /// });
    /// ```
    pub fn connection(
        self,
        connection: impl Fn(&Extensions) -> Option<ConnectionInfo> + Send + Sync + 'static,
    ) -> Self {
        self.set(|config| config.connection = Some(Arc::new(connection)))
    }

    /// Takes the word of `proxies` for a client's address; by default of none.
    pub fn trusted_proxies(self, proxies: TrustedProxies) -> Self {
        self.set(|config| config.proxies = Some(proxies))
    }

    /// Sets which secrets are masked; see [`Redaction`] for the default.
    pub fn redaction(self, redaction: Redaction) -> Self {
        self.set(|config| config.redaction = redaction)
    }

    /// Sets the server's own name (`%v`), as httpd's `ServerName`; without one it
    /// prints as `-`.
    pub fn server_name(self, name: impl AsRef<[u8]>) -> Self {
        self.set(|config| config.server_name = Some(name.as_ref().into()))
    }

    /// Sets the server's own port (`%p`); without one it is 80, or 443 over TLS,
    /// when the server has a name, and else prints as `-`.
    pub fn server_port(self, port: u16) -> Self {
        self.set(|config| config.server_port = Some(port))
    }

    /// Sets whether `%V` prints the server's own name rather than the host that
    /// the request names; by default it does not.
    pub fn use_canonical_name(self, canonical: bool) -> Self {
        self.set(|config| config.use_canonical_name = canonical)
    }

    /// Sets the process that `%P` prints; by default the one that runs.
    pub fn process_id(self, id: u32) -> Self {
        self.set(|config| config.process_id = Some(id))
    }

    /// Sets the status that is printed when the client goes away before the
    /// response's head; by default 499, as nginx has it.
    pub fn aborted_status(self, status: u16) -> Self {
        self.set(|config| config.aborted_status = status)
    }

    /// Sets the clock.
    ///
    /// It is read when a request begins, when a format or a filter asks for any
    /// time; at the response's head when a format prints `%^FB`; and at its end when
    /// something asks for that. By default the
    /// begin is the system's time and the rest is measured from there by the
    /// steady clock, so that a time correction distorts no duration.
    pub fn clock(self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.set(|config| config.clock = Some(Arc::new(clock)))
    }

    /// Sets what is told, with the error and the line, when a line cannot be
    /// written.
    ///
    /// By default the first of several failures in a row is reported on standard
    /// error. All are counted in [`failures`](Self::failures). The callback runs
    /// where the line was to be written and must not block.
    pub fn on_failure(self, callback: impl Fn(&io::Error, &[u8]) + Send + Sync + 'static) -> Self {
        self.set(|config| config.reporter.callback = Some(Arc::new(callback)))
    }

    /// Returns the count of lines that could not be written.
    #[must_use]
    pub fn failures(&self) -> Failures {
        self.0.reporter.failures.clone()
    }

    fn set(mut self, change: impl FnOnce(&mut Config)) -> Self {
        let config = Arc::make_mut(&mut self.0);
        change(config);
        config.find_needs();
        self
    }
}

impl From<Output> for AccessLogLayer {
    /// Makes a layer of one log with a filter or a sampling of its own.
    fn from(output: Output) -> Self {
        Self(Arc::new(Config::new(output)))
    }
}

impl<S> Layer<S> for AccessLogLayer {
    type Service = AccessLog<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AccessLog::new(inner, Arc::clone(&self.0))
    }
}
