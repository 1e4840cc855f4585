/* Requests that are not gRPC's: their bodies in pieces to Python, its answers to the client. What
 * they mean, and how much of them there may be, is Python's. */
#include "http2_internal.h"

#include <stdlib.h>
#include <string.h>

enum { SMALLEST_PIECE = 1024 };

void fl_h2_web_begins(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    const struct fl_h2_limits *limits = &h2->server->limits;
    stream->web = 1;
    if (stream->refused == FL_HEAD_TOO_LARGE)
        stream->refused = FL_H2_TOO_LARGE;
    else if (h2->waiting > limits->waiting || h2->server->bytes > limits->total)
        stream->refused = FL_H2_BUSY;
    else
        stream->refused = 0;
    fl_h2_tell(h2, stream, FL_H2_BEGAN);
}

/* The piece that is not told yet, with room for so many bytes more. */
static struct fl_h2_message *piece_for(struct fl_h2 *h2, struct fl_h2_stream *stream, size_t size)
{
    struct fl_h2_message *piece = stream->in.last;
    if (piece == NULL) {
        piece = fl_h2_message_new(h2, 0, size < SMALLEST_PIECE ? SMALLEST_PIECE : size);
        stream->in.first = stream->in.last = piece;
        return piece;
    }
    size_t room = piece->size + size;
    if (room <= piece->room)
        return piece;
    room *= 2;
    piece = realloc(piece, sizeof *piece + room);
    if (piece == NULL)
        return NULL;
    h2->server->bytes += room - piece->room;
    piece->room = room;
    stream->in.first = stream->in.last = piece;
    return piece;
}

/* The window opens again when Python has taken it, so it is never more than that. */
int fl_h2_body(struct fl_h2 *h2, struct fl_h2_stream *stream, const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct fl_h2_message *piece = piece_for(h2, stream, size);
    if (piece == NULL)
        return -1;
    memcpy(piece->bytes + piece->size, data, size);
    piece->size += size;
    fl_h2_tell(h2, stream, 0);
    return 0;
}

static struct fl_h2_stream *web_stream(struct fl_h2 *h2, int32_t id)
{
    struct fl_h2_stream *stream = fl_h2_stream_of(h2, id);
    return stream != NULL && stream->web ? stream : NULL;
}

int fl_h2_respond(struct fl_h2 *h2, int32_t id, int status, const char *fields, size_t fields_size,
                  const char *body, size_t size)
{
    struct fl_h2_stream *stream = web_stream(h2, id);
    const struct fl_text whole = {body, size};
    if (stream == NULL || (size > 0 && fl_h2_append(h2, stream, &whole, 1) < 0))
        return -1;
    fl_h2_finished(h2, stream, 0);
    return fl_h2_submit(h2, stream, status, fields, fields_size);
}

int fl_h2_begin(struct fl_h2 *h2, int32_t id, int status, const char *fields, size_t fields_size)
{
    struct fl_h2_stream *stream = web_stream(h2, id);
    if (stream == NULL || stream->answered)
        return -1;
    return fl_h2_submit(h2, stream, status, fields, fields_size);
}

int fl_h2_cut(struct fl_h2 *h2, int32_t id)
{
    struct fl_h2_stream *stream = web_stream(h2, id);
    if (stream == NULL)
        return -1;
    fl_h2_finished(h2, stream, 0);
    return nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
}

int fl_h2_continue(struct fl_h2 *h2, int32_t id)
{
    static const nghttp2_nv head = {(uint8_t *)":status", (uint8_t *)"100", 7, 3,
                                    NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
    if (web_stream(h2, id) == NULL)
        return -1;
    return nghttp2_submit_headers(h2->session, NGHTTP2_FLAG_NONE, id, NULL, &head, 1, NULL);
}

uint64_t fl_h2_unread(const struct fl_h2 *h2)
{
    return h2->unread;
}
