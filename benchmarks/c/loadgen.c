/* HTTP/1.1 keep-alive load from one thread, so that a slow client is never mistaken for a slow
 * server.
 *
 *   loadgen -p PORT -r REQUEST_FILE [-c CONNECTIONS] [-s SECONDS] [-w WARMUP_SECONDS] [-R RATE] [-e
 * EXPECT]
 *
 * REQUEST_FILE holds one whole request (head and body), sent again and again as it is: a signed
 * request stays valid for minutes. Without -R the loop is closed: each connection sends its next
 * request when the answer is complete. With -R the loop is open: requests are due at RATE per
 * second whatever the server does, and a latency counts from the moment a request was DUE, not from
 * the moment a free connection could send it (no coordinated omission). -e: a successful answer's
 * body must contain this text. Prints one line of JSON; times in microseconds. */
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

#define MAX_CONNECTIONS 4096
#define MAX_BACKLOG     (1 << 20)

struct samples {
    uint32_t *us10; /* tenths of a microsecond */
    size_t count, room;
};

static struct {
    int port, connections;
    double seconds, warmup, rate;
    const char *expect;
    char *request;
    size_t request_length;
} options = {.connections = 1, .seconds = 2.0, .warmup = 0.3, .expect = ""};

static struct connection *all;
static struct samples samples;
static uint64_t errors, measuring_from;
static uint64_t backlog[MAX_BACKLOG]; /* due times nobody could send yet (ring) */
static size_t backlog_head, backlog_count;

static void record(uint64_t nanoseconds)
{
    if (samples.count == samples.room) {
        samples.room = samples.room ? samples.room * 2 : 1 << 16;
        samples.us10 = realloc(samples.us10, samples.room * sizeof *samples.us10);
        if (!samples.us10)
            die("realloc");
    }
    samples.us10[samples.count++] = (uint32_t)(nanoseconds / 100);
}

static void send_request(struct connection *c, uint64_t due)
{
    c->due_ns = due;
    if (client_send(c, options.request, options.request_length) < 0) {
        errors++;
        client_connect(c, options.port);
    }
}

static void finish(struct connection *c)
{
    uint64_t now = now_ns();

    c->busy = 0;
    if (!client_succeeded(c, options.expect, strlen(options.expect))) {
        errors++;
        client_show_error(c);
    } else if (c->due_ns >= measuring_from) {
        record(now - c->due_ns);
    }
}

static int receive(struct connection *c)
{
    int done = client_receive(c);

    if (done < 0) {
        errors++;
        client_connect(c, options.port);
    }
    return done;
}

/* One connection, closed loop: blocking reads, the least a client can cost. */
static void run_single(uint64_t until)
{
    while (now_ns() < until) {
        int done = 0;
        send_request(&all[0], now_ns());
        while (all[0].busy && !done)
            done = receive(&all[0]) > 0;
        if (done)
            finish(&all[0]);
    }
}

static void push_due(uint64_t due)
{
    if (backlog_count == MAX_BACKLOG) {
        errors++;
        return;
    }
    backlog[(backlog_head + backlog_count++) % MAX_BACKLOG] = due;
}

static uint64_t pop_due(void)
{
    uint64_t due = backlog[backlog_head];
    backlog_head = (backlog_head + 1) % MAX_BACKLOG;
    backlog_count--;
    return due;
}

static int watch_all(void)
{
    int poll_fd = epoll_create1(EPOLL_CLOEXEC), i;

    for (i = 0; i < options.connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, all[i].fd, &event) < 0)
            die("epoll_ctl");
    }
    return poll_fd;
}

/* Sends what is due on free connections. */
static void send_due(uint64_t *next_due, uint64_t gap, uint64_t until)
{
    uint64_t now = now_ns();
    int i;

    for (; gap && *next_due <= now && *next_due < until; *next_due += gap)
        push_due(*next_due);
    for (i = 0; i < options.connections && backlog_count; i++)
        if (!all[i].busy)
            send_request(&all[i], pop_due());
}

static void run_many(uint64_t until)
{
    struct epoll_event events[64];
    uint64_t gap = options.rate > 0 ? (uint64_t)(1e9 / options.rate) : 0, next_due = now_ns();
    uint64_t patience = until + 5000000000ull;
    int poll_fd = watch_all(), i, n, outstanding = 1;

    for (i = 0; i < options.connections && !gap; i++)
        send_request(&all[i], now_ns());
    while (now_ns() < until || (outstanding && now_ns() < patience)) {
        send_due(&next_due, gap, until);
        n = sleep_until(poll_fd, events, 64,
                        gap && next_due < until ? next_due : now_ns() + 10000000);
        for (i = 0; i < n; i++) {
            struct connection *c = &all[events[i].data.u32];
            int done = receive(c);
            if (done < 0) {
                struct epoll_event again = {.events = EPOLLIN, .data = events[i].data};
                epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &again);
            }
            if (done > 0)
                finish(c);
            if (!gap && !c->busy && now_ns() < until)
                send_request(c, now_ns());
        }
        outstanding = backlog_count > 0;
        for (i = 0; i < options.connections; i++)
            outstanding |= all[i].busy;
    }
    errors += backlog_count;
    for (i = 0; i < options.connections; i++)
        errors += (uint64_t)all[i].busy;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double p)
{
    size_t index = (size_t)(p / 100.0 * (double)samples.count);
    if (!samples.count)
        return 0;
    return samples.us10[index < samples.count ? index : samples.count - 1] / 10.0;
}

static void report(double seconds)
{
    double sum = 0;
    size_t i;

    for (i = 0; i < samples.count; i++)
        sum += samples.us10[i] / 10.0;
    qsort(samples.us10, samples.count, sizeof *samples.us10, by_value);
    printf(
        "{\"requests\": %zu, \"errors\": %llu, \"seconds\": %.3f, \"rps\": %.1f, \"mean\": %.1f, "
        "\"min\": %.1f, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": "
        "%.1f}\n",
        samples.count, (unsigned long long)errors, seconds, (double)samples.count / seconds,
        samples.count ? sum / (double)samples.count : 0, percentile(0), percentile(50),
        percentile(90), percentile(99), percentile(99.9), percentile(100));
}

static void read_request(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0)
        die(path);
    options.request_length = (size_t)status.st_size;
    options.request = malloc(options.request_length + 1);
    if (!options.request || read(fd, options.request, options.request_length) != status.st_size)
        die(path);
    close(fd);
}

static void parse(int argc, char **argv)
{
    int option;

    while ((option = getopt(argc, argv, "p:r:c:s:w:R:e:")) != -1) {
        switch (option) {
        case 'p':
            options.port = atoi(optarg);
            break;
        case 'r':
            read_request(optarg);
            break;
        case 'c':
            options.connections = atoi(optarg);
            break;
        case 's':
            options.seconds = atof(optarg);
            break;
        case 'w':
            options.warmup = atof(optarg);
            break;
        case 'R':
            options.rate = atof(optarg);
            break;
        case 'e':
            options.expect = optarg;
            break;
        default:
            exit(2);
        }
    }
    if (!options.port || !options.request || options.connections < 1 ||
        options.connections > MAX_CONNECTIONS) {
        fprintf(stderr,
                "usage: loadgen -p PORT -r FILE [-c N] [-s S] [-w S] [-R RATE] [-e TEXT]\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    uint64_t start, until;
    int i;

    parse(argc, argv);
    all = calloc((size_t)options.connections, sizeof *all);
    if (!all)
        die("calloc");
    for (i = 0; i < options.connections; i++)
        client_connect(&all[i], options.port);
    /* The default slack of 50 us would be part of every open-loop latency. */
    prctl(PR_SET_TIMERSLACK, 1ul);
    start = now_ns();
    measuring_from = start + (uint64_t)(options.warmup * 1e9);
    until = measuring_from + (uint64_t)(options.seconds * 1e9);
    if (options.connections == 1 && options.rate <= 0)
        run_single(until);
    else
        run_many(until);
    report(options.seconds);
    return errors && !samples.count;
}
