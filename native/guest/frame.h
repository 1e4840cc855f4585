/* A frame on a worker's channel begins with this header; the host's side is sandbox/channel.py. */
#ifndef FORKLIGHT_GUEST_FRAME_H
#define FORKLIGHT_GUEST_FRAME_H

#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "frames are little endian"
#endif

enum { FG_NONCE_BYTES = 16 };

struct frame_header {
    uint32_t length; /* of the body */
    uint16_t kind;
    uint16_t meta_length; /* of the body's first part */
    uint64_t aux;
    uint8_t nonce[FG_NONCE_BYTES];
} __attribute__((packed));

/* The body of an answer begins with this. */
struct frame_statistics {
    uint64_t handler_ns;
    uint64_t cpu_ns;
    uint64_t peak_kib;
} __attribute__((packed));

#endif
