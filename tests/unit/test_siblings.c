/* The table of a server's other frontends, and of what is known to be where. */
#include <check.h>

#include "client/siblings.h"

START_TEST(a_server_cannot_open_connections_without_end)
{
    struct siblings siblings;
    struct expertd_client_options options;
    bool made;
    expertd_client_options_init(&options);
    ck_assert_int_eq(siblings_init(&siblings, &options), 0);
    ck_assert_ptr_null(siblings_get(&siblings, "tcp://10.0.0.1:1", "ipc:///run/x", NULL, &made)); /* of this host */
    ck_assert_ptr_null(siblings_find(&siblings, 1));
    siblings_learn(&siblings, 1, NULL);
    struct expertd_client *first =
        siblings_get(&siblings, "tcp://127.0.0.1:1", "ipc:///tmp/expertd-nowhere", NULL, &made);
    ck_assert_ptr_nonnull(first);
    ck_assert(made);
    ck_assert_ptr_eq(siblings_get(&siblings, "tcp://127.0.0.1:1", "ipc:///tmp/expertd-nowhere", NULL, &made), first);
    ck_assert(!made);
    siblings_learn(&siblings, 1, first);
    ck_assert_ptr_eq(siblings_find(&siblings, 1), first);
    ck_assert_ptr_null(siblings_find(&siblings, 4097));
    siblings_learn(&siblings, 4097, NULL); /* another one's is not forgotten with it */
    ck_assert_ptr_eq(siblings_find(&siblings, 1), first);
    for (siblings.count = 0; siblings.count < SIBLINGS_MAX; siblings.count++)
        siblings.clients[siblings.count] = first;
    ck_assert_ptr_null(siblings_get(&siblings, "tcp://127.0.0.1:1", "ipc:///tmp/expertd-more", NULL, &made));
    siblings.count = 1;
    siblings_clear(&siblings);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("siblings");
    TCase *tests = tcase_create("siblings");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, a_server_cannot_open_connections_without_end);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
