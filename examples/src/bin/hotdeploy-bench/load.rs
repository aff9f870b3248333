//! Clients that hide nothing: each request is sent once, numbered, and every
//! failure counts.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What is asked of the service, and how.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// Loops that use their connection for as long as the service lets them.
    pub(crate) keep_alive: u32,
    /// Loops that make a connection for each request.
    pub(crate) per_request: u32,
    /// The pause between an answer and the next request.
    pub(crate) think: Duration,
    /// Of a link that is there.
    pub(crate) code: String,
    /// Whether a kept connection is looked at before it is used again, as HTTP
    /// clients do. Without it one closed in that instant is a failure.
    pub(crate) looks: bool,
}

/// One request and its end.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) id: String,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    /// Meant to take long.
    pub(crate) slow: bool,
    /// The status of the answer, or why there is none.
    pub(crate) end: Result<u16, String>,
    /// It came later than [`LINGER`] after the last on its connection was asked, so that the
    /// connection may have been left alone for as long: that the service had closed it by
    /// then is no failure of the service.
    pub(crate) late: bool,
}

impl Load {
    /// Makes the link that is asked for, then begins.
    pub(crate) fn start(mut self) -> Result<Running, String> {
        let body = "url=https%3A%2F%2Fexample.com%2F";
        let mut connection = Connection::open(self.address)?;
        let created = connection.send(&post(body, "first"))?;
        let location = created.location.ok_or("the first link was not made")?;
        self.code = location.trim_start_matches('/').to_owned();

        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let loops = (0..self.keep_alive + self.per_request)
            .map(|number| {
                let (load, stop, asked) = (self.clone(), Arc::clone(&stop), Arc::clone(&asked));
                thread::spawn(move || load.run(number, &stop, &asked))
            })
            .collect();
        Ok(Running { loops, stop, asked })
    }

    fn run(&self, number: u32, stop: &AtomicBool, asked: &AtomicUsize) -> Vec<Sample> {
        let keeps = number < self.keep_alive;
        let mut samples = Vec::new();
        let mut kept: Option<Connection> = None;
        for count in 1.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let id = format!("{number}-{count}");
            let (slow, request) = self.request(turn(number, count), &id, keeps);
            let began = Instant::now();
            let connection = kept
                .take()
                .filter(|connection| !self.looks || connection.is_open());
            let how = match connection {
                Some(_) => "on a kept connection",
                None => "on a new connection",
            };
            let mut late = false;
            let answer = connection
                .map_or_else(|| Connection::open(self.address), Ok)
                .and_then(|mut connection| {
                    let answer = connection.send(&request);
                    late = connection.idle >= LINGER;
                    let answer = answer?;
                    kept = Some(connection).filter(|_| keeps && !answer.closes);
                    Ok(answer.status)
                });
            samples.push(Sample {
                id,
                began,
                took: began.elapsed(),
                slow,
                end: answer.map_err(|why| format!("{why} {how}")),
                late,
            });
            asked.fetch_add(1, Ordering::Relaxed);
            thread::sleep(self.think);
        }
        samples
    }

    /// Mostly reads; 2 % take 300 ms, 6 % write.
    fn request(&self, turn: u32, id: &str, keeps: bool) -> (bool, String) {
        let code = &self.code;
        let close = if keeps { "" } else { "Connection: close\r\n" };
        let get = |path: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: bench\r\nX-Request-Id: {id}\r\n{close}\r\n")
        };
        match turn {
            0 => (true, get("/sleep?ms=300")),
            1 | 26 => (false, get(&format!("/{code}"))),
            2 => {
                let post = post("url=https%3A%2F%2Fexample.com%2Fnew", id);
                (false, post.replacen("\r\n", &format!("\r\n{close}"), 1))
            }
            3 | 18 | 33 => (false, get("/")),
            _ => (false, get(&format!("/{code}/stats"))),
        }
    }
}

/// A number below 50 that looks random and is the same in every run: loops that
/// went round in step would sleep together.
fn turn(number: u32, count: u32) -> u32 {
    let mixed = (u64::from(number) << 32 | u64::from(count)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 32) % 50) as u32
}

fn post(body: &str, id: &str) -> String {
    format!(
        "POST /links HTTP/1.1\r\nHost: bench\r\nX-Request-Id: {id}\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
        body.len()
    )
}

/// Load that is on.
pub(crate) struct Running {
    loops: Vec<JoinHandle<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    /// How many requests have had their end.
    asked: Arc<AtomicUsize>,
}

impl Running {
    /// Waits until a request that began after this was called has had its end.
    pub(crate) fn wait(&self) {
        // One of each loop may have begun before.
        let enough = self.asked.load(Ordering::Relaxed) + self.loops.len() + 1;
        while self.asked.load(Ordering::Relaxed) < enough
            && self.loops.iter().any(|one| !one.is_finished())
        {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it, and returns all requests that were made.
    pub(crate) fn stop(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        let samples = self.loops.into_iter().flat_map(|handle| {
            // A loop that panics must not take its failures with it.
            handle.join().unwrap_or_else(|panic| resume_unwind(panic))
        });
        samples.collect()
    }
}

/// How often each failure happened, of requests that were not late.
pub(crate) fn failures(samples: &[Sample]) -> BTreeMap<&str, usize> {
    let mut failures = BTreeMap::new();
    for failure in samples
        .iter()
        .filter(|sample| !sample.late)
        .filter_map(|sample| sample.end.as_ref().err())
    {
        *failures.entry(failure.as_str()).or_default() += 1;
    }
    failures
}

/// How many late requests failed.
pub(crate) fn too_late(samples: &[Sample]) -> usize {
    let too_late = |sample: &&Sample| sample.late && sample.end.is_err();
    samples.iter().filter(too_late).count()
}

/// A quantile of the sorted times, in milliseconds.
pub(crate) fn quantile(times: &[Duration], share: f64) -> f64 {
    let last = times.len().saturating_sub(1);
    let time = times.get((last as f64 * share).round() as usize);
    time.map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

struct Connection {
    stream: BufReader<TcpStream>,
    asked: Option<Instant>,
    /// How long nothing was asked before the last request, at most: when the answer before
    /// it came, a client cannot tell that had to wait for its turn to run.
    idle: Duration,
}

struct Answer {
    status: u16,
    closes: bool,
    location: Option<String>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            Ok(stream)
        });
        let stream = stream.map_err(|error| format!("not connected: {:?}", error.kind()))?;
        Ok(Self {
            stream: BufReader::new(stream),
            asked: None,
            idle: Duration::ZERO,
        })
    }

    fn is_open(&self) -> bool {
        let stream = self.stream.get_ref();
        let peeked = stream
            .set_nonblocking(true)
            .and_then(|()| stream.peek(&mut [0]));
        let open = peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        open && stream.set_nonblocking(false).is_ok()
    }

    fn send(&mut self, request: &str) -> Result<Answer, String> {
        let asked = Instant::now();
        let sent = self.stream.get_mut().write_all(request.as_bytes());
        let before = self.asked.replace(asked);
        self.idle = before.map_or(Duration::ZERO, |at| at.elapsed());
        sent.map_err(|error| format!("not sent: {:?}", error.kind()))?;
        let status = self.line("not answered")?;
        let status = status
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .ok_or_else(|| format!("answered {status:?}"))?;
        let mut answer = Answer {
            status,
            closes: false,
            location: None,
        };
        let mut length = None;
        loop {
            let line = self.line("head cut")?;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "connection" => answer.closes = value.eq_ignore_ascii_case("close"),
                "content-length" => length = value.parse().ok(),
                "location" => answer.location = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; length.ok_or("answered without a length")?];
        let read = self.stream.read_exact(&mut body);
        read.map_err(|error| format!("body cut: {:?}", error.kind()))?;
        Ok(answer)
    }

    fn line(&mut self, what: &str) -> Result<String, String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => Err(format!("{what}: closed")),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("{what}: {:?}", error.kind())),
        }
    }
}

/// How long a service that ends keeps a connection on which nothing is asked.
const LINGER: Duration = Duration::from_secs(1);

/// Longer than any request may take.
const TIMEOUT: Duration = Duration::from_secs(60);
