/* The life of a connection, from its greeting to its goodbye; and of the server that has them all.
 */
#include "http2_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static int make_callbacks(struct fl_h2_own *own, const struct fl_h2_limits *limits)
{
    if (nghttp2_session_callbacks_new(&own->callbacks) != 0 ||
        nghttp2_option_new(&own->options) != 0)
        return -1;
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return -1;
    fl_table_begin(&own->tokens, seed, free);
    fl_h2_set_callbacks(own->callbacks);
    nghttp2_option_set_no_auto_window_update(own->options, 1);
    nghttp2_option_set_no_closed_streams(own->options, 1);
    /* "Bearer " without a token is to be refused in our words, not as a broken stream. */
    nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(own->options, 1);
    nghttp2_option_set_stream_reset_rate_limit(own->options, limits->resets, limits->resets_a_s);
    return 0;
}

struct fl_h2_server *fl_h2_server_new(const struct fl_h2_limits *limits)
{
    struct fl_h2_server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return NULL;
    server->limits = *limits;
    server->own = calloc(1, sizeof *server->own);
    if (server->own == NULL || make_callbacks(server->own, limits) < 0) {
        fl_h2_server_free(server);
        return NULL;
    }
    return server;
}

void fl_h2_server_free(struct fl_h2_server *server)
{
    if (server == NULL)
        return;
    if (server->own != NULL) {
        fl_table_end(&server->own->tokens);
        nghttp2_session_callbacks_del(server->own->callbacks);
        nghttp2_option_del(server->own->options);
        free(server->own);
    }
    free(server);
}

static int greet(struct fl_h2 *h2)
{
    const struct fl_h2_limits *limits = &h2->server->limits;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits->streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits->window},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits->head},
    };
    if (nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings,
                                sizeof settings / sizeof *settings) != 0)
        return -1;
    return nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0,
                                                 FL_H2_CONNECTION_WINDOW);
}

struct fl_h2 *fl_h2_new(struct fl_h2_server *server, uint64_t handle, int fd)
{
    struct fl_h2 *h2 = calloc(1, sizeof *h2);
    if (h2 == NULL)
        return NULL;
    fl_grpc_origin(h2, handle);
    h2->server = server;
    h2->fd = fd;
    h2->now = h2->began_ns = h2->received_ns = h2->progress_ns = h2->data_ns = h2->idle_ns =
        fl_steady_ns();
    h2->resets.tokens = server->limits.resets;
    h2->chatter.tokens = server->limits.chatter;
    h2->updates.tokens = FL_H2_UPDATES;
    h2->resets.filled_ns = h2->chatter.filled_ns = h2->updates.filled_ns = h2->now;
    h2->next = server->own->connections;
    if (h2->next != NULL)
        h2->next->previous = h2;
    server->own->connections = h2;
    server->connections++;
    if (nghttp2_session_server_new2(&h2->session, server->own->callbacks, h2,
                                    server->own->options) != 0 ||
        greet(h2) != 0) {
        fl_h2_free(h2);
        return NULL;
    }
    return h2;
}

void fl_h2_free(struct fl_h2 *h2)
{
    if (h2 == NULL)
        return;
    while (h2->streams != NULL)
        fl_h2_stream_free(h2, h2->streams);
    nghttp2_session_del(h2->session);
    fl_h2_message_free(h2, h2->told);
    free(h2->told_head);
    if (h2->next != NULL)
        h2->next->previous = h2->previous;
    if (h2->previous != NULL)
        h2->previous->next = h2->next;
    else
        h2->server->own->connections = h2->next;
    h2->server->connections--;
    free(h2->rest);
    free(h2);
}

int fl_h2_received(struct fl_h2 *h2, const char *data, size_t size)
{
    if (h2->dead)
        return 0;
    h2->now = h2->received_ns = fl_steady_ns();
    if (nghttp2_session_mem_recv2(h2->session, (const uint8_t *)data, size) < 0)
        return -1;
    if (nghttp2_session_get_outbound_queue_size(h2->session) > FL_H2_QUEUE)
        return -1; /* it makes us answer and does not read */
    int needs = h2->first_ready != NULL ? FL_H2_NEWS : fl_h2_flush(h2);
    if (h2->pool_count > 0)
        needs |= FL_H2_POOL;
    if (h2->server->own->door != NULL && h2->server->own->door->nearest_limit != 0)
        needs |= FL_H2_LIMIT;
    return needs;
}

int fl_h2_greeted(const struct fl_h2 *h2)
{
    return h2->hello;
}

void fl_h2_end(struct fl_h2 *h2, uint32_t error, const char *why)
{
    if (h2->dead)
        return;
    h2->dead = 1;
    nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(h2->session), error,
                          (const uint8_t *)why, strlen(why));
}

void fl_h2_shutdown(struct fl_h2 *h2, int now)
{
    if (h2->dead || h2->closing > now)
        return;
    h2->closing = (uint8_t)(now ? 2 : 1);
    h2->closing_ns = fl_steady_ns();
    if (now) {
        nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(h2->session),
                              NGHTTP2_NO_ERROR, NULL, 0);
        return;
    }
    /* Calls on their way to us still count; the answer to the ping comes behind the last of them.
     */
    nghttp2_submit_shutdown_notice(h2->session);
    nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, NULL);
}
