/* Giving up, for good, what the zygote could do; then checking that it is gone. */
#include "fork_worker.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

/* Linux 5.0; older headers lack it. */
#ifndef SECCOMP_FILTER_FLAG_NEW_LISTENER
#define SECCOMP_FILTER_FLAG_NEW_LISTENER (1UL << 3)
#endif
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CAPABILITY_WORDS = 2 };

static int read_capabilities(struct __user_cap_data_struct data[CAPABILITY_WORDS])
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    return syscall(SYS_capget, &header, data) != 0 ? -errno : 0;
}

static int clear_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[CAPABILITY_WORDS];
    memset(data, 0, sizeof data);
    if (syscall(SYS_capset, &header, data) != 0)
        return -errno;
    int failed = read_capabilities(data);
    if (failed)
        return failed;
    for (int i = 0; i < CAPABILITY_WORDS; i++)
        if (data[i].effective | data[i].permitted | data[i].inheritable)
            return -ENOTRECOVERABLE;
    return 0;
}

/* So that no set-uid program or file capability could give anything back. */
static int empty_bounding_set(void)
{
    struct __user_cap_data_struct mine[CAPABILITY_WORDS];
    int failed = read_capabilities(mine);
    if (failed)
        return failed;
    int may = (mine[CAP_TO_INDEX(CAP_SETPCAP)].effective & CAP_TO_MASK(CAP_SETPCAP)) != 0;
    for (int capability = 0; capability < 64; capability++) {
        int held = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
        if (held < 0)
            break; /* beyond the last one this kernel knows */
        /* An ordinary user cannot empty it; no_new_privs makes it meaningless for that user's
         * children all the same. */
        if (held && may && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0)
            return -errno;
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 && errno != EINVAL)
        return -errno;
    return 0;
}

/* Raw system calls: glibc's wrappers would signal every other thread, and there is none. */
static int change_ids(uid_t uid, gid_t gid)
{
    if (syscall(SYS_setgroups, 0, NULL) != 0)
        return -errno;
    if (syscall(SYS_setresgid, gid, gid, gid) != 0)
        return -errno;
    if (syscall(SYS_setresuid, uid, uid, uid) != 0)
        return -errno;
    uid_t u[3];
    gid_t g[3];
    if (getresuid(&u[0], &u[1], &u[2]) != 0 || getresgid(&g[0], &g[1], &g[2]) != 0)
        return -errno;
    for (int i = 0; i < 3; i++)
        if (u[i] != uid || g[i] != gid)
            return -ENOTRECOVERABLE;
    return getgroups(0, NULL) == 0 ? 0 : -ENOTRECOVERABLE;
}

static int install_seccomp(const void *program, size_t bytes)
{
    size_t length = bytes / sizeof(struct sock_filter);
    if (bytes == 0)
        return 0;
    if (bytes % sizeof(struct sock_filter) != 0 || length > BPF_MAXINSNS)
        return -EINVAL;
    struct sock_fprog filter = {.len = (unsigned short)length,
                                .filter = (struct sock_filter *)program};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) != 0 ? -errno : 0;
}

int fg_watch_calls(const void *program, size_t bytes)
{
    struct sock_fprog filter = {.len = (unsigned short)(bytes / sizeof(struct sock_filter)),
                                .filter = (struct sock_filter *)program};
    long fd =
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);
    return fd < 0 ? -errno : (int)fd;
}

int fg_drop_privileges(const struct fg_plan *plan, const char **step)
{
    int failed = 0;
#define STEP(name, call)                                                                           \
    do {                                                                                           \
        *step = name;                                                                              \
        if ((failed = (call)) != 0)                                                                \
            return failed;                                                                         \
    } while (0)

    if (plan->drop)
        STEP("bounding_set", empty_bounding_set());
    if (plan->set_ids)
        STEP("ids", change_ids(plan->uid, plan->gid));
    if (plan->drop) {
        STEP("capabilities", clear_capabilities());
        STEP("dumpable", prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 ? -errno : 0);
        STEP("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ? -errno : 0);
    }
    /* After the change of ids, which clears it. */
    STEP("pdeathsig", prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 ? -errno : 0);
    if (plan->drop)
        STEP("seccomp", install_seccomp(plan->seccomp, plan->seccomp_bytes));
#undef STEP
    return 0;
}
