//! One writer, so many records: for counting instructions.

use std::fs::OpenOptions;
use std::io::Write;

use file_rotatelogs::{NonBlocking, RotateLogs};
use file_rotatelogs_benches::{RECORD, directory};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let variant = arguments.next().expect("a variant");
    let records: usize = arguments.next().and_then(|n| n.parse().ok()).expect("a number");
    let directory = directory();
    let path = directory.path().join("log.%Y%m%d");
    let logs = || RotateLogs::builder(&path);
    let mut writer: Box<dyn Write> = match &*variant {
        "raw" => Box::new(OpenOptions::new().append(true).create(true).open(&path).expect("a file")),
        "daily" => Box::new(logs().build().expect("a log")),
        "daily-and-size" => Box::new(logs().rotate_at_bytes(1 << 40).build().expect("a log")),
        "queue" => Box::new(NonBlocking::new(logs().build().expect("a log")).expect("a thread")),
        "tracing-appender" => Box::new(tracing_appender::rolling::daily(directory.path(), "log")),
        other => panic!("no variant {other}"),
    };
    for _ in 0..records {
        writer.write_all(&RECORD).expect("it is written");
    }
    writer.flush().expect("it is written");
}
