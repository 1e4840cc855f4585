#include "init.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "system.h"

static int enter_namespaces(const struct plan *plan, struct sb_error *err)
{
    int namespaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

    if (!plan->host_network)
        namespaces |= CLONE_NEWNET;
    /* Here rather than at the clone: a network namespace alone takes 0.2 ms, which the supervisor
     * would wait for, and the cgroup namespace gets its root from the cgroup this process is
     * already in. */
    if (unshare(namespaces) < 0)
        return sb_fail_errno(err, SB_STEP_NAMESPACES, NULL);
    if (setsid() < 0 &&
        errno != EPERM) /* EPERM: already a leader, as the first process of a namespace may be */
        return sb_fail_errno(err, SB_STEP_SESSION, NULL);
    if (sethostname(plan->hostname, strlen(plan->hostname)) < 0)
        return sb_fail_errno(err, SB_STEP_HOSTNAME, plan->hostname);
    if (plan->host_network)
        return 0;
    if (sb_bring_up_loopback(err) < 0)
        return -err->code;
    return plan->egress.router_fd < 0 ? 0 : sb_connect_to_router(plan, err);
}

/* The parent-death signal was cleared while the ids changed; if the supervisor died just then, its
 * end of the status pipe is gone. */
static int find_supervisor_alive(int status_fd, struct sb_error *err)
{
    struct pollfd status = {.fd = status_fd};

    if (RETRY_EINTR(poll(&status, 1, 0)) < 0 || (status.revents & (POLLERR | POLLNVAL)))
        return sb_fail(err, SB_STEP_PARENT_GONE, ESRCH, NULL);
    return 0;
}

static int make_sandbox(int argc, char *const *argv, struct plan *plan, struct sb_error *err)
{
    static struct entry entries[MAX_ENTRIES];
    int result = sb_read_plan(argc, argv, plan, entries, err);

    umask(0);
    if (result == 0)
        result = enter_namespaces(plan, err);
    if (result == 0)
        result = sb_build_root(plan, err);
    if (result == 0)
        result = sb_drop_privileges(plan, err);
    if (result == 0)
        result = find_supervisor_alive(plan->status_fd, err);
    return result;
}

/* The only duty left: children that lost their parent become ours, and dead ones must not pile up.
 */
__attribute__((noreturn)) static void reap_for_ever(void)
{
    sigset_t children;

    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_SETMASK, &children, NULL);
    for (;;) {
        sigwaitinfo(&children, NULL);
        while (waitpid(-1, NULL, WNOHANG | __WALL) > 0)
            ;
    }
}

int main(int argc, char **argv)
{
    struct sb_error err = {0};
    struct plan plan;
    int result = make_sandbox(argc, argv, &plan, &err);

    if (plan.status_fd < 0)
        return 125;
    if (RETRY_EINTR(write(plan.status_fd, &err, sizeof(err))) != (long)sizeof(err) || result < 0)
        return 125;
    if (sys_close_range(0, ~0U, 0) < 0)
        return 125;
    reap_for_ever();
}
