/*
 * The file system a worker sees: a small read-only tmpfs with what the plan lists, /dev, /proc and
 * /tmp. Everything is made below the descriptor of our own new tmpfs, in which no other process has
 * a say, and sources on the host are opened once (open_tree) and attached by descriptor: no path is
 * looked up twice.
 */
#include "init.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
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

/*
 * The supervisor may itself run in a chroot (an initramfs that never switched its root, for one).
 * Then
 * "/" is not where setns() puts a worker that joins our mount namespace: that is the namespace's
 * own root. So both are told apart, and at the end it is the namespace's root that is checked.
 */
struct place {
    int namespace; /* our mount namespace */
    bool chrooted;
};

static bool same_directory(int one, int other)
{
    struct statx a, b;

    return statx(one, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &a) == 0 &&
           statx(other, "", AT_EMPTY_PATH, STATX_INO | STATX_MNT_ID, &b) == 0 &&
           a.stx_ino == b.stx_ino && a.stx_mnt_id == b.stx_mnt_id;
}

/* Makes root and working directory those of the namespace; returns a descriptor of it. */
static int go_to_namespace_root(const struct place *place, struct sb_error *err)
{
    int top;

    if (setns(place->namespace, CLONE_NEWNS) < 0)
        return sb_fail_errno(err, SB_STEP_PIVOT_ROOT, "setns");
    top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return top < 0 ? sb_fail_errno(err, SB_STEP_PIVOT_ROOT, "/") : top;
}

/* Cuts every mount off from the host's: without this ours would show up on a host whose root is a
 * shared mount. */
static int make_mounts_private(struct place *place, struct sb_error *err)
{
    const struct mount_attr private = {.propagation = MS_PRIVATE};
    cleanup_fd int here = -1, top = -1;

    place->namespace = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    here = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (place->namespace < 0 || here < 0)
        return sb_fail_errno(err, SB_STEP_MOUNT_PROPAGATION, "/proc/self/ns/mnt");
    top = go_to_namespace_root(place, err);
    if (top < 0)
        return top;
    if (sys_mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &private) < 0)
        return sb_fail_errno(err, SB_STEP_MOUNT_PROPAGATION, "/");
    place->chrooted = !same_directory(here, top);
    /* Back to where the plan's paths mean something. */
    if (place->chrooted && (fchdir(here) < 0 || chroot(".") < 0))
        return sb_fail_errno(err, SB_STEP_MOUNT_PROPAGATION, "chroot");
    return 0;
}

/* An empty tmpfs over the plan's mount point; returns its descriptor. */
static int mount_root(const struct plan *plan, struct sb_error *err)
{
    const char *const options[][2] = {
        {"source", "sandbox"}, {"mode", "0755"}, {"size", "256k"}, {NULL, NULL}};
    cleanup_fd int root = -1;
    int result;

    root = sb_new_filesystem("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
                             SB_STEP_MOUNT_ROOT, err);
    if (root < 0)
        return root;
    result = sb_attach(root, AT_FDCWD, plan->mount_point, SB_STEP_MOUNT_ROOT, err);
    if (result < 0)
        return result;
    return steal_fd(&root);
}

/* The old root goes away with everything that was mounted on the host. */
static int exchange_roots(int root, struct sb_error *err)
{
    /* pivot_root(".", ".") stacks the old root on the new one; the unmount takes it off again. */
    if (fchdir(root) < 0 || sys_pivot_root(".", ".") < 0)
        return sb_fail_errno(err, SB_STEP_PIVOT_ROOT, "pivot_root");
    if (sys_umount2(".", MNT_DETACH) < 0)
        return sb_fail_errno(err, SB_STEP_PIVOT_ROOT, "umount2");
    return 0;
}

/* An initramfs cannot be exchanged: the new root covers it. Only somebody who may unmount could get
 * at what is below, and nobody in a sandbox may. */
static int cover_namespace_root(const struct place *place, int root, struct sb_error *err)
{
    cleanup_fd int top = -1;

    top = go_to_namespace_root(place, err);
    if (top < 0)
        return top;
    return sb_attach(root, AT_FDCWD, "/", SB_STEP_PIVOT_ROOT, err);
}

static int enter_root(const struct place *place, int root, struct sb_error *err)
{
    const struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};
    cleanup_fd int top = -1;
    int result;

    result = place->chrooted ? cover_namespace_root(place, root, err) : exchange_roots(root, err);
    if (result < 0)
        return result;
    /* What a worker will see that joins this namespace must be the new root and nothing else. */
    top = go_to_namespace_root(place, err);
    if (top < 0)
        return top;
    if (!same_directory(top, root))
        return sb_fail(err, SB_STEP_PIVOT_ROOT, EXDEV, "the namespace has another root");
    if (sys_mount_setattr(AT_FDCWD, "/", 0, &read_only) < 0)
        return sb_fail_errno(err, SB_STEP_ROOT_READ_ONLY, "/");
    return 0;
}

static int fill_root(int root, const struct plan *plan, struct sb_error *err)
{
    int result = 0;

    for (size_t i = 0; i < plan->entry_count && result == 0; i++)
        result = make_entry(root, &plan->entries[i], err);
    if (result == 0)
        result = sb_mount_dev(root, plan, err);
    if (result == 0)
        result = sb_mount_proc(root, err);
    if (result == 0)
        result = sb_mount_tmp(root, plan, err);
    return result;
}

int sb_build_root(const struct plan *plan, struct sb_error *err)
{
    struct place place = {.namespace = -1};
    cleanup_fd int root = -1;
    int result;

    result = make_mounts_private(&place, err);
    if (result == 0)
        result = root = mount_root(plan, err);
    if (result >= 0)
        result = fill_root(root, plan, err);
    if (result == 0)
        result = enter_root(&place, root, err);
    if (place.namespace >= 0)
        close(place.namespace);
    return result;
}
