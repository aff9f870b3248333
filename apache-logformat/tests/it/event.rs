//! Exchanges as structured events.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use apache_logformat::{
    AccessLogLayer, ConnectionInfo, LogFormat, Output, Redaction, Route, Timestamp, TlsInfo,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use tower::{Layer as _, Service};
use tracing::{
    Event, Level,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::Registry,
};

use crate::{
    lines::{Lines, Script, Step, answer},
    record::block_on,
};

/// Events: their level, their target and their fields.
type Told = Vec<(Level, String, BTreeMap<String, String>)>;

/// Keeps events.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Told>>);

impl<S: tracing::Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Fields(BTreeMap<String, String>);
        impl Visit for Fields {
            fn record_str(&mut self, field: &Field, value: &str) {
                self.0.insert(field.name().into(), value.into());
            }
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.0.insert(field.name().into(), format!("{value:?}"));
            }
        }
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        let metadata = event.metadata();
        let event = (*metadata.level(), metadata.target().into(), fields.0);
        self.0.lock().unwrap().push(event);
    }
}

fn events(
    layer: &AccessLogLayer,
    request: Request<()>,
    status: u16,
    steps: fn() -> Vec<Step>,
) -> Told {
    let events = Events::default();
    tracing::subscriber::with_default(Registry::default().with(events.clone()), || {
        let mut service = layer.layer(answer(move |_: Request<()>| {
            let mut response = Response::new(Script::new(steps()));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.extensions_mut().insert(Route::from("/items/{id}"));
            response
        }));
        let response = block_on(service.call(request)).unwrap();
        let _ = block_on(response.into_body().collect());
    });
    let events = events.0.lock().unwrap();
    events.clone()
}

fn clock() -> impl Fn() -> Timestamp + Send + Sync {
    let now = std::sync::atomic::AtomicI64::new(0);
    move || Timestamp::from_micros(now.fetch_add(1500, std::sync::atomic::Ordering::Relaxed))
}

fn map(fields: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pair = |(name, value): &(&str, &str)| (String::from(*name), String::from(*value));
    fields.iter().map(pair).collect()
}

#[test]
fn exchange_is_told_by_the_names_of_opentelemetry() {
    let layer = AccessLogLayer::from(Output::event())
        .clock(clock())
        .trusted_proxies(apache_logformat::TrustedProxies::new(["10.0.0.0/8"]).unwrap())
        .redaction(Redaction::default().query("token"));
    let mut request = Request::get("/items/7%20?token=secret&x=1")
        .header("host", "Www.example.com:8443")
        .header("user-agent", "curl/8")
        .header("x-forwarded-for", "203.0.113.5")
        .body(())
        .unwrap();
    let tls = TlsInfo::new().with("SSL_PROTOCOL", "TLSv1.3");
    let connection = ConnectionInfo::new(([10, 0, 0, 1], 4711).into()).tls(tls);
    request.extensions_mut().insert(connection);
    let got = events(&layer, request, 200, || vec![Step::Data("hello")]);
    assert_eq!(
        got,
        [(
            Level::INFO,
            String::from("access_log"),
            map(&[
                ("client.address", "203.0.113.5"),
                ("duration_us", "1500"),
                ("http.request.method", "GET"),
                ("http.response.status_code", "200"),
                ("http.route", "/items/{id}"),
                ("network.peer.address", "10.0.0.1"),
                ("network.peer.port", "4711"),
                ("network.protocol.name", "http"),
                ("network.protocol.version", "1.1"),
                ("response_body_bytes", "5"),
                ("server.address", "Www.example.com"),
                ("server.port", "8443"),
                ("url.path", "/items/7%20"),
                ("url.query", "token=[redacted]&x=1"),
                ("url.scheme", "https"),
                ("user_agent.original", "curl/8"),
            ])
        )]
    );
}

#[test]
fn unknown_facts_are_left_out() {
    let layer = AccessLogLayer::from(Output::event()).clock(clock());
    let request = Request::builder()
        .version(Version::HTTP_2)
        .uri("/")
        .body(())
        .unwrap();
    let got = events(&layer, request, 404, || vec![Step::Data("x")]);
    assert_eq!(
        got[0].2,
        map(&[
            ("duration_us", "1500"),
            ("http.request.method", "GET"),
            ("http.response.status_code", "404"),
            ("http.route", "/items/{id}"),
            ("network.protocol.name", "http"),
            ("network.protocol.version", "2"),
            ("response_body_bytes", "1"),
            ("url.path", "/"),
            ("url.scheme", "http"),
        ])
    );
    assert_eq!(got[0].0, Level::INFO);
}

#[test]
fn port_of_the_server_is_the_named_else_its_own_else_that_of_this_end() {
    for (host, own, expected) in [
        ("a.example:8443", Some(80), Some("8443")),
        ("a.example", Some(80), Some("80")),
        ("a.example", None, Some("8080")),
        ("", None, Some("8080")),
    ] {
        let mut layer = AccessLogLayer::from(Output::event()).clock(clock());
        if let Some(port) = own {
            layer = layer.server_port(port);
        }
        let mut request = Request::get("/").header("host", host).body(()).unwrap();
        let connection =
            ConnectionInfo::new(([192, 0, 2, 1], 4711).into()).local(([192, 0, 2, 2], 8080).into());
        request.extensions_mut().insert(connection);
        let got = events(&layer, request, 200, Vec::new);
        let port = got[0].2.get("server.port").map(String::as_str);
        assert_eq!(port, expected, "{host:?} {own:?}");
    }
}

#[test]
fn methods_out_of_the_common_are_told_as_other() {
    let layer = AccessLogLayer::from(Output::event());
    for (method, known) in [
        ("GET", true),
        ("PATCH", true),
        ("get", false),
        ("PURGE", false),
    ] {
        let request = Request::builder().method(method).body(()).unwrap();
        let got = &events(&layer, request, 200, Vec::new)[0].2;
        let told = if known { method } else { "_OTHER" };
        assert_eq!(got["http.request.method"], told);
        let original = got.get("http.request.method_original");
        let original = original.map(String::as_str);
        assert_eq!(original, (!known).then_some(method));
    }
}

#[test]
fn errors_are_told_as_errors() {
    let layer = AccessLogLayer::from(Output::event()).clock(clock());
    let request = || Request::new(());
    let got = events(&layer, request(), 503, || vec![Step::Data("x")]);
    assert_eq!(got[0].0, Level::ERROR);
    assert_eq!(got[0].2["error.type"], "503");
    let got = events(&layer, request(), 500, || vec![Step::Data("x")]);
    assert_eq!(got[0].0, Level::ERROR);
    let got = events(&layer, request(), 499, || vec![Step::Data("x")]);
    assert_eq!(got[0].0, Level::INFO);
    assert_eq!(got[0].2.get("error.type"), None);
    let got = events(&layer, request(), 200, || vec![Step::Data("x"), Step::Fail]);
    assert_eq!(got[0].0, Level::INFO);
    assert_eq!(got[0].2["error.type"], "body_error");
}

#[test]
fn events_and_lines_come_of_the_same_exchange() {
    let lines = Lines::default();
    let format: LogFormat = "%m %B %>s".parse().unwrap();
    let layer = AccessLogLayer::new(format, lines.clone())
        .output(Output::event().filter(|exchange| exchange.status >= 400));
    let got = events(&layer, Request::new(()), 200, || vec![Step::Data("hello")]);
    assert!(got.is_empty());
    let got = events(&layer, Request::new(()), 400, || vec![Step::Data("hello")]);
    assert_eq!(got[0].2["http.response.status_code"], "400");
    assert_eq!(lines.get(), ["GET 5 200", "GET 5 400"]);
}

#[test]
fn subscriber_that_panics_does_not_hurt_the_response() {
    struct Panics;
    impl<S: tracing::Subscriber> Layer<S> for Panics {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            panic!("in the subscriber");
        }
    }
    let layer = AccessLogLayer::from(Output::event()).on_failure(|error, line| {
        assert_eq!(error.to_string(), "panicked: in the subscriber");
        assert_eq!(line, b"");
    });
    tracing::subscriber::with_default(Registry::default().with(Panics), || {
        let mut service = layer.layer(answer(|_: Request<()>| {
            Response::new(http_body_util::Empty::<Bytes>::new())
        }));
        block_on(service.call(Request::new(()))).unwrap();
    });
    assert_eq!(layer.failures().count(), 1);
}
