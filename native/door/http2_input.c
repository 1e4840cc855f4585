/*
 * Messages of clients, out of DATA frames.
 *
 * How much memory a client can take: of every call its window (64 KiB), which opens again only when
 * Python has taken what came. A larger message gets its memory, and with it an open window, when
 * its call is accepted and there is memory: of each connection and of the process. Calls that wait
 * for memory hold none, so they cannot keep one another from it.
 */
#include "http2_internal.h"

#include <stdlib.h>
#include <string.h>

struct fl_h2_message *fl_h2_message_new(struct fl_h2 *h2, size_t size, size_t room)
{
    struct fl_h2_message *message = malloc(sizeof *message + room);
    if (message == NULL)
        return NULL;
    *message = (struct fl_h2_message){.size = size, .room = room};
    h2->server->bytes += sizeof *message + room;
    return message;
}

void fl_h2_message_free(struct fl_h2 *h2, struct fl_h2_message *message)
{
    if (message == NULL)
        return;
    h2->server->bytes -= sizeof *message + message->room;
    free(message);
}

/* Opens the stream's window by what came, unless that would let more in than there is room for. */
static void open_window(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    const struct fl_h2_message *arriving = stream->arriving;
    if (stream->in.first != NULL)
        return;
    if (arriving != NULL && arriving->size > h2->server->limits.window && !arriving->reserved)
        return;
    if (stream->held > 0)
        nghttp2_session_consume_stream(h2->session, stream->id, stream->held);
    stream->held = 0;
}

static int enlarge(struct fl_h2 *h2, struct fl_h2_stream *stream, size_t room)
{
    struct fl_h2_message *larger = realloc(stream->arriving, sizeof *larger + room);
    if (larger == NULL)
        return -1;
    h2->server->bytes += room - larger->room;
    larger->room = room;
    stream->arriving = larger;
    return 0;
}

static void stop_waiting(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    if (stream->waits)
        h2->memory_waiters--;
    stream->waits = 0;
}

static void release(struct fl_h2 *h2, struct fl_h2_message *message)
{
    if (message->reserved)
        h2->reserved -= message->size;
    message->reserved = 0;
}

/* Memory for the whole of a message larger than a window, if there is some. */
static void reserve(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    const struct fl_h2_limits *limits = &h2->server->limits;
    size_t size = stream->arriving->size;
    if (h2->reserved + size > limits->arriving || h2->server->bytes + size > limits->total ||
        enlarge(h2, stream, size) < 0) {
        if (!stream->waits)
            h2->memory_waiters++;
        stream->waits = 1;
        return;
    }
    stop_waiting(h2, stream);
    stream->arriving->reserved = 1;
    h2->reserved += size;
    stream->received_ns = h2->now;
    nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, stream->id,
                                          FL_H2_LARGE_WINDOW);
    open_window(h2, stream);
}

void fl_h2_grant(struct fl_h2 *h2)
{
    struct fl_h2_stream *stream = h2->memory_waiters > 0 ? h2->streams : NULL;
    for (; stream != NULL; stream = stream->next)
        if (stream->waits)
            reserve(h2, stream);
}

int fl_h2_accept(struct fl_h2 *h2, int32_t id)
{
    struct fl_h2_stream *stream = fl_h2_stream_of(h2, id);
    if (stream == NULL)
        return -1;
    stream->accepted = 1;
    if (stream->web)
        return nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, id,
                                                     FL_H2_LARGE_WINDOW);
    if (stream->arriving != NULL && stream->arriving->size > h2->server->limits.window)
        reserve(h2, stream);
    return 0;
}

/* The prefix is complete. -1 without memory. */
static int begin_message(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    const struct fl_h2_limits *limits = &h2->server->limits;
    const unsigned char *prefix = stream->prefix;
    size_t size = (size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 |
                  (size_t)prefix[4];
    if (prefix[0] > 1 || (prefix[0] == 1 && stream->encoding == 0)) {
        fl_h2_refuse(h2, stream, 13,
                     "A message is compressed, but grpc-encoding does not say how.");
        return 0;
    }
    if (size > limits->message) {
        fl_h2_refuse(h2, stream, 8, "A message is larger than this server takes.");
        return 0;
    }
    int large = size > limits->window;
    stream->arriving = fl_h2_message_new(h2, size, large ? limits->window : size);
    if (stream->arriving == NULL)
        return -1;
    stream->arriving->compressed = prefix[0];
    stream->prefix_size = 0;
    if (stream->plain && (size > FL_EVENT_BYTES * 2 || stream->in.first != NULL))
        fl_grpc_give_up(h2, stream);
    if (large && stream->accepted)
        reserve(h2, stream);
    return 0;
}

static void complete_message(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    struct fl_h2_message *message = stream->arriving;
    stream->arriving = NULL;
    message->next = NULL;
    if (stream->in.last != NULL)
        stream->in.last->next = message;
    else
        stream->in.first = message;
    stream->in.last = message;
    if (stream->wanted > 0 && !stream->plain)
        fl_h2_tell(h2, stream, 0);
}

/* As much of it as belongs to the message that is arriving. -1 without memory. */
static ssize_t fill(struct fl_h2 *h2, struct fl_h2_stream *stream, const uint8_t *data, size_t size)
{
    struct fl_h2_message *message = stream->arriving;
    if (size > message->size - message->done)
        size = message->size - message->done;
    if (size > message->room - message->done) {
        size_t room =
            message->done + size > message->size / 2 ? message->size : (message->done + size) * 2;
        if (enlarge(h2, stream, room) < 0)
            return -1;
        message = stream->arriving;
    }
    memcpy(message->bytes + message->done, data, size);
    message->done += size;
    if (message->done == message->size)
        complete_message(h2, stream);
    return (ssize_t)size;
}

int fl_h2_data(struct fl_h2 *h2, struct fl_h2_stream *stream, const uint8_t *data, size_t size)
{
    if (stream->finished) { /* it is answered; the client will hear of it */
        nghttp2_session_consume_stream(h2->session, stream->id, size);
        return 0;
    }
    stream->held += size;
    stream->received_ns = h2->now;
    if (stream->web)
        return fl_h2_body(h2, stream, data, size);
    while (size > 0 && !stream->finished) {
        if (stream->arriving == NULL) {
            stream->prefix[stream->prefix_size++] = *data++;
            size--;
            if (stream->prefix_size < sizeof stream->prefix)
                continue;
            if (begin_message(h2, stream) < 0)
                return -1;
            if (stream->finished || (size == 0 && stream->arriving->size > 0))
                break;
        }
        ssize_t used = fill(h2, stream, data, size);
        if (used < 0)
            return -1;
        data += used;
        size -= (size_t)used;
    }
    open_window(h2, stream);
    return 0;
}

void fl_h2_input_ended(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    stream->ended = 1;
    if (stream->finished)
        return;
    if (stream->arriving != NULL || stream->prefix_size > 0)
        fl_h2_refuse(h2, stream, 13, "The last message is incomplete.");
    else if (!stream->plain || !fl_grpc_start(h2, stream))
        fl_h2_tell(h2, stream, 0);
}

struct fl_h2_message *fl_h2_take(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    struct fl_h2_message *message = stream->in.first;
    stream->in.first = message->next;
    if (stream->in.first == NULL)
        stream->in.last = NULL;
    release(h2, message);
    fl_h2_grant(h2);
    open_window(h2, stream);
    return message;
}

static void drop(struct fl_h2 *h2, struct fl_h2_message *message)
{
    release(h2, message);
    fl_h2_message_free(h2, message);
}

void fl_h2_input_free(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    stop_waiting(h2, stream);
    if (stream->arriving != NULL)
        drop(h2, stream->arriving);
    stream->arriving = NULL;
    while (stream->in.first != NULL) {
        struct fl_h2_message *next = stream->in.first->next;
        drop(h2, stream->in.first);
        stream->in.first = next;
    }
    stream->in.last = NULL;
}
