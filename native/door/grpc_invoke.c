/*
 * A plain Invoke without Python: a function that Python has resolved before, called by somebody
 * whom Python has let in before, with nothing but an event. It becomes a call of the fast path,
 * whose answer is written from here. Everything else is told to Python as if this file did not
 * exist.
 */
#include "grpc.h"
#include "http2_internal.h"

#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 512, SOON_NS = 2000000000 };

static const char method[] = "/forklight.v1.Invocations/Invoke";

void fl_h2_set_fast(struct fl_h2_server *server, struct fl_door *door, int open)
{
    server->own->door = door;
    server->own->open = open;
}

void fl_h2_add_token(struct fl_h2_server *server, const char *value, size_t size)
{
    char *present = malloc(1);
    if (present != NULL)
        fl_table_put(&server->own->tokens, value, size, present);
}

void fl_h2_forget_tokens(struct fl_h2_server *server)
{
    fl_table_clear(&server->own->tokens);
}

/* A mark that no HTTP request can begin with, then both names. */
size_t fl_grpc_route_key(const char *function, size_t function_size, const char *qualifier,
                         size_t qualifier_size, char *out, size_t room)
{
    static const char mark[] = "\0grpc";
    size_t size = sizeof mark + function_size + 1 + qualifier_size;
    if (function_size > room || qualifier_size > room || size > room ||
        memchr(function, '\0', function_size) != NULL ||
        (qualifier_size > 0 && memchr(qualifier, '\0', qualifier_size) != NULL))
        return 0;
    memcpy(out, mark, sizeof mark);
    memcpy(out + sizeof mark, function, function_size);
    out[sizeof mark + function_size] = '\0';
    if (qualifier_size > 0)
        memcpy(out + sizeof mark + function_size + 1, qualifier, qualifier_size);
    return size;
}

int fl_grpc_is_plain(struct fl_h2 *h2, const struct fl_h2_stream *stream)
{
    const struct fl_h2_own *own = h2->server->own;
    if (own->door == NULL || stream->encoding != 0 || stream->path_size != sizeof method - 1 ||
        memcmp(stream->head + stream->path, method, sizeof method - 1) != 0)
        return 0;
    return own->open || (stream->authorizations == 1 &&
                         fl_table_get(&own->tokens, stream->head + stream->authorization,
                                      stream->authorization_size) != NULL);
}

void fl_grpc_give_up(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    stream->plain = 0;
    fl_h2_tell(h2, stream, 0);
}

/* Remembers for Python that calls wait there. 0: too many pools to remember. */
static int note_pool(struct fl_h2 *h2, uint64_t pool)
{
    for (size_t i = 0; i < h2->pool_count; i++)
        if (h2->pools[i] == pool)
            return 1;
    if (h2->pool_count == FL_H2_POOLS)
        return 0;
    h2->pools[h2->pool_count++] = pool;
    return 1;
}

uint64_t fl_h2_waiting_pool(struct fl_h2 *h2)
{
    return h2->pool_count > 0 ? h2->pools[--h2->pool_count] : 0;
}

int fl_grpc_start(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    struct fl_door *door = h2->server->own->door;
    struct fl_h2_message *message = stream->in.first;
    struct fl_grpc_request request;
    char key[KEY_BYTES];
    stream->plain = 0;
    if (message == NULL || message->next != NULL || message->compressed || h2->dead ||
        fl_grpc_read_request(message->bytes, message->size, &request) < 0)
        return 0;
    size_t size = fl_grpc_route_key(request.function.at, request.function.size,
                                    request.qualifier.at, request.qualifier.size, key, sizeof key);
    const struct fl_route *route = size > 0 ? fl_table_get(&door->own->routes, key, size) : NULL;
    if (route == NULL || h2->pool_count == FL_H2_POOLS)
        return 0;
    if (request.payload.size == 0)
        request.payload = (struct fl_text){"{}", 2};
    int64_t limit = stream->timeout_ns < 0 ? 0 : stream->began_ns + stream->timeout_ns;
    struct fl_call *call = NULL;
    enum fl_verdict verdict =
        fl_submit(door, route, &h2->origin, stream->id, (const unsigned char *)request.payload.at,
                  request.payload.size, limit, &call);
    if (verdict == FL_PYTHON)
        return 0;
    if (verdict == FL_WAITING)
        note_pool(h2, door->pool);
    stream->call = call;
    stream->ended = 2;
    stream->known = 1; /* from here on Python hears how it ends, should it be irregular */
    stream->news = 0;
    h2->server->fast_calls++;
    fl_h2_input_free(h2, stream);
    /* The queue knows no limits of its own; Python's does. */
    if (call->queued && limit != 0 && limit - call->admitted_ns < SOON_NS)
        fl_h2_tell(h2, stream, FL_H2_ADOPT);
    return 1;
}

/* The stream that has this call: also one that nghttp2 has closed, while Python is not told. */
static struct fl_h2_stream *stream_of(struct fl_h2 *h2, const struct fl_call *call)
{
    struct fl_h2_stream *stream = nghttp2_session_get_stream_user_data(h2->session, call->stream);
    if (stream != NULL)
        return stream;
    for (stream = h2->streams; stream != NULL; stream = stream->next)
        if (stream->call == call)
            break;
    return stream;
}

static struct fl_h2_stream *let_go(struct fl_call *call)
{
    struct fl_h2 *h2 = (struct fl_h2 *)call->from;
    struct fl_h2_stream *stream = stream_of(h2, call);
    h2->server->fast_calls--;
    if (stream != NULL)
        stream->call = NULL;
    return stream;
}

static void adopted(struct fl_call *call)
{
    struct fl_h2_stream *stream = let_go(call);
    if (stream != NULL)
        stream->news &= ~(uint32_t)FL_H2_ADOPT;
}

static enum fl_verdict answer(struct fl_door *door, struct fl_call *call, unsigned char *payload,
                              size_t size, const struct fl_measures *measures)
{
    struct fl_h2 *h2 = (struct fl_h2 *)call->from;
    struct fl_h2_stream *stream = let_go(call);
    unsigned char head[FL_GRPC_HEAD_BYTES], tail[FL_GRPC_TAIL_BYTES];
    if (stream == NULL || stream->finished)
        return FL_DONE;
    const struct fl_text parts[] = {
        {(const char *)head, fl_grpc_write_head(head, size)},
        {(const char *)payload, size},
        {(const char *)tail, fl_grpc_write_tail(tail, call, measures)},
    };
    if (fl_h2_answer_parts(h2, stream, parts, sizeof parts / sizeof *parts) != 0)
        fl_h2_end(h2, NGHTTP2_INTERNAL_ERROR, "no memory");
    if (fl_h2_flush(h2) == 0)
        return FL_DONE;
    door->origin = h2->origin.handle; /* Python takes a turn */
    return FL_BLOCKED;
}

void fl_grpc_origin(struct fl_h2 *h2, uint64_t handle)
{
    h2->origin = (struct fl_origin){handle, answer, adopted};
}

struct fl_call *fl_h2_fast_call(struct fl_h2 *h2)
{
    for (const struct fl_h2_stream *stream = h2->streams; stream != NULL; stream = stream->next)
        if (stream->call != NULL)
            return stream->call;
    return NULL;
}
