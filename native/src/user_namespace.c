#include "internal.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

static int write_once(const char *path, const char *text, enum sb_step step, struct sb_error *err)
{
    cleanup_fd int fd = -1;
    size_t length = strlen(text);

    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || RETRY_EINTR(write(fd, text, length)) != (long)length)
        return sb_fail_errno(err, step, path);
    return 0;
}

int sb_enter_user_namespace(struct sb_error *err)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    char map[32];
    int result;

    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return sb_fail_errno(err, SB_STEP_USER_NAMESPACE, NULL);
    /* The kernel lets an ordinary user map a gid only after giving up setgroups. */
    result = write_once("/proc/self/setgroups", "deny", SB_STEP_SETGROUPS_DENY, err);
    if (result < 0)
        return result;
    snprintf(map, sizeof(map), "0 %u 1", uid);
    result = write_once("/proc/self/uid_map", map, SB_STEP_UID_MAP, err);
    if (result < 0)
        return result;
    snprintf(map, sizeof(map), "0 %u 1", gid);
    return write_once("/proc/self/gid_map", map, SB_STEP_GID_MAP, err);
}
