/* What an invocation leaves behind for its log lines and figures, until Python takes it. */
#include "internal.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int fl_take_output(struct fl_door *door, const struct fl_worker *worker)
{
    struct fl_tables *own = door->own;
    int waiting = 0;
    if (ioctl(worker->log_fd, FIONREAD, &waiting) != 0)
        return -1;
    if (waiting == 0)
        return 0;
    if (waiting > FL_OUTPUT_BYTES || door->records == FL_RECORDS ||
        own->outputs_used + (uint32_t)waiting > FL_OUTPUTS)
        return -1;
    ssize_t size = read(worker->log_fd, own->outputs + own->outputs_used, (size_t)waiting);
    return size > 0 ? (int)size : -1;
}

void fl_record_answer(struct fl_door *door, struct fl_worker *worker, const struct fl_call *call,
                      const struct fl_measures *measures, uint32_t output_size)
{
    struct fl_tables *own = door->own;
    struct fl_pool *pool = worker->pool;
    size_t bucket = 0;
    while (bucket < own->bound_count && own->bounds[bucket] < measures->duration_ns)
        bucket++;
    pool->buckets[bucket]++;
    pool->answered++;
    pool->duration_ns += (uint64_t)measures->duration_ns;
    pool->billed_ms += (uint64_t)measures->billed_ms;
    int64_t most_cpu_ns = FL_MOST_CPUS * measures->duration_ns;
    pool->cpu_ns += (uint64_t)(measures->cpu_ns < most_cpu_ns ? measures->cpu_ns : most_cpu_ns);
    if (measures->peak_kib > pool->peak_kib)
        pool->peak_kib = measures->peak_kib;
    if (pool->service_ns < 0)
        pool->service_ns = measures->handler_ns;
    else if (!door->congested || measures->handler_ns < pool->service_ns)
        pool->service_ns += (measures->handler_ns - pool->service_ns) / 8;
    if (output_size == 0 && (door->quiet_left == 0 || door->records == FL_RECORDS)) {
        worker->left_out++;
        return;
    }
    if (output_size == 0)
        door->quiet_left--;
    struct fl_record *line = &own->records[(own->first_record + door->records++) % FL_RECORDS];
    line->worker = worker->handle;
    line->started_ms = worker->started_ms;
    line->duration_ns = measures->duration_ns;
    line->billed_ms = measures->billed_ms;
    line->peak_kib = measures->peak_kib;
    line->output_at = own->outputs_used;
    line->output_size = output_size;
    own->outputs_used += output_size;
    memcpy(line->nonce, call->nonce, sizeof line->nonce);
}

size_t fl_take_records(struct fl_door *door, struct fl_record *out, size_t count)
{
    struct fl_tables *own = door->own;
    size_t taken = 0;
    for (; taken < count && door->records > 0; taken++, door->records--) {
        out[taken] = own->records[own->first_record];
        own->first_record = (own->first_record + 1) % FL_RECORDS;
    }
    if (door->records == 0)
        own->outputs_used = 0;
    return taken;
}
