/*
 * HTTP/2 of a door, on nghttp2: gRPC, and any other request. This header is what Python sees of it.
 *
 * Bytes of a connection go in (fl_h2_received), what happened to its calls comes out (fl_h2_next),
 * answers go in (fl_h2_answer, fl_h2_write, fl_h2_finish; fl_h2_respond) and leave by the socket
 * (fl_h2_flush).
 * Nothing here calls back, blocks or waits, so one function's effects are over when it returns.
 *
 * C does what every call needs: frames, flow control, limits, floods, the framing of gRPC messages,
 * the checks of a request's head. Which method it is, who may call it and what it answers is
 * Python's. A client's mistake ends its call or its connection here, and Python hears of it as
 * FL_H2_GONE.
 *
 * A request that is not gRPC's (`web`) is Python's from its head to its end, where the server's
 * limits let it in: its body comes in pieces, as messages that are always wanted.
 *
 * A warm, plain Invoke need not go to Python at all: where a door is given (fl_h2_set_fast), such a
 * call becomes one of the fast path (fast_path.h), within its rule that all but the regular is
 * Python's.
 *
 * One thread, one loop. A call is named by its connection and its stream; a name that is no longer
 * valid is answered with -1, so that Python may be late.
 */
#ifndef FORKLIGHT_HTTP2_H
#define FORKLIGHT_HTTP2_H

#include "fast_path.h"

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

/* cdef begin */

/* What happened to a call; bits. */
enum {
    FL_H2_BEGAN = 1,    /* it is new, and its head is complete */
    FL_H2_MESSAGE = 2,  /* here is a message of the client */
    FL_H2_ENDED = 4,    /* that was its last one */
    FL_H2_WRITABLE = 8, /* most of what was written has left: write more */
    FL_H2_GONE = 16,    /* it is over: the client reset it, or broke a rule and was told so */
    FL_H2_ADOPT = 32    /* `call` is to be adopted, before anything else that is told with it */
};

/* What a connection needs after fl_h2_received or fl_h2_flush; bits. */
enum {
    FL_H2_REST = 1,  /* the socket did not take everything: fl_h2_rest */
    FL_H2_NEWS = 2,  /* fl_h2_next has something */
    FL_H2_CLOSE = 4, /* all is said and heard: close the connection, after the rest */
    FL_H2_POOL = 8,  /* calls wait for workers: fl_h2_waiting_pool */
    FL_H2_LIMIT = 16 /* the door's nearest_limit was set */
};

/* What fl_h2_tick found out about a connection. */
enum {
    FL_H2_FLUSH, /* there is something to send, or to hear */
    FL_H2_ABORT  /* its client is dead, or takes nothing */
};

/* Why a web request is not to be served, whatever it asks for. */
enum {
    FL_H2_TOO_LARGE = 1, /* its head; the rest of it is not there */
    FL_H2_BUSY = 2       /* `waiting` or `total` is exceeded */
};

/* All bounds. Times in nanoseconds. */
struct fl_h2_limits {
    uint32_t web;     /* whether what is no gRPC call is told (1), or refused here (0) */
    uint32_t streams; /* calls under way on one connection; more wait in the client */
    uint32_t head;    /* bytes of a request's header fields, each with 32 more as RFC 9113 counts */
    uint32_t message; /* bytes of one message of a client */
    uint32_t window;  /* bytes of a message that may come before the call is accepted */
    uint64_t arriving; /* bytes of larger messages, all calls of one connection */
    uint64_t waiting;  /* bytes that wait for one client to take them; above it, no new calls */
    uint64_t
        total; /* bytes of all messages, both ways, of all connections; above it no new calls */
    uint32_t resets;       /* that come at once, of either side; */
    uint32_t resets_a_s;   /* and for long */
    uint32_t chatter;      /* the same of frames that do nothing: SETTINGS, PRIORITY, empty DATA */
    uint32_t chatter_a_s;  /* */
    uint32_t ping_strikes; /* pings sooner than `ping_every`, while nothing is sent */
    int64_t ping_every;
    int64_t keepalive;         /* a silent client is asked for a sign of life after this time, */
    int64_t keepalive_timeout; /* and given up after this one */
    int64_t hello;             /* until a client has sent its preface */
    int64_t message_idle;      /* without a byte of a message that has begun */
    int64_t blocked;           /* the socket takes nothing */
    int64_t stalled;           /* the client opens no window for what waits */
    int64_t idle;              /* without a call; then it is said goodbye to. 0: for ever */
};

/* What fl_h2_next tells; valid until its next call. */
struct fl_h2_event {
    int32_t stream;
    uint32_t news;
    int64_t timeout_ns;      /* of FL_H2_BEGAN: what the client gives it; -1: for ever */
    uint32_t encoding;       /* of its messages: 0 none, 1 deflate, 2 gzip */
    uint32_t compressed;     /* of FL_H2_MESSAGE: it is encoded like that */
    uint32_t authorizations; /* how many such fields there were */
    uint32_t web;            /* of FL_H2_BEGAN: it is no gRPC call */
    uint32_t refusal;        /* and is to be refused: FL_H2_TOO_LARGE, FL_H2_BUSY; 0: it need not */
    size_t path_size;
    size_t authorization_size;
    size_t head_size;
    size_t message_size;
    const char *path;
    const char *authorization; /* the last of them */
    const char *head;          /* all fields, pseudo fields too: name, NUL, value, NUL, name, ... */
    const char *message;
    struct fl_call *call;
};

/* Of a process: the limits and what all connections have together. */
struct fl_h2_server {
    struct fl_h2_event event;
    struct fl_h2_limits limits;
    uint64_t bytes; /* of messages that are here, both ways */
    uint64_t connections;
    uint64_t fast_calls;   /* under way on the fast path */
    struct fl_h2_own *own; /* C's business */
};

struct fl_h2;

/* The limits are copied. */
struct fl_h2_server *fl_h2_server_new(const struct fl_h2_limits *limits);
/* Its connections must be gone. */
void fl_h2_server_free(struct fl_h2_server *server);

/* `fd`: where to write; -1: nowhere, everything is a rest (TLS). NULL without memory. */
struct fl_h2 *fl_h2_new(struct fl_h2_server *server, uint64_t handle, int fd);
/* Calls that Python knows of are not announced as gone. */
void fl_h2_free(struct fl_h2 *h2);

/* Takes in what came from the client, and answers what needs no Python. Returns what is needed;
 * without FL_H2_NEWS the flush is done. -1: it does not speak HTTP/2, or too wildly: close at once.
 */
int fl_h2_received(struct fl_h2 *h2, const char *data, size_t size);
/* Fills server->event with what happened to one call since it was last told. 0: there is nothing.
 */
int fl_h2_next(struct fl_h2 *h2);
/* The call may send messages larger than a window (a web request: more than one at a time); before
 * that it is held back. */
int fl_h2_accept(struct fl_h2 *h2, int32_t stream);
/* One message more is wanted (the first one always is). */
int fl_h2_want(struct fl_h2 *h2, int32_t stream);

/* Answers a call with one message and status OK. */
int fl_h2_answer(struct fl_h2 *h2, int32_t stream, const char *message, size_t size);
/* Sends one message. Returns how many bytes of this call wait, or -1; FL_H2_WRITABLE comes once
 * that was more than `limit` and no longer is. */
int64_t fl_h2_write(struct fl_h2 *h2, int32_t stream, const char *message, size_t size,
                    size_t limit);
/* Ends a call with a status. `fields`: further trailing metadata as name, NUL, value, NUL, ...;
 * copied. */
int fl_h2_finish(struct fl_h2 *h2, int32_t stream, int status, const char *fields, size_t size);

/* Answers a web request. `fields`: of the head, besides the status, as above. */
int fl_h2_respond(struct fl_h2 *h2, int32_t stream, int status, const char *fields,
                  size_t fields_size, const char *body, size_t size);
/* The head of an answer in pieces: fl_h2_write adds to its body, fl_h2_finish ends it (status 0, no
 * fields). */
int fl_h2_begin(struct fl_h2 *h2, int32_t stream, int status, const char *fields,
                size_t fields_size);
/* Ends an answer in pieces before its end: the stream is reset (INTERNAL_ERROR), and what waits is
 * not sent. */
int fl_h2_cut(struct fl_h2 *h2, int32_t stream);
/* Asks for the body of a web request: 100. */
int fl_h2_continue(struct fl_h2 *h2, int32_t stream);
/* Bytes of answers to web requests that wait for the client to take them. */
uint64_t fl_h2_unread(const struct fl_h2 *h2);
/* Whether the client has ever spoken HTTP/2. */
int fl_h2_greeted(const struct fl_h2 *h2);

/* Writes to the socket what is to be sent. */
int fl_h2_flush(struct fl_h2 *h2);
/* What the socket did not take, once: the caller writes it. Valid until the next flush; until it is
 * taken, nothing is flushed. */
const char *fl_h2_rest(struct fl_h2 *h2, size_t *size);
/* Whether somebody else is still writing a rest: nothing is written meanwhile. */
void fl_h2_set_blocked(struct fl_h2 *h2, int blocked);

/* GOAWAY: `now` 0 announces it and lets new calls come until the client has heard of it; 1 takes
 * none. */
void fl_h2_shutdown(struct fl_h2 *h2, int now);

/* Once or twice a second. What connections need goes to `handles` and `needs` (FL_H2_FLUSH,
 * FL_H2_ABORT); returns how many do. */
size_t fl_h2_tick(struct fl_h2_server *server, uint64_t *handles, uint32_t *needs, size_t room);

/* Where plain Invokes may go without Python; `open`: no token is needed. NULL: nowhere. */
void fl_h2_set_fast(struct fl_h2_server *server, struct fl_door *door, int open);
/* Values of `authorization` that Python has found valid; copied. */
void fl_h2_add_token(struct fl_h2_server *server, const char *value, size_t size);
void fl_h2_forget_tokens(struct fl_h2_server *server);
/* The key of a route (fl_add_route) for calls of this function and qualifier; its size, or 0:
 * `room` is too small, or the names are such as no route can have. */
size_t fl_grpc_route_key(const char *function, size_t function_size, const char *qualifier,
                         size_t qualifier_size, char *out, size_t room);
/* A pool (its handle) that calls of this connection have begun to wait for; 0: there is none more.
 */
uint64_t fl_h2_waiting_pool(struct fl_h2 *h2);
/* A call of the fast path that this connection still has: to be adopted before it is freed. */
struct fl_call *fl_h2_fast_call(struct fl_h2 *h2);

/* A value of grpc-timeout in nanoseconds; -1: malformed. */
int64_t fl_grpc_timeout(const char *text, size_t size);

/* cdef end */

#pragma GCC visibility pop

#endif
