#include <check.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/dht.h"

START_TEST(what_is_no_endpoint_is_refused)
{
    struct expertd_dht *dht;
    ck_assert_int_eq(expertd_dht_new(&dht, "nowhere", NULL), -EINVAL);
    ck_assert_ptr_null(dht);
    expertd_dht_destroy(&dht);
}
END_TEST

START_TEST(options_have_defaults)
{
    struct expertd_dht *dht;
    struct expertd_dht_options options;
    expertd_dht_options_init(&options);
    ck_assert_int_eq(expertd_dht_new(&dht, NULL, &options), 0);
    ck_assert_uint_eq(dht->lookup_timeout_ms, 5000);
    ck_assert_uint_eq(dht->cache_ns, UINT64_C(10000000000));
    ck_assert_uint_eq(dht->deadline_ms, 30000);
    expertd_dht_destroy(&dht);
}
END_TEST

START_TEST(the_clients_options_are_copied)
{
    struct expertd_dht *dht;
    struct expertd_dht_options options;
    struct expertd_client_options *client = malloc(sizeof *client);
    expertd_client_options_init(client);
    client->deadline_ms = 77;
    client->reply_codec = EXPERTD_CODEC_FLOAT16;
    expertd_dht_options_init(&options);
    options.client = client;
    ck_assert_int_eq(expertd_dht_new(&dht, NULL, &options), 0);
    free(client);
    ck_assert_uint_eq(dht->deadline_ms, 77);
    ck_assert_int_eq(dht->servers.options.reply_codec, EXPERTD_CODEC_FLOAT16);
    ck_assert_ptr_nonnull(dht->servers.options.zmq_context);
    expertd_dht_destroy(&dht);
    ck_assert_ptr_null(dht);
}
END_TEST

START_TEST(a_codec_that_is_none_is_refused_at_once)
{
    struct expertd_dht *dht;
    struct expertd_dht_options options;
    struct expertd_client_options client;
    expertd_client_options_init(&client);
    expertd_dht_options_init(&options);
    options.client = &client;
    client.codec = (enum expertd_codec)77;
    ck_assert_int_eq(expertd_dht_new(&dht, NULL, &options), -EINVAL);
    client.codec = EXPERTD_CODEC_BFLOAT16;
    client.reply_codec = (enum expertd_codec)7;
    ck_assert_int_eq(expertd_dht_new(&dht, NULL, &options), -EINVAL);
    ck_assert_ptr_null(dht);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("remote_dht");
    TCase *tests = tcase_create("remote_dht");
    tcase_add_test(tests, what_is_no_endpoint_is_refused);
    tcase_add_test(tests, options_have_defaults);
    tcase_add_test(tests, the_clients_options_are_copied);
    tcase_add_test(tests, a_codec_that_is_none_is_refused_at_once);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
