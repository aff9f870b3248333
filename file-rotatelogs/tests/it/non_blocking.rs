use std::fs;
use std::io::{ErrorKind, IoSlice, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use file_rotatelogs::{Clock, NonBlocking, Overflow, RotateLogs};

use crate::support::{
    Events, HOUR, Hands, PATIENCE, Scratch, contents, names, tree, utc, wait_until,
};

fn lines(scratch: &Scratch, name: &str) -> Vec<String> {
    let text = String::from_utf8(contents(&scratch.join(name))).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Keeps the thread of a queue from writing, by an event that lasts as long as wanted.
struct Stuck {
    logs: RotateLogs,
    free: Arc<AtomicBool>,
}

impl Stuck {
    /// Opens a log whose next record is stuck, as it needs another file.
    fn new(scratch: &Scratch) -> Self {
        let free = Arc::new(AtomicBool::new(true));
        let gate = Arc::clone(&free);
        let logs = RotateLogs::builder(scratch.join("a.log"))
            .rotate_at_bytes(2000)
            .on_event(move |_| {
                let deadline = Instant::now() + PATIENCE;
                while !gate.load(Ordering::SeqCst) && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
            })
            .build()
            .unwrap();
        writeln!(&logs, "{:>1999}", "fills the file").unwrap();
        Self { logs, free }
    }

    /// Has the thread get stuck, with nothing in the queue.
    fn stick(&self, log: &NonBlocking) {
        self.free.store(false, Ordering::SeqCst);
        let path = self.logs.current_path();
        writeln!({ log }, "sticks").unwrap();
        // It goes on to the next file before it tells.
        wait_until("the thread is stuck", || self.logs.current_path() != path);
    }

    fn free(&self) {
        self.free.store(true, Ordering::SeqCst);
    }
}

#[test]
fn records_arrive_whole_and_in_order_and_flush_waits_for_them() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    let mut log = NonBlocking::new(logs).unwrap();
    for number in 0..10_000 {
        match number % 4 {
            0 => writeln!(log, "{number}").unwrap(),
            1 => log.write_all(format!("{number}\n").as_bytes()).unwrap(),
            2 => assert!((&log).write(format!("{number}\n").as_bytes()).unwrap() > 0),
            _ => {
                let text = number.to_string();
                let parts = [IoSlice::new(text.as_bytes()), IoSlice::new(b"\n")];
                assert_eq!(log.write_vectored(&parts).unwrap(), text.len() + 1);
            }
        }
    }
    assert_eq!(log.write(b"").unwrap(), 0);
    log.flush().unwrap();
    let expected: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    assert_eq!(lines(&scratch, "a.log"), expected);
    assert_eq!(log.dropped(), 0);
    assert_eq!(log.logs().current_path(), scratch.join("a.log"));
}

#[test]
fn record_is_written_soon_without_a_flush() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    let mut log = NonBlocking::new(logs).unwrap();
    for number in 1..=3 {
        writeln!(log, "{number}").unwrap();
        wait_until("it is in the file", || {
            lines(&scratch, "a.log").len() == number
        });
    }
}

#[test]
fn many_records_become_few_writes_and_no_file_is_too_large() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .rotate_at_bytes(1000)
        .build()
        .unwrap();
    let mut log = NonBlocking::new(logs).unwrap();
    for number in 0..2000 {
        writeln!(log, "{number:>49}").unwrap();
    }
    writeln!(log, "{:>2000}", "larger than a file").unwrap();
    writeln!(log, "last").unwrap();
    log.flush().unwrap();
    let files = tree(scratch.path());
    assert_eq!(files.len(), 100 + 2);
    let mut all = Vec::new();
    for number in 0..files.len() {
        let suffix = if number == 0 {
            String::new()
        } else {
            format!(".{number}")
        };
        let text = &files[&format!("a.log{suffix}")];
        assert!(
            text.len() == 1000 || number >= 100,
            "{number}: {}",
            text.len()
        );
        all.extend(text.lines().map(str::trim));
    }
    assert_eq!(all.len(), 2002);
    assert!(
        all.iter()
            .take(2000)
            .enumerate()
            .all(|(number, line)| *line == number.to_string())
    );
    assert_eq!(files["a.log.101"], "last\n");
}

#[test]
fn batch_counts_what_another_writer_put_into_the_file_meanwhile() {
    let scratch = Scratch::new();
    let open = || {
        RotateLogs::builder(scratch.join("a.log"))
            .rotate_at_bytes(100_000)
            .build()
            .unwrap()
    };
    let (logs, other) = (open(), open());
    let log = NonBlocking::new(logs).unwrap();
    for _ in 0..900 {
        writeln!(&other, "{:>99}", "other").unwrap();
    }
    for _ in 0..900 {
        writeln!(&log, "{:>99}", "batch").unwrap();
    }
    (&log).flush().unwrap();
    let sizes: Vec<usize> = tree(scratch.path()).values().map(String::len).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 180_000);
    assert!(sizes[0] < 110_000, "{sizes:?}");
}

#[test]
fn threads_share_the_queue_and_nothing_is_lost() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    let log = NonBlocking::builder(logs)
        .capacity(500)
        .drain_within(PATIENCE)
        .build()
        .unwrap();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let mut log = log.clone();
            thread::spawn(move || {
                for number in 0..2000 {
                    writeln!(log, "{thread} {number}").unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    drop(log);
    let lines = lines(&scratch, "a.log");
    assert_eq!(lines.len(), 8000);
    for thread in 0..4 {
        let own: Vec<&String> = lines
            .iter()
            .filter(|l| l.starts_with(&format!("{thread} ")))
            .collect();
        assert!(
            own.iter()
                .enumerate()
                .all(|(n, line)| **line == format!("{thread} {n}"))
        );
    }
}

#[test]
fn full_queue_drops_the_newest_and_counts_each() {
    let scratch = Scratch::new();
    let stuck = Stuck::new(&scratch);
    let mut log = NonBlocking::builder(stuck.logs.clone())
        .capacity(50)
        .overflow(Overflow::DropNewest)
        .build()
        .unwrap();
    stuck.stick(&log);
    for number in 0..20 {
        writeln!(log, "record {number:02}").unwrap();
    }
    assert_eq!(log.dropped(), 15, "five of ten bytes have room");
    stuck.free();
    log.flush().unwrap();
    let kept: Vec<String> = (0..5).map(|number| format!("record {number:02}")).collect();
    assert_eq!(lines(&scratch, "a.log.1")[1..], kept);
    // Larger than the queue, but the queue is empty.
    writeln!(log, "{:>100}", "large").unwrap();
    log.flush().unwrap();
    assert_eq!(log.dropped(), 15);
    assert_eq!(lines(&scratch, "a.log.1").len(), 7);
}

#[test]
fn full_queue_makes_the_caller_wait_when_nothing_may_be_dropped() {
    let scratch = Scratch::new();
    let stuck = Stuck::new(&scratch);
    let log = NonBlocking::builder(stuck.logs.clone())
        .capacity(50)
        .build()
        .unwrap();
    stuck.stick(&log);
    let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (counter, mut writer) = (Arc::clone(&taken), log.clone());
    let thread = thread::spawn(move || {
        for number in 0..20 {
            writeln!(writer, "record {number:02}").unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    wait_until("the queue is full", || taken.load(Ordering::SeqCst) == 5);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(taken.load(Ordering::SeqCst), 5, "the sixth waits");
    stuck.free();
    thread.join().unwrap();
    (&log).flush().unwrap();
    assert_eq!(log.dropped(), 0);
    assert_eq!(lines(&scratch, "a.log.1").len(), 21);
}

#[test]
fn flush_and_close_give_up_in_time() {
    let scratch = Scratch::new();
    let stuck = Stuck::new(&scratch);
    let log = NonBlocking::builder(stuck.logs.clone())
        .drain_within(Duration::from_millis(20))
        .build()
        .unwrap();
    stuck.stick(&log);
    writeln!(&log, "waits").unwrap();
    let moment = Duration::from_millis(20);
    assert_eq!(
        log.flush_within(moment).unwrap_err().kind(),
        ErrorKind::TimedOut
    );
    assert_eq!(log.close(moment).unwrap_err().kind(), ErrorKind::TimedOut);
    drop(log);
    assert!(
        !stuck.free.load(Ordering::SeqCst),
        "dropping did not wait for it"
    );
    stuck.free();
    wait_until("it is written all the same", || {
        lines(&scratch, "a.log.1").len() == 2
    });
}

#[test]
fn last_clone_writes_what_is_left_when_dropped() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    let log = NonBlocking::builder(logs)
        .drain_within(PATIENCE)
        .build()
        .unwrap();
    let clone = log.clone();
    for number in 0..1000 {
        writeln!(&log, "{number}").unwrap();
    }
    drop(log);
    writeln!(&clone, "still there").unwrap();
    drop(clone);
    assert_eq!(lines(&scratch, "a.log").len(), 1001);
}

#[test]
fn last_clone_waits_for_its_records_by_default() {
    let scratch = Scratch::new();
    let stuck = Stuck::new(&scratch);
    let log = NonBlocking::new(stuck.logs.clone()).unwrap();
    stuck.stick(&log);
    writeln!(&log, "left").unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Most likely it is waited for by then.
            thread::sleep(Duration::from_millis(100));
            stuck.free();
        });
        let begun = Instant::now();
        drop(log);
        // It waits no longer than that: the machine may stand still for as long.
        if begun.elapsed() < Duration::from_secs(5) {
            assert_eq!(lines(&scratch, "a.log.1"), ["sticks", "left"]);
        }
    });
}

#[test]
fn queue_has_room_for_megabytes_by_default() {
    let scratch = Scratch::new();
    let stuck = Stuck::new(&scratch);
    let log = NonBlocking::builder(stuck.logs.clone())
        .overflow(Overflow::DropNewest)
        .build()
        .unwrap();
    stuck.stick(&log);
    for _ in 0..64 {
        (&log).write_all(&[b'x'; 64 * 1024]).unwrap();
    }
    assert_eq!(log.dropped(), 0);
    stuck.free();
}

#[test]
fn flush_tells_of_lost_records_once() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("d/a.log"))
        .lazy(true)
        .build()
        .unwrap();
    let queue = NonBlocking::new(logs).unwrap();
    fs::remove_dir_all(scratch.join("d")).unwrap();
    fs::write(scratch.join("d"), "no directory").unwrap();
    writeln!(&queue, "lost").unwrap();
    let error = (&queue).flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory);
    (&queue).flush().unwrap();
    assert_eq!(queue.logs().lost(), 1);

    fs::remove_file(scratch.join("d")).unwrap();
    writeln!(&queue, "kept").unwrap();
    (&queue).flush().unwrap();
    assert_eq!(lines(&scratch, "d/a.log"), ["kept"]);
}

#[test]
fn closed_queue_has_the_caller_write_itself() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    let log = NonBlocking::new(logs).unwrap();
    writeln!(&log, "one").unwrap();
    log.close(PATIENCE).unwrap();
    assert_eq!(lines(&scratch, "a.log"), ["one"]);
    writeln!(&log, "two").unwrap();
    assert_eq!(lines(&scratch, "a.log"), ["one", "two"]);
    (&log).flush().unwrap();
    log.close(PATIENCE).unwrap();
}

#[test]
fn waiting_callers_are_let_go_when_the_queue_is_closed() {
    let scratch = Scratch::new();
    let stuck = Stuck::new(&scratch);
    let log = NonBlocking::builder(stuck.logs.clone())
        .capacity(10)
        .build()
        .unwrap();
    stuck.stick(&log);
    let writer = log.clone();
    let thread = thread::spawn(move || {
        for number in 0..5 {
            writeln!(&writer, "record {number}").unwrap();
        }
    });
    let closing = thread::spawn(move || log.close(PATIENCE));
    stuck.free();
    thread.join().unwrap();
    closing.join().unwrap().unwrap();
    assert_eq!(lines(&scratch, "a.log.1").len(), 6);
}

#[test]
fn idle_log_rotates_removes_and_compresses_on_time() {
    let scratch = Scratch::new();
    let hands = Hands::at(utc(2026, 1, 1, 0, 0, 0));
    let logs = RotateLogs::builder(scratch.join("a.%H"))
        .clock(hands.on(Clock::utc()))
        .compress(file_rotatelogs::Compression::Gzip)
        .max_files(2)
        .build()
        .unwrap();
    let log = NonBlocking::new(logs).unwrap();
    writeln!(&log, "x").unwrap();
    (&log).flush().unwrap();
    hands.advance(HOUR);
    wait_until("the file is compressed", || {
        names(scratch.path()) == ["a.00.gz", "a.01"]
    });
    hands.advance(HOUR);
    wait_until("the oldest is removed", || {
        names(scratch.path()) == ["a.01.gz", "a.02"]
    });
    drop(log);
}

#[test]
fn idle_log_notices_that_its_file_was_deleted() {
    let scratch = Scratch::new();
    let events = Events::default();
    let logs = events
        .of(RotateLogs::builder(scratch.join("a.log")))
        .build()
        .unwrap();
    let log = NonBlocking::new(logs).unwrap();
    fs::remove_file(scratch.join("a.log")).unwrap();
    wait_until("the file is there again", || scratch.join("a.log").exists());
    wait_until("it is told", || events.count("rotated") == 1);
    drop(log);
}

#[test]
fn tracing_writes_each_event_as_one_record() {
    let scratch = Scratch::new();
    let logs = RotateLogs::builder(scratch.join("a.log")).build().unwrap();
    let log = NonBlocking::new(logs).unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..100 {
            tracing::info!(number, "happened");
        }
    });
    (&log).flush().unwrap();
    let lines = lines(&scratch, "a.log");
    assert_eq!(lines.len(), 100);
    assert!(lines[99].ends_with("happened number=99"), "{:?}", lines[99]);
}

#[test]
fn callback_may_write_to_the_queue_though_it_is_full() {
    let scratch = Scratch::new();
    let queue: Arc<OnceLock<NonBlocking>> = Arc::default();
    let in_callback = Arc::clone(&queue);
    let (called, is_called) = mpsc::channel();
    let (filled, is_filled) = mpsc::channel();
    let (refused, is_refused) = mpsc::channel();
    let is_filled = Mutex::new(is_filled);
    let logs = RotateLogs::builder(scratch.join("a.log"))
        .lazy(true)
        .on_event(move |event| {
            called.send(()).unwrap();
            is_filled.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            let mut log = in_callback.get().unwrap();
            writeln!(log, "{}", event.to_string().split(' ').next().unwrap()).unwrap();
            // Nobody else could write what these would wait for.
            refused.send(log.flush().unwrap_err().kind()).unwrap();
            let error = log.close(Duration::MAX).unwrap_err();
            refused.send(error.kind()).unwrap();
        })
        .build()
        .unwrap();
    let log = NonBlocking::builder(logs).capacity(10).build().unwrap();
    queue.set(log.clone()).unwrap();
    writeln!(&log, "first").unwrap();
    is_called.recv_timeout(PATIENCE).unwrap();
    writeln!(&log, "123456789").unwrap();
    filled.send(()).unwrap();
    log.flush_within(PATIENCE).unwrap();
    assert_eq!(lines(&scratch, "a.log"), ["first", "123456789", "opened"]);
    let kinds: Vec<ErrorKind> = is_refused.try_iter().collect();
    assert_eq!(kinds, [ErrorKind::Deadlock; 2]);
}
