// timeout: 300
/* STATS beyond counters: histograms add up to what was asked, and the experts that are called most come first. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/histogram.h"
#include "unit/support_ask.h"

static struct rig rig;
static struct asker one;
static struct question question;
static struct answer answer;

static void setup(void)
{
    rig_open(&rig, NULL);
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

static const Expertd__Stats *stats(const char *prefix, uint32_t limit)
{
    static char text[32];
    static Expertd__ListQuery query;
    expertd__list_query__init(&query);
    snprintf(text, sizeof text, "%s", prefix ? prefix : "");
    query.prefix = text;
    query.limit = limit;
    ask_prepare(&one, &question, EXPERTD__METHOD__STATS, "", 0, 0);
    question.header.list = prefix ? &query : NULL;
    ask_call(&one, &question, &answer, STATUS_OK);
    return answer.header->stats;
}

static uint64_t total(const Expertd__Stats *all, const char *name)
{
    for (size_t i = 0; i < all->n_histograms; i++) {
        const Expertd__Stats__Histogram *histogram = all->histograms[i];
        if (strcmp(histogram->name, name) != 0)
            continue;
        ck_assert_uint_eq(histogram->n_bounds, HISTOGRAM_BOUNDS);
        ck_assert_uint_eq(histogram->n_counts, HISTOGRAM_BUCKETS);
        uint64_t sum = 0;
        for (size_t b = 0; b < histogram->n_counts; b++)
            sum += histogram->counts[b];
        ck_assert(sum == 0 ? histogram->sum == 0 : histogram->sum > 0);
        return sum;
    }
    ck_abort_msg("no histogram %s", name);
}

static void call(Expertd__Method method, const char *uid, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        ask_prepare(&one, &question, method, uid, 2, 1);
        ask_call(&one, &question, &answer, STATUS_OK);
    }
}

START_TEST(every_request_that_was_done_is_in_one_bucket)
{
    const uint64_t before = total(stats(NULL, 0), "frontend.forward.request_seconds");
    call(EXPERTD__METHOD__FORWARD, "nop.0", 7);
    call(EXPERTD__METHOD__BACKWARD, "nop.0", 3);
    ck_assert_uint_eq(total(stats(NULL, 0), "frontend.forward.request_seconds"), before + 7);
    ck_assert_uint_eq(total(stats(NULL, 0), "frontend.backward.request_seconds"), 3);
    (void)total(stats(NULL, 0), "device.cpu0.backward.batch_rows"); /* is there */
    ck_assert_uint_eq(stats(NULL, 0)->n_experts, 0);                /* nobody asked for them */
}
END_TEST

START_TEST(the_experts_that_did_most_rows_come_first)
{
    call(EXPERTD__METHOD__FORWARD, "nop.1", 5);
    call(EXPERTD__METHOD__BACKWARD, "nop.0", 1);
    const Expertd__Stats *all = stats("", 0);
    ck_assert_uint_eq(all->n_experts, 4); /* those of a device that is away, too */
    ck_assert_str_eq(all->experts[0]->uid, "nop.1");
    ck_assert_str_eq(all->experts[0]->device, "cpu0");
    ck_assert_uint_eq(all->experts[0]->forward_tasks, 5);
    ck_assert_uint_eq(all->experts[0]->forward_rows, 10);
    ck_assert_uint_gt(all->experts[0]->forward->request_ns, 0);
    ck_assert_ptr_null(all->experts[0]->backward); /* nobody asked for it */
    all = stats("nop.", 1);
    ck_assert_uint_eq(all->n_experts, 1);
    ck_assert_str_eq(all->experts[0]->uid, "nop.1");
    all = stats("nop.0", 0);
    ck_assert_uint_eq(all->n_experts, 1);
    ck_assert_uint_eq(all->experts[0]->backward_tasks, 1);
    ck_assert_uint_eq(all->experts[0]->backward_rows, 2);
    ck_assert_uint_eq(all->experts[0]->update_count, 1);
}
END_TEST

static void expect_counted(unsigned forwards)
{
    const Expertd__Stats__Expert *expert = stats("nop.1", 0)->experts[0];
    ck_assert_uint_eq(expert->forward_tasks, forwards);
    ck_assert_uint_eq(expert->forward->tasks, forwards);
    ck_assert_uint_eq(expert->forward->batches, forwards);
    ck_assert_uint_eq(expert->forward->queue_ns, 3 * forwards);
    ck_assert_uint_eq(expert->forward->compute_ns, 5 * forwards);
}

/* The pool is older than the frontend, and knows of more. */
START_TEST(all_counts_of_an_expert_are_of_one_age)
{
    call(EXPERTD__METHOD__FORWARD, "nop.1", 5);
    expect_counted(5);
    ask_close(&one);
    ck_assert_int_eq(rig_end(&rig.frontend, SIGKILL), 128 + SIGKILL);
    rig_start_frontend(&rig);
    ask_open(&one, &rig, ZMQ_DEALER);
    ask_until_up(&one);
    call(EXPERTD__METHOD__FORWARD, "nop.1", 2);
    expect_counted(2);
}
END_TEST

START_TEST(what_waits_is_pending_and_has_an_age)
{
    rig.knobs->hold = 1;
    ask_prepare(&one, &question, EXPERTD__METHOD__FORWARD, "nop.1", 1, 1);
    ask_send(&one, &question);
    RIG_WAIT(stats("nop.1", 0)->experts[0]->pending == 1);
    ck_assert(answer.header->stats->experts[0]->oldest_seconds > 0);
    rig.knobs->hold = 0;
    ask_receive(&one, &answer);
    ck_assert_uint_eq(stats("nop.1", 0)->experts[0]->pending, 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("measures");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, every_request_that_was_done_is_in_one_bucket);
    tcase_add_test(all, the_experts_that_did_most_rows_come_first);
    tcase_add_test(all, all_counts_of_an_expert_are_of_one_age);
    tcase_add_test(all, what_waits_is_pending_and_has_an_age);
    Suite *suite = suite_create("measures");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
