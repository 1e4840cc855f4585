/* What the files of HTTP/2 share. The public half is include/http2.h. */
#ifndef FORKLIGHT_HTTP2_INTERNAL_H
#define FORKLIGHT_HTTP2_INTERNAL_H

#include "http2.h"
#include "internal.h"

#include <nghttp2/nghttp2.h>

enum {
    FL_H2_HEAD_BYTES = 640,   /* of a head that needs no memory of its own */
    FL_H2_OUT_BYTES = 131072, /* handed to the socket at once */
    FL_H2_QUEUE = 4096,       /* frames that wait for a client that takes nothing */
    FL_H2_CONNECTION_WINDOW = 4 * 1024 * 1024,
    FL_H2_FIELD_OVERHEAD = 32, /* of a header field, as RFC 9113 counts */
    FL_H2_UPDATES = 2000, /* window updates at once, without anything sent that they may answer */
    FL_H2_BOMB = 4,       /* times the limit of a head: no client means that */
    FL_H2_POOLS = 16,     /* that calls of one read can begin to wait for */
    FL_H2_LARGE_WINDOW = 1024 * 1024, /* of a stream whose message has its memory */
};

/* So many at once, so many a second. */
struct fl_bucket {
    double tokens;
    int64_t filled_ns;
};

/* A message that has come, or one (framed) that is to go. */
struct fl_h2_message {
    struct fl_h2_message *next;
    size_t size;
    size_t room; /* for this many there is memory */
    size_t done; /* this many have come, or gone */
    uint8_t compressed;
    uint8_t reserved; /* it counts among the large ones of its connection */
    unsigned char bytes[];
};

struct fl_h2_queue {
    struct fl_h2_message *first, *last;
    size_t bytes; /* of those that go: not gone yet */
};

struct fl_h2_stream {
    struct fl_h2_stream *previous, *next; /* of the connection */
    struct fl_h2_stream *next_ready;
    int32_t id;
    uint32_t news;        /* not told */
    uint8_t ready;        /* in the list of those that have news */
    uint8_t known;        /* Python was told that it began */
    uint8_t closed;       /* nghttp2 has forgotten it */
    uint8_t plain;        /* Python is not told yet: it may become a call of the fast path */
    struct fl_call *call; /* or has become one */
    int64_t began_ns;
    /* the head */
    uint8_t refused;   /* enum fl_refusal; what is wrong with it */
    uint8_t typed;     /* its content type is gRPC's */
    uint8_t post;      /* its method is POST */
    uint8_t web;       /* it is no gRPC call */
    uint8_t malformed; /* a field of it is none */
    uint8_t encoding;  /* of its messages */
    uint32_t authorizations;
    int64_t timeout_ns;
    size_t counted; /* bytes, as the limit counts */
    char *head;     /* own, or `small` */
    size_t head_size, head_room;
    size_t path, path_size; /* offsets into it */
    size_t authorization, authorization_size;
    /* what comes */
    unsigned char prefix[5];
    uint8_t prefix_size;
    uint8_t accepted;               /* may be larger than a window */
    uint8_t waits;                  /* for memory */
    uint8_t ended;                  /* 1: the client has, 2: and Python knows */
    uint32_t wanted;                /* messages that Python waits for */
    size_t held;                    /* bytes of its window that we keep shut */
    struct fl_h2_message *arriving; /* NULL: between messages */
    struct fl_h2_queue in;          /* complete and not told */
    int64_t received_ns;
    /* what goes */
    uint8_t answered; /* the head is under way */
    uint8_t finished; /* so are the trailers, or will be behind the messages */
    uint8_t deferred; /* nghttp2 waits for fl_h2_write */
    uint8_t choked;   /* Python waits for FL_H2_WRITABLE */
    int status;
    size_t low; /* FL_H2_WRITABLE when no more than this waits */
    struct fl_h2_queue out;
    char *fields; /* trailers besides the status */
    size_t fields_size;
    char small[FL_H2_HEAD_BYTES];
};

struct fl_h2 {
    struct fl_origin origin; /* first: see internal.h */
    struct fl_h2_server *server;
    struct fl_h2 *previous, *next;
    nghttp2_session *session;
    struct fl_h2_stream *streams;
    struct fl_h2_stream *first_ready, *last_ready;
    struct fl_h2_message *told; /* whose bytes server->event shows, */
    char *told_head;            /* and whose head; NULL: it has none of its own */
    int fd;
    uint8_t blocked;             /* the transport is writing a rest */
    uint8_t dead;                /* what is queued is sent, then it is closed */
    uint8_t hello;               /* its first SETTINGS came */
    uint8_t closing;             /* 1: GOAWAY announced, 2: sent */
    uint64_t pools[FL_H2_POOLS]; /* for Python: calls wait there */
    size_t pool_count;
    uint32_t memory_waiters;
    uint64_t reserved;  /* for large messages */
    uint64_t waiting;   /* to be sent, */
    uint64_t unread;    /* and of that, answers to web requests */
    size_t block_bytes; /* of the header fields that are arriving */
    uint32_t strikes;
    struct fl_bucket resets, chatter, updates;
    int64_t now; /* of the bytes being worked on */
    int64_t began_ns;
    int64_t received_ns;  /* last */
    int64_t progress_ns;  /* something was written, */
    int64_t data_ns;      /* messages among it */
    int64_t ping_sent_ns; /* 0: none is unanswered */
    int64_t pinged_ns;    /* the client's last */
    int64_t closing_ns;
    int64_t idle_ns;     /* since when it has no call, if it has none */
    unsigned char *rest; /* what the socket did not take */
    size_t rest_size;
    uint8_t rest_taken; /* somebody writes it */
};

struct fl_h2_own {
    struct fl_h2 *connections;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *options;
    struct fl_door *door;   /* NULL: no fast path */
    int open;               /* no token is needed */
    struct fl_table tokens; /* values of authorization */
    unsigned char out[FL_H2_OUT_BYTES];
};

enum fl_refusal {
    FL_FINE,
    FL_HEAD_TOO_LARGE,
    FL_BAD_TIMEOUT,
    FL_UNKNOWN_ENCODING,
};

/* http2_callbacks.c */
void fl_h2_set_callbacks(nghttp2_session_callbacks *callbacks);

/* http2_session.c */
/* Says goodbye with an error and listens no more. */
void fl_h2_end(struct fl_h2 *h2, uint32_t error, const char *why);

/* http2_streams.c: their life, and what is told of them. */
struct fl_h2_stream *fl_h2_stream_new(struct fl_h2 *h2, int32_t id);
void fl_h2_stream_free(struct fl_h2 *h2, struct fl_h2_stream *stream);
/* The one that may still be answered; NULL: there is none. */
struct fl_h2_stream *fl_h2_stream_of(struct fl_h2 *h2, int32_t id);
void fl_h2_stream_closed(struct fl_h2 *h2, struct fl_h2_stream *stream);
/* Puts it into the list of those that fl_h2_next looks at. */
void fl_h2_tell(struct fl_h2 *h2, struct fl_h2_stream *stream, uint32_t news);

/* http2_head.c: one header field (-1 without memory); and what is wrong with all of them, answered.
 */
int fl_h2_field(struct fl_h2 *h2, struct fl_h2_stream *stream, const char *name, size_t name_size,
                const char *value, size_t value_size);
void fl_h2_head_complete(struct fl_h2 *h2, struct fl_h2_stream *stream);

/* http2_input.c: messages of clients. -1 without memory. */
int fl_h2_data(struct fl_h2 *h2, struct fl_h2_stream *stream, const uint8_t *data, size_t size);
void fl_h2_input_ended(struct fl_h2 *h2, struct fl_h2_stream *stream);
void fl_h2_input_free(struct fl_h2 *h2, struct fl_h2_stream *stream);
/* The oldest complete message; the caller frees it. */
struct fl_h2_message *fl_h2_take(struct fl_h2 *h2, struct fl_h2_stream *stream);
/* Lets calls go on that wait for memory, as far as there is some. */
void fl_h2_grant(struct fl_h2 *h2);

struct fl_h2_message *fl_h2_message_new(struct fl_h2 *h2, size_t size, size_t room);
void fl_h2_message_free(struct fl_h2 *h2, struct fl_h2_message *message);

/* http2_web.c: a piece of the body of a web request. -1 without memory. */
int fl_h2_body(struct fl_h2 *h2, struct fl_h2_stream *stream, const uint8_t *data, size_t size);
/* Its head is complete. */
void fl_h2_web_begins(struct fl_h2 *h2, struct fl_h2_stream *stream);

/* http2_output.c: answers. */
/* The head of an answer and what is in the queue behind it; fields as of fl_h2_finish. */
int fl_h2_submit(struct fl_h2 *h2, struct fl_h2_stream *stream, int http_status, const char *fields,
                 size_t size);
/* Puts bytes into the queue; framed as a message, if it is a gRPC call. -1 without memory. */
int fl_h2_append(struct fl_h2 *h2, struct fl_h2_stream *stream, const struct fl_text *parts,
                 size_t count);
/* Nothing more is heard of it, nor begins to be said. */
void fl_h2_finished(struct fl_h2 *h2, struct fl_h2_stream *stream, int status);
int fl_h2_answer_parts(struct fl_h2 *h2, struct fl_h2_stream *stream, const struct fl_text *parts,
                       size_t count);
/* Ends a call that is in the client's wrong. `text`: no percent sign, ASCII. */
void fl_h2_refuse(struct fl_h2 *h2, struct fl_h2_stream *stream, int status, const char *text);
/* The same for what is not gRPC at all. */
void fl_h2_refuse_http(struct fl_h2 *h2, struct fl_h2_stream *stream, const char *http_status);
void fl_h2_output_free(struct fl_h2 *h2, struct fl_h2_stream *stream);

/* grpc_invoke.c: plain Invokes. */
/* Whether this call may become one of the fast path, as far as its head says. */
int fl_grpc_is_plain(struct fl_h2 *h2, const struct fl_h2_stream *stream);
/* It is complete: whether it has become one. */
int fl_grpc_start(struct fl_h2 *h2, struct fl_h2_stream *stream);
/* It may not after all: Python is told. */
void fl_grpc_give_up(struct fl_h2 *h2, struct fl_h2_stream *stream);
void fl_grpc_origin(struct fl_h2 *h2, uint64_t handle);

/* http2_limits.c: one thing too many (-1)? */
int fl_h2_pinged(struct fl_h2 *h2);
int fl_h2_reset(struct fl_h2 *h2);
int fl_h2_chatted(struct fl_h2 *h2);
/* The same of a window update; fl_h2_sent says that something was sent which may be a reason for
 * some. */
int fl_h2_widened(struct fl_h2 *h2);
void fl_h2_sent(struct fl_h2 *h2, size_t size);

#endif
