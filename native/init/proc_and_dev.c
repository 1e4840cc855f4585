#include "init.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "system.h"

/* ---- /dev
 * ------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    unsigned minor; /* of major 1, "mem" */
} devices[] = {{"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}};

static int make_device(int dev, size_t i, struct sb_error *err)
{
    if (mknodat(dev, devices[i].name, S_IFCHR | 0666, makedev(1, devices[i].minor)) < 0)
        return sb_fail_errno(err, SB_STEP_DEVICES, devices[i].name);
    return 0;
}

/* In a user namespace nobody may make device nodes: the host's are bound instead. */
static int bind_device(int dev, size_t i, struct sb_error *err)
{
    cleanup_fd int file = -1, tree = -1;
    char host_path[32];

    snprintf(host_path, sizeof(host_path), "/dev/%s", devices[i].name);
    tree = sys_open_tree(AT_FDCWD, host_path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return sb_fail_errno(err, SB_STEP_DEVICES, host_path);
    file = openat(dev, devices[i].name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    if (file < 0)
        return sb_fail_errno(err, SB_STEP_DEVICES, devices[i].name);
    return sb_attach(tree, dev, devices[i].name, SB_STEP_DEVICES, err);
}

static int make_links(int dev, struct sb_error *err)
{
    static const char *const links[][2] = {{"/proc/self/fd", "fd"},
                                           {"/proc/self/fd/0", "stdin"},
                                           {"/proc/self/fd/1", "stdout"},
                                           {"/proc/self/fd/2", "stderr"}};

    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
        if (symlinkat(links[i][0], dev, links[i][1]) < 0)
            return sb_fail_errno(err, SB_STEP_DEVICES, links[i][1]);
    return 0;
}

/* Lambda has no /dev/shm; ours makes multiprocessing's locks work. Its pages count as the
 * function's memory. */
static int mount_shared_memory(int dev, unsigned megabytes, struct sb_error *err)
{
    const unsigned attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    char size[16];
    const char *const options[][2] = {
        {"source", "shm"}, {"mode", "1777"}, {"size", size}, {"nr_inodes", "1024"}, {NULL, NULL}};
    cleanup_fd int mount = -1;

    snprintf(size, sizeof(size), "%um", megabytes);
    if (mkdirat(dev, "shm", 0755) < 0)
        return sb_fail_errno(err, SB_STEP_SHARED_MEMORY, "mkdir");
    mount = sb_new_filesystem("tmpfs", options, attributes, SB_STEP_SHARED_MEMORY, err);
    if (mount < 0)
        return mount;
    return sb_attach(mount, dev, "shm", SB_STEP_SHARED_MEMORY, err);
}

int sb_mount_dev(int root, const struct plan *plan, struct sb_error *err)
{
    const char *const options[][2] = {
        {"source", "dev"}, {"mode", "0755"}, {"size", "64k"}, {NULL, NULL}};
    const struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};
    cleanup_fd int dev = -1;
    int result;

    if (mkdirat(root, "dev", 0755) < 0)
        return sb_fail_errno(err, SB_STEP_DEVICES, "mkdir");
    /* The one mount of a sandbox on which device nodes work; it is read-only once they are there.
     */
    dev = sb_new_filesystem("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                            SB_STEP_DEVICES, err);
    if (dev < 0)
        return dev;
    result = sb_attach(dev, root, "dev", SB_STEP_DEVICES, err);
    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]) && result == 0; i++)
        result = plan->user_namespace ? bind_device(dev, i, err) : make_device(dev, i, err);
    if (result == 0)
        result = make_links(dev, err);
    if (result == 0)
        result = mount_shared_memory(dev, plan->shm_megabytes, err);
    if (result < 0)
        return result;
    if (sys_mount_setattr(dev, "", AT_EMPTY_PATH, &read_only) < 0)
        return sb_fail_errno(err, SB_STEP_DEVICES, "read-only");
    return 0;
}

/* ---- /proc
 * ------------------------------------------------------------------------------------------ */

/* Facts about the host or about others that no function needs: they read as empty. */
static const char *const masked_files[] = {
    "proc/buddyinfo",   "proc/cmdline",      "proc/diskstats",     "proc/interrupts",
    "proc/iomem",       "proc/ioports",      "proc/kallsyms",      "proc/kcore",
    "proc/key-users",   "proc/keys",         "proc/kmsg",          "proc/locks",
    "proc/modules",     "proc/pagetypeinfo", "proc/sched_debug",   "proc/schedstat",
    "proc/slabinfo",    "proc/softirqs",     "proc/sysrq-trigger", "proc/timer_list",
    "proc/timer_stats", "proc/vmallocinfo",  "proc/zoneinfo",
};

/* Places where a write would change the host; the ids alone forbid most of them, this forbids all.
 */
static const char *const read_only_directories[] = {"proc/acpi",   "proc/asound", "proc/bus",
                                                    "proc/driver", "proc/fs",     "proc/irq",
                                                    "proc/scsi",   "proc/sys"};

/* Not every kernel has every file: one that is not there needs no mask. */
static bool absent(void)
{
    return errno == ENOENT || errno == ENOTDIR;
}

static int mask_file(int root, int null, const char *path, struct sb_error *err)
{
    cleanup_fd int cover = -1;

    cover = sys_open_tree(null, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (cover < 0)
        return sb_fail_errno(err, SB_STEP_MASK_PROC, "/dev/null");
    if (sys_move_mount(cover, "", root, path, MOVE_MOUNT_F_EMPTY_PATH) < 0 && !absent())
        return sb_fail_errno(err, SB_STEP_MASK_PROC, path);
    return 0;
}

static int make_read_only(int root, const char *path, struct sb_error *err)
{
    const struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                                      MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};
    cleanup_fd int tree = -1;

    tree = sys_open_tree(root, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return absent() ? 0 : sb_fail_errno(err, SB_STEP_MASK_PROC, path);
    if (sys_mount_setattr(tree, "", AT_EMPTY_PATH, &attributes) < 0)
        return sb_fail_errno(err, SB_STEP_MASK_PROC, path);
    return sb_attach(tree, root, path, SB_STEP_MASK_PROC, err);
}

int sb_mount_proc(int root, struct sb_error *err)
{
    /* hidepid: a process of another uid, and forklight-init itself, cannot even be seen. */
    const char *const options[][2] = {{"source", "proc"}, {"hidepid", "invisible"}, {NULL, NULL}};
    const unsigned attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    cleanup_fd int mount = -1, null = -1;
    int result;

    if (mkdirat(root, "proc", 0555) < 0)
        return sb_fail_errno(err, SB_STEP_PROC, "mkdir");
    mount = sb_new_filesystem("proc", options, attributes, SB_STEP_PROC, err);
    if (mount < 0)
        return mount;
    result = sb_attach(mount, root, "proc", SB_STEP_PROC, err);
    /* Opened once: a path that somebody exchanges later cannot redirect a mask. */
    null = openat(root, "dev/null", O_PATH | O_CLOEXEC | O_NOFOLLOW);
    if (result == 0 && null < 0)
        return sb_fail_errno(err, SB_STEP_MASK_PROC, "/dev/null");
    for (size_t i = 0; i < sizeof(masked_files) / sizeof(masked_files[0]) && result == 0; i++)
        result = mask_file(root, null, masked_files[i], err);
    for (size_t i = 0;
         i < sizeof(read_only_directories) / sizeof(read_only_directories[0]) && result == 0; i++)
        result = make_read_only(root, read_only_directories[i], err);
    return result;
}
