/* Calls as Python sees them: which have news, and what it is told of each. */
#include "http2_internal.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct fl_h2_stream *fl_h2_stream_new(struct fl_h2 *h2, int32_t id)
{
    struct fl_h2_stream *stream = malloc(sizeof *stream);
    if (stream == NULL)
        return NULL;
    memset(stream, 0, offsetof(struct fl_h2_stream, small));
    stream->id = id;
    stream->timeout_ns = -1;
    stream->wanted = 1;
    stream->head = stream->small;
    stream->head_room = sizeof stream->small;
    stream->received_ns = stream->began_ns = h2->now;
    stream->next = h2->streams;
    if (stream->next != NULL)
        stream->next->previous = stream;
    h2->streams = stream;
    return stream;
}

void fl_h2_stream_free(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    fl_h2_input_free(h2, stream);
    fl_h2_output_free(h2, stream);
    if (stream->head != stream->small)
        free(stream->head);
    if (stream->next != NULL)
        stream->next->previous = stream->previous;
    if (stream->previous != NULL)
        stream->previous->next = stream->next;
    else
        h2->streams = stream->next;
    if (h2->streams == NULL)
        h2->idle_ns = h2->now;
    free(stream);
}

struct fl_h2_stream *fl_h2_stream_of(struct fl_h2 *h2, int32_t id)
{
    struct fl_h2_stream *stream = nghttp2_session_get_stream_user_data(h2->session, id);
    return stream == NULL || stream->finished ? NULL : stream;
}

void fl_h2_tell(struct fl_h2 *h2, struct fl_h2_stream *stream, uint32_t news)
{
    stream->news |= news;
    if (stream->ready)
        return;
    stream->ready = 1;
    stream->next_ready = NULL;
    if (h2->last_ready != NULL)
        h2->last_ready->next_ready = stream;
    else
        h2->first_ready = stream;
    h2->last_ready = stream;
}

void fl_h2_stream_closed(struct fl_h2 *h2, struct fl_h2_stream *stream)
{
    stream->closed = 1;
    if (stream->call != NULL)
        stream->news = FL_H2_ADOPT | FL_H2_GONE;
    else if (stream->finished)
        stream->news &= FL_H2_GONE; /* by us or, in the client's wrong, not by Python */
    else
        stream->news = stream->known ? FL_H2_GONE : 0;
    stream->finished = 1;
    if (stream->news)
        fl_h2_tell(h2, stream, 0);
    else if (!stream->ready)
        fl_h2_stream_free(h2, stream);
    fl_h2_grant(h2);
}

/* What is to be told of one call, in `event`; whether it is anything. */
static int describe(struct fl_h2 *h2, struct fl_h2_stream *stream, struct fl_h2_event *event)
{
    uint32_t news = stream->news;
    stream->news = 0;
    event->stream = stream->id;
    if (news & FL_H2_ADOPT) {
        event->call = stream->call;
        event->news = news;
        return stream->call != NULL;
    }
    if (stream->finished) {
        event->news = news & FL_H2_GONE;
        return event->news != 0;
    }
    if (news & FL_H2_BEGAN) {
        stream->known = 1;
        event->timeout_ns = stream->timeout_ns;
        if (stream->timeout_ns > 0) {
            int64_t passed = h2->now - stream->began_ns;
            event->timeout_ns = passed < stream->timeout_ns ? stream->timeout_ns - passed : 0;
        }
        event->encoding = stream->encoding;
        event->path = stream->head + stream->path;
        event->path_size = stream->path_size;
        event->authorizations = stream->authorizations;
        event->authorization = stream->head + stream->authorization;
        event->authorization_size = stream->authorization_size;
        event->head = stream->head;
        event->head_size = stream->head_size;
        event->web = stream->web;
        event->refusal = stream->refused;
        if (stream->head != stream->small) { /* nobody else needs it */
            h2->told_head = stream->head;
            stream->head = stream->small;
        }
    }
    if ((stream->web || stream->wanted > 0) && stream->in.first != NULL) {
        stream->wanted -= !stream->web;
        h2->told = fl_h2_take(h2, stream);
        event->message = (const char *)h2->told->bytes;
        event->message_size = h2->told->size;
        event->compressed = h2->told->compressed;
        news |= FL_H2_MESSAGE;
    }
    if (stream->ended == 1 && stream->in.first == NULL) {
        stream->ended = 2;
        news |= FL_H2_ENDED;
    }
    event->news = news;
    return news != 0;
}

int fl_h2_next(struct fl_h2 *h2)
{
    fl_h2_message_free(h2, h2->told);
    h2->told = NULL;
    free(h2->told_head);
    h2->told_head = NULL;
    h2->server->event.call = NULL;
    while (h2->first_ready != NULL) {
        struct fl_h2_stream *stream = h2->first_ready;
        h2->first_ready = stream->next_ready;
        if (h2->first_ready == NULL)
            h2->last_ready = NULL;
        stream->ready = 0;
        int told = describe(h2, stream, &h2->server->event);
        if (stream->closed)
            fl_h2_stream_free(h2, stream);
        if (told)
            return 1;
    }
    return 0;
}

int fl_h2_want(struct fl_h2 *h2, int32_t id)
{
    struct fl_h2_stream *stream = fl_h2_stream_of(h2, id);
    if (stream == NULL)
        return -1;
    stream->wanted++;
    if (stream->in.first != NULL || stream->ended == 1)
        fl_h2_tell(h2, stream, 0);
    return 0;
}
