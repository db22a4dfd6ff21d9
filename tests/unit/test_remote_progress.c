// timeout: 600
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/expertd_moe.h"
#include "tests/unit/support_experts.h"

enum { LONG_MS = 500000, LOOKUP_MS = 600000 };

static struct fake_dht known;
static struct experts server;
static struct expertd_dht *dht;
static struct expertd_expert *named, *placed; /* to be looked up; at its server */
static struct expertd_task *lost, *other;
static float x[EXPERTS_IN] = {0.5F, -0.25F, 1};

static void setup(void)
{
    const struct expertd_dht_options options = {.size = sizeof options, .lookup_timeout_ms = LOOKUP_MS};
    memset(&known, 0, sizeof known);
    memset(&server, 0, sizeof server);
    known.silent = true;
    fake_dht_start(&known);
    experts_start(&server, NULL);
    ck_assert_int_eq(expertd_dht_new(&dht, router_endpoint(known.router), &options), 0);
    ck_assert_int_eq(expertd_expert_new(&named, dht, "ffn.1.2"), 0);
    ck_assert_int_eq(expertd_expert_at(&placed, dht, router_endpoint(server.router), "ffn.3.4"), 0);
    lost = other = NULL;
}

static void teardown(void)
{
    expertd_task_release(&lost);
    expertd_task_release(&other);
    expertd_expert_destroy(&named);
    expertd_expert_destroy(&placed);
    expertd_dht_destroy(&dht);
    fake_dht_stop(&known);
    experts_stop(&server);
}

static void forward(struct expertd_expert *expert, uint32_t deadline_ms, struct expertd_task **task)
{
    const struct expertd_tensor input = expertd_tensor_f32(x, 1, EXPERTS_IN);
    ck_assert_int_eq(expertd_expert_forward(expert, &input, 1, deadline_ms, task), 0);
}

START_TEST(a_poll_without_patience_waits_for_no_look_up)
{
    forward(named, LONG_MS, &lost);
    ck_assert_int_eq(expertd_dht_poll(dht, 0), 0);
    ck_assert_int_eq(expertd_task_wait(lost, 0), -ETIMEDOUT);
    ck_assert(!expertd_task_done(lost));
}
END_TEST

START_TEST(others_are_answered_while_a_look_up_is_not)
{
    forward(named, LONG_MS, &lost);
    forward(placed, LONG_MS, &other);
    ck_assert_int_eq(expertd_task_wait(other, -1), 0);
    ck_assert_int_eq(expertd_task_status(other), EXPERTD_OK);
    ck_assert(!expertd_task_done(lost));
}
END_TEST

START_TEST(others_expire_while_a_look_up_is_not_answered)
{
    server.silent = true;
    forward(named, LONG_MS, &lost);
    forward(placed, 50, &other);
    ck_assert_int_eq(expertd_dht_poll(dht, -1), 1);
    ck_assert_int_eq(expertd_task_status(other), EXPERTD_DEADLINE_EXCEEDED);
    ck_assert(!expertd_task_done(lost));
}
END_TEST

START_TEST(a_task_expires_before_its_look_up)
{
    forward(named, 50, &lost);
    ck_assert_int_eq(expertd_task_wait(lost, -1), 0);
    ck_assert_int_eq(expertd_task_status(lost), EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_str_eq(expertd_task_message(lost), "no server was found in time");
}
END_TEST

START_TEST(a_late_answer_serves_whoever_still_waits)
{
    struct expertd_task *patient;
    forward(named, 20, &lost);
    forward(named, LONG_MS, &patient);
    ck_assert_int_eq(expertd_task_wait(lost, -1), 0);
    expertd_task_release(&lost);
    while (known.resolves == 0)
        ck_assert_int_ge(expertd_dht_poll(dht, 5), 0);
    known.silent = false;
    fake_dht_add(&known, "ffn.1.2", router_endpoint(server.router));
    /* The question that was swallowed is lost; the next one is asked beside it. */
    forward(named, LONG_MS, &lost);
    ck_assert_int_eq(expertd_task_wait(lost, -1), 0);
    ck_assert_int_eq(expertd_task_status(lost), EXPERTD_OK);
    ck_assert(!expertd_task_done(patient));
    ck_assert_int_eq(known.resolves, 2);
    expertd_task_release(&patient);
}
END_TEST

START_TEST(others_are_answered_during_a_beam_search)
{
    struct expertd_mixture_options options;
    struct expertd_mixture *mixture;
    const uint32_t grid[] = {2, 2};
    float y[EXPERTS_OUT];
    expertd_mixture_options_init(&options);
    options.in_features = EXPERTS_IN;
    options.out_features = EXPERTS_OUT;
    options.grid_size = grid;
    options.n_grid = 2;
    options.prefix = "ffn.";
    options.forward_timeout_ms = 3000;
    ck_assert_int_eq(expertd_mixture_new(&mixture, dht, &options), 0);
    forward(placed, LONG_MS, &other);
    /* One search is enough, but for a machine that needs longer for the answer. */
    for (int i = 0; i < 100 && !expertd_task_done(other); i++)
        ck_assert_int_eq(expertd_mixture_forward(mixture, x, 1, y, NULL), EXPERTD_UNAVAILABLE);
    ck_assert(expertd_task_done(other));
    ck_assert_int_eq(expertd_task_status(other), EXPERTD_OK);
    expertd_mixture_destroy(&mixture);
}
END_TEST

START_TEST(a_dht_can_go_with_look_ups_on_their_way)
{
    forward(named, LONG_MS, &lost);
    ck_assert_int_eq(expertd_dht_poll(dht, 0), 0);
    expertd_expert_destroy(&placed);
    expertd_expert_destroy(&named);
    lost = NULL; /* it goes with its dht */
    expertd_dht_destroy(&dht);
}
END_TEST

/* Each address of the loopback is a server of its own to a client. */
START_TEST(more_servers_than_are_kept_are_called_and_dropped)
{
    enum { SERVERS = 300 };
    struct experts everywhere = {0};
    struct expertd_dht_counters counters;
    char endpoint[64];
    experts_start(&everywhere, "tcp://*:*");
    const char *port = strrchr(router_endpoint(everywhere.router), ':');
    for (int i = 0; i < SERVERS; i++) {
        struct expertd_expert *expert;
        snprintf(endpoint, sizeof endpoint, "tcp://127.0.%d.%d%s", 1 + i / 200, 1 + i % 200, port);
        ck_assert_int_eq(expertd_expert_at(&expert, dht, endpoint, "ffn.0.0"), 0);
        forward(expert, LONG_MS, &other);
        expertd_expert_destroy(&expert);
        ck_assert_int_eq(expertd_task_wait(other, -1), 0);
        ck_assert_int_eq(expertd_task_status(other), EXPERTD_OK);
        expertd_task_release(&other);
    }
    expertd_dht_counters(dht, &counters);
    ck_assert_uint_le(counters.servers, 256);
    experts_stop(&everywhere);
}
END_TEST

START_TEST(a_report_takes_no_others_end_away)
{
    forward(placed, LONG_MS, &lost);
    ck_assert_int_eq(expertd_dht_poll(dht, -1), 1); /* counted, not reported */
    forward(placed, LONG_MS, &other);
    struct expertd_task *last;
    forward(placed, LONG_MS, &last);
    ck_assert_int_eq(expertd_task_wait(last, -1), 0); /* answers come in order: the other has ended as well */
    ck_assert(expertd_task_done(other));
    expertd_task_release(&lost);
    ck_assert_int_eq(expertd_dht_poll(dht, 0), 1);
    ck_assert_int_eq(expertd_dht_poll(dht, 0), 0);
    expertd_task_release(&last);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("remote_progress");
    TCase *tests = tcase_create("remote_progress");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, a_poll_without_patience_waits_for_no_look_up);
    tcase_add_test(tests, others_are_answered_while_a_look_up_is_not);
    tcase_add_test(tests, others_expire_while_a_look_up_is_not_answered);
    tcase_add_test(tests, a_task_expires_before_its_look_up);
    tcase_add_test(tests, a_late_answer_serves_whoever_still_waits);
    tcase_add_test(tests, others_are_answered_during_a_beam_search);
    tcase_add_test(tests, a_dht_can_go_with_look_ups_on_their_way);
    tcase_add_test(tests, more_servers_than_are_kept_are_called_and_dropped);
    tcase_add_test(tests, a_report_takes_no_others_end_away);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
