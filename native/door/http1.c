/* HTTP/1.1, as far as a warm invocation needs it: one whole, plain POST at a time.
 *
 * What is taken here is a subset of what gateway/web/http1.py takes, and both understand it alike:
 * one request that ends where the bytes end, with one Content-Length, no coding, no repeated field
 * that matters, nothing but printable ASCII. Everything else is Python's. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum {
    MAX_HEAD = 16384,
    MAX_TARGET = 1024,
    MAX_PIECES = 4, /* a request that comes in more than these is Python's */
    KEPT_ROOM = 4096,
};

enum finding { WHOLE, INCOMPLETE, IRREGULAR };

struct http_origin {
    struct fl_origin origin;
    struct fl_http *http;
    struct fl_door *door; /* that counts what is held */
    int pieces;
};

/* ---- one request ------------------------------------------------------------------------------
 */

static int is_token(unsigned char c)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr(others, c) != NULL);
}

static int is(struct fl_text text, const char *word)
{
    return text.size == strlen(word) && strncasecmp(text.at, word, text.size) == 0;
}

static int is_exactly(struct fl_text text, const char *word)
{
    return text.size == strlen(word) && memcmp(text.at, word, text.size) == 0;
}

/* The length of a line up to its CR LF; -1: it is not there yet; -2: there is something else in it.
 */
static ssize_t line_length(const char *at, const char *end, unsigned char lowest)
{
    for (const char *c = at; c < end; c++) {
        if (*c == '\r') {
            if (c + 1 == end)
                return -1;
            return c[1] == '\n' ? c - at : -2;
        }
        if ((unsigned char)*c < lowest || (unsigned char)*c > '~')
            return -2;
    }
    return -1;
}

/* Python joins what is repeated, or refuses it. */
static int comes_once(const struct fl_request *request, const char *name)
{
    int several = 0;
    fl_find_field(request, name, strlen(name), &several);
    return !several;
}

/* Fields that change what a request means. 0: as if it were not there; -1: not ours. */
static int weigh(struct fl_request *request, const struct fl_field *field, ssize_t *length)
{
    struct fl_text name = field->name, value = field->value;
    switch (name.at[0] | 0x20) {
    case 'a':
        if (is(name, "authorization")) {
            if (request->authorization.at != NULL)
                return -1;
            request->authorization = value;
        }
        return 0;
    case 'c':
        if (is(name, "content-length")) {
            if (*length >= 0 || value.size == 0 || value.size > 5)
                return -1;
            *length = 0;
            for (size_t i = 0; i < value.size; i++) {
                if (value.at[i] < '0' || value.at[i] > '9')
                    return -1;
                *length = 10 * *length + (value.at[i] - '0');
            }
            return *length <= FL_EVENT_BYTES ? 0 : -1;
        }
        return is(name, "connection") && !is(value, "keep-alive") ? -1 : 0;
    case 'e':
        return is(name, "expect") ? -1 : 0;
    case 'p':
        return is(name, "proxy-connection") ? -1 : 0;
    case 't':
        return is(name, "transfer-encoding") || is(name, "trailer") || is(name, "te") ? -1 : 0;
    case 'u':
        return is(name, "upgrade") ? -1 : 0;
    case 'x':
        if (is(name, "x-amz-date"))
            return comes_once(request, "x-amz-date") ? 0 : -1;
        if (is(name, "x-amz-invocation-type"))
            return is_exactly(value, "RequestResponse") &&
                           comes_once(request, "x-amz-invocation-type")
                       ? 0
                       : -1;
        if (is(name, "x-amz-log-type"))
            return is_exactly(value, "None") && comes_once(request, "x-amz-log-type") ? 0 : -1;
        return is(name, "x-amz-client-context") || is(name, "x-amz-tenant-id") ||
                       is(name, "x-amzn-trace-id") || is(name, "x-forklight-receipt")
                   ? -1
                   : 0;
    default:
        return 0;
    }
}

static enum finding read_field(struct fl_request *request, const char *at, size_t size,
                               ssize_t *length)
{
    if (request->count == FL_FIELDS)
        return IRREGULAR;
    size_t name = 0;
    while (name < size && is_token((unsigned char)at[name]))
        name++;
    if (name == 0 || name == size || at[name] != ':')
        return IRREGULAR;
    const char *value = at + name + 1, *end = at + size;
    while (value < end && *value == ' ')
        value++;
    if (end > value && end[-1] == ' ')
        return IRREGULAR; /* Python's parser leaves it there */
    struct fl_field *field = &request->fields[request->count++];
    *field = (struct fl_field){{at, name}, {value, (size_t)(end - value)}};
    return weigh(request, field, length) == 0 ? WHOLE : IRREGULAR;
}

static enum finding parse(struct fl_request *request, const char *data, size_t size)
{
    static const char method[] = "POST ", version[] = " HTTP/1.1";
    const char *at = data, *end = data + size;
    size_t known = size < sizeof method - 1 ? size : sizeof method - 1;
    if (memcmp(data, method, known) != 0)
        return IRREGULAR;
    ssize_t line = line_length(at, end, ' ');
    if (line < 0)
        return line == -1 && size < MAX_HEAD ? INCOMPLETE : IRREGULAR;
    const size_t around = sizeof method - 1 + sizeof version - 1;
    if ((size_t)line <= around ||
        memcmp(at + line - (sizeof version - 1), version, sizeof version - 1) != 0)
        return IRREGULAR;
    request->target = (struct fl_text){at + sizeof method - 1, (size_t)line - around};
    request->count = 0;
    request->authorization = (struct fl_text){NULL, 0};
    if (request->target.size > MAX_TARGET || memchr(request->target.at, ' ', request->target.size))
        return IRREGULAR;
    ssize_t length = -1;
    for (at += line + 2;; at += line + 2) {
        line = line_length(at, end, ' ');
        if (line < 0)
            return line == -1 && size < MAX_HEAD ? INCOMPLETE : IRREGULAR;
        if (line == 0)
            break;
        if (read_field(request, at, (size_t)line, &length) != WHOLE)
            return IRREGULAR;
    }
    at += 2;
    int several = 0;
    if (length < 0 || at - data > MAX_HEAD || fl_find_field(request, "host", 4, &several) == NULL ||
        end - at > length)
        return IRREGULAR;
    request->body = (struct fl_text){at, (size_t)length};
    return end - at == length ? WHOLE : INCOMPLETE;
}

/* ---- what it asks for -------------------------------------------------------------------------
 */

static const struct fl_route *find_route(struct fl_tables *own, const char *region,
                                         struct fl_text target)
{
    char key[64 + MAX_TARGET];
    size_t size = strlen(region);
    if (size >= 40)
        return NULL;
    memcpy(key, region, size);
    key[size++] = '\n';
    memcpy(key + size, target.at, target.size);
    return fl_table_get(&own->routes, key, size + target.size);
}

/* Whether a target is an Invoke's by a bare name: then its path is its own canonical form, and it
 * has no query. */
static int names_function(struct fl_text target)
{
    static const char before[] = "/2015-03-31/functions/", after[] = "/invocations";
    const size_t around = sizeof before - 1 + sizeof after - 1;
    if (target.size <= around || memcmp(target.at, before, sizeof before - 1) != 0 ||
        memcmp(target.at + target.size - (sizeof after - 1), after, sizeof after - 1) != 0)
        return 0;
    for (size_t i = sizeof before - 1; i < target.size - (sizeof after - 1); i++) {
        char c = target.at[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_'))
            return 0;
    }
    return 1;
}

/* What an authenticated request asks for. */
struct wish {
    const char *region;
    const struct fl_route *route; /* NULL: of a function that nobody has asked for yet */
};

/* Whether its sender may invoke; 0: Python says. */
static int authenticate(struct fl_door *door, const struct fl_request *request, struct wish *wish)
{
    static const char mark[] = "Signature=";
    struct fl_tables *own = door->own;
    struct fl_text header = request->authorization;
    const struct fl_scope *scope = NULL;
    const char *signature = NULL;
    if (header.at == NULL) {
        if (own->open_region[0] == '\0')
            return 0;
        wish->region = own->open_region;
    } else {
        if (header.size < sizeof mark - 1)
            return 0;
        const char *found = header.at + header.size - (sizeof mark - 1);
        while (found > header.at && memcmp(found, mark, sizeof mark - 1) != 0)
            found--;
        if (found == header.at)
            return 0;
        scope = fl_table_get(&own->scopes, header.at, (size_t)(found - header.at));
        if (scope == NULL)
            return 0;
        signature = found + sizeof mark - 1;
        wish->region = scope->region;
    }
    wish->route = find_route(own, wish->region, request->target);
    if (wish->route == NULL && !names_function(request->target))
        return 0;
    if (scope == NULL)
        return 1;
    char path[MAX_TARGET + 1];
    struct fl_route stranger = {.path = path, .query = ""};
    if (wish->route == NULL) {
        memcpy(path, request->target.at, request->target.size);
        path[request->target.size] = '\0';
    }
    return fl_verify(door, request, scope, signature, (size_t)(header.at + header.size - signature),
                     wish->route != NULL ? wish->route : &stranger) != NULL;
}

static enum fl_verdict run(struct fl_door *door, struct fl_http *http,
                           const struct fl_request *request, const char *whole)
{
    struct wish wish;
    if (!authenticate(door, request, &wish))
        return FL_PYTHON;
    if (wish.route != NULL) {
        struct fl_text event = request->body;
        if (event.size == 0)
            event = (struct fl_text){"{}", 2};
        struct fl_call *call = NULL;
        enum fl_verdict verdict = fl_submit(door, wish.route, http->from, 0,
                                            (const unsigned char *)event.at, event.size, 0, &call);
        if (verdict != FL_PYTHON) {
            http->call = call;
            http->last_ns = call->admitted_ns;
            return verdict;
        }
    }
    http->region = wish.region;
    http->target_at = (size_t)(request->target.at - whole);
    http->target_size = request->target.size;
    http->body_at = (size_t)(request->body.at - whole);
    http->body_size = request->body.size;
    return FL_VERIFIED;
}

/* ---- connections ------------------------------------------------------------------------------
 */

static char *put(char *at, const char *text, size_t size)
{
    memcpy(at, text, size);
    return at + size;
}

static char *put_number(char *at, size_t value)
{
    char digits[20];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

static int make_room(struct fl_http *http, size_t size)
{
    if (size <= http->room)
        return 1;
    unsigned char *bytes = realloc(http->bytes, size);
    if (bytes == NULL)
        return 0;
    http->bytes = bytes;
    http->room = size;
    return 1;
}

static void forget_held(struct fl_http *http)
{
    struct http_origin *origin = (struct http_origin *)http->from;
    if (http->held > 0)
        origin->door->held -= http->held;
    http->held = 0;
    origin->pieces = 0;
    if (http->room > KEPT_ROOM) {
        free(http->bytes);
        http->bytes = NULL;
        http->room = 0;
    }
}

#define PUT(at, literal) put(at, literal, sizeof literal - 1)

static enum fl_verdict answer(struct fl_door *door, struct fl_call *call, unsigned char *payload,
                              size_t size, const struct fl_measures *measures)
{
    (void)measures;
    struct fl_http *http = ((struct http_origin *)call->from)->http;
    const struct fl_tables *own = door->own;
    http->call = NULL;
    http->last_ns = fl_steady_ns();
    char head[FL_HEADROOM], *at = head;
    at = PUT(at, "HTTP/1.1 200 OK\r\n");
    at = put(at, own->date_line, own->date_size);
    at = PUT(at, "Content-Type: application/json\r\nx-amzn-RequestId: ");
    fl_format_id(call->nonce, at);
    at = PUT(at + 36, "\r\nX-Amz-Executed-Version: ");
    at = put(at, call->pool->version, strlen(call->pool->version));
    at = PUT(at, "\r\nContent-Length: ");
    at = put_number(at, size);
    at = PUT(at, "\r\n\r\n");
    size_t head_size = (size_t)(at - head);
    payload -= head_size;
    memcpy(payload, head, head_size);
    size += head_size;
    ssize_t sent = http->fd < 0 ? -1 : send(http->fd, payload, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == (ssize_t)size)
        return FL_DONE;
    /* Full, or broken, or not ours to write to: the transport sends the rest, or finds out. */
    if (sent < 0)
        sent = 0;
    http->rest = size - (size_t)sent;
    if (!make_room(http, http->rest)) {
        http->rest = 0;
        if (http->fd >= 0)
            shutdown(http->fd, SHUT_RDWR);
        return FL_DONE;
    }
    memcpy(http->bytes, payload + sent, http->rest);
    door->origin = http->from->handle;
    return FL_BLOCKED;
}

static void adopted(struct fl_call *call)
{
    ((struct http_origin *)call->from)->http->call = NULL;
}

struct fl_http *fl_http_new(uint64_t handle, int fd)
{
    struct fl_http *http = calloc(1, sizeof *http);
    struct http_origin *origin = calloc(1, sizeof *origin);
    if (http == NULL || origin == NULL) {
        free(http);
        free(origin);
        return NULL;
    }
    *origin = (struct http_origin){{handle, answer, adopted}, http, NULL, 0};
    http->from = &origin->origin;
    http->fd = fd;
    return http;
}

void fl_http_free(struct fl_http *http)
{
    if (http == NULL)
        return;
    forget_held(http);
    free(http->bytes);
    free(http->from);
    free(http);
}

enum fl_verdict fl_http_received(struct fl_door *door, struct fl_http *http, const char *data,
                                 size_t size)
{
    struct http_origin *origin = (struct http_origin *)http->from;
    if (http->call != NULL || size == 0)
        return FL_PYTHON;
    const char *whole = data;
    size_t total = http->held + size;
    if (http->held > 0) {
        if (origin->pieces == MAX_PIECES || total > MAX_HEAD + FL_EVENT_BYTES ||
            !make_room(http, total))
            return FL_PYTHON;
        memcpy(http->bytes + http->held, data, size);
        whole = (const char *)http->bytes;
    }
    struct fl_request request;
    enum finding finding = parse(&request, whole, total);
    if (finding == INCOMPLETE && total <= MAX_HEAD + FL_EVENT_BYTES &&
        door->held + size <= FL_HELD_BYTES && make_room(http, total)) {
        if (http->held == 0)
            memcpy(http->bytes, data, size);
        http->held = total;
        origin->door = door;
        door->held += size;
        origin->pieces++;
        return FL_HELD;
    }
    enum fl_verdict verdict = finding == WHOLE ? run(door, http, &request, whole) : FL_PYTHON;
    if (verdict != FL_PYTHON && verdict != FL_VERIFIED && http->held > 0)
        forget_held(http);
    return verdict;
}

void fl_http_release(struct fl_http *http, char *out)
{
    memcpy(out, http->bytes, http->held);
    forget_held(http);
}

const unsigned char *fl_http_rest(struct fl_http *http, size_t *size)
{
    *size = http->rest;
    http->rest = 0;
    return http->bytes;
}
