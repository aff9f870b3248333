//! What crosses the end of a connection on its way.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::drain::{Service, eventually};
use crate::http::{DEADLINE, uninterrupted};

/// A client that writes its frames itself.
struct Raw {
    stream: TcpStream,
    /// The last stream that the server has said it serves.
    last: Option<u32>,
}

impl Raw {
    /// A connection that has had its first answer, on stream 1, unless it was closed before.
    fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut raw = Self { stream, last: None };
        let first = [PREFACE, &frame(SETTINGS, 0, 0, b"")[..], &get(1)];
        raw.send(&first.concat())?;
        assert_eq!(raw.next_data()?, (1, b"hello".to_vec()));
        Some(raw)
    }

    fn send(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).ok()
    }

    /// The kind, stream and payload of the next frame, if there is one.
    fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        match uninterrupted(|| self.stream.read(&mut head[..1])) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it is never closed"),
            Ok(0) | Err(_) => return None,
        }
        self.stream.read_exact(&mut head[1..]).ok()?;
        let [_, _, _, kind, _, stream @ ..] = head;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        if kind == GOAWAY {
            self.last = Some(u32::from_be_bytes(payload[..4].try_into().unwrap()));
        }
        Some((kind, u32::from_be_bytes(stream), payload))
    }

    fn next_data(&mut self) -> Option<(u32, Vec<u8>)> {
        loop {
            let (kind, stream, payload) = self.next()?;
            if kind == DATA && !payload.is_empty() {
                return Some((stream, payload));
            }
        }
    }

    /// Answers the ping that asks for it, and sends more right behind.
    fn answer_ping(&mut self, more: &[u8]) -> Option<()> {
        loop {
            let (kind, _, payload) = self.next()?;
            if kind == PING {
                return self.send(&[&frame(PING, 1, 0, &payload), more].concat());
            }
        }
    }

    /// Reads to the end, and returns the last stream that was served.
    fn end(mut self) -> Option<u32> {
        while self.next().is_some() {}
        self.last
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET http://test/`, whose head and end are one frame.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, 0x5, stream, b"\x82\x86\x84\x41\x04test")
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

#[test]
fn streams_that_cross_the_goaway_are_served() {
    const LINGER: Duration = Duration::from_secs(5);
    eventually("they are sent in time", || {
        let service = Service::with(|serve| serve.linger(LINGER));
        let mut client = Raw::connect(service.address).unwrap();
        let began = Instant::now();
        service.drain.start();
        // Answers to pings overtake what waits to be sent, in many a client.
        client.answer_ping(&get(3)).unwrap();
        assert_eq!(client.next_data().unwrap(), (3, b"hello".to_vec()));
        client.send(&get(5)).unwrap();
        let answer = client.next_data();
        let last = client.last;
        let is_in_time = began.elapsed() < LINGER;
        let end = client.end();
        assert_eq!(service.end().cut, 0);
        if is_in_time {
            assert_eq!(answer.unwrap(), (5, b"hello".to_vec()));
            assert_eq!(last, Some(u32::MAX >> 1), "it has not ended yet");
            assert_eq!(end, Some(5));
        }
        is_in_time
    });
}

#[test]
fn answer_that_was_kept_back_does_not_tear_a_frame() {
    let service = Service::with(|serve| serve.linger(Duration::from_millis(50)));
    let mut client = Raw::connect(service.address).unwrap();
    service.drain.start();
    let request = get(3);
    let (head, rest) = request.split_at(12);
    client.answer_ping(head).unwrap();
    // By now it is due.
    std::thread::sleep(Duration::from_millis(150));
    client.send(rest).unwrap();
    assert_eq!(client.next_data().unwrap(), (3, b"hello".to_vec()));
    assert_eq!(client.end(), Some(3));
    assert_eq!(service.end().cut, 0);
}

#[test]
fn idle_client_has_the_header_timeout_to_answer_the_last_ping() {
    eventually("it answers in time", || {
        let service = Service::with(|serve| serve.header_read_timeout(TIMEOUT));
        let answer = Raw::connect(service.address).and_then(|mut client| {
            // The time since its request does not count.
            std::thread::sleep(TIMEOUT + TIMEOUT / 2);
            service.drain.start();
            client.answer_ping(&get(3))?;
            client.next_data()
        });
        service.drain.start();
        service.end();
        answer == Some((3, b"hello".to_vec()))
    });
}

#[test]
fn client_that_never_answers_the_last_ping_is_cut_off_after_the_header_timeout() {
    eventually("it is connected in time", || {
        let service = Service::with(|serve| serve.header_read_timeout(TIMEOUT));
        let client = Raw::connect(service.address);
        let began = Instant::now();
        service.drain.start();
        let last = client.and_then(Raw::end);
        let elapsed = began.elapsed();
        assert_eq!(service.end().cut, 0);
        assert!(last.is_none() || elapsed >= TIMEOUT, "after {elapsed:?}");
        last.is_some()
    });
}

#[test]
fn preface_is_recognised_in_pieces() {
    // An HTTP/1 connection would be left alone for ten minutes.
    let service = Service::with(|serve| serve.linger(Duration::from_secs(600)));
    let stream = TcpStream::connect(service.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut client = Raw { stream, last: None };
    for piece in PREFACE.chunks(5) {
        client.send(piece).unwrap();
        // For the service to read it by itself, most often.
        std::thread::sleep(Duration::from_millis(20));
    }
    client.send(&frame(SETTINGS, 0, 0, b"")).unwrap();
    client.send(&get(1)).unwrap();
    assert_eq!(client.next_data(), Some((1, b"hello".to_vec())));
    service.drain.start();
    client.answer_ping(b"").unwrap();
    drop(client);
    service.end();
}

/// The frames that are no request's are not the beginning of one.
#[test]
fn pings_of_a_client_do_not_end_its_connection() {
    eventually("it asks in time", || {
        let service = Service::with(|serve| serve.header_read_timeout(TIMEOUT));
        let asked = Raw::connect(service.address);
        let is_in_time = asked.is_some();
        if let Some(mut client) = asked {
            client.send(&frame(PING, 0, 0, b"any more")).unwrap();
            std::thread::sleep(TIMEOUT + TIMEOUT / 2);
            client.send(&get(3)).unwrap();
            assert_eq!(client.next_data(), Some((3, b"hello".to_vec())));
        }
        service.drain.start();
        service.end();
        is_in_time
    });
}

const TIMEOUT: Duration = Duration::from_secs(1);
