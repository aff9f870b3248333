// Runs a program as a kernel before 6.9 would: a pidfd signals no group, and tells
// nothing of its process.

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define UNLESS(value, steps) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, steps)
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)

int main(int count, char **arguments) {
    struct sock_filter steps[] = {
        LOAD(nr),
        UNLESS(SYS_pidfd_send_signal, 3),
        LOAD(args[3]),
        UNLESS(4 /* PIDFD_SIGNAL_PROCESS_GROUP */, 6),
        RETURN(SECCOMP_RET_ERRNO | EINVAL),
        UNLESS(SYS_ioctl, 4),
        LOAD(args[1]),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00),
        UNLESS(0xff00 /* what all requests to pidfds have */, 1),
        RETURN(SECCOMP_RET_ERRNO | ENOTTY),
        RETURN(SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof steps / sizeof *steps, steps};
    if (count < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 99;
    execv(arguments[1], arguments + 1);
    return 98;
}
