/* The root directory of a worker whose function is a container image: the image itself, with what
 * every sandbox has mounted into it.
 *
 * The sandbox was made ahead, for whomever: its root, with the host's /usr, is left for good. All
 * of this happens in the sandbox's own mount namespace, before any program of the image runs. The
 * image has real folders and files where something is mounted (gateway/storage/layers.py sees to
 * that), and no mount follows a link that is its last component. */
#include "fork_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

/* Empty in every sandbox. */
#define STAGE "/var/task"

static const char *const shared[] = {"/dev", "/proc", "/tmp", "/etc/hosts", "/etc/resolv.conf"};

/* A mount, with all that is mounted below it, once more, below the stage. */
static int show(const char *path)
{
    char target[PATH_MAX];
    int tree =
        (int)syscall(SYS_open_tree, AT_FDCWD, path,
                     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW);
    int result = 0;

    if (tree < 0)
        return -errno;
    snprintf(target, sizeof target, "%s%s", STAGE, path);
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) != 0)
        result = -errno;
    close(tree);
    return result;
}

int fg_enter_image(int image, const char **detail)
{
    *detail = STAGE;
    if (syscall(SYS_move_mount, image, "", AT_FDCWD, STAGE, MOVE_MOUNT_F_EMPTY_PATH) != 0)
        return -errno;
    for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++) {
        int result = show(*detail = shared[i]);
        if (result < 0)
            return result;
    }
    /* pivot_root(".", ".") stacks the old root on the new one; the unmount takes it off again. The
     * sandbox's first process goes along: it holds no file of the old one open. */
    *detail = "/";
    if (chdir(STAGE) != 0 || syscall(SYS_pivot_root, ".", ".") != 0 ||
        syscall(SYS_umount2, ".", MNT_DETACH) != 0)
        return -errno;
    return chdir("/") != 0 ? -errno : 0;
}
