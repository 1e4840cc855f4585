/* A hash table from byte strings to pointers: bounded, emptied as a whole. */
#ifndef FORKLIGHT_TABLE_H
#define FORKLIGHT_TABLE_H

#include <stddef.h>
#include <stdint.h>

enum { FL_TABLE_SLOTS = 8192, FL_TABLE_ENTRIES = 4096 };

struct fl_entry {
    char *key; /* owned; NULL: free */
    size_t size;
    uint64_t hash;
    void *value; /* owned */
};

struct fl_table {
    struct fl_entry *slots; /* FL_TABLE_SLOTS; NULL until the first entry */
    size_t count;
    uint64_t seed;
    void (*drop)(void *value);
};

/* `seed`: a number that outsiders do not know, so that they cannot choose keys that collide. */
void fl_table_begin(struct fl_table *table, uint64_t seed, void (*drop)(void *value));
void *fl_table_get(const struct fl_table *table, const char *key, size_t size);
/* Takes the value, whatever it answers; the key is copied. Replaces what is there; a full table is
 * emptied first. 0, or -1 without memory. */
int fl_table_put(struct fl_table *table, const char *key, size_t size, void *value);
void fl_table_remove(struct fl_table *table, const char *key, size_t size);
void fl_table_clear(struct fl_table *table);
void fl_table_end(struct fl_table *table);

#endif
