/* The two clocks, and the ids of invocations. */
#include "internal.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

int64_t fl_steady_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t fl_epoch_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void fl_new_nonce(struct fl_door *door, unsigned char nonce[16])
{
    struct fl_tables *own = door->own;
    if (own->random_used + 16 > sizeof own->random) {
        size_t filled = 0;
        while (filled < sizeof own->random) {
            ssize_t count = getrandom(own->random + filled, sizeof own->random - filled, 0);
            if (count > 0)
                filled += (size_t)count; /* it fails only when a signal comes */
        }
        own->random_used = 0;
    }
    memcpy(nonce, own->random + own->random_used, 16);
    own->random_used += 16;
    nonce[6] = (nonce[6] & 0x0f) | 0x40;
    nonce[8] = (nonce[8] & 0x3f) | 0x80;
}

void fl_format_id(const unsigned char nonce[16], char *out)
{
    char digits[32];
    fl_hex(nonce, 16, digits);
    static const unsigned char parts[] = {8, 4, 4, 4, 12};
    const char *from = digits;
    for (size_t i = 0; i < sizeof parts; i++) {
        if (i > 0)
            *out++ = '-';
        memcpy(out, from, parts[i]);
        out += parts[i];
        from += parts[i];
    }
}
