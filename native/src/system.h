/*
 * System calls that the C library lacks or has only in its newest releases, under their own names
 * with the prefix sys_. Like the C library's they return -1 and set errno. <sys/mount.h> is never
 * included: it collides with <linux/mount.h>.
 */
#ifndef SB_SYSTEM_H
#define SB_SYSTEM_H

#include <linux/mount.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline int sys_open_tree(int dirfd, const char *path, unsigned flags)
{
    return (int)syscall(SYS_open_tree, dirfd, path, flags);
}

static inline int sys_move_mount(int from, const char *from_path, int to, const char *to_path,
                                 unsigned flags)
{
    return (int)syscall(SYS_move_mount, from, from_path, to, to_path, flags);
}

static inline int sys_mount_setattr(int dirfd, const char *path, unsigned flags,
                                    const struct mount_attr *attributes)
{
    return (int)syscall(SYS_mount_setattr, dirfd, path, flags, attributes, sizeof(*attributes));
}

static inline int sys_fsopen(const char *filesystem, unsigned flags)
{
    return (int)syscall(SYS_fsopen, filesystem, flags);
}

static inline int sys_fsconfig(int fd, unsigned command, const char *key, const void *value,
                               int aux)
{
    return (int)syscall(SYS_fsconfig, fd, command, key, value, aux);
}

static inline int sys_fsmount(int fd, unsigned flags, unsigned attributes)
{
    return (int)syscall(SYS_fsmount, fd, flags, attributes);
}

static inline int sys_pivot_root(const char *new_root, const char *put_old)
{
    return (int)syscall(SYS_pivot_root, new_root, put_old);
}

static inline int sys_umount2(const char *path, int flags)
{
    return (int)syscall(SYS_umount2, path, flags);
}

static inline int sys_close_range(unsigned first, unsigned last, unsigned flags)
{
    return (int)syscall(SYS_close_range, first, last, flags);
}

#endif
