/* A connection from arbitrary bytes, in pieces: before each, one byte says how long it is (0x7F:
 * all). */
#include "../door/internal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* They are what the request is made of, the body at its end. */
static void check_parts(const struct fl_http *http, size_t size)
{
    if (http->target_at != 5 || http->target_size == 0 || http->region[0] != 'r' ||
        http->target_at + http->target_size >= http->body_at ||
        http->body_at + http->body_size != size)
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fl_door *door;
static struct fl_pool *pool;

static void set_up(void)
{
    static const char scope[] = "X Credential=k, Signature=";
    static const unsigned char key[32] = {1};
    door =
        fl_door_new(&(int64_t){1}, 1, &(struct fl_policy){50000, 1000000, 250000, 5000000, 10000});
    pool = fl_pool_new(7, 1000000000, 1, "$LATEST");
    fl_set_open_region(door, "r");
    fl_add_route(door, "r\n/f", 4, pool, "{}", 2, "/f", "");
    fl_add_scope(door, scope, 18, key, "host;x-amz-date;x-a", "20260131", "s", "r");
    fl_add_scope(door, "Y ", 2, NULL, "", "00000000", "", "r");
}

/* A call that waits, or whose worker has answered. */
static void end_call(struct fl_http *http)
{
    struct fl_call *call = http->call;
    if (call->size > FL_EVENT_BYTES || call->size == 0 || call->meta_size != 2)
        __builtin_trap();
    fl_call_adopt(call);
    if (http->call != NULL || pool->waiting != 0)
        __builtin_trap();
    fl_call_free(call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (door == NULL)
        set_up();
    /* A worker is busy with something short: calls wait. */
    pool->busy = 1;
    pool->service_ns = 0;
    struct fl_http *http = fl_http_new(1, -1);
    size_t held = 0;
    while (size > 1) {
        size_t piece = data[0] == 0x7F ? size : (size_t)data[0] << 3;
        data++, size--;
        if (piece == 0 || piece > size)
            piece = size;
        /* Its own memory, so that a byte too far is found out. */
        char *copy = malloc(piece);
        memcpy(copy, data, piece);
        enum fl_verdict verdict = fl_http_received(door, http, copy, piece);
        free(copy);
        data += piece, size -= piece;
        held += piece;
        if (verdict == FL_HELD) {
            if (http->held != held)
                __builtin_trap();
            continue;
        }
        if (verdict == FL_WAITING)
            end_call(http);
        else if (verdict == FL_VERIFIED)
            check_parts(http, held);
        else if (verdict != FL_PYTHON)
            __builtin_trap();
        if (http->held > 0) {
            char *out = malloc(http->held);
            fl_http_release(http, out);
            free(out);
        }
        held = 0;
    }
    fl_http_free(http);
    if (door->held != 0)
        __builtin_trap();
    return 0;
}
