/* The two protobuf messages of a plain Invoke (protos/forklight/v1/invocations.proto), by hand. */
#ifndef FORKLIGHT_GRPC_H
#define FORKLIGHT_GRPC_H

#include "internal.h"

enum { FL_GRPC_HEAD_BYTES = 16, FL_GRPC_TAIL_BYTES = 256 };

/* An InvokeRequest that has a function, perhaps a qualifier and a payload, each at most once, and
 * nothing else; views into its bytes. */
struct fl_grpc_request {
    struct fl_text function;
    struct fl_text qualifier;
    struct fl_text payload;
};

/* 0, or -1: it is not such a message. */
int fl_grpc_read_request(const unsigned char *message, size_t size, struct fl_grpc_request *out);

/* An InvokeResponse is `head`, the payload, `tail`; their sizes. */
size_t fl_grpc_write_head(unsigned char head[FL_GRPC_HEAD_BYTES], size_t payload_size);
size_t fl_grpc_write_tail(unsigned char tail[FL_GRPC_TAIL_BYTES], const struct fl_call *call,
                          const struct fl_measures *measures);

#endif
