//! `--restart`, `--stop` and `--status`, which tell the truth.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::{Daemon, Program, Start, both, number_after, stderr, stdout};
use super::processes::{MARK, is_running};
use crate::{child, process};

const RESTART: [&str; 3] = ["--restart", "--pid-file=pid", "--status-file=status"];

fn restart(more: &[&str]) -> Vec<String> {
    RESTART
        .iter()
        .chain(more)
        .map(ToString::to_string)
        .collect()
}

fn run(daemon: &Daemon, options: &[String]) -> std::process::Output {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    daemon.control(&options)
}

#[test]
fn restart_returns_when_only_the_new_generation_is_left() {
    both(|program| {
        let daemon = Daemon::serving(program);
        daemon.wait_for_generations(&[1]);
        let first = daemon.worker(1);
        // Each program's own command.
        let output = daemon.control_of(program, &RESTART);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(daemon.generations(), [2]);
        assert!(!is_running(first));
        assert_eq!(daemon.ask("generation"), "2");
    });
}

#[test]
fn restart_and_stop_of_each_program_work_with_the_daemon_of_the_other() {
    both(|program| {
        let other = if program == Program::Ours {
            Program::Perl
        } else {
            Program::Ours
        };
        if !Program::Perl.path().exists() {
            return;
        }
        let mut daemon = Daemon::serving(program);
        daemon.wait_for_generations(&[1]);
        let output = daemon.control_of(other, &RESTART);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(daemon.ask("generation"), "2");
        let output = daemon.control_of(other, &["--stop", "--pid-file=pid"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(daemon.wait_for_exit().success());
    });
}

#[test]
fn restart_tells_its_progress() {
    let daemon = Daemon::serving(Program::Ours);
    daemon.wait_for_generations(&[1]);
    let output = run(&daemon, &restart(&[]));
    let text = stderr(&output);
    assert!(
        text.contains(&format!(
            "asked start_server (pid:{}) for a generation after 1",
            daemon.pid()
        )),
        "{text}"
    );
    assert!(
        text.trim_end().ends_with(&format!(
            "generation 2 (worker {}) serves",
            daemon.worker(2)
        )),
        "{text}"
    );
}

#[test]
fn restart_that_fails_says_why_and_what_serves() {
    for mode in ["say=no-database exit=3", "say=no-database crash"] {
        let daemon = Start::new(Program::Ours)
            .file("mode", "ready")
            .files()
            .options(["--wait-ready", "--port=127.0.0.1:0"])
            .start();
        daemon.wait_for_generations(&[1]);
        daemon.write("mode", mode);
        let output = run(&daemon, &restart(&[]));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains("generation 2 failed: "), "{text}");
        assert!(text.contains("| no-database"), "{text}");
        assert!(
            text.contains(&format!(
                "generation 1 (worker {}) goes on serving",
                daemon.worker(1)
            )),
            "{text}"
        );
        assert_eq!(daemon.ask("generation"), "1");
    }
}

#[test]
fn restart_does_not_hang_if_the_first_attempt_fails_and_the_second_succeeds() {
    // A generation that failed uses up its number, for which Perl's waits for ever.
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--retry-delay=0.1"]);
    let daemon = daemon
        .options(["--wait-ready", "--port=127.0.0.1:0"])
        .file("mode", "ready")
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "exit=1");
    assert_eq!(run(&daemon, &restart(&[])).status.code(), Some(3));
    daemon.write("mode", "ready");
    daemon.wait("a later generation", || {
        (daemon.generations().first()? > &2).then_some(())
    });
    assert_eq!(run(&daemon, &restart(&[])).status.code(), Some(0));
}

#[test]
fn restart_of_a_service_that_is_down_has_a_code_of_its_own() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "exit=1")
        .files()
        .options([
            "--wait-ready",
            "--port=127.0.0.1:0",
            "--retry-delay=600",
            "--retry-max-delay=600",
        ])
        .start();
    daemon.wait_for_log("generation 1 failed");
    assert!(daemon.log().contains("no generation serves"));
    let output = run(&daemon, &restart(&[]));
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("no generation serves"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn restart_gives_up_when_the_time_is_up() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "stay")
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .start();
    let first = daemon.worker(1);
    daemon.wait_for_generations(&[1]);
    // The new one may take longer than that to serve.
    let told = daemon.wait("who is waited for", || {
        let output = run(&daemon, &restart(&["--timeout=3"]));
        assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
        Some(stderr(&output)).filter(|text| text.contains("waiting for old workers to end:"))
    });
    // Once while it waits, and once in the end.
    let lists = told.matches("workers to end:").count();
    assert_eq!(lists, 2, "{told}");
    let list = told.rsplit_once("workers to end:").unwrap().1;
    assert_eq!(number_after(list, ""), first, "{told}");
}

#[test]
fn restart_by_status_file_gives_up_when_the_time_is_up() {
    if !Program::Perl.path().exists() {
        return;
    }
    let daemon = Start::new(Program::Perl)
        .file("mode", "stay")
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.worker(1);
    let output = run(&daemon, &restart(&["--timeout=1"]));
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
}

#[test]
fn restart_asked_for_during_a_start_waits_for_a_generation_of_its_own() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=1", "--port=127.0.0.1:0"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.signal(Signal::SIGHUP);
    daemon.worker(2);
    let output = run(&daemon, &restart(&[]));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(daemon.generations(), [3]);
}

#[test]
fn restart_is_complete_though_another_one_has_begun() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0", "--wait-ready"])
        .file("mode", "ready")
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "say=waits await=two ready");
    thread::scope(|scope| {
        let restart = scope.spawn(|| run(&daemon, &restart(&["--timeout=30"])));
        daemon.wait_for_log("waits");
        daemon.write("mode", "await=three ready");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("when the current start is complete");
        daemon.write("two", "");
        let output = restart.join().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    });
}

#[test]
fn nobody_to_ask_has_a_code_of_its_own() {
    let mut daemon = Daemon::serving(Program::Ours);
    let pid = daemon.read("pid").unwrap();
    daemon.stop();
    for left in [
        None,
        Some(pid.as_str()),
        Some("1\n"),
        Some(""),
        Some("garbage\n"),
    ] {
        if let Some(text) = left {
            daemon.write("pid", text);
        }
        daemon.write("status", "1:1\n");
        for options in [
            &RESTART[..],
            &["--stop", "--pid-file=pid"],
            &["--status", "--pid-file=pid"],
        ] {
            let output = daemon.control(options);
            assert_eq!(
                output.status.code(),
                Some(5),
                "{left:?} {options:?}: {}",
                stderr(&output)
            );
            assert!(
                stderr(&output).contains("not running"),
                "{}",
                stderr(&output)
            );
        }
    }
}

#[test]
fn stop_never_signals_a_stranger_whose_id_is_in_a_stale_file() {
    let daemon = Start::new(Program::Ours);
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let daemon = daemon
        .file("pid", &format!("{}\n", stranger.id()))
        .file("status", "1:1\n");
    for options in [&["--stop", "--pid-file=pid"][..], &RESTART] {
        let output = Command::new(Program::Ours.path())
            .args(options)
            .current_dir(daemon.dir())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    }
    thread::sleep(Duration::from_millis(50));
    assert!(
        stranger.try_wait().unwrap().is_none(),
        "a stranger was killed"
    );
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn stop_never_signals_a_stranger_while_another_holds_the_lock() {
    // The file says one id, the lock is another's: as after a move between machines
    // or namespaces.
    let start = Start::new(Program::Ours);
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let start = start.file("pid", &format!("{}\n", stranger.id()));
    let file = fs::File::open(start.dir().join("pid")).unwrap();
    file.lock().unwrap();
    let output = Command::new(Program::Ours.path())
        .args(["--stop", "--pid-file=pid"])
        .current_dir(start.dir())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("is not the one that holds pid"),
        "{}",
        stderr(&output)
    );
    assert!(
        stranger.try_wait().unwrap().is_none(),
        "a stranger was killed"
    );
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn stop_returns_when_the_super_daemon_is_gone() {
    both(|program| {
        let (daemon, output) = Start::new(program)
            .files()
            .options(["--interval=0", "--port=127.0.0.1:0"])
            .daemonize();
        assert!(output.status.success());
        daemon.worker(1);
        let pid = daemon.pid();
        let output = daemon.control_of(program, &["--stop", "--pid-file=pid"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(
            stderr(&output).contains(&format!("stopping now (pid:{pid})...")),
            "{}",
            stderr(&output)
        );
        daemon.wait("its end", || (!is_running(pid)).then_some(()));
        assert!(!daemon.path("pid").exists());
    });
}

#[test]
fn stop_gives_up_when_the_time_is_up() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "stay")
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .start();
    let worker = daemon.worker(1);
    let output = daemon.control(&["--stop", "--pid-file=pid", "--timeout=3"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(
        stderr(&output).contains(&format!("waiting for workers to end:{worker}")),
        "{}",
        stderr(&output)
    );
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
}

#[test]
fn status_is_a_table_and_json() {
    let begun = Instant::now();
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready stay")
        .files()
        .options([
            "--interval=0",
            "--port=127.0.0.1:0",
            "--path=a.sock",
            "--wait-ready",
        ])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 1 received TERM");
    let output = daemon.control(&["--status", "--pid-file=pid"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    let address = daemon.own_address();
    assert!(
        table.contains(&format!("(pid:{})", daemon.pid()))
            && table.contains(&format!("ports 127.0.0.1:0 ({address}) a.sock\n")),
        "{table}"
    );
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[1],
        ["GENERATION", "PID", "STATE", "AGE", "RSS", "STATUS"]
    );
    assert_eq!(
        lines[2][..3],
        ["1", &daemon.worker(1).to_string(), "ending"]
    );
    assert_eq!(
        lines[3][..3],
        ["2", &daemon.worker(2).to_string(), "serving"]
    );
    assert_eq!(lines[3][6..], ["generation", "2", "is", "well"]);

    let output = daemon.control(&["--status", "--json", "--pid-file=pid"]);
    let status: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(status["running"], true);
    assert_eq!(status["pid"], daemon.pid());
    assert_eq!(status["generation"], 2);
    assert_eq!(
        status["ports"],
        serde_json::json!(["127.0.0.1:0", "a.sock"])
    );
    assert_eq!(
        status["addresses"],
        serde_json::json!([address.to_string(), "a.sock"])
    );
    assert_eq!(status["last_failure"], serde_json::Value::Null);
    let second = &status["generations"][1];
    assert_eq!(second["generation"], 2);
    assert_eq!(second["pid"], daemon.worker(2));
    assert_eq!(second["state"], "serving");
    assert_eq!(second["status"], "generation 2 is well");
    assert!(second["rss_bytes"].as_u64().unwrap() > 100_000);
    // Both are counted in whole milliseconds of one clock.
    let longest = begun.elapsed().as_secs_f64() + 0.01;
    assert!((0.0..longest).contains(&second["age_seconds"].as_f64().unwrap()));
}

#[test]
fn status_tells_of_a_failure_and_of_a_pending_restart() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options([
            "--wait-ready",
            "--port=127.0.0.1:0",
            "--retry-delay=600",
            "--retry-max-delay=600",
        ])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "exit=9");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 2 failed");
    let json = || -> serde_json::Value {
        serde_json::from_str(&stdout(&daemon.control(&[
            "--status",
            "--json",
            "--pid-file=pid",
        ])))
        .unwrap()
    };
    daemon.wait("the failure", || {
        let failure = json()["last_failure"].clone();
        (failure["generation"] == 2 && failure["reason"].as_str()?.contains("exited with code 9"))
            .then_some(())
    });
    assert_eq!(json()["restart_pending"], false);
    daemon.write("mode", "hang");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_logs("starting new worker", 3);
    daemon.signal(Signal::SIGHUP);
    daemon.wait("the pending restart", || {
        (json()["restart_pending"] == true).then_some(())
    });
    let table = stdout(&daemon.control(&["--status", "--pid-file=pid"]));
    for told in [
        "another restart begins when",
        "last failure: generation 2, ",
    ] {
        assert!(table.contains(told), "{told:?} is not in:\n{table}");
    }
}

#[test]
fn status_is_told_while_it_changes() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0"])
        .shell("exec sleep 619")
        .start();
    daemon.wait_for_generations(&[1]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                daemon.signal(Signal::SIGHUP);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let untold = (0..150).find_map(|_| {
            let output = daemon.control(&["--status", "--pid-file=pid"]);
            (!output.status.success()).then(|| stderr(&output))
        });
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(untold, None);
    });
}

#[test]
fn status_of_a_worker_cannot_command_the_terminal() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--wait-ready"])
        .shell("systemd-notify --ready --status=\"$(printf 'red\\033[31mroses')\"; exec sleep 600");
    if !child::has("systemd-notify") {
        return;
    }
    let daemon = daemon.start();
    daemon.wait_for_generations(&[1]);
    let output = daemon.control(&["--status", "--pid-file=pid"]);
    assert!(stdout(&output).ends_with("red [31mroses\n"), "{output:?}");
}

#[test]
fn status_of_nobody_is_json_too() {
    let start = Start::new(Program::Ours);
    let output = Command::new(Program::Ours.path())
        .args(["--status", "--json", "--pid-file=pid"])
        .current_dir(start.dir())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let status: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(status, serde_json::json!({ "running": false }));
}

#[test]
fn whoever_finds_the_pid_file_finds_the_state_too() {
    for _ in 0..20 {
        let daemon = Start::new(Program::Ours)
            .files()
            .options(["--interval=0"])
            .shell("exec sleep 616")
            .start();
        // Without a pause: what is between the two is a matter of milliseconds.
        while !daemon.path("pid").exists() {
            thread::yield_now();
        }
        // One state takes the place of another while they are listed.
        daemon.signal(Signal::SIGSTOP);
        process::wait_until_stopped(daemon.pid().cast_unsigned());
        let shown = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| link.to_string_lossy().starts_with("/memfd:start_server "));
        assert!(shown, "--restart would take it for Perl's");
    }
}

#[test]
fn end_of_one_that_shows_no_state_is_told_while_it_is_waited_for() {
    let start = Start::new(Program::Ours).file("status", "1:1\n");
    let script =
        "exec 9>pid; trap exit HUP; echo $$ >&9; flock 9; touch held; while :; do sleep 0.1; done";
    let mut other = Command::new("sh");
    other.args(["-c", script]).current_dir(start.dir());
    let daemon = start.daemon();
    let mut other = other.env(MARK, daemon.dir.path()).spawn().unwrap();
    daemon.wait("the lock", || daemon.read("held"));
    let restart = daemon.control(&["--restart", "--pid-file=pid", "--status-file=status"]);
    assert_eq!(restart.status.code(), Some(5), "{}", stderr(&restart));
    assert!(
        stderr(&restart).contains("has ended"),
        "{}",
        stderr(&restart)
    );
    other.wait().unwrap();
}
