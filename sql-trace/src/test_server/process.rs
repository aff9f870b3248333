#![expect(
    unsafe_code,
    reason = "the kernel's death signal must be asked for between fork and exec"
)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Runs a program that is sent `death` when this process ends, however it
/// ends.
///
/// The kernel sends the signal when the *thread* ends that forked. Tests run in
/// threads that end with them, while their server may be kept in a static, so
/// the forking is left to a thread that lasts as long as the process.
pub(super) fn spawn(command: Command, death: Signal) -> io::Result<Child> {
    static PARENT: OnceLock<Sender<Birth>> = OnceLock::new();

    let parent = PARENT.get_or_init(|| {
        let (sender, births) = channel::<Birth>();
        // Without the thread the channel is closed, which `send` reports.
        let _ = std::thread::Builder::new()
            .name("test-servers".to_owned())
            .spawn(move || {
                for birth in births {
                    let child = fork(birth.command, birth.death);
                    let _ = birth.child.send(child);
                }
            });
        sender
    });
    let (sender, child) = channel();
    let birth = Birth {
        command,
        death,
        child: sender,
    };
    let gone = || io::Error::other("the thread that starts servers is gone");
    parent.send(birth).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

struct Birth {
    command: Command,
    death: Signal,
    child: Sender<io::Result<Child>>,
}

fn fork(mut command: Command, death: Signal) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    let ask_for_death = move || {
        set_parent_process_death_signal(Some(death))?;
        // The parent may have died before it was asked for.
        if getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(
                rustix::io::Errno::SRCH.raw_os_error(),
            ))
        }
    };
    // SAFETY: `ask_for_death` makes two system calls and touches no memory but
    // its own copies, so it may run between fork and exec in a process that
    // had other threads. It runs after the change of user, which would undo
    // the setting.
    unsafe { command.pre_exec(ask_for_death) };
    command.process_group(0).spawn()
}
