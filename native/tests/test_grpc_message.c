/* The protobuf messages of a plain Invoke. */
#include "grpc.h"

#include "harness.h"

static int read(const char *bytes, size_t size, struct fl_grpc_request *out)
{
    /* Its own memory, so that a byte too far is found out. */
    unsigned char *copy = malloc(size + (size == 0));
    memcpy(copy, bytes, size);
    int result = fl_grpc_read_request(copy, size, out);
    free(copy);
    return result;
}

#define READ(literal, out) read(literal, sizeof(literal) - 1, out)

TEST(plain_requests_are_read)
{
    struct fl_grpc_request request;
    CHECK_INT(READ("\x0a\x01"
                   "f",
                   &request),
              0);
    CHECK_INT(request.function.size, 1);
    CHECK_INT(request.qualifier.size, 0);
    CHECK_INT(request.payload.size, 0);
    CHECK_INT(READ("\x1a\x02{}\x12\x01q\x0a\x03"
                   "abc",
                   &request),
              0); /* in any order */
    CHECK_INT(request.function.size, 3);
    CHECK_INT(request.qualifier.size, 1);
    CHECK_INT(request.payload.size, 2);
    CHECK_INT(READ("\x0a\x81\x00"
                   "f",
                   &request),
              0); /* a longer varint than it need be */
}

TEST(anything_else_is_not)
{
    struct fl_grpc_request request;
    CHECK_INT(READ("", &request), -1);
    CHECK_INT(READ("\x0a\x00", &request), -1); /* no function */
    CHECK_INT(READ("\x1a\x02{}", &request), -1);
    CHECK_INT(READ("\x0a\x01"
                   "f\x0a\x01g",
                   &request),
              -1); /* twice */
    CHECK_INT(READ("\x0a\x01"
                   "f\x30\x01",
                   &request),
              -1); /* log_tail */
    CHECK_INT(READ("\x0a\x01"
                   "f\x22\x00",
                   &request),
              -1); /* client_context */
    CHECK_INT(READ("\x0a\x01"
                   "f\x3a\x01k",
                   &request),
              -1); /* idempotency_key */
    CHECK_INT(READ("\x0a\x02"
                   "f",
                   &request),
              -1); /* too short */
    CHECK_INT(READ("\x0a", &request), -1);
    CHECK_INT(READ("\x8a", &request), -1);
    CHECK_INT(READ("\x02\x00", &request), -1); /* field 0 */
    CHECK_INT(READ("\x08\x01", &request), -1); /* another wire type */
    CHECK_INT(READ("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &request), -1);
    CHECK_INT(READ("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &request), -1);
}

TEST(responses_are_written)
{
    struct fl_pool pool = {.version = "$LATEST"};
    struct fl_call call = {.pool = &pool};
    const struct fl_measures none = {0};
    const struct fl_measures most = {INT64_MAX, 0, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
    unsigned char head[FL_GRPC_HEAD_BYTES], tail[FL_GRPC_TAIL_BYTES];
    CHECK_INT(fl_grpc_write_head(head, 0), 0);
    CHECK_INT(fl_grpc_write_head(head, 300), 3);
    CHECK(memcmp(head, "\x0a\xac\x02", 3) == 0);
    size_t size = fl_grpc_write_tail(tail, &call, &none);
    CHECK_INT(size, 2 + 7 + 2 + 36 + 2);
    CHECK(memcmp(tail, "\x1a\x07$LATEST\x22\x24", 11) == 0);
    CHECK(memcmp(tail + size - 2, "\x32\x00", 2) == 0);
    memset(pool.version, 'v', sizeof pool.version - 1);
    size = fl_grpc_write_tail(tail, &call, &most);
    CHECK(size < FL_GRPC_TAIL_BYTES);
    CHECK_INT(tail[2 + 71 + 2 + 36], 0x32);
}

RUN_TESTS()
