/* Open loop: many kinds of requests, each due at a given time whatever the server does.
 *
 *   openloop -p PORT -t TARGETS -i SCHEDULE -o RESULTS [-c CONNECTIONS] [-s SECONDS]
 *
 * TARGETS: for each kind of request the lengths of the request and of the text that a successful
 * answer's body contains (two uint32), then both. SCHEDULE: for each request when it is due, in
 * nanoseconds after the start, and its kind (two uint64), in order of time. RESULTS: for each
 * request two uint64: nanoseconds from when it was DUE to its answer, and from when it was due to
 * when it went out. A request goes out late when no connection is free or this program is slow;
 * both are part of its latency (no coordinated omission). 0 = answered with an error or not at all;
 * ~0 = not sent, or not answered when time was over. -s: stop then, else 10 s after the last is
 * due. A schedule with everything due at 0 is a closed loop over all connections. All little
 * endian. */
#define _GNU_SOURCE
#include "http_client.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_CONNECTIONS 8192
#define PATIENCE_NS     10000000000ull

struct target {
    const char *request, *expect;
    uint32_t request_length, expect_length;
};

struct due {
    uint64_t after_ns, target;
};

struct result {
    uint64_t latency_ns, delay_ns;
};

static struct {
    int port, connections;
    double seconds;
    const char *targets, *schedule, *results;
} options = {.connections = 64};

static struct target *targets;
static size_t target_count, due_count;
static struct due *schedule;
static struct result *results;
static struct connection *all;
static int idle[MAX_CONNECTIONS]; /* ring: the one that rested longest goes first */
static int idle_head, idle_count;
static size_t finished;

static char *read_whole(const char *path, size_t *length)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    size_t have = 0;
    char *data;

    if (fd < 0 || fstat(fd, &status) < 0)
        die(path);
    *length = (size_t)status.st_size;
    data = malloc(*length + 1);
    while (data && have < *length) {
        ssize_t n = read(fd, data + have, *length - have);
        if (n <= 0)
            die(path);
        have += (size_t)n;
    }
    close(fd);
    return data ? data : (die(path), NULL);
}

static void read_targets(void)
{
    size_t length, at = 0;
    char *data = read_whole(options.targets, &length);

    targets = calloc(length / 8 + 1, sizeof *targets);
    if (!targets)
        die("calloc");
    while (at + 8 <= length) {
        struct target *t = &targets[target_count++];
        memcpy(&t->request_length, data + at, 4);
        memcpy(&t->expect_length, data + at + 4, 4);
        t->request = data + at + 8;
        t->expect = t->request + t->request_length;
        at += 8 + (size_t)t->request_length + t->expect_length;
    }
    if (!target_count || at != length)
        die("the targets are cut off");
}

static void read_schedule(void)
{
    size_t length, i;

    schedule = (struct due *)(void *)read_whole(options.schedule, &length);
    due_count = length / sizeof *schedule;
    results = malloc(due_count * sizeof *results + 1);
    if (!results || !due_count)
        die("schedule");
    memset(results, 0xff, due_count * sizeof *results);
    for (i = 0; i < due_count; i++)
        if (schedule[i].target >= target_count)
            die("the schedule names a target that is not there");
}

static void write_results(void)
{
    FILE *file = fopen(options.results, "wb");

    if (!file || fwrite(results, sizeof *results, due_count, file) != due_count || fclose(file))
        die(options.results);
}

static void connect_and_watch(int poll_fd, struct connection *c)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)(c - all)};

    client_connect(c, options.port);
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void rest(const struct connection *c)
{
    idle[(idle_head + idle_count++) % options.connections] = (int)(c - all);
}

static void finish(const struct connection *c, int answered)
{
    const struct target *t = &targets[schedule[c->what].target];
    int good = answered && client_succeeded(c, t->expect, t->expect_length);

    results[c->what].latency_ns = good ? now_ns() - c->due_ns : 0;
    finished++;
    if (answered && !good)
        client_show_error(c);
}

static void send_one(int poll_fd, size_t which, uint64_t start, uint64_t now)
{
    struct connection *c = &all[idle[idle_head]];
    const struct target *t = &targets[schedule[which].target];

    idle_head = (idle_head + 1) % options.connections;
    idle_count--;
    c->what = which;
    c->due_ns = start + schedule[which].after_ns;
    results[which].delay_ns = now - c->due_ns;
    if (client_send(c, t->request, t->request_length) < 0) {
        finish(c, 0);
        connect_and_watch(poll_fd, c);
        rest(c);
    }
}

static void on_answer(int poll_fd, struct connection *c)
{
    int was_busy = c->busy, done = client_receive(c);

    if (done < 0)
        connect_and_watch(poll_fd, c);
    if (done == 0 || !was_busy) /* an idle connection that was closed keeps its place in the ring */
        return;
    finish(c, done > 0);
    c->busy = 0;
    rest(c);
}

static void run(int poll_fd)
{
    struct epoll_event events[64];
    uint64_t start = now_ns(), now = start;
    uint64_t end = options.seconds > 0 ? start + (uint64_t)(options.seconds * 1e9)
                                       : start + schedule[due_count - 1].after_ns + PATIENCE_NS;
    size_t next = 0;
    int i, n;

    while (finished < due_count && now < end) {
        /* Whenever sending takes long the clock is read again, or a delay would be too small. */
        for (; next < due_count && idle_count && start + schedule[next].after_ns <= now;
             now = now_ns())
            send_one(poll_fd, next++, start, now);
        n = sleep_until(poll_fd, events, 64,
                        next < due_count && idle_count ? start + schedule[next].after_ns
                                                       : now + 10000000);
        for (i = 0; i < n; i++)
            on_answer(poll_fd, &all[events[i].data.u32]);
        now = now_ns();
    }
    printf("{\"seconds\": %.6f}\n", (double)(now - start) / 1e9);
}

int main(int argc, char **argv)
{
    int option, i, poll_fd = epoll_create1(EPOLL_CLOEXEC);

    while ((option = getopt(argc, argv, "p:t:i:o:c:s:")) != -1) {
        if (option == 'p')
            options.port = atoi(optarg);
        else if (option == 't')
            options.targets = optarg;
        else if (option == 'i')
            options.schedule = optarg;
        else if (option == 'o')
            options.results = optarg;
        else if (option == 'c')
            options.connections = atoi(optarg);
        else if (option == 's')
            options.seconds = atof(optarg);
        else
            return 2;
    }
    if (!options.port || !options.targets || !options.schedule || !options.results ||
        options.connections < 1 || options.connections > MAX_CONNECTIONS) {
        fprintf(stderr,
                "usage: openloop -p PORT -t TARGETS -i SCHEDULE -o RESULTS [-c N] [-s S]\n");
        return 2;
    }
    read_targets();
    read_schedule();
    all = calloc((size_t)options.connections, sizeof *all);
    if (!all || poll_fd < 0)
        die("start");
    for (i = 0; i < options.connections; i++) {
        connect_and_watch(poll_fd, &all[i]);
        rest(&all[i]);
    }
    /* The default slack of 50 us would be part of every latency. */
    prctl(PR_SET_TIMERSLACK, 1ul);
    run(poll_fd);
    write_results();
    return 0;
}
