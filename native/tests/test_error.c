#include "internal.h"

#include "harness.h"

TEST(every_step_has_a_name)
{
    for (int step = 0; step < SB_STEP_COUNT; step++)
        CHECK(sb_step_name(step) && sb_step_name(step)[0]);
}

TEST(a_step_from_outside_the_table_is_named_unknown)
{
    CHECK_TEXT(sb_step_name(-1), "unknown step");
    CHECK_TEXT(sb_step_name(SB_STEP_COUNT), "unknown step");
}

TEST(a_failure_returns_the_negative_errno)
{
    struct sb_error err;

    CHECK_INT(sb_fail(&err, SB_STEP_BIND, ENOENT, "/x"), -ENOENT);
    CHECK_INT(err.code, ENOENT);
    CHECK_INT(err.step, SB_STEP_BIND);
    CHECK_TEXT(err.detail, "/x");
}

TEST(a_long_detail_is_cut_and_terminated)
{
    struct sb_error err;
    char detail[300];

    memset(detail, 'x', sizeof(detail));
    detail[sizeof(detail) - 1] = '\0';
    sb_fail(&err, SB_STEP_BIND, EINVAL, detail);
    CHECK_INT(strlen(err.detail), sizeof(err.detail) - 1);
}

TEST(no_byte_of_the_stack_is_left_in_a_detail)
{
    struct sb_error err;

    memset(&err, 0xAA, sizeof(err));
    sb_fail(&err, SB_STEP_BIND, EINVAL, "ab");
    for (size_t i = 2; i < sizeof(err.detail); i++)
        CHECK_INT(err.detail[i], 0);
    memset(&err, 0xAA, sizeof(err));
    sb_fail(&err, SB_STEP_BIND, EINVAL, NULL);
    CHECK_INT(err.detail[0], 0);
}

TEST(an_error_without_errno_is_still_an_error)
{
    struct sb_error err;

    errno = 0;
    CHECK_INT(sb_fail_errno(&err, SB_STEP_REPORT, NULL), -EIO);
}

RUN_TESTS()
