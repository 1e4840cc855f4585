/* A connection from arbitrary bytes. Before each piece, one byte says how long it is and what is
 * done with its calls. */
#include "http2_internal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef FUZZ_WEB /* whether other requests than gRPC's are let in: fuzz_web_http2.c */
#define FUZZ_WEB 0
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct fl_h2_limits limits = {
    .web = FUZZ_WEB,
    .streams = 8,
    .head = 2048,
    .message = 100000,
    .window = 65535,
    .arriving = 150000,
    .waiting = 300000,
    .total = 1000000,
    .resets = 20,
    .resets_a_s = 1,
    .chatter = 20,
    .chatter_a_s = 1,
    .ping_strikes = 3,
    .ping_every = 1,
    .keepalive = 1,
    .keepalive_timeout = 1000000000,
    .hello = 1000000000,
    .message_idle = 1,
    .blocked = 1000000000,
    .stalled = 1000000000,
    .idle = FUZZ_WEB,
};

/* Answers a call in one of several ways. */
static void act(struct fl_h2 *h2, const struct fl_h2_event *event, unsigned how)
{
    static char message[70000];
    int32_t stream = event->stream;
    if (event->news & FL_H2_ADOPT) {
        fl_call_adopt(event->call);
        fl_call_free(event->call);
    }
    if (event->news & FL_H2_BEGAN) {
        /* All of it must be there to be read. */
        unsigned sum = 0;
        for (size_t i = 0; i < event->head_size; i++)
            sum += (unsigned char)event->head[i];
        for (size_t i = 0; i < event->path_size; i++)
            sum += (unsigned char)event->path[i];
        for (size_t i = 0; i < event->authorization_size; i++)
            sum += (unsigned char)event->authorization[i];
        message[0] = (char)sum;
        if (how & 1)
            fl_h2_accept(h2, stream);
        if (event->web && how & 2)
            fl_h2_continue(h2, stream);
        if (event->web && how & 0x80)
            fl_h2_begin(h2, stream, 200, "x\0y", 4);
        if (event->web && how & 0x40)
            fl_h2_respond(h2, stream, 404, "x\0y", 4, message, how & 16 ? sizeof message : 0);
    }
    if (event->news & FL_H2_MESSAGE) {
        size_t length = event->message_size < sizeof message ? event->message_size : sizeof message;
        memcpy(message, event->message, length);
        if (how & 2)
            fl_h2_want(h2, stream);
        if (how & 4)
            fl_h2_write(h2, stream, message, length, 1000);
    }
    size_t answer = how & 16 ? sizeof message : how & 4 ? 5 : 0;
    if (event->news & FL_H2_ENDED &&
        fl_h2_respond(h2, stream, 200, "content-type\0a", 15, message, answer) < 0) {
        if (how & 8)
            fl_h2_answer(h2, stream, message, how & 16 ? sizeof message : 5);
        else if (how & 16)
            fl_h2_finish(h2, stream, 3, "grpc-message\0no\0x\0y", 20);
    }
    if ((how & 0x60) == 0x60)
        fl_h2_finish(h2, stream, 99, NULL, 0);
}

static int turn(struct fl_h2 *h2, struct fl_h2_server *server, unsigned how)
{
    int needs = FL_H2_NEWS;
    while (needs & (FL_H2_NEWS | FL_H2_REST)) {
        while (fl_h2_next(h2))
            act(h2, &server->event, how);
        needs = fl_h2_flush(h2);
        size_t rest;
        fl_h2_rest(h2, &rest);
    }
    return needs & FL_H2_CLOSE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    struct fl_h2_server *server = fl_h2_server_new(&limits);
    static struct fl_door *door;
    static struct fl_pool *pool;
    if (door == NULL) {
        char key[64];
        door = fl_door_new(&(int64_t){1}, 1,
                           &(struct fl_policy){50000, 1000000, 250000, 5000000, 10000});
        pool = fl_pool_new(7, 1000000000, 1, "$LATEST");
        fl_add_route(door, key, fl_grpc_route_key("echo", 4, NULL, 0, key, sizeof key), pool, "{}",
                     2, "", "");
    }
    pool->busy = 1;
    pool->service_ns = 0;
    fl_h2_set_fast(server, door, 1);
    struct fl_h2 *h2 = fl_h2_new(server, 1, -1);
    uint64_t handle;
    uint32_t need;
    int over = fl_h2_received(h2, hello, sizeof hello - 1) < 0;
    while (size > 2 && !over) {
        size_t piece = (size_t)data[0] << 5;
        unsigned how = data[1];
        data += 2, size -= 2;
        if (piece == 0 || piece > size)
            piece = size;
        /* Its own memory, so that a byte too far is found out. */
        char *copy = malloc(piece);
        memcpy(copy, data, piece);
        over = fl_h2_received(h2, copy, piece) < 0 || turn(h2, server, how);
        free(copy);
        while (fl_h2_waiting_pool(h2) != 0)
            ;
        struct fl_call *call = how & 0x80 ? pool->first : NULL;
        if (call != NULL) { /* its worker has come, and has answered */
            unsigned char answer[FL_HEADROOM + 2] = {0};
            const struct fl_measures measures = {1, 2, 3, 4, 5, 6};
            pool->first = call->next;
            pool->last = pool->first == NULL ? NULL : pool->last;
            pool->waiting--;
            call->queued = 0;
            call->from->answer(door, call, answer + FL_HEADROOM, 2, &measures);
            fl_call_free(call);
            over |= turn(h2, server, how);
        }
        data += piece, size -= piece;
        if (how == 0xFF)
            fl_h2_tick(server, &handle, &need, 1);
        if (how == 0xFE)
            fl_h2_shutdown(h2, size & 1);
    }
    for (struct fl_call *call; (call = fl_h2_fast_call(h2)) != NULL; fl_call_free(call))
        fl_call_adopt(call);
    fl_h2_free(h2);
    if (pool->waiting != 0 || server->fast_calls != 0)
        __builtin_trap();
    if (server->bytes != 0 || server->connections != 0)
        __builtin_trap();
    fl_h2_server_free(server);
    return 0;
}
