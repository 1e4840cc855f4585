/* A door's fast path: requests of clients, whole or not, plain or not. */
#include "fast_rig.h"

TEST(what_is_held_has_a_bound)
{
    begin(1);
    rig.door->held = FL_HELD_BYTES;
    CHECK_INT(receive(0, request, 20), FL_PYTHON);
    rig.door->held = 0;
    CHECK_INT(receive(0, request, 20), FL_HELD);
    CHECK_INT(rig.door->held, 20);
    CHECK_INT(receive(0, request + 20, sizeof request - 1 - 20), FL_DONE);
    CHECK_INT(rig.door->held, 0);
    CHECK_INT(answer(0), FL_DONE);
    end();
}

TEST(events_that_wait_are_counted)
{
    let_three_wait();
    CHECK_INT(rig.door->held, 3 * (9 + 2));
    rig.door->held = FL_HELD_BYTES;
    CHECK_INT(ask(4), FL_VERIFIED);
    rig.door->held = 3 * (9 + 2);
    for (int i = 0; i < 4; i++)
        CHECK_INT(answer(0), FL_DONE);
    CHECK_INT(rig.door->held, 0);
    end();
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

TEST(a_plain_invocation_of_a_stranger_is_pythons_in_parts)
{
    begin(1);
    static const char stranger[] =
        "POST /2015-03-31/functions/new-1_X/invocations HTTP/1.1\r\nhost:\r\n"
        "content-length:3\r\n\r\n[1]";
    static const char target[] = "/2015-03-31/functions/new-1_X/invocations";
    CHECK_INT(receive(0, stranger, 10), FL_HELD);
    CHECK_INT(receive(0, stranger + 10, sizeof stranger - 11), FL_VERIFIED);
    struct fl_http *http = rig.clients[0];
    CHECK_INT(http->held, 10);
    CHECK_INT(http->target_size, sizeof target - 1);
    CHECK(memcmp(stranger + http->target_at, target, sizeof target - 1) == 0);
    CHECK_INT(http->body_size, 3);
    CHECK(memcmp(stranger + http->body_at, "[1]", 3) == 0);
    CHECK(http->region[0] != '\0');
    char held[10];
    fl_http_release(http, held);
    /* A name that is not its own canonical form. */
    static const char odd[] = "POST /2015-03-31/functions/n.w/invocations HTTP/1.1\r\nhost:\r\n"
                              "content-length:0\r\n\r\n";
    CHECK_INT(receive(0, odd, sizeof odd - 1), FL_PYTHON);
    static const char none[] = "POST /2015-03-31/functions//invocations HTTP/1.1\r\nhost:\r\n"
                               "content-length:0\r\n\r\n";
    CHECK_INT(receive(0, none, sizeof none - 1), FL_PYTHON);
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

TEST(bytes_behind_a_call_are_pythons)
{
    begin(1);
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(ask(0), FL_PYTHON);
    CHECK(rig.clients[0]->call != NULL && rig.workers[0]->call == rig.clients[0]->call);
    CHECK_INT(rig.clients[0]->held, 0);
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
