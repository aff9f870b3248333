//! What the tests have in common.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use file_rotatelogs::{Builder, Clock, Event};
use parking_lot::{RwLock, RwLockReadGuard};

/// A zone of the database or, where there is none on the machine, its present rules.
pub(crate) fn zone(name: &str) -> Clock {
    Clock::zone(name).unwrap_or_else(|_| {
        let rules = match name {
            "Asia/Tokyo" => "JST-9",
            "Pacific/Honolulu" => "HST10",
            "Europe/Berlin" => "CET-1CEST,M3.5.0,M10.5.0/3",
            "America/New_York" => "EST5EDT,M3.2.0,M11.1.0",
            "Australia/Lord_Howe" => "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
            "Asia/Kathmandu" => "<+0545>-5:45",
            "America/Caracas" => "<-04>4",
            "Australia/Adelaide" => "ACST-9:30ACDT,M10.1.0,M4.1.0/3",
            _ => panic!("no rules for {name}"),
        };
        Clock::zone(rules).unwrap()
    })
}

/// A time that passes when a test says so.
#[derive(Clone, Debug)]
pub(crate) struct Hands(Arc<AtomicI64>);

impl Hands {
    /// Sets the hands to some seconds since 1970.
    pub(crate) fn at(seconds: i64) -> Self {
        Self(Arc::new(AtomicI64::new(seconds * 1000)))
    }

    pub(crate) fn set(&self, seconds: i64) {
        self.0.store(seconds * 1000, Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// Puts the hands on a clock of some zone.
    pub(crate) fn on(&self, clock: Clock) -> Clock {
        let hands = self.clone();
        clock.with_now(move || hands.now())
    }

    fn now(&self) -> SystemTime {
        let millis = self.0.load(Ordering::SeqCst);
        let distance = Duration::from_millis(millis.unsigned_abs());
        if millis < 0 {
            UNIX_EPOCH - distance
        } else {
            UNIX_EPOCH + distance
        }
    }
}

/// Returns the instant of a date and time in UTC, as seconds since 1970.
pub(crate) fn utc(year: i16, month: i8, day: i8, hour: i8, minute: i8, second: i8) -> i64 {
    let date = jiff::civil::date(year, month, day).at(hour, minute, second, 0);
    jiff::tz::Offset::UTC
        .to_timestamp(date)
        .unwrap()
        .as_second()
}

pub(crate) fn at(seconds: i64) -> SystemTime {
    Hands::at(seconds).now()
}

pub(crate) const HOUR: i64 = 3600;
pub(crate) const DAY: i64 = 24 * HOUR;

/// The events of a log, as they are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    pub(crate) fn of(&self, builder: Builder) -> Builder {
        self.of_and(builder, |_| {})
    }

    /// Does something else, too, when one is told.
    pub(crate) fn of_and(
        &self,
        builder: Builder,
        also: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Builder {
        let list = self.0.clone();
        builder.on_event(move |event: &Event| {
            list.lock().unwrap().push(event.to_string());
            also(event);
        })
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, start: &str) -> usize {
        self.all()
            .iter()
            .filter(|event| event.starts_with(start))
            .count()
    }
}

/// Lists what is in a directory and below, with hidden files left out: links with `->`,
/// the others with what is in them, compressed ones as they were.
pub(crate) fn tree(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(
        directory,
        directory,
        &mut found,
        |path| match fs::read_link(path) {
            Ok(target) => format!("-> {}", target.to_str().unwrap()),
            Err(_) => String::from_utf8_lossy(&contents(path)).into_owned(),
        },
    );
    found
}

/// Lists the names that [`tree`] lists.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut found = BTreeMap::new();
    collect(directory, directory, &mut found, |_| String::new());
    found.into_keys().collect()
}

fn collect(
    root: &Path,
    directory: &Path,
    found: &mut BTreeMap<String, String>,
    describe: fn(&Path) -> String,
) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with('.') {
            continue;
        }
        if fs::symlink_metadata(&path).is_ok_and(|there| there.is_dir()) {
            collect(root, &path, found, describe);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            found.insert(name.to_owned(), describe(&path));
        }
    }
}

/// Reads a file, decompressed.
pub(crate) fn contents(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => {
            let mut plain = Vec::new();
            io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&*bytes), &mut plain)
                .unwrap_or_else(|error| panic!("{path:?} is no gzip file: {error}"));
            plain
        }
        Some("zst") => zstd::decode_all(&*bytes)
            .unwrap_or_else(|error| panic!("{path:?} is no zstd file: {error}")),
        _ => bytes,
    }
}

pub(crate) fn expect<const N: usize>(files: [(&str, &str); N]) -> BTreeMap<String, String> {
    files
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .collect()
}

/// Waits for something to come true.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How often a log looks after its file, by the clock of [`steady`].
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Reads the clock that logs look at: the kernel's coarse one, which may be late.
fn steady() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// Waits until each log looks after its file before its next record.
pub(crate) fn wait_until_logs_look() {
    let before = steady();
    wait_until("half a second has passed", || {
        steady() - before >= LOOK_EVERY
    });
}

/// Runs something in so short a time that no log that it opens looks after its file: again
/// when the machine stood still.
pub(crate) fn before_logs_look<T>(mut run: impl FnMut() -> T) -> T {
    for _ in 0..100 {
        let before = steady();
        let done = run();
        if steady() - before < LOOK_EVERY {
            return done;
        }
    }
    panic!("it takes more than half a second each time");
}

/// A directory for the files of one test.
pub(crate) struct Scratch {
    directory: tempfile::TempDir,
    _quiet: Option<Quiet>,
}

impl Scratch {
    /// Makes one for logs of this process; no program is started as long as it is there.
    pub(crate) fn new() -> Self {
        Self {
            _quiet: Some(Quiet::new()),
            ..Self::with_programs()
        }
    }

    /// Makes one for a test that starts programs.
    pub(crate) fn with_programs() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            _quiet: None,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Keeps every test from starting a program, until dropped.
///
/// A program that is just being started has a copy of all files that this process has
/// open, and of their locks. To a log that is another writer, for a moment, and that may
/// be a long one.
pub(crate) struct Quiet(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>);

static STARTS: RwLock<()> = RwLock::new(());

thread_local! {
    static QUIET: Cell<usize> = const { Cell::new(0) };
}

impl Quiet {
    pub(crate) fn new() -> Self {
        let guard = match QUIET.replace(QUIET.get() + 1) {
            0 => STARTS.read(),
            _ => STARTS.read_recursive(),
        };
        Self(guard)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.set(QUIET.get() - 1);
    }
}

/// Starts a program as soon as nobody wants [`Quiet`].
pub(crate) fn start(command: &mut Command) -> Child {
    assert_eq!(QUIET.get(), 0, "a Scratch with_programs is wanted");
    let _alone = STARTS.write();
    let child = command.spawn();
    child.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> ExitStatus {
    start(command).wait().unwrap()
}

/// Tells whether a program is there to test with. With `TEST_REQUIRE_ALL=1` it has to be.
pub(crate) fn need(program: &str) -> bool {
    let there = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    });
    if !there {
        leave_out(&format!("{program} is not installed"));
    }
    there
}

/// Tells why a test is left out. With `TEST_REQUIRE_ALL=1` none may be.
pub(crate) fn leave_out(reason: &str) {
    let all = std::env::var_os("TEST_REQUIRE_ALL").is_some_and(|all| all == "1");
    assert!(!all, "{reason}");
    // Past the harness, which keeps what a passing test prints.
    let _ = writeln!(io::stderr(), "left out: {reason}");
}

pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|there| there.uid() == 0)
}
