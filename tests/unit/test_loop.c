/* The frontend's loop: nobody holds it up, and what waits is answered when it ends. */
#include <check.h>
#include <signal.h>
#include <string.h>
#include <zmq.h>

#include "unit/support_ask.h"

static struct rig rig;
static struct asker one;
static struct question question;
static struct answer answer;

static void begin(const char *options)
{
    rig_open(&rig, options);
    rig_start_frontend(&rig);
    rig_start_runtime(&rig, false);
    ask_open(&one, &rig, ZMQ_DEALER);
    ask_until_up(&one);
}

static void teardown(void)
{
    ask_close(&one);
    ck_assert_int_eq(rig_end(&rig.frontend, SIGTERM), 0);
    rig_close(&rig);
}

START_TEST(what_waits_is_answered_when_the_server_stops)
{
    begin(NULL);
    rig.knobs->hold = 1;
    ask_prepare(&one, &question, EXPERTD__METHOD__FORWARD, "nop.0", 1, 1);
    ask_send(&one, &question);
    RIG_WAIT(ask_counter(&one, "device.cpu0.in_flight") == 1);
    kill(rig.frontend, SIGTERM);
    ask_receive(&one, &answer);
    ck_assert_int_eq((int)answer.header->status, STATUS_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "stopping"));
    ck_assert_int_eq(rig_end(&rig.frontend, 0), 0);
    rig_start_frontend(&rig);
}
END_TEST

START_TEST(a_client_that_sends_and_never_reads_holds_up_nobody)
{
    begin("  max_requests: 64\n");
    struct asker greedy;
    ask_open(&greedy, &rig, ZMQ_DEALER);
    /* LIST costs the client little; its replies fill the connection's buffers, and then the high-water mark. */
    double dropped = 0;
    for (int i = 0; dropped < 1; i++) {
        ck_assert_int_lt(i, 2000);
        for (int k = 0; k < 500; k++) {
            ask_prepare(&greedy, &question, EXPERTD__METHOD__LIST, "", 0, 0);
            unsigned char header[256];
            const long n = message_encode_request(&question.header, header, sizeof header);
            zmq_send(greedy.socket, header, (size_t)n, ZMQ_DONTWAIT);
        }
        ask_alive(&one);
        dropped = ask_counter(&one, "frontend.replies_dropped");
    }
    ask_alive(&one);
    ck_assert(ask_counter(&one, "frontend.unsent_bytes") == 0); /* it was their number, not their bytes */
    ck_assert(ask_counter(&one, "frontend.in_flight") == 0);
    ask_close(&greedy);
    ask_alive(&one);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("loop");
    tcase_add_checked_fixture(all, NULL, teardown);
    tcase_add_test(all, what_waits_is_answered_when_the_server_stops);
    tcase_add_test(all, a_client_that_sends_and_never_reads_holds_up_nobody);
    Suite *suite = suite_create("loop");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
