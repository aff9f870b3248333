#![expect(
    unsafe_code,
    reason = "descriptors that come by number: from the parent, from the command line, across exec"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;

/// Takes over an open descriptor that was inherited, and makes it close-on-exec.
///
/// Each number may be taken only once, and only by whoever was told about it:
/// nobody else in this process knows that it is there.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks whether the number is open, and touches nothing.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the caller is told that it is the only one to ask.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// Makes everything close-on-exec that whoever started this process has left open,
/// but for the standard streams.
#[cfg(feature = "cli")]
pub(crate) fn seal() -> io::Result<()> {
    // SAFETY: a system call on numbers; no descriptor is closed by it.
    let sealed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if sealed == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Occupies a number, so that no other descriptor of this process gets it.
///
/// Call it before anything is opened: whatever has the number is closed.
pub(crate) fn reserve(number: RawFd) -> io::Result<OwnedFd> {
    let null = File::open("/dev/null")?;
    place(null.into(), number)
}

/// Gives a descriptor this number; one that has it is closed by that.
pub(crate) fn place(fd: OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() == number {
        return Ok(fd);
    }
    // SAFETY: the caller owns the number, or knows that nobody does.
    unsafe {
        if libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Makes `target` (0, 1 or 2) another name of `fd`, and leaves both open in the
/// programs this one executes.
pub(crate) fn redirect(fd: &impl AsRawFd, target: RawFd) -> io::Result<()> {
    // SAFETY: the standard streams are open for as long as the process runs, and
    // replacing what they lead to is what is asked for.
    if unsafe { libc::dup2(fd.as_raw_fd(), target) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
