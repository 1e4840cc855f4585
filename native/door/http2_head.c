/* The head of a request: kept as it is for Python, and what is in it for us. */
#include "http2_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_DIGITS = 8 };

static int is(const char *text, size_t size, const char *other)
{
    return size == strlen(other) && memcmp(text, other, size) == 0;
}

/* "application/grpc", alone or with what may follow it. */
static int is_grpc(const char *type, size_t size)
{
    static const char ours[] = "application/grpc";
    size_t length = sizeof ours - 1;
    if (size < length || memcmp(type, ours, length) != 0)
        return 0;
    return size == length || type[length] == '+' || type[length] == ';';
}

int64_t fl_grpc_timeout(const char *text, size_t size)
{
    static const char units[] = "HMSmun";
    static const int64_t lengths[] = {3600000000000, 60000000000, 1000000000, 1000000, 1000, 1};
    if (size < 2 || size > MOST_DIGITS + 1)
        return -1;
    int64_t value = 0;
    for (size_t i = 0; i + 1 < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    const char *unit = memchr(units, text[size - 1], sizeof units - 1);
    if (unit == NULL)
        return -1;
    int64_t length = lengths[unit - units];
    /* 99,999,999 hours do not fit: as good as for ever. */
    return value > INT64_MAX / 2 / length ? INT64_MAX / 2 : value * length;
}

static int encoding_of(const char *value, size_t size)
{
    if (is(value, size, "identity"))
        return 0;
    if (is(value, size, "deflate"))
        return 1;
    return is(value, size, "gzip") ? 2 : -1;
}

/* Room for so many bytes more. */
static int widen(struct fl_h2_stream *stream, size_t size)
{
    size_t needed = stream->head_size + size;
    if (needed <= stream->head_room)
        return 0;
    size_t room = needed * 2;
    char *wider = stream->head == stream->small ? malloc(room) : realloc(stream->head, room);
    if (wider == NULL)
        return -1;
    if (stream->head == stream->small)
        memcpy(wider, stream->small, stream->head_size);
    stream->head = wider;
    stream->head_room = room;
    return 0;
}

/* What this field says to us; `at` is where its value stands in the head. */
static void look(struct fl_h2_stream *stream, const char *name, size_t name_size, const char *value,
                 size_t size, size_t at)
{
    if (is(name, name_size, ":path")) {
        stream->path = at;
        stream->path_size = size;
    } else if (is(name, name_size, ":method")) {
        stream->post = (uint8_t)is(value, size, "POST");
    } else if (is(name, name_size, "content-type")) {
        stream->typed = (uint8_t)is_grpc(value, size);
    } else if (is(name, name_size, "authorization")) {
        stream->authorization = at;
        stream->authorization_size = size;
        stream->authorizations++;
    } else if (is(name, name_size, "grpc-timeout")) {
        stream->timeout_ns = fl_grpc_timeout(value, size);
        if (stream->timeout_ns < 0 && !stream->refused)
            stream->refused = FL_BAD_TIMEOUT;
    } else if (is(name, name_size, "grpc-encoding")) {
        int encoding = encoding_of(value, size);
        if (encoding < 0 && !stream->refused)
            stream->refused = FL_UNKNOWN_ENCODING;
        stream->encoding = (uint8_t)(encoding < 0 ? 0 : encoding);
    }
}

int fl_h2_field(struct fl_h2 *h2, struct fl_h2_stream *stream, const char *name, size_t name_size,
                const char *value, size_t value_size)
{
    /* The rest of a head that is too large is read and forgotten: the compression needs it read. */
    if (stream->refused == FL_HEAD_TOO_LARGE)
        return 0;
    stream->counted += name_size + value_size + FL_H2_FIELD_OVERHEAD;
    if (stream->counted > h2->server->limits.head) {
        stream->refused = FL_HEAD_TOO_LARGE;
        return 0;
    }
    if (widen(stream, name_size + value_size + 2) < 0)
        return -1;
    char *at = stream->head + stream->head_size;
    memcpy(at, name, name_size);
    at[name_size] = '\0';
    memcpy(at + name_size + 1, value, value_size);
    at[name_size + 1 + value_size] = '\0';
    look(stream, name, name_size, value, value_size, stream->head_size + name_size + 1);
    stream->head_size += name_size + value_size + 2;
    return 0;
}

void fl_h2_head_complete(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    const struct fl_h2_server *server = h2->server;
    int call = stream->typed && stream->post;
    if (!call && server->limits.web)
        fl_h2_web_begins(h2, stream);
    else if (stream->refused == FL_HEAD_TOO_LARGE)
        fl_h2_refuse(h2, stream, 8, "The metadata is too large.");
    else if (!call)
        fl_h2_refuse_http(h2, stream, stream->post ? "415" : "405");
    else if (stream->refused == FL_BAD_TIMEOUT)
        fl_h2_refuse(h2, stream, 13, "grpc-timeout is malformed.");
    else if (stream->refused == FL_UNKNOWN_ENCODING)
        fl_h2_refuse(h2, stream, 12, "This grpc-encoding is not known here.");
    else if (h2->waiting > server->limits.waiting)
        fl_h2_refuse(h2, stream, 8, "Too many answers wait to be read by this client.");
    else if (server->bytes > server->limits.total)
        fl_h2_refuse(h2, stream, 8, "The server has no memory left for calls.");
    else if (fl_grpc_is_plain(h2, stream)) {
        stream->plain = 1; /* Python hears of it when it is complete, or takes long, or is large */
        stream->news = FL_H2_BEGAN;
    } else {
        fl_h2_tell(h2, stream, FL_H2_BEGAN);
    }
}
