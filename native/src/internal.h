/* Declarations shared by the library and by forklight-init; neither Python nor a user sees them. */
#ifndef SB_INTERNAL_H
#define SB_INTERNAL_H

#include <errno.h>
#include <stdbool.h>
#include <unistd.h>

#include "sandbox_native.h"

/*
 * Owning locals. `cleanup_fd` closes at the end of the scope; initialise with -1 at the declaration
 * and hand the descriptor on with steal_fd():
 *
 *     cleanup_fd int fd = -1;
 *     fd = open(...);
 *     ...
 *     return steal_fd(&fd);
 */
#define cleanup_fd __attribute__((cleanup(sb_close_fd)))

static inline void sb_close_fd(const int *fd)
{
    if (*fd >= 0) {
        int saved = errno;

        close(*fd);
        errno = saved;
    }
}

static inline int steal_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

/* Repeats a system call that a signal interrupted. */
#define RETRY_EINTR(call)                                                                          \
    (__extension__({                                                                               \
        long retry_result_;                                                                        \
        do                                                                                         \
            retry_result_ = (long)(call);                                                          \
        while (retry_result_ == -1 && errno == EINTR);                                             \
        retry_result_;                                                                             \
    }))

/* Fills *err and returns -code. `detail` (a path, a name; NULL for none) is cut to fit. */
int sb_fail(struct sb_error *err, enum sb_step step, int code, const char *detail);

/* The same with the current errno. */
int sb_fail_errno(struct sb_error *err, enum sb_step step, const char *detail);

#endif
