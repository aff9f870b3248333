use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use graceful_listener::{PidFile, PidFileError};
use nix::unistd::{Uid, geteuid, setuid};
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.pid");
    (directory, path)
}

/// Another process that holds a lock on the file until it is killed.
fn locked_by_another(path: &std::path::Path, pid: &str) -> process::Child {
    use std::io::{BufRead, BufReader};
    fs::write(path, pid).unwrap();
    let mut child = Command::new("flock")
        .arg("--no-fork")
        .arg(path)
        .args(["sh", "-c", "echo locked; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "locked\n");
    child
}

#[test]
fn contains_the_id_and_a_newline() {
    let (_directory, path) = place();
    let pid_file = PidFile::create(&path).unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("{}\n", process::id())
    );
    assert!(pid_file.is_current());
    assert_eq!(pid_file.path(), path.canonicalize().unwrap());
    // Everybody may read it, as far as the umask goes.
    let other = path.with_extension("other");
    let options = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&other);
    let expected = options.unwrap().metadata().unwrap().mode();
    assert_eq!(fs::metadata(&path).unwrap().mode(), expected);
}

#[test]
fn leaves_only_itself_in_the_directory() {
    let (directory, path) = place();
    let pid_file = PidFile::create(&path).unwrap();
    let second = PidFile::create(&path);
    assert!(second.is_err());
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    drop(pid_file);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn second_holder_is_refused_and_told_the_first_ones_id() {
    let (_directory, path) = place();
    let _pid_file = PidFile::create(&path).unwrap();
    let error = PidFile::create(&path).unwrap_err();
    let expected = format!(
        "pid file {} is held by the running process {}",
        path.display(),
        process::id()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("{}\n", process::id())
    );
}

#[test]
fn stale_file_is_told_by_its_lock_not_by_its_number() {
    let (_directory, path) = place();
    // This number is alive, but its process does not hold the file.
    fs::write(&path, "1\n").unwrap();
    assert_eq!(PidFile::holder(&path).unwrap(), None);
    let _pid_file = PidFile::create(&path).unwrap();
    assert_eq!(PidFile::holder(&path).unwrap(), Some(process::id()));
}

#[test]
fn locked_file_is_held_whatever_its_number() {
    let (_directory, path) = place();
    // No process has this id.
    let mut other = locked_by_another(&path, "4194304\n");
    assert_eq!(PidFile::holder(&path).unwrap(), Some(4_194_304));
    assert!(matches!(
        PidFile::create(&path),
        Err(PidFileError::Held {
            pid: Some(4_194_304),
            ..
        })
    ));
    other.kill().unwrap();
    other.wait().unwrap();
    let _pid_file = PidFile::create(&path).unwrap();
}

#[test]
fn locked_file_without_a_number_has_holder_zero() {
    let (_directory, path) = place();
    let mut other = locked_by_another(&path, "");
    assert_eq!(PidFile::holder(&path).unwrap(), Some(0));
    let error = PidFile::create(&path).unwrap_err();
    assert!(
        error.to_string().ends_with("is held by a running process"),
        "{error}"
    );
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn missing_file_has_no_holder() {
    let (_directory, path) = place();
    assert_eq!(PidFile::holder(&path).unwrap(), None);
    assert!(!path.exists());
}

#[test]
fn is_taken_over_only_from_the_process_that_is_named() {
    let (_directory, path) = place();
    let mut other = locked_by_another(&path, "4194304\n");
    assert!(matches!(
        PidFile::take_over(&path, 4_194_303),
        Err(PidFileError::Held { .. })
    ));
    let pid_file = PidFile::take_over(&path, 4_194_304).unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("{}\n", process::id())
    );
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(matches!(
        PidFile::create(&path),
        Err(PidFileError::Held { .. })
    ));
    assert!(pid_file.is_current());
}

#[test]
fn successors_file_is_not_removed() {
    let (_directory, path) = place();
    let ours = PidFile::create(&path).unwrap();
    let successor = PidFile::take_over(&path, process::id()).unwrap();
    assert!(!ours.is_current());
    drop(ours);
    assert!(path.exists());
    drop(successor);
    assert!(!path.exists());
}

#[test]
fn what_is_no_regular_file_is_left_alone() {
    let (directory, _) = place();
    let fifo = directory.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let error = PidFile::create(&fifo).unwrap_err();
    assert!(matches!(error, PidFileError::NotAFile { .. }), "{error}");
    assert!(fs::symlink_metadata(&fifo).is_ok());
    assert_eq!(PidFile::holder(&fifo).unwrap(), None, "nor waited for");
    assert!(PidFile::create(directory.path()).is_err());
}

#[test]
fn missing_directory_is_named() {
    let (directory, _) = place();
    let error = PidFile::create(directory.path().join("absent/app.pid")).unwrap_err();
    assert!(error.to_string().contains("absent/app.pid"), "{error}");
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("No such file")
    );
}

#[test]
fn symbolic_link_stays_and_its_target_is_written() {
    let (directory, path) = place();
    let link = directory.path().join("link.pid");
    fs::write(&path, "1\n").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let _pid_file = PidFile::create(&link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("{}\n", process::id())
    );
}

#[test]
fn dangling_link_ends_with_an_error() {
    let (directory, path) = place();
    std::os::unix::fs::symlink(directory.path().join("nowhere"), &path).unwrap();
    assert!(PidFile::create(&path).is_err());
}

#[test]
fn full_disk_leaves_the_old_file_as_it_was() {
    let (_directory, path) = place();
    fs::write(&path, "1\n").unwrap();
    // A limit of no bytes stands for the full disk: both fail the write.
    let script = format!(
        "trap '' XFSZ; ulimit -f 0; exec {} --exact pid_file::child_creates_a_pid_file --nocapture",
        std::env::current_exe().unwrap().display()
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("CHILD_PID_FILE", &path)
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    assert_eq!(
        fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "the draft stayed behind"
    );
}

#[test]
fn child_creates_a_pid_file() {
    if let Some(path) = std::env::var_os("CHILD_PID_FILE") {
        PidFile::create(path).unwrap();
    }
}

#[test]
fn draft_of_a_process_that_was_killed_is_replaced() {
    let (directory, path) = place();
    // A process that gets the id of a dead one finds a draft of this name.
    let script = format!(
        "echo left > \"$CHILD_PID_FILE.$$.0\"; exec {} --exact pid_file::child_creates_a_pid_file",
        std::env::current_exe().unwrap().display()
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .env("CHILD_PID_FILE", &path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn child_may_not_remove_its_pid_file() {
    let Some(path) = std::env::var_os("CHILD_PID_FILE_TO_STAY").map(PathBuf::from) else {
        return;
    };
    let pid_file = PidFile::create(&path).unwrap();
    let read_only = fs::Permissions::from_mode(0o555);
    fs::set_permissions(path.parent().unwrap(), read_only).unwrap();
    if geteuid().is_root() {
        setuid(Uid::from_raw(65534)).unwrap();
    }
    drop(pid_file);
}

#[test]
fn file_that_may_not_be_removed_is_emptied() {
    let (directory, path) = place();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pid_file::child_may_not_remove_its_pid_file"])
        .env("CHILD_PID_FILE_TO_STAY", &path)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn killed_holder_leaves_a_file_that_the_next_takes() {
    let (_directory, path) = place();
    let mut other = locked_by_another(&path, "1\n");
    assert!(PidFile::create(&path).is_err());
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(path.exists());
    assert!(PidFile::create(&path).is_ok());
}

#[test]
fn one_of_many_at_once_holds_it_and_no_reader_sees_half() {
    let (directory, path) = place();
    for _ in 0..20 {
        fs::write(&path, "1\n").unwrap();
        let barrier = Barrier::new(8);
        let results: Vec<_> = thread::scope(|scope| {
            let starters: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let result = PidFile::create(&path);
                        let text = fs::read_to_string(&path).unwrap();
                        assert!(text.ends_with('\n') && text.len() > 1, "{text:?}");
                        result
                    })
                })
                .collect();
            starters
                .into_iter()
                .map(|starter| starter.join().unwrap())
                .collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        drop(results);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }
}

#[test]
fn asking_for_the_holder_never_makes_one() {
    let (_directory, path) = place();
    fs::write(&path, "1\n").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = PidFile::holder(&path);
            }
        });
        let failures = (0..50).filter(|_| PidFile::create(&path).is_err()).count();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(failures, 0);
    });
}

#[test]
fn who_asks_for_a_long_time_is_not_taken_for_the_holder() {
    let (_directory, path) = place();
    fs::write(&path, "1\n").unwrap();
    let asks = fs::File::open(&path).unwrap();
    asks.lock_shared().unwrap();
    thread::scope(|scope| {
        let creates = scope.spawn(|| PidFile::create(&path));
        thread::sleep(Duration::from_millis(300));
        asks.unlock().unwrap();
        assert!(creates.join().unwrap().is_ok());
    });
}

#[test]
fn inherited_descriptor_goes_on_holding_the_file() {
    let (_directory, path) = place();
    let first = PidFile::create(&path).unwrap();
    let fd = first.as_fd().try_clone_to_owned().unwrap();
    let second = PidFile::from_inherited(&path, fd).unwrap();
    std::mem::forget(first);
    assert!(PidFile::create(&path).is_err());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn inherited_descriptor_of_another_file_is_refused() {
    let (directory, path) = place();
    let _pid_file = PidFile::create(&path).unwrap();
    let stranger = fs::File::create(directory.path().join("other")).unwrap();
    assert!(matches!(
        PidFile::from_inherited(&path, stranger.into()),
        Err(PidFileError::Changed { .. })
    ));
    let unlocked = fs::File::open(&path).unwrap();
    assert!(matches!(
        PidFile::from_inherited(&path, unlocked.into()),
        Err(PidFileError::Held { .. })
    ));
    assert!(path.exists());
}
