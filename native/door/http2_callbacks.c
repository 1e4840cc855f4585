/* What nghttp2 says of a connection, and what it means to us. */
#include "http2_internal.h"

static struct fl_h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct fl_h2 *h2 = user;
    h2->block_bytes = 0;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0; /* trailers of a client: nothing of gRPC is in them */
    struct fl_h2_stream *stream = fl_h2_stream_new(h2, frame->hd.stream_id);
    if (stream == NULL)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, stream);
    return 0;
}

/* A few bytes of HPACK can stand for megabytes of fields: the stream of such a block is reset, and
 * what is left of it is no longer looked at. */
static int is_bomb(struct fl_h2 *h2, size_t size)
{
    h2->block_bytes += size + FL_H2_FIELD_OVERHEAD;
    return h2->block_bytes > (size_t)FL_H2_BOMB * h2->server->limits.head;
}

static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame,
                             const uint8_t *name, size_t name_size, const uint8_t *value,
                             size_t value_size, uint8_t flags, void *user)
{
    (void)name, (void)value, (void)flags;
    if (is_bomb(user, name_size + value_size))
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    struct fl_h2_stream *stream = stream_of(session, frame->hd.stream_id);
    if (stream != NULL)
        stream->malformed = 1;
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
                     void *user)
{
    (void)flags;
    if (is_bomb(user, name_size + value_size))
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct fl_h2_stream *stream = stream_of(session, frame->hd.stream_id);
    if (stream != NULL && fl_h2_field(user, stream, (const char *)name, name_size,
                                      (const char *)value, value_size) < 0)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t size, void *user)
{
    (void)flags;
    struct fl_h2_stream *stream = stream_of(session, id);
    nghttp2_session_consume_connection(session, size);
    if (stream != NULL && fl_h2_data(user, stream, data, size) < 0)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return 0;
}

static void on_ping(struct fl_h2 *h2, const nghttp2_frame *frame)
{
    if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
        if (fl_h2_pinged(h2) < 0)
            fl_h2_end(h2, NGHTTP2_ENHANCE_YOUR_CALM, "too_many_pings");
        return;
    }
    h2->ping_sent_ns = 0;
    if (h2->closing == 1)
        fl_h2_shutdown(h2, 1);
}

static void on_stream_frame(struct fl_h2 *h2, const nghttp2_frame *frame)
{
    struct fl_h2_stream *stream = stream_of(h2->session, frame->hd.stream_id);
    if (stream == NULL)
        return;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        if (stream->malformed) { /* two readers might read it differently */
            fl_h2_finished(h2, stream, 0);
            nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id,
                                      NGHTTP2_PROTOCOL_ERROR);
            return;
        }
        fl_h2_head_complete(h2, stream);
    }
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        fl_h2_input_ended(h2, stream);
}

static int on_frame_received(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct fl_h2 *h2 = user;
    int idle = 0;
    switch (frame->hd.type) {
    case NGHTTP2_DATA:
        idle = frame->hd.length == 0 && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0;
        on_stream_frame(h2, frame);
        break;
    case NGHTTP2_HEADERS:
        on_stream_frame(h2, frame);
        break;
    case NGHTTP2_SETTINGS:
        h2->hello = 1;
        idle = (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0;
        break;
    case NGHTTP2_PING:
        on_ping(h2, frame);
        break;
    case NGHTTP2_PRIORITY:
        idle = 1;
        break;
    case NGHTTP2_WINDOW_UPDATE:
        if (fl_h2_widened(h2) < 0)
            fl_h2_end(h2, NGHTTP2_ENHANCE_YOUR_CALM, "too many window updates");
        break;
    default:
        break;
    }
    if (idle && fl_h2_chatted(h2) < 0)
        fl_h2_end(h2, NGHTTP2_ENHANCE_YOUR_CALM, "too many idle frames");
    return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct fl_h2 *h2 = user;
    int32_t id = frame->hd.stream_id;
    if (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) {
        h2->strikes = 0;
        h2->pinged_ns = 0;
        fl_h2_sent(h2, frame->hd.length);
        struct fl_h2_stream *stream = stream_of(session, id);
        /* The answer is complete and the client still talks: it need not. */
        if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && stream != NULL && !stream->ended)
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
    }
    if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code != NGHTTP2_NO_ERROR &&
        fl_h2_reset(h2) < 0)
        fl_h2_end(h2, NGHTTP2_ENHANCE_YOUR_CALM, "too many faulty streams");
    return 0;
}

static int on_stream_closed(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    (void)error;
    struct fl_h2_stream *stream = stream_of(session, id);
    if (stream != NULL)
        fl_h2_stream_closed(user, stream);
    return 0;
}

void fl_h2_set_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_received);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_closed);
}
