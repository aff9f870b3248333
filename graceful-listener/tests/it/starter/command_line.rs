//! The command line, in the forms that Perl's `Getopt::Long` takes.

use nix::sys::signal::Signal;

use super::daemon::{Daemon, Program, Start, both, finish, stderr, stdout};

fn run(program: Program, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(program.path());
    command.args(args);
    let output = finish(command);
    (output.status.code(), stdout(&output), stderr(&output))
}

#[test]
fn version_goes_to_standard_output() {
    both(|program| {
        let (code, out, err) = run(program, &["--version"]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(
            out.trim().chars().all(|c| c.is_ascii_digit() || c == '.'),
            "{out}"
        );
        assert!(out.ends_with('\n'));
    });
}

#[test]
fn help_tells_every_option_of_perls() {
    both(|program| {
        let (code, out, err) = run(program, &["--help"]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        for option in [
            "port",
            "path",
            "dir",
            "interval",
            "signal-on-hup",
            "signal-on-term",
            "pid-file",
            "status-file",
            "envdir",
            "log-file",
            "daemonize",
            "enable-auto-restart",
            "auto-restart-interval",
            "kill-old-delay",
            "backlog",
            "restart",
            "stop",
            "help",
            "version",
        ] {
            assert!(
                out.contains(&format!("--{option}")),
                "--{option} is not in:\n{out}"
            );
        }
    });
}

#[test]
fn help_tells_every_option_of_ours_and_the_exit_codes() {
    let (_, out, _) = run(Program::Ours, &["--help"]);
    for text in [
        "--wait-ready",
        "--stop-timeout",
        "--max-old",
        "--retry-delay",
        "--retry-max-delay",
        "--status",
        "--json",
        "--timeout",
        "--die-with-parent",
        "--user",
        "--group",
        "--umask",
        "--socket-mode",
        "--env-file",
        "--log-format",
        "--open-files",
        "--cgroup",
        "Exit codes",
        "SIGUSR2",
        "SERVER_STARTER_PORT",
    ] {
        assert!(out.contains(text), "{text} is not in:\n{out}");
    }
    assert!(
        out.lines().all(|line| line.len() <= 80),
        "a line is too long for a terminal"
    );
}

#[test]
fn readme_tells_every_option_of_the_help() {
    let (_, help, _) = run(Program::Ours, &["--help"]);
    let options = |text: &'static str| {
        text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
            .filter(|word| word.starts_with("--") && word.len() > 2)
    };
    let told: Vec<&str> = options(include_str!("../../../README.md")).collect();
    let asked: Vec<&str> = options(help.leak()).collect();
    assert!(asked.len() > 30, "{asked:?}");
    for option in asked {
        assert!(told.contains(&option), "{option} is not in the README");
    }
}

#[test]
fn missing_program_is_an_error() {
    both(|program| {
        let (code, _, err) = run(program, &["--port=0"]);
        assert_eq!(code, Some(255));
        assert!(err.contains("server program not specified"), "{err}");
    });
}

#[test]
fn what_is_no_option_is_refused_in_the_same_words() {
    both(|program| {
        for (args, message) in [
            (&["--nope"][..], "Unknown option: nope"),
            (
                &["--interval=0.5", "true"],
                "Value \"0.5\" invalid for option interval (number expected)",
            ),
            (
                &["--interval=x", "true"],
                "Value \"x\" invalid for option interval (number expected)",
            ),
            (
                &["--backlog=", "true"],
                "Option backlog requires an argument",
            ),
            (
                &["--daemonize=1", "true"],
                "Option daemonize does not take an argument",
            ),
            (&["true", "--port"], "Option port requires an argument"),
        ] {
            let (code, _, err) = run(program, args);
            assert_eq!(code, Some(1), "{args:?}");
            assert!(err.contains(message), "{args:?}: {err}");
        }
    });
}

#[test]
fn ambiguous_abbreviation_is_refused() {
    both(|program| {
        let (code, _, err) = run(program, &["--s", "true"]);
        assert_eq!(code, Some(1));
        assert!(err.contains("Option s is ambiguous"), "{err}");
    });
}

#[test]
fn abbreviations_case_and_single_dashes_are_understood() {
    both(|program| {
        for args in [
            &["--vers"][..],
            &["-version"],
            &["--VERSION"],
            &["+version"],
            &["-v"],
        ] {
            let (code, out, err) = run(program, args);
            assert_eq!(code, Some(0), "{args:?}: {err}");
            assert!(!out.is_empty());
        }
    });
}

#[test]
fn options_behind_the_program_are_ours_without_a_double_dash() {
    both(|program| {
        let start = Start::new(program).file(
            "worker.sh",
            "echo \"arguments: $*, ports: $SERVER_STARTER_PORT\"; kill -TERM $PPID; sleep 60",
        );
        let mut command = std::process::Command::new(program.path());
        command
            .args([
                "sh",
                "--interval=0",
                "worker.sh",
                "one",
                "--port=127.0.0.1:0",
                "two",
            ])
            .current_dir(start.dir());
        command.env("GRACEFUL_LISTENER_TEST_DIR", start.dir());
        let mut daemon = start.start_as(&mut command);
        assert!(daemon.wait_for_exit().success());
        let log = daemon.log();
        assert!(
            log.contains("arguments: one two, ports: 127.0.0.1:0="),
            "{log}"
        );
    });
}

#[test]
fn nothing_behind_a_double_dash_is_ours() {
    both(|program| {
        let mut daemon = Start::new(program)
            .options(["--interval=0"])
            .program(&[
                "sh",
                "-c",
                "echo \"arguments: $*\"; kill -TERM $PPID; sleep 60",
                "sh",
                "--port=1",
                "--",
                "--nope",
            ])
            .start();
        assert!(daemon.wait_for_exit().success());
        let log = daemon.log();
        assert!(log.contains("arguments: --port=1 -- --nope"), "{log}");
    });
}

#[test]
fn daemonize_needs_a_log_file() {
    both(|program| {
        let (code, _, err) = run(program, &["--daemonize", "--", "true"]);
        assert_eq!(code, Some(255));
        assert!(
            err.contains("--log-file option must be specified together with"),
            "{err}"
        );
    });
}

#[test]
fn restart_needs_both_files_and_stop_the_pid_file() {
    both(|program| {
        for args in [
            &["--restart"][..],
            &["--restart", "--pid-file=p"],
            &["--restart", "--status-file=s"],
        ] {
            let (code, _, err) = run(program, args);
            assert_ne!(code, Some(0));
            assert!(
                err.contains(
                    "--restart option requires --pid-file and --status-file to be set as well"
                ),
                "{err}"
            );
        }
        let (code, _, err) = run(program, &["--stop"]);
        assert_ne!(code, Some(0));
        assert!(
            err.contains("--stop option requires --pid-file to be set as well"),
            "{err}"
        );
    });
}

#[test]
fn option_of_a_request_is_not_ignored_without_one() {
    for (option, text) in [
        (
            "--timeout=5",
            "--timeout option requires --restart or --stop",
        ),
        ("--json", "--json option requires --status"),
    ] {
        let (code, _, err) = run(Program::Ours, &[option, "--", "true"]);
        assert_eq!(code, Some(255), "{err}");
        assert!(err.contains(text), "{err}");
    }
}

#[test]
fn unknown_signal_is_refused_at_once() {
    for option in ["--signal-on-hup", "--signal-on-term"] {
        let (code, _, err) = run(Program::Ours, &[option, "NOPE", "--", "true"]);
        assert_eq!(code, Some(1));
        assert!(
            err.contains("unknown signal `NOPE`") && err.contains(&option[2..]),
            "{err}"
        );
    }
}

#[test]
fn empty_value_of_a_file_or_signal_is_none() {
    both(|program| {
        for value in ["", "0"] {
            let mut daemon = Start::new(program)
                .files()
                .options(["--interval=0", "--log-file", value])
                .options(["--signal-on-hup", value, "--signal-on-term", value])
                .shell("echo $SERVER_STARTER_GENERATION is up; exec sleep 636")
                .start();
            daemon.wait_for_generations(&[1]);
            // Perl's own handler would take a signal that comes before.
            daemon.wait_for_log("1 is up");
            daemon.signal(Signal::SIGHUP);
            daemon.wait_for_log("sending TERM to old workers:");
            daemon.wait_for_generations(&[2]);
            daemon.wait_for_log("2 is up");
            daemon.stop();
            let log = daemon.log();
            assert!(log.contains("sending TERM to all workers:"), "{log}");

            let mut daemon = Start::new(program)
                .options(["--pid-file", value, "--status-file", value])
                .shell("echo up; exec sleep 637")
                .start();
            daemon.wait_for_log("up\n");
            assert!(!daemon.path("0").exists());
            daemon.stop();
        }
    });
}

#[test]
fn empty_program_and_path_are_told_as_what_they_are() {
    let (code, _, err) = run(Program::Ours, &["--", ""]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("failed to exec : No such file"), "{err}");
    let (code, _, err) = run(Program::Ours, &["--path", "", "--", "true"]);
    assert_eq!(code, Some(255), "{err}");
    assert!(err.contains("``path'' value:: it is empty"), "{err}");
}

#[test]
fn bad_values_of_our_options_name_option_and_value() {
    for arg in [
        "--wait-ready=soon",
        "--stop-timeout=-1",
        "--max-old=x",
        "--retry-delay=1s",
        "--retry-max-delay=.",
        "--timeout=x",
        "--umask=888",
        "--umask=1777",
        "--socket-mode=rw",
        "--log-format=xml",
        "--open-files=many",
        "--die-with-parent=X",
    ] {
        let (code, _, err) = run(Program::Ours, &[arg, "--", "true"]);
        let (option, value) = arg[2..].split_once('=').unwrap();
        assert_eq!(code, Some(1), "{arg}: {err}");
        assert!(
            err.contains(option) && err.contains(&format!("\"{value}\"")),
            "{arg}: {err}"
        );
    }
}

#[test]
fn status_with_a_value_is_still_the_status_file() {
    both(|program| {
        let daemon = Start::new(program)
            .options(["--status=status", "--interval=0"])
            .start();
        daemon.wait("the status file", || {
            daemon.read("status").filter(|text| text.starts_with("1:"))
        });
    });
}

#[test]
fn status_with_a_program_tells_the_mistake() {
    let (code, _, err) = run(Program::Ours, &["--status", "file", "--", "true"]);
    assert_ne!(code, Some(0));
    assert!(err.contains("--status-file"), "{err}");
}

#[test]
fn posixly_correct_ends_the_options_at_the_program() {
    both(|program| {
        let start = Start::new(program).file(
            "worker.sh",
            "echo \"arguments: $*\"; kill -TERM $PPID; sleep 60",
        );
        let mut command = std::process::Command::new(program.path());
        command
            .args(["--interval=0", "sh", "worker.sh", "--port=127.0.0.1:0"])
            .current_dir(start.dir())
            .env("POSIXLY_CORRECT", "1")
            .env("GRACEFUL_LISTENER_TEST_DIR", start.dir());
        let mut daemon: Daemon = start.start_as(&mut command);
        assert!(daemon.wait_for_exit().success());
        assert!(daemon.log().contains("arguments: --port=127.0.0.1:0"));
    });
}

#[test]
fn negative_interval_is_no_time() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=-1", "--port=127.0.0.1:0"])
            .start();
        daemon.wait_for_generations(&[1]);
        assert_eq!(daemon.ask("generation"), "1");
    });
}

#[test]
fn negative_numbers_are_values_and_no_options() {
    both(|program| {
        let names = [
            "interval",
            "kill-old-delay",
            "backlog",
            "auto-restart-interval",
        ];
        let apart = names
            .iter()
            .flat_map(|name| [format!("--{name}"), "-1".into()]);
        let joined = names.iter().map(|name| format!("--{name}=-1"));
        for options in [apart.collect::<Vec<_>>(), joined.collect()] {
            let daemon = Start::new(program)
                .files()
                .options(["--port=127.0.0.1:0"])
                .options(&options)
                .start();
            daemon.worker(1);
            daemon.wait_for_generations(&[1]);
            daemon.signal(Signal::SIGHUP);
            // No time is waited for, and the sockets listen.
            daemon.wait_for_answer_of(2);
        }
    });
}
