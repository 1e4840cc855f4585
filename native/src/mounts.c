#include "internal.h"

#include <fcntl.h>

#include "system.h"

int sb_clone_readonly(const char *path, struct sb_error *err)
{
    /* Recursive: in a user namespace a tree with mounts from outside can only be copied whole. */
    const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_NO_AUTOMOUNT;
    const struct mount_attr attributes = {
        .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
        .propagation = MS_PRIVATE,
    };
    cleanup_fd int tree = -1;

    tree = sys_open_tree(AT_FDCWD, path, flags);
    if (tree < 0)
        return sb_fail_errno(err, SB_STEP_BIND, path);
    if (sys_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes) < 0)
        return sb_fail_errno(err, SB_STEP_BIND_READ_ONLY, path);
    return steal_fd(&tree);
}
