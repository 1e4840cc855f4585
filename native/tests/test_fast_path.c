/* A door's fast path over socket pairs: calls, workers that answer or do not, clients that do not
 * read. */
#include "../door/internal.h"

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORKERS = 3, CLIENTS = 5, RESULT = 18 };

static const char request[] = "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";

/* What a worker says. */
struct __attribute__((packed)) saying {
    uint32_t length;
    uint16_t kind;
    uint16_t meta;
    uint64_t aux;
    unsigned char nonce[16];
    uint64_t measures[3];
    char payload[70000];
};

static struct {
    struct fl_door *door;
    struct fl_pool *pool;
    struct fl_worker *workers[WORKERS];
    struct fl_http *clients[CLIENTS];
    int worker_fds[WORKERS]; /* the other ends */
    int log_fds[WORKERS];
    int client_fds[CLIENTS];
} rig;

static struct saying saying;
static char seen[100000];

static void open_pair(int fds[2])
{
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static void begin(int idle)
{
    static const int64_t bounds[] = {1000, 1000000};
    int fds[2];
    rig.door = fl_door_new(bounds, 2);
    rig.pool = fl_pool_new(70, 3000000000, 2, "$LATEST");
    CHECK(rig.door != NULL && rig.pool != NULL);
    fl_set_date(rig.door, "Date: d\r\n", 9);
    fl_set_open_region(rig.door, "r");
    fl_add_route(rig.door, "r\n/f", 4, rig.pool, "{\"arn\":1}", 9, "/f", "");
    rig.door->quiet_left = 100;
    for (int i = 0; i < WORKERS; i++) {
        open_pair(fds);
        int pipes[2];
        CHECK_INT(pipe2(pipes, O_NONBLOCK | O_CLOEXEC), 0);
        rig.workers[i] = fl_worker_new(80 + (uint64_t)i, rig.pool, fds[0], pipes[0]);
        rig.worker_fds[i] = fds[1];
        rig.log_fds[i] = pipes[1];
        rig.workers[i]->plain = 1;
    }
    for (int i = idle; i-- > 0;) /* the first is the warmest */
        fl_pool_rest(rig.pool, rig.workers[i], 1);
    for (int i = 0; i < CLIENTS; i++) {
        open_pair(fds);
        rig.clients[i] = fl_http_new(90 + (uint64_t)i, fds[0]);
        rig.client_fds[i] = fds[1];
    }
}

/* Adopts what is under way, as Python would. */
static void end(void)
{
    for (int i = 0; i < CLIENTS; i++) {
        struct fl_call *call = rig.clients[i]->call;
        if (call != NULL) {
            fl_call_adopt(call);
            fl_call_free(call);
        }
        CHECK(rig.clients[i]->call == NULL);
        close(rig.clients[i]->fd);
        close(rig.client_fds[i]);
        fl_http_free(rig.clients[i]);
    }
    CHECK(rig.pool->first == NULL && rig.pool->last == NULL);
    CHECK_INT(rig.pool->waiting, 0);
    for (int i = 0; i < WORKERS; i++) {
        CHECK(rig.workers[i]->call == NULL);
        fl_pool_remove(rig.pool, rig.workers[i]);
        close(rig.workers[i]->fd);
        close(rig.workers[i]->log_fd);
        if (rig.worker_fds[i] >= 0)
            close(rig.worker_fds[i]);
        close(rig.log_fds[i]);
        fl_worker_free(rig.workers[i]);
    }
    CHECK_INT(rig.pool->idle, 0);
    CHECK(rig.pool->warmest == NULL && rig.pool->coldest == NULL);
    fl_door_free(rig.door);
    fl_pool_free(rig.pool);
}

/* Its own memory, so that a byte too far is found out. */
static enum fl_verdict receive(int client, const char *data, size_t size)
{
    char *copy = malloc(size + (size == 0));
    memcpy(copy, data, size);
    enum fl_verdict verdict = fl_http_received(rig.door, rig.clients[client], copy, size);
    free(copy);
    return verdict;
}

static enum fl_verdict ask(int client)
{
    return receive(client, request, sizeof request - 1);
}

/* The frame that a worker got: prepares the answer to it. 0: it got none. */
static ssize_t take_event(int worker)
{
    ssize_t size = read(rig.worker_fds[worker], seen, sizeof seen);
    if (size < 0)
        return 0;
    CHECK(size >= 32 + 9);
    memset(&saying, 0, sizeof saying);
    memcpy(saying.nonce, seen + 16, 16);
    saying.kind = RESULT;
    saying.length = 24 + 2;
    memcpy(saying.payload, "{}", 2);
    return size;
}

static enum fl_verdict say(int worker, size_t size)
{
    CHECK_INT(write(rig.worker_fds[worker], &saying, size), size);
    return fl_worker_readable(rig.door, rig.workers[worker]);
}

static enum fl_verdict answer(int worker)
{
    CHECK(take_event(worker) > 0);
    return say(worker, 32 + 24 + 2);
}

/* What the client got; it ends with a zero. */
static size_t take_answer(int client)
{
    ssize_t size = read(rig.client_fds[client], seen, sizeof seen - 1);
    if (size < 0)
        size = 0;
    seen[size] = '\0';
    return (size_t)size;
}

TEST(a_plain_request_is_answered)
{
    begin(1);
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(rig.pool->busy, 1);
    CHECK_INT(rig.pool->idle, 0);
    CHECK_INT(take_event(0), 32 + 9 + 2);
    CHECK(memcmp(seen + 32, "{\"arn\":1}{}", 11) == 0);
    CHECK_INT(say(0, 32 + 24 + 2), FL_DONE);
    CHECK(take_answer(0) > 0);
    CHECK(strncmp(seen, "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Type: application/json\r\n", 57) ==
          0);
    CHECK(strstr(seen, "X-Amz-Executed-Version: $LATEST\r\nContent-Length: 2\r\n\r\n{}") != NULL);
    CHECK_INT(rig.pool->busy, 0);
    CHECK_INT(rig.pool->idle, 1);
    CHECK_INT(rig.pool->answered, 1);
    CHECK(rig.clients[0]->call == NULL);
    /* No body is an empty object. */
    static const char empty[] = "POST /f HTTP/1.1\r\nhost:\r\ncontent-length:0\r\n\r\n";
    CHECK_INT(receive(0, empty, sizeof empty - 1), FL_DONE);
    CHECK_INT(take_event(0), 32 + 9 + 2);
    CHECK(memcmp(seen + 41, "{}", 2) == 0);
    end();
}

TEST(a_request_may_come_in_four_pieces)
{
    begin(1);
    const size_t size = sizeof request - 1;
    for (size_t cut = 1; cut < size; cut++) {
        CHECK_INT(receive(0, request, cut), FL_HELD);
        CHECK_INT(receive(0, request + cut, size - cut), FL_DONE);
        CHECK_INT(rig.clients[0]->held, 0);
        CHECK_INT(answer(0), FL_DONE);
        CHECK(take_answer(0) > 0);
    }
    for (size_t i = 0; i < 4; i++)
        CHECK_INT(receive(0, request + i, 1), FL_HELD);
    CHECK_INT(receive(0, request + 4, 1), FL_PYTHON);
    CHECK_INT(rig.clients[0]->held, 4);
    char *held = malloc(4);
    fl_http_release(rig.clients[0], held);
    CHECK(memcmp(held, "POST", 4) == 0);
    free(held);
    CHECK_INT(rig.clients[0]->held, 0);
    CHECK_INT(ask(0), FL_DONE);
    end();
}

TEST(what_is_not_plain_is_pythons)
{
    static const char *const heads[] = {
        "GET /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n",
        "POST /f HTTP/1.0\r\nHost: h\r\nContent-Length: 2\r\n",
        "POST /g HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n",
        "POST  /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n",
        "POST /f  HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n",
        "POST /f HTTP/1.1\nHost: h\r\nContent-Length: 2\r\n",
        "POST /f HTTP/1.1\r\nContent-Length: 2\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nHost: h\r\nContent-Length: 2\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 000002\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 32769\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nUpgrade: x\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nX-Amz-Log-Type: Tail\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nX-Amz-Log-Type: None\r\n"
        "X-Amz-Log-Type: None\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nX-Amz-Invocation-Type: Event\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nX-Amz-Date: 1\r\nX-Amz-Date: 1\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nAuthorization: Signature=\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nA : b\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nA: b \r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nA: b\tc\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nA: \x80\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n b\r\n",
        "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nb\r\n",
        "\r\nPOST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n",
    };
    begin(1);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        int size = snprintf(seen, sizeof seen, "%s\r\n{}", heads[i]);
        enum fl_verdict verdict = receive(0, seen, (size_t)size);
        if (verdict != FL_PYTHON)
            printf("# %s\n", heads[i]);
        CHECK_INT(verdict, FL_PYTHON);
        CHECK_INT(rig.clients[0]->held, 0);
    }
    CHECK_INT(rig.pool->idle, 1);
    CHECK_INT(receive(0, "", 0), FL_PYTHON);
    end();
}

TEST(events_have_a_largest_size)
{
    begin(1);
    for (int size = FL_EVENT_BYTES; size <= FL_EVENT_BYTES + 1; size++) {
        memset(seen, 'x', sizeof seen);
        int head = snprintf(seen, sizeof seen,
                            "POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size);
        seen[head] = 'x';
        int fits = size == FL_EVENT_BYTES;
        CHECK_INT(receive(0, seen, (size_t)(head + size)), fits ? FL_DONE : FL_PYTHON);
        if (fits) {
            CHECK_INT(take_event(0), 32 + 9 + size);
            CHECK_INT(say(0, 32 + 24 + 2), FL_DONE);
            CHECK(take_answer(0) > 0);
        }
    }
    /* A head that does not end is Python's before it grows large. */
    memset(seen, 'x', sizeof seen);
    memcpy(seen, request, 27);
    CHECK_INT(receive(0, seen, 16383), FL_HELD);
    CHECK_INT(receive(0, seen, 16383), FL_PYTHON);
    end();
}

TEST(a_client_that_does_not_read_leaves_a_rest)
{
    begin(1);
    int small = 4096;
    setsockopt(rig.clients[0]->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    size_t total = 0, written = 0;
    CHECK_INT(ask(0), FL_DONE);
    CHECK(take_event(0) > 0);
    const size_t size = 65536 - 56;
    memset(saying.payload, 'y', size);
    saying.length = (uint32_t)(24 + size);
    CHECK_INT(say(0, 56 + size), FL_BLOCKED);
    CHECK_INT(rig.door->origin, 90);
    CHECK(rig.clients[0]->call == NULL);
    const unsigned char *rest = fl_http_rest(rig.clients[0], &written);
    CHECK(written > 0 && written < size);
    CHECK(rest[0] == 'y' && rest[written - 1] == 'y');
    for (size_t got; (got = take_answer(0)) > 0;)
        total += got;
    const char head[] = "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Type: application/json\r\n"
                        "x-amzn-RequestId: 01234567-0123-0123-0123-0123456789ab\r\n"
                        "X-Amz-Executed-Version: $LATEST\r\nContent-Length: 65480\r\n\r\n";
    CHECK_INT(total + written, sizeof head - 1 + size);
    fl_http_rest(rig.clients[0], &written);
    CHECK_INT(written, 0);
    /* The same for one that has gone: the transport finds out. */
    close(rig.client_fds[1]);
    rig.client_fds[1] = -1;
    CHECK_INT(ask(1), FL_DONE);
    CHECK_INT(answer(0), FL_BLOCKED);
    CHECK_INT(rig.door->origin, 91);
    end();
}

TEST(a_worker_that_is_dead_is_passed_over)
{
    begin(2);
    close(rig.worker_fds[0]);
    rig.worker_fds[0] = -1;
    CHECK_INT(ask(0), FL_DONE);
    CHECK(rig.workers[0]->broken && !rig.workers[0]->plain && !rig.workers[0]->listed);
    CHECK(rig.workers[0]->call == NULL && rig.workers[1]->call != NULL);
    CHECK_INT(rig.pool->busy, 1);
    CHECK_INT(answer(1), FL_DONE);
    CHECK(take_answer(0) > 0);
    /* And if there is no other: the request is Python's, and nothing has happened. */
    close(rig.worker_fds[1]);
    rig.worker_fds[1] = -1;
    CHECK_INT(ask(0), FL_PYTHON);
    CHECK(rig.clients[0]->call == NULL);
    CHECK_INT(rig.pool->busy, 0);
    CHECK_INT(rig.pool->idle, 0);
    CHECK_INT(fl_worker_serve(rig.door, rig.workers[0], fl_steady_ns()), 0);
    end();
}

TEST(a_worker_whose_channel_is_full_runs_nothing_more)
{
    begin(1);
    while (write(rig.workers[0]->fd, seen, 4096) > 0)
        ;
    CHECK_INT(ask(0), FL_PYTHON);
    CHECK(rig.workers[0]->broken);
    while (read(rig.worker_fds[0], seen, sizeof seen) > 0)
        ;
    CHECK_INT(read(rig.worker_fds[0], seen, 1), 0); /* it is told by the end of the channel */
    end();
}

/* Three calls wait behind a short one. */
static void let_three_wait(void)
{
    begin(1);
    rig.pool->service_ns = 1000;
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(ask(1), FL_WAITING);
    CHECK_INT(rig.door->pool, 70);
    rig.pool->armed = 1;
    CHECK_INT(ask(2), FL_DONE);
    CHECK_INT(ask(3), FL_DONE);
    CHECK_INT(rig.pool->waiting, 3);
    CHECK_INT(rig.pool->oldest_waiting, rig.clients[1]->call->admitted_ns);
}

TEST(calls_wait_for_a_short_handler_in_order)
{
    let_three_wait();
    for (int client = 0; client < 4; client++) {
        CHECK(rig.workers[0]->call == rig.clients[client]->call);
        CHECK_INT(answer(0), FL_DONE);
        CHECK(take_answer(client) > 0);
        CHECK_INT(rig.pool->waiting, client < 3 ? 2 - client : 0);
    }
    CHECK_INT(rig.pool->oldest_waiting, 0);
    CHECK_INT(rig.pool->idle, 1);
    CHECK_INT(rig.pool->busy, 0);
    end();
}

TEST(nothing_waits_for_a_handler_that_is_not_known_to_be_short)
{
    begin(1);
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(ask(1), FL_PYTHON);
    rig.pool->service_ns = 1000000;
    CHECK_INT(ask(1), FL_PYTHON);
    rig.pool->service_ns = 1000;
    rig.pool->waiting = 10000;
    CHECK_INT(ask(1), FL_PYTHON);
    rig.pool->waiting = 0;
    CHECK(rig.clients[1]->call == NULL);
    end();
}

TEST(an_idle_worker_is_woken_when_patience_is_over)
{
    begin(3);
    rig.pool->service_ns = 1000;
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(ask(1), FL_DONE); /* two are eager */
    CHECK_INT(ask(2), FL_WAITING);
    CHECK_INT(rig.pool->idle, 1);
    CHECK_INT(fl_pool_wake(rig.door, rig.pool), FL_WAITING);
    rig.pool->first->admitted_ns -= 2000000;
    CHECK_INT(fl_pool_wake(rig.door, rig.pool), FL_DONE);
    CHECK_INT(rig.pool->idle, 0);
    CHECK(rig.workers[2]->call == rig.clients[2]->call);
    end();
}

TEST(a_worker_that_is_not_plain_is_pythons)
{
    begin(1);
    rig.workers[0]->plain = 0;
    CHECK_INT(ask(0), FL_PYTHON);
    CHECK_INT(rig.pool->idle, 1);
    end();
    let_three_wait();
    CHECK_INT(fl_worker_serve(rig.door, rig.workers[1], fl_steady_ns()), 1);
    CHECK(rig.workers[1]->call == rig.clients[1]->call);
    rig.workers[2]->plain = 0;
    CHECK_INT(fl_worker_serve(rig.door, rig.workers[2], fl_steady_ns()), 0);
    CHECK_INT(rig.pool->waiting, 2);
    end();
}

TEST(what_waits_in_python_and_is_older_gets_the_worker)
{
    let_three_wait();
    rig.pool->oldest_outside = rig.clients[1]->call->admitted_ns - 1;
    CHECK_INT(answer(0), FL_HANDOVER);
    CHECK(take_answer(0) > 0);
    CHECK(rig.workers[0]->call == NULL && !rig.workers[0]->listed);
    CHECK_INT(rig.pool->waiting, 3);
    rig.pool->oldest_outside = fl_steady_ns();
    CHECK_INT(fl_worker_serve(rig.door, rig.workers[0], fl_steady_ns()), 1);
    CHECK_INT(answer(0), FL_DONE); /* now the others are older */
    CHECK(rig.workers[0]->call == rig.clients[2]->call);
    /* And nothing starts past what waits in Python. */
    fl_pool_rest(rig.pool, rig.workers[1], 1);
    CHECK_INT(ask(4), FL_DONE);
    CHECK(!rig.workers[1]->call && rig.clients[4]->call->queued);
    end();
}

TEST(calls_are_adopted_wherever_they_are)
{
    for (int which = 0; which < 4; which++) {
        let_three_wait();
        struct fl_call *call = rig.clients[which]->call;
        fl_call_adopt(call);
        CHECK(rig.clients[which]->call == NULL && !call->queued);
        CHECK((call->payload != NULL) == (which > 0));
        fl_call_free(call);
        CHECK_INT(rig.pool->waiting, which > 0 ? 2 : 3);
        CHECK((rig.workers[0]->call == NULL) == (which == 0));
        CHECK_INT(rig.pool->busy, 1); /* Python counts that one down */
        if (which > 0)
            CHECK_INT(answer(0), FL_DONE);
        CHECK_INT(ask(4), FL_DONE);
        end();
    }
    let_three_wait();
    for (int which = 1; which < 4; which++) {
        struct fl_call *call = fl_pool_take(rig.pool);
        CHECK_INT(call->origin, 90 + which);
        CHECK(memcmp(call->frame, "{\"arn\":1}{}", call->meta_size + call->size) == 0);
        fl_call_free(call);
    }
    CHECK(fl_pool_take(rig.pool) == NULL);
    end();
}

TEST(bytes_behind_a_call_are_pythons)
{
    begin(1);
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(ask(0), FL_PYTHON);
    CHECK(rig.clients[0]->call != NULL && rig.workers[0]->call == rig.clients[0]->call);
    CHECK_INT(rig.clients[0]->held, 0);
    end();
}

TEST(whatever_is_no_plain_answer_is_pythons_with_its_bytes)
{
    for (int which = 0; which < 11; which++) {
        begin(1);
        CHECK_INT(ask(0), FL_DONE);
        CHECK(take_event(0) > 0);
        size_t size = 56 + 2;
        enum fl_verdict wanted = FL_PYTHON;
        switch (which) {
        case 0:
            saying.kind = RESULT + 1;
            break;
        case 1:
            saying.meta = 1;
            break;
        case 2:
            saying.length++;
            break;
        case 3:
            saying.length--;
            break;
        case 4:
            saying.length = UINT32_MAX;
            break;
        case 5:
            saying.nonce[15] ^= 1;
            break;
        case 6:
            size = 55; /* a part of it */
            break;
        case 7:
            size = 59; /* more than it */
            break;
        case 8:
            rig.workers[0]->output = 1;
            break;
        case 9:
            rig.workers[0]->broken = 1;
            break;
        default:
            memset(&saying, 0xFF, 65536);
            size = 65536; /* and more to come, perhaps */
        }
        CHECK_INT(say(0, size), wanted);
        CHECK_INT(rig.door->input_size, size);
        CHECK(memcmp(rig.door->input, &saying, size) == 0);
        CHECK(rig.workers[0]->call == rig.clients[0]->call && rig.workers[0]->call != NULL);
        CHECK_INT(rig.pool->answered, 0);
        CHECK_INT(take_answer(0), 0);
        end();
    }
}

TEST(the_end_of_a_channel_is_pythons)
{
    begin(1);
    CHECK_INT(fl_worker_readable(rig.door, rig.workers[0]), FL_PYTHON); /* it runs nothing */
    CHECK(rig.door->input == NULL);
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(fl_worker_readable(rig.door, rig.workers[0]), FL_DONE); /* nothing came */
    close(rig.worker_fds[0]);
    rig.worker_fds[0] = -1;
    CHECK_INT(fl_worker_readable(rig.door, rig.workers[0]), FL_PYTHON);
    CHECK(rig.door->input != NULL);
    CHECK_INT(rig.door->input_size, 0);
    CHECK(rig.workers[0]->call != NULL);
    end();
}

TEST(hostile_measures_are_bounded_by_the_clock)
{
    begin(1);
    CHECK_INT(ask(0), FL_DONE);
    CHECK(take_event(0) > 0);
    memset(saying.measures, 0xFF, sizeof saying.measures);
    CHECK_INT(say(0, 58), FL_DONE);
    CHECK(rig.pool->service_ns >= 0 && rig.pool->service_ns < 10000000000);
    CHECK_INT(rig.pool->duration_ns, (uint64_t)rig.pool->service_ns);
    CHECK(rig.pool->billed_ms > 0 && rig.pool->billed_ms < 10000);
    struct fl_record records[2];
    CHECK_INT(fl_take_records(rig.door, records, 2), 1);
    CHECK(records[0].peak_kib >= 0);
    end();
}

TEST(records_are_kept_until_they_are_taken_and_the_rest_is_counted)
{
    static struct fl_record records[FL_RECORDS];
    begin(1);
    rig.door->quiet_left = 5000;
    unsigned taken = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 900; i++) {
            CHECK_INT(ask(0), FL_DONE);
            if (i % 300 == 7)
                CHECK_INT(write(rig.log_fds[0], "words\n", 6), 6);
            CHECK_INT(answer(0), FL_DONE);
            CHECK(take_answer(0) > 0);
        }
        for (size_t count; (count = fl_take_records(rig.door, records, 100)) > 0;)
            for (size_t i = 0; i < count; i++, taken++) {
                CHECK_INT(records[i].worker, 80);
                CHECK_INT(records[i].output_size, taken % 900 % 300 == 7 ? 6 : 0);
                if (records[i].output_size > 0)
                    CHECK(memcmp(rig.door->outputs + records[i].output_at, "words\n", 6) == 0);
            }
    }
    CHECK_INT(taken, 2700);
    CHECK_INT(rig.workers[0]->left_out, 0);
    for (int i = 0; i < FL_RECORDS + 10; i++) {
        CHECK_INT(ask(0), FL_DONE);
        CHECK_INT(answer(0), FL_DONE);
        CHECK(take_answer(0) > 0);
    }
    CHECK_INT(rig.door->records, FL_RECORDS);
    CHECK_INT(rig.workers[0]->left_out, 10);
    CHECK_INT(fl_take_records(rig.door, records, FL_RECORDS), FL_RECORDS);
    rig.door->quiet_left = 1;
    for (int i = 0; i < 3; i++) {
        CHECK_INT(ask(0), FL_DONE);
        CHECK_INT(answer(0), FL_DONE);
        CHECK(take_answer(0) > 0);
    }
    CHECK_INT(rig.door->records, 1);
    CHECK_INT(rig.workers[0]->left_out, 12);
    CHECK_INT(rig.pool->answered, 2700 + FL_RECORDS + 10 + 3);
    CHECK_INT(rig.pool->buckets[0] + rig.pool->buckets[1] + rig.pool->buckets[2],
              rig.pool->answered);
    end();
}

TEST(much_output_is_pythons_and_stays_where_it_is)
{
    begin(1);
    memset(seen, 'z', sizeof seen);
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(write(rig.log_fds[0], seen, FL_OUTPUT_BYTES + 1), FL_OUTPUT_BYTES + 1);
    CHECK_INT(answer(0), FL_PYTHON);
    CHECK_INT(read(rig.workers[0]->log_fd, seen, sizeof seen), FL_OUTPUT_BYTES + 1);
    end();
    /* All of them together have a bound, too. */
    begin(1);
    unsigned fast = 0;
    for (; fast < 1000; fast++) {
        CHECK_INT(ask(0), FL_DONE);
        memset(seen, 'z', sizeof seen);
        CHECK_INT(write(rig.log_fds[0], seen, FL_OUTPUT_BYTES), FL_OUTPUT_BYTES);
        if (answer(0) != FL_DONE)
            break;
        CHECK(take_answer(0) > 0);
    }
    CHECK_INT(fast, FL_OUTPUTS / FL_OUTPUT_BYTES);
    CHECK_INT(rig.door->quiet_left, 100);
    end();
}

TEST(the_callers_limit_is_the_nearer_one)
{
    static const struct fl_text event = {"{}", 2};
    begin(1);
    struct fl_route route = {.pool = rig.pool, .meta = seen, .meta_size = 0};
    struct fl_call *call = NULL;
    int64_t now = fl_steady_ns();
    const unsigned char *payload = (const unsigned char *)event.at;
    CHECK_INT(fl_submit(rig.door, &route, rig.clients[0]->from, 0, payload, 2, now - 1, &call),
              FL_PYTHON);
    CHECK(call == NULL && rig.pool->idle == 1);
    CHECK_INT(
        fl_submit(rig.door, &route, rig.clients[0]->from, 0, payload, 2, now + 500000000, &call),
        FL_DONE);
    rig.clients[0]->call = call;
    CHECK_INT(rig.workers[0]->deadline_ns, now + 500000000);
    CHECK_INT(rig.door->nearest_limit, now + 500000000);
    end();
}

RUN_TESTS()
