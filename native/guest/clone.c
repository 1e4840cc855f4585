/* The clone itself: raw, because glibc's fork() can neither make a sibling (CLONE_PARENT) nor place
 * the child in a cgroup.
 *
 * A raw clone skips what glibc does for fork() in the child. A zygote has one thread, so no lock
 * can be held by another; what is left is the thread id that glibc caches and the list of robust
 * mutexes, and both are put right here. */
#include "fork_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_GET_TID_ADDRESS
#define PR_GET_TID_ADDRESS 40
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif

/* Layout of the kernel's struct clone_args up to `cgroup` (CLONE_ARGS_SIZE_VER2); older headers
 * lack its tail. */
struct clone3_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        set_tid_size, cgroup;
} __attribute__((aligned(8)));

static int foreign_pid_namespace;

int fg_leave_pid_namespace(void)
{
    if (!foreign_pid_namespace)
        return 0;
    int fd = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int failed = setns(fd, CLONE_NEWPID) != 0 ? -errno : 0;
    close(fd);
    if (!failed)
        foreign_pid_namespace = 0;
    return failed;
}

/* Where glibc keeps this thread's id, or NULL when the kernel does not tell or the guess does not
 * hold. */
static int *cached_thread_id(void)
{
    int *address = NULL;
    if (prctl(PR_GET_TID_ADDRESS, &address, 0, 0, 0) != 0 || address == NULL)
        return NULL;
    return *address == (int)syscall(SYS_gettid) ? address : NULL;
}

static long clone_legacy(unsigned long flags, int *pidfd, int *tid)
{
#if defined(__x86_64__)
    return syscall(SYS_clone, flags | SIGCHLD, 0, pidfd, tid, 0);
#elif defined(__aarch64__)
    return syscall(SYS_clone, flags | SIGCHLD, 0, pidfd, 0, tid);
#else
#error "order of the arguments of clone(2) is not known for this architecture"
#endif
}

pid_t fg_clone(const struct fg_plan *plan, int *pidfd, const char **step)
{
    *pidfd = -1;
    if (plan->shell >= 0 && (plan->join & CLONE_NEWPID)) {
        *step = "setns_pid";
        if (setns(plan->shell, CLONE_NEWPID) != 0)
            return -errno;
        foreign_pid_namespace = 1;
    } else {
        *step = "leave_pid_namespace";
        int failed = fg_leave_pid_namespace();
        if (failed)
            return failed;
    }
    void *robust_list = NULL;
    size_t robust_size = 0;
    if (syscall(SYS_get_robust_list, 0, &robust_list, &robust_size) != 0)
        robust_list = NULL;
    int *tid = cached_thread_id();
    uint64_t flags = CLONE_PARENT | CLONE_PIDFD;
    if (tid)
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;

    long pid;
    if (plan->legacy) {
        *step = "clone";
        pid = clone_legacy((unsigned long)flags, pidfd, tid);
    } else {
        *step = "clone3";
        /* exit_signal must be 0 with CLONE_PARENT: the child inherits the zygote's. */
        struct clone3_args args = {
            .flags = flags,
            .pidfd = (uint64_t)(uintptr_t)pidfd,
            .child_tid = (uint64_t)(uintptr_t)tid,
        };
        if (plan->cgroup >= 0) {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = (uint64_t)plan->cgroup;
        }
        pid = syscall(SYS_clone3, &args, sizeof args);
    }
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        foreign_pid_namespace = 0; /* where we are born is where our children will be */
        if (robust_list)
            syscall(SYS_set_robust_list, robust_list, robust_size);
    }
    return (pid_t)pid;
}
