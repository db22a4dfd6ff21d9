#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/expertd_moe.h"
#include "tests/unit/support_experts.h"

enum { LONG_MS = 500000 };
static const char uid[] = "ffn.3.14";

static struct fake_dht known;
static struct experts servers[2];
static struct expertd_dht *dht;
static struct expertd_expert *expert;
static struct expertd_task *task;
static float x[2 * EXPERTS_IN] = {0.5F, -0.25F, 1, 0, 2, -1}, g[2 * EXPERTS_OUT] = {1, 2, 3, 4};

static void setup(void)
{
    memset(&known, 0, sizeof known);
    memset(servers, 0, sizeof servers);
    fake_dht_start(&known);
    for (size_t i = 0; i < 2; i++)
        experts_start(&servers[i], NULL);
    ck_assert_int_eq(expertd_dht_new(&dht, router_endpoint(known.router), NULL), 0);
    ck_assert_int_eq(expertd_expert_new(&expert, dht, uid), 0);
    task = NULL;
}

static void teardown(void)
{
    expertd_task_release(&task);
    expertd_expert_destroy(&expert);
    expertd_dht_destroy(&dht);
    fake_dht_stop(&known);
    for (size_t i = 0; i < 2; i++)
        experts_stop(&servers[i]);
}

static const char *at(size_t i)
{
    return router_endpoint(servers[i].router);
}

static void forward(uint32_t deadline_ms)
{
    struct expertd_tensor input = expertd_tensor_f32(x, 2, EXPERTS_IN);
    expertd_task_release(&task);
    ck_assert_int_eq(expertd_expert_forward(expert, &input, 1, deadline_ms, &task), 0);
}

static void backward(uint32_t deadline_ms)
{
    struct expertd_tensor input = expertd_tensor_f32(x, 2, EXPERTS_IN),
                          gradient = expertd_tensor_f32(g, 2, EXPERTS_OUT);
    expertd_task_release(&task);
    ck_assert_int_eq(expertd_expert_backward(expert, &input, 1, &gradient, 1, deadline_ms, &task), 0);
}

static void ends_as(enum expertd_status status)
{
    ck_assert_int_eq(expertd_task_wait(task, -1), 0);
    ck_assert(expertd_task_done(task));
    ck_assert_msg(expertd_task_status(task) == status, "%s: %s", expertd_status_name(expertd_task_status(task)),
                  expertd_task_message(task));
    ck_assert_uint_eq(expertd_task_output_count(task), status == EXPERTD_OK);
}

static struct expertd_dht_counters counters(void)
{
    struct expertd_dht_counters now;
    expertd_dht_counters(dht, &now);
    return now;
}

START_TEST(an_expert_is_found_by_its_uid_alone)
{
    float expected[EXPERTS_OUT];
    fake_dht_add(&known, uid, at(1));
    forward(LONG_MS);
    ends_as(EXPERTD_OK);
    experts_forward(uid, x + EXPERTS_IN, expected);
    ck_assert_mem_eq((const float *)expertd_task_output(task, 0)->data + EXPERTS_OUT, expected, sizeof expected);
    ck_assert_str_eq(expertd_task_endpoint(task), at(1));
    backward(LONG_MS);
    ends_as(EXPERTD_OK);
    ck_assert_int_eq(servers[1].forwards, 1);
    ck_assert_int_eq(servers[1].backwards, 1);
}
END_TEST

/* Also when the first server refuses: which gradients are wanted goes along to the next. */
START_TEST(gradients_that_are_not_wanted_do_not_come_from_whichever_server)
{
    const struct expertd_tensor input = expertd_tensor_f32(x, 2, EXPERTS_IN),
                                gradient = expertd_tensor_f32(g, 2, EXPERTS_OUT);
    for (size_t i = 0; i < 2; i++)
        fake_dht_add(&known, uid, at(i));
    for (int wanted = 0; wanted < 2; wanted++) {
        bool requires_grad = wanted != 0;
        servers[0].status = EXPERTD_RESOURCE_EXHAUSTED;
        servers[0].failing = -1;
        ck_assert_int_eq(expertd_expert_backward_for(expert, &input, 1, &requires_grad, &gradient, 1, LONG_MS, &task),
                         0);
        requires_grad = !requires_grad; /* it was copied */
        ck_assert_int_eq(expertd_task_wait(task, -1), 0);
        ck_assert_int_eq(expertd_task_status(task), EXPERTD_OK);
        ck_assert_uint_eq(expertd_task_output_count(task), (size_t)wanted);
        expertd_task_release(&task);
    }
    ck_assert_int_eq(servers[1].backwards, 2);
}
END_TEST

START_TEST(what_was_looked_up_is_remembered)
{
    fake_dht_add(&known, uid, at(0));
    for (int i = 0; i < 5; i++) {
        forward(LONG_MS);
        ends_as(EXPERTD_OK);
    }
    ck_assert_int_eq(known.resolves, 1);
}
END_TEST

START_TEST(many_tasks_ask_once)
{
    struct expertd_task *tasks[20];
    struct expertd_tensor input = expertd_tensor_f32(x, 2, EXPERTS_IN);
    fake_dht_add(&known, uid, at(0));
    for (size_t i = 0; i < 20; i++)
        ck_assert_int_eq(expertd_expert_forward(expert, &input, 1, LONG_MS, &tasks[i]), 0);
    int ended = 0;
    while (ended < 20)
        ended += expertd_dht_poll(dht, -1);
    for (size_t i = 0; i < 20; i++) {
        ck_assert_int_eq(expertd_task_status(tasks[i]), EXPERTD_OK);
        expertd_task_release(&tasks[i]);
    }
    ck_assert_int_eq(known.resolves, 1);
}
END_TEST

START_TEST(replicas_are_called_in_turn)
{
    fake_dht_add(&known, uid, at(0));
    fake_dht_add(&known, uid, at(1));
    for (int i = 0; i < 10; i++) {
        forward(LONG_MS);
        ends_as(EXPERTD_OK);
    }
    ck_assert_int_eq(servers[0].forwards, 5);
    ck_assert_int_eq(servers[1].forwards, 5);
}
END_TEST

START_TEST(a_busy_replica_is_spared)
{
    struct expertd_task *stuck;
    struct expertd_tensor input = expertd_tensor_f32(x, 2, EXPERTS_IN);
    fake_dht_add(&known, uid, at(0));
    servers[0].silent = true;
    ck_assert_int_eq(expertd_expert_forward(expert, &input, 1, LONG_MS, &stuck), 0);
    ck_assert_int_eq(expertd_task_wait(stuck, 20), -ETIMEDOUT);
    struct expertd_expert *other;
    ck_assert_int_eq(expertd_expert_new(&other, dht, "ffn.0"), 0);
    fake_dht_add(&known, "ffn.0", at(0));
    fake_dht_add(&known, "ffn.0", at(1));
    for (int i = 0; i < 4; i++) {
        expertd_task_release(&task);
        ck_assert_int_eq(expertd_expert_forward(other, &input, 1, LONG_MS, &task), 0);
        ends_as(EXPERTD_OK);
    }
    ck_assert_int_eq(servers[1].forwards, 4);
    expertd_task_release(&stuck);
    expertd_expert_destroy(&other);
}
END_TEST

START_TEST(a_failing_replica_is_passed_over)
{
    static const int statuses[] = {EXPERTD_UNAVAILABLE, EXPERTD_NOT_FOUND, EXPERTD_RESOURCE_EXHAUSTED,
                                   EXPERTD_INTERNAL};
    fake_dht_add(&known, uid, at(0));
    fake_dht_add(&known, uid, at(1));
    servers[0].failing = -1;
    for (size_t i = 0; i < 4; i++) {
        servers[0].status = statuses[i];
        for (int k = 0; k < 2; k++) {
            forward(LONG_MS);
            ends_as(EXPERTD_OK);
        }
    }
    ck_assert_int_eq(servers[1].forwards, 8);
    ck_assert(counters().failovers > 0);
}
END_TEST

START_TEST(a_replica_that_died_is_passed_over)
{
    fake_dht_add(&known, uid, at(0));
    fake_dht_add(&known, uid, at(1));
    experts_stop(&servers[0]);
    for (int i = 0; i < 4; i++) {
        forward(LONG_MS);
        ends_as(EXPERTD_OK);
    }
    ck_assert_int_eq(servers[1].forwards, 4);
}
END_TEST

START_TEST(a_replica_that_dies_at_work_is_passed_over)
{
    fake_dht_add(&known, uid, at(0));
    servers[0].silent = true;
    forward(LONG_MS);
    ck_assert_int_eq(expertd_task_wait(task, 100), -ETIMEDOUT);
    fake_dht_add(&known, uid, at(1));
    experts_stop(&servers[0]);
    ends_as(EXPERTD_OK);
    ck_assert_int_eq(servers[1].forwards, 1);
}
END_TEST

START_TEST(a_server_that_came_back_elsewhere_is_found_again)
{
    fake_dht_add(&known, uid, at(0));
    forward(LONG_MS);
    ends_as(EXPERTD_OK);
    fake_dht_remove(&known, at(0));
    fake_dht_add(&known, uid, at(1));
    experts_stop(&servers[0]);
    forward(LONG_MS);
    ends_as(EXPERTD_OK);
    ck_assert_str_eq(expertd_task_endpoint(task), at(1));
    ck_assert_int_eq(known.resolves, 2);
}
END_TEST

START_TEST(a_task_waits_for_a_server_that_is_full)
{
    fake_dht_add(&known, uid, at(0));
    servers[0].status = EXPERTD_RESOURCE_EXHAUSTED;
    servers[0].failing = 3;
    forward(LONG_MS);
    ends_as(EXPERTD_OK);
    ck_assert_int_eq(servers[0].forwards, 1);
}
END_TEST

START_TEST(a_refused_backward_goes_to_another_server)
{
    fake_dht_add(&known, uid, at(0));
    fake_dht_add(&known, uid, at(1));
    servers[0].failing = servers[1].failing = 1;
    servers[0].status = servers[1].status = EXPERTD_RESOURCE_EXHAUSTED;
    backward(LONG_MS);
    ends_as(EXPERTD_OK);
    ck_assert_int_eq(servers[0].repeated_backwards + servers[1].repeated_backwards, 0);
    ck_assert_int_eq(servers[0].backwards + servers[1].backwards, 1);
}
END_TEST

START_TEST(a_backward_that_may_have_been_applied_stays_with_its_server)
{
    fake_dht_add(&known, uid, at(0));
    forward(LONG_MS);
    ends_as(EXPERTD_OK);
    fake_dht_add(&known, uid, at(1));
    servers[0].failing = 3;
    servers[0].status = EXPERTD_UNAVAILABLE;
    backward(LONG_MS);
    ends_as(EXPERTD_OK);
    ck_assert_int_eq(servers[0].repeated_backwards, 3);
    ck_assert_int_eq(servers[0].backwards, 1);
    ck_assert_uint_eq(servers[1].last_backward_id, 0);
    ck_assert_uint_eq(counters().retries, 3);
}
END_TEST

/* It may have been applied before all the same: who looks elsewhere then has it applied twice. */
START_TEST(a_backward_that_is_refused_when_repeated_stays_with_its_server)
{
    static const int refusals[] = {EXPERTD_RESOURCE_EXHAUSTED, EXPERTD_NOT_FOUND};
    fake_dht_add(&known, uid, at(0));
    forward(LONG_MS);
    ends_as(EXPERTD_OK);
    fake_dht_add(&known, uid, at(1));
    servers[0].status = EXPERTD_UNAVAILABLE;
    servers[0].then_status = refusals[_i];
    servers[0].then_failing = 2;
    servers[0].failing = 1;
    backward(LONG_MS);
    ends_as(EXPERTD_OK);
    ck_assert_int_eq(servers[0].repeated_backwards, 3);
    ck_assert_int_eq(servers[0].backwards, 1);
    ck_assert_uint_eq(servers[1].last_backward_id, 0);
}
END_TEST

START_TEST(a_backward_is_repeated_over_a_new_connection)
{
    char endpoint[256];
    fake_dht_add(&known, uid, at(0));
    servers[0].silent = true;
    backward(LONG_MS);
    while (servers[0].last_backward_id == 0)
        ck_assert_int_eq(expertd_task_wait(task, 10), -ETIMEDOUT);
    strcpy(endpoint, at(0));
    experts_stop(&servers[0]);
    ck_assert_int_eq(expertd_task_wait(task, 50), -ETIMEDOUT);
    servers[0].silent = false;
    experts_start(&servers[0], endpoint);
    ends_as(EXPERTD_OK);
    ck_assert_int_eq(servers[0].repeated_backwards, 1);
}
END_TEST

START_TEST(what_another_server_cannot_better_is_told_at_once)
{
    static const int statuses[] = {EXPERTD_INVALID_ARGUMENT, EXPERTD_UNIMPLEMENTED, EXPERTD_ABORTED,
                                   EXPERTD_ALREADY_EXISTS};
    fake_dht_add(&known, uid, at(0));
    fake_dht_add(&known, uid, at(1));
    for (size_t i = 0; i < 4; i++) {
        servers[0].failing = servers[1].failing = 1;
        servers[0].status = servers[1].status = statuses[i];
        backward(LONG_MS);
        ends_as((enum expertd_status)statuses[i]);
        ck_assert_int_eq(servers[0].failing + servers[1].failing, 1);
        ck_assert_str_eq(expertd_task_message(task), "told to fail");
    }
}
END_TEST

START_TEST(a_uid_that_nobody_hosts_is_not_found)
{
    forward(LONG_MS);
    ends_as(EXPERTD_NOT_FOUND);
    ck_assert(expertd_task_not_applied(task));
}
END_TEST

START_TEST(without_a_dht_a_task_ends_at_its_deadline)
{
    struct expertd_dht_options options = {.size = sizeof options, .lookup_timeout_ms = 50};
    expertd_expert_destroy(&expert);
    expertd_dht_destroy(&dht);
    ck_assert_int_eq(expertd_dht_new(&dht, router_endpoint(known.router), &options), 0);
    ck_assert_int_eq(expertd_expert_new(&expert, dht, "ffn.9.9"), 0);
    do
        forward(LONG_MS); /* until there is a connection, within whose life an answer is late, not the connection */
    while (expertd_task_wait(task, -1) == 0 && expertd_task_status(task) != EXPERTD_NOT_FOUND);
    const int answered = known.resolves;
    known.silent = true;
    expertd_expert_destroy(&expert);
    ck_assert_int_eq(expertd_expert_new(&expert, dht, uid), 0);
    forward(300);
    ends_as(EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_int_le(known.resolves, answered + 1); /* a silent one is left in peace for a while */
}
END_TEST

START_TEST(what_was_known_serves_while_the_dht_is_silent)
{
    struct expertd_dht_options options = {.size = sizeof options, .lookup_timeout_ms = 50, .cache_ms = 1};
    expertd_expert_destroy(&expert);
    expertd_dht_destroy(&dht);
    ck_assert_int_eq(expertd_dht_new(&dht, router_endpoint(known.router), &options), 0);
    ck_assert_int_eq(expertd_expert_new(&expert, dht, uid), 0);
    fake_dht_add(&known, uid, at(0));
    forward(LONG_MS);
    ends_as(EXPERTD_OK);
    known.silent = true;
    ck_assert_int_eq(expertd_dht_poll(dht, 5), 0);
    for (int i = 0; i < 3; i++) {
        forward(LONG_MS);
        ends_as(EXPERTD_OK);
    }
}
END_TEST

/* Whatever goes on meanwhile: so many that waited would take longer than a test may. */
START_TEST(who_asks_without_waiting_does_not_wait)
{
    known.silent = true;
    forward(LONG_MS);
    for (int i = 0; i < 1000; i++) {
        ck_assert_int_eq(expertd_dht_poll(dht, 0), 0);
        ck_assert_int_eq(expertd_task_wait(task, 0), -ETIMEDOUT);
    }
    known.silent = false;
    fake_dht_add(&known, uid, at(0));
    servers[0].silent = true;
    expertd_task_release(&task);
    forward(LONG_MS);
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(expertd_dht_poll(dht, 0), 0);
}
END_TEST

START_TEST(an_expert_at_an_endpoint_is_not_looked_up)
{
    struct expertd_dht *alone;
    struct expertd_expert *there, *none;
    ck_assert_int_eq(expertd_dht_new(&alone, NULL, NULL), 0);
    ck_assert_int_eq(expertd_expert_new(&none, alone, uid), -EINVAL);
    ck_assert_int_eq(expertd_expert_at(&none, alone, "nowhere", uid), -EINVAL);
    ck_assert_int_eq(expertd_expert_at(&none, alone, at(0), "no uid"), -EINVAL);
    ck_assert_int_eq(expertd_expert_at(&there, alone, at(0), uid), 0);
    struct expertd_tensor input = expertd_tensor_f32(x, 2, EXPERTS_IN);
    ck_assert_int_eq(expertd_expert_forward(there, &input, 1, LONG_MS, &task), 0);
    ends_as(EXPERTD_OK);
    servers[0].status = EXPERTD_NOT_FOUND;
    servers[0].failing = -1;
    expertd_task_release(&task);
    ck_assert_int_eq(expertd_expert_forward(there, &input, 1, LONG_MS, &task), 0);
    expertd_expert_destroy(&there);
    ends_as(EXPERTD_NOT_FOUND);
    expertd_task_release(&task);
    expertd_dht_destroy(&alone);
    ck_assert_int_eq(known.resolves, 0);
}
END_TEST

START_TEST(records_cannot_send_a_client_to_local_sockets)
{
    fake_dht_add(&known, uid, "ipc:///tmp/expertd-test-nowhere");
    fake_dht_add(&known, uid, "inproc://somewhere");
    forward(LONG_MS);
    ends_as(EXPERTD_NOT_FOUND);
    ck_assert_uint_eq(counters().servers, 0);
}
END_TEST

START_TEST(a_given_up_task_leaves_nothing)
{
    fake_dht_add(&known, uid, at(0));
    servers[0].silent = true;
    forward(LONG_MS);
    ck_assert_int_eq(expertd_task_wait(task, 50), -ETIMEDOUT);
    expertd_task_release(&task);
    ck_assert_int_eq(expertd_dht_poll(dht, -1), 0);
    struct expertd_tensor many[EXPERTD_MAX_TENSORS + 1];
    for (size_t i = 0; i < EXPERTD_MAX_TENSORS + 1; i++)
        many[i] = expertd_tensor_f32(x, 2, EXPERTS_IN);
    ck_assert_int_eq(expertd_expert_forward(expert, many, EXPERTD_MAX_TENSORS + 1, LONG_MS, &task), 0);
    ends_as(EXPERTD_INVALID_ARGUMENT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("remote_task");
    TCase *tests = tcase_create("remote_task");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, an_expert_is_found_by_its_uid_alone);
    tcase_add_test(tests, gradients_that_are_not_wanted_do_not_come_from_whichever_server);
    tcase_add_test(tests, what_was_looked_up_is_remembered);
    tcase_add_test(tests, many_tasks_ask_once);
    tcase_add_test(tests, replicas_are_called_in_turn);
    tcase_add_test(tests, a_busy_replica_is_spared);
    tcase_add_test(tests, a_failing_replica_is_passed_over);
    tcase_add_test(tests, a_replica_that_died_is_passed_over);
    tcase_add_test(tests, a_replica_that_dies_at_work_is_passed_over);
    tcase_add_test(tests, a_server_that_came_back_elsewhere_is_found_again);
    tcase_add_test(tests, a_task_waits_for_a_server_that_is_full);
    tcase_add_test(tests, a_refused_backward_goes_to_another_server);
    tcase_add_test(tests, a_backward_that_may_have_been_applied_stays_with_its_server);
    tcase_add_loop_test(tests, a_backward_that_is_refused_when_repeated_stays_with_its_server, 0, 2);
    tcase_add_test(tests, a_backward_is_repeated_over_a_new_connection);
    tcase_add_test(tests, what_another_server_cannot_better_is_told_at_once);
    tcase_add_test(tests, a_uid_that_nobody_hosts_is_not_found);
    tcase_add_test(tests, without_a_dht_a_task_ends_at_its_deadline);
    tcase_add_test(tests, what_was_known_serves_while_the_dht_is_silent);
    tcase_add_test(tests, who_asks_without_waiting_does_not_wait);
    tcase_add_test(tests, an_expert_at_an_endpoint_is_not_looked_up);
    tcase_add_test(tests, records_cannot_send_a_client_to_local_sockets);
    tcase_add_test(tests, a_given_up_task_leaves_nothing);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
