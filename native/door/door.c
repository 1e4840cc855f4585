/* A door's tables: what the fast path knows because Python has said so. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void drop_route(void *value)
{
    struct fl_route *route = value;
    if (route == NULL)
        return;
    free(route->meta);
    free(route->path);
    free(route->query);
    free(route);
}

static void drop_scope(void *value)
{
    struct fl_scope *scope = value;
    if (scope == NULL)
        return;
    free(scope->names);
    free(scope->scope);
    free(scope->region);
    explicit_bzero(scope, sizeof *scope);
    free(scope);
}

struct fl_door *fl_door_new(const int64_t *bounds, size_t count, const struct fl_policy *policy)
{
    struct fl_door *door = calloc(1, sizeof *door);
    struct fl_tables *own = calloc(1, sizeof *own);
    uint64_t seed;
    if (door == NULL || own == NULL || count > FL_BOUNDS ||
        getrandom(&seed, sizeof seed, 0) != sizeof seed) {
        free(door);
        free(own);
        return NULL;
    }
    door->own = own;
    door->policy = *policy;
    door->outputs = own->outputs;
    own->random_used = sizeof own->random;
    memcpy(own->bounds, bounds, count * sizeof *bounds);
    own->bound_count = count;
    fl_table_begin(&own->routes, seed, drop_route);
    fl_table_begin(&own->scopes, seed, drop_scope);
    return door;
}

void fl_door_free(struct fl_door *door)
{
    if (door == NULL)
        return;
    fl_table_end(&door->own->routes);
    fl_table_end(&door->own->scopes);
    free(door->own);
    free(door);
}

void fl_set_date(struct fl_door *door, const char *line, size_t size)
{
    struct fl_tables *own = door->own;
    own->date_size = size < sizeof own->date_line ? size : 0;
    memcpy(own->date_line, line, own->date_size);
}

void fl_set_open_region(struct fl_door *door, const char *region)
{
    char *open_region = door->own->open_region;
    size_t size = region != NULL ? strlen(region) : 0;
    if (size >= sizeof door->own->open_region)
        size = 0;
    memcpy(open_region, region != NULL ? region : "", size);
    open_region[size] = '\0';
}

void fl_add_route(struct fl_door *door, const char *name, size_t size, struct fl_pool *pool,
                  const char *meta, size_t meta_size, const char *path, const char *query)
{
    if (meta_size > FL_META_BYTES)
        return;
    struct fl_route *route = calloc(1, sizeof *route);
    if (route == NULL)
        return;
    route->pool = pool;
    route->meta = malloc(meta_size + 1);
    route->meta_size = meta_size;
    route->path = strdup(path);
    route->query = strdup(query);
    if (route->meta == NULL || route->path == NULL || route->query == NULL) {
        drop_route(route);
        return;
    }
    memcpy(route->meta, meta, meta_size);
    fl_table_put(&door->own->routes, name, size, route);
}

void fl_forget_route(struct fl_door *door, const char *name, size_t size)
{
    fl_table_remove(&door->own->routes, name, size);
}

void fl_forget_routes(struct fl_door *door)
{
    fl_table_clear(&door->own->routes);
}

/* The key of HMAC-SHA256 (RFC 2104), already in the state of both hashes. */
static void prepare_key(struct fl_scope *scope, const unsigned char key[32])
{
    unsigned char block[FL_SHA256_BLOCK];
    memset(block, 0x36, sizeof block);
    for (int i = 0; i < 32; i++)
        block[i] ^= key[i];
    fl_sha256_begin(&scope->inner);
    fl_sha256_add(&scope->inner, block, sizeof block);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] ^= 0x36 ^ 0x5c;
    fl_sha256_begin(&scope->outer);
    fl_sha256_add(&scope->outer, block, sizeof block);
    explicit_bzero(block, sizeof block);
}

void fl_add_scope(struct fl_door *door, const char *prefix, size_t size, const unsigned char *key,
                  const char *names, const char *date, const char *scope_text, const char *region)
{
    struct fl_scope *scope = calloc(1, sizeof *scope);
    if (scope == NULL)
        return;
    scope->names = strdup(names);
    scope->scope = strdup(scope_text);
    scope->region = strdup(region);
    if (scope->names == NULL || scope->scope == NULL || scope->region == NULL ||
        strlen(date) != sizeof scope->date - 1) {
        drop_scope(scope);
        return;
    }
    memcpy(scope->date, date, sizeof scope->date);
    scope->verified = key != NULL;
    if (key != NULL)
        prepare_key(scope, key);
    fl_table_put(&door->own->scopes, prefix, size, scope);
}

void fl_forget_scopes(struct fl_door *door)
{
    fl_table_clear(&door->own->scopes);
}
