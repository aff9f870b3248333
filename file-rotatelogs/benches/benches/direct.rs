//! The price of one record, written by the caller itself.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};
use file_rotatelogs::{Clock, RotateLogs};
use file_rotatelogs_benches::{RECORD, Variant, compare, directory, time};
use flexi_logger::writers::FileLogWriter;
use flexi_logger::{Cleanup, Criterion, FileSpec, Naming};
use logroller::{LogRollerBuilder, Rotation, RotationAge};

const DAY: Duration = Duration::from_secs(86_400);

fn writer(name: &'static str, mut writer: impl Write + 'static) -> Variant {
    Variant::new(name, move |records| {
        time(|| {
            for _ in 0..records {
                writer.write_all(&RECORD).expect("it is written");
            }
        })
    })
}

fn main() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    let raw = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path("raw"));
    let ours = || RotateLogs::builder(path("ours.%Y%m%d")).clock(Clock::local());
    let sized = RotateLogs::builder(path("sized.%Y%m%d"))
        .link(path("current"))
        .rotate_every(DAY)
        .rotate_at_bytes(1 << 40)
        .max_age(14 * DAY);
    let mut variants = vec![
        writer("raw write(2) to an O_APPEND file", raw.expect("raw")),
        writer("file-rotatelogs, daily", ours().build().expect("ours")),
        writer(
            "file-rotatelogs, daily, size, age, link",
            sized.build().expect("ours"),
        ),
        writer(
            "tracing-appender, daily",
            tracing_appender::rolling::daily(directory.path(), "appender"),
        ),
        writer(
            "logroller, daily",
            LogRollerBuilder::new(directory.path().to_str().expect("text"), "logroller")
                .rotation(Rotation::AgeBased(RotationAge::Daily))
                .build()
                .expect("logroller"),
        ),
        writer(
            "file-rotate, size",
            FileRotate::new(
                path("file-rotate"),
                AppendCount::new(3),
                ContentLimit::BytesSurpassed(1 << 40),
                Compression::None,
                None,
            ),
        ),
        writer(
            "flexi_logger's FileLogWriter, daily",
            FileLogWriter::builder(
                FileSpec::default()
                    .directory(directory.path())
                    .basename("flexi"),
            )
            .rotate(
                Criterion::Age(flexi_logger::Age::Day),
                Naming::Timestamps,
                Cleanup::Never,
            )
            .try_build_with_handle()
            .expect("flexi_logger")
            .0,
        ),
    ];
    compare("direct write, 200 bytes", &mut variants, 100_000, 21);
}
