//! One task, many times, for callgrind to count the instructions of.
//!
//! `instructions.sh` runs it.

use std::{env, hint::black_box, io};

use apache_logformat::{AccessLogLayer, LogFormat, Zone};
use apache_logformat_benches::{handler, request, serve, with_exchange};
use tower::Layer;
use tower_http::trace::{DefaultMakeSpan, DefaultOnResponse, TraceLayer};

fn main() {
    let mut arguments = env::args().skip(1);
    let task = arguments.next().expect("a task");
    let times: u32 = arguments.next().expect("a number").parse().expect("a number");

    let zone = Zone::fixed(3600, "CET");
    let null = |line: &[u8]| {
        black_box(line);
        Ok(())
    };
    let layer = |format: LogFormat| AccessLogLayer::new(format.with_zone(zone.clone()), null);
    let with_duration = r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %D"#;
    match &*task {
        "format-common" => format(&LogFormat::common().with_zone(zone), times),
        "format-combined" => format(&LogFormat::combined().with_zone(zone), times),
        "request" => repeat(times, || {
            black_box(request());
        }),
        "bare" => {
            let mut service = handler();
            repeat(times, || serve(&mut service, request()));
        }
        "layer-combined" => {
            let mut service = layer(LogFormat::combined()).layer(handler());
            repeat(times, || serve(&mut service, request()));
        }
        "layer-combined-micros" => {
            let mut service = layer(with_duration.parse().expect("a format")).layer(handler());
            repeat(times, || serve(&mut service, request()));
        }
        "tower-http-trace" => {
            let subscriber = tracing_subscriber::fmt().with_writer(io::sink).finish();
            let level = tracing::Level::INFO;
            tracing::subscriber::with_default(subscriber, || {
                let mut service = TraceLayer::new_for_http()
                    .make_span_with(DefaultMakeSpan::new().level(level))
                    .on_response(DefaultOnResponse::new().level(level))
                    .layer(handler());
                repeat(times, || serve(&mut service, request()));
            });
        }
        other => panic!("no such task: {other}"),
    }
}

fn format(format: &LogFormat, times: u32) {
    let mut line = Vec::with_capacity(512);
    with_exchange(|exchange| {
        repeat(times, || {
            line.clear();
            format.write(black_box(exchange), &mut line);
            black_box(&line);
        });
    });
}

fn repeat(times: u32, mut task: impl FnMut()) {
    for _ in 0..times {
        task();
    }
    if std::env::var_os("TIME").is_some() {
        let mut best = std::time::Duration::MAX;
        for _ in 0..5000 {
            let start = std::time::Instant::now();
            for _ in 0..100 { task(); }
            best = best.min(start.elapsed());
        }
        eprintln!("{} ns", best.as_nanos() as f64 / 100.0);
    }
}
