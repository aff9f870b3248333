//! Which facts the formats of a layer print.

use http::HeaderName;

use crate::{
    directive::{Directive, Port, Variable, When},
    format::LogFormat,
    redaction::{Mask, Redaction},
};

/// Which facts have to be captured: what is not needed is not touched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    pub(crate) request_headers: Vec<Wanted>,
    pub(crate) request_trailers: Vec<Wanted>,
    pub(crate) response_headers: Vec<Wanted>,
    pub(crate) response_trailers: Vec<Wanted>,
    pub(crate) cookies: bool,
    pub(crate) request_line: bool,
    pub(crate) begin: bool,
    pub(crate) end: bool,
    pub(crate) first_byte: bool,
    pub(crate) connection: bool,
    pub(crate) client: bool,
    pub(crate) client_host: bool,
    pub(crate) connection_status: bool,
    pub(crate) keepalives: bool,
    pub(crate) remote_user: bool,
    pub(crate) request_id: bool,
    pub(crate) route: bool,
    pub(crate) filename: bool,
    pub(crate) notes: bool,
    pub(crate) env: bool,
    pub(crate) wire_bytes: bool,
    pub(crate) process_id: bool,
}

/// A header field that has to be captured.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) name: HeaderName,
    /// The name once more: asking for its text each time takes longer.
    pub(crate) text: Box<[u8]>,
    pub(crate) mask: Mask,
}

impl Wanted {
    pub(crate) fn new(name: HeaderName) -> Self {
        Self {
            text: name.as_str().as_bytes().into(),
            name,
            mask: Mask::Nothing,
        }
    }
}

impl Needs {
    /// Finds out how what has to be captured is to be masked.
    pub(crate) fn mask(&mut self, redaction: &Redaction) {
        for wanted in [
            &mut self.request_headers,
            &mut self.request_trailers,
            &mut self.response_headers,
            &mut self.response_trailers,
        ]
        .into_iter()
        .flatten()
        {
            wanted.mask = redaction.mask(&wanted.name);
        }
    }

    /// Adds what `format` prints.
    pub(crate) fn add_format(&mut self, format: &LogFormat) {
        for directive in format.directives() {
            self.add(directive);
        }
    }

    /// Adds what decisions about an exchange are usually made on.
    pub(crate) fn add_decision(&mut self) {
        self.request_line = true;
        self.add_end();
        self.add_client();
    }

    /// Adds what a structured event tells.
    #[cfg(feature = "tracing")]
    pub(crate) fn add_event(&mut self) {
        self.add_decision();
        self.add_host();
        self.add_request_header(b"user-agent");
        self.route = true;
    }

    pub(crate) fn add_request_header(&mut self, name: &[u8]) {
        add_name(&mut self.request_headers, name);
    }

    fn add(&mut self, directive: &Directive) {
        match directive {
            Directive::Literal(_)
            | Directive::Echo(_)
            | Directive::Ident
            | Directive::Status
            | Directive::BodyBytes
            | Directive::BodyBytesOrDash
            | Directive::ServerName
            | Directive::ThreadId
            | Directive::ThreadIdHex => {}
            Directive::ClientAddress => self.add_client(),
            Directive::ClientHost => {
                self.add_client();
                self.client_host = true;
            }
            Directive::PeerAddress
            | Directive::PeerHost
            | Directive::LocalAddress
            | Directive::ConnectionId
            | Directive::Tls(_)
            | Directive::Port(Port::Local | Port::Canonical) => self.connection = true,
            Directive::Port(Port::Remote) => self.add_client(),
            Directive::BytesReceived | Directive::BytesSent | Directive::BytesTotal => {
                self.wire_bytes = true;
            }
            Directive::ConnectionStatus => {
                self.connection_status = true;
                self.request_line = true;
                self.add_request_header(b"connection");
                add_name(&mut self.response_headers, b"connection");
            }
            Directive::Cookie(_) => self.cookies = true,
            Directive::Duration(_) | Directive::Time(When::End, _) => self.add_end(),
            Directive::Env(_) => self.env = true,
            Directive::Filename => self.filename = true,
            Directive::Handler => self.route = true,
            Directive::HostName => self.add_host(),
            Directive::KeepAlives => {
                self.connection = true;
                self.keepalives = true;
            }
            Directive::Note(_) => self.notes = true,
            Directive::Method
            | Directive::Path
            | Directive::Protocol
            | Directive::Query
            | Directive::RequestLine => self.request_line = true,
            Directive::ProcessId => self.process_id = true,
            Directive::RemoteUser => self.remote_user = true,
            Directive::RequestHeader(name) => {
                self.add_request_header(name);
                if name.eq_ignore_ascii_case(b"host") {
                    self.request_line = true;
                }
            }
            Directive::RequestId => self.request_id = true,
            Directive::RequestTrailer(name) => add_name(&mut self.request_trailers, name),
            Directive::ResponseHeader(name) => add_name(&mut self.response_headers, name),
            Directive::ResponseTrailer(name) => add_name(&mut self.response_trailers, name),
            Directive::Time(When::Begin, _) => self.begin = true,
            Directive::TimeToFirstByte => {
                self.begin = true;
                self.first_byte = true;
            }
            Directive::Nginx(variable) => self.add_variable(variable),
        }
    }

    fn add_variable(&mut self, variable: &Variable) {
        match variable {
            Variable::BodyBytes | Variable::ServerName | Variable::Status => {}
            Variable::Arg(_)
            | Variable::Args
            | Variable::IsArgs
            | Variable::RequestLine
            | Variable::RequestUri => self.request_line = true,
            Variable::Cookie(_) => self.cookies = true,
            Variable::Host => self.add_host(),
            Variable::RemoteUser => self.remote_user = true,
            Variable::RequestHeader(name) => self.add(&Directive::RequestHeader(name.clone())),
            Variable::RequestTime => self.add_end(),
            Variable::ResponseHeader(name) => add_name(&mut self.response_headers, name),
            Variable::Scheme => self.connection = true,
        }
    }

    /// The end is counted on from the begin.
    fn add_end(&mut self) {
        self.begin = true;
        self.end = true;
    }

    fn add_client(&mut self) {
        self.connection = true;
        self.client = true;
    }

    fn add_host(&mut self) {
        self.request_line = true;
        self.connection = true;
        self.add_request_header(b"host");
    }
}

/// Adds `name`; one that no header field can have is left out.
fn add_name(names: &mut Vec<Wanted>, name: &[u8]) {
    if let Ok(name) = HeaderName::from_bytes(name)
        && !names.iter().any(|wanted| wanted.name == name)
    {
        names.push(Wanted::new(name));
    }
}
