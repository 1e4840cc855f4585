#include "internal.h"

#include <stddef.h>

static const char *const step_names[] = {
    [SB_STEP_READY] = "ready",
    [SB_STEP_PLAN] = "read the plan",
    [SB_STEP_CLONE] = "clone3",
    [SB_STEP_SIGNALS] = "reset signals",
    [SB_STEP_KEYRING] = "leave the session's keyring",
    [SB_STEP_JOIN_CGROUP] = "join the cgroup",
    [SB_STEP_PARENT_DEATH_SIGNAL] = "set the parent-death signal",
    [SB_STEP_PARENT_GONE] = "find the supervisor alive",
    [SB_STEP_DESCRIPTORS] = "arrange descriptors",
    [SB_STEP_EXEC] = "execute the program",
    [SB_STEP_USER_NAMESPACE] = "create a user namespace",
    [SB_STEP_SETGROUPS_DENY] = "deny setgroups",
    [SB_STEP_UID_MAP] = "map the uid",
    [SB_STEP_GID_MAP] = "map the gid",
    [SB_STEP_NAMESPACES] = "create namespaces",
    [SB_STEP_SESSION] = "start a session",
    [SB_STEP_HOSTNAME] = "set the host name",
    [SB_STEP_LOOPBACK] = "bring up the loopback interface",
    [SB_STEP_EGRESS] = "connect the sandbox to the router",
    [SB_STEP_ENTER_NETWORK] = "enter a network namespace",
    [SB_STEP_MOUNT_PROPAGATION] = "make mounts private",
    [SB_STEP_MOUNT_ROOT] = "mount the root",
    [SB_STEP_MAKE_DIRECTORY] = "make a directory",
    [SB_STEP_MAKE_SYMLINK] = "make a symbolic link",
    [SB_STEP_MAKE_FILE] = "make a file",
    [SB_STEP_BIND] = "bind mount",
    [SB_STEP_BIND_READ_ONLY] = "make a mount read-only",
    [SB_STEP_DEVICES] = "make /dev",
    [SB_STEP_SHARED_MEMORY] = "mount /dev/shm",
    [SB_STEP_PROC] = "mount /proc",
    [SB_STEP_MASK_PROC] = "mask a part of /proc",
    [SB_STEP_TMP_IMAGE] = "copy the image of /tmp",
    [SB_STEP_TMP_LOOP_DEVICE] = "set up a loop device for /tmp",
    [SB_STEP_TMP_MOUNT] = "mount /tmp",
    [SB_STEP_PIVOT_ROOT] = "pivot the root",
    [SB_STEP_ROOT_READ_ONLY] = "make the root read-only",
    [SB_STEP_RLIMIT] = "set a resource limit",
    [SB_STEP_CAPABILITIES] = "drop capabilities",
    [SB_STEP_GROUPS] = "drop supplementary groups",
    [SB_STEP_GID] = "set the gid",
    [SB_STEP_UID] = "set the uid",
    [SB_STEP_VERIFY_IDENTITY] = "verify the dropped identity",
    [SB_STEP_NO_NEW_PRIVS] = "set no_new_privs",
    [SB_STEP_NOT_DUMPABLE] = "become undumpable",
    [SB_STEP_REPORT] = "report to the supervisor",
};

_Static_assert(sizeof(step_names) / sizeof(step_names[0]) == SB_STEP_COUNT,
               "every step has a name");

const char *sb_step_name(int step)
{
    if (step < 0 || step >= SB_STEP_COUNT)
        return "unknown step";
    return step_names[step];
}

/* No stdio and no malloc: this also runs between clone and exec. */
int sb_fail(struct sb_error *err, enum sb_step step, int code, const char *detail)
{
    size_t length = 0;

    err->code = code;
    err->step = (int32_t)step;
    if (detail)
        while (length < sizeof(err->detail) - 1 && detail[length]) {
            err->detail[length] = detail[length];
            length++;
        }
    /* The rest is cleared so that no stack bytes travel through the pipe. */
    while (length < sizeof(err->detail))
        err->detail[length++] = '\0';
    return -code;
}

int sb_fail_errno(struct sb_error *err, enum sb_step step, const char *detail)
{
    return sb_fail(err, step, errno ? errno : EIO, detail);
}
