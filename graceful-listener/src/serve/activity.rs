use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a connection is doing, as seen by those who read from it and those who answer.
///
/// HTTP/2 answers on other tasks than the one that reads, hence the atomics.
#[derive(Debug)]
pub(super) struct Activity {
    accepted: Instant,
    in_flight: AtomicUsize,
    /// Nanoseconds after `accepted`, 0 for never.
    idle_since: AtomicU64,
    head_since: AtomicU64,
    preface: AtomicUsize,
    is_http2: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            accepted: Instant::now(),
            in_flight: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            preface: AtomicUsize::new(0),
            is_http2: AtomicBool::new(false),
        }
    }

    /// Notes bytes from the client, after decryption.
    pub(super) fn read(&self, bytes: &[u8]) {
        let seen = self.preface.load(Ordering::Relaxed);
        if seen < PREFACE.len() {
            self.look_for_preface(seen, bytes);
        }
        let idle = self.in_flight.load(Ordering::Relaxed) == 0;
        if idle && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    pub(super) fn request_begins(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.head_since.store(0, Ordering::Relaxed);
    }

    pub(super) fn request_ends(&self) {
        self.idle_since.store(self.now(), Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// What the client has been doing, and since when.
    pub(super) fn state(&self) -> State {
        if self.in_flight.load(Ordering::Acquire) > 0 {
            return State::Busy;
        }
        let idle = self.idle_since.load(Ordering::Relaxed);
        // The frames of HTTP/2 are not always a request's.
        if self.is_http2() {
            return State::Idle(self.at(idle));
        }
        match (self.head_since.load(Ordering::Relaxed), idle) {
            (0, 0) => State::Sending(self.accepted),
            (0, idle) => State::Idle(self.at(idle)),
            (head, _) => State::Sending(self.at(head)),
        }
    }

    fn look_for_preface(&self, seen: usize, bytes: &[u8]) {
        let wanted = &PREFACE[seen..];
        let length = wanted.len().min(bytes.len());
        if wanted[..length] == bytes[..length] {
            self.preface.store(seen + length, Ordering::Relaxed);
            self.is_http2
                .store(seen + length == PREFACE.len(), Ordering::Relaxed);
        } else {
            self.preface.store(PREFACE.len(), Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        let nanos = self.accepted.elapsed().as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
    }

    fn at(&self, nanos: u64) -> Instant {
        self.accepted + Duration::from_nanos(nanos)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// Requests are being answered.
    Busy,
    /// A request is expected, or has come in part.
    Sending(Instant),
    /// The last request was answered, and nothing has come since.
    Idle(Instant),
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
