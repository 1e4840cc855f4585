/* Requests of HTTP/2 that are not gRPC's, and gRPC calls beside them. */
#include "http2_rig.h"

static void begin_web(void)
{
    limits.web = 1;
    begin();
}

static void end_web(void)
{
    end();
    limits.web = 0;
}

/* A POST with this field more and so many bytes behind it. */
static int32_t post(const char *name, const char *value, size_t size)
{
    return call_with("POST", "application/json", name, value, framed(size) + 5, size);
}

TEST(a_request_is_answered_however_its_bytes_are_cut)
{
    for (size_t cut = 1; cut <= 20000; cut = cut * 7 + 1) {
        begin_web();
        piece = cut;
        int32_t id = post("x", "y", 3000);
        CHECK_INT(news, FL_H2_BEGAN | FL_H2_MESSAGE | FL_H2_ENDED);
        CHECK_INT(web, 1);
        CHECK_INT(refusal, 0);
        CHECK_INT(received_size, 3000);
        CHECK(memcmp(received, framed(3000) + 5, 3000) == 0);
        CHECK_INT(fl_h2_respond(h2, id, 201, "extra\0yes", 10, "hello", 5), 0);
        CHECK_INT(fl_h2_unread(h2), 5);
        pump();
        CHECK_INT(fl_h2_unread(h2), 0);
        CHECK_TEXT(seen.status, "201");
        CHECK_TEXT(seen.extra, "yes");
        CHECK_TEXT(seen.grpc_status, "");
        CHECK_INT(seen.size, 5);
        CHECK(memcmp(seen.data, "hello", 5) == 0);
        CHECK_INT(seen.closed, 1);
        end_web();
    }
}

TEST(a_request_and_an_answer_may_be_empty)
{
    begin_web();
    int32_t id = post("x", "y", 0);
    CHECK_INT(news, FL_H2_BEGAN | FL_H2_ENDED);
    CHECK_INT(fl_h2_respond(h2, id, 204, NULL, 0, NULL, 0), 0);
    pump();
    CHECK_TEXT(seen.status, "204");
    CHECK_INT(seen.size, 0);
    CHECK_INT(seen.closed, 1);
    end_web();
}

TEST(a_large_body_comes_in_pieces_and_is_not_kept)
{
    begin_web();
    int32_t id = post("x", "y", LARGEST);
    CHECK_INT(news, FL_H2_BEGAN | FL_H2_MESSAGE | FL_H2_ENDED);
    CHECK_INT(received_size, LARGEST);
    CHECK(memcmp(received, framed(LARGEST) + 5, LARGEST) == 0);
    CHECK_INT(server->bytes, 0);
    CHECK_INT(fl_h2_respond(h2, id, 200, NULL, 0, received, LARGEST), 0);
    nghttp2_session_set_local_window_size(client, 0, id, LARGEST);
    nghttp2_session_set_local_window_size(client, 0, 0, LARGEST);
    pump();
    CHECK_INT(seen.size, LARGEST);
    CHECK_INT(seen.closed, 1);
    end_web();
}

TEST(an_answer_may_come_in_pieces)
{
    static char large[WINDOW];
    begin_web();
    int32_t id = post("x", "y", 5);
    CHECK_INT(fl_h2_begin(h2, id, 200, "extra\0yes", 10), 0);
    CHECK_INT(fl_h2_begin(h2, id, 200, "extra\0yes", 10), -1);
    pump();
    CHECK_TEXT(seen.status, "200");
    CHECK_TEXT(seen.extra, "yes");
    CHECK_INT(seen.closed, 0);
    for (size_t sent = 1; sent <= 3; sent++) { /* each is there before the next is written */
        CHECK_INT(fl_h2_write(h2, id, "ab", 2, 10), 2);
        pump();
        CHECK_INT(seen.size, 2 * sent);
        CHECK_INT(fl_h2_unread(h2), 0);
    }
    int64_t waiting = fl_h2_write(h2, id, large, sizeof large, 10);
    CHECK(waiting > 10);
    CHECK_INT(fl_h2_unread(h2), waiting);
    pump();
    CHECK_INT(news & FL_H2_WRITABLE, FL_H2_WRITABLE);
    CHECK_INT(fl_h2_finish(h2, id, 0, NULL, 0), 0);
    CHECK_INT(fl_h2_write(h2, id, "ab", 2, 10), -1);
    pump();
    CHECK_INT(seen.size, 6 + sizeof large);
    CHECK_TEXT(seen.grpc_status, "");
    CHECK_INT(seen.closed, 1);
    id = post("x", "y", 5);
    CHECK_INT(fl_h2_begin(h2, id, 200, NULL, 0), 0);
    CHECK_INT(fl_h2_finish(h2, id, 0, NULL, 0), 0);
    pump();
    CHECK_INT(seen.closed, 1);
    CHECK_INT(server->bytes, 0);
    end_web();
}

TEST(an_answer_that_is_cut_resets_its_stream)
{
    begin_web();
    int32_t id = post("x", "y", 5);
    CHECK_INT(fl_h2_begin(h2, id, 200, NULL, 0), 0);
    CHECK_INT(fl_h2_write(h2, id, "ab", 2, 10), 2);
    pump();
    CHECK_INT(fl_h2_cut(h2, id), 0);
    CHECK_INT(fl_h2_write(h2, id, "ab", 2, 10), -1);
    pump();
    CHECK_INT(seen.size, 2);
    CHECK_INT(seen.closed, NGHTTP2_INTERNAL_ERROR + 1);
    CHECK_INT(fl_h2_cut(h2, id), -1);
    CHECK_INT(server->bytes, 0);
    end_web();
}

TEST(what_nobody_takes_is_not_sent)
{
    begin_web();
    taking = 0;
    post("x", "y", LARGEST);
    CHECK(server->bytes >= WINDOW && server->bytes < 3 * WINDOW);
    CHECK(sending.size >= LARGEST - WINDOW);
    taking = 1;
    pump();
    CHECK_INT(received_size, LARGEST);
    end_web();
}

TEST(a_body_may_be_asked_for)
{
    begin_web();
    sending.open = 1;
    int32_t id = post("expect", "100-continue", 0);
    CHECK_INT(news, FL_H2_BEGAN);
    CHECK_INT(fl_h2_continue(h2, id), 0);
    pump();
    CHECK_TEXT(seen.status, "100");
    sending.at = (const unsigned char *)"body";
    sending.size = 4;
    sending.open = 0;
    nghttp2_session_resume_data(client, id);
    pump();
    CHECK_TEXT(received, "body");
    CHECK_INT(news & FL_H2_ENDED, FL_H2_ENDED);
    CHECK_INT(fl_h2_respond(h2, id, 200, NULL, 0, "x", 1), 0);
    pump();
    CHECK_TEXT(seen.status, "200");
    CHECK_INT(fl_h2_continue(h2, id), -1);
    end_web();
}

TEST(an_answer_before_the_end_of_a_body_ends_it)
{
    begin_web();
    sending.open = 1;
    int32_t id = post("x", "y", 1000);
    CHECK_INT(fl_h2_respond(h2, id, 413, NULL, 0, "no", 2), 0);
    pump();
    sending.open = 0;
    CHECK_TEXT(seen.status, "413");
    CHECK_INT(seen.size, 2);
    CHECK_INT(seen.closed, 1); /* NO_ERROR */
    CHECK_INT(server->bytes, 0);
    end_web();
}

TEST(a_head_too_large_and_a_full_server_are_told)
{
    static char large[5000];
    memset(large, 'x', sizeof large - 1);
    begin_web();
    int32_t id = post("x", large, 5);
    CHECK_INT(refusal, FL_H2_TOO_LARGE);
    CHECK_INT(fl_h2_respond(h2, id, 431, NULL, 0, NULL, 0), 0);
    pump();
    CHECK_TEXT(seen.status, "431");
    server->limits.waiting = 0;
    nghttp2_submit_settings(client, 0,
                            &(nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0}, 1);
    id = post("x", "y", 5);
    CHECK_INT(refusal, 0);
    CHECK_INT(fl_h2_respond(h2, id, 200, NULL, 0, "x", 1), 0);
    id = post("x", "y", 5);
    CHECK_INT(refusal, FL_H2_BUSY);
    end_web();
}

TEST(a_field_that_is_none_ends_its_stream)
{
    static const char *const fields[][2] = {
        {"x", "a\r\nb: c"},      {"x", "a\nb"},
        {"bad name", "y"},       {"x", "\x7f"},
        {"connection", "close"}, {"transfer-encoding", "chunked"},
        {":path", "/2"},         {"content-length", "7"},
        {"content-length", "3"}, {"content-length", "5, 5"}};
    begin_web();
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        news = 0;
        int32_t id = post(fields[i][0], fields[i][1], 5);
        CHECK_INT(seen.closed, NGHTTP2_PROTOCOL_ERROR + 1);
        CHECK_INT(news & FL_H2_ENDED, 0);
        CHECK_INT(fl_h2_respond(h2, id, 200, NULL, 0, NULL, 0), -1);
    }
    news = 0;
    post("content-length", "5", 5);
    CHECK_INT(news, FL_H2_BEGAN | FL_H2_MESSAGE | FL_H2_ENDED);
    end_web();
}

TEST(grpc_is_served_beside)
{
    begin_web();
    int32_t id = call(300);
    CHECK_INT(web, 0);
    CHECK_INT(received_size, 300);
    CHECK_INT(fl_h2_respond(h2, id, 200, NULL, 0, NULL, 0), -1);
    CHECK_INT(fl_h2_continue(h2, id), -1);
    CHECK_INT(fl_h2_answer(h2, id, "hello", 5), 0);
    CHECK_INT(fl_h2_unread(h2), 0);
    pump();
    CHECK_TEXT(seen.grpc_status, "0");
    CHECK_INT(seen.size, 10);
    call_with("GET", "application/grpc", "x", "y", framed(1), 6);
    CHECK_INT(web, 1);
    end_web();
}

TEST(a_reset_is_told_once_and_a_late_answer_is_refused)
{
    begin_web();
    int32_t id = post("x", "y", 5);
    nghttp2_submit_rst_stream(client, 0, id, NGHTTP2_CANCEL);
    news = 0;
    pump();
    CHECK_INT(news, FL_H2_GONE);
    CHECK_INT(fl_h2_respond(h2, id, 200, NULL, 0, NULL, 0), -1);
    end_web();
}

TEST(an_idle_connection_is_said_goodbye_to)
{
    uint64_t handle;
    uint32_t need;
    begin_web();
    int32_t id = post("x", "y", 5);
    server->limits.idle = 1;
    fl_h2_tick(server, &handle, &need, 1); /* it is not idle */
    pump();
    CHECK_INT(nghttp2_session_check_request_allowed(client), 1);
    CHECK_INT(fl_h2_respond(h2, id, 200, NULL, 0, NULL, 0), 0);
    pump();
    CHECK_INT(fl_h2_tick(server, &handle, &need, 1), 1);
    CHECK_INT(need, FL_H2_FLUSH);
    pump();
    CHECK_INT(nghttp2_session_check_request_allowed(client), 0);
    CHECK(fl_h2_flush(h2) & FL_H2_CLOSE);
    end_web();
}

TEST(a_connection_may_end_in_the_middle_of_bodies_and_answers)
{
    static char large[1000000];
    begin_web();
    int32_t id = post("x", "y", 5);
    taking = 0;
    sending.open = 1;
    post("x", "y", 50000);
    sending.open = 0;
    CHECK_INT(fl_h2_respond(h2, id, 200, NULL, 0, large, sizeof large), 0);
    fl_h2_flush(h2);
    CHECK(server->bytes > 900000);
    end_web();
}

RUN_TESTS()
