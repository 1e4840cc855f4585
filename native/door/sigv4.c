/* AWS Signature Version 4 of a request whose kind of header Python has verified before. Whatever
 * does not fit is NULL: then gateway/web/sigv4.py looks at the request, and says what is wrong with
 * it. */
#include "internal.h"

#include <string.h>
#include <time.h>

enum { SKEW_S = 300, STAMP_BYTES = 16, HEX_BYTES = 2 * FL_SHA256_BYTES };

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static int is_name(struct fl_text text, const char *name, size_t size)
{
    if (text.size != size)
        return 0;
    for (size_t i = 0; i < size; i++)
        if (lower(text.at[i]) != name[i])
            return 0;
    return 1;
}

const struct fl_field *fl_find_field(const struct fl_request *request, const char *name,
                                     size_t size, int *several)
{
    const struct fl_field *found = NULL;
    for (size_t i = 0; i < request->count; i++) {
        if (!is_name(request->fields[i].name, name, size))
            continue;
        if (found != NULL) {
            *several = 1;
            return NULL;
        }
        found = &request->fields[i];
    }
    return found;
}

static int number(const char *digits, size_t count)
{
    int value = 0;
    for (size_t i = 0; i < count; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return -1;
        value = 10 * value + (digits[i] - '0');
    }
    return value;
}

/* 20260131T120000Z as seconds of the epoch, -1 if it is not of that form. */
static int64_t epoch_of(const char *stamp)
{
    struct tm tm = {
        .tm_year = number(stamp, 4) - 1900,
        .tm_mon = number(stamp + 4, 2) - 1,
        .tm_mday = number(stamp + 6, 2),
        .tm_hour = number(stamp + 9, 2),
        .tm_min = number(stamp + 11, 2),
        .tm_sec = number(stamp + 13, 2),
    };
    if (stamp[8] != 'T' || stamp[15] != 'Z' || tm.tm_year < 70 || tm.tm_mon < 0 || tm.tm_mon > 11 ||
        tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour < 0 || tm.tm_hour > 23 || tm.tm_min < 0 ||
        tm.tm_min > 59 || tm.tm_sec < 0 || tm.tm_sec > 59)
        return -1;
    return (int64_t)timegm(&tm);
}

/* Within the five minutes, and of the scope's day? */
static int is_timely(struct fl_tables *own, const struct fl_scope *scope, struct fl_text stamp)
{
    if (stamp.size != STAMP_BYTES || memcmp(stamp.at, scope->date, 8) != 0)
        return 0;
    if (memcmp(stamp.at, own->last_stamp, STAMP_BYTES) != 0) {
        int64_t epoch = epoch_of(stamp.at);
        if (epoch < 0)
            return 0;
        memcpy(own->last_stamp, stamp.at, STAMP_BYTES);
        own->last_epoch = epoch;
    }
    int64_t away = fl_epoch_ms() / 1000 - own->last_epoch;
    return away >= -SKEW_S && away < SKEW_S;
}

static void add(struct fl_sha256 *hash, const char *text)
{
    fl_sha256_add(hash, text, strlen(text));
}

/* Values with runs of blanks are canonicalised elsewhere. */
static int is_canonical(struct fl_text value)
{
    for (size_t i = 0; i < value.size; i++)
        if (value.at[i] == '\t' ||
            (value.at[i] == ' ' && i + 1 < value.size && value.at[i + 1] == ' '))
            return 0;
    return 1;
}

/* The signed headers' lines; the stamp, if X-Amz-Date is among them. 0: one is not there exactly
 * once. */
static int add_headers(struct fl_sha256 *hash, const struct fl_request *request, const char *names,
                       struct fl_text *stamp)
{
    for (const char *name = names; *name != '\0';) {
        size_t size = strcspn(name, ";");
        int several = 0;
        const struct fl_field *field = fl_find_field(request, name, size, &several);
        if (field == NULL || !is_canonical(field->value))
            return 0;
        if (size == 10 && memcmp(name, "x-amz-date", 10) == 0)
            *stamp = field->value;
        fl_sha256_add(hash, name, size);
        fl_sha256_add(hash, ":", 1);
        fl_sha256_add(hash, field->value.at, field->value.size);
        fl_sha256_add(hash, "\n", 1);
        name += size;
        if (*name == ';')
            name++;
    }
    return 1;
}

static int same(const char *left, const char *right, size_t size)
{
    volatile unsigned char difference = 0;
    for (size_t i = 0; i < size; i++)
        difference |= (unsigned char)(left[i] ^ right[i]);
    return difference == 0;
}

static void end_in_hex(struct fl_sha256 *hash, char out[HEX_BYTES])
{
    unsigned char digest[FL_SHA256_BYTES];
    fl_sha256_end(hash, digest);
    fl_hex(digest, sizeof digest, out);
}

const struct fl_scope *fl_verify(struct fl_door *door, const struct fl_request *request,
                                 const struct fl_scope *scope, const char *signature,
                                 size_t signature_size, const struct fl_route *route)
{
    if (!scope->verified)
        return scope;
    if (signature_size != HEX_BYTES)
        return NULL;
    struct fl_sha256 hash;
    char payload_hash[HEX_BYTES], canonical_hash[HEX_BYTES], expected[HEX_BYTES];
    fl_sha256_begin(&hash);
    fl_sha256_add(&hash, request->body.at, request->body.size);
    end_in_hex(&hash, payload_hash);
    int several = 0;
    const struct fl_field *claimed = fl_find_field(request, "x-amz-content-sha256", 20, &several);
    if (several || (claimed != NULL && (claimed->value.size != HEX_BYTES ||
                                        !same(claimed->value.at, payload_hash, HEX_BYTES))))
        return NULL;

    fl_sha256_begin(&hash);
    add(&hash, "POST\n");
    add(&hash, route->path);
    add(&hash, "\n");
    add(&hash, route->query);
    add(&hash, "\n");
    struct fl_text stamp = {NULL, 0};
    if (!add_headers(&hash, request, scope->names, &stamp) || !is_timely(door->own, scope, stamp))
        return NULL;
    add(&hash, "\n");
    add(&hash, scope->names);
    add(&hash, "\n");
    fl_sha256_add(&hash, payload_hash, HEX_BYTES);
    end_in_hex(&hash, canonical_hash);

    unsigned char digest[FL_SHA256_BYTES];
    hash = scope->inner;
    add(&hash, "AWS4-HMAC-SHA256\n");
    fl_sha256_add(&hash, stamp.at, stamp.size);
    add(&hash, "\n");
    add(&hash, scope->scope);
    add(&hash, "\n");
    fl_sha256_add(&hash, canonical_hash, HEX_BYTES);
    fl_sha256_end(&hash, digest);
    hash = scope->outer;
    fl_sha256_add(&hash, digest, sizeof digest);
    end_in_hex(&hash, expected);
    return same(expected, signature, HEX_BYTES) ? scope : NULL;
}
