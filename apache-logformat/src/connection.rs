//! What is known of a request's connection.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    facts::ClientHost,
    fields::{Fields, Named},
};

/// What is known of the connection that a request came by.
///
/// The layer finds it as an extension of the request, or is told how to make it
/// by [`connection`](crate::AccessLogLayer::connection); with the `axum` feature
/// a `ConnectInfo<SocketAddr>` serves when there is neither.
///
/// # Examples
///
/// ```
/// use apache_logformat::ConnectionInfo;
/// use std::net::SocketAddr;
///
/// // Made once, when the connection is accepted ...
/// let peer: SocketAddr = "192.0.2.7:50123".parse()?;
/// let connection = ConnectionInfo::new(peer)
///     .local("192.0.2.1:443".parse()?)
///     .count_requests();
///
/// // ... and handed to each of its requests.
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(connection.clone());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ConnectionInfo {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    requests: Requests,
    /// What few servers know, apart so that a clone costs little.
    details: Option<Arc<Details>>,
}

#[derive(Debug, Clone, Default)]
struct Details {
    host: Option<ClientHost>,
    id: Option<Box<[u8]>>,
    tls: Option<TlsInfo>,
}

#[derive(Debug, Clone, Default)]
enum Requests {
    #[default]
    Unknown,
    Known(u32),
    Counted(Arc<AtomicU32>),
}

impl ConnectionInfo {
    /// Describes a connection by the address at its other end (`%{c}a`,
    /// `%{remote}p`).
    #[must_use]
    pub fn new(peer: SocketAddr) -> Self {
        Self {
            peer: Some(peer),
            ..Self::default()
        }
    }

    /// Describes a connection without addresses, such as one of a Unix socket.
    #[must_use]
    pub fn unnamed() -> Self {
        Self::default()
    }

    /// Sets the address of this end (`%A`, `%{local}p`).
    #[must_use]
    pub fn local(mut self, local: SocketAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// Sets the peer's name (`%{c}h`), for services that look names up.
    #[must_use]
    pub fn host(mut self, host: impl Into<ClientHost>) -> Self {
        self.details().host = Some(host.into());
        self
    }

    /// Sets the connection's id (`%{c}L`).
    #[must_use]
    pub fn id(mut self, id: impl AsRef<[u8]>) -> Self {
        self.details().id = Some(id.as_ref().into());
        self
    }

    /// Sets what is known of its TLS (`%{SSL_PROTOCOL}x`).
    #[must_use]
    pub fn tls(mut self, tls: TlsInfo) -> Self {
        self.details().tls = Some(tls);
        self
    }

    /// Sets how many requests the connection has served before this one (`%k`).
    #[must_use]
    pub fn keepalives(mut self, requests: u32) -> Self {
        self.requests = Requests::Known(requests);
        self
    }

    /// Lets the layer count the connection's requests (`%k`), from 0 on.
    ///
    /// Clones share the count, so give each request a clone of one value.
    #[must_use]
    pub fn count_requests(mut self) -> Self {
        self.requests = Requests::Counted(Arc::default());
        self
    }

    fn details(&mut self) -> &mut Details {
        Arc::make_mut(self.details.get_or_insert_default())
    }

    pub(crate) fn peer_host(&self) -> Option<&[u8]> {
        Some(self.details.as_ref()?.host.as_ref()?.as_bytes())
    }

    pub(crate) fn connection_id(&self) -> Option<&[u8]> {
        self.details.as_ref()?.id.as_deref()
    }

    pub(crate) fn tls_fields(&self) -> Option<Fields<'_>> {
        Some(self.details.as_ref()?.tls.as_ref()?.fields())
    }

    /// Returns how many requests came before the one that asks now.
    pub(crate) fn next_request(&self) -> Option<u32> {
        match &self.requests {
            Requests::Unknown => None,
            Requests::Known(requests) => Some(*requests),
            Requests::Counted(requests) => Some(requests.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// What is known of a connection's TLS, by the names of mod_ssl's variables.
///
/// # Examples
///
/// ```
/// use apache_logformat::TlsInfo;
///
/// let tls = TlsInfo::new()
///     .with("SSL_PROTOCOL", "TLSv1.3")
///     .with("SSL_CIPHER", "TLS_AES_256_GCM_SHA384")
///     .with("SSL_TLS_SNI", "www.example.com");
/// ```
#[derive(Debug, Clone, Default)]
pub struct TlsInfo(Arc<Vec<Named>>);

impl TlsInfo {
    /// Describes TLS of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable.
    #[must_use]
    pub fn with(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        Arc::make_mut(&mut self.0).push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    fn fields(&self) -> Fields<'_> {
        Fields::owned(&self.0)
    }
}
