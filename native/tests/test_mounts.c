#include "internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "harness.h"

TEST(a_clone_is_read_only_and_holds_neither_devices_nor_set_uid)
{
    cleanup_fd int tree = -1;
    struct sb_error err = {0};
    struct statvfs status;

    if (geteuid() != 0)
        SKIP("needs root: cloning a mount");
    tree = sb_clone_readonly("/tmp", &err);
    CHECK(tree >= 0);
    CHECK_INT(fstatvfs(tree, &status), 0);
    CHECK(status.f_flag & ST_RDONLY);
    CHECK(status.f_flag & ST_NOSUID);
    CHECK(status.f_flag & ST_NODEV);
    CHECK_INT(openat(tree, "x", O_CREAT | O_WRONLY, 0600), -1);
    CHECK_INT(errno, EROFS);
    CHECK(fcntl(tree, F_GETFD) & FD_CLOEXEC);
}

TEST(the_original_stays_writable)
{
    cleanup_fd int tree = -1;
    struct sb_error err = {0};
    struct statvfs status;

    if (geteuid() != 0)
        SKIP("needs root: cloning a mount");
    tree = sb_clone_readonly("/tmp", &err);
    CHECK(tree >= 0);
    CHECK_INT(statvfs("/tmp", &status), 0);
    CHECK(!(status.f_flag & ST_RDONLY));
}

TEST(a_missing_path_is_named)
{
    struct sb_error err = {0};

    if (geteuid() != 0)
        SKIP("needs root: cloning a mount");
    CHECK_INT(sb_clone_readonly("/nonexistent/path", &err), -ENOENT);
    CHECK_INT(err.step, SB_STEP_BIND);
    CHECK_TEXT(err.detail, "/nonexistent/path");
}

TEST(without_privileges_it_is_refused)
{
    struct sb_error err = {0};

    if (geteuid() == 0)
        SKIP("runs as root");
    CHECK_INT(sb_clone_readonly("/tmp", &err), -EPERM);
}

RUN_TESTS()
