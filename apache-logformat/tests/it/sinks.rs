//! Where lines go, and what becomes of those that cannot.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    panic::AssertUnwindSafe,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use apache_logformat::{AccessLogLayer, LogFormat, LogSink, SharedWriter};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{Layer, Service};

use crate::{lines::answer, record::block_on};

fn send(layer: &AccessLogLayer, target: &str) -> u16 {
    let mut service = layer.layer(answer(
        |_: Request<()>| Response::new(Empty::<Bytes>::new()),
    ));
    let response = block_on(service.call(Request::get(target).body(()).unwrap())).unwrap();
    response.status().as_u16()
}

fn format() -> LogFormat {
    "%U".parse().unwrap()
}

/// Writes to a vector from many threads, but only what `allowed` lets through.
#[derive(Debug, Default)]
struct Full {
    written: Mutex<Vec<u8>>,
    /// Bytes each write may still take; `None` for an error at once.
    allowed: Mutex<Vec<Option<usize>>>,
}

impl Write for &Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let allowed = match self.allowed.lock().unwrap().pop() {
            None => bytes.len(),
            Some(Some(allowed)) => allowed.min(bytes.len()),
            Some(None) => return Err(io::ErrorKind::StorageFull.into()),
        };
        self.written
            .lock()
            .unwrap()
            .extend_from_slice(&bytes[..allowed]);
        Ok(allowed)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Full {
    /// Makes a writer whose next writes take `steps`.
    fn new(steps: &[Option<usize>]) -> Arc<SharedWriter<Self>> {
        let full = Self::default();
        full.allowed.lock().unwrap().extend(steps.iter().rev());
        Arc::new(SharedWriter::new(full))
    }
}

fn written(sink: &SharedWriter<Full>) -> String {
    String::from_utf8(sink.get_ref().written.lock().unwrap().clone()).unwrap()
}

#[test]
fn closure_takes_each_line_with_its_line_feed() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let lines = Arc::clone(&lines);
        move |line: &[u8]| {
            lines.lock().unwrap().push(line.to_vec());
            Ok(())
        }
    };
    send(&AccessLogLayer::new(format(), sink), "/a");
    assert_eq!(*lines.lock().unwrap(), [b"/a\n".to_vec()]);
}

#[test]
fn mutex_and_arc_around_a_writer_are_sinks() {
    let sink = Arc::new(Mutex::new(Vec::new()));
    let layer = AccessLogLayer::new(format(), Arc::clone(&sink));
    send(&layer, "/a");
    send(&layer, "/b");
    assert_eq!(*sink.lock().unwrap(), b"/a\n/b\n");
}

#[test]
fn poisoned_mutex_takes_lines_still() {
    let sink = Arc::new(Mutex::new(Vec::new()));
    let poisoner = Arc::clone(&sink);
    let poisoned = thread::spawn(move || {
        let _guard = poisoner.lock().unwrap();
        panic!("while it is locked");
    });
    assert!(poisoned.join().is_err() && sink.is_poisoned());
    let layer = AccessLogLayer::new(format(), Arc::clone(&sink));
    send(&layer, "/a");
    assert_eq!(layer.failures().count(), 0);
    assert_eq!(*sink.lock().unwrap_err().into_inner(), b"/a\n");
}

#[test]
fn file_takes_whole_lines_from_many_threads() {
    let path = std::env::temp_dir().join(format!("apache-logformat-sinks-{}", std::process::id()));
    // One that was killed may have left it.
    let _ = fs::remove_file(&path);
    let file = File::options()
        .append(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let layer = AccessLogLayer::new(format(), SharedWriter::new(file));
    let long = "x".repeat(5000);
    thread::scope(|scope| {
        for thread in 0..8 {
            let (layer, long) = (&layer, &long);
            scope.spawn(move || {
                for request in 0..50 {
                    send(layer, &format!("/{thread}/{request}/{long}"));
                }
            });
        }
    });
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(text.lines().count(), 400);
    for thread in 0..8 {
        for request in 0..50 {
            let line = format!("/{thread}/{request}/{long}");
            assert_eq!(
                text.lines().filter(|found| *found == line).count(),
                1,
                "{thread} {request}"
            );
        }
    }
}

#[test]
fn socket_is_a_sink() {
    let (writer, mut reader) = UnixStream::pair().unwrap();
    let layer = AccessLogLayer::new(format(), SharedWriter::new(writer));
    send(&layer, "/a");
    drop(layer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "/a\n");
}

#[test]
fn line_is_one_write() {
    struct Counting(AtomicUsize);
    impl Write for &Counting {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sink = Arc::new(SharedWriter::new(Counting(AtomicUsize::new(0))));
    let layer = AccessLogLayer::new(LogFormat::combined(), Arc::clone(&sink));
    send(&layer, "/a");
    assert_eq!(sink.get_ref().0.load(Ordering::Relaxed), 1);
}

#[test]
fn short_and_interrupted_writes_are_carried_on() {
    struct Slow(Mutex<(Vec<u8>, bool)>);
    impl Write for &Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, interrupted) = &mut *self.0.lock().unwrap();
            *interrupted = !*interrupted;
            if *interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            written.push(bytes[0]);
            Ok(1)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sink = Arc::new(SharedWriter::new(Slow(Mutex::default())));
    let layer = AccessLogLayer::new(format(), Arc::clone(&sink));
    send(&layer, "/abc");
    assert_eq!(layer.failures().count(), 0);
    assert_eq!(sink.get_ref().0.lock().unwrap().0, b"/abc\n");
}

#[test]
fn failures_are_counted_and_told_with_their_lines() {
    let sink = Full::new(&[None, None]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let layer = AccessLogLayer::new(format(), Arc::clone(&sink)).on_failure({
        let told = Arc::clone(&told);
        move |error, line| told.lock().unwrap().push((error.kind(), line.to_vec()))
    });
    let failures = layer.failures();
    for target in ["/a", "/b", "/c"] {
        assert_eq!(
            send(&layer, target),
            200,
            "the response is what it would be"
        );
    }
    assert_eq!(failures.count(), 2);
    assert_eq!(
        *told.lock().unwrap(),
        [
            (io::ErrorKind::StorageFull, b"/a\n".to_vec()),
            (io::ErrorKind::StorageFull, b"/b\n".to_vec()),
        ]
    );
    assert_eq!(written(&sink), "/c\n");
}

#[test]
fn line_cut_off_does_not_spoil_the_next() {
    let sink = Full::new(&[Some(3), None]);
    let layer = AccessLogLayer::new(format(), Arc::clone(&sink)).on_failure(|_, _| {});
    for target in ["/first", "/second", "/third"] {
        send(&layer, target);
    }
    assert_eq!(layer.failures().count(), 1);
    assert_eq!(written(&sink), "/fi\n/second\n/third\n");
}

#[test]
fn line_cut_off_is_still_ended_after_more_failures() {
    let sink = Full::new(&[Some(3), None, None, None]);
    let layer = AccessLogLayer::new(format(), Arc::clone(&sink)).on_failure(|_, _| {});
    for target in ["/first", "/second", "/third", "/fourth"] {
        send(&layer, target);
    }
    assert_eq!(layer.failures().count(), 3);
    assert_eq!(written(&sink), "/fi\n/fourth\n");
}

#[test]
fn failed_line_that_wrote_nothing_leaves_no_empty_line() {
    let sink = Full::new(&[None]);
    let layer = AccessLogLayer::new(format(), Arc::clone(&sink)).on_failure(|_, _| {});
    send(&layer, "/a");
    send(&layer, "/b");
    assert_eq!(written(&sink), "/b\n");
}

#[test]
fn writer_that_takes_nothing_is_a_failure() {
    let sink = Full::new(&[Some(0)]);
    let layer = AccessLogLayer::new(format(), sink)
        .on_failure(|error, _| assert_eq!(error.kind(), io::ErrorKind::WriteZero));
    send(&layer, "/a");
    assert_eq!(layer.failures().count(), 1);
}

#[test]
fn sink_and_callback_that_panic_do_not_hurt_the_response() {
    let layer = AccessLogLayer::new(format(), |_: &[u8]| panic!("in the sink")).on_failure(
        |error, line| {
            assert_eq!(error.to_string(), "panicked: in the sink");
            assert_eq!(line, b"/a\n");
            panic!("in the callback");
        },
    );
    assert_eq!(send(&layer, "/a"), 200);
    assert_eq!(send(&layer, "/a"), 200);
    assert_eq!(layer.failures().count(), 2);
}

#[test]
fn sink_that_panics_while_the_service_panics_aborts_nothing() {
    let layer =
        AccessLogLayer::new(format(), |_: &[u8]| panic!("in the sink")).on_failure(|_, _| {});
    let mut service = layer.layer(answer(|request: Request<()>| -> Response<Empty<Bytes>> {
        panic!("in the service at {}", request.uri())
    }));
    let called =
        std::panic::catch_unwind(AssertUnwindSafe(|| drop(service.call(Request::new(())))));
    let panic = called.unwrap_err();
    assert_eq!(
        panic.downcast_ref::<String>().unwrap(),
        "in the service at /"
    );
    assert_eq!(layer.failures().count(), 1);
}

#[test]
fn sink_that_is_a_logged_service_itself_works() {
    // Its line is put together while that of the outer request is.
    let inner = Arc::new(Mutex::new(Vec::new()));
    let inner_layer = AccessLogLayer::new("inner %U".parse().unwrap(), Arc::clone(&inner));
    let outer = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let outer = Arc::clone(&outer);
        move |line: &[u8]| {
            send(&inner_layer, "/nested");
            outer.lock().unwrap().extend_from_slice(line);
            Ok(())
        }
    };
    let layer = AccessLogLayer::new("outer %U".parse().unwrap(), sink);
    send(&layer, "/a");
    send(&layer, "/b");
    assert_eq!(*outer.lock().unwrap(), b"outer /a\nouter /b\n");
    assert_eq!(*inner.lock().unwrap(), b"inner /nested\ninner /nested\n");
}

#[test]
fn sinks_can_be_shared_by_layers() {
    let sink: Arc<dyn LogSink> = Arc::new(|_: &[u8]| Ok(()));
    let _layers = [
        AccessLogLayer::new(LogFormat::common(), Arc::clone(&sink)),
        AccessLogLayer::new(LogFormat::agent(), sink),
    ];
}

const CHILD: &str = "APACHE_LOGFORMAT_TEST_CHILD";

#[test]
fn first_failure_in_a_row_is_reported_on_standard_error() {
    if std::env::var_os(CHILD).is_some() {
        // Two failures, a success, a failure.
        let sink = Full::new(&[None, None, Some(9), None]);
        let layer = AccessLogLayer::new(format(), sink);
        for target in ["/a", "/b", "/c", "/d"] {
            send(&layer, target);
        }
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "sinks::first_failure_in_a_row_is_reported_on_standard_error",
        ])
        .args(["--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    let reports: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("apache-logformat: "))
        .collect();
    assert_eq!(reports.len(), 2, "{text}");
    assert!(
        reports[0].contains("cannot write to the access log: "),
        "{text}"
    );
    assert!(reports[0].contains("line 1 lost"), "{text}");
    assert!(reports[1].contains("line 3 lost"), "{text}");
}
