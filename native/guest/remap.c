/* Memory is copied by the kernel (pwrite from the mapping itself) and exchanged for its copy by one
 * mmap, which is atomic for this process. What is written to it in between is lost: so there is one
 * thread, signals are blocked, and what runs in between are raw system calls that use registers,
 * the stack and memory of our own, which stay where they are. (syscall(2) writes errno after a
 * failure only, and after a failure nothing is exchanged.) */
#include "remap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

enum {
    /* What is on its way is held twice, and a function may be near its limit. */
    CHUNK_BYTES = 1 << 20,
    MAX_RANGES = 16 * 1024,
    /* Page tables of less are cheaper to copy than the file's pages to fault in. */
    WORTH_BYTES = 8 << 20,
    MAX_EMPTY_PART = 4, /* one page in so many may be filled with zeros */
    KERNEL_SIGSET_BYTES = 8,
};

struct mover {
    int fd;
    size_t page;
    size_t offset; /* in the file, of the chunk at hand */
    char *copy;    /* CHUNK_BYTES */
    size_t moved;  /* bytes */
};

static int one_thread(void)
{
    struct stat task;
    if (stat("/proc/self/task", &task) != 0)
        return 0;
    return task.st_nlink == 3; /* ".", ".." and one thread */
}

/* Pages first to end of the chunk at `address`. */
static int exchange(struct mover *mover, const struct fg_range *range, size_t address, size_t first,
                    size_t end)
{
    size_t bytes = (end - first) * mover->page;
    if (bytes == 0)
        return 0;
    if (syscall(SYS_mmap, address + first * mover->page, bytes, range->protection,
                MAP_PRIVATE | MAP_FIXED, mover->fd, mover->offset + first * mover->page) == -1)
        return -errno;
    mover->moved += bytes;
    return 0;
}

/* Gives the memory of copied pages back. */
static void punch(struct mover *mover, size_t first, size_t end)
{
    if (end > first)
        syscall(SYS_fallocate, mover->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                mover->offset + first * mover->page, (end - first) * mover->page);
}

static int is_zero(const char *page, size_t bytes)
{
    return page[0] == 0 && memcmp(page, page + 1, bytes - 1) == 0;
}

/* A page that the file lacked would be made at its first touch, for ever and at the toucher's
 * expense, and one of zeros takes memory. So what is empty at either end of the chunk stays what it
 * was, and all of it does if it is rather empty. */
static int exchange_filled(struct mover *mover, const struct fg_range *range, size_t address,
                           size_t pages)
{
    size_t bytes = pages * mover->page;
    if (syscall(SYS_pread64, mover->fd, mover->copy, bytes, mover->offset) != (long)bytes)
        return -EIO;
    size_t first = 0, end = pages, empty = 0;
    while (end > 0 && is_zero(mover->copy + (end - 1) * mover->page, mover->page))
        end--;
    while (first < end && is_zero(mover->copy + first * mover->page, mover->page))
        first++;
    for (size_t i = first; i < end; i++)
        empty += (size_t)is_zero(mover->copy + i * mover->page, mover->page);
    if (empty * MAX_EMPTY_PART > end - first)
        first = end = 0;
    int failed = exchange(mover, range, address, first, end);
    if (!failed) {
        punch(mover, 0, first);
        punch(mover, end, pages);
    }
    return failed;
}

static int move_range(struct mover *mover, const struct fg_range *range)
{
    for (size_t address = range->start; address < range->end; address += CHUNK_BYTES) {
        size_t bytes = range->end - address < CHUNK_BYTES ? range->end - address : CHUNK_BYTES;
        size_t pages = bytes / mover->page;
        long copied = syscall(SYS_pwrite64, mover->fd, address, bytes, mover->offset);
        int failed = 0;
        if (copied == (long)bytes)
            failed = range->sparse ? exchange_filled(mover, range, address, pages)
                                   : exchange(mover, range, address, 0, pages);
        else if (copied == -1 && errno != EFAULT)
            failed = -errno;
        else /* a page of it cannot be read: it stays as it is */
            punch(mover, 0, pages);
        if (failed)
            return failed;
        mover->offset += bytes;
    }
    return 0;
}

static int make_file(size_t bytes)
{
    struct rlimit limit;
    /* Writing beyond it would be a signal, deadly by default. */
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur < bytes)
        return -EFBIG;
    unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    long fd = syscall(SYS_memfd_create, "forklight-zygote", flags | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
        fd = syscall(SYS_memfd_create, "forklight-zygote", flags);
    if (fd < 0)
        return -errno;
    if (ftruncate((int)fd, (off_t)bytes) != 0) {
        int failed = -errno;
        close((int)fd);
        return failed;
    }
    return (int)fd;
}

static int move_ranges(const struct fg_ranges *ranges, size_t total, char *copy, size_t *moved)
{
    int fd = make_file(total);
    if (fd < 0)
        return fd;
    struct mover mover = {.fd = fd, .page = (size_t)sysconf(_SC_PAGESIZE), .copy = copy};
    uint64_t all = ~(uint64_t)0, before = 0;
    int failed = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, KERNEL_SIGSET_BYTES);
    for (size_t i = 0; i < ranges->count && !failed; i++)
        failed = move_range(&mover, &ranges->item[i]);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, KERNEL_SIGSET_BYTES);
    *moved = mover.moved;
    /* No worker may ever change what others fault in. The file is out of everybody's reach once it
     * is closed; this would hold even if it were not. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) !=
            0 &&
        !failed)
        failed = -errno;
    close(fd);
    return failed;
}

int fg_remap(size_t *bytes)
{
    *bytes = 0;
    if (!one_thread())
        return -EBUSY;
    size_t list_bytes = MAX_RANGES * sizeof(struct fg_range);
    size_t own_bytes = list_bytes + fg_search_bytes() + CHUNK_BYTES;
    /* Shared, because only private memory is ever moved. It takes what is touched of it. */
    char *own = mmap(NULL, own_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (own == MAP_FAILED)
        return -errno;
    struct fg_ranges ranges = {.item = (struct fg_range *)(void *)own, .capacity = MAX_RANGES};
    struct fg_search *search = (struct fg_search *)(void *)(own + list_bytes);
    int failed = fg_owned_memory(search, &ranges);
    size_t total = 0;
    for (size_t i = 0; i < ranges.count; i++)
        total += ranges.item[i].end - ranges.item[i].start;
    if (!failed && total >= WORTH_BYTES)
        failed = move_ranges(&ranges, total, own + own_bytes - CHUNK_BYTES, bytes);
    munmap(own, own_bytes);
    return failed;
}
