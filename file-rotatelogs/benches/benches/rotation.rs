//! How long a rotation stalls the writer, with ten thousand old files and compression.
//!
//! Beside it, at the same moments and in the same directory, what the kernel itself asks
//! for the least that a rotation can be: a file created, written to and linked to. Some
//! minutes between two runs keep the ten thousand removals of the one out of the other.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use file_rotatelogs::{Clock, Compression, RotateLogs};
use file_rotatelogs_benches::{RECORD, directory};

const OLD_FILES: usize = 10_000;
const ROTATIONS: usize = 300;
const PER_FILE: usize = 1000;

fn main() {
    let directory = directory();
    for number in 0..OLD_FILES {
        let day = 20_000 + number as i64 / 100;
        let name = Clock::utc();
        let pattern = file_rotatelogs::Pattern::new("a.%Y%m%d.log").expect("a pattern");
        let time = std::time::UNIX_EPOCH + Duration::from_secs(day as u64 * 86_400);
        let base = pattern.path_at(time, &name);
        let path = directory
            .path()
            .join(format!("{}.{}.gz", base.display(), number % 100 + 1));
        fs::write(path, b"old").expect("an old file");
    }
    let mut logs = RotateLogs::builder(directory.path().join("a.%Y%m%d.log"))
        .link(directory.path().join("current"))
        .rotate_at_bytes((PER_FILE * RECORD.len()) as u64)
        .max_files(OLD_FILES + 10)
        .compress(Compression::Gzip)
        .build()
        .expect("a log");
    let mut raw = fs::File::create(directory.path().join("raw")).expect("a file");
    let (mut rotations, mut bare) = (Vec::new(), Vec::new());
    let (mut others, mut plain) = (Vec::new(), Vec::new());
    for record in 0..ROTATIONS * PER_FILE {
        if record > 0 && record % PER_FILE == 0 {
            let begun = Instant::now();
            bare_rotation(directory.path(), record / PER_FILE).expect("a file and a link");
            bare.push(begun.elapsed());
        }
        let begun = Instant::now();
        logs.write_all(&RECORD).expect("it is written");
        let took = begun.elapsed();
        if record > 0 && record % PER_FILE == 0 {
            rotations.push(took);
            // A log of a few megabytes a second, not one that only rotates.
            std::thread::sleep(Duration::from_millis(20));
        } else {
            others.push(took);
        }
        let begun = Instant::now();
        raw.write_all(&RECORD).expect("it is written");
        plain.push(begun.elapsed());
    }
    assert!(logs.wait_for_housekeeping(Duration::from_secs(600)));
    println!("\nstall of the writer in µs, {OLD_FILES} old files, compression on");
    println!(
        "{:<32} {:>9} {:>9} {:>9} {:>9} {:>11}",
        "", "median", "90 %", "99 %", "most", "over 1 ms"
    );
    show("the record that rotates", rotations);
    show("bare create, write, link", bare);
    show("the other records", others);
    show("raw write(2) in between", plain);
}

fn bare_rotation(directory: &Path, number: usize) -> std::io::Result<()> {
    let path = directory.join(format!("bare.{number}"));
    let mut options = fs::OpenOptions::new();
    let mut file = options.append(true).create_new(true).open(&path)?;
    file.write_all(&RECORD)?;
    let temporary = directory.join(".bare.tmp");
    symlink(path, &temporary)?;
    fs::rename(&temporary, directory.join("bare"))
}

fn show(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len() - 1);
        times[index].as_nanos() as f64 / 1000.0
    };
    println!(
        "{name:<32} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>11}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
        format!(
            "{}/{}",
            times.iter().filter(|time| time.as_millis() >= 1).count(),
            times.len()
        ),
    );
}
