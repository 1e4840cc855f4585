#include "grpc.h"

#include <string.h>

enum { LENGTH_DELIMITED = 2, MOST_VARINT = 10, VERSION_BYTES = 72, ID_BYTES = 36 };

/* A varint; where it ends, or NULL. */
static const unsigned char *read_varint(const unsigned char *at, const unsigned char *end,
                                        uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; at < end && shift < 7 * MOST_VARINT; shift += 7) {
        unsigned char byte = *at++;
        value |= (uint64_t)(byte & 0x7f) << (shift < 64 ? shift : 63);
        if ((byte & 0x80) == 0) {
            *out = value;
            return at;
        }
    }
    return NULL;
}

int fl_grpc_read_request(const unsigned char *message, size_t size, struct fl_grpc_request *out)
{
    const unsigned char *at = message, *end = message + size;
    struct fl_text fields[4] = {{NULL, 0}};
    while (at < end) {
        uint64_t tag, length;
        at = read_varint(at, end, &tag);
        if (at == NULL || (tag & 7) != LENGTH_DELIMITED || tag >> 3 < 1 || tag >> 3 > 3)
            return -1;
        at = read_varint(at, end, &length);
        if (at == NULL || length > (uint64_t)(end - at) || fields[tag >> 3].at != NULL)
            return -1;
        fields[tag >> 3] = (struct fl_text){(const char *)at, (size_t)length};
        at += length;
    }
    *out = (struct fl_grpc_request){fields[1], fields[2], fields[3]};
    return out->function.size > 0 ? 0 : -1;
}

static unsigned char *write_varint(unsigned char *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *at++ = (unsigned char)(value | 0x80);
    *at++ = (unsigned char)value;
    return at;
}

/* A field of bytes that are shorter than 128. */
static unsigned char *write_text(unsigned char *at, unsigned char tag, const char *text,
                                 size_t size)
{
    *at++ = tag;
    *at++ = (unsigned char)size;
    memcpy(at, text, size);
    return at + size;
}

/* Zero is not written: it is what an absent field means. */
static unsigned char *write_number(unsigned char *at, unsigned char tag, int64_t value)
{
    if (value == 0)
        return at;
    *at++ = tag;
    return write_varint(at, (uint64_t)value);
}

size_t fl_grpc_write_head(unsigned char head[FL_GRPC_HEAD_BYTES], size_t payload_size)
{
    if (payload_size == 0)
        return 0;
    head[0] = 1 << 3 | LENGTH_DELIMITED;
    return (size_t)(write_varint(head + 1, payload_size) - head);
}

size_t fl_grpc_write_tail(unsigned char tail[FL_GRPC_TAIL_BYTES], const struct fl_call *call,
                          const struct fl_measures *measures)
{
    char id[ID_BYTES];
    fl_format_id(call->nonce, id);
    unsigned char *at = tail;
    size_t version = strnlen(call->pool->version, VERSION_BYTES);
    if (version > 0)
        at = write_text(at, 3 << 3 | LENGTH_DELIMITED, call->pool->version, version);
    at = write_text(at, 4 << 3 | LENGTH_DELIMITED, id, sizeof id);
    unsigned char receipt[64], *end = receipt;
    end = write_number(end, 1 << 3, measures->queue_ns / 1000);
    end = write_number(end, 5 << 3, measures->handler_ns / 1000);
    end = write_number(end, 6 << 3, measures->billed_ms);
    end = write_number(end, 7 << 3, measures->cpu_ns);
    end = write_number(end, 8 << 3, measures->peak_kib);
    at = write_text(at, 6 << 3 | LENGTH_DELIMITED, (const char *)receipt, (size_t)(end - receipt));
    return (size_t)(at - tail);
}
