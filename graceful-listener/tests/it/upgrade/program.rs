//! What is started, and how it is found.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::sys::signal::Signal;

use super::generation_at;
use crate::executable;
use crate::process::{command_line, link};
use crate::service::{Service, send, set};

#[test]
fn arguments_directory_and_name_are_kept() {
    // Where the process is by then does not matter, nor do names that mean something else.
    for pwd in ["/", "."] {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let mut command = Service::command();
        let service = Service::start(
            command
                .env(set::SPECS, "127.0.0.1:0")
                .env(set::DIRECTORY, "/")
                .env("PWD", pwd)
                .current_dir(&directory),
        );
        service.wait_for("serving address");
        let expected = command_line(service.pid());
        service.signal(Signal::SIGUSR2);
        let new = service.wait_for("generation 2 is at ");
        assert_eq!(new, format!("generation 2 is at {}", directory.display()));
        let new = service.generation(2).pid;
        assert_eq!(command_line(new), expected);
    }
}

#[test]
fn program_that_cannot_be_started_leaves_the_old_one_serving() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    executable::copy(&std::env::current_exe().unwrap(), &program);
    let mut service = Service::start(Service::as_program(&program).env(set::SPECS, "127.0.0.1:0"));
    service.wait_for("serving address");
    let away = directory.path().join("away");
    fs::rename(&program, &away).unwrap();
    service.signal(Signal::SIGUSR2);
    let refused = format!(
        "not upgraded, serving on: cannot start {}: ",
        program.display()
    );
    service.wait_for(&format!("{refused}No such file"));
    fs::write(&program, "not a program").unwrap();
    service.signal(Signal::SIGUSR2);
    service.wait_for(&format!("{refused}Permission denied"));
    assert_eq!(generation_at(service.address()), "1");
    fs::remove_file(&program).unwrap();
    fs::rename(&away, &program).unwrap();
    service.signal(Signal::SIGUSR2);
    service.wait_for("has taken over");
    assert!(service.wait().success());
    assert_eq!(generation_at(service.address()), "2");
}

#[test]
fn switched_link_and_replaced_file_take_effect() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().canonicalize().unwrap();
    let release = |name: &str| {
        let release = directory.join(name);
        fs::create_dir(&release).unwrap();
        executable::copy(&std::env::current_exe().unwrap(), &release.join("program"));
        release
    };
    let (first, second) = (release("1"), release("2"));
    let current = directory.join("current");
    symlink(&first, &current).unwrap();
    // By a relative path, from a directory that is itself behind the link.
    let mut command = Service::as_program(Path::new("./program"));
    let service = Service::start(
        command
            .env(set::SPECS, "127.0.0.1:0")
            .current_dir(&current)
            .env("PWD", &current),
    );
    service.wait_for("serving address");
    assert_eq!(link(service.pid(), "exe"), first.join("program"));
    let new_link = directory.join("new");
    symlink(&second, &new_link).unwrap();
    fs::rename(&new_link, &current).unwrap();
    fs::remove_dir_all(&first).unwrap();
    service.signal(Signal::SIGUSR2);
    let new = service.generation(2).pid;
    assert_eq!(link(new, "exe"), second.join("program"));
    assert_eq!(link(new, "cwd"), second);
    service.wait_for("has taken over");
    // Replaced as a deploy replaces it: a new file under the old name.
    let file = directory.join("file");
    executable::copy(&std::env::current_exe().unwrap(), &file);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let expected = inode(&file);
    fs::rename(&file, second.join("program")).unwrap();
    send(new, Signal::SIGUSR2);
    let third = service.generation(3).pid;
    assert_eq!(inode(Path::new(&format!("/proc/{third}/exe"))), expected);
}

#[test]
fn program_is_found_again_in_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("graceful-listener-test-{}", std::process::id());
    let program = directory.path().join(&name);
    executable::copy(&std::env::current_exe().unwrap(), &program);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = std::env::join_paths(
        [&first, &second, &directory]
            .map(|directory| directory.path().to_owned())
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut command = Service::as_program(Path::new(&name));
    let service = Service::start(
        command
            .env(set::SPECS, "127.0.0.1:0")
            .env("PATH", path.unwrap()),
    );
    service.wait_for("serving address");
    let expected = command_line(service.pid());
    // No program, whatever its name, and nor is a directory.
    fs::write(first.path().join(&name), "data").unwrap();
    fs::create_dir(second.path().join(&name)).unwrap();
    service.signal(Signal::SIGUSR2);
    let new = service.generation(2).pid;
    assert_eq!(
        link(new, "exe"),
        directory.path().canonicalize().unwrap().join(&name)
    );
    assert_eq!(command_line(new), expected);
    service.wait_for("has taken over");
    fs::remove_file(&program).unwrap();
    send(new, Signal::SIGUSR2);
    service.wait_for(&format!("cannot start {name}: it is not in the PATH"));
}

#[test]
fn program_whose_name_was_made_up_is_the_file_that_runs() {
    let mut command = Service::command();
    let mut service = Service::start(command.env(set::SPECS, "127.0.0.1:0").arg0("-made-up"));
    service.wait_for("serving address");
    service.signal(Signal::SIGUSR2);
    let new = service.generation(2).pid;
    assert_eq!(link(new, "exe"), std::env::current_exe().unwrap());
    assert!(service.wait().success());
    assert_eq!(generation_at(service.address()), "2");
}
