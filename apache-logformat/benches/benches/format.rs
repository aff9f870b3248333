//! One line, formatted into a buffer that is used again.

use std::hint::black_box;

use apache_logformat::{Escape, LogFormat, Timestamp, Zone};
use apache_logformat_benches::with_exchange;
use criterion::{Criterion, criterion_group, criterion_main};

fn formats(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("format");
    let zone = Zone::named("Europe/Berlin").unwrap();
    let formats = [
        ("common", LogFormat::common()),
        ("combined", LogFormat::combined()),
        ("vhost_combined", LogFormat::vhost_combined()),
        (
            "combined_micros",
            r#"%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i" %D"#.parse().unwrap(),
        ),
        ("iso_time", "%{%Y-%m-%dT%H:%M:%S%z}t".parse().unwrap()),
        (
            "json",
            r#"{"time":"%{%Y-%m-%dT%H:%M:%S%z}t","client":"%a","request":"%r","status":%>s,"bytes":%B,"agent":"%{User-Agent}i"}"#
                .parse::<LogFormat>()
                .unwrap()
                .with_escape(Escape::Json),
        ),
    ];
    for (name, format) in formats {
        let format = format.with_zone(zone.clone());
        let mut line = Vec::with_capacity(512);
        with_exchange(|exchange| {
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    line.clear();
                    format.write(black_box(exchange), &mut line);
                    black_box(&line);
                });
            });
        });
    }
    // Every line in a second of its own: the cached second is never right.
    let format = LogFormat::combined().with_zone(zone);
    let mut line = Vec::with_capacity(512);
    with_exchange(|exchange| {
        let mut second = 1_700_000_000;
        group.bench_function("combined_new_second", |bencher| {
            bencher.iter(|| {
                second += 1;
                exchange.begin = Timestamp::from_micros(second * 1_000_000);
                line.clear();
                format.write(black_box(exchange), &mut line);
                black_box(&line);
            });
        });
    });
    group.finish();
}

criterion_group!(benches, formats);
criterion_main!(benches);
