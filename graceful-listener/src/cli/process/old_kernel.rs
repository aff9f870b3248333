#![expect(unsafe_code, reason = "a filter of system calls")]

use std::thread;

use nix::libc;

use super::{PIDFD_SIGNAL_PROCESS_GROUP, check};

/// Does something as on a kernel before 6.9, where a pidfd signals no group.
pub(super) fn as_before_6_9(act: impl FnOnce() + Send) {
    let in_thread = || {
        forbid();
        act();
    };
    thread::scope(|scope| scope.spawn(in_thread).join()).unwrap();
}

/// Filters the system calls of this thread.
fn forbid() {
    let statement = |code: u32, k: u32, (jt, jf)| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, (0, 0));
    let unless = |k, steps| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, (0, steps));
    let end = |value| statement(libc::BPF_RET | libc::BPF_K, value, (0, 0));
    let call = u32::try_from(libc::SYS_pidfd_send_signal).unwrap();
    let mut steps = [
        load(NUMBER),
        unless(call, 3),
        load(FLAGS),
        unless(PIDFD_SIGNAL_PROCESS_GROUP, 1),
        end(libc::SECCOMP_RET_ERRNO | libc::EINVAL.cast_unsigned()),
        end(libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: u16::try_from(steps.len()).unwrap(),
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: numbers, and a filter that outlives the call; it is this thread's alone.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)).unwrap();
        let mode = libc::SECCOMP_MODE_FILTER;
        check(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter)).unwrap();
    }
}

/// Where the number of the call stands in what the filter sees; see `seccomp(2)`.
const NUMBER: u32 = 0;
/// Where the first half of the fourth argument stands.
const FLAGS: u32 = if cfg!(target_endian = "little") {
    40
} else {
    44
};
