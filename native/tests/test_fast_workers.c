/* A door's fast path: workers that answer, lie, die or are busy; calls that wait. */
#include "fast_rig.h"

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
    CHECK_INT(ask(0), FL_VERIFIED);
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
    CHECK_INT(ask(0), FL_VERIFIED);
    CHECK(rig.workers[0]->broken);
    while (read(rig.worker_fds[0], seen, sizeof seen) > 0)
        ;
    CHECK_INT(read(rig.worker_fds[0], seen, 1), 0); /* it is told by the end of the channel */
    end();
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

TEST(nothing_waits_for_a_handler_that_nobody_knows)
{
    begin(1);
    rig.pool->service_ns = -1;
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(ask(1), FL_VERIFIED);
    rig.pool->service_ns = 1000;
    rig.pool->waiting = 10000;
    CHECK_INT(ask(1), FL_VERIFIED);
    rig.pool->waiting = 0;
    CHECK(rig.clients[1]->call == NULL);
    end();
}

TEST(python_hears_of_every_call_that_waits_for_a_long_handler)
{
    begin(1);
    rig.pool->service_ns = 5000000;
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(ask(1), FL_WAITING);
    rig.pool->armed = 1;
    CHECK_INT(ask(2), FL_WAITING);
    rig.pool->service_ns--;
    CHECK_INT(ask(3), FL_DONE);
    CHECK_INT(rig.pool->waiting, 3);
    end();
}

/* A door that starts a call every 50 us can keep so many workers busy. */
TEST(how_many_are_a_crowd_follows_from_what_the_handler_takes)
{
    begin(1);
    rig.pool->service_ns = -1;
    rig.pool->busy = 1000;
    CHECK_INT(fl_pool_is_crowded(rig.door, rig.pool), 0);
    rig.pool->service_ns = 1000000;
    rig.pool->busy = 21;
    CHECK_INT(fl_pool_is_crowded(rig.door, rig.pool), 0);
    rig.pool->busy = 22;
    CHECK_INT(fl_pool_is_crowded(rig.door, rig.pool), 1);
    rig.pool->service_ns = 60000000000;
    rig.pool->busy = 1000000;
    CHECK_INT(fl_pool_is_crowded(rig.door, rig.pool), 0);
    rig.pool->busy = 0;
    end();
}

TEST(a_congested_host_is_not_a_slow_function)
{
    begin(1);
    rig.pool->service_ns = 1000;
    rig.door->congested = 1;
    CHECK_INT(ask(0), FL_DONE);
    take_event(0);
    saying.measures[0] = 1;
    CHECK_INT(say(0, 32 + 24 + 2), FL_DONE);
    CHECK(rig.pool->service_ns < 1000); /* what is shorter is true all the same */
    int64_t known = rig.pool->service_ns;
    CHECK_INT(ask(1), FL_DONE);
    take_event(0);
    saying.measures[0] = UINT64_MAX;
    CHECK_INT(say(0, 32 + 24 + 2), FL_DONE);
    CHECK_INT(rig.pool->service_ns, known);
    rig.door->congested = 0;
    CHECK_INT(ask(2), FL_DONE);
    take_event(0);
    saying.measures[0] = UINT64_MAX;
    CHECK_INT(say(0, 32 + 24 + 2), FL_DONE);
    CHECK(rig.pool->service_ns > known);
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
    CHECK_INT(ask(0), FL_VERIFIED);
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

TEST(a_worker_for_one_call_is_marked_while_others_are_at_hand)
{
    begin(3);
    rig.pool->one_shot = 1;
    rig.pool->reserve = 1;
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(answer(0), FL_DONE);
    CHECK(take_answer(0) > 0);
    CHECK(rig.workers[0]->spent && !rig.workers[0]->plain && !rig.workers[0]->listed);
    CHECK_INT(rig.pool->spent, 1);
    CHECK_INT(ask(0), FL_DONE);
    CHECK(rig.workers[1]->call != NULL); /* never the first again */
    CHECK_INT(answer(1), FL_HANDOVER);   /* one is left: Python sees to more */
    CHECK(take_answer(0) > 0);
    CHECK(rig.workers[1]->spent);
    CHECK_INT(rig.pool->spent, 2);
    CHECK_INT(rig.pool->idle, 1);
    end();
}

TEST(what_waits_is_not_kept_waiting_by_a_worker_for_one_call)
{
    begin(3);
    rig.pool->one_shot = 1;
    CHECK_INT(ask(0), FL_DONE);
    rig.pool->oldest_outside = fl_steady_ns();
    CHECK_INT(answer(0), FL_HANDOVER);
    CHECK(take_answer(0) > 0);
    CHECK(rig.workers[0]->spent);
    rig.pool->oldest_outside = 0;
    end();
}

TEST(the_next_worker_rehearses)
{
    begin(2);
    fl_pool_rehearse(rig.pool);
    CHECK_INT(read(rig.worker_fds[0], seen, sizeof seen), 32);
    CHECK_INT(seen[4], 3);
    CHECK_INT(read(rig.worker_fds[1], seen, sizeof seen), -1);
    CHECK_INT(rig.pool->idle, 2);
    CHECK_INT(ask(0), FL_DONE);
    CHECK_INT(answer(0), FL_DONE);
    CHECK(take_answer(0) > 0);
    rig.workers[0]->plain = 0; /* Python has business with it */
    fl_pool_rehearse(rig.pool);
    CHECK_INT(read(rig.worker_fds[0], seen, sizeof seen), -1);
    fl_pool_remove(rig.pool, rig.workers[0]);
    fl_pool_remove(rig.pool, rig.workers[1]);
    fl_pool_rehearse(rig.pool); /* nobody there */
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
        struct fl_call *call = rig.pool->first;
        fl_call_adopt(call);
        CHECK_INT(call->origin, 90 + which);
        CHECK(memcmp(call->frame, "{\"arn\":1}{}", call->meta_size + call->size) == 0);
        fl_call_free(call);
    }
    CHECK(rig.pool->first == NULL);
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

RUN_TESTS()
