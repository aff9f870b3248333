//! Facts that a service hands to the layer, as extensions.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use http::HeaderMap;

use crate::fields::Named;

/// Defines a fact that is a text.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(Arc<[u8]>);

        impl $name {
            /// Makes the fact from its text, which need not be UTF-8.
            #[must_use]
            pub fn new(text: impl AsRef<[u8]>) -> Self {
                Self(text.as_ref().into())
            }

            /// Returns the text.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name))
                    .field(&String::from_utf8_lossy(&self.0))
                    .finish()
            }
        }
    };
}

text! {
    /// The authenticated user (`%u`).
    ///
    /// An extension of the request when authentication stands outside the layer,
    /// of the response when it stands inside; the response's wins.
    ///
    /// # Examples
    ///
    /// ```
    /// use apache_logformat::RemoteUser;
    ///
    /// let mut response = http::Response::new("hello");
    /// response.extensions_mut().insert(RemoteUser::new("frank"));
    /// ```
    RemoteUser
}

text! {
    /// The request's id (`%L`), an extension of the request or the response.
    RequestId
}

text! {
    /// The route that matched (`%R`), an extension of the request or the response.
    ///
    /// With the `axum` feature a `MatchedPath` serves when there is none.
    Route
}

text! {
    /// The file that was served (`%f`), an extension of the request or the response.
    Filename
}

text! {
    /// The client's name (`%h`), an extension of the request.
    ///
    /// For services that look names up, as httpd does with `HostnameLookups On`;
    /// without it `%h` prints the address.
    ClientHost
}

/// The client's address (`%a`, `%h`), an extension of the request.
///
/// For a service that finds it out itself, from the PROXY protocol for example;
/// it is taken as it is, before any [`TrustedProxies`](crate::TrustedProxies).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientIp(IpAddr);

impl ClientIp {
    /// Makes the fact from the address.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self(address)
    }

    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.0
    }
}

/// Defines a table of named values that is shared by its clones.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default)]
        pub struct $name(Arc<Mutex<Vec<Named>>>);

        impl $name {
            /// Makes an empty table.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            /// Sets the value called `name`, in place of one that has this name
            /// in upper or lower case.
            pub fn set(&self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
                let (name, value) = (name.as_ref(), value.as_ref().into());
                let mut values = self.lock();
                match values.iter_mut().find(|(old, _)| old.eq_ignore_ascii_case(name)) {
                    Some((_, old)) => *old = value,
                    None => values.push((name.into(), value)),
                }
            }

            /// Returns the value called `name`, in upper or lower case.
            #[must_use]
            pub fn get(&self, name: impl AsRef<str>) -> Option<Vec<u8>> {
                let values = self.lock();
                let (_, value) = values
                    .iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(name.as_ref()))?;
                Some(value.to_vec())
            }

            pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Named>> {
                self.0.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let values = self.lock();
                f.debug_map()
                    .entries(
                        values
                            .iter()
                            .map(|(name, value)| (name, String::from_utf8_lossy(value))),
                    )
                    .finish()
            }
        }
    };
}

table! {
    /// Notes of one request (`%{NAME}n`), an extension of the request.
    ///
    /// The layer adds it to every request when a format prints notes. Handlers
    /// and inner layers set values through any clone, until the response's body
    /// has ended; the line prints what is there then.
    ///
    /// # Examples
    ///
    /// ```
    /// use apache_logformat::Notes;
    ///
    /// fn handler(request: http::Request<String>) -> http::Response<String> {
    ///     if let Some(notes) = request.extensions().get::<Notes>() {
    ///         notes.set("sql_count", 3.to_string());
    ///     }
    ///     http::Response::new("hello".into())
    /// }
    /// # let mut request = http::Request::new(String::new());
    /// # request.extensions_mut().insert(Notes::new());
    /// # let notes = request.extensions().get::<Notes>().unwrap().clone();
    /// # handler(request);
    /// # assert_eq!(notes.get("SQL_COUNT").unwrap(), b"3");
    /// ```
    Notes
}

table! {
    /// The environment of one request (`%{NAME}e`), an extension of the request.
    ///
    /// The layer adds it to every request when a format prints it. As in httpd
    /// it is a table of its own; the process's environment is not looked at.
    Env
}

/// The fields behind a request's body (`%{NAME}^ti`), an extension of the request.
///
/// The layer adds it to every request when a format prints it. It cannot see the
/// request's body itself: who reads the body sets what came behind it.
#[derive(Debug, Clone, Default)]
pub struct RequestTrailers(Arc<OnceLock<HeaderMap>>);

impl RequestTrailers {
    /// Makes a place for the fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the fields; only the first call counts.
    pub fn set(&self, trailers: HeaderMap) {
        // A second set of trailers contradicts HTTP; the first is the request's.
        let _ = self.0.set(trailers);
    }

    /// Returns the fields, if they are set.
    #[must_use]
    pub fn get(&self) -> Option<&HeaderMap> {
        self.0.get()
    }
}

/// Bytes on the wire for one request (`%I`, `%O`, `%S`), an extension of the
/// request.
///
/// A layer sees neither heads nor framing. Who counts the bytes of a connection
/// adds them here, through any clone, before the response's body ends.
#[derive(Debug, Clone, Default)]
pub struct WireBytes(Arc<[AtomicU64; 2]>);

impl WireBytes {
    /// Makes counters that stand at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts bytes received.
    pub fn add_received(&self, bytes: u64) {
        self.0[0].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes sent.
    pub fn add_sent(&self, bytes: u64) {
        self.0[1].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns the bytes received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    /// Returns the bytes sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }
}
