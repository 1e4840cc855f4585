#define _GNU_SOURCE
#include "http_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void die(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(1);
}

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void client_connect(struct connection *c, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->length = c->head_length = 0;
    c->busy = 0;
}

int client_send(struct connection *c, const char *request, size_t length)
{
    size_t sent = 0;

    c->busy = 1;
    c->length = c->head_length = 0;
    while (sent < length) {
        ssize_t n = send(c->fd, request + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            c->busy = 0;
            close(c->fd);
            return -1;
        }
        sent += (size_t)n;
    }
    return 0;
}

/* The value of a header in the head, or NULL; names are compared without case. */
static const char *header(const struct connection *c, const char *name)
{
    size_t length = strlen(name);
    const char *line = memchr(c->buffer, '\n', c->head_length);

    while (line && line + 1 + length < c->buffer + c->head_length) {
        line++;
        if (!strncasecmp(line, name, length) && line[length] == ':') {
            line += length + 1;
            while (*line == ' ')
                line++;
            return line;
        }
        line = memchr(line, '\n', c->head_length - (size_t)(line - c->buffer));
    }
    return NULL;
}

/* 1 when the answer in the buffer is complete. A chunked answer ends with an empty chunk. */
static int complete(struct connection *c)
{
    if (!c->head_length) {
        char *end = memmem(c->buffer, c->length, "\r\n\r\n", 4);
        const char *value;
        if (!end)
            return 0;
        c->head_length = (size_t)(end + 4 - c->buffer);
        value = header(c, "content-length");
        c->body_bytes = value ? atoll(value) : -1;
        if (!value && !header(c, "transfer-encoding"))
            c->body_bytes = 0;
    }
    if (c->body_bytes >= 0)
        return c->length >= c->head_length + (size_t)c->body_bytes;
    return c->length >= c->head_length + 5 && !memcmp(c->buffer + c->length - 5, "0\r\n\r\n", 5);
}

int client_receive(struct connection *c)
{
    ssize_t n;

    if (c->length == ANSWER_SIZE && c->body_bytes > 0) {
        size_t surplus = c->length - c->head_length;
        c->body_bytes -= (long long)surplus;
        c->length = c->head_length;
    }
    n = recv(c->fd, c->buffer + c->length, ANSWER_SIZE - c->length, 0);
    if (n < 0 && errno == EINTR)
        return 0;
    if (n <= 0) {
        c->busy = 0;
        close(c->fd);
        return -1;
    }
    c->length += (size_t)n;
    return complete(c);
}

int client_succeeded(const struct connection *c, const char *expect, size_t length)
{
    if (strncmp(c->buffer, "HTTP/1.1 2", 10) != 0)
        return 0;
    return memmem(c->buffer + c->head_length, c->length - c->head_length, expect, length) != NULL;
}

void client_show_error(const struct connection *c)
{
    static int shown;

    if (!shown++)
        fprintf(stderr, "%s: first error: %.*s\n", program_invocation_short_name,
                (int)(c->length < 600 ? c->length : 600), c->buffer);
}

int sleep_until(int poll_fd, struct epoll_event *events, int room, uint64_t wake_ns)
{
    uint64_t now = now_ns(), wait = wake_ns > now ? wake_ns - now : 0;
    struct timespec t = {.tv_sec = (time_t)(wait / 1000000000ull),
                         .tv_nsec = (long)(wait % 1000000000ull)};

    return epoll_pwait2(poll_fd, events, room, &t, NULL);
}
