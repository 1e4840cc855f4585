/* A server's connection of HTTP/2 and nghttp2's own client, in memory, for tests. */
#ifndef FORKLIGHT_HTTP2_RIG_H
#define FORKLIGHT_HTTP2_RIG_H

#include "http2.h"

#include "harness.h"

#include <nghttp2/nghttp2.h>

enum { WINDOW = 65535, LARGEST = 3000000 };

static struct fl_h2_limits limits = {
    .streams = 16,
    .head = 4096,
    .message = LARGEST,
    .window = WINDOW,
    .arriving = 4000000,
    .waiting = 100000000,
    .total = 100000000,
    .resets = 1000,
    .resets_a_s = 33,
    .chatter = 1000,
    .chatter_a_s = 100,
    .ping_strikes = 3,
    .ping_every = 1000000000,
    .keepalive = 60000000000,
    .keepalive_timeout = 20000000000,
    .hello = 10000000000,
    .message_idle = 30000000000,
    .blocked = 20000000000,
    .stalled = 300000000000,
};

/* The server's side, the client's, and what the client has seen of its last call. */
static struct fl_h2_server *server;
static struct fl_h2 *h2;
static nghttp2_session *client;
static size_t piece; /* bytes of one arrival at the server */
static struct {
    char status[4], grpc_status[4], message[128], extra[32];
    unsigned char *data;
    size_t size;
    uint32_t closed; /* error + 1 */
} seen;
static struct {
    const unsigned char *at;
    size_t size;
    int open; /* no END_STREAM yet */
} sending;
/* The server's events, and what it does at once with a whole call. */
static uint32_t news;
static char *received;
static size_t received_size;
static int32_t last_stream;
static int accepting = 1;
static int taking = 1; /* whether news are heard as they come */
static uint32_t web, refusal;

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t size, uint8_t flags, void *user)
{
    static const struct {
        const char *name;
        char *to;
        size_t room;
    } wanted[] = {{":status", seen.status, sizeof seen.status},
                  {"grpc-status", seen.grpc_status, sizeof seen.grpc_status},
                  {"grpc-message", seen.message, sizeof seen.message},
                  {"extra", seen.extra, sizeof seen.extra}};
    (void)session, (void)frame, (void)name_size, (void)size, (void)flags, (void)user;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (strcmp((const char *)name, wanted[i].name) == 0)
            snprintf(wanted[i].to, wanted[i].room, "%s", (const char *)value);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t size, void *user)
{
    (void)session, (void)flags, (void)id, (void)user;
    seen.data = realloc(seen.data, seen.size + size);
    memcpy(seen.data + seen.size, data, size);
    seen.size += size;
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    (void)session, (void)id, (void)user;
    seen.closed = error + 1;
    return 0;
}

static nghttp2_ssize on_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t room,
                             uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)session, (void)id, (void)source, (void)user;
    size_t size = room < sending.size ? room : sending.size;
    memcpy(to, sending.at, size);
    sending.at += size;
    sending.size -= size;
    if (sending.size == 0 && sending.open && size == 0)
        return NGHTTP2_ERR_DEFERRED;
    if (sending.size == 0 && !sending.open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (nghttp2_ssize)size;
}

static void begin(void)
{
    nghttp2_session_callbacks *callbacks;
    server = fl_h2_server_new(&limits);
    h2 = fl_h2_new(server, 1, -1);
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_client_new(&client, callbacks, NULL);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(client, 0, NULL, 0);
    piece = 100000;
    accepting = taking = 1;
    news = 0;
}

static void end(void)
{
    nghttp2_session_del(client);
    fl_h2_free(h2);
    CHECK_INT(server->bytes, 0);
    CHECK_INT(server->connections, 0);
    fl_h2_server_free(server);
    free(seen.data);
    free(received);
    received = NULL;
    memset(&seen, 0, sizeof seen);
}

static void hear(void)
{
    while (fl_h2_next(h2)) {
        const struct fl_h2_event *event = &server->event;
        news |= event->news;
        last_stream = event->stream;
        if (event->news & FL_H2_BEGAN) {
            web = event->web;
            refusal = event->refusal;
            received_size = 0;
            if (accepting)
                fl_h2_accept(h2, event->stream);
        }
        if (event->news & FL_H2_MESSAGE) {
            size_t before = web ? received_size : 0; /* pieces of one body */
            received = realloc(received, before + event->message_size + 1);
            memcpy(received + before, event->message, event->message_size);
            received_size = before + event->message_size;
            received[received_size] = '\0';
        }
    }
}

/* What the server's socket did not take, to the client. */
static void deliver(void)
{
    size_t size;
    const char *rest = fl_h2_rest(h2, &size);
    CHECK_INT(nghttp2_session_mem_recv2(client, (const uint8_t *)rest, size), size);
}

static void arrive(const char *data, size_t size)
{
    int needs = fl_h2_received(h2, data, size);
    CHECK(needs >= 0);
    if (needs & FL_H2_REST)
        deliver();
}

/* Carries bytes both ways until both are silent. */
static void pump(void)
{
    for (int busy = 1; busy;) {
        const uint8_t *data;
        busy = 0;
        for (nghttp2_ssize n; (n = nghttp2_session_mem_send2(client, &data)) > 0; busy = 1)
            for (size_t i = 0; i < (size_t)n; i += piece)
                arrive((const char *)data + i, (size_t)n - i < piece ? (size_t)n - i : piece);
        if (taking)
            hear();
        for (; fl_h2_flush(h2) & FL_H2_REST; busy = 1)
            deliver();
        if (taking)
            hear();
    }
}

/* A message with its prefix. */
static const unsigned char *framed(size_t size)
{
    static unsigned char bytes[5 + LARGEST + 1];
    const unsigned char prefix[5] = {0, (unsigned char)(size >> 24), (unsigned char)(size >> 16),
                                     (unsigned char)(size >> 8), (unsigned char)size};
    memcpy(bytes, prefix, 5);
    for (size_t i = 0; i < size; i++)
        bytes[5 + i] = (unsigned char)(i % 251);
    return bytes;
}

static int32_t call_with(const char *method, const char *type, const char *name, const char *value,
                         const unsigned char *body, size_t size)
{
    const char *fields[][2] = {{":method", method}, {":scheme", "http"},    {":path", "/s/m"},
                               {":authority", "t"}, {"content-type", type}, {"te", "trailers"},
                               {name, value}};
    nghttp2_nv head[7];
    for (int i = 0; i < 7; i++)
        head[i] = (nghttp2_nv){(uint8_t *)fields[i][0], (uint8_t *)fields[i][1],
                               strlen(fields[i][0]), strlen(fields[i][1]), 0};
    nghttp2_data_provider2 provider = {.read_callback = on_read};
    memset(seen.status, 0, sizeof seen.status);
    memset(seen.grpc_status, 0, sizeof seen.grpc_status);
    seen.size = 0;
    seen.closed = 0;
    sending.at = body;
    sending.size = size;
    int32_t id = nghttp2_submit_request2(client, NULL, head, 7, &provider, NULL);
    pump();
    return id;
}

static int32_t call(size_t size)
{
    return call_with("POST", "application/grpc", "x", "y", framed(size), 5 + size);
}

#endif
