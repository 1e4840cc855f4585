/* Moving a zygote's memory into a file, so that a fork need not copy its page tables.
 *
 * Anonymous memory is copied page table entry by page table entry at each fork; a private mapping
 * of a file is not, because the child can fault it in again. So memory of a process that will only
 * be forked from now on is written to a memfd, and the memfd mapped in its place, private and with
 * the same protections. */
#ifndef FORKLIGHT_GUEST_REMAP_H
#define FORKLIGHT_GUEST_REMAP_H

#include <stddef.h>

/* Remembers all writable memory there is: it is shared with other processes, and stays so. From now
 * on CPython's object allocator tells where its arenas are. With one thread only. Returns 0 or
 * -errno; without it nothing will be moved. */
int fg_watch_memory(void);

/* Moves what came since fg_watch_memory and may be moved (owned_memory.c), if it is worth it.
 * Returns 0 with the bytes moved, or -errno: -EBUSY with more than one thread. After a failure some
 * of it may have been moved; the process is as sound as before either way. */
int fg_remap(size_t *bytes);

/* ---- between remap.c and owned_memory.c ------------------------------------------------------ */

struct fg_range {
    size_t start, end;
    int protection;
    int sparse; /* has many pages that were never touched */
};

struct fg_ranges {
    struct fg_range *item;
    size_t count, capacity;
};

/* What a list is made with: large, and in memory that is itself never on the list. */
struct fg_search;
size_t fg_search_bytes(void);

/* Appends to `found`, in order of address, what may be moved. Returns 0 or -errno. */
int fg_owned_memory(struct fg_search *search, struct fg_ranges *found);

#endif
