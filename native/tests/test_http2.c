/* gRPC of a door on HTTP/2. */
#include "http2_rig.h"

TEST(a_call_is_answered_however_its_bytes_are_cut)
{
    for (size_t cut = 1; cut <= 20000; cut = cut * 7 + 1) {
        begin();
        piece = cut;
        int32_t id = call(300);
        CHECK_INT(news, FL_H2_BEGAN | FL_H2_MESSAGE | FL_H2_ENDED);
        CHECK_INT(received_size, 300);
        CHECK(memcmp(received, framed(300) + 5, 300) == 0);
        CHECK_INT(fl_h2_answer(h2, id, "hello", 5), 0);
        pump();
        CHECK_TEXT(seen.status, "200");
        CHECK_TEXT(seen.grpc_status, "0");
        CHECK_INT(seen.size, 10);
        CHECK(memcmp(seen.data, "\0\0\0\0\5hello", 10) == 0);
        CHECK_INT(seen.closed, 1);
        end();
    }
}

TEST(an_empty_message_is_a_message)
{
    begin();
    int32_t id = call(0);
    CHECK_INT(news, FL_H2_BEGAN | FL_H2_MESSAGE | FL_H2_ENDED);
    CHECK_INT(received_size, 0);
    fl_h2_answer(h2, id, NULL, 0);
    pump();
    CHECK_INT(seen.size, 5);
    end();
}

TEST(what_is_not_grpc_is_refused_in_http)
{
    begin();
    call_with("POST", "application/json", "x", "y", framed(1), 6);
    CHECK_TEXT(seen.status, "415");
    call_with("POST", "application/grpcx", "x", "y", framed(1), 6);
    CHECK_TEXT(seen.status, "415");
    call_with("PUT", "application/grpc", "x", "y", framed(1), 6);
    CHECK_TEXT(seen.status, "405");
    CHECK_INT(news, 0);
    call_with("POST", "application/grpc+proto", "x", "y", framed(1), 6);
    CHECK_INT(news, FL_H2_BEGAN | FL_H2_MESSAGE | FL_H2_ENDED);
    end();
}

TEST(a_head_that_makes_no_sense_is_refused)
{
    static char large[4000];
    memset(large, 'x', sizeof large - 1);
    begin();
    call_with("POST", "application/grpc", "grpc-timeout", "S", framed(1), 6);
    CHECK_TEXT(seen.grpc_status, "13");
    call_with("POST", "application/grpc", "grpc-encoding", "br", framed(1), 6);
    CHECK_TEXT(seen.grpc_status, "12");
    call_with("POST", "application/grpc", "x", large, framed(1), 6);
    CHECK_TEXT(seen.grpc_status, "8");
    CHECK_TEXT(seen.status, "200");
    CHECK_INT(news, 0);
    end();
}

TEST(a_large_message_comes_when_its_call_is_accepted)
{
    begin();
    accepting = 0;
    int32_t id = call(LARGEST);
    CHECK_INT(news, FL_H2_BEGAN);
    CHECK(server->bytes < 2 * WINDOW);
    CHECK_INT(fl_h2_accept(h2, id), 0);
    pump();
    CHECK_INT(news, FL_H2_BEGAN | FL_H2_MESSAGE | FL_H2_ENDED);
    CHECK_INT(received_size, LARGEST);
    CHECK(memcmp(received, framed(LARGEST) + 5, LARGEST) == 0);
    fl_h2_finish(h2, id, 0, NULL, 0);
    pump();
    end();
}

TEST(a_message_over_the_limit_is_refused)
{
    begin();
    sending.open = 1;
    call_with("POST", "application/grpc", "x", "y", framed(LARGEST + 1), 5);
    sending.open = 0;
    CHECK_TEXT(seen.grpc_status, "8");
    CHECK_INT(news, 0); /* it came with its head: nobody has heard of the call */
    end();
}

TEST(messages_come_one_by_one_as_they_are_wanted)
{
    unsigned char three[18];
    for (int i = 0; i < 3; i++)
        memcpy(three + 6 * i, (const unsigned char[]){0, 0, 0, 0, 1, (unsigned char)('a' + i)}, 6);
    begin();
    int32_t id = call_with("POST", "application/grpc", "x", "y", three, sizeof three);
    CHECK_INT(news, FL_H2_BEGAN | FL_H2_MESSAGE);
    CHECK_TEXT(received, "a");
    fl_h2_want(h2, id);
    hear();
    CHECK_TEXT(received, "b");
    CHECK_INT(news & FL_H2_ENDED, 0);
    fl_h2_want(h2, id);
    hear();
    CHECK_TEXT(received, "c");
    CHECK_INT(news & FL_H2_ENDED, FL_H2_ENDED);
    end();
}

TEST(a_stream_is_written_as_the_client_takes_it)
{
    static char large[100000];
    begin();
    int32_t id = call(1);
    CHECK_INT(fl_h2_write(h2, id, large, sizeof large, 1000), sizeof large + 5);
    news = 0;
    pump();
    CHECK_INT(news, FL_H2_WRITABLE);
    CHECK_INT(fl_h2_write(h2, id, "x", 1, 1000), 6);
    CHECK_INT(fl_h2_finish(h2, id, 5, "grpc-message\0gone%20\0extra\0yes", 31), 0);
    CHECK_INT(fl_h2_write(h2, id, "x", 1, 1000), -1);
    pump();
    CHECK_TEXT(seen.grpc_status, "5");
    CHECK_TEXT(seen.message, "gone%20");
    CHECK_TEXT(seen.extra, "yes");
    CHECK_INT(seen.size, sizeof large + 5 + 6);
    end();
}

TEST(a_reset_is_told_once_and_late_answers_are_refused)
{
    begin();
    int32_t id = call(1);
    nghttp2_submit_rst_stream(client, 0, id, NGHTTP2_CANCEL);
    news = 0;
    pump();
    CHECK_INT(news, FL_H2_GONE);
    CHECK_INT(last_stream, id);
    CHECK_INT(fl_h2_answer(h2, id, "x", 1), -1);
    CHECK_INT(fl_h2_write(h2, id, "x", 1, 1), -1);
    CHECK_INT(fl_h2_finish(h2, id, 0, NULL, 0), -1);
    CHECK_INT(fl_h2_want(h2, id), -1);
    CHECK_INT(fl_h2_accept(h2, id), -1);
    CHECK_INT(fl_h2_answer(h2, 77, "x", 1), -1);
    end();
}

TEST(a_connection_may_end_in_the_middle_of_everything)
{
    static char large[1000000];
    begin();
    int32_t first = call(1), second = call(1);
    fl_h2_write(h2, first, large, sizeof large, 1000);
    fl_h2_answer(h2, second, large, sizeof large);
    fl_h2_flush(h2);
    sending.open = 1;
    call_with("POST", "application/grpc", "x", "y", framed(LARGEST), 50000);
    sending.open = 0;
    CHECK(server->bytes > 1000000);
    end();
}

TEST(timeouts_are_read)
{
    static const struct {
        const char *text;
        int64_t ns;
    } cases[] = {{"1H", 3600000000000},
                 {"2M", 120000000000},
                 {"10S", 10000000000},
                 {"5m", 5000000},
                 {"7u", 7000},
                 {"99999999n", 99999999},
                 {"0S", 0},
                 {"S", -1},
                 {"", -1},
                 {"1", -1},
                 {"1x", -1},
                 {"-1S", -1},
                 {"123456789S", -1},
                 {"1.5S", -1},
                 {" 1S", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_INT(fl_grpc_timeout(cases[i].text, strlen(cases[i].text)), cases[i].ns);
    CHECK(fl_grpc_timeout("99999999H", 9) > 1000000000000000000);
}

RUN_TESTS()
