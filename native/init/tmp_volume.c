/*
 * /tmp: a file system of the function's size that is not charged to its memory. A sparse copy of an
 * empty ext4 image, made once per size by the supervisor, is mounted through a loop device. The
 * copy never has a name and the loop device clears itself, so that whatever happens nothing is left
 * when the sandbox's mount namespace ends.
 *
 * Where that is impossible (no loop devices, a user namespace) the plan says so and /tmp is a
 * tmpfs.
 */
#include "init.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "system.h"

/* Other sandboxes start at the same time and may take the device that was free a moment ago. */
#define LOOP_ATTEMPTS 128

static int copy_range(int from, int to, off_t start, off_t end)
{
    if (lseek(to, start, SEEK_SET) < 0)
        return -1;
    while (start < end) {
        ssize_t copied = sendfile(to, from, &start, (size_t)(end - start));

        if (copied < 0 && errno == EINTR)
            continue;
        if (copied <= 0)
            return -1;
    }
    return 0;
}

/* Copies the data and keeps the holes. */
static int copy_sparse(int from, int to, off_t size)
{
    off_t data = 0;

    if (ftruncate(to, size) < 0)
        return -1;
    while (data < size) {
        off_t hole;

        data = lseek(from, data, SEEK_DATA);
        if (data < 0)
            return errno == ENXIO ? 0 : -1; /* ENXIO: only a hole is left */
        hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0 || copy_range(from, to, data, hole) < 0)
            return -1;
        data = hole;
    }
    return 0;
}

static int copy_template(const struct plan *plan, struct sb_error *err)
{
    cleanup_fd int from = -1, to = -1;
    struct stat status;

    from = open(plan->tmp_template, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (from < 0 || fstat(from, &status) < 0)
        return sb_fail_errno(err, SB_STEP_TMP_IMAGE, plan->tmp_template);
    to = open(plan->tmp_image_folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (to < 0)
        return sb_fail_errno(err, SB_STEP_TMP_IMAGE, "O_TMPFILE");
    if (copy_sparse(from, to, status.st_size) < 0)
        return sb_fail_errno(err, SB_STEP_TMP_IMAGE, "copy");
    return steal_fd(&to);
}

/* Returns the loop device's descriptor; its path goes to `path`. */
static int attach_loop_device(int image, char *path, size_t path_size, struct sb_error *err)
{
    /* Direct I/O: one copy of a file's pages in memory instead of two. Where the file system of the
     * image cannot, the kernel falls back by itself. */
    const struct loop_config config = {
        .fd = (uint32_t)image,
        .info = {.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO},
    };
    cleanup_fd int control = -1;

    control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        return sb_fail_errno(err, SB_STEP_TMP_LOOP_DEVICE, "/dev/loop-control");
    for (int attempt = 0; attempt < LOOP_ATTEMPTS; attempt++) {
        cleanup_fd int device = -1;
        int number = ioctl(control, LOOP_CTL_GET_FREE);

        if (number < 0)
            return sb_fail_errno(err, SB_STEP_TMP_LOOP_DEVICE, "LOOP_CTL_GET_FREE");
        snprintf(path, path_size, "/dev/loop%d", number);
        device = open(path, O_RDWR | O_CLOEXEC);
        if (device < 0)
            return sb_fail_errno(err, SB_STEP_TMP_LOOP_DEVICE, path);
        if (ioctl(device, LOOP_CONFIGURE, &config) == 0)
            return steal_fd(&device);
        if (errno != EBUSY)
            return sb_fail_errno(err, SB_STEP_TMP_LOOP_DEVICE, "LOOP_CONFIGURE");
    }
    return sb_fail(err, SB_STEP_TMP_LOOP_DEVICE, EBUSY, "no free device");
}

static int mount_image(const struct plan *plan, struct sb_error *err)
{
    char device_path[32];
    /* noinit_itable: the inode tables are holes and stay so; no kernel thread writes zeros into
     * them. */
    const char *const options[][2] = {
        {"source", device_path}, {"noinit_itable", NULL}, {"nodiscard", NULL}, {NULL, NULL}};
    cleanup_fd int image = -1, device = -1;

    image = copy_template(plan, err);
    if (image < 0)
        return image;
    device = attach_loop_device(image, device_path, sizeof(device_path), err);
    if (device < 0)
        return device;
    return sb_new_filesystem("ext4", options,
                             MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME,
                             SB_STEP_TMP_MOUNT, err);
}

static int mount_tmpfs(const struct plan *plan, struct sb_error *err)
{
    char size[16];
    const char *const options[][2] = {
        {"source", "tmp"}, {"mode", "1777"}, {"size", size}, {"nr_inodes", "32768"}, {NULL, NULL}};

    snprintf(size, sizeof(size), "%um", plan->tmp_megabytes);
    return sb_new_filesystem("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
                             SB_STEP_TMP_MOUNT, err);
}

int sb_mount_tmp(int root, const struct plan *plan, struct sb_error *err)
{
    cleanup_fd int mount = -1;

    if (mkdirat(root, "tmp", 0755) < 0)
        return sb_fail_errno(err, SB_STEP_MAKE_DIRECTORY, "tmp");
    mount = plan->tmp_template ? mount_image(plan, err) : mount_tmpfs(plan, err);
    if (mount < 0)
        return mount;
    if (fchmodat(mount, ".", 01777, 0) < 0)
        return sb_fail_errno(err, SB_STEP_TMP_MOUNT, "chmod");
    if (plan->tmp_template && unlinkat(mount, "lost+found", AT_REMOVEDIR) < 0 && errno != ENOENT)
        return sb_fail_errno(err, SB_STEP_TMP_MOUNT, "lost+found");
    return sb_attach(mount, root, "tmp", SB_STEP_TMP_MOUNT, err);
}
