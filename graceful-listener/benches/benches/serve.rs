//! `graceful_listener::serve` beside `axum::serve`, by turns, under `wrk`.
//!
//! ```text
//! cargo bench --manifest-path graceful-listener/benches/Cargo.toml --bench serve
//! ROUNDS=40 SECONDS=2 cargo bench --manifest-path graceful-listener/benches/Cargo.toml --bench serve
//! ```
//!
//! The server has one processor, the client another. Each round measures ours, axum and another
//! process of axum's, which shows what the machine's noise alone makes of no difference. Printed
//! are the medians of the rounds and of the ratios to axum within a round. The processor time of a
//! request is what other programs on the machine disturb least.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

fn main() {
    let rounds = setting("ROUNDS", 12);
    let seconds = setting("SECONDS", 1);
    for (name, options) in [
        ("kept alive, 32 connections", &["-c32"][..]),
        (
            "a connection per request, 32 at a time",
            &["-c32", "-H", "Connection: close"],
        ),
    ] {
        println!(
            "{name}\n{:<6} {:>12} {:>10} {:>10}",
            "", "requests/s", "p99 µs", "CPU µs"
        );
        let servers = ["ours", "axum", "axum"].map(Server::start);
        let mut results: [Vec<Measured>; 3] = Default::default();
        for server in &servers {
            server.measure(options, seconds);
        }
        for round in 0..rounds {
            // Each is as often first as the others.
            let order = [
                [0, 1, 2],
                [2, 1, 0],
                [1, 2, 0],
                [0, 2, 1],
                [2, 0, 1],
                [1, 0, 2],
            ];
            for which in order[round % order.len()] {
                let server = &servers[which];
                let result = server.measure(options, seconds);
                println!(
                    "{:<6} {:>12.0} {:>10.0} {:>10.2}",
                    server.name, result.rate, result.p99, result.cpu
                );
                results[which].push(result);
            }
        }
        let measures: [(_, Figure); 3] = [
            ("requests/s (more is better)", |result| result.rate),
            ("p99 µs (less is better)", |result| result.p99),
            ("CPU µs (less is better)", |result| result.cpu),
        ];
        for (measure, value) in measures {
            let [ours, axum, control] = results
                .each_ref()
                .map(|results| results.iter().map(value).collect::<Vec<_>>());
            println!(
                "{measure}: ours {:.2}, axum {:.2}; ours / axum {:.3}, axum / axum {:.3}",
                median(ours.clone()),
                median(axum.clone()),
                median_ratio(&ours, &axum),
                median_ratio(&control, &axum),
            );
        }
        println!();
    }
}

struct Server {
    name: &'static str,
    address: String,
    child: Child,
}

type Figure = fn(&Measured) -> f64;

struct Measured {
    rate: f64,
    /// In microseconds.
    p99: f64,
    /// What a request costs the server's processor, in microseconds.
    cpu: f64,
}

impl Server {
    fn start(name: &'static str) -> Self {
        let mut child = Command::new("taskset")
            .args(["-c", "0", env!("CARGO_BIN_EXE_server"), name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskset runs the server");
        let mut address = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut address)
            .expect("the server tells its address");
        Self {
            name,
            address: address.trim_end().into(),
            child,
        }
    }

    fn measure(&self, options: &[&str], seconds: usize) -> Measured {
        let before = self.cpu();
        let output = Command::new("taskset")
            .args([
                "-c",
                "1",
                "wrk",
                "-t1",
                "--latency",
                &format!("-d{seconds}s"),
            ])
            .args(options)
            .arg(format!("http://{}/", self.address))
            .output()
            .expect("wrk runs");
        let text = String::from_utf8(output.stdout).expect("wrk writes text");
        assert!(!text.contains("Non-2xx"), "{text}");
        let value = |start: &str| {
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix(start));
            line.unwrap_or_else(|| panic!("{start} is missing: {text}"))
                .trim()
                .to_owned()
        };
        let requests = text.lines().find(|line| line.contains(" requests in "));
        let requests = requests.and_then(|line| line.split_whitespace().next());
        let requests: f64 = requests.expect("a count").parse().expect("a number");
        Measured {
            cpu: (self.cpu() - before) / requests,
            rate: value("Requests/sec:").parse().expect("a number"),
            p99: microseconds(&value("99%")),
        }
    }
}

impl Server {
    /// The processor time of its thread so far, in microseconds.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.child.id()))
            .expect("it runs");
        let nanoseconds = text.split(' ').next().expect("a first field");
        nanoseconds.parse::<f64>().expect("a number") / 1e3
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn microseconds(text: &str) -> f64 {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1e3)
    } else {
        (text.trim_end_matches('s'), 1e6)
    };
    number.parse::<f64>().expect("a time") * factor
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        values[middle - 1].midpoint(values[middle])
    }
}

fn median_ratio(values: &[f64], others: &[f64]) -> f64 {
    median(
        values
            .iter()
            .zip(others)
            .map(|(value, other)| value / other)
            .collect(),
    )
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}
