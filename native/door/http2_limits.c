/* What a client may do how often, and how long it may be silent: floods, keepalive, stalls. */
#include "http2_internal.h"

/* A call whose end is late is Python's, which enforces its deadline. */
enum { FL_H2_PATIENCE_NS = 200000000 };
/* Until a client without calls has heard a goodbye: one that comes later is told to try elsewhere.
 */
enum { FL_H2_FAREWELL_NS = 1000000000 };
/* Window updates: so many at once and a second without any reason, and for each frame that was
 * sent. */
enum { UPDATES_A_S = 100, UPDATES_A_FRAME = 2, BYTES_AN_UPDATE = 512 };

/* Takes a token; -1: there is none. */
static int take(struct fl_bucket *bucket, int64_t now, uint32_t burst, uint32_t a_second)
{
    bucket->tokens += (double)(now - bucket->filled_ns) * 1e-9 * a_second;
    bucket->filled_ns = now;
    if (bucket->tokens > burst)
        bucket->tokens = burst;
    if (bucket->tokens < 1)
        return -1;
    bucket->tokens -= 1;
    return 0;
}

int fl_h2_reset(struct fl_h2 *h2)
{
    const struct fl_h2_limits *limits = &h2->server->limits;
    return take(&h2->resets, h2->now, limits->resets, limits->resets_a_s);
}

int fl_h2_chatted(struct fl_h2 *h2)
{
    const struct fl_h2_limits *limits = &h2->server->limits;
    return take(&h2->chatter, h2->now, limits->chatter, limits->chatter_a_s);
}

int fl_h2_widened(struct fl_h2 *h2)
{
    return take(&h2->updates, h2->now, FL_H2_UPDATES, UPDATES_A_S);
}

void fl_h2_sent(struct fl_h2 *h2, size_t size)
{
    h2->updates.tokens += (double)(UPDATES_A_FRAME + size / BYTES_AN_UPDATE);
}

/* As gRPC counts: pings are free again once we have sent something of a call. */
int fl_h2_pinged(struct fl_h2 *h2)
{
    const struct fl_h2_limits *limits = &h2->server->limits;
    int64_t last = h2->pinged_ns;
    h2->pinged_ns = h2->now;
    if (last == 0 || h2->now - last >= limits->ping_every)
        return 0;
    h2->strikes++;
    return h2->strikes > limits->ping_strikes ? -1 : 0;
}

static void end_idle_messages(struct fl_h2 *h2, int64_t now)
{
    struct fl_h2_stream *next;
    for (struct fl_h2_stream *stream = h2->streams; stream != NULL; stream = next) {
        next = stream->next;
        if (stream->plain && now - stream->began_ns > FL_H2_PATIENCE_NS)
            fl_grpc_give_up(h2, stream);
        int begun = stream->arriving != NULL || stream->prefix_size > 0;
        if (begun && !stream->waits && stream->in.first == NULL &&
            now - stream->received_ns > h2->server->limits.message_idle)
            fl_h2_refuse(h2, stream, 4, "A message did not arrive in time.");
    }
}

/* Whether the connection is to be given up. */
static int is_lost(const struct fl_h2 *h2, int64_t now)
{
    const struct fl_h2_limits *limits = &h2->server->limits;
    if (!h2->hello && now - h2->began_ns > limits->hello)
        return 1;
    if (h2->ping_sent_ns != 0 && h2->received_ns < h2->ping_sent_ns &&
        now - h2->ping_sent_ns > limits->keepalive_timeout)
        return 1;
    if (h2->blocked && now - h2->progress_ns > limits->blocked)
        return 1;
    return h2->waiting > 0 && now - h2->data_ns > limits->stalled;
}

static void look_after(struct fl_h2 *h2, int64_t now)
{
    const struct fl_h2_limits *limits = &h2->server->limits;
    if (h2->received_ns >= h2->ping_sent_ns)
        h2->ping_sent_ns = 0; /* any sign of life will do */
    if (h2->ping_sent_ns == 0 && now - h2->received_ns > limits->keepalive && !h2->dead) {
        h2->ping_sent_ns = now;
        nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, NULL);
    }
    if (limits->idle > 0 && h2->streams == NULL && h2->closing == 0 &&
        now - h2->idle_ns > limits->idle)
        fl_h2_shutdown(h2, 0);
    int64_t farewell = h2->streams == NULL ? FL_H2_FAREWELL_NS : limits->keepalive_timeout;
    if (h2->closing == 1 && now - h2->closing_ns > farewell)
        fl_h2_shutdown(h2, 1);
    h2->now = now;
    end_idle_messages(h2, now);
    fl_h2_grant(h2);
}

size_t fl_h2_tick(struct fl_h2_server *server, uint64_t *handles, uint32_t *needs, size_t room)
{
    int64_t now = fl_steady_ns();
    size_t count = 0;
    for (struct fl_h2 *h2 = server->own->connections; h2 != NULL && count < room; h2 = h2->next) {
        int lost = is_lost(h2, now);
        if (!lost)
            look_after(h2, now);
        if (!lost && !nghttp2_session_want_write(h2->session) && h2->first_ready == NULL)
            continue;
        handles[count] = h2->origin.handle;
        needs[count++] = lost ? FL_H2_ABORT : FL_H2_FLUSH;
    }
    return count;
}
