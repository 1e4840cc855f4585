/* What workers say, from arbitrary bytes. Each step is two bytes, what and how much, and what it
 * names: an event for a worker, bytes of a worker's, its true answer, output of its, its end.
 *
 * Whatever comes, a client gets its own answer or none, and what is odd goes to Python whole. */
#include "../door/internal.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WORKERS = 2, NONCE_AT = 16, HEAD = 32, ANSWER_HEAD = 56, RESULT = 18 };

struct client {
    struct fl_origin origin;
    unsigned char nonce[16];
    struct fl_call *call;
    int answers;
};

static struct fl_door *door;
static struct fl_pool *pool;
static struct fl_route *route;

/* An answer that a client gets is one that a worker gave to its own nonce: it holds it. */
static enum fl_verdict answered(struct fl_door *from, struct fl_call *call, unsigned char *payload,
                                size_t size, const struct fl_measures *measures)
{
    struct client *client = (struct client *)call->from;
    if (from != door || client->call != call || size > FL_INPUT_BYTES)
        __builtin_trap();
    if (measures->handler_ns < 0 || measures->handler_ns > measures->duration_ns ||
        measures->cpu_ns < 0 || measures->peak_kib < 0)
        __builtin_trap();
    memset(payload - FL_HEADROOM, 0, FL_HEADROOM); /* what is promised to be writable */
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += payload[i];
    client->answers += 1 + (sum == 0xFFFFFFFF);
    client->call = NULL;
    return FL_DONE;
}

static void adopted(struct fl_call *call)
{
    ((struct client *)call->from)->call = NULL;
}

static void set_up(void)
{
    door =
        fl_door_new(&(int64_t){1}, 1, &(struct fl_policy){50000, 1000000, 250000, 5000000, 10000});
    pool = fl_pool_new(7, 1000000000, 4, "$LATEST");
    fl_add_route(door, "f", 1, pool, "{}", 2, "", "");
    route = fl_table_get(&door->own->routes, "f", 1);
}

static void say(int fd, const uint8_t *data, size_t size)
{
    if (size > 0 && send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return; /* its channel is full: as if it had said nothing */
}

/* The answer as the guest would write it, with `payload`, and one byte of it changed. */
static void say_answer(int fd, const struct client *client, const uint8_t *payload, size_t size,
                       unsigned changed)
{
    uint8_t frame[ANSWER_HEAD + 256] = {0};
    uint32_t length = (uint32_t)(ANSWER_HEAD - HEAD + size);
    uint16_t kind = RESULT;
    memcpy(frame, &length, sizeof length);
    memcpy(frame + 4, &kind, sizeof kind);
    memcpy(frame + NONCE_AT, client->nonce, sizeof client->nonce);
    memcpy(frame + ANSWER_HEAD, payload, size);
    if (changed < ANSWER_HEAD)
        frame[changed] ^= 0x41;
    say(fd, frame, ANSWER_HEAD + size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (door == NULL)
        set_up();
    struct client clients[WORKERS] = {0};
    struct fl_worker *workers[WORKERS];
    int ends[WORKERS], logs[WORKERS], fds[2];
    pool->service_ns = -1;
    door->quiet_left = 2;
    for (int i = 0; i < WORKERS; i++) {
        int pipes[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0 ||
            pipe2(pipes, O_NONBLOCK | O_CLOEXEC) != 0)
            abort();
        workers[i] = fl_worker_new(80 + (uint64_t)i, pool, fds[0], pipes[0]);
        workers[i]->plain = 1;
        ends[i] = fds[1];
        logs[i] = pipes[1];
        clients[i].origin = (struct fl_origin){90 + (uint64_t)i, answered, adopted};
    }
    while (size >= 2) {
        unsigned what = data[0] & 7, i = (data[0] >> 3) % WORKERS, changed = data[0] >> 4;
        size_t amount = data[1];
        data += 2, size -= 2;
        if (amount > size)
            amount = size;
        struct client *client = &clients[i];
        struct fl_worker *worker = workers[i];
        if (what == 0 && worker->call == NULL && client->call == NULL && !worker->broken &&
            ends[i] >= 0) {
            fl_pool_rest(pool, worker, 1); /* it is the warmest: it gets it */
            if (fl_submit(door, route, &client->origin, 0, data, amount, 0, &client->call) ==
                FL_DONE)
                memcpy(client->nonce, client->call->nonce, sizeof client->nonce);
            else
                client->call = NULL;
            fl_pool_remove(pool, worker);
            char event[512];
            while (read(ends[i], event, sizeof event) > 0)
                ;
        } else if ((what == 1 || what == 2) && ends[i] >= 0) {
            say(ends[i], data, amount);
        } else if ((what == 3 || what == 4) && ends[i] >= 0) {
            say_answer(ends[i], client, data, amount, what == 3 ? ANSWER_HEAD : changed * 4);
        } else if (what == 5 && write(logs[i], data, amount) < 0) {
            break; /* its log is full */
        } else if (what == 6 && ends[i] >= 0 && amount == 0) {
            close(ends[i]);
            ends[i] = -1;
        }
        data += amount, size -= amount;
        if (what == 2 || what == 5)
            continue; /* more comes before anybody looks */
        int answers = client->answers;
        struct fl_call *call = worker->call;
        enum fl_verdict verdict = fl_worker_readable(door, worker);
        if (client->answers != answers && (call == NULL || worker->call == call))
            __builtin_trap();
        if (verdict == FL_PYTHON && worker->call != NULL) {
            unsigned sum = 0; /* all of it must be there to be read */
            for (size_t at = 0; at < door->input_size; at++)
                sum += door->input[at];
            worker->broken |= sum == 0xFFFFFFFF;
            fl_call_adopt(worker->call);
            fl_call_free(call);
            if (worker->call != NULL)
                __builtin_trap();
            pool->busy--; /* as Python would, when it has buried it */
            worker->plain = 0;
            worker->broken = 1;
        }
        fl_pool_remove(pool, worker);
    }
    struct fl_record records[8];
    while (fl_take_records(door, records, 8) > 0)
        ;
    for (int i = 0; i < WORKERS; i++) {
        if (workers[i]->call != NULL) {
            struct fl_call *call = workers[i]->call;
            fl_call_adopt(call);
            fl_call_free(call);
            pool->busy--;
        }
        if (clients[i].call != NULL)
            __builtin_trap();
        close(workers[i]->fd);
        close(workers[i]->log_fd);
        close(logs[i]);
        if (ends[i] >= 0)
            close(ends[i]);
        fl_pool_remove(pool, workers[i]);
        fl_worker_free(workers[i]);
    }
    if (pool->busy != 0 || pool->idle != 0 || pool->waiting != 0 || door->held != 0)
        __builtin_trap();
    return 0;
}
