use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::coarse_clock::CoarseClock;
use crate::drain::{OpenSocket, Phase, Shared};

/// What a connection is doing, as seen by those who read from it and those who answer.
///
/// HTTP/2 answers on other tasks than the one that reads, hence the atomics. A
/// request costs one look at the [coarse clock](CoarseClock), when it ends.
pub(super) struct Activity {
    shared: Arc<Shared>,
    socket: Arc<OpenSocket>,
    id: u64,
    accepted: Instant,
    clock: CoarseClock,
    in_flight: AtomicUsize,
    /// When the last request ended, in nanoseconds after `accepted`; 0 for never.
    idle_since: AtomicU64,
    /// Whether something has come since then.
    has_input: AtomicBool,
    preface: AtomicUsize,
    is_http2: AtomicBool,
}

impl Activity {
    pub(super) fn new(shared: &Arc<Shared>, socket: &Arc<OpenSocket>, id: u64) -> Self {
        Self {
            shared: Arc::clone(shared),
            socket: Arc::clone(socket),
            id,
            accepted: Instant::now(),
            clock: CoarseClock::start(),
            in_flight: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            has_input: AtomicBool::new(false),
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
        self.note_input();
    }

    /// Notes that bytes have come, of which it is known already that they are HTTP/1.
    pub(super) fn note_input(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            self.has_input.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn request_begins(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.has_input.store(false, Ordering::Relaxed);
    }

    pub(super) fn request_ends(&self) {
        self.idle_since
            .store(self.clock.elapsed(), Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Notes that a stream of HTTP/2 has ceased to speak HTTP, which keeps the connection
    /// as busy as a request does.
    pub(super) fn upgrade_begins(&self) {
        self.request_begins();
        self.shared.adopt(self.id, &self.socket);
    }

    pub(super) fn upgrade_ends(&self) {
        self.shared.release(self.id);
        self.request_ends();
    }

    /// Notes that a request has a body, which may come after its response.
    pub(super) fn expect_body(&self) {
        self.socket.linger();
    }

    /// Whether a response that begins now is the last one of its connection.
    pub(super) fn is_last(&self) -> bool {
        self.shared.phase() != Phase::Serving
    }

    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    pub(super) fn is_http1(&self) -> bool {
        self.preface.load(Ordering::Relaxed) == PREFACE.len() && !self.is_http2()
    }

    pub(super) fn state(&self) -> State {
        if self.in_flight.load(Ordering::Acquire) > 0 {
            return State::Busy;
        }
        // The frames of HTTP/2 are not always a request's.
        let has_input = self.has_input.load(Ordering::Relaxed) && !self.is_http2();
        match self.idle_since.load(Ordering::Relaxed) {
            0 if !self.is_http2() => State::First,
            _ if has_input => State::Next,
            _ => State::Idle,
        }
    }

    pub(super) const fn accepted(&self) -> Instant {
        self.accepted
    }

    /// When the last request ended, as exactly as the coarse clock knows.
    pub(super) fn idle_since(&self) -> Instant {
        self.accepted + Duration::from_nanos(self.idle_since.load(Ordering::Relaxed))
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
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// The first request is expected, or has come in part.
    First,
    /// Requests are being answered.
    Busy,
    /// The last request was answered, and nothing has come since.
    Idle,
    /// A part of another request has come.
    Next,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
