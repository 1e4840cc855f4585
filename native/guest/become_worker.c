/* From a bare copy of the zygote to a process inside its sandbox.
 *
 * The order matters. Resources are joined while we may (cgroups, namespaces, mounts), then our own
 * fds are arranged and everything else closed, then limits, and only then privileges are given up,
 * so that nothing after that point could have needed them. Any failure ends the child: a worker
 * that is only partly confined is never used. */
#include "fork_worker.h"
#include "frame.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 0x00000004
#endif

static void __attribute__((noreturn)) fail(int fd, int control, const char *step, int error,
                                           const char *detail)
{
    char body[512];
    int length = snprintf(body, sizeof body, "{%s\"step\":\"%s\",\"errno\":%d,\"detail\":\"%s\"}",
                          control ? "\"op\":\"failed\",\"id\":0," : "", step, error, detail);
    if (length >= (int)sizeof body)
        length = (int)sizeof body - 1;
    struct frame_header header = {.length = (uint32_t)length, .kind = FG_FRAME_SETUP_FAILED};
    struct iovec parts[2] = {{&header, sizeof header}, {body, (size_t)length}};
    ssize_t written = control ? write(fd, body, (size_t)length) : writev(fd, parts, 2);
    (void)written; /* nobody left to tell */
    _exit(FG_SETUP_FAILED_EXIT);
}

static int attach_to_cgroups(const struct fg_plan *plan)
{
    for (size_t i = 0; i < plan->attach_count; i++)
        if (write(plan->attach[i], "0", 1) != 1)
            return -errno;
    return 0;
}

static int attach(const struct fg_tree *tree, const char **place)
{
    if (strcmp(tree->path, "/") == 0)
        return fg_enter_image(tree->fd, place);
    return syscall(SYS_move_mount, tree->fd, "", AT_FDCWD, tree->path, MOVE_MOUNT_F_EMPTY_PATH)
               ? -errno
               : 0;
}

static int enter_workdir(const char *path)
{
    if (chdir(path) != 0)
        return -errno;
    /* A directory outside our root (a leaked fd, CVE-2024-21626) shows itself by this prefix. */
    char cwd[256];
    long length = syscall(SYS_getcwd, cwd, sizeof cwd);
    if (length < 0)
        return -errno;
    return cwd[0] == '/' ? 0 : -EXDEV;
}

static int arrange_fds(const struct fg_plan *plan)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return -errno;
    if (dup2(null, 0) < 0)
        return -errno;
    if (plan->log >= 0 && (dup2(plan->log, 1) < 0 || dup2(plan->log, 2) < 0))
        return -errno;
    if (plan->channel != 3) {
        /* CLOEXEC: a program started by the function has no business on the channel. */
        if (dup3(plan->channel, 3, O_CLOEXEC) < 0)
            return -errno;
    } else if (fcntl(3, F_SETFD, FD_CLOEXEC) != 0) {
        return -errno;
    }
    return syscall(SYS_close_range, 4U, ~0U, 0U) != 0 ? -errno : 0;
}

static int limit_resources(const struct fg_plan *plan)
{
    for (size_t i = 0; i < plan->rlimit_count; i++) {
        struct rlimit limit;
        if (getrlimit((__rlimit_resource_t)plan->rlimits[i].resource, &limit) != 0)
            return -errno;
        /* Raising a hard limit needs CAP_SYS_RESOURCE, which not every host grants; a lower one is
         * as safe. */
        if (plan->rlimits[i].value < limit.rlim_max)
            limit.rlim_max = plan->rlimits[i].value;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit((__rlimit_resource_t)plan->rlimits[i].resource, &limit) != 0)
            return -errno;
    }
    return 0;
}

void fg_become_worker(const struct fg_plan *plan)
{
    int fd = plan->channel;
    int failed;
#define STEP(name, call, detail)                                                                   \
    do {                                                                                           \
        if ((failed = (call)) < 0)                                                                 \
            fail(fd, plan->control, name, -failed, detail);                                        \
    } while (0)

    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    STEP("attach_cgroup", attach_to_cgroups(plan), "");
    int namespaces = plan->join & ~CLONE_NEWPID;
    if (plan->shell >= 0 && namespaces)
        STEP("setns", setns(plan->shell, namespaces) ? -errno : 0, "");
    for (size_t i = 0; i < plan->tree_count; i++) {
        const char *place = plan->trees[i].path;
        STEP("move_mount", attach(&plan->trees[i], &place), place);
    }
    /* A snapshot's worker on a host without cgroups: its orphans become its own children, and those
     * of the sandbox's first process only with its death, when the supervisor ends them all. */
    if (plan->legacy && plan->attach_count == 0)
        STEP("subreaper", prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) ? -errno : 0, "");
    STEP("setsid", setsid() < 0 ? -errno : 0, "");
    if (plan->workdir)
        STEP("chdir", enter_workdir(plan->workdir), plan->workdir);
    STEP("fds", arrange_fds(plan), "");
    fd = 3;
    STEP("rlimits", limit_resources(plan), "");
    const char *step = "drop";
    failed = fg_drop_privileges(plan, &step);
    if (failed < 0)
        fail(fd, plan->control, step, -failed, "");
#undef STEP
}
