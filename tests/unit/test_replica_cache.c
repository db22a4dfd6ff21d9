#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/replica_cache.h"

static struct replica_cache cache;

static void teardown(void)
{
    replica_cache_clear(&cache);
}

/* Notes `count` replicas of a uid, at time now_ns. */
static int put(const char *uid, size_t count, const char *scheme, uint64_t now_ns)
{
    Expertd__Dht__Replica replica[32], *replicas[32];
    Expertd__Dht__Resolved resolved = EXPERTD__DHT__RESOLVED__INIT;
    char endpoints[32][64];
    for (size_t i = 0; i < count; i++) {
        expertd__dht__replica__init(&replica[i]);
        snprintf(endpoints[i], sizeof endpoints[i], "%s10.0.0.1:%zu", scheme, i);
        replica[i].endpoint = endpoints[i];
        replicas[i] = &replica[i];
    }
    resolved.uid = (char *)(uintptr_t)uid;
    resolved.replicas = replicas;
    resolved.n_replicas = count;
    return replica_cache_put(&cache, &resolved, now_ns);
}

START_TEST(what_is_put_is_got_until_it_is_old_or_forgotten)
{
    ck_assert_ptr_null(replica_cache_get(&cache, "ffn.0", 0));
    ck_assert_int_eq(put("ffn.0", 2, "tcp://", 100), 0);
    ck_assert_uint_eq(replica_cache_get(&cache, "ffn.0", 100)->count, 2);
    ck_assert_str_eq(replica_cache_get(&cache, "ffn.0", 1)->endpoints[1], "tcp://10.0.0.1:1");
    ck_assert_ptr_null(replica_cache_get(&cache, "ffn.0", 101));
    ck_assert_int_eq(put("ffn.0", 1, "tcp://", 200), 0);
    ck_assert_uint_eq(replica_cache_get(&cache, "ffn.0", 200)->count, 1);
    replica_cache_forget(&cache, "ffn.0");
    replica_cache_forget(&cache, "ffn.1");
    ck_assert_ptr_null(replica_cache_get(&cache, "ffn.0", 1));
    ck_assert_ptr_nonnull(replica_cache_get(&cache, "ffn.0", 0));
}
END_TEST

START_TEST(a_replica_s_key_is_kept_and_one_that_is_none_is_no_plain_replica)
{
    uint8_t key[32] = {1};
    Expertd__Dht__Replica replica[4], *replicas[] = {&replica[0], &replica[1], &replica[2], &replica[3]};
    Expertd__Dht__Resolved resolved = EXPERTD__DHT__RESOLVED__INIT;
    char uid[] = "ffn.0", endpoint[] = "tcp://10.0.0.1:1";
    for (int i = 0; i < 4; i++) {
        expertd__dht__replica__init(&replica[i]);
        replica[i].endpoint = endpoint;
    }
    replica[0].curve_key = (ProtobufCBinaryData){31, key};
    replica[1].curve_key = (ProtobufCBinaryData){32, key};
    resolved.uid = uid;
    resolved.replicas = replicas;
    resolved.n_replicas = 4; /* the last one is the third again */
    ck_assert_int_eq(replica_cache_put(&cache, &resolved, 1), 0);
    const struct replicas *got = replica_cache_get(&cache, "ffn.0", 1);
    ck_assert_uint_eq(got->count, 2);
    ck_assert_uint_eq(strlen(got->keys[0]), 40);
    ck_assert_str_eq(got->keys[1], "");
}
END_TEST

START_TEST(nobody_is_an_answer_too)
{
    ck_assert_int_eq(put("ffn.0", 0, "tcp://", 100), 0);
    ck_assert_uint_eq(replica_cache_get(&cache, "ffn.0", 100)->count, 0);
}
END_TEST

START_TEST(only_tcp_and_no_more_than_fit_are_kept)
{
    ck_assert_int_eq(put("ffn.0", 4, "ipc://", 1), 0);
    ck_assert_uint_eq(replica_cache_get(&cache, "ffn.0", 1)->count, 0);
    ck_assert_int_eq(put("ffn.1", 32, "tcp://", 1), 0);
    ck_assert_uint_eq(replica_cache_get(&cache, "ffn.1", 1)->count, REPLICAS_MAX);
    ck_assert_int_lt(put("no uid", 1, "tcp://", 1), 0);
}
END_TEST

START_TEST(thousands_are_kept_and_their_number_is_bounded)
{
    char uid[UID_SIZE];
    for (int i = 0; i < REPLICA_CACHE_MAX + 10; i++) {
        snprintf(uid, sizeof uid, "ffn.%d", i);
        ck_assert_int_eq(put(uid, 1, "tcp://", 1), 0);
        ck_assert_ptr_nonnull(replica_cache_get(&cache, uid, 1));
        ck_assert_uint_le(cache.count, REPLICA_CACHE_MAX);
        for (int k = 0; i == 5000 && k <= i; k++) { /* the table has grown meanwhile */
            snprintf(uid, sizeof uid, "ffn.%d", k);
            ck_assert_ptr_nonnull(replica_cache_get(&cache, uid, 1));
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replica_cache");
    TCase *tests = tcase_create("replica_cache");
    tcase_add_checked_fixture(tests, NULL, teardown);
    tcase_add_test(tests, what_is_put_is_got_until_it_is_old_or_forgotten);
    tcase_add_test(tests, a_replica_s_key_is_kept_and_one_that_is_none_is_no_plain_replica);
    tcase_add_test(tests, nobody_is_an_answer_too);
    tcase_add_test(tests, only_tcp_and_no_more_than_fit_are_kept);
    tcase_add_test(tests, thousands_are_kept_and_their_number_is_bounded);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
