/* What this machine itself can do, in C, with nothing of ours. Prints one line of JSON:
 * microseconds, p50 and p99 of each.
 *
 *   primitives [COUNT] [MEGABYTES]
 *
 * A clone is timed from the call to the child's first byte; the child then waits to be killed, so
 * that its own end is not in the figure. MEGABYTES is the touched memory of the large process;
 * "remapped" means that the same pages are a private mapping of a file in memory, whose page tables
 * a clone need not copy. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 100

static int count = 1000;
static const char *separator = "{";

static void die(const char *what)
{
    fprintf(stderr, "primitives: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *name, double *times, int n)
{
    qsort(times, (size_t)n, sizeof *times, by_value);
    printf("%s\"%s\": [%.2f, %.2f]", separator, name, times[n / 2], times[n * 99 / 100]);
    separator = ", ";
}

static void write_all(int fd, const char *data, size_t length)
{
    if (write(fd, data, length) != (ssize_t)length)
        die("write");
}

static void read_all(int fd, char *data, size_t length)
{
    size_t have = 0;

    while (have < length) {
        ssize_t n = read(fd, data + have, length - have);
        if (n <= 0)
            _exit(0);
        have += (size_t)n;
    }
}

/* Sends MESSAGE bytes to a child that sends them back, `count` times. */
static void round_trips(const char *name, int ours, int theirs)
{
    double *times = malloc((size_t)count * sizeof *times);
    char data[MESSAGE] = {0};
    pid_t child = fork();
    int i;

    if (child < 0 || !times)
        die("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ours);
        for (;;) {
            read_all(theirs, data, sizeof data);
            write_all(theirs, data, sizeof data);
        }
    }
    close(theirs);
    for (i = -count / 10; i < count; i++) {
        double start = now_us();
        write_all(ours, data, sizeof data);
        read_all(ours, data, sizeof data);
        if (i >= 0)
            times[i] = now_us() - start;
    }
    close(ours);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    report(name, times, count);
    free(times);
}

static void socketpair_round_trips(void)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        die("socketpair");
    round_trips("socketpair round trip, C", pair[0], pair[1]);
}

static void loopback_round_trips(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), ours = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    int theirs;

    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0 ||
        connect(ours, (struct sockaddr *)&address, length) < 0)
        die("loopback");
    theirs = accept(listener, NULL, NULL);
    setsockopt(ours, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(theirs, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
    round_trips("loopback TCP echo, C", ours, theirs);
}

/* One child, from the call to its first byte. */
static double clone_once(uint64_t flags)
{
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD};
    char byte = 'x';
    double start, took;
    int pair[2];
    pid_t child;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        die("socketpair");
    start = now_us();
    child = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        write_all(pair[1], &byte, 1);
        pause();
        _exit(0);
    }
    if (child < 0)
        return -1;
    read_all(pair[0], &byte, 1);
    took = now_us() - start;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(pair[0]);
    close(pair[1]);
    return took;
}

static void clones(const char *name, uint64_t flags, int n)
{
    double *times = malloc((size_t)n * sizeof *times);
    int i;

    if (!times)
        die("malloc");
    for (i = -n / 10; i < n; i++) {
        double took = clone_once(flags);
        if (took < 0) { /* not allowed to an ordinary user: the figure is left out */
            free(times);
            return;
        }
        if (i >= 0)
            times[i] = took;
    }
    report(name, times, n);
    free(times);
}

/* The same pages, mapped from a file in memory instead. */
static void remap(char *memory, size_t size)
{
    int fd = memfd_create("primitives", MFD_CLOEXEC);
    size_t done = 0;

    while (fd >= 0 && done < size) {
        ssize_t n = write(fd, memory + done, size - done);
        if (n <= 0)
            die("write to the memfd");
        done += (size_t)n;
    }
    if (fd < 0 ||
        mmap(memory, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) != memory)
        die("remap");
    close(fd);
}

int main(int argc, char **argv)
{
    size_t size;
    char *memory;

    count = argc > 1 ? atoi(argv[1]) : count;
    size = (size_t)(argc > 2 ? atoi(argv[2]) : 95) << 20;
    if (count < 10 || size == 0)
        return 2;
    socketpair_round_trips();
    loopback_round_trips();
    clones("clone of a bare C process", 0, count);
    clones("clone with namespaces (pid, mount, ipc, uts)",
           CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS, count);
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    madvise(memory, size, MADV_NOHUGEPAGE);
    memset(memory, 'x', size);
    clones("clone of a large C process", 0, count / 5);
    remap(memory, size);
    clones("clone of the large C process, remapped", 0, count / 5);
    printf("}\n");
    return 0;
}
