//! What is measured, shared by the programs that measure it: one request, one
//! handler, and the layers around it.

use std::{
    convert::Infallible,
    future::ready,
    hint::black_box,
    io,
    pin::pin,
    task::{Context, Poll, Waker},
};

use actix_web::{App, HttpResponse, dev::Service as _, middleware::Logger, test, web};
use apache_logformat::{
    AccessLogLayer, ConnectionInfo, Escape, Exchange, Fields, LogFormat, Timestamp, Zone,
};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, service_fn};
use tower_http::trace::{DefaultMakeSpan, DefaultOnResponse, TraceLayer};
use tracing::Level;

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
const REFERER: &str = "https://www.example.com/start?x=1&y=2";
const TARGET: &str = "/items/0?page=0&sort=asc";

/// Something to measure; each call does it once.
pub struct Task {
    pub name: &'static str,
    pub run: Box<dyn FnMut()>,
}

/// Returns everything that is measured.
///
/// Tasks named `x/request` and `x/bare` are what the others of `x` do besides:
/// making a request, and handling it without a log.
pub fn tasks() -> Vec<Task> {
    let format = |text: &str| text.parse::<LogFormat>().unwrap();
    let mut tasks = vec![
        formatting("format/common", LogFormat::common()),
        formatting("format/combined", LogFormat::combined()),
        new_seconds("format/combined-new-second", LogFormat::combined()),
        formatting(
            "format/combined-micros",
            format(r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %D"#),
        ),
        formatting("format/iso-time", format("%{%Y-%m-%dT%H:%M:%S%z}t")),
        formatting(
            "format/json",
            format(
                r#"{"time":"%{%FT%T%z}t","client":"%a","request":"%r","status":%>s,"bytes":%B,"agent":"%{User-Agent}i"}"#,
            )
            .with_escape(Escape::Json),
        ),
        task("tower/request", || {
            black_box(request());
        }),
        serving("tower/bare", handler()),
        serving("tower/combined", layer(LogFormat::combined()).layer(handler())),
        serving(
            "tower/combined-micros",
            layer(format(r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %D"#))
                .layer(handler()),
        ),
    ];

    // Both peers format what they have to say, and then throw it away, as the
    // sink above does: one line for each request.
    tracing_subscriber::fmt()
        .with_max_level(Level::INFO)
        .with_writer(io::sink)
        .init();
    tasks.push(serving(
        "tower/tower-http-trace",
        TraceLayer::new_for_http()
            .make_span_with(DefaultMakeSpan::new().level(Level::INFO))
            .on_response(DefaultOnResponse::new().level(Level::INFO))
            .layer(handler()),
    ));
    tasks.extend(actix());
    tasks
}

fn task(name: &'static str, run: impl FnMut() + 'static) -> Task {
    Task {
        name,
        run: Box::new(run),
    }
}

fn zone() -> Zone {
    Zone::named("Europe/Berlin").unwrap()
}

/// Formats one exchange into a buffer that is used again.
fn formatting(name: &'static str, format: LogFormat) -> Task {
    let format = format.with_zone(zone());
    let exchange = exchange();
    let mut line = Vec::with_capacity(512);
    task(name, move || {
        line.clear();
        format.write(black_box(&exchange), &mut line);
        black_box(&line);
    })
}

/// Formats every line in a second of its own, so that no cached one is right.
fn new_seconds(name: &'static str, format: LogFormat) -> Task {
    let format = format.with_zone(zone());
    let mut exchange = exchange();
    let mut second = 1_700_000_000;
    let mut line = Vec::with_capacity(512);
    task(name, move || {
        second += 1;
        exchange.begin = Timestamp::from_micros(second * 1_000_000);
        line.clear();
        format.write(black_box(&exchange), &mut line);
        black_box(&line);
    })
}

/// Makes an exchange as a browser causes it.
fn exchange() -> Exchange<'static> {
    const HEADERS: &[(&[u8], &[u8])] = &[
        (b"host", b"www.example.com"),
        (b"user-agent", AGENT.as_bytes()),
        (b"accept", b"text/html"),
        (b"referer", REFERER.as_bytes()),
    ];
    let mut exchange = Exchange::default();
    exchange.begin = Timestamp::from_micros(1_700_000_000_123_456);
    exchange.end = Timestamp::from_micros(1_700_000_000_125_000);
    exchange.peer = Some(([192, 0, 2, 71], 50123).into());
    exchange.method = b"GET";
    exchange.target = TARGET.as_bytes();
    exchange.protocol = b"HTTP/1.1";
    exchange.request_headers = Fields::from(HEADERS);
    exchange.status = 200;
    exchange.body_bytes = 5316;
    exchange
}

fn layer(format: LogFormat) -> AccessLogLayer {
    AccessLogLayer::new(format.with_zone(zone()), |line: &[u8]| {
        black_box(line);
        Ok(())
    })
}

/// Makes a request and has it served, to the end of the response's body.
fn serving<S, B>(name: &'static str, mut service: S) -> Task
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + 'static,
    B: BodyExt,
{
    task(name, move || {
        let run = async {
            let response = service.call(request()).await.unwrap();
            let mut body = pin!(response.into_body());
            while let Some(frame) = body.frame().await {
                let _ = black_box(frame);
            }
        };
        match pin!(run).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => {}
            Poll::Pending => panic!("the service waits"),
        }
    })
}

fn request() -> Request<Full<Bytes>> {
    let mut request = Request::get(TARGET)
        .header(header::HOST, "www.example.com")
        .header(header::USER_AGENT, AGENT)
        .header(header::ACCEPT, "text/html")
        .header(header::REFERER, REFERER)
        .body(Full::default())
        .unwrap();
    let connection = ConnectionInfo::new(([192, 0, 2, 71], 50123).into());
    request.extensions_mut().insert(connection);
    request
}

fn handler()
-> impl Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible> {
    service_fn(|_: Request<Full<Bytes>>| {
        ready(Ok(Response::new(Full::from(Bytes::from_static(b"hello")))))
    })
}

/// The same of actix-web, whose logger fits nothing but actix-web.
fn actix() -> Vec<Task> {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .format(|_, record| {
            black_box(format!("{}\n", record.args()));
            Ok(())
        })
        .target(env_logger::Target::Pipe(Box::new(io::sink())))
        .init();
    let answer = || async { HttpResponse::Ok().body("hello") };
    let call = || {
        test::TestRequest::get()
            .uri(TARGET)
            .peer_addr(([192, 0, 2, 71], 50123).into())
            .insert_header(("host", "www.example.com"))
            .insert_header(("user-agent", AGENT))
            .insert_header(("accept", "text/html"))
            .insert_header(("referer", REFERER))
            .to_request()
    };
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    };
    let bare = {
        let runtime = runtime();
        let service = runtime.block_on(test::init_service(
            App::new().default_service(web::to(answer)),
        ));
        task("actix/bare", move || {
            runtime.block_on(async {
                let response = service.call(call()).await.unwrap();
                black_box(test::read_body(response).await);
            });
        })
    };
    let logger = {
        let runtime = runtime();
        let format = r#"%a - - %t "%r" %s %b "%{Referer}i" "%{User-Agent}i""#;
        let service = runtime.block_on(test::init_service(
            App::new()
                .wrap(Logger::new(format))
                .default_service(web::to(answer)),
        ));
        task("actix/logger", move || {
            runtime.block_on(async {
                let response = service.call(call()).await.unwrap();
                black_box(test::read_body(response).await);
            });
        })
    };
    let request = task("actix/request", move || {
        black_box(call());
    });
    vec![request, bare, logger]
}
