#include <check.h>
#include <stdio.h>
#include <string.h>

#include "frontend/peer.h"

static struct peers *peers;

static void setup(void)
{
    ck_assert_int_eq(peers_create(&peers, 4, 1000), 0);
}

static void teardown(void)
{
    peers_destroy(&peers);
    peers_destroy(&peers);
}

static struct peer *find(int number)
{
    char id[16];
    snprintf(id, sizeof id, "peer %d", number);
    return peers_find(peers, id, strlen(id));
}

START_TEST(a_peer_is_found_again_by_its_id)
{
    struct peer *first = find(1), *second = find(2);
    ck_assert_ptr_ne(first, second);
    ck_assert_ptr_eq(find(1), first);
    ck_assert_uint_eq(first->references, 2);
    ck_assert_uint_eq(peers_count(peers), 2);
    ck_assert_ptr_null(peers_find(peers, "", 0));
}
END_TEST

START_TEST(idle_peers_are_forgotten_and_others_are_not)
{
    struct peer *busy = find(0), *charged = find(1);
    peer_release(charged);
    ck_assert(peer_charge(peers, charged, 10));
    for (int i = 2; i < 1000; i++)
        peer_release(find(i));
    ck_assert_uint_le(peers_count(peers), 7);
    ck_assert_ptr_eq(find(0), busy);
    ck_assert_ptr_eq(find(1), charged);
    ck_assert_uint_eq(atomic_load(&charged->unsent), 10);
    peer_credit(charged, 10);
}
END_TEST

START_TEST(a_peer_that_does_not_read_gets_a_share_only)
{
    struct peer *greedy = find(0), *other = find(1);
    size_t granted = 0;
    while (peer_charge(peers, greedy, 10))
        granted += 10;
    ck_assert_uint_eq(granted, 200); /* a fifth */
    ck_assert_uint_eq(peers_unsent(peers), granted);
    ck_assert(peer_charge(peers, other, 100));
    peer_credit(greedy, granted);
    peer_credit(other, 100);
    ck_assert_uint_eq(peers_unsent(peers), 0);
    ck_assert(peer_charge(peers, greedy, 10));
}
END_TEST

START_TEST(one_reply_is_always_allowed)
{
    struct peer *peer = find(0);
    ck_assert(peer_charge(peers, peer, 5000));
    ck_assert(!peer_charge(peers, peer, 1));
    ck_assert(peer_charge(peers, find(1), 5000));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("peer");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_peer_is_found_again_by_its_id);
    tcase_add_test(all, idle_peers_are_forgotten_and_others_are_not);
    tcase_add_test(all, a_peer_that_does_not_read_gets_a_share_only);
    tcase_add_test(all, one_reply_is_always_allowed);
    Suite *suite = suite_create("peer");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
