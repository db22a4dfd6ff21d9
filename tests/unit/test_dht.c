#include <check.h>
#include <stdint.h>
#include <string.h>

#include "client/dht.h"
#include "common/clock.h"
#include "tests/unit/support_experts.h"

enum { LONG_MS = 500000 };

static struct fake_dht known;
static struct expertd_dht *dht;
static struct dht_lookup lookup;
static Expertd__Dht__Request request;
static char uid[] = "ffn.0.1", *uids[] = {uid};
static int ended;
static enum expertd_status last;

static void start(uint32_t lookup_timeout_ms, bool silent)
{
    struct expertd_dht_options options;
    expertd_dht_options_init(&options);
    options.lookup_timeout_ms = lookup_timeout_ms;
    memset(&known, 0, sizeof known);
    known.silent = silent;
    fake_dht_start(&known);
    ck_assert_int_eq(expertd_dht_new(&dht, router_endpoint(known.router), &options), 0);
    expertd__dht__request__init(&request);
    request.method = EXPERTD__DHT__METHOD__RESOLVE;
    request.uids = uids;
    request.n_uids = 1;
    ended = 0;
}

static void stop(void)
{
    expertd_dht_destroy(&dht);
    fake_dht_stop(&known);
}

static void note(struct dht_lookup *which, enum expertd_status status, const Expertd__Dht__Reply *reply,
                 const char *message)
{
    ck_assert_ptr_eq(which, &lookup);
    ck_assert((reply != NULL) == (status == EXPERTD_OK));
    ck_assert((message[0] == 0) == (status == EXPERTD_OK));
    last = status;
    ended++;
}

static void ask_and_wait(uint32_t timeout_ms)
{
    const int before = ended;
    ck_assert_ptr_null(dht_ask(dht, &lookup, &request, timeout_ms, note));
    while (ended == before)
        ck_assert_int_eq(expertd_dht_poll(dht, 10), 0);
}

START_TEST(a_question_is_answered_and_counted)
{
    struct expertd_dht_counters counters;
    start(LONG_MS, false);
    ask_and_wait(LONG_MS);
    ck_assert_int_eq(last, EXPERTD_OK);
    expertd_dht_counters(dht, &counters);
    ck_assert_uint_eq(counters.lookups, 1);
    ck_assert_uint_eq(counters.failed_lookups, 0);
    stop();
}
END_TEST

START_TEST(a_silent_one_is_left_in_peace_for_a_while)
{
    struct expertd_dht_counters counters;
    start(30, true);
    ask_and_wait(LONG_MS);
    ck_assert_int_ne(last, EXPERTD_OK);
    const char *problem = dht_ask(dht, &lookup, &request, LONG_MS, note);
    if (clock_now_ns() < dht->silent_until_ns)
        ck_assert_str_eq(problem, "expertd-dht did not answer");
    expertd_dht_counters(dht, &counters);
    ck_assert_uint_ge(counters.failed_lookups, 1);
    stop();
}
END_TEST

START_TEST(a_short_question_says_nothing_of_silence)
{
    start(LONG_MS, true);
    ask_and_wait(20);
    ck_assert_uint_eq(dht->silent_until_ns, 0);
    stop();
}
END_TEST

START_TEST(without_an_endpoint_nobody_is_asked)
{
    struct expertd_dht *alone;
    ck_assert_int_eq(expertd_dht_new(&alone, NULL, NULL), 0);
    ck_assert_str_eq(dht_ask(alone, &lookup, &request, LONG_MS, note), "there is no dht endpoint");
    expertd_dht_destroy(&alone);
}
END_TEST

START_TEST(what_is_known_grows_old)
{
    Expertd__Dht__Resolved resolved = EXPERTD__DHT__RESOLVED__INIT;
    start(LONG_MS, false);
    resolved.uid = uid;
    const uint64_t now_ns = clock_now_ns();
    ck_assert_ptr_null(dht_replicas(dht, uid));
    ck_assert_int_eq(replica_cache_put(&dht->cache, &resolved, now_ns), 0);
    ck_assert_ptr_nonnull(dht_replicas(dht, uid));
    dht->cache_ns = 1;
    ck_assert_ptr_null(dht_replicas(dht, uid));
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dht");
    TCase *tests = tcase_create("dht");
    tcase_add_test(tests, a_question_is_answered_and_counted);
    tcase_add_test(tests, a_silent_one_is_left_in_peace_for_a_while);
    tcase_add_test(tests, a_short_question_says_nothing_of_silence);
    tcase_add_test(tests, without_an_endpoint_nobody_is_asked);
    tcase_add_test(tests, what_is_known_grows_old);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
