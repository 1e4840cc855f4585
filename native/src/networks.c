/* Things that exist in one network namespace and are made from another: what belongs to a namespace
 * is decided by where the calling thread is, so it goes there and comes back. */
#include "internal.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HERE "/proc/thread-self/ns/net"

/* A thread that cannot come back would make everything after it in the wrong place. */
static void come_back(int here)
{
    if (setns(here, CLONE_NEWNET) < 0)
        abort();
}

/* Returns a descriptor of where the thread came from. */
static int go(int network, struct sb_error *err)
{
    cleanup_fd int here = -1;

    here = open(HERE, O_RDONLY | O_CLOEXEC);
    if (here < 0)
        return sb_fail_errno(err, SB_STEP_ENTER_NETWORK, HERE);
    if (setns(network, CLONE_NEWNET) < 0)
        return sb_fail_errno(err, SB_STEP_ENTER_NETWORK, "setns");
    return steal_fd(&here);
}

int sb_new_network(struct sb_error *err)
{
    cleanup_fd int here = -1;
    int network, code;

    here = open(HERE, O_RDONLY | O_CLOEXEC);
    if (here < 0)
        return sb_fail_errno(err, SB_STEP_ENTER_NETWORK, HERE);
    if (unshare(CLONE_NEWNET) < 0)
        return sb_fail_errno(err, SB_STEP_ENTER_NETWORK, "unshare");
    network = open(HERE, O_RDONLY | O_CLOEXEC);
    code = errno;
    come_back(here);
    return network < 0 ? sb_fail(err, SB_STEP_ENTER_NETWORK, code, HERE) : network;
}

int sb_socket_in_network(int network, int family, int type, int protocol, struct sb_error *err)
{
    cleanup_fd int here = -1;
    int fd, code;

    here = go(network, err);
    if (here < 0)
        return here;
    fd = socket(family, type | SOCK_CLOEXEC, protocol);
    code = errno;
    come_back(here);
    return fd < 0 ? sb_fail(err, SB_STEP_ENTER_NETWORK, code, "socket") : fd;
}

int sb_set_in_network(int network, const char *path, const char *value, struct sb_error *err)
{
    cleanup_fd int here = -1, fd = -1;
    size_t length = strlen(value);
    int code = 0;

    here = go(network, err);
    if (here < 0)
        return here;
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || RETRY_EINTR(write(fd, value, length)) != (long)length)
        code = errno ? errno : EIO;
    come_back(here);
    return code ? sb_fail(err, SB_STEP_ENTER_NETWORK, code, path) : 0;
}
