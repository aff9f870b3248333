//! The pid file and the status file.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use nix::sys::signal::Signal;

use super::daemon::{Daemon, Program, Start, both, finish, stderr};
use crate::small_disk::SmallDisk;

#[test]
fn pid_file_has_the_id_and_a_lock_for_life() {
    both(|program| {
        let mut daemon = Daemon::serving(program);
        let pid = daemon.pid();
        assert_eq!(daemon.read("pid").unwrap(), format!("{pid}\n"));
        let path = daemon.path("pid");
        assert_eq!(
            graceful_listener::PidFile::holder(&path).unwrap(),
            Some(pid.cast_unsigned())
        );
        daemon.stop();
        assert!(!path.exists());
    });
}

#[test]
fn pid_and_status_file_can_be_read_by_everybody_as_the_mask_says() {
    both(|program| {
        let start = Start::new(program).files().options(["--interval=0"]);
        let mut mask = Command::new("sh");
        mask.args(["-c", "umask 022; exec \"$0\" \"$@\""]);
        let daemon = start.program(&["sleep", "635"]).start_by(mask);
        daemon.wait_for_generations(&[1]);
        for file in ["pid", "status"] {
            let mode = fs::metadata(daemon.path(file)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o644, "{file}");
        }
    });
}

#[test]
fn pid_file_left_by_a_killed_one_is_taken_over() {
    both(|program| {
        let mut first = Start::new(program)
            .files()
            .options(["--interval=0"])
            .shell("exec sleep 600")
            .start();
        first.wait("the status file", || first.read("status"));
        first.kill();
        let second = first
            .again(&[
                "--interval=0",
                "--pid-file=pid",
                "--status-file=status",
                "--port=127.0.0.1:0",
            ])
            .start();
        second.wait("its id", || {
            (second.read("pid")? == format!("{}\n", second.pid())).then_some(())
        });
    });
}

#[test]
fn pid_file_that_is_a_link_is_made_where_it_leads_each_time() {
    let mut start = Start::new(Program::Ours).options(["--pid-file=pid"]);
    let target = start.dir().join("run/app.pid");
    fs::create_dir(start.dir().join("run")).unwrap();
    symlink("run/app.pid", start.dir().join("pid")).unwrap();
    for _ in 0..2 {
        let mut daemon = start.program(&["sleep", "638"]).start();
        let pid = format!("{}\n", daemon.pid());
        daemon.wait("the pid file", || {
            let text = fs::read_to_string(&target).ok();
            text.filter(|text| *text == pid)
        });
        daemon.stop();
        assert!(!target.exists());
        assert!(daemon.path("pid").is_symlink());
        start = daemon.again(&["--pid-file=pid"]);
    }
}

#[test]
fn lock_of_a_process_that_has_not_written_its_id_is_told_as_such() {
    let start = Start::new(Program::Ours).file("pid", "");
    let file = fs::File::open(start.dir().join("pid")).unwrap();
    file.lock().unwrap();
    for request in ["--stop", "--status"] {
        let mut command = Command::new(Program::Ours.path());
        command.current_dir(start.dir());
        command.args([request, "--pid-file=pid"]);
        let output = finish(command);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert!(
            text.contains("pid is locked by a process that has not written"),
            "{text}"
        );
    }
}

#[test]
fn second_instance_leaves_the_pid_file_of_the_first_alone() {
    let daemon = Daemon::serving(Program::Ours);
    let before = daemon.read("pid").unwrap();
    let pid_file = format!("--pid-file={}", daemon.path("pid").display());
    let output = Start::new(Program::Ours).options([&pid_file]).run();
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains(&format!("is held by the running process {}", daemon.pid())),
        "{}",
        stderr(&output)
    );
    assert_eq!(daemon.read("pid").unwrap(), before);
    assert_eq!(daemon.ask("generation"), "1");
}

#[test]
fn status_file_is_sorted_by_number() {
    let daemon = Start::new(Program::Ours)
        .file("mode", "stay")
        .files()
        .options(["--interval=0", "--port=127.0.0.1:0"])
        .start();
    for generation in 2..=11 {
        daemon.worker(generation - 1);
        daemon.signal(Signal::SIGHUP);
    }
    daemon.wait_for_generations(&(1..=11).collect::<Vec<_>>());
}

#[test]
fn status_file_is_not_there_before_a_worker_serves() {
    both(|program| {
        let mut daemon = Start::new(program)
            .files()
            .options(["--interval=600", "--port=127.0.0.1:0"])
            .start();
        daemon.worker(1);
        assert!(!daemon.path("status").exists());
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait_for_exit().success());
        assert!(!daemon.path("status").exists());
    });
}

#[test]
fn status_file_of_another_is_not_removed_by_a_failed_start() {
    both(|program| {
        let start = Start::new(program)
            .options(["--status-file=status", "--port=192.0.2.1:0"])
            .file("status", "1:1\n");
        let path = start.dir().join("status");
        assert!(!finish(start.command()).status.success());
        assert_eq!(fs::read_to_string(path).unwrap(), "1:1\n");
    });
}

#[test]
fn status_file_that_was_not_written_is_not_removed() {
    let start = Start::new(Program::Ours)
        .options(["--status-file=status"])
        .program(&["./missing"])
        .file("status", "1:1\n");
    let path = start.dir().join("status");
    assert_eq!(finish(start.command()).status.code(), Some(2));
    assert_eq!(fs::read_to_string(path).unwrap(), "1:1\n");
}

#[test]
fn status_file_that_cannot_be_written_ends_the_first_start() {
    let output = Start::new(Program::Ours)
        .options(["--status-file=nowhere/status"])
        .run();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("nowhere/status: No such file or directory"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn status_file_that_is_a_directory_ends_the_first_start() {
    let start = Start::new(Program::Ours).options(["--status-file=place"]);
    fs::create_dir(start.dir().join("place")).unwrap();
    let output = start.run();
    assert!(!output.status.success());
    let text = stderr(&output);
    assert!(text.contains("place: is a directory"), "{text}");
}

#[test]
fn start_that_fails_leaves_nothing_of_its_files() {
    let start = Start::new(Program::Ours).files().program(&["./missing"]);
    let dir = start.dir().to_owned();
    assert!(!finish(start.command()).status.success());
    let left: Vec<_> = fs::read_dir(dir).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn status_file_is_not_written_through_a_link() {
    // Whoever owns the directory must not lead the super-daemon elsewhere.
    let start = Start::new(Program::Ours)
        .files()
        .options(["--interval=0"])
        .shell("exec sleep 600")
        .file("victim", "safe");
    let dir = start.dir().to_owned();
    let mut command = start.command();
    let script = "ln -s victim status.$$; exec \"$0\" \"$@\"";
    let mut wrapped = Command::new("sh");
    wrapped
        .args(["-c", script])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(&dir);
    wrapped.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    command = wrapped;
    let daemon = start.start_as(&mut command);
    daemon.wait_for_generations(&[1]);
    assert_eq!(daemon.read("victim").unwrap(), "safe");
}

#[test]
fn full_disk_stops_neither_the_start_of_a_generation_nor_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::over(dir.path()) else {
        return;
    };
    let status = dir.path().join("status");
    let mut daemon = Start::new(Program::Ours)
        .options([
            "--interval=0",
            "--port=127.0.0.1:0",
            &format!("--status-file={}", status.display()),
        ])
        .start();
    daemon.worker(1);
    daemon.wait("the status", || {
        fs::read_to_string(&status)
            .ok()
            .filter(|text| text.starts_with("1:"))
    });
    disk.fill();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_answer_of(2);
    daemon.wait_for_log("failed to write status file");
    disk.empty();
    // It is tried again, without anything else happening.
    daemon.wait("the status", || {
        fs::read_to_string(&status)
            .ok()
            .filter(|text| text.starts_with("2:"))
    });
    disk.fill();
    daemon.stop();
    assert!(!status.exists());
}

#[test]
fn full_disk_refuses_the_start_with_a_pid_file() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::over(dir.path()) else {
        return;
    };
    disk.fill();
    let pid_file = dir.path().join("pid");
    let output = Start::new(Program::Ours)
        .options([format!("--pid-file={}", pid_file.display())])
        .run();
    assert_eq!(output.status.code(), Some(28));
    assert!(stderr(&output).contains("pid file"), "{}", stderr(&output));
    assert!(!pid_file.exists());
}

#[test]
fn status_file_is_replaced_as_a_whole() {
    both(|program| {
        let daemon = Daemon::serving(program);
        let first = daemon.worker(1);
        let before = fs::File::open(daemon.path("status")).unwrap();
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_generations(&[2]);
        // Whoever had it open reads what it was.
        let text = std::io::read_to_string(before).unwrap();
        assert_eq!(text, format!("1:{first}\n"));
    });
}

#[test]
fn pid_file_is_there_before_the_first_worker() {
    both(|program| {
        let daemon = Start::new(program)
            .files()
            .options(["--interval=0"])
            .shell("echo \"told: $(cat pid)\"; exec sleep 627")
            .start();
        let pid = daemon.pid();
        let log = daemon.wait_for_log("told: ");
        assert!(log.contains(&format!("told: {pid}\n")), "{log}");
        let begin = format!("start_server (pid:{pid}) starting now...\n");
        assert!(log.contains(&begin), "{log}");
    });
}
