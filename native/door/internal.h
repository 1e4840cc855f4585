/* What the files of the fast path share. The public half is include/fast_path.h. */
#ifndef FORKLIGHT_DOOR_INTERNAL_H
#define FORKLIGHT_DOOR_INTERNAL_H

#include "fast_path.h"
#include "sha256.h"
#include "table.h"

enum {
    FL_INPUT_BYTES = 65536, /* of one read from a worker; a larger answer is Python's */
    FL_HEADROOM = 1024,     /* writable bytes before an answer's payload, for what goes before it */
    FL_EVENT_BYTES = 32768, /* a larger event is Python's */
    FL_HELD_BYTES = 64 << 20, /* of what is kept for later; more is Python's, which counts it */
    FL_META_BYTES = 2048,     /* of what goes to the worker with it */
    FL_BOUNDS = 31,
    FL_RECORDS = 1024,
    FL_OUTPUTS = 262144,    /* bytes that workers wrote, of all records */
    FL_OUTPUT_BYTES = 8192, /* of one; more is Python's */
    FL_FIELDS = 48,         /* header fields of a request; more are Python's */
};

/* What only C knows of a door. */
struct fl_tables {
    struct fl_table routes; /* values: struct fl_route */
    struct fl_table scopes; /* values: struct fl_scope */
    struct fl_record records[FL_RECORDS];
    uint32_t first_record;
    unsigned char outputs[FL_OUTPUTS];
    uint32_t outputs_used;
    int64_t bounds[FL_BOUNDS];
    size_t bound_count;
    char open_region[40]; /* of unsigned requests; empty: there are none */
    char date_line[64];
    size_t date_size;
    char last_stamp[16]; /* X-Amz-Date as it was parsed last, and what it says */
    int64_t last_epoch;
    unsigned char random[4096]; /* for request ids; used up from its beginning */
    size_t random_used;
    unsigned char frame[FL_META_BYTES + FL_EVENT_BYTES + 64]; /* on its way to a worker */
    unsigned char input[FL_HEADROOM + FL_INPUT_BYTES];
};

struct fl_route {
    struct fl_pool *pool;
    char *meta;
    size_t meta_size;
    char *path; /* canonical, as a signature covers it */
    char *query;
};

struct fl_scope {
    struct fl_sha256 inner; /* HMAC, both halves begun with the key */
    struct fl_sha256 outer;
    char *names; /* of the signed headers, as they stand in the header */
    char *scope; /* of the credential: day/region/service/aws4_request */
    char *region;
    char date[9];
    int verified; /* 0: nothing is verified here */
};

/* What an invocation cost. Nanoseconds unless said. */
struct fl_measures {
    int64_t queue_ns;    /* from admission until its worker had it */
    int64_t duration_ns; /* from then until the answer */
    int64_t handler_ns;  /* the guest's word, but never more than the duration */
    int64_t billed_ms;
    int64_t cpu_ns;
    int64_t peak_kib;
};

/* Where a call came from; a connection of any protocol begins with this. */
struct fl_origin {
    uint64_t handle;
    /* Sends the answer: `payload` has FL_HEADROOM writable bytes before it, and is gone afterwards.
     * The call is freed by the caller. FL_DONE, or FL_BLOCKED with the rest kept by the connection.
     */
    enum fl_verdict (*answer)(struct fl_door *door, struct fl_call *call, unsigned char *payload,
                              size_t size, const struct fl_measures *measures);
    /* Python adopted the call: it is no longer this connection's. */
    void (*adopted)(struct fl_call *call);
};

int64_t fl_steady_ns(void);
int64_t fl_epoch_ms(void);
/* Sixteen random bytes in the form of a version-4 UUID. */
void fl_new_nonce(struct fl_door *door, unsigned char nonce[16]);
/* Thirty-six characters, no zero. */
void fl_format_id(const unsigned char nonce[16], char *out);

/* Takes what a worker wrote: it has answered, so that is complete. Its size, or -1: Python takes
 * it. */
int fl_take_output(struct fl_door *door, const struct fl_worker *worker);
/* Counts an invocation, and keeps what its log lines need. `output_size`: of fl_take_output, just
 * now. */
void fl_record_answer(struct fl_door *door, struct fl_worker *worker, const struct fl_call *call,
                      const struct fl_measures *measures, uint32_t output_size);

/* Starts an invocation, or lets it wait. The payload is copied if it has to be. `limit_ns`: the
 * caller's own limit on the steady clock, or 0. *made is the call when the verdict is FL_DONE or
 * FL_WAITING; FL_PYTHON: nothing has happened. */
enum fl_verdict fl_submit(struct fl_door *door, const struct fl_route *route,
                          struct fl_origin *from, int32_t stream, const unsigned char *payload,
                          size_t size, int64_t limit_ns, struct fl_call **made);

/* One request as http1.c found it: views into its bytes. */
struct fl_text {
    const char *at;
    size_t size;
};

struct fl_field {
    struct fl_text name; /* as it arrived */
    struct fl_text value;
};

struct fl_request {
    struct fl_text target;
    struct fl_text body;
    struct fl_field fields[FL_FIELDS];
    size_t count;
    struct fl_text authorization;
};

/* The field of that name (lower case), if there is exactly one; NULL: none, or several (*several is
 * set). */
const struct fl_field *fl_find_field(const struct fl_request *request, const char *name,
                                     size_t size, int *several);
/* The scope a request was signed with; NULL unless its signature is there, known, timely and right.
 */
const struct fl_scope *fl_verify(struct fl_door *door, const struct fl_request *request,
                                 const struct fl_scope *scope, const char *signature,
                                 size_t signature_size, const struct fl_route *route);

#endif
