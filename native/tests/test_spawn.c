#include "internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "harness.h"

static int count_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    CHECK(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* Runs `sh -c script` with its output on our pipe; fills `output`; returns the exit status. */
static int run_shell(const char *script, char *output, size_t size,
                     struct sb_spawn_request *request)
{
    char *arguments[] = {(char *)"/bin/sh", (char *)"-c", (char *)script, NULL};
    struct sb_error err = {0};
    siginfo_t info;
    int ends[2], pidfd, null;
    size_t length = 0;
    ssize_t got;

    CHECK_INT(pipe2(ends, O_CLOEXEC), 0);
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK(null >= 0);
    const int descriptors[] = {null, ends[1], null};
    request->program = "/bin/sh";
    request->arguments = arguments;
    request->descriptors = descriptors;
    request->descriptor_count = 3;
    request->die_with_parent = 1;
    pidfd = sb_spawn(request, &err);
    close(ends[1]);
    close(null);
    CHECK(pidfd >= 0);
    while (length < size - 1 && (got = read(ends[0], output + length, size - 1 - length)) > 0)
        length += (size_t)got;
    output[length] = '\0';
    close(ends[0]);
    CHECK_INT(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED), 0);
    close(pidfd);
    return info.si_status;
}

static int run_plain(const char *script, char *output, size_t size)
{
    struct sb_spawn_request request = {.cgroup = -1};

    return run_shell(script, output, size, &request);
}

TEST(a_program_runs_and_its_status_comes_back)
{
    char output[64];

    CHECK_INT(run_plain("echo hello; exit 7", output, sizeof(output)), 7);
    CHECK_TEXT(output, "hello\n");
}

TEST(the_environment_is_empty)
{
    char output[256];

    setenv("SECRET_OF_THE_PLATFORM", "1", 1);
    run_plain("tr '\\0' '\\n' < /proc/self/environ | grep -c SECRET", output, sizeof(output));
    CHECK_TEXT(output, "0\n");
}

TEST(no_other_descriptor_is_inherited)
{
    char output[256];
    int without_cloexec = open("/dev/null", O_RDONLY);

    CHECK(without_cloexec >= 0);
    run_plain("exec ls /proc/self/fd", output, sizeof(output)); /* 3 is ls's own */
    close(without_cloexec);
    CHECK_TEXT(output, "0\n1\n2\n3\n");
}

TEST(descriptors_that_overlap_their_targets_arrive_in_order)
{
    char *arguments[] = {(char *)"/bin/sh", (char *)"-c",
                         (char *)"test \"$(readlink /proc/$$/fd/0)\" = /dev/full && "
                                 "test \"$(readlink /proc/$$/fd/1)\" = /dev/zero",
                         NULL};
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    int full = open("/dev/full", O_RDONLY | O_CLOEXEC);
    int saved[2] = {dup(0), dup(1)};
    struct sb_error err = {0};
    siginfo_t info;
    int pidfd;

    /* Now descriptor 0 is zero and 1 is full, and the child wants them the other way round. */
    dup2(zero, 0);
    dup2(full, 1);
    const int descriptors[] = {1, 0, 2};
    struct sb_spawn_request request = {
        .program = "/bin/sh",
        .arguments = arguments,
        .descriptors = descriptors,
        .descriptor_count = 3,
        .cgroup = -1,
    };
    pidfd = sb_spawn(&request, &err);
    dup2(saved[0], 0);
    dup2(saved[1], 1);
    close(saved[0]), close(saved[1]), close(zero), close(full);
    CHECK(pidfd >= 0);
    CHECK_INT(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED), 0);
    close(pidfd);
    CHECK_INT(info.si_status, 0);
}

TEST(signals_are_as_a_new_program_expects_them)
{
    unsigned long long masked, ignored;
    char output[256];
    sigset_t blocked, before;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    run_plain("grep -E '^Sig(Blk|Ign)' /proc/self/status", output, sizeof(output));
    sigprocmask(SIG_SETMASK, &before, NULL);
    signal(SIGPIPE, SIG_DFL);
    /* Signals 32 and 33 are libc's own; a program that ignores them has inherited it. */
    CHECK_INT(sscanf(output, "SigBlk:\t%llx\nSigIgn:\t%llx", &masked, &ignored), 2);
    CHECK_INT(masked, 0);
    CHECK_INT(ignored & ~(3ULL << 31), 0);
}

TEST(the_callers_signal_mask_is_as_before)
{
    sigset_t before, after;
    char output[16];

    sigprocmask(SIG_SETMASK, NULL, &before);
    run_plain("true", output, sizeof(output));
    sigprocmask(SIG_SETMASK, NULL, &after);
    for (int number = 1; number < NSIG; number++)
        CHECK_INT(sigismember(&after, number), sigismember(&before, number));
}

TEST(a_missing_program_is_an_error_of_exec_and_leaves_nothing)
{
    char *arguments[] = {(char *)"/nonexistent", NULL};
    const int descriptors[] = {0, 1, 2};
    struct sb_spawn_request request = {
        .program = "/nonexistent",
        .arguments = arguments,
        .descriptors = descriptors,
        .descriptor_count = 3,
        .cgroup = -1,
    };
    struct sb_error err = {0};
    int before = count_descriptors();

    CHECK_INT(sb_spawn(&request, &err), -ENOENT);
    CHECK_INT(err.step, SB_STEP_EXEC);
    CHECK_TEXT(err.detail, "/nonexistent");
    CHECK_INT(count_descriptors(), before);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), -1); /* no zombie */
    CHECK_INT(errno, ECHILD);
}

TEST(a_bad_descriptor_is_an_error_of_descriptors)
{
    char *arguments[] = {(char *)"/bin/true", NULL};
    const int descriptors[] = {0, 1, 999};
    struct sb_spawn_request request = {
        .program = "/bin/true",
        .arguments = arguments,
        .descriptors = descriptors,
        .descriptor_count = 3,
        .cgroup = -1,
    };
    struct sb_error err = {0};

    CHECK_INT(sb_spawn(&request, &err), -EBADF);
    CHECK_INT(err.step, SB_STEP_DESCRIPTORS);
}

TEST(a_cgroup_that_cannot_be_joined_is_an_error)
{
    char *arguments[] = {(char *)"/bin/true", NULL};
    const int descriptors[] = {0, 1, 2};
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    struct sb_spawn_request request = {
        .program = "/bin/true",
        .arguments = arguments,
        .descriptors = descriptors,
        .descriptor_count = 3,
        .tasks = &full,
        .tasks_count = 1,
        .cgroup = -1,
    };
    struct sb_error err = {0};
    int result = sb_spawn(&request, &err);

    close(full);
    CHECK_INT(result, -ENOSPC);
    CHECK_INT(err.step, SB_STEP_JOIN_CGROUP);
}

TEST(too_many_descriptors_are_refused)
{
    int descriptors[17] = {0};
    struct sb_spawn_request request = {
        .program = "/bin/true",
        .descriptors = descriptors,
        .descriptor_count = 17,
        .cgroup = -1,
    };
    struct sb_error err = {0};

    CHECK_INT(sb_spawn(&request, &err), -EINVAL);
    CHECK_INT(err.step, SB_STEP_PLAN);
}

TEST(a_pid_namespace_makes_the_program_its_first_process)
{
    struct sb_spawn_request request = {.cgroup = -1, .namespaces = CLONE_NEWPID};
    char output[64];

    if (geteuid() != 0)
        SKIP("needs root: a pid namespace");
    run_shell("echo $$", output, sizeof(output), &request);
    CHECK_TEXT(output, "1\n");
}

/* A parent that ends takes its children along, also those that ignore every signal they can. */
TEST(a_program_dies_with_its_parent)
{
    char *arguments[] = {(char *)"/bin/sleep", (char *)"1000", NULL};
    const int descriptors[] = {0, 1, 2};
    struct sb_spawn_request request = {
        .program = "/bin/sleep",
        .arguments = arguments,
        .descriptors = descriptors,
        .descriptor_count = 3,
        .cgroup = -1,
        .die_with_parent = 1,
    };
    int orphans;
    pid_t parent, orphan;

    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0); /* so that the orphan comes to us */
    parent = fork();
    if (parent == 0) {
        struct sb_error err = {0};

        _exit(sb_spawn(&request, &err) < 0 ? 1 : 0);
    }
    CHECK_INT(waitpid(parent, &orphans, 0), parent);
    CHECK_INT(orphans, 0);
    orphan = waitpid(-1, &orphans, 0);
    CHECK(orphan > 0);
    CHECK(WIFSIGNALED(orphans) && WTERMSIG(orphans) == SIGKILL);
}

TEST(hundreds_of_spawns_leave_no_descriptor_and_no_process)
{
    int before = count_descriptors();
    char output[16];

    for (int i = 0; i < 300; i++)
        run_plain("exit 0", output, sizeof(output));
    CHECK_INT(count_descriptors(), before);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), -1);
}

RUN_TESTS()
