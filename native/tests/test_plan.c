#include "init.h"

#include "harness.h"

#define GOOD                                                                                       \
    "--status-fd", "3", "--root", "/mnt", "--hostname", "h", "--uid", "2000001", "--gid",          \
        "2000002", "--tmp-megabytes", "512", "--shm-megabytes", "16"

static struct entry entries[MAX_ENTRIES];
static struct plan plan;
static struct sb_error err;

static int read_plan(char *const *arguments, size_t count)
{
    memset(&err, 0, sizeof(err));
    return sb_read_plan((int)count, arguments, &plan, entries, &err);
}

#define READ(...)                                                                                  \
    read_plan((char *const[]){(char *)"init", __VA_ARGS__},                                        \
              sizeof((char *[]){(char *)"init", __VA_ARGS__}) / sizeof(char *))

TEST(a_complete_plan_is_understood)
{
    CHECK_INT(READ(GOOD, "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--file",
                   "text", "/etc/hosts", "--dir", "/var/task"),
              0);
    CHECK_INT(plan.status_fd, 3);
    CHECK_INT(plan.uid, 2000001);
    CHECK_INT(plan.gid, 2000002);
    CHECK_INT(plan.tmp_megabytes, 512);
    CHECK(!plan.host_network && !plan.user_namespace && !plan.tmp_template);
    CHECK_INT(plan.entry_count, 4);
    CHECK_INT(entries[0].kind, ENTRY_READ_ONLY_BIND);
    CHECK_TEXT(entries[0].path, "usr");
    CHECK_TEXT(entries[1].source, "usr/bin");
    CHECK_TEXT(entries[2].source, "text");
    CHECK_TEXT(entries[3].path, "var/task");
}

TEST(an_image_takes_its_template_and_its_folder)
{
    CHECK_INT(READ(GOOD, "--tmp-image", "/a", "/b", "--host-network"), 0);
    CHECK_TEXT(plan.tmp_template, "/a");
    CHECK_TEXT(plan.tmp_image_folder, "/b");
    CHECK(plan.host_network);
}

TEST(a_way_out_has_a_router_an_interface_two_addresses_and_an_mtu)
{
    CHECK_INT(READ(GOOD), 0);
    CHECK_INT(plan.egress.router_fd, -1);
    CHECK_INT(READ(GOOD, "--egress", "4", "w17", "198.18.1.5", "198.18.0.1", "1400"), 0);
    CHECK_INT(plan.egress.router_fd, 4);
    CHECK_TEXT(plan.egress.outside_name, "w17");
    CHECK_INT(ntohl(plan.egress.address.s_addr), 0xc6120105);
    CHECK_INT(ntohl(plan.egress.gateway.s_addr), 0xc6120001);
    CHECK_INT(plan.egress.mtu, 1400);
    CHECK_INT(READ(GOOD, "--egress", "4", "w17", "198.18.1.5", "198.18.0.1"), -EINVAL);
    CHECK_INT(READ(GOOD, "--egress", "x", "w17", "198.18.1.5", "198.18.0.1", "1400"), -EINVAL);
    CHECK_INT(READ(GOOD, "--egress", "4", "", "198.18.1.5", "198.18.0.1", "1400"), -EINVAL);
    CHECK_INT(READ(GOOD, "--egress", "4", "sixteen-letters-", "1.2.3.4", "1.2.3.5", "1400"),
              -EINVAL);
    CHECK_INT(READ(GOOD, "--egress", "4", "w17", "198.18.1", "198.18.0.1", "1400"), -EINVAL);
    CHECK_INT(READ(GOOD, "--egress", "4", "w17", "198.18.1.5", "::1", "1400"), -EINVAL);
    CHECK_INT(READ(GOOD, "--egress", "4", "w17", "198.18.1.5", "198.18.0.1", "67"), -EINVAL);
    CHECK_INT(
        READ(GOOD, "--egress", "4", "w17", "198.18.1.5", "198.18.0.1", "1400", "--host-network"),
        -EINVAL);
}

TEST(an_unknown_option_is_refused_by_name)
{
    CHECK_INT(READ(GOOD, "--privileged"), -EINVAL);
    CHECK_INT(err.step, SB_STEP_PLAN);
    CHECK_TEXT(err.detail, "--privileged");
}

TEST(a_missing_value_is_refused)
{
    CHECK_INT(READ(GOOD, "--ro-bind", "/usr"), -EINVAL);
    CHECK_INT(READ(GOOD, "--tmp-image", "/a"), -EINVAL);
    CHECK_INT(READ("--status-fd"), -EINVAL);
}

TEST(numbers_are_numbers_and_in_range)
{
    CHECK_INT(READ(GOOD, "--uid", "-1"), -EINVAL);
    CHECK_INT(READ(GOOD, "--uid", "4294967295"),
              -EINVAL); /* (uid_t)-1 means "unchanged" to setresuid */
    CHECK_INT(READ(GOOD, "--uid", "99999999999999999999"), -EINVAL);
    CHECK_INT(READ(GOOD, "--gid", "12x"), -EINVAL);
    CHECK_INT(READ(GOOD, "--gid", ""), -EINVAL);
    CHECK_INT(READ(GOOD, "--tmp-megabytes", "9999999999"), -EINVAL);
}

TEST(the_ids_of_root_are_refused_outside_a_user_namespace)
{
    CHECK_INT(READ(GOOD, "--uid", "0"), -EINVAL);
    CHECK_INT(READ(GOOD, "--gid", "0"), -EINVAL);
    CHECK_INT(READ("--status-fd", "3", "--root", "/m", "--hostname", "h", "--tmp-megabytes", "1",
                   "--shm-megabytes", "1"),
              -EINVAL);
    CHECK_INT(READ("--status-fd", "3", "--root", "/m", "--hostname", "h", "--tmp-megabytes", "1",
                   "--shm-megabytes", "1", "--user-namespace"),
              0);
}

TEST(a_path_cannot_lead_out_of_the_new_root)
{
    static const char *const bad[] = {"relative", "/", "/..", "/../x", "/a/../../b", "/a/..", ""};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK_INT(READ(GOOD, "--dir", (char *)bad[i]), -EINVAL);
    CHECK_INT(READ(GOOD, "--dir", "/..a/b..c/...", "--dir", "/.hidden"), 0);
}

TEST(a_path_that_is_too_long_is_refused)
{
    static char path[8192];

    memset(path, 'a', sizeof(path) - 1);
    path[0] = '/';
    CHECK_INT(READ(GOOD, "--dir", path), -EINVAL);
}

TEST(more_entries_than_fit_are_refused)
{
    static char *arguments[2 * MAX_ENTRIES + 32];
    size_t count = 0;
    char *const good[] = {(char *)"init", GOOD};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        arguments[count++] = good[i];
    for (int i = 0; i < MAX_ENTRIES; i++) {
        arguments[count++] = (char *)"--dir";
        arguments[count++] = (char *)"/a";
    }
    CHECK_INT(read_plan(arguments, count), 0);
    arguments[count++] = (char *)"--dir";
    arguments[count++] = (char *)"/a";
    CHECK_INT(read_plan(arguments, count), -EINVAL);
}

TEST(without_arguments_there_is_no_plan)
{
    CHECK_INT(read_plan(NULL, 0), -EINVAL);
    CHECK_INT(READ("--status-fd", "3"), -EINVAL);
}

RUN_TESTS()
