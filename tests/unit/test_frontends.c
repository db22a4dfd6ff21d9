/* Two servers, of which the first names the other as another frontend of its. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "client/frontends.h"
#include "tests/unit/support_session.h"

static struct router *other;
static struct frontends frontends;
static struct frontends_look look;
static const double bounds[] = {1, 2};

struct answers {
    const char *server, *endpoint; /* the other one's; NULL */
    double scale;
    const char *uid, *device;
    uint64_t rows;
};
static struct answers first, second;

static void pong(struct router_request *request, const Expertd__RequestHeader *header, const struct answers *answers)
{
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__Pong message = EXPERTD__PONG__INIT;
    Expertd__Pong__Frontend frontend = EXPERTD__PONG__FRONTEND__INIT, *others[] = {&frontend};
    message.server = (char *)(uintptr_t)answers->server;
    message.software = (char *)(uintptr_t) "none";
    message.experts = 3;
    message.experts_alive = 2;
    message.n_frontends = answers->endpoint != NULL;
    message.frontends = others;
    frontend.server = (char *)(uintptr_t) "second";
    frontend.endpoint = (char *)(uintptr_t)answers->endpoint;
    reply.pong = &message;
    router_reply(request, header, &reply, NULL, 0);
}

static void stats(struct router_request *request, const Expertd__RequestHeader *header, const struct answers *answers)
{
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__Stats message = EXPERTD__STATS__INIT;
    char device_counter[64];
    const char *names[] = {"frontend.uptime_s", "frontend.pid", "frontend.requests.forward", device_counter};
    const double values[] = {50 / answers->scale, 7 * answers->scale, 10 * answers->scale, 5};
    Expertd__Stats__Counter counters[4], *counter_pointers[4];
    Expertd__Stats__Histogram histogram = EXPERTD__STATS__HISTOGRAM__INIT, *histograms[] = {&histogram};
    Expertd__Stats__Expert expert = EXPERTD__STATS__EXPERT__INIT, *experts[] = {&expert};
    uint64_t counts[] = {1, 2 * (uint64_t)answers->scale, 3};
    snprintf(device_counter, sizeof device_counter, "device.%s.steps", answers->device);
    for (int i = 0; i < 4; i++) {
        expertd__stats__counter__init(&counters[i]);
        counters[i].name = (char *)(uintptr_t)names[i];
        counters[i].value = values[i];
        counter_pointers[i] = &counters[i];
    }
    message.n_counters = 4;
    message.counters = counter_pointers;
    histogram.name = (char *)(uintptr_t) "frontend.forward.request_seconds";
    histogram.n_bounds = 2;
    histogram.bounds = (double *)(uintptr_t)bounds;
    histogram.n_counts = 3;
    histogram.counts = counts;
    histogram.sum = answers->scale;
    message.n_histograms = 1;
    message.histograms = histograms;
    expert.uid = (char *)(uintptr_t)answers->uid;
    expert.device = (char *)(uintptr_t)answers->device;
    expert.forward_rows = answers->rows;
    message.n_experts = header->list != NULL;
    message.experts = experts;
    reply.stats = &message;
    router_reply(request, header, &reply, NULL, 0);
}

static void answer(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    if (header->method == EXPERTD__METHOD__PING)
        pong(request, header, context);
    else
        stats(request, header, context);
}

static void set_up(void)
{
    session_open();
    second = (struct answers){.server = "second", .scale = 2, .uid = "e.1", .device = "b", .rows = 90};
    other = router_start(NULL, answer, &second);
    first = (struct answers){
        .server = "first", .endpoint = router_endpoint(other), .scale = 1, .uid = "e.0", .device = "a", .rows = 8};
    session_start(answer, &first);
    frontends_begin(&frontends, session.client);
    look = (struct frontends_look){0};
}

static void tear_down(void)
{
    frontends_release(&look);
    session_close();
    router_stop(&other);
}

static double counter(const struct expertd_stats *sum, const char *name)
{
    for (size_t i = 0; i < sum->count; i++)
        if (strcmp(sum->counters[i].name, name) == 0)
            return sum->counters[i].value;
    return -1;
}

START_TEST(all_frontends_are_asked_and_added_up)
{
    ck_assert_int_eq(frontends_look(&frontends, &look, NULL, 0, SESSION_LONG_MS), 0);
    ck_assert_uint_eq(look.count, 2);
    ck_assert_str_eq(frontends_pong(&look, 0)->server, "first");
    ck_assert_str_eq(frontends_pong(&look, 1)->server, "second");
    ck_assert_uint_eq(frontends_pong(&look, 0)->frontends_count, 1);
    ck_assert_ptr_null(frontends_pong(&look, 2));
    const struct expertd_stats *sum = frontends_sum(&look);
    ck_assert_uint_eq(sum->count, 5);
    ck_assert_double_eq(counter(sum, "frontend.uptime_s"), 25);
    ck_assert_double_eq(counter(sum, "frontend.pid"), 7);
    ck_assert_double_eq(counter(sum, "frontend.requests.forward"), 30);
    ck_assert_double_eq(counter(sum, "device.a.steps"), 5);
    ck_assert_double_eq(counter(sum, "device.b.steps"), 5);
    ck_assert_double_eq(counter(frontends_stats(&look, 1), "frontend.requests.forward"), 20);
    ck_assert_uint_eq(sum->histograms_count, 1);
    ck_assert_uint_eq(sum->histograms[0].counts[0], 2);
    ck_assert_uint_eq(sum->histograms[0].counts[1], 6);
    ck_assert_uint_eq(sum->histograms[0].counts[2], 6);
    ck_assert_double_eq(sum->histograms[0].sum, 3);
    ck_assert_uint_eq(frontends_stats(&look, 0)->histograms[0].counts[1], 2); /* as it was */
    ck_assert_uint_eq(sum->experts_count, 2);
    ck_assert_str_eq(sum->experts[0].uid, "e.1"); /* more rows */
    ck_assert_str_eq(sum->experts[1].uid, "e.0");
    ck_assert_ptr_eq(frontends_sum(&look), sum);
}
END_TEST

START_TEST(one_that_does_not_answer_leaves_the_others)
{
    first.endpoint = session_free_endpoint();
    uint32_t timeout_ms = 250;
    do { /* until the other one has answered in time */
        frontends_release(&look);
        timeout_ms *= 4;
        ck_assert_int_eq(frontends_look(&frontends, &look, NULL, FRONTENDS_NO_EXPERTS, timeout_ms), 0);
    } while (look.count < 2 || !frontends_stats(&look, 0));
    ck_assert_ptr_null(frontends_stats(&look, 1));
    ck_assert_ptr_null(frontends_pong(&look, 1));
    const struct expertd_stats *sum = frontends_sum(&look);
    ck_assert_ptr_eq(sum, frontends_stats(&look, 0));
    ck_assert_uint_eq(sum->experts_count, 0);
}
END_TEST

START_TEST(what_is_no_endpoint_is_no_frontend)
{
    first.endpoint = "inproc://x";
    ck_assert_int_eq(frontends_look(&frontends, &look, NULL, 0, SESSION_LONG_MS), 0);
    ck_assert_uint_eq(look.count, 1);
    ck_assert_ptr_eq(frontends_sum(&look), frontends_stats(&look, 0));
}
END_TEST

START_TEST(a_program_with_an_event_loop_needs_no_other_descriptor)
{
    ck_assert_int_eq(frontends_look(&frontends, &look, NULL, 0, SESSION_LONG_MS), 0);
    frontends_release(&look);
    ck_assert_int_eq(expertd_client_timeout_ms(session.client), -1);
    ck_assert_int_eq(frontends_ask(&frontends, &look, "e", 7, SESSION_LONG_MS), 0);
    ck_assert_int_ge(expertd_client_timeout_ms(session.client), 0);
    while (!frontends_answered(&look))
        expertd_poll(session.client, 100);
    ck_assert_uint_eq(frontends_sum(&look)->experts_count, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frontends");
    TCase *tests = tcase_create("frontends");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 600);
    tcase_add_test(tests, all_frontends_are_asked_and_added_up);
    tcase_add_test(tests, one_that_does_not_answer_leaves_the_others);
    tcase_add_test(tests, what_is_no_endpoint_is_no_frontend);
    tcase_add_test(tests, a_program_with_an_event_loop_needs_no_other_descriptor);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
