use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::{Sleep, sleep};

/// Keeps back the answer to the ping that hyper sends with its first GOAWAY.
///
/// When the answer comes, hyper takes every stream to have been opened that the client opens
/// before it knows of the GOAWAY, and refuses later ones. But answers to pings
/// overtake what waits to be sent, in the `h2` crate and in nghttp2 among others, and a stream
/// that follows such an answer would be lost. RFC 9113, section 6.8, wants *at
/// least* one round trip between the two GOAWAYs.
pub(super) struct LastPing {
    linger: Duration,
    /// How many bytes of the preface, which comes before all frames, were read.
    preface: usize,
    head: [u8; HEAD],
    /// How many bytes of the next frame's head were read.
    known: usize,
    /// How many bytes of the current frame are yet to be read.
    rest: usize,
    kept_back: Option<Pin<Box<Sleep>>>,
    /// How many bytes of the answer that was kept back have been released.
    released: usize,
}

impl LastPing {
    pub(super) const fn new(linger: Duration) -> Self {
        Self {
            linger,
            preface: 0,
            head: [0; HEAD],
            known: 0,
            rest: 0,
            kept_back: None,
            released: 0,
        }
    }

    /// Adds the answer when it is due, between two frames, and returns whether it has: as
    /// much of it as there is room for, since nobody may come back for it with more.
    pub(super) fn poll_release(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> bool {
        let is_between = self.known == 0 && self.rest == 0;
        let Some(due) = self.kept_back.as_mut().filter(|_| is_between) else {
            return false;
        };
        if due.as_mut().poll(cx).is_pending() {
            return false;
        }
        let left = &ANSWER[self.released..];
        let length = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..length]);
        self.released += length;
        if self.released == ANSWER.len() {
            self.kept_back = None;
            self.released = 0;
        }
        length > 0
    }

    /// Follows the frames that were read behind the first `before` bytes of the buffer, and removes the answer.
    pub(super) fn keep_back(&mut self, buffer: &mut ReadBuf<'_>, before: usize, is_http2: bool) {
        let preface = self.preface;
        let read = &mut buffer.filled_mut()[before..];
        self.preface = PREFACE.min(preface + read.len());
        if !is_http2 {
            return;
        }
        let Some(frames) = read.get_mut(PREFACE - preface..) else {
            return;
        };
        if let Some(at) = self.find(frames) {
            frames.copy_within(at + ANSWER.len().., at);
            let length = buffer.filled().len() - ANSWER.len();
            buffer.set_filled(length);
            self.kept_back = Some(Box::pin(sleep(self.linger)));
        }
    }

    /// One that comes in two pieces goes through, and ends the connection sooner.
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut at, mut found) = (0, None);
        while at < bytes.len() {
            let left = &bytes[at..];
            at += if self.rest > 0 {
                let skipped = self.rest.min(left.len());
                self.rest -= skipped;
                skipped
            } else if self.known == 0 && left.starts_with(&ANSWER) {
                found = Some(at);
                ANSWER.len()
            } else {
                let length = left.len().min(HEAD - self.known);
                self.head[self.known..][..length].copy_from_slice(&left[..length]);
                self.known += length;
                if self.known == HEAD {
                    let [high, middle, low, ..] = self.head;
                    self.rest = u32::from_be_bytes([0, high, middle, low]) as usize;
                    self.known = 0;
                }
                length
            };
        }
        found
    }
}

/// The length of the client's connection preface.
const PREFACE: usize = 24;

/// The length of a frame's head.
const HEAD: usize = 9;

/// A PING frame with ACK, and what `h2` puts into the last of its pings.
const ANSWER: [u8; 17] = [
    0, 0, 8, 6, 1, 0, 0, 0, 0, 0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54,
];

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::{Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u32;
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn answer_is_released_whatever_room_there_is() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        for room in 1..=ANSWER.len() + 1 {
            let mut ping = LastPing::new(Duration::ZERO);
            let _context = runtime.enter();
            let mut space = [0; PREFACE + ANSWER.len()];
            let mut buffer = ReadBuf::new(&mut space);
            buffer.put_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            buffer.put_slice(&ANSWER);
            ping.keep_back(&mut buffer, 0, true);
            assert_eq!(buffer.filled().len(), PREFACE);

            let mut released: Vec<u8> = Vec::new();
            while released.len() < ANSWER.len() {
                let mut space = vec![0; room];
                let mut buffer = ReadBuf::new(&mut space);
                let next = poll_fn(|cx| match ping.poll_release(cx, &mut buffer) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                });
                let next = async { tokio::time::timeout(Duration::from_secs(60), next).await };
                runtime.block_on(next).unwrap();
                released.extend_from_slice(buffer.filled());
            }
            assert_eq!(released, ANSWER, "room for {room}");
            assert!(ping.kept_back.is_none());
        }
    }

    proptest! {
        /// However it is cut into reads, nothing else is removed or moved, and the answer comes back between frames.
        #[test]
        fn answer_alone_is_kept_back(
            payloads in prop::collection::vec(prop::collection::vec(prop::sample::select(ANSWER.to_vec()), 0..40), 0..6),
            place in 0..7_usize,
            cuts in prop::collection::vec(1..60_usize, 1..20),
        ) {
            let mut frames: Vec<_> = payloads.iter().map(|payload| frame(0, payload)).collect();
            // A payload that looks like one is not one.
            frames.push(frame(0, &ANSWER));
            let place = place.min(frames.len());
            let others = frames.concat();
            frames.insert(place, ANSWER.to_vec());
            let sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frames.concat()].concat();

            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _context = runtime.enter();
            let mut ping = LastPing::new(Duration::from_secs(60));
            let (mut passed, mut left): (Vec<u8>, _) = (Vec::new(), &sent[..]);
            let mut cuts = cuts.iter().cycle();
            while !left.is_empty() {
                let (now, later) = left.split_at(left.len().min(*cuts.next().unwrap()));
                left = later;
                let mut space = [0; 64];
                let mut buffer = ReadBuf::new(&mut space);
                buffer.put_slice(b"xyz");
                buffer.put_slice(now);
                let seen = sent.len() - later.len();
                ping.keep_back(&mut buffer, 3, seen >= PREFACE);
                prop_assert_eq!(&buffer.filled()[..3], b"xyz");
                passed.extend(&buffer.filled()[3..]);
                let mut context = Context::from_waker(Waker::noop());
                prop_assert!(!ping.poll_release(&mut context, &mut buffer), "it is not due");
            }
            let whole = ping.kept_back.is_none();
            let expected = if whole { sent[PREFACE..].to_vec() } else { others };
            prop_assert_eq!(&passed[PREFACE..], &expected);
            prop_assert_eq!((ping.known, ping.rest), (0, 0));
        }
    }
}
