//! A whole request through a layer around a trivial handler.

use std::{hint::black_box, io};

use apache_logformat::{AccessLogLayer, LogFormat, Zone};
use apache_logformat_benches::{handler, request, serve};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tower::Layer;
use tower_http::trace::TraceLayer;

fn layers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layer");
    let zone = Zone::named("Europe/Berlin").unwrap();
    let null = |line: &[u8]| {
        black_box(line);
        Ok(())
    };

    let mut service = handler();
    group.bench_function("bare", |bencher| {
        bencher.iter_batched(request, |request| serve(&mut service, request), BatchSize::SmallInput);
    });

    let format = LogFormat::combined().with_zone(zone.clone());
    let mut service = AccessLogLayer::new(format, null).layer(handler());
    group.bench_function("combined", |bencher| {
        bencher.iter_batched(request, |request| serve(&mut service, request), BatchSize::SmallInput);
    });

    let format: LogFormat = r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %D"#
        .parse()
        .unwrap();
    let mut service = AccessLogLayer::new(format.with_zone(zone), null).layer(handler());
    group.bench_function("combined_micros", |bencher| {
        bencher.iter_batched(request, |request| serve(&mut service, request), BatchSize::SmallInput);
    });

    let subscriber = tracing_subscriber::fmt().with_writer(io::sink).finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut service = TraceLayer::new_for_http()
            .make_span_with(tower_http::trace::DefaultMakeSpan::new().level(tracing::Level::INFO))
            .on_response(tower_http::trace::DefaultOnResponse::new().level(tracing::Level::INFO))
            .layer(handler());
        group.bench_function("tower_http_trace", |bencher| {
            bencher.iter_batched(
                request,
                |request| serve(&mut service, request),
                BatchSize::SmallInput,
            );
        });
    });
    group.finish();
}

fn actix(criterion: &mut Criterion) {
    use actix_web::{App, HttpResponse, dev::Service, middleware::Logger, test, web};

    // The logger's lines go where ours go: formatted, then nowhere.
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .format(|_, record| {
            black_box(format!("{}\n", record.args()));
            Ok(())
        })
        .target(env_logger::Target::Pipe(Box::new(io::sink())))
        .init();

    let mut group = criterion.benchmark_group("actix");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answer = || async { HttpResponse::Ok().body("hello") };
    let call = || {
        test::TestRequest::get()
            .uri(apache_logformat_benches::TARGET)
            .peer_addr(([192, 0, 2, 71], 50123).into())
            .insert_header(("user-agent", apache_logformat_benches::AGENT))
            .insert_header(("referer", apache_logformat_benches::REFERER))
            .to_request()
    };
    let bare = runtime.block_on(test::init_service(
        App::new().default_service(web::to(answer)),
    ));
    group.bench_function("bare", |bencher| {
        bencher.iter_batched(
            call,
            |request| {
                runtime.block_on(async {
                    let response = bare.call(request).await.unwrap();
                    black_box(test::read_body(response).await);
                });
            },
            BatchSize::SmallInput,
        );
    });
    let logged = runtime.block_on(test::init_service(
        App::new()
            .wrap(Logger::new(
                r#"%a - - %t "%r" %s %b "%{Referer}i" "%{User-Agent}i""#,
            ))
            .default_service(web::to(answer)),
    ));
    group.bench_function("logger", |bencher| {
        bencher.iter_batched(
            call,
            |request| {
                runtime.block_on(async {
                    let response = logged.call(request).await.unwrap();
                    black_box(test::read_body(response).await);
                });
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, layers, actix);
criterion_main!(benches);
