/* Answers: messages and trailers on their way to a client, as fast as it opens its windows. */
#include "http2_internal.h"

#include <stdlib.h>
#include <string.h>

enum { PREFIX = 5, MOST_FIELDS = 64, MOST_STATUS = 16 };

#define FIXED(name, value)                                                                         \
    {(uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1,                   \
     NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE}

static const char *const statuses[MOST_STATUS + 1] = {
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
};

static nghttp2_nv status_field(int status)
{
    const char *text = statuses[status >= 0 && status <= MOST_STATUS ? status : 2];
    return (nghttp2_nv){(uint8_t *)"grpc-status", (uint8_t *)text, sizeof "grpc-status" - 1,
                        strlen(text), NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

/* Name, NUL, value, NUL, ... as fields; how many. */
static size_t split(const char *fields, size_t size, nghttp2_nv *out, size_t room)
{
    size_t count = 0;
    const char *end = size > 0 ? fields + size : fields;
    while (fields < end && count < room) {
        const char *value = memchr(fields, '\0', (size_t)(end - fields));
        const char *stop = value ? memchr(value + 1, '\0', (size_t)(end - value - 1)) : NULL;
        if (stop == NULL)
            break;
        out[count++] =
            (nghttp2_nv){(uint8_t *)fields, (uint8_t *)value + 1, (size_t)(value - fields),
                         (size_t)(stop - value - 1), NGHTTP2_NV_FLAG_NONE};
        fields = stop + 1;
    }
    return count;
}

static void submit_trailers(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    nghttp2_nv fields[1 + MOST_FIELDS] = {status_field(stream->status)};
    size_t count = 1 + split(stream->fields, stream->fields_size, fields + 1, MOST_FIELDS);
    nghttp2_submit_trailer(h2->session, stream->id, fields, count);
}

static void count_out(struct fl_h2 *h2, struct fl_h2_stream *stream, size_t size)
{
    stream->out.bytes -= size;
    h2->waiting -= size;
    if (stream->web)
        h2->unread -= size;
}

/* nghttp2 wants bytes for a DATA frame. */
static nghttp2_ssize read_output(nghttp2_session *session, int32_t id, uint8_t *to, size_t room,
                                 uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct fl_h2 *h2 = user;
    struct fl_h2_stream *stream = source->ptr;
    size_t filled = 0;
    (void)session;
    (void)id;
    while (filled < room && stream->out.first != NULL) {
        struct fl_h2_message *message = stream->out.first;
        size_t size = message->size - message->done;
        if (size > room - filled)
            size = room - filled;
        memcpy(to + filled, message->bytes + message->done, size);
        filled += size;
        message->done += size;
        count_out(h2, stream, size);
        if (message->done < message->size)
            break;
        stream->out.first = message->next;
        if (stream->out.first == NULL)
            stream->out.last = NULL;
        fl_h2_message_free(h2, message);
    }
    h2->data_ns = h2->now;
    if (stream->choked && stream->out.bytes <= stream->low) {
        stream->choked = 0;
        fl_h2_tell(h2, stream, FL_H2_WRITABLE);
    }
    if (stream->out.first == NULL && stream->finished) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (!stream->web) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            submit_trailers(h2, stream);
        }
    } else if (filled == 0) {
        stream->deferred = 1;
        return NGHTTP2_ERR_DEFERRED;
    }
    return (nghttp2_ssize)filled;
}

/* The head of an answer, if it has not gone yet; and nghttp2 looks for messages again. */
static int start(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    static const nghttp2_nv head[] = {FIXED(":status", "200"),
                                      FIXED("content-type", "application/grpc")};
    if (stream->answered) {
        if (stream->deferred)
            nghttp2_session_resume_data(h2->session, stream->id);
        stream->deferred = 0;
        return 0;
    }
    stream->answered = 1;
    nghttp2_data_provider2 provider = {.source.ptr = stream, .read_callback = read_output};
    return nghttp2_submit_response2(h2->session, stream->id, head, 2, &provider);
}

int fl_h2_append(struct fl_h2 *h2, struct fl_h2_stream *stream, const struct fl_text *parts,
                 size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += parts[i].size;
    if (size > UINT32_MAX)
        return -1;
    size_t framing = stream->web ? 0 : PREFIX;
    struct fl_h2_message *message = fl_h2_message_new(h2, framing + size, framing + size);
    if (message == NULL)
        return -1;
    const unsigned char prefix[PREFIX] = {0, (unsigned char)(size >> 24),
                                          (unsigned char)(size >> 16), (unsigned char)(size >> 8),
                                          (unsigned char)size};
    memcpy(message->bytes, prefix, framing);
    unsigned char *at = message->bytes + framing;
    for (size_t i = 0; i < count; at += parts[i++].size)
        if (parts[i].size > 0)
            memcpy(at, parts[i].at, parts[i].size);
    message->next = NULL;
    if (stream->out.last != NULL)
        stream->out.last->next = message;
    else
        stream->out.first = message;
    stream->out.last = message;
    stream->out.bytes += message->size;
    if (h2->waiting == 0)
        h2->data_ns = fl_steady_ns(); /* nothing has been late so far */
    h2->waiting += message->size;
    if (stream->web)
        h2->unread += message->size;
    return 0;
}

void fl_h2_finished(struct fl_h2 *h2, struct fl_h2_stream *stream, int status)
{
    stream->finished = 1;
    stream->plain = 0;
    stream->status = status;
    stream->news &= FL_H2_GONE;
    fl_h2_input_free(h2, stream);
}

int fl_h2_answer_parts(struct fl_h2 *h2, struct fl_h2_stream *stream, const struct fl_text *parts,
                       size_t count)
{
    if (fl_h2_append(h2, stream, parts, count) < 0)
        return -1;
    fl_h2_finished(h2, stream, 0);
    return start(h2, stream);
}

int fl_h2_answer(struct fl_h2 *h2, int32_t id, const char *message, size_t size)
{
    struct fl_h2_stream *stream = fl_h2_stream_of(h2, id);
    const struct fl_text whole = {message, size};
    return stream == NULL ? -1 : fl_h2_answer_parts(h2, stream, &whole, 1);
}

int64_t fl_h2_write(struct fl_h2 *h2, int32_t id, const char *message, size_t size, size_t limit)
{
    struct fl_h2_stream *stream = fl_h2_stream_of(h2, id);
    const struct fl_text whole = {message, size};
    if (stream == NULL || fl_h2_append(h2, stream, &whole, 1) < 0 || start(h2, stream) != 0)
        return -1;
    stream->low = limit;
    stream->choked = stream->out.bytes > limit;
    return (int64_t)stream->out.bytes;
}

/* An answer that is nothing but its trailers. */
static int submit_refusal(struct fl_h2 *h2, struct fl_h2_stream *stream, nghttp2_nv http_status,
                          const char *fields, size_t size)
{
    nghttp2_nv head[3 + MOST_FIELDS] = {http_status, FIXED("content-type", "application/grpc"),
                                        status_field(stream->status)};
    size_t count = 3 + split(fields, size, head + 3, MOST_FIELDS);
    stream->answered = 1;
    return nghttp2_submit_response2(h2->session, stream->id, head, count, NULL);
}

static int finish_with(struct fl_h2 *h2, struct fl_h2_stream *stream, int status,
                       const char *fields, size_t size)
{
    fl_h2_finished(h2, stream, status);
    if (!stream->answered)
        return submit_refusal(h2, stream, (nghttp2_nv)FIXED(":status", "200"), fields, size);
    if (size > 0) {
        stream->fields = malloc(size);
        if (stream->fields == NULL)
            return -1;
        memcpy(stream->fields, fields, size);
        stream->fields_size = size;
    }
    return start(h2, stream);
}

int fl_h2_finish(struct fl_h2 *h2, int32_t id, int status, const char *fields, size_t size)
{
    struct fl_h2_stream *stream = fl_h2_stream_of(h2, id);
    return stream == NULL ? -1 : finish_with(h2, stream, status, fields, size);
}

void fl_h2_refuse(struct fl_h2 *h2, struct fl_h2_stream *stream, int status, const char *text)
{
    static const char accepted[] = "grpc-accept-encoding\0identity, deflate, gzip";
    char fields[512] = "grpc-message";
    size_t length = strlen(text) + 1, size = sizeof "grpc-message";
    memcpy(fields + size, text, length);
    size += length;
    memcpy(fields + size, accepted, sizeof accepted);
    size += sizeof accepted;
    if (stream->known)
        fl_h2_tell(h2, stream, FL_H2_GONE);
    finish_with(h2, stream, status, fields, size);
}

void fl_h2_refuse_http(struct fl_h2 *h2, struct fl_h2_stream *stream, const char *http_status)
{
    static const char text[] =
        "grpc-message\0Only POST of content type application/grpc is served.";
    nghttp2_nv field = FIXED(":status", "000");
    field.value = (uint8_t *)http_status;
    fl_h2_finished(h2, stream, 12);
    submit_refusal(h2, stream, field, text, sizeof text);
}

int fl_h2_submit(struct fl_h2 *h2, struct fl_h2_stream *stream, int http_status, const char *fields,
                 size_t size)
{
    char text[4] = {(char)('0' + http_status / 100 % 10), (char)('0' + http_status / 10 % 10),
                    (char)('0' + http_status % 10), '\0'};
    nghttp2_nv head[1 + MOST_FIELDS] = {
        {(uint8_t *)":status", (uint8_t *)text, 7, 3, NGHTTP2_NV_FLAG_NO_COPY_NAME}};
    size_t count = 1 + split(fields, size, head + 1, MOST_FIELDS);
    nghttp2_data_provider2 provider = {.source.ptr = stream, .read_callback = read_output};
    stream->answered = 1;
    return nghttp2_submit_response2(h2->session, stream->id, head, count,
                                    stream->out.first != NULL || !stream->finished ? &provider
                                                                                   : NULL);
}

void fl_h2_output_free(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    count_out(h2, stream, stream->out.bytes);
    while (stream->out.first != NULL) {
        struct fl_h2_message *next = stream->out.first->next;
        fl_h2_message_free(h2, stream->out.first);
        stream->out.first = next;
    }
    free(stream->fields);
    stream->fields = NULL;
}
