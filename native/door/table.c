#include "table.h"

#include <stdlib.h>
#include <string.h>

/* Eight bytes a step; each is mixed in by a multiplication whose upper half comes back (wyhash's
 * idea). */
static uint64_t mix(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_of(uint64_t seed, const char *key, size_t size)
{
    uint64_t hash = seed ^ (size * 0x9e3779b97f4a7c15u);
    for (; size >= 8; key += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, key, 8);
        hash = mix(hash ^ word, 0xa0761d6478bd642fu);
    }
    uint64_t rest = 0;
    memcpy(&rest, key, size);
    return mix(hash ^ rest, 0xe7037ed1a0b428dbu ^ seed);
}

void fl_table_begin(struct fl_table *table, uint64_t seed, void (*drop)(void *value))
{
    memset(table, 0, sizeof *table);
    table->seed = seed;
    table->drop = drop;
}

/* The entry of this key, or the free one where it would be. */
static struct fl_entry *slot_of(const struct fl_table *table, uint64_t hash, const char *key,
                                size_t size)
{
    for (size_t i = hash % FL_TABLE_SLOTS;; i = (i + 1) % FL_TABLE_SLOTS) {
        struct fl_entry *entry = &table->slots[i];
        if (entry->key == NULL)
            return entry;
        if (entry->hash == hash && entry->size == size && memcmp(entry->key, key, size) == 0)
            return entry;
    }
}

void *fl_table_get(const struct fl_table *table, const char *key, size_t size)
{
    if (table->count == 0)
        return NULL;
    return slot_of(table, hash_of(table->seed, key, size), key, size)->value;
}

int fl_table_put(struct fl_table *table, const char *key, size_t size, void *value)
{
    if (table->count >= FL_TABLE_ENTRIES)
        fl_table_clear(table);
    if (table->slots == NULL)
        table->slots = calloc(FL_TABLE_SLOTS, sizeof *table->slots);
    char *copy = malloc(size + 1);
    if (table->slots == NULL || copy == NULL) {
        free(copy);
        table->drop(value);
        return -1;
    }
    memcpy(copy, key, size);
    uint64_t hash = hash_of(table->seed, key, size);
    struct fl_entry *entry = slot_of(table, hash, key, size);
    if (entry->key != NULL) {
        free(entry->key);
        table->drop(entry->value);
        table->count--;
    }
    *entry = (struct fl_entry){copy, size, hash, value};
    table->count++;
    return 0;
}

/* Whatever was put behind it because its place was taken moves up: a search ends at the first free
 * place. */
static void close_gap(struct fl_table *table, size_t gap)
{
    for (size_t i = (gap + 1) % FL_TABLE_SLOTS; table->slots[i].key != NULL;
         i = (i + 1) % FL_TABLE_SLOTS) {
        size_t home = table->slots[i].hash % FL_TABLE_SLOTS;
        if ((i + FL_TABLE_SLOTS - home) % FL_TABLE_SLOTS >=
            (i + FL_TABLE_SLOTS - gap) % FL_TABLE_SLOTS) {
            table->slots[gap] = table->slots[i];
            table->slots[i] = (struct fl_entry){NULL, 0, 0, NULL};
            gap = i;
        }
    }
}

void fl_table_remove(struct fl_table *table, const char *key, size_t size)
{
    if (table->count == 0)
        return;
    struct fl_entry *entry = slot_of(table, hash_of(table->seed, key, size), key, size);
    if (entry->key == NULL)
        return;
    free(entry->key);
    table->drop(entry->value);
    *entry = (struct fl_entry){NULL, 0, 0, NULL};
    table->count--;
    close_gap(table, (size_t)(entry - table->slots));
}

void fl_table_clear(struct fl_table *table)
{
    for (size_t i = 0; table->count > 0 && i < FL_TABLE_SLOTS; i++) {
        struct fl_entry *entry = &table->slots[i];
        if (entry->key == NULL)
            continue;
        free(entry->key);
        table->drop(entry->value);
        entry->key = NULL;
        entry->value = NULL;
        table->count--;
    }
}

void fl_table_end(struct fl_table *table)
{
    fl_table_clear(table);
    free(table->slots);
    table->slots = NULL;
}
