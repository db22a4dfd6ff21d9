/* The table of a server's other frontends, and of what is known to be where. */
#include <check.h>

#include "client/siblings.h"

START_TEST(a_server_cannot_open_connections_without_end)
{
    static const char endpoint[] = "ipc:///tmp/expertd-nowhere";
    struct siblings siblings;
    struct expertd_client_options options;
    struct expertd_client *first = (struct expertd_client *)&siblings; /* only its address is looked at */
    expertd_client_options_init(&options);
    ck_assert_int_eq(siblings_init(&siblings, &options), 0);
    ck_assert(!siblings_may_add(&siblings, "tcp://10.0.0.1:1", "ipc:///run/x")); /* of this host */
    ck_assert(!siblings_may_add(&siblings, "tcp://127.0.0.1:1", "inproc://x"));
    ck_assert(siblings_may_add(&siblings, "tcp://127.0.0.1:1", endpoint));
    ck_assert_ptr_null(siblings_at(&siblings, endpoint));
    siblings_add(&siblings, first, endpoint);
    ck_assert_ptr_eq(siblings_at(&siblings, endpoint), first);
    ck_assert_ptr_null(siblings_at(&siblings, "ipc:///tmp/expertd-more"));
    while (siblings.count < SIBLINGS_MAX)
        siblings_add(&siblings, first, endpoint);
    ck_assert(!siblings_may_add(&siblings, "tcp://127.0.0.1:1", "ipc:///tmp/expertd-more"));
    siblings_clear(&siblings);
}
END_TEST

START_TEST(an_expert_is_where_it_was_the_last_time)
{
    struct siblings siblings;
    struct expertd_client_options options;
    struct expertd_client *first = (struct expertd_client *)&siblings;
    expertd_client_options_init(&options);
    ck_assert_int_eq(siblings_init(&siblings, &options), 0);
    ck_assert_ptr_null(siblings_find(&siblings, 1));
    siblings_learn(&siblings, 1, NULL);
    siblings_learn(&siblings, 1, first);
    ck_assert_ptr_eq(siblings_find(&siblings, 1), first);
    ck_assert_ptr_null(siblings_find(&siblings, 4097));
    siblings_learn(&siblings, 4097, NULL); /* another one's is not forgotten with it */
    ck_assert_ptr_eq(siblings_find(&siblings, 1), first);
    siblings_learn(&siblings, 1, NULL);
    ck_assert_ptr_null(siblings_find(&siblings, 1));
    siblings_clear(&siblings);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("siblings");
    TCase *tests = tcase_create("siblings");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, a_server_cannot_open_connections_without_end);
    tcase_add_test(tests, an_expert_is_where_it_was_the_last_time);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
