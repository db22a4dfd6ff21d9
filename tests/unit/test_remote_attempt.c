#include <check.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/remote_attempt.h"
#include "client/remote_task.h"
#include "common/clock.h"
#include "tests/unit/support_experts.h"

static struct fake_dht known;
static struct experts servers[2];
static struct expertd_dht *dht;
static struct expertd_task *task;
static const char uid[] = "ffn.0.1";
static float x[EXPERTS_IN] = {1, 2, 3};

static void setup(void)
{
    memset(&known, 0, sizeof known);
    memset(servers, 0, sizeof servers);
    fake_dht_start(&known);
    for (int i = 0; i < 2; i++)
        experts_start(&servers[i], NULL);
    ck_assert_int_eq(expertd_dht_new(&dht, router_endpoint(known.router), NULL), 0);
    task = NULL;
}

static void teardown(void)
{
    expertd_task_release(&task);
    struct server *server;
    for (server = TAILQ_FIRST(&dht->servers.servers); server; server = TAILQ_NEXT(server, link)) {
        ck_assert_uint_eq(server->refs, 0); /* whatever way a task went */
        ck_assert_uint_eq(server->calls, 0);
    }
    expertd_dht_destroy(&dht);
    fake_dht_stop(&known);
    for (int i = 0; i < 2; i++)
        experts_stop(&servers[i]);
}

static void start(bool patient, uint32_t deadline_ms)
{
    const struct expertd_tensor input = expertd_tensor_f32(x, 1, EXPERTS_IN);
    const struct remote_task_request request = {
        .uid = uid, .patient = patient, .tensors = {&input}, .count = {1}, .deadline_ms = deadline_ms};
    ck_assert_int_eq(remote_task_start(dht, &request, &task), 0);
}

START_TEST(a_task_asks_and_then_calls)
{
    fake_dht_add(&known, uid, router_endpoint(servers[0].router));
    start(true, 500000);
    ck_assert_int_eq(task->state, TASK_LOOKUP);
    ck_assert_ptr_null(task->asked);
    ck_assert_int_eq(expertd_task_wait(task, -1), 0);
    ck_assert_int_eq(task->state, TASK_REPORTED);
    ck_assert_int_eq(task->status, EXPERTD_OK);
    ck_assert(task->looked_up);
    ck_assert_str_eq(expertd_client_endpoint(task->server->client), router_endpoint(servers[0].router));
}
END_TEST

START_TEST(the_impatient_end_when_all_servers_have_failed)
{
    for (int i = 0; i < 2; i++) {
        fake_dht_add(&known, uid, router_endpoint(servers[i].router));
        servers[i].status = EXPERTD_RESOURCE_EXHAUSTED;
        servers[i].failing = -1;
    }
    start(false, 500000);
    ck_assert_int_eq(expertd_task_wait(task, -1), 0);
    ck_assert_int_eq(task->status, EXPERTD_RESOURCE_EXHAUSTED);
    ck_assert(task->not_applied);
    ck_assert_uint_eq(task->n_tried, 2);
}
END_TEST

START_TEST(pauses_grow_and_end_with_the_deadline)
{
    fake_dht_add(&known, uid, router_endpoint(servers[0].router));
    servers[0].status = EXPERTD_UNAVAILABLE;
    servers[0].failing = -1;
    start(true, 1000);
    while (task->pause_ms < 80)
        ck_assert_int_ne(expertd_task_wait(task, 1), -EINTR);
    ck_assert(expertd_task_done(task) || task->wake_ns <= task->deadline_ns);
    ck_assert_int_eq(expertd_task_wait(task, -1), 0);
    ck_assert_int_eq(task->status, EXPERTD_UNAVAILABLE);
}
END_TEST

START_TEST(a_deadline_that_has_passed_ends_a_task)
{
    start(true, 500000);
    task->deadline_ns = clock_now_ns() - 1;
    ck_assert_uint_eq(remote_attempt_remaining_ms(task), 1);
    remote_attempt_wake(task);
    ck_assert_int_eq(task->state, TASK_DONE);
    ck_assert_int_eq(task->status, EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_int_eq(expertd_dht_poll(dht, 0), 1);
}
END_TEST

/* A server of two frontends, of which the first names the second, which has the expert. */
static atomic_int backwards_there;
static atomic_bool there_waits;

static void answer_at_home(void *named, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    if (header->method != EXPERTD__METHOD__BACKWARD) {
        router_nop(NULL, request);
        return;
    }
    reply.status = EXPERTD__STATUS__NOT_FOUND;
    reply.message = (char *)(uintptr_t) "it is at another frontend";
    reply.endpoint = named;
    router_reply(request, header, &reply, NULL, 0);
}

static void answer_there(void *context, struct router_request *request)
{
    const bool backward = router_header(request)->method == EXPERTD__METHOD__BACKWARD;
    if (backward)
        atomic_fetch_add(&backwards_there, 1);
    while (backward && atomic_load(&there_waits))
        usleep(1000);
    router_nop(context, request);
}

static void start_backward(void)
{
    static float g[EXPERTS_OUT] = {1, 2};
    const struct expertd_tensor input = expertd_tensor_f32(x, 1, EXPERTS_IN),
                                gradient = expertd_tensor_f32(g, 1, EXPERTS_OUT);
    const struct remote_task_request request = {
        .uid = uid, .backward = true, .tensors = {&input, &gradient}, .count = {1, 1}, .deadline_ms = 500000};
    ck_assert_int_eq(remote_task_start(dht, &request, &task), 0);
}

START_TEST(a_backward_that_is_at_another_frontend_is_given_to_nobody_else_when_the_first_goes_down)
{
    char named[256];
    struct router *there = router_start(NULL, answer_there, NULL);
    snprintf(named, sizeof named, "%s", router_endpoint(there));
    struct router *home = router_start(NULL, answer_at_home, named);
    fake_dht_add(&known, uid, router_endpoint(home));
    start_backward();
    ck_assert_int_eq(expertd_task_wait(task, -1), 0);
    ck_assert_int_eq(task->status, EXPERTD_OK);
    ck_assert_int_eq(atomic_load(&backwards_there), 1);
    struct expertd_client *client = task->server->client;
    expertd_task_release(&task);
    router_stop(&home);
    while (expertd_client_connected(client))
        ck_assert_int_ge(expertd_poll(client, 1), 0);
    fake_dht_add(&known, uid, router_endpoint(servers[1].router)); /* another server has it as well */
    atomic_store(&there_waits, true);
    start_backward();
    while (atomic_load(&backwards_there) < 2)
        ck_assert_int_ge(expertd_dht_poll(dht, 1), 0);
    task->wake_ns = 1; /* the time in which a connection had to come is over */
    for (int i = 0; i < 50; i++)
        ck_assert_int_ge(expertd_dht_poll(dht, 1), 0);
    ck_assert_int_eq(task->state, TASK_CALLED);
    atomic_store(&there_waits, false);
    ck_assert_int_eq(expertd_task_wait(task, -1), 0);
    ck_assert_int_eq(task->status, EXPERTD_OK);
    ck_assert_int_eq(atomic_load(&backwards_there), 2);
    ck_assert_int_eq(atomic_load(&servers[1].backwards), 0);
    router_stop(&there);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("remote_attempt");
    TCase *tests = tcase_create("remote_attempt");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_task_asks_and_then_calls);
    tcase_add_test(tests, the_impatient_end_when_all_servers_have_failed);
    tcase_add_test(tests, pauses_grow_and_end_with_the_deadline);
    tcase_add_test(tests, a_deadline_that_has_passed_ends_a_task);
    tcase_add_test(tests, a_backward_that_is_at_another_frontend_is_given_to_nobody_else_when_the_first_goes_down);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
