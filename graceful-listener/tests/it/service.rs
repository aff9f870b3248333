//! A service in a process of its own, which any starter can start.

use std::env;
use std::future::ready;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Query;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use graceful_listener::{Drain, Listeners, PidFile, Upgrader, serve};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::child;
use crate::http::DEADLINE;
use crate::process::wake_perl;

pub(crate) const ROLE: &str = "service::child_serves";

/// The role's settings, as environment variables.
pub(crate) mod set {
    /// What to listen on, separated by blanks; without it, whatever is inherited.
    pub(crate) const SPECS: &str = "SERVICE_SPECS";
    pub(crate) const MAX_CONNECTIONS: &str = "SERVICE_MAX_CONNECTIONS";
    pub(crate) const PID_FILE: &str = "SERVICE_PID_FILE";
    pub(crate) const DRAIN_TIMEOUT_MS: &str = "SERVICE_DRAIN_TIMEOUT_MS";
    pub(crate) const UPGRADE_TIMEOUT_MS: &str = "SERVICE_UPGRADE_TIMEOUT_MS";
    /// The specifications of the next generation.
    pub(crate) const NEXT_SPECS: &str = "SERVICE_NEXT_SPECS";
    /// Set if SIGTERM is the program's own.
    pub(crate) const WITHOUT_SIGNALS: &str = "SERVICE_WITHOUT_SIGNALS";
    /// How many generations have an upgrader.
    pub(crate) const UPGRADERS: &str = "SERVICE_UPGRADERS";
    /// Where the process goes when it has its upgrader.
    pub(crate) const DIRECTORY: &str = "SERVICE_DIRECTORY";
    /// The number of the signal that upgrades.
    pub(crate) const UPGRADE_SIGNAL: &str = "SERVICE_UPGRADE_SIGNAL";
    /// What generations after the first do, and where: `killed at prepared`,
    /// `exit at start`, `hang at inherited`, `wait at prepared`.
    pub(crate) const FAILURE: &str = "SERVICE_FAILURE";
    /// The failure lasts for as long as this file exists.
    pub(crate) const WHILE: &str = "SERVICE_FAILS_WHILE";
}

#[test]
fn child_serves() {
    if !child::plays(ROLE) {
        return;
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    fail_if_told("start", 2);
    let listeners = match env::var(set::SPECS) {
        Ok(specs) => Listeners::inherit_or_bind(specs.split_whitespace()),
        Err(_) => Listeners::inherit(),
    };
    let listeners = listeners.unwrap_or_else(|error| {
        panic!("refused: {error}: {:?}", std::error::Error::source(&error))
    });
    let generation = listeners.generation();
    fail_if_told("inherited", generation);
    if is_told("silent at inherited", generation) {
        drop(listeners);
        std::thread::park();
        return;
    }
    let mut upgrader = Upgrader::new(&listeners).unwrap();
    upgrader = upgrader.timeout(milliseconds(set::UPGRADE_TIMEOUT_MS, 60_000));
    if let Some(path) = env::var_os(set::DIRECTORY) {
        let here = env::current_dir().unwrap();
        say(&format!("generation {generation} is at {}", here.display()));
        env::set_current_dir(path).unwrap();
    }
    if let Ok(number) = env::var(set::UPGRADE_SIGNAL) {
        upgrader = upgrader.signal(number.parse().unwrap());
    }
    if let Ok(specs) = env::var(set::NEXT_SPECS) {
        upgrader = upgrader.before_spawn(move |command| {
            command.env(set::SPECS, &specs);
            Ok(())
        });
    }
    if let Some(path) = env::var_os(set::PID_FILE) {
        if is_told("killed at pid file", generation) {
            let parent = std::os::unix::process::parent_id();
            std::mem::forget(PidFile::take_over(&path, parent).unwrap());
            fail_if_told("pid file", generation);
        }
        upgrader = upgrader.pid_file(path).unwrap();
    }
    let addresses: Vec<_> = listeners
        .iter()
        .map(|listener| listener.address().to_string())
        .collect();
    let labels: Vec<_> = listeners
        .iter()
        .map(|listener| listener.label().unwrap_or("-"))
        .collect();
    say(&format!(
        "generation {generation} is process {} on {} by {:?} as {}",
        std::process::id(),
        addresses.join(" "),
        listeners.origin(),
        labels.join(" "),
    ));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    fail_if_told("prepared", generation);
    let drain = Drain::new();
    let app = app(generation, &drain);
    let served = runtime.block_on(async {
        let fails = drain.clone();
        tokio::spawn(async move {
            fail_if_told("serving", generation);
            fails.started().await;
            fail_if_told("draining", generation);
        });
        let mut serve = serve(listeners, app);
        if let Ok(max) = env::var(set::MAX_CONNECTIONS) {
            serve = serve.max_connections(max.parse().unwrap());
        }
        if env::var_os(set::WITHOUT_SIGNALS).is_some() {
            serve = serve.without_signals();
            tokio::spawn(tell_of_terms());
        }
        if generation <= env::var(set::UPGRADERS).map_or(u64::MAX, |text| text.parse().unwrap()) {
            serve = serve.upgrader(upgrader);
        }
        serve
            .drain(drain)
            .drain_timeout(milliseconds(set::DRAIN_TIMEOUT_MS, 30_000))
            .await
    });
    let served = served.unwrap();
    say(&format!(
        "generation {generation} is done, cut {} upgraded {}",
        served.cut, served.cut_upgraded
    ));
}

/// What else a program may do when it is sent SIGTERM.
async fn tell_of_terms() {
    let mut terms = signal(SignalKind::terminate()).unwrap();
    say("SIGTERM is the program's");
    while terms.recv().await.is_some() {
        say("the program has SIGTERM");
    }
}

fn app(generation: u64, drain: &Drain) -> Router {
    let drain = drain.clone();
    let generation = HeaderValue::from(generation);
    Router::new()
        .route("/", get(async || "hello"))
        .route("/sleep", get(sleep))
        .route("/while", get(wait))
        .route(
            "/healthz",
            get(async move || {
                if drain.is_draining() {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    StatusCode::OK
                }
            }),
        )
        .route("/upgrade", get(upgrade))
        .route(
            "/descriptors",
            get(async || crate::process::descriptors_of_a_child().join("\n")),
        )
        .layer(map_response(move |mut response: Response| {
            response.headers_mut().insert("x-gen", generation.clone());
            ready(response)
        }))
}

#[derive(serde::Deserialize)]
struct While {
    exists: PathBuf,
}

/// Answers when a file is gone.
async fn wait(Query(While { exists }): Query<While>) -> &'static str {
    while exists.exists() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    "gone"
}

#[derive(serde::Deserialize)]
struct Sleep {
    ms: u64,
}

async fn sleep(Query(Sleep { ms }): Query<Sleep>) -> String {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("slept {ms} ms")
}

/// Ceases to speak HTTP, and sends back what is sent.
pub(crate) async fn upgrade(request: axum::extract::Request) -> Response {
    let is_http2 = request.version() == Version::HTTP_2;
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(hyper_util::rt::TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    if is_http2 {
        return StatusCode::OK.into_response();
    }
    let headers: HeaderMap = [("connection", "upgrade"), ("upgrade", "echo")]
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .into_iter()
        .collect();
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// In one piece, because the generations share a pipe, also with a super-daemon.
pub(crate) fn say(line: &str) {
    std::io::stderr()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

fn is_told(failure: &str, generation: u64) -> bool {
    generation > 1 && env::var(set::FAILURE).is_ok_and(|told| told == failure)
}

#[expect(clippy::exit, reason = "this is how a program fails to start")]
fn fail_if_told(step: &str, generation: u64) {
    let (Ok(failure), Some(path)) = (env::var(set::FAILURE), env::var_os(set::WHILE)) else {
        return;
    };
    let first = generation < 2 || env::var_os("GRACEFUL_LISTENER").is_none();
    let lasts = || PathBuf::from(&path).exists();
    if first || !lasts() {
        return;
    }
    match failure.split_once(" at ") {
        Some((how, at)) if at == step => match how {
            "killed" => raise(Signal::SIGKILL).unwrap(),
            "exit" => std::process::exit(3),
            "hang" => {
                say(&format!("hanging at {step}"));
                loop {
                    std::thread::park();
                }
            }
            "wait" => {
                say(&format!("waiting at {step}"));
                while lasts() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            "silent" => {}
            _ => panic!("{failure}"),
        },
        _ => {}
    }
}

fn milliseconds(name: &str, default: u64) -> Duration {
    Duration::from_millis(env::var(name).map_or(default, |text| text.parse().unwrap()))
}

/// The service, and all that its generations have said.
pub(crate) struct Service {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Service {
    pub(crate) fn command() -> Command {
        child::role(ROLE)
    }

    /// The service under another name, which is a copy of this binary.
    pub(crate) fn as_program(path: &std::path::Path) -> Command {
        let role = Self::command();
        let mut command = Command::new(path);
        command.args(role.get_args());
        command.envs(
            role.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        command
    }

    /// Starts a command that is the service or will start it.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writer.lock().unwrap().push(line);
            }
        });
        Self { child, log }
    }

    /// Starts it on a port of its own and waits until it serves.
    pub(crate) fn on_a_port(settings: &[(&str, &str)]) -> Self {
        let service = Self::start(
            Self::command()
                .env(set::SPECS, "127.0.0.1:0")
                .envs(settings.iter().copied()),
        );
        service.wait_for("serving address");
        service
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until a line contains the text, and returns the line.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait_for_count(text, 1)
    }

    /// Waits until so many lines contain the text, and returns the last.
    pub(crate) fn wait_for_count(&self, text: &str, count: usize) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut looked = Instant::now();
        loop {
            let log = self.log();
            if let Some(line) = log.iter().filter(|line| line.contains(text)).nth(count - 1) {
                return line.clone();
            }
            assert!(
                Instant::now() < deadline,
                "`{text}` is not said {count} times: {log:#?}"
            );
            wake_perl(self.child.id().cast_signed(), false, &mut looked);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What a generation has said of itself, as soon as it has.
    pub(crate) fn generation(&self, number: u64) -> Generation {
        let line = self.wait_for(&format!("generation {number} is process "));
        let words: Vec<_> = line.split(' ').collect();
        let by = words.iter().position(|&word| word == "by").unwrap();
        Generation {
            pid: words[4].parse().unwrap(),
            addresses: words[6..by].iter().map(|&word| word.to_owned()).collect(),
            origin: words[by + 1].to_owned(),
            labels: words[by + 3..].join(" "),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.generation(1).addresses[0].parse().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        let mut looked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end: {:#?}",
                self.log()
            );
            wake_perl(self.child.id().cast_signed(), true, &mut looked);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The generations that this process has not started itself.
        for line in self.log() {
            if let Some(pid) = line
                .strip_prefix("generation ")
                .and_then(|rest| rest.split(" is process ").nth(1))
            {
                let pid: i32 = pid.split(' ').next().unwrap().parse().unwrap();
                if crate::process::is_role(pid) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one process of the service has said when it started.
#[derive(Clone, Debug)]
pub(crate) struct Generation {
    pub(crate) pid: u32,
    pub(crate) addresses: Vec<String>,
    pub(crate) origin: String,
    /// What systemd calls its sockets.
    pub(crate) labels: String,
}

pub(crate) fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}
