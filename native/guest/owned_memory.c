/* Which memory may be moved into a file.
 *
 * A private mapping of a file differs from anonymous memory in two ways that a program can notice:
 * after madvise(MADV_DONTNEED) it holds the file's bytes and not zeros, and mremap extends it by
 * more of the file. jemalloc, for one, counts on the zeros. So only memory is taken whose owner
 * does neither: data of loaded libraries, glibc's heap, arenas of CPython's object allocator, and
 * large blocks of glibc's malloc. Of such a block the last page stays behind: mremap refuses to
 * extend what is two mappings, and realloc copies then. The largest become huge pages instead. */
#include "remap.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

enum {
    MAX_ARENAS = 16 * 1024,
    MAX_BEFORE = 1024,
    MAX_SEGMENTS = 2048,
    LINE_BYTES = 64 * 1024,
    /* Each is two mappings more at each fork; the page tables of less are cheaper to copy. */
    MIN_BLOCK_BYTES = 1 << 20,
    /* From here on huge pages are better still, and what does not fill one at either end is little.
     */
    MIN_HUGE_BLOCK_BYTES = 16 << 20,
    HUGE_PAGE_BYTES = 2 << 20,
    /* Looking for untouched pages touches them: address space that is only reserved is left. */
    MAX_UNTOUCHED_KIB = 64 * 1024,
    RSEQ_BYTES = 32,
};

struct span {
    size_t start, end;
};

/* One entry of /proc/self/smaps. */
struct mapping {
    size_t start, end;
    int protection;
    int private, file, heap, special; /* special: [stack], [vdso] and the like */
    size_t resident_kib, anonymous_kib, huge_kib, protection_key;
};

struct fg_search {
    size_t page;
    int pipe_ends[2];
    struct span segments[MAX_SEGMENTS];
    size_t segment_count;
    struct span rseq;
    struct fg_ranges *found; /* NULL: remember what is there */
    char line[LINE_BYTES];
};

/* What was there when the watch began, in order of address. */
static struct span before[MAX_BEFORE];
static size_t before_count;

size_t fg_search_bytes(void)
{
    return sizeof(struct fg_search);
}

/* The span that holds the address, or NULL. */
static const struct span *span_at(const struct span *spans, size_t count, size_t address)
{
    for (size_t i = 0; i < count; i++)
        if (address >= spans[i].start && address < spans[i].end)
            return &spans[i];
    return NULL;
}

/* ---- arenas of the object allocator ---------------------------------------------------------- */

/* CPython's PyObjectArenaAllocator; not in the limited API, and the same since 3.4. */
struct arena_allocator {
    void *context;
    void *(*alloc)(void *context, size_t bytes);
    void (*free)(void *context, void *address, size_t bytes);
};

typedef void access_allocator(struct arena_allocator *);

static struct arena_allocator python_allocator;
static struct span arenas[MAX_ARENAS];
static size_t arena_count;

static void *alloc_arena(void *context, size_t bytes)
{
    void *address = python_allocator.alloc(context, bytes);
    if (address && arena_count < MAX_ARENAS)
        arenas[arena_count++] = (struct span){(size_t)address, (size_t)address + bytes};
    return address;
}

static void free_arena(void *context, void *address, size_t bytes)
{
    for (size_t i = arena_count; i-- > 0;)
        if (arenas[i].start == (size_t)address) {
            arenas[i] = arenas[--arena_count];
            break;
        }
    python_allocator.free(context, address, bytes);
}

static int watch_arenas(void)
{
    access_allocator *get = (access_allocator *)dlsym(RTLD_DEFAULT, "PyObject_GetArenaAllocator");
    access_allocator *set = (access_allocator *)dlsym(RTLD_DEFAULT, "PyObject_SetArenaAllocator");
    if (!get || !set)
        return -ENOSYS;
    if (python_allocator.alloc) /* a second watch must not make us our own allocator */
        return 0;
    get(&python_allocator);
    struct arena_allocator ours = {python_allocator.context, alloc_arena, free_arena};
    set(&ours);
    return 0;
}

/* ---- data of loaded libraries ---------------------------------------------------------------- */

static int add_segments(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size;
    struct fg_search *search = data;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type != PT_LOAD || !(header->p_flags & PF_W) ||
            search->segment_count == MAX_SEGMENTS)
            continue;
        size_t start = info->dlpi_addr + header->p_vaddr;
        struct span *segment = &search->segments[search->segment_count++];
        segment->start = start & ~(search->page - 1);
        segment->end = (start + header->p_memsz + search->page - 1) & ~(search->page - 1);
    }
    return 0;
}

/* ---- blocks of glibc's malloc ---------------------------------------------------------------- */

/* Size of the mapping that malloc made for one large block at this address, or 0. Read through a
 * pipe: a page may be guarded though its mapping is readable. */
static size_t block_at(const struct fg_search *search, size_t address, size_t end)
{
    enum { IS_MMAPPED = 2, FLAGS = 7 };
    size_t head[2]; /* the size of a free block before it: none; its own size, and
                       flags */
    if (write(search->pipe_ends[1], (const void *)address, sizeof head) != (ssize_t)sizeof head ||
        read(search->pipe_ends[0], head, sizeof head) != (ssize_t)sizeof head)
        return 0;
    size_t size = head[1] & ~(size_t)FLAGS;
    if (head[0] != 0 || (head[1] & FLAGS) != IS_MMAPPED || size % search->page != 0)
        return 0;
    return size <= end - address ? size : 0;
}

/* Whether the block is in huge pages now: a fork then copies one entry for 512 pages, and a worker
 * that reads the block, as one does that holds a model, has no faults at all. */
static int make_huge(size_t start, size_t end, const struct mapping *mapping)
{
    size_t first = (start + HUGE_PAGE_BYTES - 1) & ~((size_t)HUGE_PAGE_BYTES - 1);
    size_t last = end & ~((size_t)HUGE_PAGE_BYTES - 1);
    /* Untouched pages would take memory. */
    if (end - start < MIN_HUGE_BLOCK_BYTES ||
        mapping->resident_kib < (mapping->end - mapping->start) / 1024 * 15 / 16)
        return 0;
    return madvise((void *)first, last - first, MADV_COLLAPSE) == 0;
}

/* ---- the list -------------------------------------------------------------------------------- */

static int append(struct fg_search *search, size_t start, size_t end, const struct mapping *mapping)
{
    struct fg_ranges *found = search->found;
    struct fg_range *last = found->count ? &found->item[found->count - 1] : NULL;
    size_t size_kib = (mapping->end - mapping->start) / 1024;
    int sparse = !mapping->file && mapping->resident_kib < size_kib - size_kib / 16;
    if (start == end)
        return 0;
    if (last && last->end == start && last->protection == mapping->protection &&
        last->sparse == sparse) {
        last->end = end;
        return 0;
    }
    if (found->count == found->capacity)
        return -E2BIG;
    found->item[found->count++] = (struct fg_range){start, end, mapping->protection, sparse};
    return 0;
}

/* Without the page that the kernel writes to at any time. */
static int add(struct fg_search *search, size_t start, size_t end, const struct mapping *mapping)
{
    const struct span *rseq = &search->rseq;
    if (start >= rseq->end || end <= rseq->start)
        return append(search, start, end, mapping);
    int failed = rseq->start > start ? append(search, start, rseq->start, mapping) : 0;
    if (failed || end <= rseq->end)
        return failed;
    return append(search, rseq->end, end, mapping);
}

/* A mapping is one piece after the other, because the kernel joins neighbours. In memory of an
 * unknown owner nothing is believed until the next piece that is known for sure. */
static int add_pieces(struct fg_search *search, const struct mapping *mapping)
{
    int lost = 0, failed = 0;
    for (size_t at = mapping->start, next; at < mapping->end && !failed; at = next) {
        const struct span *old = span_at(before, before_count, at);
        const struct span *own = span_at(search->segments, search->segment_count, at);
        size_t block = 0;
        if (!old && !own)
            own = span_at(arenas, arena_count, at);
        if (!old && !own && !lost && !mapping->file)
            block = block_at(search, at, mapping->end);
        next = old ? old->end : own ? own->end : block ? at + block : at + search->page;
        if (mapping->heap && !old)
            next = mapping->end;
        if (next > mapping->end)
            next = mapping->end;
        lost = !old && !own && !block;
        if (old)
            continue;
        if (own || mapping->heap)
            failed = add(search, at, next, mapping);
        else if (block >= MIN_BLOCK_BYTES && !make_huge(at, next, mapping))
            failed = add(search, at, next - search->page, mapping);
    }
    return failed;
}

static int remember(const struct mapping *mapping)
{
    if (!(mapping->protection & PROT_WRITE))
        return 0;
    if (before_count == MAX_BEFORE)
        return -E2BIG;
    before[before_count++] = (struct span){mapping->start, mapping->end};
    return 0;
}

static int consider(struct fg_search *search, const struct mapping *mapping)
{
    if (!mapping->private || mapping->special)
        return 0;
    if (!search->found)
        return remember(mapping);
    if (!(mapping->protection & PROT_READ) || (mapping->protection & PROT_EXEC) ||
        mapping->protection_key)
        return 0;
    /* Nothing of it would be copied by a fork, or page tables of huge pages, which are small. */
    if (mapping->anonymous_kib == 0 || mapping->huge_kib * 2 >= mapping->resident_kib)
        return 0;
    if ((mapping->end - mapping->start) / 1024 - mapping->resident_kib > MAX_UNTOUCHED_KIB)
        return 0;
    return add_pieces(search, mapping);
}

/* Whether every property of the mapping outlives the exchange or does not matter. Not, for
 * instance: wf (wiped in a child), dc (not copied to it), lo (locked), ht (huge pages), gd (a
 * stack), dp (droppable), sl (sealed). */
static int flags_allow(const char *flags)
{
    static const char harmless[][3] = {"rd", "wr", "mr", "mw", "me", "ac", "sd", "hg", "nh"};
    for (flags += strspn(flags, " "); *flags && *flags != '\n'; flags += strspn(flags, " ")) {
        size_t i = 0;
        while (i < sizeof harmless / sizeof *harmless && strncmp(flags, harmless[i], 2) != 0)
            i++;
        if (i == sizeof harmless / sizeof *harmless)
            return 0;
        flags += 2;
    }
    return 1;
}

/* "start-end rw-p offset device inode   name" */
static void read_head(const char *line, struct mapping *mapping)
{
    char *rest;
    memset(mapping, 0, sizeof *mapping);
    mapping->start = strtoul(line, &rest, 16);
    mapping->end = strtoul(rest + 1, &rest, 16);
    const char *at = rest + 1;
    mapping->protection = (at[0] == 'r' ? PROT_READ : 0) | (at[1] == 'w' ? PROT_WRITE : 0) |
                          (at[2] == 'x' ? PROT_EXEC : 0);
    mapping->private = at[3] == 'p';
    for (int field = 0; field < 3; field++) {
        at += strcspn(at, " \n");
        at += strspn(at, " ");
    }
    mapping->file = strtoul(at, &rest, 10) != 0; /* the inode */
    const char *name = rest + strspn(rest, " ");
    mapping->heap = strncmp(name, "[heap]", 6) == 0;
    mapping->special = *name == '[' && !mapping->heap && strncmp(name, "[anon", 5) != 0;
}

static int read_line(struct fg_search *search, const char *line, struct mapping *mapping)
{
    static const struct {
        const char *name;
        size_t offset;
    } fields[] = {{"Rss:", offsetof(struct mapping, resident_kib)},
                  {"Anonymous:", offsetof(struct mapping, anonymous_kib)},
                  {"AnonHugePages:", offsetof(struct mapping, huge_kib)},
                  {"ProtectionKey:", offsetof(struct mapping, protection_key)}};
    if (*line < 'A' || *line > 'Z') {
        read_head(line, mapping);
        return 0;
    }
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        size_t length = strlen(fields[i].name);
        if (strncmp(line, fields[i].name, length) == 0)
            *(size_t *)(void *)((char *)mapping + fields[i].offset) =
                strtoul(line + length, NULL, 10);
    }
    /* The last line of an entry. */
    if (strncmp(line, "VmFlags:", 8) == 0 && (!search->found || flags_allow(line + 8)))
        return consider(search, mapping);
    return 0;
}

static int read_mappings(struct fg_search *search, int smaps)
{
    struct mapping mapping = {0};
    size_t filled = 0;
    for (;;) {
        ssize_t count = read(smaps, search->line + filled, LINE_BYTES - 1 - filled);
        if (count < 0)
            return -errno;
        if (count == 0)
            return filled == 0 ? 0 : -EIO;
        filled += (size_t)count;
        search->line[filled] = 0;
        char *line = search->line, *end;
        while ((end = strchr(line, '\n')) != NULL) {
            int failed = read_line(search, line, &mapping);
            if (failed)
                return failed;
            line = end + 1;
        }
        filled -= (size_t)(line - search->line);
        memmove(search->line, line, filled);
        if (filled == LINE_BYTES - 1)
            return -E2BIG;
    }
}

static int search_mappings(struct fg_search *search)
{
    int smaps = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
    if (smaps < 0)
        return -errno;
    int failed = read_mappings(search, smaps);
    close(smaps);
    return failed;
}

int fg_watch_memory(void)
{
    size_t bytes = sizeof(struct fg_search);
    struct fg_search *search =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (search == MAP_FAILED)
        return -errno;
    before_count = 0;
    int failed = search_mappings(search);
    munmap(search, bytes);
    if (!failed)
        failed = watch_arenas();
    if (failed)
        before_count = 0;
    return failed;
}

/* Registered with the kernel by glibc 2.35 and later, which also says where it is. */
static struct span find_rseq(size_t page)
{
    const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
    if (!offset)
        return (struct span){0, 0};
    size_t start = (size_t)__builtin_thread_pointer() + (size_t)*offset;
    return (struct span){start & ~(page - 1), (start + RSEQ_BYTES + page - 1) & ~(page - 1)};
}

int fg_owned_memory(struct fg_search *search, struct fg_ranges *found)
{
    if (before_count == 0)
        return 0;
    search->found = found;
    search->page = (size_t)sysconf(_SC_PAGESIZE);
    dl_iterate_phdr(add_segments, search);
    search->rseq = find_rseq(search->page);
    if (pipe2(search->pipe_ends, O_CLOEXEC) != 0)
        return -errno;
    int failed = search_mappings(search);
    close(search->pipe_ends[0]);
    close(search->pipe_ends[1]);
    return failed;
}
