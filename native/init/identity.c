/*
 * Giving up every privilege for good. The order is forced: capabilities of the bounding set can
 * only be dropped while CAP_SETPCAP is held, groups only before the ids, the parent-death signal is
 * cleared by the kernel whenever ids change, and only the result proves that all of it worked.
 */
#include "init.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static int set_limits(struct sb_error *err)
{
    static const struct {
        int resource;
        rlim_t value;
        const char *name;
    } limits[] = {
        {RLIMIT_CORE, 0, "CORE"},
        {RLIMIT_NOFILE, 64, "NOFILE"},
        {RLIMIT_MEMLOCK, 0, "MEMLOCK"},
        {RLIMIT_MSGQUEUE, 0, "MSGQUEUE"},
    };

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        const struct rlimit both = {limits[i].value, limits[i].value};

        if (setrlimit((__rlimit_resource_t)limits[i].resource, &both) < 0)
            return sb_fail_errno(err, SB_STEP_RLIMIT, limits[i].name);
    }
    return 0;
}

static int empty_bounding_set(struct sb_error *err)
{
    for (int capability = 0; capability < 64; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
            if (errno == EINVAL && capability > CAP_AUDIT_READ)
                break; /* beyond the last one this kernel knows */
            return sb_fail_errno(err, SB_STEP_CAPABILITIES, "PR_CAPBSET_DROP");
        }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return sb_fail_errno(err, SB_STEP_CAPABILITIES, "PR_CAP_AMBIENT");
    /* In a user namespace the sandbox keeps uid 0: take the meaning out of it. */
    if (prctl(PR_SET_SECUREBITS,
              SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED |
                  SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                  SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
              0, 0, 0) < 0)
        return sb_fail_errno(err, SB_STEP_CAPABILITIES, "PR_SET_SECUREBITS");
    return 0;
}

static int set_ids(const struct plan *plan, struct sb_error *err)
{
    if (setgroups(0, NULL) < 0)
        return sb_fail_errno(err, SB_STEP_GROUPS, NULL);
    if (setresgid(plan->gid, plan->gid, plan->gid) < 0)
        return sb_fail_errno(err, SB_STEP_GID, NULL);
    if (setresuid(plan->uid, plan->uid, plan->uid) < 0)
        return sb_fail_errno(err, SB_STEP_UID, NULL);
    return 0;
}

static int clear_capabilities(struct sb_error *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    memset(data, 0, sizeof(data));
    if (syscall(SYS_capset, &header, data) < 0)
        return sb_fail_errno(err, SB_STEP_CAPABILITIES, "capset");
    return 0;
}

static int verify(const struct plan *plan, struct sb_error *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    uid_t uid[3];
    gid_t gid[3];

    if (getresuid(&uid[0], &uid[1], &uid[2]) < 0 || getresgid(&gid[0], &gid[1], &gid[2]) < 0 ||
        syscall(SYS_capget, &header, data) < 0)
        return sb_fail_errno(err, SB_STEP_VERIFY_IDENTITY, NULL);
    for (int i = 0; i < 3 && !plan->user_namespace; i++)
        if (uid[i] != plan->uid || gid[i] != plan->gid)
            return sb_fail(err, SB_STEP_VERIFY_IDENTITY, EPERM, "ids");
    for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        if (data[i].effective || data[i].permitted || data[i].inheritable)
            return sb_fail(err, SB_STEP_VERIFY_IDENTITY, EPERM, "capabilities");
    return 0;
}

int sb_drop_privileges(const struct plan *plan, struct sb_error *err)
{
    int result = set_limits(err);

    if (result == 0)
        result = empty_bounding_set(err);
    if (result == 0 && !plan->user_namespace)
        result = set_ids(plan, err);
    if (result == 0)
        result = clear_capabilities(err);
    if (result == 0)
        result = verify(plan, err);
    if (result < 0)
        return result;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return sb_fail_errno(err, SB_STEP_NO_NEW_PRIVS, NULL);
    /* Workers of the same uid must neither trace this process nor see it in /proc. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return sb_fail_errno(err, SB_STEP_NOT_DUMPABLE, NULL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return sb_fail_errno(err, SB_STEP_PARENT_DEATH_SIGNAL, NULL);
    return 0;
}
