//! A deploy by `start_server` beside nginx's reload, by turns, under one load.
//!
//! ```text
//! cargo build --release --bins
//! cargo bench --manifest-path graceful-listener/benches/Cargo.toml --bench deploy
//! ```
//!
//! 24 kept-alive and 8 connection-per-request loops, a switch every 1.1 seconds. What
//! happens in the 250 ms after a switch is told apart from the rest. A request that fails is
//! made again at once: the last two columns are what a user has waited then. The worker is
//! the `graceful` example, or those that `WORKERS` lists, joined with `:`. `ROUNDS` and
//! `SWITCHES` set how often, `NGINX_WORKERS` (2) how many processes nginx has.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use load::{Load, Target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[path = "../../tests/it/load.rs"]
#[expect(dead_code, reason = "the tests ask for more")]
mod load;

fn main() {
    let rounds = setting("ROUNDS", 3);
    let switches = setting("SWITCHES", 15);
    let dir = std::env::temp_dir().join(format!("deploy-{}", std::process::id()));
    fs::create_dir(&dir).expect("a directory");
    let workers = std::env::var("WORKERS");
    let workers: Vec<PathBuf> = match &workers {
        Ok(paths) => paths.split(':').map(PathBuf::from).collect(),
        Err(_) => vec![programs().join("graceful")],
    };
    for round in 1..=rounds {
        let nginx = Nginx::start(&dir);
        measure(round, "nginx, left alone", nginx.address, switches, None);
        measure(
            round,
            "nginx, HUP",
            nginx.address,
            switches,
            Some(nginx.pid()),
        );
        drop(nginx);
        for worker in &workers {
            let ours = StartServer::start(&dir, worker);
            let name = format!("start_server, {}", worker.display());
            measure(
                round,
                &format!("{name}, left alone"),
                ours.address,
                switches,
                None,
            );
            let pid = ours.child.id();
            measure(
                round,
                &format!("{name}, HUP"),
                ours.address,
                switches,
                Some(pid),
            );
        }
    }
    fs::remove_dir_all(&dir).expect("the directory goes");
}

/// Puts load on a server, while its master gets SIGHUP again and again, if its id is given.
fn measure(round: usize, name: &str, address: SocketAddr, switches: usize, master: Option<u32>) {
    let mut load = Load::new(Target::Tcp(address));
    // Nothing takes long: nginx has nothing that does.
    load.slow_path.clone_from(&load.path);
    load.retries = true;
    let mut running = load.start();
    for _ in 0..switches {
        sleep(PAUSE);
        if let Some(pid) = master {
            running.note_switch();
            send(pid, Signal::SIGHUP);
        }
    }
    sleep(PAUSE);
    println!(
        "round {round}, {name}, {switches} times\n{}",
        running.stop()
    );
}

/// By a call of our own: to start `kill` takes more than some switches do.
fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("the process exists");
}

struct Nginx {
    configuration: PathBuf,
    address: SocketAddr,
}

impl Nginx {
    fn start(dir: &Path) -> Self {
        let address = free_address();
        let place = dir.display();
        let configuration = dir.join("nginx.conf");
        let text = format!(
            "worker_processes {}; pid {place}/nginx.pid; error_log {place}/nginx.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; server {{ listen {address}; location / {{ return 200 \"hello\\n\"; }} }} }}\n",
            setting("NGINX_WORKERS", 2)
        );
        fs::write(&configuration, text).expect("the configuration is written");
        let nginx = Self {
            configuration,
            address,
        };
        nginx.run(&[]);
        wait_for(address);
        nginx
    }

    fn pid(&self) -> u32 {
        let file = self.configuration.with_file_name("nginx.pid");
        let text = fs::read_to_string(file).expect("nginx has written its id");
        text.trim().parse().expect("it is a number")
    }

    fn run(&self, options: &[&str]) {
        let status = Command::new("nginx")
            .arg("-c")
            .arg(&self.configuration)
            .args(options)
            .status();
        assert!(status.expect("nginx runs").success());
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.run(&["-s", "quit"]);
    }
}

struct StartServer {
    child: Child,
    address: SocketAddr,
}

impl StartServer {
    fn start(dir: &Path, worker: &Path) -> Self {
        let address = free_address();
        let child = Command::new(programs().join("start_server"))
            .args(["--port", &address.to_string(), "--wait-ready", "--"])
            .arg(worker)
            .current_dir(dir)
            .stderr(Stdio::null())
            .spawn()
            .expect("start_server runs: cargo build --release --bins");
        wait_for(address);
        // Not only start_server listens by then, the worker serves.
        sleep(PAUSE);
        Self { child, address }
    }
}

impl Drop for StartServer {
    fn drop(&mut self) {
        send(self.child.id(), Signal::SIGTERM);
        self.child.wait().expect("it ends");
    }
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release")
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address")
}

fn wait_for(address: SocketAddr) {
    while TcpStream::connect(address).is_err() {
        sleep(Duration::from_millis(5));
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

const PAUSE: Duration = Duration::from_millis(1100);
