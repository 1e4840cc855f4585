/* From nghttp2 to the socket: everything that is to be said, in as few writes as possible. */
#include "http2_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Serialized frames into `out`; how many bytes, or -1. The last frame may be the reason to stop
 * early. */
static ssize_t gather(struct fl_h2 *h2, unsigned char *out, size_t room)
{
    enum { MOST_FRAME = 16384 + 9 }; /* nghttp2 sends no larger ones: it is not told to */
    size_t filled = 0;
    while (filled + MOST_FRAME <= room) {
        const uint8_t *data;
        nghttp2_ssize size = nghttp2_session_mem_send2(h2->session, &data);
        if (size < 0 || (size_t)size > room - filled)
            return -1;
        if (size == 0)
            break;
        memcpy(out + filled, data, (size_t)size);
        filled += (size_t)size;
    }
    return (ssize_t)filled;
}

static int keep_rest(struct fl_h2 *h2, const unsigned char *data, size_t size)
{
    h2->rest = malloc(size);
    if (h2->rest == NULL)
        return FL_H2_CLOSE;
    memcpy(h2->rest, data, size);
    h2->rest_size = size;
    h2->rest_taken = 0;
    return FL_H2_REST;
}

/* As much as the socket takes. */
static int write_out(struct fl_h2 *h2, const unsigned char *data, size_t size)
{
    ssize_t sent = h2->fd < 0 ? 0 : -1;
    while (sent < 0) {
        sent = send(h2->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            return FL_H2_CLOSE; /* the loop will say so, too */
        break;
    }
    size_t done = sent < 0 ? 0 : (size_t)sent;
    if (done > 0)
        h2->progress_ns = h2->now;
    return done == size ? 0 : keep_rest(h2, data + done, size - done);
}

static int is_over(const struct fl_h2 *h2)
{
    if (nghttp2_session_want_write(h2->session))
        return 0;
    /* Between the two GOAWAYs nghttp2 would stop already. */
    return h2->dead || (h2->closing != 1 && !nghttp2_session_want_read(h2->session));
}

int fl_h2_flush(struct fl_h2 *h2)
{
    unsigned char *out = h2->server->own->out;
    int needs = 0;
    if (h2->rest != NULL && !h2->rest_taken)
        return FL_H2_REST | (h2->first_ready != NULL ? FL_H2_NEWS : 0); /* nothing overtakes it */
    free(h2->rest);
    h2->rest = NULL;
    h2->rest_size = 0;
    h2->now = fl_steady_ns();
    while (!h2->blocked && needs == 0) {
        ssize_t size = gather(h2, out, sizeof h2->server->own->out);
        if (size <= 0) {
            needs = size < 0 ? FL_H2_CLOSE : 0;
            break;
        }
        needs = write_out(h2, out, (size_t)size);
    }
    if (needs == 0 && !h2->blocked && is_over(h2))
        needs = FL_H2_CLOSE;
    return needs | (h2->first_ready != NULL ? FL_H2_NEWS : 0);
}

const char *fl_h2_rest(struct fl_h2 *h2, size_t *size)
{
    *size = h2->rest_taken ? 0 : h2->rest_size;
    h2->rest_taken = 1;
    return (const char *)h2->rest;
}

void fl_h2_set_blocked(struct fl_h2 *h2, int blocked)
{
    h2->blocked = blocked != 0;
    h2->progress_ns = fl_steady_ns();
}
