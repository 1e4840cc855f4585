/* A door with a pool, workers and clients, all at the ends of socket pairs. */
#ifndef FAST_RIG_H
#define FAST_RIG_H

#include "../door/internal.h"

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORKERS = 3, CLIENTS = 5, RESULT = 18 };

static const char request[] = "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";

/* What a worker says. */
struct __attribute__((packed)) saying {
    uint32_t length;
    uint16_t kind;
    uint16_t meta;
    uint64_t aux;
    unsigned char nonce[16];
    uint64_t measures[3];
    char payload[70000];
};

static struct {
    struct fl_door *door;
    struct fl_pool *pool;
    struct fl_worker *workers[WORKERS];
    struct fl_http *clients[CLIENTS];
    int worker_fds[WORKERS]; /* the other ends */
    int log_fds[WORKERS];
    int client_fds[CLIENTS];
} rig;

static struct saying saying;
static char seen[100000];

static inline void open_pair(int fds[2])
{
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static inline void begin(int idle)
{
    static const int64_t bounds[] = {1000, 1000000};
    int fds[2];
    const struct fl_policy policy = {.round_trip_ns = 50000,
                                     .patience_ns = 1000000,
                                     .widen_ns = 250000,
                                     .start_ns = 5000000,
                                     .most_waiting = 10000};
    rig.door = fl_door_new(bounds, 2, &policy);
    rig.pool = fl_pool_new(70, 3000000000, 2, "$LATEST");
    CHECK(rig.door != NULL && rig.pool != NULL);
    fl_set_date(rig.door, "Date: d\r\n", 9);
    fl_set_open_region(rig.door, "r");
    fl_add_route(rig.door, "r\n/f", 4, rig.pool, "{\"arn\":1}", 9, "/f", "");
    rig.door->quiet_left = 100;
    for (int i = 0; i < WORKERS; i++) {
        open_pair(fds);
        int pipes[2];
        CHECK_INT(pipe2(pipes, O_NONBLOCK | O_CLOEXEC), 0);
        rig.workers[i] = fl_worker_new(80 + (uint64_t)i, rig.pool, fds[0], pipes[0]);
        rig.worker_fds[i] = fds[1];
        rig.log_fds[i] = pipes[1];
        rig.workers[i]->plain = 1;
    }
    for (int i = idle; i-- > 0;) /* the first is the warmest */
        fl_pool_rest(rig.pool, rig.workers[i], 1);
    for (int i = 0; i < CLIENTS; i++) {
        open_pair(fds);
        rig.clients[i] = fl_http_new(90 + (uint64_t)i, fds[0]);
        rig.client_fds[i] = fds[1];
    }
}

/* Adopts what is under way, as Python would. */
static inline void end(void)
{
    for (int i = 0; i < CLIENTS; i++) {
        struct fl_call *call = rig.clients[i]->call;
        if (call != NULL) {
            fl_call_adopt(call);
            fl_call_free(call);
        }
        CHECK(rig.clients[i]->call == NULL);
        close(rig.clients[i]->fd);
        close(rig.client_fds[i]);
        fl_http_free(rig.clients[i]);
    }
    CHECK(rig.pool->first == NULL && rig.pool->last == NULL);
    CHECK_INT(rig.pool->waiting, 0);
    for (int i = 0; i < WORKERS; i++) {
        CHECK(rig.workers[i]->call == NULL);
        fl_pool_remove(rig.pool, rig.workers[i]);
        close(rig.workers[i]->fd);
        close(rig.workers[i]->log_fd);
        if (rig.worker_fds[i] >= 0)
            close(rig.worker_fds[i]);
        close(rig.log_fds[i]);
        fl_worker_free(rig.workers[i]);
    }
    CHECK_INT(rig.pool->idle, 0);
    CHECK(rig.pool->warmest == NULL && rig.pool->coldest == NULL);
    fl_door_free(rig.door);
    fl_pool_free(rig.pool);
}

/* Its own memory, so that a byte too far is found out. */
static inline enum fl_verdict receive(int client, const char *data, size_t size)
{
    char *copy = malloc(size + (size == 0));
    memcpy(copy, data, size);
    enum fl_verdict verdict = fl_http_received(rig.door, rig.clients[client], copy, size);
    free(copy);
    return verdict;
}

static inline enum fl_verdict ask(int client)
{
    return receive(client, request, sizeof request - 1);
}

/* The frame that a worker got: prepares the answer to it. 0: it got none. */
static inline ssize_t take_event(int worker)
{
    ssize_t size = read(rig.worker_fds[worker], seen, sizeof seen);
    if (size < 0)
        return 0;
    CHECK(size >= 32 + 9);
    memset(&saying, 0, sizeof saying);
    memcpy(saying.nonce, seen + 16, 16);
    saying.kind = RESULT;
    saying.length = 24 + 2;
    memcpy(saying.payload, "{}", 2);
    return size;
}

static inline enum fl_verdict say(int worker, size_t size)
{
    CHECK_INT(write(rig.worker_fds[worker], &saying, size), size);
    return fl_worker_readable(rig.door, rig.workers[worker]);
}

static inline enum fl_verdict answer(int worker)
{
    CHECK(take_event(worker) > 0);
    return say(worker, 32 + 24 + 2);
}

/* What the client got; it ends with a zero. */
static inline size_t take_answer(int client)
{
    ssize_t size = read(rig.client_fds[client], seen, sizeof seen - 1);
    if (size < 0)
        size = 0;
    seen[size] = '\0';
    return (size_t)size;
}

/* Three calls wait behind a short one. */
static inline void let_three_wait(void)
{
    begin(1);
    rig.pool->service_ns = 1000;
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(ask(1), FL_WAITING);
    CHECK_INT(rig.door->pool, 70);
    rig.pool->armed = 1;
    CHECK_INT(ask(2), FL_DONE);
    CHECK_INT(ask(3), FL_DONE);
    CHECK_INT(rig.pool->waiting, 3);
    CHECK_INT(rig.pool->oldest_waiting, rig.clients[1]->call->admitted_ns);
}

#endif
