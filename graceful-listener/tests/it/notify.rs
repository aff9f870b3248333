use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::process::{self, Output};
use std::time::{Duration, Instant};

use graceful_listener::{Notification, Notifier, NotifyMessage, NotifyReceiver};
use proptest::prelude::*;

use crate::child;

fn next(receiver: &NotifyReceiver) -> Notification {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(notification) = receiver.receive().unwrap() {
            return notification;
        }
        assert!(Instant::now() < deadline, "nothing was received");
        std::thread::yield_now();
    }
}

const SENDER: &str = "notify::child_sends_ready_and_a_barrier";

#[test]
fn child_sends_ready_and_a_barrier() {
    if child::plays(SENDER) {
        let notifier = Notifier::from_env().unwrap();
        eprintln!("watchdog {:?}", notifier.watchdog());
        let sent = notifier
            .send(&NotifyMessage::new().ready().status("two\nlines"))
            .unwrap();
        let timeout = std::env::var("BARRIER_MS").map_or(Duration::MAX, |text| {
            Duration::from_millis(text.parse().unwrap())
        });
        let taken = notifier.barrier(timeout).unwrap();
        eprintln!("sent {sent}, taken {taken}");
    }
}

fn sender(environment: &[(&str, &str)]) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = child::role(SENDER)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(stderr).unwrap() + &String::from_utf8(stdout).unwrap();
    (status.success(), text)
}

#[test]
fn child_is_received_with_its_id_and_its_barrier_answered() {
    let receiver = NotifyReceiver::bind().unwrap();
    let child = child::role(SENDER)
        .env("NOTIFY_SOCKET", receiver.name())
        .stdout(process::Stdio::null())
        .stderr(process::Stdio::piped())
        .spawn()
        .unwrap();
    let first = next(&receiver);
    assert_eq!(first.pid, child.id());
    assert_eq!(first.uid, nix_uid());
    assert!(first.message.is_ready());
    assert_eq!(first.message.value("STATUS"), Some("two lines"));
    let second = next(&receiver);
    assert_eq!(second.message.value("BARRIER"), Some("1"));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("sent true, taken true"), "{text}");
    assert!(receiver.receive().unwrap().is_none());
}

fn nix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid()
}

#[test]
fn without_a_socket_nobody_is_told() {
    let (success, text) = sender(&[]);
    assert!(
        success && text.contains("sent false, taken false"),
        "{text}"
    );
    let (success, text) = sender(&[("NOTIFY_SOCKET", "")]);
    assert!(
        success && text.contains("sent false, taken false"),
        "{text}"
    );
}

#[test]
fn socket_with_a_path_is_reached() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let child = child::role(SENDER)
        .env("NOTIFY_SOCKET", &path)
        .stdout(process::Stdio::null())
        .stderr(process::Stdio::null())
        .spawn()
        .unwrap();
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"READY=1\nSTATUS=two lines");
    // The barrier's descriptor dies with the socket's queue.
    drop(socket);
    child.wait_with_output().unwrap();
}

#[test]
fn barrier_that_nobody_answers_ends_with_its_timeout() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let _reads_nothing = UnixDatagram::bind(&path).unwrap();
    let name = path.to_str().unwrap();
    let (success, text) = sender(&[("NOTIFY_SOCKET", name), ("BARRIER_MS", "50")]);
    assert!(success && text.contains("sent true, taken false"), "{text}");
}

#[test]
fn bad_socket_is_named() {
    for name in ["relative/path", "@", "vsock:2:1234"] {
        let (success, text) = sender(&[("NOTIFY_SOCKET", name)]);
        assert!(!success);
        assert!(
            text.contains("NOTIFY_SOCKET") && text.contains(name),
            "{text}"
        );
    }
    let (success, text) = sender(&[("NOTIFY_SOCKET", "/nonexistent/notify")]);
    assert!(!success && text.contains("/nonexistent/notify"), "{text}");
}

#[test]
fn watchdog_is_for_the_process_that_it_names() {
    let (_, text) = sender(&[("WATCHDOG_USEC", "3000000")]);
    assert!(text.contains("watchdog Some(3s)"), "{text}");
    let (_, text) = sender(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "1")]);
    assert!(text.contains("watchdog None"), "{text}");
    let (_, text) = sender(&[]);
    assert!(text.contains("watchdog None"), "{text}");
    let (_, text) = sender(&[("WATCHDOG_USEC", "")]);
    assert!(text.contains("watchdog None"), "{text}");
    let (_, text) = sender(&[("WATCHDOG_USEC", "0")]);
    assert!(text.contains("watchdog None"), "{text}");
    let (success, text) = sender(&[("WATCHDOG_USEC", "3s")]);
    assert!(
        !success && text.contains("WATCHDOG_USEC") && text.contains("3s"),
        "{text}"
    );
    // `exec` keeps the process, so that the shell can tell the number.
    let command = child::role(SENDER);
    let script = format!(
        "WATCHDOG_PID=$$ WATCHDOG_USEC=1000 exec {:?} \"$@\"",
        command.get_program()
    );
    let output = process::Command::new("sh")
        .args(["-c", &script, "sh"])
        .args(command.get_args())
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("watchdog Some(1ms)"), "{text}");
}

#[test]
fn systemd_notify_is_received() {
    if !child::has("systemd-notify") {
        return;
    }
    let receiver = NotifyReceiver::bind().unwrap();
    // It waits for its barrier, for five seconds, and fails without an answer.
    let mut program = process::Command::new("systemd-notify")
        .args(["--ready", "--status=up", "FDNAME=x"])
        .env("NOTIFY_SOCKET", receiver.name())
        .spawn()
        .unwrap();
    let notification = next(&receiver);
    assert!(notification.message.is_ready());
    assert_eq!(notification.message.value("STATUS"), Some("up"));
    assert_eq!(notification.message.value("FDNAME"), Some("x"));
    assert_eq!(next(&receiver).message.value("BARRIER"), Some("1"));
    assert!(program.wait().unwrap().success());
}

#[test]
fn abstract_socket_is_gone_with_the_receiver() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    let receiver = NotifyReceiver::bind().unwrap();
    let name = receiver.name().as_bytes()[1..].to_vec();
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect_addr(&address).unwrap();
    drop(receiver);
    // What another thread starts has a copy of the socket until it is executed.
    crate::drain::eventually("nobody receives", || {
        let sent = sender.send(b"READY=1");
        sent.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

#[test]
fn message_says_what_was_added() {
    let message = NotifyMessage::new()
        .reloading()
        .stopping()
        .watchdog()
        .main_pid(42)
        .extend_timeout(Duration::from_millis(1500))
        .with("X_KEY", "a=b");
    assert!(message.is_reloading() && message.is_stopping() && !message.is_ready());
    assert_eq!(message.value("WATCHDOG"), Some("1"));
    assert_eq!(message.value("MAINPID"), Some("42"));
    assert_eq!(message.value("EXTEND_TIMEOUT_USEC"), Some("1500000"));
    assert_eq!(message.value("X_KEY"), Some("a=b"));
    let longest = NotifyMessage::new().extend_timeout(Duration::MAX);
    let number = longest.value("EXTEND_TIMEOUT_USEC").unwrap();
    assert_eq!(number.parse(), Ok(u64::MAX), "systemd reads no more");
}

#[test]
fn reloading_carries_the_monotonic_clock_in_microseconds() {
    // /proc/uptime is the boot clock, which runs on while the machine sleeps.
    let uptime = || {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let stamp = |message: NotifyMessage| {
        message
            .value("MONOTONIC_USEC")
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let first = stamp(NotifyMessage::new().reloading());
    let after = uptime();
    assert!(
        first as f64 / 1e6 <= after + 0.02,
        "{first} µs is later than {after} s"
    );
    assert!(stamp(NotifyMessage::new().reloading()) >= first);
    assert!(first > 1_000_000, "{first} is not in microseconds");
}

#[test]
fn last_value_counts_and_lines_without_equals_do_not() {
    let message = NotifyMessage::parse(b"READY=0\ngarbage\n=x\nREADY=1\n\n");
    assert!(message.is_ready());
    assert_eq!(message.to_string(), "READY=0\nREADY=1");
    assert!(!NotifyMessage::parse(b"READY=10").is_ready());
}

proptest! {
    #[test]
    fn print_then_parse_is_the_identity(fields in prop::collection::vec(("[A-Z_]{1,8}", "[^\n]{0,12}"), 0..5)) {
        let message = fields.iter().fold(NotifyMessage::new(), |message, (key, value)| message.with(key, value));
        prop_assert_eq!(&NotifyMessage::parse(message.to_string().as_bytes()), &message);
    }

    #[test]
    fn arbitrary_datagrams_never_panic_and_print_to_equals(datagram in any::<Vec<u8>>()) {
        let message = NotifyMessage::parse(&datagram);
        prop_assert_eq!(&NotifyMessage::parse(message.to_string().as_bytes()), &message);
    }
}
