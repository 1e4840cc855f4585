/* Pools, workers and calls: which worker runs a call, and what becomes of its answer. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of the worker's channel: sandbox/channel.py. All integers are little endian. */
enum { INVOKE = 2, REHEARSE = 3, RESULT = 18 };

struct __attribute__((packed)) head {
    uint32_t length; /* of what follows the header */
    uint16_t kind;
    uint16_t meta_size;
    uint64_t aux; /* INVOKE: the deadline, epoch ms */
    unsigned char nonce[16];
};

struct __attribute__((packed)) answer_head {
    struct head head;
    uint64_t handler_ns;
    uint64_t cpu_ns;
    uint64_t peak_kib;
};

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the channel's integers are little endian"
#endif

/* ---- pools: the list of idle workers, the queue of waiting calls ---------------------------- */

struct fl_pool *fl_pool_new(uint64_t handle, int64_t timeout_ns, uint32_t eager,
                            const char *version)
{
    struct fl_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return NULL;
    pool->handle = handle;
    pool->timeout_ns = timeout_ns;
    pool->eager = eager;
    pool->service_ns = -1;
    strncpy(pool->version, version, sizeof pool->version - 1);
    return pool;
}

void fl_pool_free(struct fl_pool *pool)
{
    free(pool);
}

void fl_pool_rest(struct fl_pool *pool, struct fl_worker *worker, int warm)
{
    if (worker->listed)
        return;
    worker->listed = 1;
    worker->warmer = warm ? NULL : pool->coldest;
    worker->colder = warm ? pool->warmest : NULL;
    if (worker->warmer != NULL)
        worker->warmer->colder = worker;
    else
        pool->warmest = worker;
    if (worker->colder != NULL)
        worker->colder->warmer = worker;
    else
        pool->coldest = worker;
    pool->idle++;
}

void fl_pool_remove(struct fl_pool *pool, struct fl_worker *worker)
{
    if (!worker->listed)
        return;
    worker->listed = 0;
    if (worker->warmer != NULL)
        worker->warmer->colder = worker->colder;
    else
        pool->warmest = worker->colder;
    if (worker->colder != NULL)
        worker->colder->warmer = worker->warmer;
    else
        pool->coldest = worker->warmer;
    worker->warmer = worker->colder = NULL;
    pool->idle--;
}

static void enqueue(struct fl_pool *pool, struct fl_call *call)
{
    if (pool->last != NULL)
        pool->last->next = call;
    else
        pool->first = call;
    pool->last = call;
    call->queued = 1;
    pool->waiting++;
    pool->oldest_waiting = pool->first->admitted_ns;
}

static void unqueue(struct fl_pool *pool, struct fl_call *call)
{
    struct fl_call *before = NULL;
    for (struct fl_call *at = pool->first; at != call; at = at->next)
        before = at;
    if (before != NULL)
        before->next = call->next;
    else
        pool->first = call->next;
    if (pool->last == call)
        pool->last = before;
    call->next = NULL;
    call->queued = 0;
    pool->waiting--;
    pool->oldest_waiting = pool->first != NULL ? pool->first->admitted_ns : 0;
}

/* As many workers run as a door can feed: it starts one call per round trip, and each is busy for
 * as long as its handler takes. One more would have to be woken, with cold caches, to serve no
 * sooner than one of these. */
int fl_pool_is_crowded(const struct fl_door *door, const struct fl_pool *pool)
{
    return pool->service_ns >= 0 &&
           pool->busy >= pool->eager + pool->service_ns / door->policy.round_trip_ns;
}

static int is_overdue(const struct fl_door *door, const struct fl_pool *pool, int64_t now)
{
    return pool->first != NULL && now - pool->first->admitted_ns >= door->policy.patience_ns;
}

/* Whether an idle worker takes what comes, rather than one of the busy ones when it is done. One
 * more at a time while calls wait too long: a pause of the whole machine must not set all of them
 * to work. */
static int may_wake(const struct fl_door *door, const struct fl_pool *pool, int64_t now)
{
    return !fl_pool_is_crowded(door, pool) ||
           (is_overdue(door, pool, now) && now - pool->widened >= door->policy.widen_ns);
}

/* Whether a worker that has answered takes what waits, rather than resting and leaving it to the
 * others. */
static int may_go_on(const struct fl_door *door, const struct fl_pool *pool, int64_t now)
{
    return !fl_pool_is_crowded(door, pool) || is_overdue(door, pool, now);
}

/* ---- calls ---------------------------------------------------------------------------------- */

static void forget_event(struct fl_call *call)
{
    if (call->frame != NULL)
        call->door->held -= call->meta_size + call->size;
    free(call->frame);
    call->frame = call->payload = NULL;
}

void fl_call_free(struct fl_call *call)
{
    if (call != NULL)
        forget_event(call);
    free(call);
}

void fl_call_adopt(struct fl_call *call)
{
    if (call->queued)
        unqueue(call->pool, call);
    if (call->worker != NULL)
        call->worker->call = NULL;
    call->from->adopted(call);
}

/* Writes the event to the worker's channel. 0: nothing of it will run there; the worker is in no
 * list any more, and Python learns from the end of its channel that it is gone. */
static int start(struct fl_door *door, struct fl_worker *worker, struct fl_call *call,
                 const char *meta, size_t meta_size, const unsigned char *payload, size_t size,
                 int64_t now)
{
    struct fl_pool *pool = worker->pool;
    int64_t limit = now + pool->timeout_ns;
    if (call->limit_ns != 0 && call->limit_ns < limit)
        limit = call->limit_ns;
    worker->started_ns = now;
    worker->started_ms = fl_epoch_ms();
    worker->deadline_ns = limit;
    unsigned char *frame = door->own->frame;
    struct head head = {
        .length = (uint32_t)(meta_size + size),
        .kind = INVOKE,
        .meta_size = (uint16_t)meta_size,
        .aux = (uint64_t)(worker->started_ms + (limit - now) / 1000000),
    };
    memcpy(head.nonce, call->nonce, sizeof head.nonce);
    memcpy(frame, &head, sizeof head);
    memcpy(frame + sizeof head, meta, meta_size);
    memcpy(frame + sizeof head + meta_size, payload, size);
    size_t total = sizeof head + meta_size + size;
    ssize_t written;
    do
        written = send(worker->fd, frame, total, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (written < 0 && errno == EINTR);
    if (written != (ssize_t)total) {
        /* Dead; or, which an idle worker's empty channel rules out, it took a part: then it must
         * not go on. */
        worker->broken = 1;
        worker->plain = 0;
        shutdown(worker->fd, SHUT_RDWR);
        return 0;
    }
    worker->call = call;
    call->worker = worker;
    if (fl_pool_is_crowded(door, pool))
        pool->widened = now;
    pool->busy++;
    return 1;
}

static int start_oldest(struct fl_door *door, struct fl_worker *worker, int64_t now)
{
    struct fl_pool *pool = worker->pool;
    struct fl_call *call = pool->first;
    if (!start(door, worker, call, (const char *)call->frame, call->meta_size, call->payload,
               call->size, now))
        return 0;
    unqueue(pool, call);
    forget_event(call);
    return 1;
}

int fl_worker_serve(struct fl_door *door, struct fl_worker *worker, int64_t now)
{
    if (!worker->plain || worker->broken || worker->pool->first == NULL)
        return 0;
    return start_oldest(door, worker, now);
}

void fl_pool_rehearse(struct fl_pool *pool)
{
    struct fl_worker *next = pool->warmest;
    if (next == NULL || !next->plain)
        return;
    struct head head = {.kind = REHEARSE};
    ssize_t written;
    do
        written = send(next->fd, &head, sizeof head, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (written < 0 && errno == EINTR);
    if (written != (ssize_t)sizeof head) /* dead: the end of its channel says so */
        shutdown(next->fd, SHUT_RDWR);
}

enum fl_verdict fl_pool_wake(struct fl_door *door, struct fl_pool *pool)
{
    int64_t now = fl_steady_ns();
    struct fl_worker *worker;
    while (pool->first != NULL && (worker = pool->warmest) != NULL && worker->plain &&
           may_wake(door, pool, now)) {
        fl_pool_remove(pool, worker);
        start_oldest(door, worker, now);
    }
    return pool->first != NULL ? FL_WAITING : FL_DONE;
}

static struct fl_call *new_call(struct fl_door *door, const struct fl_route *route,
                                struct fl_origin *from, int32_t stream, int64_t limit_ns,
                                int64_t now)
{
    struct fl_call *call = calloc(1, sizeof *call);
    if (call == NULL)
        return NULL;
    call->door = door;
    call->pool = route->pool;
    call->from = from;
    call->origin = from->handle;
    call->admitted_ns = now;
    call->limit_ns = limit_ns;
    call->stream = stream;
    fl_new_nonce(door, call->nonce);
    return call;
}

static enum fl_verdict let_wait(struct fl_door *door, struct fl_pool *pool, struct fl_call *call,
                                const struct fl_route *route, const unsigned char *payload,
                                size_t size)
{
    if (door->held + route->meta_size + size > FL_HELD_BYTES)
        return FL_PYTHON;
    call->frame = malloc(route->meta_size + size);
    if (call->frame == NULL)
        return FL_PYTHON;
    door->held += route->meta_size + size;
    memcpy(call->frame, route->meta, route->meta_size);
    memcpy(call->frame + route->meta_size, payload, size);
    call->meta_size = route->meta_size;
    call->payload = call->frame + route->meta_size;
    call->size = size;
    enqueue(pool, call);
    if (pool->idle > 0 && pool->oldest_outside == 0)
        fl_pool_wake(door, pool);
    if (pool->first == NULL || (pool->armed && pool->service_ns < door->policy.start_ns))
        return FL_DONE;
    door->pool = pool->handle;
    return FL_WAITING;
}

enum fl_verdict fl_submit(struct fl_door *door, const struct fl_route *route,
                          struct fl_origin *from, int32_t stream, const unsigned char *payload,
                          size_t size, int64_t limit_ns, struct fl_call **made)
{
    struct fl_pool *pool = route->pool;
    int64_t now = fl_steady_ns();
    if (size > FL_EVENT_BYTES || (limit_ns != 0 && limit_ns <= now))
        return FL_PYTHON;
    int startable = pool->first == NULL && pool->oldest_outside == 0 && pool->warmest != NULL &&
                    pool->warmest->plain && may_wake(door, pool, now);
    /* Behind a handler that nobody knows yet Python decides. */
    int queueable =
        pool->busy > 0 && pool->service_ns >= 0 && pool->waiting < door->policy.most_waiting;
    if (!startable && !queueable)
        return FL_PYTHON;
    struct fl_call *call = new_call(door, route, from, stream, limit_ns, now);
    if (call == NULL)
        return FL_PYTHON;
    enum fl_verdict verdict = FL_PYTHON;
    struct fl_worker *worker;
    while (startable && (worker = pool->warmest) != NULL && worker->plain) {
        fl_pool_remove(pool, worker);
        if (start(door, worker, call, route->meta, route->meta_size, payload, size, now)) {
            verdict = FL_DONE;
            break;
        }
    }
    if (verdict == FL_PYTHON && queueable)
        verdict = let_wait(door, pool, call, route, payload, size);
    if (verdict == FL_PYTHON) {
        fl_call_free(call);
        return FL_PYTHON;
    }
    if (limit_ns != 0 && (door->nearest_limit == 0 || limit_ns < door->nearest_limit))
        door->nearest_limit = limit_ns;
    *made = call;
    return verdict;
}

/* ---- workers -------------------------------------------------------------------------------- */

struct fl_worker *fl_worker_new(uint64_t handle, struct fl_pool *pool, int fd, int log_fd)
{
    struct fl_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return NULL;
    worker->handle = handle;
    worker->pool = pool;
    worker->fd = fd;
    worker->log_fd = log_fd;
    return worker;
}

void fl_worker_free(struct fl_worker *worker)
{
    free(worker);
}

/* Exactly one answer to the question that was asked, and nothing that Python has to look at? */
static int is_plain_answer(const struct fl_worker *worker, const unsigned char *input, size_t size,
                           struct answer_head *answer)
{
    if (size < sizeof *answer || worker->output || worker->broken)
        return 0;
    memcpy(answer, input, sizeof *answer);
    return answer->head.kind == RESULT && answer->head.meta_size == 0 &&
           (size_t)answer->head.length + sizeof answer->head == size &&
           memcmp(answer->head.nonce, worker->call->nonce, sizeof answer->head.nonce) == 0;
}

/* The worker's next: what waits here, what waits in Python, or a rest. */
static enum fl_verdict go_on(struct fl_door *door, struct fl_worker *worker, int64_t now)
{
    struct fl_pool *pool = worker->pool;
    worker->idle_since = now;
    if (pool->one_shot) {
        worker->spent = 1;
        worker->plain = 0;
        pool->spent++;
        pool->used = now;
        int enough = pool->idle > pool->reserve && pool->first == NULL && !pool->oldest_outside;
        return enough ? FL_DONE : FL_HANDOVER;
    }
    if (pool->recalled > 0)
        return FL_HANDOVER;
    if (pool->oldest_outside != 0 &&
        (pool->first == NULL || pool->oldest_outside <= pool->first->admitted_ns))
        return FL_HANDOVER;
    if (pool->first == NULL || !may_go_on(door, pool, now)) {
        fl_pool_rest(pool, worker, 1);
        return FL_DONE;
    }
    start_oldest(door, worker, now); /* if it has died, its channel's end says so */
    if (pool->first != NULL && pool->idle > 0)
        fl_pool_wake(door, pool);
    return FL_DONE;
}

enum fl_verdict fl_worker_readable(struct fl_door *door, struct fl_worker *worker)
{
    struct fl_call *call = worker->call;
    door->input = NULL;
    door->input_size = 0;
    door->origin = 0;
    if (call == NULL)
        return FL_PYTHON;
    unsigned char *input = door->own->input + FL_HEADROOM;
    ssize_t size = read(worker->fd, input, FL_INPUT_BYTES);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return FL_DONE;
    if (size < 0)
        size = 0;
    struct answer_head answer;
    int output_size = -1;
    if (is_plain_answer(worker, input, (size_t)size, &answer))
        output_size = fl_take_output(door, worker);
    if (output_size < 0) {
        door->input = input;
        door->input_size = (size_t)size;
        return FL_PYTHON;
    }
    int64_t now = fl_steady_ns();
    struct fl_measures measures = {
        .queue_ns = worker->started_ns - call->admitted_ns,
        .duration_ns = now - worker->started_ns,
        .cpu_ns = (int64_t)(answer.cpu_ns & INT64_MAX),
        .peak_kib = (int64_t)(answer.peak_kib & INT64_MAX),
    };
    measures.handler_ns = answer.handler_ns < (uint64_t)measures.duration_ns
                              ? (int64_t)answer.handler_ns
                              : measures.duration_ns;
    measures.billed_ms = (measures.duration_ns + 999999) / 1000000;
    fl_record_answer(door, worker, call, &measures, (uint32_t)output_size);
    worker->call = NULL;
    worker->pool->busy--;
    /* Before the answer goes out: it can work while we write. */
    enum fl_verdict verdict = go_on(door, worker, now);
    enum fl_verdict sent = call->from->answer(door, call, input + sizeof answer,
                                              (size_t)size - sizeof answer, &measures);
    fl_call_free(call);
    return verdict == FL_DONE ? sent : verdict;
}
