/*
 * The fast path of a door: a warm, plain invocation from the bytes of a request to the bytes of its
 * answer without a line of Python. This header is what Python sees of it (build_backend.py hands
 * the lines between the two markers to cffi).
 *
 * The rule that keeps it small: the fast path does only what is regular. Anything else - a request
 * it does not know, a wrong signature, much output in the log pipe, a worker's death, a time-out, a
 * client that hangs up - is handed to Python as if the fast path had never seen it: a request as
 * its bytes, a call under way as `struct fl_call`, which Python adopts. So no error message, no
 * limit and no policy lives here twice.
 *
 * One thread, one loop: nothing in here blocks, waits or locks. Memory: what has a `_new` belongs
 * to Python and has a `_free`; a call belongs to the fast path until it is answered or adopted
 * (fl_call_free).
 */
#ifndef FORKLIGHT_FAST_PATH_H
#define FORKLIGHT_FAST_PATH_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

/* cdef begin */

enum fl_verdict {
    FL_DONE,     /* nothing is left to do */
    FL_HELD,     /* the beginning of a request is kept until the rest comes */
    FL_WAITING,  /* done, and a call waits for a worker: see door->pool */
    FL_PYTHON,   /* not regular: Python takes over */
    FL_BLOCKED,  /* done, but the client's socket took only a part: see door->origin */
    FL_HANDOVER, /* done, and the worker is free for an invocation that waits in Python;
                    door->origin may be set as well */
    FL_VERIFIED  /* a plain invocation, read and let through, that no worker here can run at once:
                    Python takes over from struct fl_http's target and body, not from the bytes */
};

enum {
    FL_MOST_CPUS = 16
}; /* what a worker says of its CPU time counts for at most so many times
      the time it ran */

/* When a call waits rather than setting another worker to work: policy.py explains it. */
struct fl_policy {
    int64_t round_trip_ns; /* what a call costs a door besides its handler */
    int64_t patience_ns;   /* so long for a worker that is awake, before one that rests is woken */
    int64_t widen_ns;      /* then one more at a time: not sooner than this after the last */
    int64_t start_ns;      /* of a handler that takes less, Python looks at the queue when patience
                              is over, not at every call that joins it */
    uint32_t most_waiting; /* calls that wait, of one pool; more are Python's to refuse */
};

/* Python's numbers for what a verdict is about, and what was read for it. */
struct fl_door {
    uint64_t origin;       /* the handle of a connection that is blocked; 0: none */
    uint64_t pool;         /* FL_WAITING: the handle of the pool */
    unsigned char *input;  /* FL_PYTHON of fl_worker_readable: what the worker sent */
    size_t input_size;     /* 0: the end of the channel */
    int64_t nearest_limit; /* steady ns; a caller's own limit nearer than the next tick; 0: none.
                              Python takes it and sets it to 0 */
    uint32_t records;      /* how many wait in fl_take_records */
    const unsigned char *outputs; /* what they wrote: see struct fl_record */
    size_t held;                  /* bytes of beginnings of requests and of events that wait */
    uint32_t quiet_left;          /* invocations that still get log lines in this second */
    uint32_t congested; /* Python says: this host has more to run than processors. What handlers
                           take then says nothing about them */
    struct fl_policy policy;
    struct fl_tables *own; /* C's business */
};

/* The workers of one function version. `idle`: a list, the warmest first. */
struct fl_pool {
    uint64_t handle;
    int64_t timeout_ns; /* of the function */
    int64_t service_ns; /* time in the handler, smoothed; -1: not known */
    int64_t
        oldest_outside; /* since when the oldest invocation waits in Python, steady ns; 0: none */
    int64_t oldest_waiting; /* the same of calls that wait here */
    uint32_t busy;          /* workers that run something, fast or not */
    uint32_t idle;          /* workers in the list */
    uint32_t waiting;       /* calls that wait here */
    uint32_t eager;         /* busy workers that are no crowd, whatever the handler takes */
    uint32_t recalled; /* workers that another function needs more: they are handed over when they
                          have answered */
    uint32_t one_shot; /* each worker serves one call; where more than `reserve` others are idle, it
                          is only marked then, and Python releases it in a while */
    uint32_t reserve;
    uint32_t spent; /* workers so marked */
    int64_t used;   /* when the last one was marked, steady ns */
    uint32_t armed; /* Python will look at the queue soon: no FL_WAITING meanwhile */
    struct fl_worker *warmest, *coldest;
    /* Figures since Python took them last (it sets them to 0). */
    uint64_t answered;
    uint64_t duration_ns;
    uint64_t billed_ms;
    uint64_t cpu_ns;      /* as workers say, of each at most FL_MOST_CPUS times its duration */
    int64_t peak_kib;     /* the largest that one of them said */
    uint32_t buckets[32]; /* by duration; bounds as given to fl_door_new */
    struct fl_call *first, *last;
    int64_t widened; /* when a worker was last set to work in a crowd, steady ns */
    char version[72];
};

/* One worker, as long as this door has it. */
struct fl_worker {
    uint64_t handle;
    struct fl_pool *pool;
    struct fl_call *call; /* the fast call it runs; NULL: none */
    struct fl_worker *warmer, *colder;
    int64_t started_ns;  /* steady clock, of the running fast call */
    int64_t deadline_ns; /* steady clock */
    int64_t started_ms;  /* epoch */
    int64_t idle_since;  /* steady ns */
    uint32_t left_out;   /* invocations that got no log lines since Python took the count */
    int fd;
    int log_fd;
    uint8_t listed; /* in the pool's list */
    uint8_t plain;  /* ready, warm and in order: may run fast calls */
    uint8_t output; /* output of it was read by Python and waits there */
    uint8_t spent;  /* it has served the one call it was there for */
    uint8_t broken; /* it took a part of an event: nothing it says counts any more */
};

/* One invocation on the fast path. */
struct fl_call {
    struct fl_call *next;
    struct fl_door *door;
    struct fl_pool *pool;
    struct fl_worker *worker; /* NULL: it waits */
    struct fl_origin *from;
    uint64_t origin;     /* handle of the connection it came by */
    int64_t admitted_ns; /* steady clock */
    int64_t limit_ns;    /* the caller's own limit, steady ns; 0: none */
    int32_t stream;      /* HTTP/2: of that connection */
    unsigned char nonce[16];
    uint8_t queued;
    unsigned char *payload; /* the event; NULL once a worker has it */
    size_t size;
    unsigned char *frame; /* owned: what the worker gets with it, then the event */
    size_t meta_size;
};

/* What log lines need of one invocation, and where in door->outputs stands what it wrote itself. */
struct fl_record {
    uint64_t worker; /* handle */
    int64_t started_ms;
    int64_t duration_ns;
    int64_t billed_ms;
    int64_t peak_kib;
    unsigned char nonce[16];
    uint32_t output_at;
    uint32_t output_size;
};

/* One HTTP/1.1 connection. */
struct fl_http {
    struct fl_origin *from; /* C's business: how an answer finds its way */
    int64_t last_ns;        /* steady; when the last fast request began or its answer left */
    struct fl_call *call;   /* under way */
    size_t held;            /* bytes of an incomplete request */
    unsigned char *bytes;   /* those; or what the socket did not take of an answer */
    size_t room;
    size_t rest; /* how many bytes it did not take */
    /* FL_VERIFIED: where they are in what was held and what came, one behind the other. */
    size_t target_at, target_size;
    size_t body_at, body_size;
    const char *region; /* that its signer, or the setting, named; C's */
    int fd;
};

/* `bounds`: upper bounds of the duration buckets, ns, rising, at most 31; copied, and so is the
 * policy. */
struct fl_door *fl_door_new(const int64_t *bounds, size_t count, const struct fl_policy *policy);
void fl_door_free(struct fl_door *door);

/* A whole line with its end, sent with every answer. Copied. */
void fl_set_date(struct fl_door *door, const char *line, size_t size);

/* Which requests take the fast path. All three are forgotten by fl_forget_*; all bytes are copied.
 *
 * A route: a request target (HTTP: "region\ntarget") or a function's name (gRPC) and what it means.
 * `meta` goes to the worker with the event; `path` and `query` are the canonical forms that a
 * signature covers.
 *
 * A scope: everything of an Authorization header before its signature. `key` is the signing key of
 * that day (32 bytes), or NULL where nothing is verified; `names`: the signed headers' names as
 * they stand there, with semicolons. Python has seen such a header before and found it valid. */
void fl_add_route(struct fl_door *door, const char *name, size_t size, struct fl_pool *pool,
                  const char *meta, size_t meta_size, const char *path, const char *query);
void fl_forget_route(struct fl_door *door, const char *name, size_t size);
void fl_forget_routes(struct fl_door *door);
void fl_add_scope(struct fl_door *door, const char *prefix, size_t size, const unsigned char *key,
                  const char *names, const char *date, const char *scope, const char *region);
void fl_forget_scopes(struct fl_door *door);
/* Where no signature is asked for, the region of requests that have none; NULL: all must be signed.
 */
void fl_set_open_region(struct fl_door *door, const char *region);

/* `version`: as X-Amz-Executed-Version says it. The pool must be without workers and calls, and its
 * routes forgotten, when it is freed. */
struct fl_pool *fl_pool_new(uint64_t handle, int64_t timeout_ns, uint32_t eager,
                            const char *version);
void fl_pool_free(struct fl_pool *pool);
/* Puts a worker that runs nothing into the list: the warm end, or the cold one. */
void fl_pool_rest(struct fl_pool *pool, struct fl_worker *worker, int warm);
void fl_pool_remove(struct fl_pool *pool, struct fl_worker *worker);
/* Whether one more that runs would only wait for its turn (policy.py). */
int fl_pool_is_crowded(const struct fl_door *door, const struct fl_pool *pool);
/* Lets idle workers take calls that wait, as the policy of worker_pool.py says; the verdict is
 * FL_DONE or FL_WAITING. */
enum fl_verdict fl_pool_wake(struct fl_door *door, struct fl_pool *pool);
/* The worker that would be taken next goes through its own part of an invocation, without an event:
 * what has left the processor's caches since it was forked comes back. */
void fl_pool_rehearse(struct fl_pool *pool);

struct fl_worker *fl_worker_new(uint64_t handle, struct fl_pool *pool, int fd, int log_fd);
void fl_worker_free(struct fl_worker *worker);
/* Its channel is readable and a fast call runs: reads, and answers the call if that is all there is
 * to do. FL_PYTHON: door->input is what was read (valid until the next call of anything here); the
 * call is still the worker's and is to be adopted. */
enum fl_verdict fl_worker_readable(struct fl_door *door, struct fl_worker *worker);
/* Gives a free worker (not in the list) the oldest waiting call; whether it took one. It did not:
 * it is broken or dead, or nothing waits. */
int fl_worker_serve(struct fl_door *door, struct fl_worker *worker, int64_t now);

/* Takes the call away from whatever has it: worker, connection, queue. The caller then owns it. */
void fl_call_adopt(struct fl_call *call);
void fl_call_free(struct fl_call *call);

/* `fd` -1: the transport writes all of every answer (FL_BLOCKED). */
struct fl_http *fl_http_new(uint64_t handle, int fd);
/* The call under way must have been adopted. */
void fl_http_free(struct fl_http *http);
/* Bytes of a connection that is idle, or that has bytes here. FL_PYTHON and FL_VERIFIED: they,
 * behind what is held here (fl_http_release), are Python's. */
enum fl_verdict fl_http_received(struct fl_door *door, struct fl_http *http, const char *data,
                                 size_t size);
/* Copies what is held into `out` (http->held bytes) and forgets it. */
void fl_http_release(struct fl_http *http, char *out);
/* After FL_BLOCKED: what the socket did not take; the caller sends it. Valid until the next call of
 * anything here. */
const unsigned char *fl_http_rest(struct fl_http *http, size_t *size);

/* Copies records out, the oldest first; how many. What they wrote stays until the next call of
 * anything here. */
size_t fl_take_records(struct fl_door *door, struct fl_record *out, size_t count);

/* For tests: SHA-256 as the signature check uses it. `portable`: not the processor's own
 * instructions. */
void fl_sha256(const char *data, size_t size, unsigned char *digest, int portable);

/* cdef end */

#pragma GCC visibility pop

#endif
