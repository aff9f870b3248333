//! The price of one record that a thread writes, for the caller and to the end.

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use file_rotatelogs::{NonBlocking, RotateLogs};
use file_rotatelogs_benches::{RECORD, Variant, compare, directory, median, time};
use tracing_appender::non_blocking::NonBlockingBuilder;

fn main() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    let appender = {
        let directory = directory.path().to_path_buf();
        move |lossy: bool, lines: usize| {
            NonBlockingBuilder::default()
                .lossy(lossy)
                .buffered_lines_limit(lines)
                .finish(tracing_appender::rolling::daily(&directory, "appender"))
        }
    };
    let ours = path("ours.%Y%m%d");
    let logs = move || RotateLogs::builder(&ours).build().expect("ours");

    // From the first record to the last one in the file, nothing lost.
    let (open, begin) = (logs.clone(), appender.clone());
    let (again, threads) = (logs.clone(), appender.clone());
    let mut variants = vec![
        Variant::new("tracing-appender, lossless", move |records| {
            let (mut writer, guard) = begin(false, 128_000);
            time(|| {
                push(&mut writer, records);
                drop(guard);
            })
        }),
        Variant::new("NonBlocking", move |records| {
            let mut writer = NonBlocking::new(open()).expect("a thread");
            time(|| {
                push(&mut writer, records);
                writer.flush().expect("it is written");
            })
        }),
    ];
    compare("queue to file, one caller", &mut variants, 500_000, 15);

    let mut variants = vec![
        Variant::new("tracing-appender, lossless", move |records| {
            let (writer, guard) = threads(false, 128_000);
            time(|| {
                std::thread::scope(|scope| {
                    for _ in 0..4 {
                        let mut writer = writer.clone();
                        scope.spawn(move || push(&mut writer, records / 4));
                    }
                });
                drop(guard);
            })
        }),
        Variant::new("NonBlocking", move |records| {
            let writer = NonBlocking::new(again()).expect("a thread");
            time(|| {
                std::thread::scope(|scope| {
                    for _ in 0..4 {
                        let mut writer = writer.clone();
                        scope.spawn(move || push(&mut writer, records / 4));
                    }
                });
                (&writer).flush().expect("it is written");
            })
        }),
    ];
    compare("queue to file, four callers", &mut variants, 500_000, 15);

    // The caller's part: bursts that the queue has room for, with pauses.
    let mut lossless = appender(false, 128_000);
    let mut lossy = appender(true, 128_000);
    let mut queue = NonBlocking::new(logs()).expect("a thread");
    let mut variants = vec![
        Variant::new("tracing-appender, lossless", move |records| {
            bursts(records, |count| push(&mut lossless.0, count))
        }),
        Variant::new("tracing-appender, lossy", move |records| {
            bursts(records, |count| push(&mut lossy.0, count))
        }),
        Variant::new("NonBlocking", move |records| {
            bursts(records, |count| push(&mut queue, count))
        }),
    ];
    compare(
        "the caller's part, bursts of 1000",
        &mut variants,
        50_000,
        15,
    );

    // The caller's part of a single record now and then: each wakes the thread.
    let mut queue = NonBlocking::new(logs()).expect("a thread");
    let mut lossless = appender(false, 128_000);
    println!("\none record each 100 µs, the caller's part in ns: median, 99 %");
    single("tracing-appender, lossless", || push(&mut lossless.0, 1));
    single("NonBlocking", || push(&mut queue, 1));
}

fn push(writer: &mut impl Write, records: usize) {
    for _ in 0..records {
        writer.write_all(black_box(&RECORD)).expect("it is taken");
    }
}

/// Times bursts of records, but not the pauses between, in which the queue is emptied.
fn bursts(records: usize, mut push: impl FnMut(usize)) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..records / 1000 {
        total += time(|| push(1000));
        std::thread::sleep(Duration::from_millis(5));
    }
    total
}

fn single(name: &str, mut push: impl FnMut()) {
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..5000 {
        let until = Instant::now() + Duration::from_micros(100);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        times.push(time(&mut push).as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{name:<44} {:>8.0} {:>8.0}",
        median(&times),
        times[times.len() * 99 / 100]
    );
}
