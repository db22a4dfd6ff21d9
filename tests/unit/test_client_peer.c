#include <check.h>
#include <stdio.h>
#include <string.h>

#include "frontend/client_peer.h"

static struct client_peers *peers;

static void setup(void)
{
    ck_assert_int_eq(client_peers_create(&peers, 4, 1000), 0);
}

static void teardown(void)
{
    client_peers_destroy(&peers);
    client_peers_destroy(&peers);
}

static struct client_peer *find(int number)
{
    char id[16];
    snprintf(id, sizeof id, "peer %d", number);
    return client_peers_find(peers, id, strlen(id));
}

START_TEST(a_peer_is_found_again_by_its_id)
{
    struct client_peer *first = find(1), *second = find(2);
    ck_assert_ptr_ne(first, second);
    ck_assert_ptr_eq(find(1), first);
    ck_assert_uint_eq(first->references, 2);
    ck_assert_uint_eq(client_peers_count(peers), 2);
    ck_assert_ptr_null(client_peers_find(peers, "", 0));
}
END_TEST

START_TEST(idle_peers_are_forgotten_and_others_are_not)
{
    struct client_peer *busy = find(0), *charged = find(1);
    client_peer_release(charged);
    ck_assert(client_peer_charge(peers, charged, 10));
    for (int i = 2; i < 1000; i++)
        client_peer_release(find(i));
    ck_assert_uint_le(client_peers_count(peers), 7);
    ck_assert_ptr_eq(find(0), busy);
    ck_assert_ptr_eq(find(1), charged);
    ck_assert_uint_eq(atomic_load(&charged->unsent), 10);
    client_peer_credit(charged, 10);
}
END_TEST

START_TEST(a_peer_that_does_not_read_gets_a_share_only)
{
    struct client_peer *greedy = find(0), *other = find(1);
    size_t granted = 0;
    while (client_peer_charge(peers, greedy, 10))
        granted += 10;
    ck_assert_uint_eq(granted, 200); /* a fifth */
    ck_assert_uint_eq(client_peers_unsent(peers), granted);
    ck_assert(client_peer_charge(peers, other, 100));
    client_peer_credit(greedy, granted);
    client_peer_credit(other, 100);
    ck_assert_uint_eq(client_peers_unsent(peers), 0);
    ck_assert(client_peer_charge(peers, greedy, 10));
}
END_TEST

START_TEST(one_reply_is_always_allowed)
{
    struct client_peer *peer = find(0);
    ck_assert(client_peer_charge(peers, peer, 5000));
    ck_assert(!client_peer_charge(peers, peer, 1));
    ck_assert(client_peer_charge(peers, find(1), 5000));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("client_peer");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_peer_is_found_again_by_its_id);
    tcase_add_test(all, idle_peers_are_forgotten_and_others_are_not);
    tcase_add_test(all, a_peer_that_does_not_read_gets_a_share_only);
    tcase_add_test(all, one_reply_is_always_allowed);
    Suite *suite = suite_create("client_peer");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
