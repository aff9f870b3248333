//! A process that detaches, seen from the one that has started it.

#![expect(
    unsafe_code,
    reason = "the harness has threads, which a process that detaches may not have"
)]
#![expect(clippy::exit, reason = "exit statuses are what is tested")]
#![expect(clippy::print_stdout, reason = "and what becomes of standard output")]

use std::env;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, exit};
use std::time::Duration;

use graceful_listener::{Daemonize, Listeners, PidFile, Upgrader};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::child;
use crate::drain::eventually;
use crate::process::{is_gone, link};
use crate::service::send;

const ROLE: &str = "daemonize::child_detaches";

/// Detaches as the variables say, and then does what `THEN` says.
#[test]
fn child_detaches() {
    if !child::plays(ROLE) {
        return;
    }
    if env::var_os("GRACEFUL_LISTENER").is_some() {
        return launch();
    }
    // SAFETY: the other threads of the harness wait, and hold nothing.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, status) => exit(status),
            status => panic!("{status:?}"),
        },
        ForkResult::Child => {
            let result = std::panic::catch_unwind(launch);
            exit(if result.is_err() { 101 } else { 0 });
        }
    }
}

fn launch() {
    if env::var_os("THREAD").is_some() {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(600)));
    }
    print!("before ");
    let mut daemonize = Daemonize::new();
    if let Some(path) = env::var_os("LOG") {
        daemonize = daemonize.log_file(path);
    }
    if let Some(path) = env::var_os("PID") {
        daemonize = daemonize.pid_file(path);
    }
    if let Some(path) = env::var_os("DIRECTORY") {
        daemonize = daemonize.directory(path);
    }
    if env::var_os("UMASK").is_some() {
        daemonize = daemonize.umask(0o077);
    }
    let mut daemon = match daemonize.start() {
        Ok(daemon) => daemon,
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            eprintln!("refused: {error}{}", source.unwrap_or_default());
            exit(9);
        }
    };
    eprintln!("starting as {}", std::process::id());
    fs::write(env::var_os("REPORT").unwrap(), report()).unwrap();
    print!("in half a line");
    let then = env::var("THEN").unwrap_or_default();
    match then.as_str() {
        "exit" => exit(5),
        "succeed" => exit(0),
        "killed" => nix::sys::signal::raise(Signal::SIGKILL).unwrap(),
        "panic" => panic!("on purpose"),
        "wait" => eventually("released", || {
            !Path::new(&env::var_os("WHILE").unwrap()).exists()
        }),
        "upgrade" => {
            daemon.ready().unwrap();
            return upgrade(&env::var("REPORT").unwrap());
        }
        "forget" => {
            drop(daemon);
            std::thread::sleep(Duration::from_secs(600));
            return;
        }
        _ => {}
    }
    daemon.ready().unwrap();
    daemon.ready().unwrap();
    eprintln!("to the log");
    println!("and this");
    std::thread::sleep(Duration::from_secs(600));
}

/// The first generation starts the second one, whose report is the last.
fn upgrade(report: &str) {
    let listeners = Listeners::inherit_or_bind(["127.0.0.1:0"]).unwrap();
    let is_first = listeners.generation() == 1;
    let upgrader = Upgrader::new(&listeners).unwrap();
    upgrader.ready().unwrap();
    if is_first {
        let first = format!("{report}-1");
        fs::rename(report, first).unwrap();
        upgrader.upgrade().unwrap();
    } else {
        println!("second in the log");
        std::thread::sleep(Duration::from_secs(600));
    }
}

fn report() -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let (session, terminal) = (fields[3], fields[4]);
    let leader = session == std::process::id().to_string();
    let directory = env::current_dir().unwrap();
    format!(
        "{} {leader} {terminal} {}\n",
        std::process::id(),
        directory.display()
    )
}

/// A launcher, and whatever becomes of it.
struct Launch {
    directory: tempfile::TempDir,
    command: Command,
}

struct Outcome {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Launch {
    fn new(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = child::role(ROLE);
        command
            .envs(settings.iter().copied())
            .env("REPORT", directory.path().join("report"));
        command.current_dir(directory.path());
        Self { directory, command }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    fn spawn(&mut self) -> Child {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits for the launcher, and for everybody to let go of its streams.
    fn run(&mut self) -> Outcome {
        Self::outcome(self.spawn())
    }

    fn outcome(mut launcher: Child) -> Outcome {
        let status = launcher.wait().unwrap().code();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        launcher
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut stdout)
            .unwrap();
        launcher
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        Outcome {
            status,
            stdout,
            stderr,
        }
    }

    /// What the daemon has said of itself: its id, whether it leads its session,
    /// its terminal, its directory.
    fn report(&self) -> (u32, Vec<String>) {
        let mut words = Vec::new();
        eventually("the daemon reports", || {
            let text = fs::read_to_string(self.path("report")).unwrap_or_default();
            words = text.split_whitespace().map(str::to_owned).collect();
            text.ends_with('\n')
        });
        (words[0].parse().unwrap(), words[1..].to_vec())
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        if let Ok(text) = fs::read_to_string(self.path("report"))
            && let Some(pid) = text
                .split(' ')
                .next()
                .and_then(|pid| pid.parse::<u32>().ok())
            && !is_gone(pid)
        {
            send(pid, Signal::SIGKILL);
        }
    }
}

#[test]
fn launcher_succeeds_when_the_daemon_is_ready() {
    let mut launch = Launch::new(&[]);
    let outcome = launch.run();
    assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
    let (pid, words) = launch.report();
    assert!(!is_gone(pid));
    assert_eq!(
        words[0], "false",
        "it leads no session, so it cannot get a terminal"
    );
    assert_eq!(words[1], "0", "it has no terminal");
    assert_eq!(
        words[2],
        launch.path("").display().to_string().trim_end_matches('/'),
        "its directory is the launcher's"
    );
    assert_eq!(
        outcome.stdout.matches("before").count(),
        1,
        "what was buffered is written once: {}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("in half a line"),
        "and before the streams are let go: {}",
        outcome.stdout
    );
    assert!(
        outcome.stderr.contains("starting as"),
        "what is said before it is ready is seen: {}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("to the log"));
    for stream in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(link(pid, stream), Path::new("/dev/null"), "{stream}");
    }
}

#[test]
fn process_that_replaces_a_daemon_is_one() {
    let mut launch = Launch::new(&[("LOG", "app.log"), ("THEN", "upgrade")]);
    assert_eq!(launch.run().status, Some(0));
    let log = launch.path("app.log");
    eventually("the second writes to the log", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("second in the log"))
    });
    let (second, words) = launch.report();
    let first = fs::read_to_string(launch.path("report-1")).unwrap();
    let (first, first_words) = first.trim_end().split_once(' ').unwrap();
    eventually("the first one ends", || is_gone(first.parse().unwrap()));
    assert!(!is_gone(second));
    assert_eq!(words.join(" "), first_words);
}

#[test]
fn process_that_replaces_a_daemon_leaves_the_pid_file_to_its_upgrader() {
    let mut launch = Launch::new(&[("LOG", "app.log"), ("PID", "app.pid"), ("THEN", "upgrade")]);
    assert_eq!(launch.run().status, Some(0));
    let log = launch.path("app.log");
    eventually("the second is refused", || {
        fs::read_to_string(&log)
            .is_ok_and(|text| text.contains("refused: the pid file of a process"))
    });
}

#[test]
fn launcher_waits_until_the_daemon_is_ready() {
    let mut launch = Launch::new(&[("THEN", "wait")]);
    let gate = launch.path("gate");
    fs::write(&gate, "").unwrap();
    launch.command.env("WHILE", &gate);
    let mut launcher = launch.spawn();
    launch.report();
    assert!(launcher.try_wait().unwrap().is_none());
    fs::remove_file(gate).unwrap();
    assert_eq!(Launch::outcome(launcher).status, Some(0));
}

#[test]
fn daemon_that_does_not_make_it_is_told_by_the_launchers_exit_status() {
    let table = [
        (
            "exit",
            5,
            "the daemon ended before it was ready, exit status 5",
        ),
        (
            "succeed",
            1,
            "the daemon ended before it was ready, exit status 0",
        ),
        (
            "killed",
            128 + 9,
            "the daemon ended before it was ready, killed by SIGKILL",
        ),
        ("panic", 101, "on purpose"),
    ];
    for (then, status, text) in table {
        let outcome = Launch::new(&[("THEN", then)]).run();
        assert_eq!(outcome.status, Some(status), "{then}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(text), "{then}: {}", outcome.stderr);
    }
}

#[test]
fn daemon_that_never_says_that_it_is_ready_is_reported() {
    let mut launch = Launch::new(&[("THEN", "forget")]);
    let mut launcher = launch.spawn();
    assert_eq!(launcher.wait().unwrap().code(), Some(1));
    let (pid, _) = launch.report();
    send(pid, Signal::SIGKILL);
    let mut text = String::new();
    launcher
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(
        text.contains(&format!(
            "the daemon, process {pid}, has not said that it is ready"
        )),
        "{text}"
    );
}

#[test]
fn process_with_threads_is_refused() {
    let outcome = Launch::new(&[("THREAD", "1")]).run();
    assert_eq!(outcome.status, Some(9));
    assert!(
        outcome
            .stderr
            .contains("refused: cannot detach: the process has 2 threads"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn output_is_appended_to_the_log_file_and_its_path_is_the_launchers() {
    let mut launch = Launch::new(&[("LOG", "app.log"), ("DIRECTORY", "/")]);
    fs::write(launch.path("app.log"), "earlier\n").unwrap();
    assert_eq!(launch.run().status, Some(0));
    let log = launch.path("app.log");
    eventually("both are in the log", || {
        let text = fs::read_to_string(&log).unwrap();
        text.starts_with("earlier\n") && text.contains("to the log") && text.contains("and this")
    });
    assert_eq!(launch.report().1[2], "/");
}

#[test]
fn pid_file_is_the_daemons_for_life() {
    let mut launch = Launch::new(&[("PID", "app.pid"), ("DIRECTORY", "/")]);
    assert_eq!(launch.run().status, Some(0));
    let (pid, _) = launch.report();
    let path = launch.path("app.pid");
    assert_eq!(PidFile::holder(&path).unwrap(), Some(pid));
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{pid}\n"));

    let mut second = Launch::new(&[]);
    let outcome = Launch::outcome({
        second.command.env("PID", &path);
        second.spawn()
    });
    assert_eq!(outcome.status, Some(9));
    assert!(
        outcome
            .stderr
            .contains(&format!("is held by the running process {pid}")),
        "{}",
        outcome.stderr
    );
    send(pid, Signal::SIGKILL);
    eventually("it is gone", || is_gone(pid));
    assert_eq!(
        PidFile::holder(&path).unwrap(),
        None,
        "its file is stale, whatever has its number"
    );
}

#[test]
fn files_that_cannot_be_had_are_told_on_the_terminal() {
    let table = [
        (
            "LOG",
            "absent/app.log",
            9,
            "refused: cannot open the log file absent/app.log: No such file",
        ),
        (
            "DIRECTORY",
            "absent",
            9,
            "refused: cannot change to the directory absent: No such file",
        ),
        (
            "DIRECTORY",
            "/dev/null",
            9,
            "refused: cannot change to the directory /dev/null",
        ),
        ("PID", "absent/app.pid", 1, "absent/app.pid"),
    ];
    for (name, value, status, text) in table {
        let outcome = Launch::new(&[(name, value)]).run();
        assert_eq!(
            outcome.status,
            Some(status),
            "{name}={value}: {}",
            outcome.stderr
        );
        assert!(
            outcome.stderr.contains(text),
            "{name}={value}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn umask_can_be_set() {
    let mut launch = Launch::new(&[("UMASK", "1")]);
    assert_eq!(launch.run().status, Some(0));
    launch.report();
    let metadata = fs::metadata(launch.path("report")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o077, 0);
    assert_eq!(metadata.uid(), fs::metadata("/proc/self").unwrap().uid());
}
