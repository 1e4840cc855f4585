#include "init.h"

#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int sb_bring_up_loopback(struct sb_error *err)
{
    struct ifreq request = {.ifr_name = "lo"};
    cleanup_fd int fd = -1;

    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return sb_fail_errno(err, SB_STEP_LOOPBACK, "socket");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        return sb_fail_errno(err, SB_STEP_LOOPBACK, "SIOCSIFFLAGS");
    return 0;
}
