/* SHA-256 (FIPS 180-4), with the processor's own instructions where it has them. */
#ifndef FORKLIGHT_SHA256_H
#define FORKLIGHT_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { FL_SHA256_BYTES = 32, FL_SHA256_BLOCK = 64 };

/* May be copied at any time: that is how an HMAC's key is prepared once. */
struct fl_sha256 {
    uint32_t state[8];
    uint64_t size; /* bytes taken in */
    unsigned char block[FL_SHA256_BLOCK];
};

void fl_sha256_begin(struct fl_sha256 *hash);
void fl_sha256_add(struct fl_sha256 *hash, const void *data, size_t size);
void fl_sha256_end(struct fl_sha256 *hash, unsigned char digest[FL_SHA256_BYTES]);
/* Lower-case, without a zero at the end. */
void fl_hex(const unsigned char *bytes, size_t size, char *out);

#endif
