#include <check.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/expertd_moe.h"
#include "client/struct_size.h"

struct options {
    size_t size;
    int first, second;
};

/* As programs have it that were compiled against a version with a field less, and one more. */
struct older {
    size_t size;
    int first;
};
struct newer {
    size_t size;
    int first, second;
    double third;
};

START_TEST(what_an_older_program_lacks_keeps_its_default)
{
    struct options own = {.size = sizeof own, .first = 1, .second = 2};
    const struct older given = {.size = offsetof(struct options, second), .first = 7};
    ck_assert_int_eq(struct_size_take(&own, sizeof own, &given), 0);
    ck_assert_int_eq(own.first, 7);
    ck_assert_int_eq(own.second, 2);
    ck_assert_uint_eq(own.size, sizeof own);
}
END_TEST

START_TEST(what_is_not_known_has_to_be_zero)
{
    struct options own = {.size = sizeof own};
    struct newer given = {.size = sizeof given, .first = 7, .second = 8};
    ck_assert_int_eq(struct_size_take(&own, sizeof own, &given), 0);
    ck_assert_int_eq(own.second, 8);
    given.third = 1;
    ck_assert_int_eq(struct_size_take(&own, sizeof own, &given), -E2BIG);
}
END_TEST

START_TEST(a_size_that_was_never_set_is_refused)
{
    static const size_t sizes[] = {0, 1, sizeof(size_t), 4097, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct options own = {.size = sizeof own, .first = 1};
        struct options given = {.size = sizes[i], .first = 7, .second = 8};
        ck_assert_int_eq(struct_size_take(&own, sizeof own, &given), -EINVAL);
        ck_assert_int_eq(own.first, 1);
        struct_size_give(&given, &own, sizeof own);
        ck_assert_int_eq(given.first, 7);
    }
}
END_TEST

START_TEST(nothing_is_written_behind_a_programs_struct)
{
    const struct options own = {.size = sizeof own, .first = 1, .second = 2};
    struct {
        struct older given;
        int canary;
    } program = {.given = {.size = offsetof(struct options, second)}, .canary = 42};
    struct newer newer = {.size = sizeof newer, .third = 3};
    struct_size_give(&program.given, &own, sizeof own);
    ck_assert_int_eq(program.given.first, 1);
    ck_assert_int_eq(program.canary, 42);
    ck_assert_uint_eq(program.given.size, offsetof(struct options, second));
    struct_size_give(&newer, &own, sizeof own);
    ck_assert_int_eq(newer.second, 2);
    ck_assert_double_eq(newer.third, 0);
}
END_TEST

START_TEST(each_options_struct_of_the_library_is_checked)
{
    struct expertd_client *client;
    struct expertd_dht *dht;
    struct expertd_mixture *mixture;
    struct expertd_client_options options;
    struct expertd_dht_options dht_options;
    struct expertd_mixture_options mixture_options;
    memset(&options, 0, sizeof options);
    memset(&dht_options, 0, sizeof dht_options);
    memset(&mixture_options, 0, sizeof mixture_options);
    ck_assert_int_eq(expertd_client_new(&client, "tcp://127.0.0.1:1", &options), -EINVAL);
    ck_assert_ptr_null(client);
    ck_assert_int_eq(expertd_dht_new(&dht, "tcp://127.0.0.1:1", &dht_options), -EINVAL);
    ck_assert_ptr_null(dht);
    expertd_dht_options_init(&dht_options);
    dht_options.client = &options;
    ck_assert_int_eq(expertd_dht_new(&dht, "tcp://127.0.0.1:1", &dht_options), -EINVAL);
    expertd_client_options_init(&options);
    ck_assert_int_eq(expertd_dht_new(&dht, "tcp://127.0.0.1:1", &dht_options), 0);
    ck_assert_int_eq(expertd_mixture_new(&mixture, dht, &mixture_options), -EINVAL);
    expertd_dht_destroy(&dht);
    ck_assert_int_eq(expertd_client_new(&client, "tcp://127.0.0.1:1", &options), 0);
    expertd_client_destroy(&client);
}
END_TEST

/* A program of a time before a field of the counters: its struct ends earlier. */
START_TEST(counters_go_as_far_as_the_program_knows_them)
{
    struct expertd_client *client;
    struct expertd_call *call;
    struct expertd_client_counters counters;
    ck_assert_int_eq(expertd_client_new(&client, "tcp://127.0.0.1:1", NULL), 0);
    ck_assert_int_eq(expertd_ping(client, 1, &call), 0);
    ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    memset(&counters, 0x55, sizeof counters);
    counters.size = offsetof(struct expertd_client_counters, in_flight);
    expertd_client_read_counters(client, &counters);
    ck_assert_uint_eq(counters.calls, 1);
    ck_assert_uint_eq(counters.in_flight, UINT64_C(0x5555555555555555));
    expertd_client_counters(client, &counters);
    ck_assert_uint_eq(counters.in_flight, 0);
    expertd_client_destroy(&client);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("struct_size");
    TCase *tests = tcase_create("struct_size");
    tcase_add_test(tests, what_an_older_program_lacks_keeps_its_default);
    tcase_add_test(tests, what_is_not_known_has_to_be_zero);
    tcase_add_test(tests, a_size_that_was_never_set_is_refused);
    tcase_add_test(tests, nothing_is_written_behind_a_programs_struct);
    tcase_add_test(tests, each_options_struct_of_the_library_is_checked);
    tcase_add_test(tests, counters_go_as_far_as_the_program_knows_them);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
