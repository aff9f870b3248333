//! A deploy by `start_server` beside nginx's reload, by turns, under one load.
//!
//! ```text
//! cargo build --profile dist --bin graceful --bin start_server
//! cargo bench --manifest-path graceful-listener/benches/Cargo.toml --bench deploy
//! ```
//!
//! 24 kept-alive and 8 connection-per-request loops, 2 % of whose requests take 300 ms, and
//! a switch every 1.1 seconds. What happens in the 500 ms after a switch, until the last
//! connection has moved, is told apart from the rest. A request that fails is made again at
//! once: the last two columns are what a user has waited then. The servers take turns of
//! `SWITCHES` (5) each, `ROUNDS` (10) times, so that a machine that is slow for a while is
//! slow for all of them. The worker is the `graceful` example, which has one thread, or
//! those that `WORKERS` lists, joined with `:`.
//! nginx is there twice, with one worker process, its default, and with two; its slow
//! answers need Debian's `libnginx-mod-http-echo`.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use load::{Load, Report, Target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[path = "../../tests/it/load.rs"]
#[expect(dead_code, reason = "the tests ask for more")]
mod load;

fn main() {
    let rounds = setting("ROUNDS", 10);
    let switches = setting("SWITCHES", 5);
    let dir = std::env::temp_dir().join(format!("deploy-{}", std::process::id()));
    fs::create_dir(&dir).expect("a directory");
    let workers = std::env::var("WORKERS");
    let workers: Vec<PathBuf> = match &workers {
        Ok(paths) => paths.split(':').map(PathBuf::from).collect(),
        Err(_) => vec![programs().join("graceful")],
    };

    let nginxes = [1, 2].map(|processes| Nginx::start(&dir, processes));
    let start_servers: Vec<_> = workers
        .iter()
        .map(|worker| StartServer::start(&dir, worker))
        .collect();
    let nginxes_named = nginxes.iter().map(|nginx| {
        let name = format!("nginx, worker_processes {}", nginx.processes);
        (name, nginx.address, nginx.pid())
    });
    let start_servers_named = workers.iter().zip(&start_servers).map(|(worker, server)| {
        let name = format!("start_server, {}", worker.display());
        (name, server.address, server.pid())
    });
    let servers: Vec<_> = nginxes_named.chain(start_servers_named).collect();

    let mut turns: Vec<Vec<Report>> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for ((_, address, master), turns) in servers.iter().zip(&mut turns) {
            turns.push(measure(*address, *master, switches));
        }
    }
    for ((name, ..), turns) in servers.iter().zip(turns) {
        let report: Report = turns.into_iter().sum();
        println!("{name}, {} switches\n{report}", rounds * switches);
    }
    drop((nginxes, start_servers));
    fs::remove_dir_all(&dir).expect("the directory goes");
}

/// Puts load on a server, while its master gets SIGHUP again and again.
fn measure(address: SocketAddr, master: u32, switches: usize) -> Report {
    let mut load = Load::new(Target::Tcp(address));
    load.retries = true;
    let mut running = load.start();
    for _ in 0..switches {
        sleep(PAUSE);
        running.note_switch();
        send(master, Signal::SIGHUP);
    }
    sleep(PAUSE);
    running.stop()
}

/// By a call of our own: to start `kill` takes more than some switches do.
fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("the process exists");
}

struct Nginx {
    processes: usize,
    configuration: PathBuf,
    address: SocketAddr,
}

impl Nginx {
    fn start(dir: &Path, processes: usize) -> Self {
        let address = free_address();
        let dir = dir.join(format!("nginx-{processes}"));
        fs::create_dir(&dir).expect("a directory");
        let place = dir.display();
        let configuration = dir.join("nginx.conf");
        let text = format!(
            "load_module /usr/lib/nginx/modules/ngx_http_echo_module.so;\n\
             worker_processes {processes}; pid {place}/nginx.pid; error_log {place}/nginx.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; server {{ listen {address}; location / {{ return 200 \"hello\\n\"; }}\n\
             location /sleep {{ echo_sleep 0.3; echo_exec @slept; }}\n\
             location @slept {{ return 200 \"slept\\n\"; }} }} }}\n"
        );
        fs::write(&configuration, text).expect("the configuration is written");
        let nginx = Self {
            processes,
            configuration,
            address,
        };
        nginx.run(&[]);
        wait_for(address);
        nginx
    }

    fn pid(&self) -> u32 {
        pid(&self.configuration.with_file_name("nginx.pid"))
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

/// A daemon as nginx is one: with a session of its own, which the kernel gives a share of
/// the processors' time (sched(7), "The autogroup feature").
struct StartServer {
    pid_file: PathBuf,
    address: SocketAddr,
}

impl StartServer {
    fn start(dir: &Path, worker: &Path) -> Self {
        let address = free_address();
        let pid_file = dir.join(format!("{}.pid", address.port()));
        let status = Command::new(programs().join("start_server"))
            .args([
                "--port",
                &address.to_string(),
                "--wait-ready",
                "--daemonize",
            ])
            .args(["--log-file", "/dev/null", "--pid-file"])
            .args([&pid_file, Path::new("--"), worker])
            .status()
            .expect(
                "start_server runs: cargo build --profile dist --bin graceful --bin start_server",
            );
        assert!(status.success(), "start_server: {status}");
        Self { pid_file, address }
    }

    fn pid(&self) -> u32 {
        pid(&self.pid_file)
    }
}

impl Drop for StartServer {
    fn drop(&mut self) {
        let status = Command::new(programs().join("start_server"))
            .args(["--stop", "--pid-file"])
            .arg(&self.pid_file)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "it ends");
    }
}

fn pid(file: &Path) -> u32 {
    let text = fs::read_to_string(file).expect("a daemon has written its id");
    text.trim().parse().expect("it is a number")
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/dist")
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
