#include <check.h>
#include <stdio.h>
#include <string.h>

#include "frontend/client_peer.h"
#include "frontend/device_link.h"
#include "frontend/share.h"

enum { MOST = 64 };
static struct shares *shares;
static struct client_peers *peers;
static struct pool_link links[8];

static void setup(void)
{
    memset(links, 0, sizeof links);
    ck_assert_int_eq(shares_create(&shares, MOST), 0);
    ck_assert_int_eq(client_peers_create(&peers, 4, 1000), 0);
}

static void teardown(void)
{
    shares_destroy(&shares);
    shares_destroy(&shares);
    client_peers_destroy(&peers);
}

static struct client_peer *find(int number)
{
    char id[16];
    snprintf(id, sizeof id, "peer %d", number);
    return client_peers_find(peers, id, strlen(id));
}

START_TEST(tasks_and_rows_are_counted_for_each_client_in_each_pool)
{
    struct client_peer *a = find(1), *b = find(2);
    ck_assert_ptr_null(shares_find(shares, &links[0], a));
    struct share *first = shares_charge(shares, &links[0], a, 3);
    ck_assert_ptr_eq(shares_charge(shares, &links[0], a, 4), first);
    ck_assert_ptr_eq(shares_find(shares, &links[0], a), first);
    ck_assert_uint_eq(first->tasks, 2);
    ck_assert_uint_eq(first->rows, 7);
    ck_assert_ptr_null(shares_find(shares, &links[1], a));
    ck_assert_ptr_null(shares_find(shares, &links[0], b));
    struct share *second = shares_charge(shares, &links[0], b, 1);
    ck_assert_ptr_ne(second, first);
    ck_assert_uint_eq(links[0].clients, 2);
    ck_assert_uint_eq(links[0].held_rows, 8);
    shares_credit(shares, first, 3);
    ck_assert_uint_eq(first->rows, 4);
    ck_assert_uint_eq(links[0].clients, 2);
    shares_credit(shares, first, 4);
    shares_credit(shares, second, 1);
    ck_assert_ptr_null(shares_find(shares, &links[0], a));
    ck_assert_uint_eq(links[0].clients, 0);
    ck_assert_uint_eq(links[0].held_rows, 0);
}
END_TEST

START_TEST(a_share_holds_its_client)
{
    struct client_peer *a = find(1);
    client_peer_release(a);
    struct share *share = shares_charge(shares, &links[0], a, 1);
    ck_assert_uint_eq(a->references, 1);
    shares_charge(shares, &links[0], a, 1);
    ck_assert_uint_eq(a->references, 1);
    shares_credit(shares, share, 1);
    shares_credit(shares, share, 1);
    ck_assert_uint_eq(a->references, 0);
}
END_TEST

START_TEST(shares_are_used_again_in_any_order)
{
    struct share *made[MOST];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MOST; i++)
            made[i] = shares_charge(shares, &links[i % 8], find(i / 8), (uint32_t)i + 1);
        for (int i = 0; i < MOST; i++)
            ck_assert_uint_eq(shares_find(shares, &links[i % 8], find(i / 8))->rows, (uint32_t)i + 1);
        for (int i = 0; i < MOST; i++)
            shares_credit(shares, made[(i * 29 + round) % MOST], (uint32_t)((i * 29 + round) % MOST) + 1);
        for (int i = 0; i < 8; i++)
            ck_assert_uint_eq(links[i].clients + links[i].held_rows, 0);
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("share");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, tasks_and_rows_are_counted_for_each_client_in_each_pool);
    tcase_add_test(all, a_share_holds_its_client);
    tcase_add_test(all, shares_are_used_again_in_any_order);
    Suite *suite = suite_create("share");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
