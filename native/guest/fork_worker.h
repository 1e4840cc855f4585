/* What a zygote's child does between clone and its first line of Python. See fork_worker.c for the
 * order.
 *
 * Everything here borrows: no fd is closed and no memory freed on behalf of the caller, except that
 * the child closes every fd above 3 when it has arranged its own. */
#ifndef FORKLIGHT_GUEST_FORK_WORKER_H
#define FORKLIGHT_GUEST_FORK_WORKER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    FG_MAX_ATTACH = 16,
    FG_MAX_TREES = 16,
    FG_MAX_RLIMITS = 16,
    FG_SETUP_FAILED_EXIT = 120,
    FG_FRAME_SETUP_FAILED = 22,
};

struct fg_tree {
    int fd;           /* detached mount */
    const char *path; /* where it goes, seen from inside the sandbox; "/" is a container image */
};

struct fg_rlimit {
    int resource;
    uint64_t value;
};

struct fg_plan {
    int channel; /* becomes fd 3 */
    int log;     /* becomes fd 1 and 2; -1 keeps the zygote's */
    int shell;   /* pidfd of the sandbox's pid 1; -1 without a sandbox */
    int join;    /* CLONE_NEW* bits of the shell's namespaces, CLONE_NEWPID included */
    int cgroup;  /* v2 directory for CLONE_INTO_CGROUP, or -1 */
    int legacy;  /* use clone(2): inside a sandbox seccomp answers ENOSYS to clone3 */
    int control; /* fd 3 is a zygote's control socket (a failure is one JSON datagram), not a
                    worker's channel */
    int attach[FG_MAX_ATTACH]; /* open v1 `tasks` or v2 `cgroup.procs` files; the child writes "0"
                                */
    size_t attach_count;
    struct fg_tree trees[FG_MAX_TREES];
    size_t tree_count;
    struct fg_rlimit rlimits[FG_MAX_RLIMITS];
    size_t rlimit_count;
    int drop;    /* give up capabilities, take no_new_privs, install seccomp */
    int set_ids; /* change to uid and gid */
    uid_t uid;
    gid_t gid;
    const char *workdir; /* NULL: stay */
    const void *seccomp; /* struct sock_filter[], or NULL */
    size_t seccomp_bytes;
};

/* Makes the child. Returns its pid in the zygote's pid namespace, 0 in the child, or -errno with
 * *step set. *pidfd is set in the parent and belongs to it. Call it between PyOS_BeforeFork and
 * PyOS_AfterFork_*. */
pid_t fg_clone(const struct fg_plan *plan, int *pidfd, const char **step);

/* To be called first in the child. On failure reports the step on the channel and does not return.
 */
void fg_become_worker(const struct fg_plan *plan);

/* Returns 0, or -errno with *step naming what failed. Part of fg_become_worker, in a file of its
 * own. */
int fg_drop_privileges(const struct fg_plan *plan, const char **step);

/* Makes a detached mount the root directory of the sandbox. Returns 0, or -errno with *detail
 * naming where it failed. */
int fg_enter_image(int image, const char **detail);

/* Installs a seccomp program with a listener, whose fd is the caller's, close-on-exec. Returns it
 * or -errno. */
int fg_watch_calls(const void *program, size_t bytes);

/* Makes pids of children come from the process's own namespace again. Returns 0 or -errno. */
int fg_leave_pid_namespace(void);

#endif
