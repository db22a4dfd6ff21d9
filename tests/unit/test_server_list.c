#include <check.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <sys/resource.h>

#include "client/server_list.h"
#include "tests/unit/support_router.h"

static struct server_list list;

static void setup(void)
{
    const struct expertd_client_options options = {.size = sizeof options};
    ck_assert_int_eq(server_list_init(&list, &options), 0);
}

static void teardown(void)
{
    server_list_clear(&list);
}

static struct server *get(int number)
{
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", number);
    return server_list_get(&list, endpoint, "");
}

START_TEST(an_endpoint_is_one_server)
{
    struct server *first = get(1), *again = get(1), *other = get(2);
    ck_assert_ptr_eq(first, again);
    ck_assert_ptr_ne(first, other);
    ck_assert_uint_eq(first->refs, 2);
    ck_assert_uint_eq(list.count, 2);
    server_release(first);
    server_release(again);
    server_release(other);
}
END_TEST

START_TEST(what_is_no_endpoint_is_no_server)
{
    errno = 0;
    ck_assert_ptr_null(server_list_get(&list, "nowhere", ""));
    ck_assert_int_eq(errno, EINVAL);
    ck_assert_uint_eq(list.count, 0);
}
END_TEST

START_TEST(the_one_that_was_not_used_longest_is_dropped)
{
    list.kept = 3;
    for (int i = 1; i <= 3; i++) {
        struct server *server = get(i);
        server_use(&list, server);
        server_release(server);
    }
    struct server *first = get(1);
    server_use(&list, first);
    server_release(first);
    server_release(get(4)); /* 2 goes */
    ck_assert_uint_eq(list.count, 3);
    struct server *server;
    for (server = TAILQ_FIRST(&list.servers); server; server = TAILQ_NEXT(server, link))
        ck_assert_str_ne(expertd_client_endpoint(server->client), "tcp://127.0.0.1:2");
}
END_TEST

START_TEST(those_that_are_held_stay)
{
    struct server *held[5];
    list.kept = 3;
    for (int i = 0; i < 5; i++)
        held[i] = get(i + 1);
    ck_assert_uint_eq(list.count, 5);
    for (int i = 0; i < 5; i++) {
        ck_assert_ptr_eq(get(i + 1), held[i]);
        server_release(held[i]);
        server_release(held[i]);
    }
    server_release(get(9));
    ck_assert_uint_eq(list.count, 5); /* one goes, one comes */
}
END_TEST

/* Each costs descriptors, of which the program has others uses. */
START_TEST(few_descriptors_keep_few_servers)
{
    struct rlimit before, few;
    struct server_list small;
    const struct expertd_client_options options = {.size = sizeof options};
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = 200;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    ck_assert_int_eq(server_list_init(&small, &options), 0);
    ck_assert_uint_eq(small.kept, 20);
    server_list_clear(&small);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    if (before.rlim_cur >= 4096)
        ck_assert_uint_eq(list.kept, 256);
}
END_TEST

START_TEST(a_server_that_is_down_is_usable_when_it_is_back)
{
    struct router *router = router_start(NULL, router_nop, NULL);
    struct server *server = server_list_get(&list, router_endpoint(router), "");
    server->down = true;
    while (!server_usable(server))
        ; /* until the connection stands */
    ck_assert(!server->down);
    ck_assert_int_eq(server_list_timeout_ms(&list), -1); /* no call is in flight */
    server_release(server);
    router_stop(&router);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("server_list");
    TCase *tests = tcase_create("server_list");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, an_endpoint_is_one_server);
    tcase_add_test(tests, what_is_no_endpoint_is_no_server);
    tcase_add_test(tests, the_one_that_was_not_used_longest_is_dropped);
    tcase_add_test(tests, those_that_are_held_stay);
    tcase_add_test(tests, few_descriptors_keep_few_servers);
    tcase_add_test(tests, a_server_that_is_down_is_usable_when_it_is_back);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
