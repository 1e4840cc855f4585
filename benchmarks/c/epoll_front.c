/* The limit of the warm path: the least HTTP server that can stand in front of a forked worker.
 *
 *   epoll_front WORKER_FD...
 *
 * One thread, epoll, HTTP/1.1 with keep-alive and Content-Length only; no authentication, no
 * routing, no log, no limits. Each WORKER_FD is the host end of an inherited worker channel whose
 * READY frame has been read. It listens on a free loopback port, prints "ready PORT" and serves
 * until killed. Frames: 32-byte header "<IHHQ16s" (length of what follows, kind, length of the meta
 * JSON, deadline in epoch ms, nonce), then meta and event; the answer's body starts with 24 bytes
 * of figures (handler ns, CPU ns, peak KiB). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORKERS 64
#define MAX_CLIENTS 1024
#define BUFFER_SIZE (1 << 17)
#define FIGURES     24
#define TIMEOUT_MS  60000

enum { KIND_INVOKE = 2, KIND_RESULT = 18, KIND_ERROR = 19 };

struct __attribute__((packed)) frame_header {
    uint32_t length;
    uint16_t kind;
    uint16_t meta_length;
    uint64_t aux;
    uint8_t nonce[16];
};

struct client {
    int fd;
    int waiting; /* queued, or with a worker */
    size_t length, head_length, body_length;
    char buffer[BUFFER_SIZE];
};

struct worker {
    int fd;
    struct client *client; /* whom it answers; NULL = idle */
    uint64_t nonce[2];
    size_t length;
    char buffer[BUFFER_SIZE];
};

static struct worker *workers;
static int worker_count;
static struct client *queue[MAX_CLIENTS];
static size_t queue_head, queue_count;
static int poll_fd;
static const char meta[] =
    "{\"arn\":\"arn:aws:lambda:us-east-1:000000000000:function:hello:$LATEST\"}";

static void die(const char *what)
{
    fprintf(stderr, "epoll_front: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int fd, void *who)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = who};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static uint64_t epoch_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A peer that closed, or a full buffer of 128 KiB: this program is a measuring stick, it gives up.
 */
static void write_whole(int fd, struct iovec *parts, int count)
{
    while (count > 0) {
        ssize_t n = writev(fd, parts, count);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return;
        while (count > 0 && (size_t)n >= parts->iov_len) {
            n -= (ssize_t)parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (char *)parts->iov_base + n;
            parts->iov_len -= (size_t)n;
        }
    }
}

static void invoke(struct worker *w, struct client *c)
{
    static uint64_t counter;
    struct frame_header header = {
        .length = (uint32_t)(sizeof meta - 1 + c->body_length),
        .kind = KIND_INVOKE,
        .meta_length = sizeof meta - 1,
        .aux = epoch_ms() + TIMEOUT_MS,
    };
    struct iovec parts[3] = {{&header, sizeof header},
                             {(void *)(uintptr_t)meta, sizeof meta - 1},
                             {c->buffer + c->head_length, c->body_length}};

    w->nonce[0] = ++counter;
    w->nonce[1] = ~counter;
    memcpy(header.nonce, w->nonce, sizeof header.nonce);
    w->client = c;
    w->length = 0;
    write_whole(w->fd, parts, 3);
}

static void start_or_queue(struct client *c)
{
    int i;

    c->waiting = 1;
    for (i = 0; i < worker_count; i++) {
        if (!workers[i].client) {
            invoke(&workers[i], c);
            return;
        }
    }
    queue[(queue_head + queue_count++) % MAX_CLIENTS] = c;
}

static void answer(struct worker *w)
{
    static const char format[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                                 "X-Amz-Executed-Version: $LATEST\r\nContent-Length: %zu\r\n\r\n";
    struct frame_header header;
    struct client *c = w->client;
    char head[160];
    size_t skip = sizeof header + FIGURES, body;
    struct iovec parts[2];

    memcpy(&header, w->buffer, sizeof header);
    if (memcmp(header.nonce, w->nonce, sizeof w->nonce) != 0 ||
        (header.kind != KIND_RESULT && header.kind != KIND_ERROR)) {
        fprintf(stderr, "epoll_front: unexpected frame of kind %u\n", header.kind);
        exit(1);
    }
    body = header.length - FIGURES;
    parts[0].iov_base = head;
    parts[0].iov_len = (size_t)snprintf(head, sizeof head, format, body);
    parts[1].iov_base = w->buffer + skip;
    parts[1].iov_len = body;
    w->client = NULL;
    c->waiting = 0;
    c->length = 0;
    write_whole(c->fd, parts, 2);
    if (queue_count) {
        struct client *next = queue[queue_head];
        queue_head = (queue_head + 1) % MAX_CLIENTS;
        queue_count--;
        invoke(w, next);
    }
}

static void on_worker(struct worker *w)
{
    uint32_t length;
    ssize_t n = read(w->fd, w->buffer + w->length, BUFFER_SIZE - w->length);

    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0) {
        fprintf(stderr, "epoll_front: a worker ended\n");
        exit(1);
    }
    w->length += (size_t)n;
    if (w->length < sizeof(struct frame_header))
        return;
    memcpy(&length, w->buffer, sizeof length);
    if (w->length >= sizeof(struct frame_header) + length)
        answer(w);
}

static int parse_head(struct client *c)
{
    char *end = memmem(c->buffer, c->length, "\r\n\r\n", 4), *line;

    if (!end)
        return 0;
    c->head_length = (size_t)(end + 4 - c->buffer);
    c->body_length = 0;
    for (line = c->buffer; line && line < end; line = memchr(line, '\n', (size_t)(end - line))) {
        line += *line == '\n';
        if (!strncasecmp(line, "content-length:", 15))
            c->body_length = strtoul(line + 15, NULL, 10);
    }
    return 1;
}

static void on_client(struct client *c)
{
    ssize_t n = read(c->fd, c->buffer + c->length, BUFFER_SIZE - c->length);

    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0) {
        close(c->fd);
        if (!c->waiting) /* else its answer still comes; a measuring stick may leak it */
            free(c);
        return;
    }
    c->length += (size_t)n;
    if (!c->waiting && parse_head(c) && c->length >= c->head_length + c->body_length)
        start_or_queue(c);
}

static void on_connection(int listener)
{
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct client *c = fd < 0 ? NULL : calloc(1, sizeof *c);

    if (!c)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->fd = fd;
    watch(fd, c);
}

static int listen_on_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 512) < 0)
        die("listen");
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static int is_worker(const void *who)
{
    return (const char *)who >= (const char *)workers &&
           (const char *)who < (const char *)(workers + worker_count);
}

int main(int argc, char **argv)
{
    struct epoll_event events[64];
    int listener, i, n;

    worker_count = argc - 1;
    if (worker_count < 1 || worker_count > MAX_WORKERS) {
        fprintf(stderr, "usage: epoll_front WORKER_FD...\n");
        return 2;
    }
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    workers = calloc((size_t)worker_count, sizeof *workers);
    if (poll_fd < 0 || !workers)
        die("start");
    for (i = 0; i < worker_count; i++) {
        workers[i].fd = atoi(argv[i + 1]);
        fcntl(workers[i].fd, F_SETFL, fcntl(workers[i].fd, F_GETFL) & ~O_NONBLOCK);
        watch(workers[i].fd, &workers[i]);
    }
    listener = listen_on_free_port();
    watch(listener, NULL);
    for (;;) {
        n = epoll_wait(poll_fd, events, 64, -1);
        for (i = 0; i < n; i++) {
            void *who = events[i].data.ptr;
            if (!who)
                on_connection(listener);
            else if (is_worker(who))
                on_worker(who);
            else
                on_client(who);
        }
    }
}
