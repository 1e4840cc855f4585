/*
 * Starting a program as posix_spawn does, plus what posix_spawn lacks: namespaces, birth inside a
 * cgroup, a pidfd, a parent-death signal.
 *
 * The child borrows the caller's memory (CLONE_VM) while the caller's thread sleeps (CLONE_VFORK):
 * no page table is copied, so the time does not grow with the supervisor, and an error is simply
 * left in the caller's struct. In exchange the child may do nothing but system calls until exec.
 */
#include "internal.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "arch.h"
#include "system.h"

#define MAX_DESCRIPTORS 16

/* Enough for a handful of small frames. */
#define CHILD_STACK_SIZE (32 * 1024)

/* The child never returns from its frames, so AddressSanitizer would find its marks on the parent's
 * stack. */
#define ON_BORROWED_STACK __attribute__((no_sanitize_address))

/* Shared with the parent, which sleeps: the child's only way to report. */
struct child {
    const struct sb_spawn_request *request;
    struct sb_error error;
    pid_t parent;
};

ON_BORROWED_STACK static int reset_signals(struct sb_error *err)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;

    /* CLONE_CLEAR_SIGHAND has reset handlers, but CPython ignores some signals and exec would keep
     * that. */
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &standard,
                  NULL); /* SIGKILL, SIGSTOP and libc's own refuse: as they should */
    sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
        return sb_fail_errno(err, SB_STEP_SIGNALS, NULL);
    return 0;
}

/* A new, empty one: the keys of whoever started us are no function's. Workers cannot ask for keys
 * (seccomp), but the kernel looks in their keyring on its own, for some file systems. */
ON_BORROWED_STACK static int leave_keyring(struct sb_error *err)
{
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS &&
        errno != EPERM) /* no keys in this kernel, or somebody else's filter keeps us from them */
        return sb_fail_errno(err, SB_STEP_KEYRING, NULL);
    return 0;
}

ON_BORROWED_STACK static int join_cgroups(const struct sb_spawn_request *request,
                                          struct sb_error *err)
{
    /* `tasks`, never cgroup.procs: that one waits for an RCU grace period, several milliseconds. */
    for (size_t i = 0; i < request->tasks_count; i++)
        if (RETRY_EINTR(write(request->tasks[i], "0", 1)) != 1)
            return sb_fail_errno(err, SB_STEP_JOIN_CGROUP, "tasks");
    return 0;
}

ON_BORROWED_STACK static int die_with_parent(pid_t parent, struct sb_error *err)
{
    pid_t now;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return sb_fail_errno(err, SB_STEP_PARENT_DEATH_SIGNAL, NULL);
    /* The parent may have been killed before the line above. In a new pid namespace it is always 0:
     * forklight-init looks at its status pipe instead. */
    now = getppid();
    if (now != 0 && now != parent)
        return sb_fail(err, SB_STEP_PARENT_GONE, ESRCH, NULL);
    return 0;
}

ON_BORROWED_STACK static int arrange_descriptors(const struct sb_spawn_request *request,
                                                 struct sb_error *err)
{
    int count = (int)request->descriptor_count;
    int moved[MAX_DESCRIPTORS];

    /* First out of the way of the targets, so that no target overwrites a source. */
    for (int i = 0; i < count; i++) {
        moved[i] = fcntl(request->descriptors[i], F_DUPFD_CLOEXEC, count);
        if (moved[i] < 0)
            return sb_fail_errno(err, SB_STEP_DESCRIPTORS, "F_DUPFD_CLOEXEC");
    }
    for (int i = 0; i < count; i++)
        if (dup2(moved[i], i) < 0)
            return sb_fail_errno(err, SB_STEP_DESCRIPTORS, "dup2");
    if (sys_close_range((unsigned)count, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        return sb_fail_errno(err, SB_STEP_DESCRIPTORS, "close_range");
    return 0;
}

ON_BORROWED_STACK __attribute__((noreturn)) static void run_child(void *argument)
{
    struct child *child = argument;
    const struct sb_spawn_request *request = child->request;
    char *const no_environment[] = {NULL};
    struct sb_error *err = &child->error;

    if (join_cgroups(request, err) == 0 && reset_signals(err) == 0 && leave_keyring(err) == 0 &&
        (!request->die_with_parent || die_with_parent(child->parent, err) == 0) &&
        arrange_descriptors(request, err) == 0) {
        execve(request->program, request->arguments, no_environment);
        sb_fail_errno(err, SB_STEP_EXEC, request->program);
    }
    _exit(127);
}

ON_BORROWED_STACK static int start_child(struct child *child, int *pidfd)
{
    /* On this thread's own stack: CLONE_VFORK keeps the frame alive for as long as the child needs
     * it. */
    _Alignas(16) char stack[CHILD_STACK_SIZE];
    const struct sb_spawn_request *request = child->request;
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND | request->namespaces,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)stack,
        .stack_size = sizeof(stack),
    };
    sigset_t all, before;
    long pid;

    if (request->cgroup >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)request->cgroup;
    }
    /* No handler of ours may run in the child: it would run on our memory. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = sb_clone3_entry(&args, run_child, child);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return (int)pid;
}

int sb_spawn(const struct sb_spawn_request *request, struct sb_error *err)
{
    struct child child = {.request = request, .parent = getpid()};
    cleanup_fd int pidfd = -1;
    siginfo_t info;
    int result;

    if (request->descriptor_count > MAX_DESCRIPTORS)
        return sb_fail(err, SB_STEP_PLAN, EINVAL, "too many descriptors");
    result = start_child(&child, &pidfd);
    if (result < 0)
        return sb_fail(err, SB_STEP_CLONE, -result, NULL);
    if (child.error.code == 0)
        return steal_fd(&pidfd);
    RETRY_EINTR(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED));
    *err = child.error;
    return -err->code;
}
