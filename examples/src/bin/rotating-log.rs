//! A log that rotates itself, behind tracing: a file for each day and for each
//! 10 kB, compressed when it is done with, five kept, and a link to the current
//! one. No request would ever wait for the disk.
//!
//! ```text
//! rotating-log                              then: ls -l logs; tail logs/app.log
//! RECORDS=100000 rotating-log /tmp/logs
//! ```

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "it shows what happens"
)]

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use file_rotatelogs::{Compression, NonBlocking, RotateLogs};
use tracing::info;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}"));
            eprintln!("rotating-log: {error}{}", cause.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(env::args_os().nth(1).unwrap_or_else(|| "logs".into()));
    let records: u32 = match env::var("RECORDS") {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("RECORDS: `{text}` is not a number of records"))?,
        Err(_) => 1_000,
    };

    let logs = RotateLogs::builder(directory.join("app.%Y%m%d.log"))
        .link(directory.join("app.log"))
        .rotate_at_bytes(10_000)
        .compress(Compression::Gzip)
        .max_files(5)
        .build()?;
    let logs = NonBlocking::new(logs)?;
    tracing_subscriber::fmt()
        .with_writer(logs.clone())
        .with_ansi(false)
        .init();

    for number in 1..=records {
        info!(number, "something happened");
    }

    // What is in the queue is written before the program ends.
    logs.flush_within(Duration::from_secs(60))?;
    let tidy = logs.logs().wait_for_housekeeping(Duration::from_secs(60));
    println!(
        "{records} records, {} dropped, all compressed: {tidy}",
        logs.dropped()
    );
    println!("the last file is {}", logs.logs().current_path().display());
    Ok(())
}
