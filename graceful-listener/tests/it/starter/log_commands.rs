//! The log that a command reads, and the process before it that keeps the last lines.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::daemon::{Daemon, Program, Start, both, stderr, stdout, wait_for};
use super::processes::{is_running, proc_status};
use crate::process;

/// Waits for the process that reads what everybody writes.
pub(super) fn keeper(daemon: &Daemon) -> Pid {
    let is_one = |pid: &i32| proc_status(*pid, "Name") == "starter-log";
    daemon.wait("a keeper of the log", || {
        let children = process::children(daemon.pid().cast_unsigned());
        let mut children = children.into_iter().map(u32::cast_signed);
        children.find(is_one).map(Pid::from_raw)
    })
}

/// Waits for the process that it gives everything to.
pub(super) fn command(daemon: &Daemon, keeper: Pid) -> Pid {
    daemon.wait("a log command", || {
        let children = process::children(keeper.as_raw().cast_unsigned());
        children.first().map(|pid| Pid::from_raw(pid.cast_signed()))
    })
}

fn wait_for_end(pid: Pid) {
    wait_for("the end of a process", || {
        (!is_running(pid.as_raw())).then_some(())
    });
}

/// Counts without end, and ends itself only if it cannot be heard. While there is the
/// file `pause` it says in the file `paused` what it has counted to.
pub(super) const COUNTS: &str = "n=0; while :; do echo line $n || exit; \
    while [ -e pause ]; do echo line $n > paused.new; mv paused.new paused; sleep 0.01; done; \
    n=$((n + 1)); sleep 0.005; done";

/// Kills the log command of [`COUNTS`] when it has written all that it has read: the rest
/// would be lost with it.
fn kill_idle(daemon: &Daemon, command: Pid) {
    let _ = fs::remove_file(daemon.path("paused"));
    daemon.write("pause", "");
    let last = daemon.wait("a pause", || daemon.read("paused"));
    daemon.wait("all to be written", || {
        daemon.read("log").filter(|log| log.contains(&last))
    });
    kill(command, Signal::SIGKILL).unwrap();
    fs::remove_file(daemon.path("pause")).unwrap();
}

/// Waits until the lines of [`COUNTS`] are in `log` up to some more, each once.
pub(super) fn wait_for_lines(daemon: &Daemon) {
    let read = || daemon.read("log").unwrap_or_default();
    let is_line = |line: &&str| line.starts_with("line ");
    let before = read().lines().filter(is_line).count();
    daemon.wait("more lines", || {
        (read().lines().filter(is_line).count() > before + 5).then_some(())
    });
    let text = read();
    let whole = &text[..=text.rfind('\n').unwrap()];
    for (number, line) in whole.lines().filter(is_line).enumerate() {
        assert_eq!(line, format!("line {number}"), "a line is lost or doubled");
    }
}

/// Waits until this generation has failed, and returns what the log had then.
fn output_of_failed(daemon: &Daemon, generation: u64) -> Vec<String> {
    let output = daemon.wait("the failure", || {
        let status = daemon.control(&["--status", "--json", "--pid-file=pid"]);
        let status = serde_json::from_str::<Value>(&stdout(&status)).ok()?;
        let failure = &status["last_failure"];
        (failure["generation"] == generation).then(|| failure["output"].clone())
    });
    serde_json::from_value(output).unwrap()
}

#[test]
fn log_goes_through_a_command() {
    both(|program| {
        let mut daemon = Start::new(program)
            .options([
                "--interval=0",
                "--port=127.0.0.1:0",
                "--log-file=| sed -u s/^/piped:/ > log",
            ])
            .start();
        daemon.wait_for_text("log", "piped:serving as generation 1");
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait_for_exit().success());
        daemon.wait("the last line", || {
            daemon
                .read("log")
                .filter(|log| log.ends_with("piped:exiting\n"))
        });
    });
}

#[test]
fn log_command_without_anything_for_a_shell_is_run_directly() {
    both(|program| {
        let daemon = Start::new(program)
            .options(["--interval=0", "--port=127.0.0.1:0", "--log-file=|tee log"])
            .start();
        daemon.wait_for_text("log", "starting new worker");
    });
}

#[test]
fn log_command_may_begin_with_a_variable_or_exec() {
    both(|program| {
        for command in ["|NAME=log tee log", " | exec tee log"] {
            let daemon = Start::new(program)
                .options(["--interval=0", "--port=127.0.0.1:0", "--log-file", command])
                .start();
            daemon.wait_for_text("log", "starting new worker");
        }
    });
}

#[test]
fn log_command_that_is_missing_is_an_error_that_names_it() {
    both(|program| {
        let output = Start::new(program)
            .options(["--log-file=| no-such-command -x"])
            .run();
        assert_eq!(output.status.code(), Some(2));
        assert!(
            stderr(&output).contains("failed to open pipe:| no-such-command -x"),
            "{}",
            stderr(&output)
        );
    });
}

#[test]
fn log_command_that_dies_is_started_again_and_no_line_is_lost() {
    let daemon = Start::new(Program::Ours)
        .options([
            "--interval=0",
            "--log-file=| echo $$ >> loggers; exec cat >> log",
        ])
        .shell(COUNTS)
        .start();
    for killed in 1..=3 {
        let logger = wait_for("a log command", || {
            let loggers = daemon.read("loggers")?;
            let pid = loggers.lines().nth(killed - 1)?.parse();
            Some(Pid::from_raw(pid.unwrap()))
        });
        wait_for_lines(&daemon);
        kill_idle(&daemon, logger);
    }
    daemon.wait("the report", || {
        daemon.read("log").filter(|log| {
            log.matches("log command killed by signal 9 (SIGKILL), starting it again")
                .count()
                == 3
        })
    });
    wait_for_lines(&daemon);
}

#[test]
fn worker_never_blocks_on_a_log_command_that_cannot_run() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--log-file=| sh broken.sh"])
        .file("broken.sh", "exit 1")
        .shell("head -c 4000000 /dev/zero | tr '\\0' x; echo; echo done > finished; exec sleep 600")
        .start();
    daemon.wait("the worker to have written everything", || {
        daemon.read("finished")
    });
    daemon.write("broken.sh", "exec cat >> log");
    daemon.wait_for_text(
        "log",
        "bytes of output were lost while the log command did not run",
    );
}

#[test]
fn failed_generation_shows_its_last_lines_though_a_command_has_read_them() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0", "--wait-ready"])
        .options(["--retry-delay=600", "--retry-max-delay=600"])
        .options(["--log-file=| exec cat >> output"])
        .file("mode", "ready")
        .start();
    daemon.wait_for_generations(&[1]);
    daemon.write("mode", "say=no-database exit=3");
    let output = daemon.control(&["--restart", "--pid-file=pid", "--status-file=status"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("| no-database\n"), "{text}");
    daemon.wait_for_log("no-database\n");
    // What the one before has said is no part of it.
    daemon.write("mode", "say=no-disk exit=3");
    daemon.signal(Signal::SIGHUP);
    let output = output_of_failed(&daemon, 3);
    // The worker may say something before it is told that it was started.
    let is_start = |line: &String| line.starts_with("starting new worker ");
    assert_eq!(
        output.iter().filter(|line| is_start(line)).count(),
        1,
        "{output:?}"
    );
    assert!(output.contains(&"no-disk".into()), "{output:?}");
    assert!(!output.contains(&"no-database".into()), "{output:?}");
}

#[test]
fn last_lines_are_told_that_a_slow_command_has_not_read_yet() {
    let daemon = Start::new(Program::Ours)
        .files()
        .options([
            "--interval=600",
            "--retry-delay=600",
            "--retry-max-delay=600",
        ])
        .options(["--log-file=| exec cat > log"])
        .shell("echo begins; until [ -e fail ]; do sleep 0.01; done; echo last words; exit 3")
        .start();
    let keeper = keeper(&daemon);
    daemon.wait_for_text("log", "begins\n");
    kill(keeper, Signal::SIGSTOP).unwrap();
    daemon.write("fail", "");
    assert!(output_of_failed(&daemon, 1).contains(&"last words".into()));
    kill(keeper, Signal::SIGCONT).unwrap();
    daemon.wait_for_text("log", "last words\n");
}

#[test]
fn log_goes_on_when_the_super_daemon_is_killed() {
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--log-file=| exec cat >> log"])
        .shell(&format!("echo $$ > worker; {COUNTS}"))
        .start();
    wait_for_lines(&daemon);
    let keeper = keeper(&daemon);
    daemon.kill();
    wait_for_lines(&daemon);
    // Also if the command dies then.
    let cat = command(&daemon, keeper);
    kill_idle(&daemon, cat);
    wait_for_end(cat);
    wait_for_lines(&daemon);
    daemon.wait("the report", || {
        let text = "log command killed by signal 9 (SIGKILL), starting it again: exec cat";
        daemon.read("log").filter(|log| log.contains(text))
    });
    // With the last who writes everything ends.
    let worker = daemon.read("worker").unwrap().trim().parse().unwrap();
    let cat = command(&daemon, keeper);
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    wait_for_end(keeper);
    wait_for_end(cat);
}

#[test]
fn keeper_of_the_log_that_is_killed_loses_no_line_and_doubles_none() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--log-file=| exec cat >> log"])
        .shell(COUNTS)
        .start();
    for times in 1..=2 {
        wait_for_lines(&daemon);
        let keeper = keeper(&daemon);
        kill(keeper, Signal::SIGKILL).unwrap();
        wait_for_end(keeper);
        daemon.wait("the report", || {
            let text = "keeper of log command killed by signal 9 (SIGKILL), starting it again";
            (daemon.read("log")?.matches(text).count() == times).then_some(())
        });
    }
    wait_for_lines(&daemon);
}

#[test]
fn last_lines_of_all_are_logged_at_the_stop() {
    let mut daemon = Start::new(Program::Ours)
        .options(["--interval=0"])
        .options(["--log-file=| while read -r line; do echo \"$line\"; done > log"])
        .shell(
            "end() { n=0; while [ $n -lt 300 ]; do echo line $n; n=$((n + 1)); done; exit; }; \
             trap end TERM; echo up; while :; do sleep 0.01; done",
        )
        .start();
    daemon.wait_for_text("log", "up\n");
    let keeper = keeper(&daemon);
    let command = command(&daemon, keeper);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_for_exit().success());
    let log = daemon.wait("the last line", || {
        daemon.read("log").filter(|log| log.ends_with("exiting\n"))
    });
    let lines = log.lines().filter(|line| line.starts_with("line "));
    assert!(
        lines.eq((0..300).map(|number| format!("line {number}"))),
        "{log}"
    );
    wait_for_end(command);
    wait_for_end(keeper);
}

#[test]
fn signal_for_all_of_a_group_or_name_does_not_end_the_log() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--log-file=| exec cat >> log"])
        .shell(COUNTS)
        .start();
    wait_for_lines(&daemon);
    let keeper = keeper(&daemon);
    let signals = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ];
    for signal in signals {
        kill(keeper, signal).unwrap();
    }
    wait_for_lines(&daemon);
    assert_eq!(self::keeper(&daemon), keeper);
    // The command has its own mind about them.
    let command = command(&daemon, keeper);
    let ignored = proc_status(command.as_raw(), "SigIgn");
    let ignored = u64::from_str_radix(&ignored, 16).unwrap();
    let all = signals.iter().map(|signal| 1 << (*signal as u64 - 1));
    assert_eq!(ignored & all.sum::<u64>(), 0);
}

#[test]
fn log_command_that_has_nothing_to_do_wakes_nobody() {
    let daemon = Start::new(Program::Ours)
        .options(["--interval=0", "--log-file=| exec cat >> output"])
        .shell("echo up; exec sleep 620")
        .start();
    daemon.wait_for_log("up\n");
    for pid in [daemon.pid(), keeper(&daemon).as_raw()] {
        let state = || {
            [
                "State",
                "voluntary_ctxt_switches",
                "nonvoluntary_ctxt_switches",
            ]
            .map(|key| proc_status(pid, key))
        };
        daemon.wait("it to sleep", || {
            let before = state();
            thread::sleep(Duration::from_secs(1));
            (before[0].starts_with('S') && state() == before).then_some(())
        });
    }
}
