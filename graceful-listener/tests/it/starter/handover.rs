//! SIGUSR2: the super-daemon becomes the program now installed under its name.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::{Daemon, Program, Start, number_after, stderr};
use super::log_commands;
use super::processes::{is_running, proc_status};
use crate::executable;

/// Starts a copy of the program, by a name that can be made to lead elsewhere.
fn start(options: &[&str]) -> Daemon {
    let start = Start::new(Program::Ours)
        .file("mode", "stay")
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .options(options);
    let link = start.dir().join("start_server");
    lead(&link, &Program::Ours.path());
    let mut command = start.command_of(Path::new("./start_server"));
    let daemon = start.start_as(&mut command);
    daemon.wait_for_generations(&[1]);
    daemon.worker(1);
    daemon
}

fn lead(link: &Path, target: &Path) {
    let draft = link.with_extension("new");
    std::os::unix::fs::symlink(target, &draft).unwrap();
    fs::rename(draft, link).unwrap();
}

fn install(daemon: &Daemon, script: &str) -> PathBuf {
    let path = daemon.path("broken");
    executable::write(&path, script);
    lead(&daemon.path("start_server"), &path);
    path
}

fn executable(daemon: &Daemon) -> PathBuf {
    fs::read_link(format!("/proc/{}/exe", daemon.pid())).unwrap()
}

fn upgrade(daemon: &Daemon, times: usize) {
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_logs("goes on with generation", times);
}

#[test]
fn new_program_has_the_same_id_sockets_workers_and_files() {
    let mut daemon = start(&["--path=a.sock"]);
    let (pid, worker) = (daemon.pid(), daemon.worker(1));
    let copy = daemon.path("start_server-2");
    executable::copy(&Program::Ours.path(), &copy);
    lead(&daemon.path("start_server"), &copy);
    upgrade(&daemon, 1);
    assert_eq!(executable(&daemon), copy.canonicalize().unwrap());
    assert_eq!(daemon.read("pid").unwrap(), format!("{pid}\n"));
    let held = graceful_listener::PidFile::holder(daemon.path("pid")).unwrap();
    assert_eq!(held, Some(pid.cast_unsigned()), "the lock was let go");
    assert!(is_running(worker));
    assert_eq!(proc_status(worker, "PPid"), pid.to_string());
    assert_eq!(daemon.ask("generation"), "1");
    // It restarts and counts on, with the same sockets, and ends as before.
    daemon.write("mode", "");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 1 received TERM");
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    daemon.wait_for_log(&format!("old worker {worker} died, status:9"));
    daemon.wait_for_answer_of(2);
    UnixStream::connect(daemon.path("a.sock")).unwrap();
    daemon.stop();
    assert!(
        !daemon.path("a.sock").exists()
            && !daemon.path("pid").exists()
            && !daemon.path("status").exists()
    );
}

#[test]
fn many_upgrades_leak_nothing() {
    let mut daemon = start(&["--log-file=| cat >> output"]);
    let count = || {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .unwrap()
            .count()
    };
    let before = count();
    for times in 1..=10 {
        upgrade(&daemon, times);
    }
    daemon.wait("as few descriptors as before", || {
        (count() <= before).then_some(())
    });
    assert_eq!(daemon.ask("generation"), "1");
    daemon.write("mode", "");
    daemon.signal(Signal::SIGHUP);
    daemon.worker(2);
    kill(Pid::from_raw(daemon.worker(1)), Signal::SIGKILL).unwrap();
    daemon.wait_for_generations(&[2]);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_for_exit().success());
    daemon.wait("the last line", || {
        daemon.log().contains("exiting\n").then_some(())
    });
}

#[test]
fn log_command_goes_on_and_what_it_was_given_last_is_known() {
    let start = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--retry-delay=600", "--retry-max-delay=600"])
        .options(["--log-file=| exec cat >> log"])
        .shell(
            "[ -e fail ] && { echo last words; exit 3; }; \
             n=0; while :; do echo line $n; n=$((n + 1)); sleep 0.005; done",
        );
    let daemon = start.start();
    log_commands::wait_for_lines(&daemon);
    let keeper = log_commands::keeper(&daemon);
    for times in 1..=3 {
        daemon.signal(Signal::SIGUSR2);
        daemon.wait("the new program", || {
            let log = daemon.read("log")?;
            (log.matches("goes on with generation").count() == times).then_some(())
        });
        log_commands::wait_for_lines(&daemon);
    }
    assert_eq!(log_commands::keeper(&daemon), keeper);
}

#[test]
fn log_command_of_a_program_that_had_no_keeper_for_it_goes_on() {
    // The script is the older program, which lists no more than it knew of.
    let script = r#"
        mkfifo pipe
        exec 9<>pipe 5<pipe 6>pipe 9>&-
        exec 7>&1 8>&2
        cat >> log <&5 5<&- 6>&- 7>&- 8>&- & command=$!
        sleep 633 5<&- 6>&- 7>&- 8>&- & worker=$!
        cat > record <<END
        {
            "version": "0.0.1", "pid": $$, "generation": 7, "sockets": [],
            "workers": [{"generation": 7, "pid": $worker, "phase": "serving", "since": 0}],
            "descriptors": {"log": {
                "command": {"Unix": $1}, "reader": 5, "writer": 6,
                "output": [7, 8], "pid": $command
            }}
        }
END
        exec 4<record >&6 2>&6
        START_SERVER_RESUME=$$:4 exec "$0" --interval=0 --status-file=status \
            '--log-file=| exec cat >> log' -- sh -c 'echo up; exec sleep 634'
    "#;
    let start = Start::new(Program::Ours);
    let own = start.command();
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(own.get_program());
    command
        .arg(format!("{:?}", b"exec cat >> log"))
        .current_dir(start.dir());
    for (name, value) in own.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let daemon = start.start_as(&mut command);
    daemon.wait_for_text("log", "goes on with generation 7");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_text("log", "up\n");
    daemon.wait_for_generations(&[8]);
    // It is known for what it is by the next program too.
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_text("log", "goes on with generation 8");
    // The command is replaced by one with a keeper, and nothing is lost.
    let record = daemon.read("record").unwrap();
    let first = number_after(&record, "\"output\": [7, 8], \"pid\": ");
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    let killed = "log command killed by signal 9 (SIGKILL), starting it again: exec cat >> log\n";
    let log = daemon.wait_for_text("log", killed);
    assert!(!log.contains("keeper"), "{log}");
    daemon.signal(Signal::SIGHUP);
    daemon.wait("the output of the next worker", || {
        (daemon.read("log")?.matches("up\n").count() == 2).then_some(())
    });
    kill(log_commands::keeper(&daemon), Signal::SIGKILL).unwrap();
    daemon.wait_for_text("log", &format!("keeper of {killed}"));
}

#[test]
fn restart_that_was_still_to_come_is_begun_by_the_new_program() {
    let script = r#"
        sleep 648 & worker=$!
        cat > record <<END
        {
            "pid": $$, "generation": 7, "pending": true,
            "workers": [{"generation": 7, "pid": $worker, "phase": "serving", "since": 0}]
        }
END
        exec 4<record
        START_SERVER_RESUME=$$:4 exec "$@"
    "#;
    let mut older = Command::new("sh");
    older.args(["-c", script, "sh"]);
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0"])
        .program(&["sleep", "649"])
        .start_by(older);
    daemon.wait_for_log("goes on with generation 7");
    daemon.wait_for_generations(&[8]);
}

#[test]
fn stop_that_comes_while_the_new_program_is_tried_ends_the_old_one() {
    let mut daemon = start(&[]);
    let worker = daemon.worker(1);
    let ours = Program::Ours.path().display().to_string();
    let waits = "#!/bin/sh\nuntil [ -e go ]; do sleep 0.02; done; exec";
    install(&daemon, &format!("{waits} {ours} \"$@\"\n"));
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_log("received USR2, trying");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_log("generation 1 received TERM");
    daemon.write("go", "");
    daemon.wait_for_log("stopping, not going on as a new program");
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    assert!(daemon.wait_for_exit().success());
    assert!(daemon.log().ends_with("exiting\n"), "{}", daemon.log());
}

#[test]
fn pause_after_failures_goes_on_and_grows_on_over_an_upgrade() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--port=127.0.0.1:0", "--wait-ready", "--retry-delay=1"])
        .file("mode", "ready")
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "exit=6");
    // What is told is what is left of a gap of 1, 2, 4 secs, but for the start.
    let begun = Instant::now();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_logs("trying again in", 2);
    upgrade(&daemon, 1);
    let log = daemon.wait_for_logs("trying again in", 3);
    assert!(begun.elapsed() >= Duration::from_millis(2990), "{log}");
    let (_, told) = log.rsplit_once("trying again in ").unwrap();
    let secs: f64 = told.split(' ').next().unwrap().parse().unwrap();
    assert!(secs >= 2.9, "{log}");
}

#[test]
fn last_lines_that_a_log_command_has_read_are_known_after_the_upgrade() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--wait-ready", "--port=127.0.0.1:0"])
        .options(["--retry-delay=600", "--retry-max-delay=600"])
        .options(["--log-file=| exec cat >> output"])
        .file("mode", "ready")
        .start();
    daemon.wait_for_generations(&[1]);
    upgrade(&daemon, 1);
    daemon.write("mode", "say=no-database exit=3");
    let output = daemon.control(&["--restart", "--pid-file=pid", "--status-file=status"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains(
            "| no-database
"
        ),
        "{text}"
    );
}

#[test]
fn program_that_cannot_take_over_is_not_executed() {
    for (script, reason) in [
        ("#!/bin/sh\nexit 1\n", "exited with code 1"),
        ("#!/bin/sh\nexit 0\n", "exited with code 0"),
        ("#!/bin/sh\necho 0.35\n", "exited with code 0"),
        ("#!/bin/sh\nkill -9 $$\n", "killed by signal 9"),
        ("not a program", "exited with code 127"),
    ] {
        let daemon = start(&[]);
        install(&daemon, script);
        daemon.signal(Signal::SIGUSR2);
        let log = daemon.wait_for_log("going on with the old program");
        assert!(log.contains(reason), "{script:?}: {log}");
        assert_eq!(
            executable(&daemon),
            Program::Ours.path().canonicalize().unwrap()
        );
        assert_eq!(daemon.ask("generation"), "1");
        // Signals work as before, and a program that is whole again is taken.
        daemon.write("mode", "");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("generation 1 received TERM");
        lead(&daemon.path("start_server"), &Program::Ours.path());
        upgrade(&daemon, 1);
    }
}

#[test]
fn program_that_is_missing_changes_nothing() {
    let daemon = start(&[]);
    fs::remove_file(daemon.path("start_server")).unwrap();
    daemon.signal(Signal::SIGUSR2);
    let log = daemon.wait_for_log("going on with the old program");
    assert!(log.contains("No such file or directory"), "{log}");
    assert_eq!(daemon.ask("generation"), "1");
}

#[test]
fn perls_program_is_not_taken_for_ours() {
    if !Program::Perl.path().exists() {
        return;
    }
    let daemon = start(&["--path=a.sock"]);
    lead(&daemon.path("start_server"), &Program::Perl.path());
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_for_log("cannot take over: it exited with code 1; going on with the old program");
    assert!(daemon.path("a.sock").exists());
    assert_eq!(daemon.read("pid").unwrap(), format!("{}\n", daemon.pid()));
}

#[test]
fn upgrade_waits_for_a_start_that_is_under_way() {
    let daemon = upgrade_during_a_start();
    daemon.write("go", "");
    let log = daemon.wait_for_log("goes on with generation 2");
    let at = |text: &str| {
        log.find(text)
            .unwrap_or_else(|| panic!("no {text:?} in:\n{log}"))
    };
    assert!(at("killing old workers") < at("executing "));
    // The workers' messages still reach it.
    daemon.wait_for_generations(&[2]);
    daemon.write("mode", "ready");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_generations(&[3]);
}

#[test]
fn stop_takes_back_an_upgrade_that_waits_for_a_start() {
    let mut daemon = upgrade_during_a_start();
    let log = daemon.stop();
    assert!(!log.contains("received USR2"), "{log}");
}

/// Asks for an upgrade while the second generation is not ready.
fn upgrade_during_a_start() -> Daemon {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options(["--port=127.0.0.1:0", "--wait-ready"])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "await=go ready");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_logs("starting new worker", 2);
    daemon.signal(Signal::SIGUSR2);
    daemon.wait("it to be heard", || {
        let pending = proc_status(daemon.pid(), "ShdPnd");
        (pending.trim_matches('0').is_empty()).then_some(())
    });
    daemon
}

#[test]
fn program_that_was_tried_during_a_start_takes_over_after_it() {
    let start = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options(["--port=127.0.0.1:0", "--wait-ready"]);
    let mut command = start.command_of(Path::new("./start_server"));
    let tried = format!(
        "#!/bin/sh\necho $$ > tried\nuntil [ -e go ]; do sleep 0.02; done; exec {} \"$@\"\n",
        Program::Ours.path().display()
    );
    executable::write(&start.dir().join("tried.sh"), &tried);
    lead(&start.dir().join("start_server"), &Program::Ours.path());
    let daemon = start.start_as(&mut command);
    daemon.wait_for_generations(&[1]);
    lead(&daemon.path("start_server"), &daemon.path("tried.sh"));
    daemon.write("mode", "await=ready ready");
    daemon.signal(Signal::SIGUSR2);
    let tried = daemon.wait_for_text("tried", "\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_logs("starting new worker", 2);
    daemon.write("go", "");
    let proc = Path::new("/proc").join(tried.trim());
    daemon.wait("its answer to be heard", || (!proc.exists()).then_some(()));
    daemon.write("ready", "");
    daemon.wait_for_generations(&[2]);
    let log = daemon.wait_for_log("goes on with generation 2");
    let at = |text: &str| log.find(text).unwrap();
    assert!(at("killing old workers") < at("executing "), "{log}");
}

#[test]
fn hangup_that_comes_with_the_upgrade_is_not_lost() {
    for _ in 0..5 {
        let daemon = start(&[]);
        daemon.write("mode", "");
        daemon.signal(Signal::SIGUSR2);
        daemon.wait_for_log("received USR2");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log("goes on with generation");
        daemon.worker(2);
    }
}

#[test]
fn status_is_kept() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "ready")
        .files()
        .options([
            "--interval=0",
            "--port=127.0.0.1:0",
            "--wait-ready",
            "--retry-delay=600",
            "--retry-max-delay=600",
        ])
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "exit=6");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 2 failed");
    let json = || -> serde_json::Value {
        let output = daemon.control(&["--status", "--json", "--pid-file=pid"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_str(&super::daemon::stdout(&output)).unwrap()
    };
    let age = |status: &serde_json::Value| status["generations"][0]["age_seconds"].as_f64();
    let before = daemon.wait("an age that can be told from none", || {
        Some(json()).filter(|status| age(status) >= Some(2.0))
    });
    upgrade(&daemon, 1);
    let after = json();
    assert!(age(&after) >= age(&before), "{before} {after}");
    assert_eq!(after["generations"][0]["status"], "generation 1 is well");
    assert_eq!(
        after["last_failure"]["reason"],
        before["last_failure"]["reason"]
    );
    assert_eq!(after["generation"], 2);
    assert!(after["age_seconds"].as_f64() >= before["age_seconds"].as_f64());
}

#[test]
fn worker_that_was_to_be_killed_is_killed_by_the_new_program() {
    let daemon = start(&["--stop-timeout=2"]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 1 received TERM");
    upgrade(&daemon, 1);
    daemon.wait_for_log(&format!("old worker {} died, status:9", daemon.worker(1)));
    daemon.wait_for_generations(&[2]);
}

#[test]
fn what_an_old_worker_has_left_is_killed_by_the_new_program() {
    // It may take longer than that until the new program runs.
    for timeout in [3, 9, 27] {
        let daemon = Start::new(Program::Ours)
            .files()
            .options(["--interval=0", &format!("--stop-timeout={timeout}")])
            .shell("trap '' TERM; sleep 605 & trap - TERM; echo leaves $!; exec sleep 606")
            .start();
        let log = daemon.wait_for_log("leaves ");
        let helper = number_after(&log, "leaves ");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_log(" died, status:");
        daemon.wait_for_generations(&[2]);
        upgrade(&daemon, 1);
        let log = daemon.wait_for_log("has started has not ended in time, sending KILL to it");
        daemon.wait("the end of the helper", || {
            (!is_running(helper)).then_some(())
        });
        let at = |text: &str| log.find(text).unwrap();
        if at("goes on with generation") < at("sending KILL to it") {
            return;
        }
    }
    panic!("it is never killed by the new program");
}

#[test]
fn stop_waits_for_what_was_left_before_the_upgrade() {
    let mut daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0"])
        .shell(
            "[ $SERVER_STARTER_GENERATION = 1 ] && \
             (trap 'sleep 0.5; echo all is told; exit' TERM; echo is left; while :; do sleep 0.1; done) & \
             exec sleep 607",
        )
        .start();
    daemon.wait_for_log("is left");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log(" died, status:");
    daemon.wait_for_generations(&[2]);
    upgrade(&daemon, 1);
    let log = daemon.stop();
    assert!(
        log.find("all is told")
            .is_some_and(|told| told < log.find("exiting").unwrap()),
        "{log}"
    );
}

#[test]
fn old_worker_is_told_when_the_new_program_completes_a_restart_that_had_failed() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0", "--wait-ready"])
        .options(["--retry-delay=1", "--retry-max-delay=1"])
        .file("mode", "ready")
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "exit=6");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("generation 2 failed");
    upgrade(&daemon, 1);
    daemon.write("mode", "ready");
    daemon.wait_for_log("generation 1 received TERM");
}

#[test]
fn auto_restart_counts_on_over_upgrades() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .options(["--enable-auto-restart", "--auto-restart-interval=4"])
        .options(["--kill-old-delay=0"])
        .start();
    daemon.worker(1);
    daemon.wait_for_generations(&[1]);
    let mut upgrades = 0;
    // Each of them comes long before the interval is over that would begin with it.
    daemon.wait("the auto restart", || {
        let begun = Instant::now();
        upgrades += 1;
        upgrade(&daemon, upgrades);
        while begun.elapsed() < Duration::from_secs(1) {
            thread::sleep(Duration::from_millis(50));
        }
        daemon.log().contains("autorestart triggered").then_some(())
    });
}

#[test]
fn worker_that_dies_during_the_upgrade_is_replaced() {
    let daemon = start(&[]);
    let worker = daemon.worker(1);
    daemon.signal(Signal::SIGUSR2);
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    daemon.wait_for_log("goes on with generation");
    daemon.worker(2);
    assert!(
        daemon
            .log()
            .contains(&format!("worker {worker} died unexpectedly with status:9"))
    );
}

#[test]
fn leaked_variable_of_an_upgrade_is_not_believed() {
    // A worker that is itself a super-daemon inherits nothing of it.
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .env("START_SERVER_RESUME", "1:7")
        .start();
    daemon.worker(1);
    assert_eq!(daemon.ask("env START_SERVER_RESUME"), "unset");
    assert!(daemon.log().contains("starting now"));
}

#[test]
fn workers_are_not_told_of_their_parents_death_by_an_upgrade() {
    let daemon = start(&["--die-with-parent"]);
    upgrade(&daemon, 1);
    assert_eq!(daemon.ask("generation"), "1");
    assert!(!daemon.log().contains("generation 1 received"));
    // But by its death after it.
    daemon.signal(Signal::SIGKILL);
    daemon.wait_for_log("generation 1 received TERM");
}
