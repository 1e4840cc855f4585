/*
 * The file system a worker sees: a small read-only tmpfs with what the plan lists, /dev, /proc and
 * /tmp. Everything is made below the descriptor of our own new tmpfs, in which no other process has
 * a say, and sources on the host are opened once (open_tree) and attached by descriptor: no path is
 * looked up twice.
 */
#include "init.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "system.h"

/* From <sys/mount.h>, which cannot be included beside <linux/mount.h>. */
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

int sb_new_filesystem(const char *type, const char *const options[][2], unsigned attributes,
                      enum sb_step step, struct sb_error *err)
{
    cleanup_fd int context = -1;
    int mount;

    context = sys_fsopen(type, FSOPEN_CLOEXEC);
    if (context < 0)
        return sb_fail_errno(err, step, type);
    for (; (*options)[0]; options++) {
        const char *value = (*options)[1];
        unsigned command = value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;

        if (sys_fsconfig(context, command, (*options)[0], value, 0) < 0)
            return sb_fail_errno(err, step, (*options)[0]);
    }
    if (sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return sb_fail_errno(err, step, type);
    mount = sys_fsmount(context, FSMOUNT_CLOEXEC, attributes);
    if (mount < 0)
        return sb_fail_errno(err, step, type);
    return mount;
}

int sb_attach(int mount, int root, const char *path, enum sb_step step, struct sb_error *err)
{
    if (sys_move_mount(mount, "", root, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return sb_fail_errno(err, step, path);
    return 0;
}

/* mkdir -p below the root; `path` itself too when `whole`, else only what leads to it. */
static int make_directories(int root, const char *path, bool whole, struct sb_error *err)
{
    char prefix[PATH_MAX];

    for (size_t i = 0;; i++) {
        bool end = path[i] == '\0';

        prefix[i] = '\0';
        if ((end ? whole : path[i] == '/') && i > 0)
            if (mkdirat(root, prefix, 0755) < 0 && errno != EEXIST)
                return sb_fail_errno(err, SB_STEP_MAKE_DIRECTORY, prefix);
        if (end)
            return 0;
        prefix[i] = path[i];
    }
}

static int make_file(int root, const char *path, const char *contents, struct sb_error *err)
{
    size_t length = strlen(contents);
    cleanup_fd int fd = -1;

    fd = openat(root, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 || RETRY_EINTR(write(fd, contents, length)) != (long)length)
        return sb_fail_errno(err, SB_STEP_MAKE_FILE, path);
    return 0;
}

static int bind_read_only(int root, const char *path, const char *source, struct sb_error *err)
{
    /* Recursive: in a user namespace a tree with mounts from outside can only be copied whole. */
    const struct mount_attr attributes = {
        .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
    };
    cleanup_fd int tree = -1;
    struct stat status;
    int result;

    tree = sys_open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree < 0)
        return sb_fail_errno(err, SB_STEP_BIND, source);
    if (sys_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes) < 0)
        return sb_fail_errno(err, SB_STEP_BIND_READ_ONLY, source);
    if (fstat(tree, &status) < 0)
        return sb_fail_errno(err, SB_STEP_BIND, source);
    if (S_ISDIR(status.st_mode))
        result = make_directories(root, path, true, err);
    else
        result = make_file(root, path, "", err);
    if (result < 0)
        return result;
    return sb_attach(tree, root, path, SB_STEP_BIND, err);
}

static int make_entry(int root, const struct entry *entry, struct sb_error *err)
{
    int result = make_directories(root, entry->path, false, err);

    if (result < 0)
        return result;
    switch (entry->kind) {
    case ENTRY_DIRECTORY:
        return make_directories(root, entry->path, true, err);
    case ENTRY_FILE:
        return make_file(root, entry->path, entry->source, err);
    case ENTRY_READ_ONLY_BIND:
        return bind_read_only(root, entry->path, entry->source, err);
    case ENTRY_SYMLINK:
        if (symlinkat(entry->source, root, entry->path) < 0)
            return sb_fail_errno(err, SB_STEP_MAKE_SYMLINK, entry->path);
        return 0;
    }
    return sb_fail(err, SB_STEP_PLAN, EINVAL, entry->path);
}

/* An empty tmpfs over the plan's mount point; returns its descriptor. */
static int mount_root(const struct plan *plan, struct sb_error *err)
{
    const char *const options[][2] = {
        {"source", "sandbox"}, {"mode", "0755"}, {"size", "256k"}, {NULL, NULL}};
    const struct mount_attr private = {.propagation = MS_PRIVATE};
    cleanup_fd int root = -1;
    int result;

    /* Without this our mounts would show up on a host whose root is a shared mount. */
    if (sys_mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &private) < 0)
        return sb_fail_errno(err, SB_STEP_MOUNT_PROPAGATION, "/");
    root = sb_new_filesystem("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
                             SB_STEP_MOUNT_ROOT, err);
    if (root < 0)
        return root;
    result = sb_attach(root, AT_FDCWD, plan->mount_point, SB_STEP_MOUNT_ROOT, err);
    if (result < 0)
        return result;
    return steal_fd(&root);
}

static int enter_root(int root, struct sb_error *err)
{
    const struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};

    /* pivot_root(".", ".") stacks the old root on the new one; the unmount takes it off again with
     * everything that was mounted on the host. */
    if (fchdir(root) < 0 || sys_pivot_root(".", ".") < 0)
        return sb_fail_errno(err, SB_STEP_PIVOT_ROOT, "pivot_root");
    if (sys_umount2(".", MNT_DETACH) < 0)
        return sb_fail_errno(err, SB_STEP_PIVOT_ROOT, "umount2");
    if (chdir("/") < 0)
        return sb_fail_errno(err, SB_STEP_PIVOT_ROOT, "chdir");
    if (sys_mount_setattr(AT_FDCWD, "/", 0, &read_only) < 0)
        return sb_fail_errno(err, SB_STEP_ROOT_READ_ONLY, "/");
    return 0;
}

int sb_build_root(const struct plan *plan, struct sb_error *err)
{
    cleanup_fd int root = -1;
    int result = 0;

    root = mount_root(plan, err);
    if (root < 0)
        return root;
    for (size_t i = 0; i < plan->entry_count && result == 0; i++)
        result = make_entry(root, &plan->entries[i], err);
    if (result == 0)
        result = sb_mount_dev(root, plan, err);
    if (result == 0)
        result = sb_mount_proc(root, err);
    if (result == 0)
        result = sb_mount_tmp(root, plan, err);
    return result < 0 ? result : enter_root(root, err);
}
