//! Restarts under load: no request is lost, whatever becomes of the new generations.
//!
//! `HOT_DEPLOY_SWITCHES` sets how often, `HOT_DEPLOY_REQUESTS` how many requests
//! are made between two restarts, `HOT_DEPLOY_PROGRAM` puts a program like
//! `examples/src/bin/graceful.rs` in the place of this binary's role. The figures
//! are printed.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use super::daemon::{Daemon, Program, Start, stderr};
use crate::load::{Load, Running, Target};
use crate::service::Service;

/// Behaves as the file `mode` says, or becomes the service.
const WRAPPER: &str = r#"
case $(cat mode) in
exit) exit 3 ;;
hang) exec sleep 600 ;;
crash) sleep 1; kill -SEGV $$ ;;
esac
exec "$@"
"#;

fn size(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn start(options: &[&str]) -> Daemon {
    let service = match env::var_os("HOT_DEPLOY_PROGRAM") {
        Some(program) => std::process::Command::new(program),
        None => Service::command(),
    };
    let mut words: Vec<OsString> = [
        "./app".into(),
        "wrapper.sh".into(),
        service.get_program().into(),
    ]
    .into();
    words.extend(service.get_args().map(Into::into));
    let mut start = Start::new(Program::Ours)
        .files()
        .file("wrapper.sh", WRAPPER)
        .file("mode", "serve")
        .options(["--port=127.0.0.1:0", "--wait-ready=10", "--retry-delay=0.1"])
        .options(options)
        .words(words);
    for (name, value) in service
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_str()?, value?)))
    {
        start = start.env(name, value);
    }
    symlink("/bin/sh", start.dir().join("app")).unwrap();
    let daemon = start.start();
    daemon.wait_for_generations(&[1]);
    daemon
}

fn load(daemon: &Daemon) -> Running {
    Load::new(Target::Tcp(daemon.own_address())).start()
}

/// Waits until so many requests more have been made.
fn let_run(daemon: &Daemon, load: &Running) {
    let until = load.requests() + size("HOT_DEPLOY_REQUESTS", 300);
    daemon.wait("requests", || (load.requests() >= until).then_some(()));
}

fn finish(name: &str, load: Running, times: &mut [Duration]) {
    let report = load.stop();
    times.sort_unstable();
    eprintln!("{name}, {} restarts\n{report}", times.len());
    eprintln!(
        "restart took (median, max): {:?} {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    assert_eq!(report.failed(), 0, "{report}");
}

#[test]
fn restarts_lose_no_request() {
    let daemon = start(&[]);
    let mut load = load(&daemon);
    let mut times = Vec::new();
    for generation in 2..2 + size("HOT_DEPLOY_SWITCHES", 4) {
        let_run(&daemon, &load);
        let began = Instant::now();
        load.note_switch();
        let output = daemon.control(&["--restart", "--pid-file=pid", "--status-file=status"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        times.push(began.elapsed());
        assert_eq!(daemon.generations(), [generation]);
    }
    let_run(&daemon, &load);
    finish("restarts", load, &mut times);
}

#[test]
fn restarts_of_which_every_third_fails_lose_no_request() {
    let daemon = start(&[]);
    let mut load = load(&daemon);
    let mut times = Vec::new();
    let mut failures = ["exit", "hang", "crash", "missing"].into_iter().cycle();
    for round in 1..=size("HOT_DEPLOY_SWITCHES", 4) * 3 {
        let_run(&daemon, &load);
        let failure = (round % 3 == 0).then(|| failures.next()).flatten();
        match failure {
            Some("missing") => fs::remove_file(daemon.path("app")).unwrap(),
            Some(mode) => daemon.write("mode", mode),
            None => {}
        }
        let before = daemon.generations();
        let began = Instant::now();
        load.note_switch();
        let output = daemon.control(&["--restart", "--pid-file=pid", "--status-file=status"]);
        times.push(began.elapsed());
        match failure {
            None => assert_eq!(output.status.code(), Some(0), "{}", stderr(&output)),
            Some(mode) => {
                assert_eq!(output.status.code(), Some(3), "{mode}: {}", stderr(&output));
                assert_eq!(daemon.generations(), before, "{mode}");
                if mode == "missing" {
                    symlink("/bin/sh", daemon.path("app")).unwrap();
                }
                daemon.write("mode", "serve");
                // It is tried again, and then it succeeds.
                daemon.wait("the next generation", || {
                    let now = daemon.generations();
                    (now.len() == 1 && now > before).then_some(())
                });
            }
        }
    }
    let_run(&daemon, &load);
    finish("restarts of which every third fails", load, &mut times);
}

#[test]
fn restarts_one_upon_the_other_lose_no_request() {
    let daemon = start(&[]);
    let mut load = load(&daemon);
    let mut times = Vec::new();
    for _ in 0..size("HOT_DEPLOY_SWITCHES", 4) * 3 {
        let began = Instant::now();
        load.note_switch();
        daemon.signal(nix::sys::signal::Signal::SIGHUP);
        let_run(&daemon, &load);
        times.push(began.elapsed());
    }
    finish("restarts one upon the other", load, &mut times);
}

#[test]
fn replacement_of_the_super_daemon_loses_no_request() {
    let daemon = start(&[]);
    let mut load = load(&daemon);
    let mut times = Vec::new();
    for switch in 1..=size("HOT_DEPLOY_SWITCHES", 4) {
        let_run(&daemon, &load);
        let began = Instant::now();
        load.note_switch();
        daemon.signal(nix::sys::signal::Signal::SIGUSR2);
        daemon.wait_for_logs("goes on with generation", switch as usize);
        let output = daemon.control(&["--restart", "--pid-file=pid", "--status-file=status"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        times.push(began.elapsed());
    }
    finish("replacements of the super-daemon", load, &mut times);
}
