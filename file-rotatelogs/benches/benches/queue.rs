//! The price of one record that a thread writes, for the caller and to the end.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use file_rotatelogs::{NonBlocking, RotateLogs};
use file_rotatelogs_benches::{RECORD, Variant, compare, directory, median, time};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

fn main() {
    // From the first record to the last one in the file, nothing lost. Each run has files
    // of its own, removed after it: memory that a virtual machine touches for the first
    // time costs ten times what the write does, whoever writes.
    for (title, callers) in [
        ("queue to file, one caller", 1),
        ("queue to file, four callers", 4),
    ] {
        let mut variants = vec![
            Variant::new("tracing-appender, lossless", move |records| {
                let directory = directory();
                let (writer, guard) = appender(directory.path(), false);
                time(|| {
                    push_from(callers, &writer, records);
                    drop((writer, guard));
                })
            }),
            Variant::new("NonBlocking", move |records| {
                let directory = directory();
                let writer = NonBlocking::new(ours(directory.path())).expect("a thread");
                time(|| {
                    push_from(callers, &writer, records);
                    (&writer).flush().expect("it is written");
                })
            }),
            // What the file asks for, without a queue.
            Variant::new("raw write(2) of 64 KiB each", |records| {
                let directory = directory();
                let mut file = File::create(directory.path().join("raw")).expect("a file");
                let batch = RECORD.repeat(64 * 1024 / RECORD.len());
                time(|| {
                    for _ in 0..records * RECORD.len() / batch.len() {
                        file.write_all(black_box(&batch)).expect("it is written");
                    }
                })
            }),
        ];
        compare(title, &mut variants, 500_000, 15);
    }

    // The caller's part: bursts that the queue has room for, with pauses.
    let directory = directory();
    let directory = directory.path();
    let mut lossless = appender(directory, false);
    let mut lossy = appender(directory, true);
    let mut queue = NonBlocking::new(ours(directory)).expect("a thread");
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

    // The caller's part of a single record now and then. Two controls: the clock alone,
    // and the least that a queue can be, bytes behind a lock that another thread reads, so
    // that their cache lines travel from core to core.
    let mut queue = NonBlocking::new(ours(directory)).expect("a thread");
    let mut lossless = appender(directory, false);
    let bytes = Arc::new(Mutex::new(Vec::<u8>::new()));
    let reader = Arc::clone(&bytes);
    std::thread::spawn(move || {
        let mut taken = Vec::new();
        loop {
            std::thread::sleep(Duration::from_millis(2));
            std::mem::swap(&mut *reader.lock().expect("no panic"), &mut taken);
            black_box(taken.iter().map(|&byte| u64::from(byte)).sum::<u64>());
            taken.clear();
        }
    });
    let mut singles: [(&str, Box<dyn FnMut()>, Vec<f64>); 4] = [
        ("nothing", Box::new(|| {}), Vec::new()),
        (
            "bytes behind a lock",
            Box::new(move || {
                let mut bytes = bytes.lock().expect("no panic");
                bytes.extend_from_slice(black_box(&RECORD));
            }),
            Vec::new(),
        ),
        (
            "tracing-appender, lossless",
            Box::new(move || push(&mut lossless.0, 1)),
            Vec::new(),
        ),
        (
            "NonBlocking",
            Box::new(move || push(&mut queue, 1)),
            Vec::new(),
        ),
    ];
    println!("\none record each 100 µs, the caller's part in ns: median, 90 %, 99 %");
    for _ in 0..5 {
        for (_, push, times) in &mut singles {
            single(push, times);
        }
    }
    for (name, _, times) in &mut singles {
        times.sort_by(f64::total_cmp);
        println!(
            "{name:<44} {:>8.0} {:>8.0} {:>8.0}",
            median(times),
            times[times.len() * 90 / 100],
            times[times.len() * 99 / 100]
        );
    }
}

fn ours(directory: &Path) -> RotateLogs {
    RotateLogs::builder(directory.join("ours.%Y%m%d"))
        .build()
        .expect("ours")
}

fn appender(
    directory: &Path,
    lossy: bool,
) -> (tracing_appender::non_blocking::NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(lossy)
        .buffered_lines_limit(128_000)
        .finish(tracing_appender::rolling::daily(directory, "appender"))
}

fn push_from(callers: usize, writer: &(impl Write + Clone + Send + Sync), records: usize) {
    std::thread::scope(|scope| {
        for _ in 0..callers {
            let mut writer = writer.clone();
            scope.spawn(move || push(&mut writer, records / callers));
        }
    });
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

fn single(push: &mut impl FnMut(), times: &mut Vec<f64>) {
    for _ in 0..2000 {
        let until = Instant::now() + Duration::from_micros(100);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        times.push(time(&mut *push).as_nanos() as f64);
    }
}
