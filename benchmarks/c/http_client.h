/* One HTTP/1.1 keep-alive connection of a load program: whole requests out, whole answers in. */
#ifndef FORKLIGHT_BENCH_HTTP_CLIENT_H
#define FORKLIGHT_BENCH_HTTP_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#define ANSWER_SIZE (1 << 16)

struct connection {
    int fd;
    int busy;             /* a request waits for its answer */
    size_t length;        /* bytes of the answer in buffer */
    size_t head_length;   /* 0 until the head is complete */
    long long body_bytes; /* Content-Length; -1 = chunked */
    uint64_t due_ns;      /* when the request should have gone out */
    size_t what;          /* which one it is; the caller's own */
    char buffer[ANSWER_SIZE];
};

/* Says what failed and ends the program. */
void die(const char *what);

uint64_t now_ns(void);

/* To 127.0.0.1; ends the program when nobody listens. */
void client_connect(struct connection *c, int port);

/* Sends all of it and marks the connection busy. 0, or -1 when the peer has gone: the connection is
 * then closed and not busy. */
int client_send(struct connection *c, const char *request, size_t length);

/* Reads what is there: 1 = the answer is complete, 0 = not yet, -1 = the peer has gone (closed, not
 * busy). Of an answer larger than the buffer only the head and the end are kept. */
int client_receive(struct connection *c);

/* 1 when the complete answer is a 2xx whose body contains `expect` (length 0: anything). */
int client_succeeded(const struct connection *c, const char *expect, size_t length);

/* Prints the beginning of the answer to stderr, the first time only. */
void client_show_error(const struct connection *c);

struct epoll_event;

/* epoll_pwait2 sleeps to the nanosecond; epoll_wait's milliseconds would make an open loop late. */
int sleep_until(int poll_fd, struct epoll_event *events, int room, uint64_t wake_ns);

#endif
