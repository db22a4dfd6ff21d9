#include <check.h>
#include <stdio.h>
#include <string.h>

#include "dht_world.h"

enum { KEYS = 400 };

static struct fetcher fetcher;
static struct fetch fetches[KEYS];
static char keys[KEYS][16];
static struct moment now;
static size_t gets, listens;
static int listening;

static int get(void *context, const char *key, uint64_t token)
{
    (void)context;
    (void)key;
    (void)token;
    gets++;
    return 0;
}

static int listen_to(void *context, const char *key, uint64_t token, void **handle)
{
    (void)context;
    (void)key;
    (void)token;
    *handle = &listening;
    listens++;
    return 0;
}

static void unlisten(void *context, void **handle)
{
    (void)context;
    *handle = NULL;
    listens--;
}

static void setup(void)
{
    const struct fetch_engine engine = {NULL, get, listen_to, unlisten, NULL};
    memset(fetches, 0, sizeof fetches);
    gets = listens = 0;
    now = (struct moment){1000 * NS_PER_S, 1700000000000};
    fetcher_init(&fetcher, &engine, UINT64_C(7) << 56);
    for (int i = 0; i < KEYS; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d.", i);
        ck_assert_int_eq(fetch_start(&fetcher, &fetches[i], keys[i]), 0);
    }
}

static void teardown(void)
{
    for (int i = 0; i < KEYS; i++)
        fetch_stop(&fetcher, &fetches[i]);
    ck_assert_uint_eq(listens, 0);
    ck_assert_uint_eq(fetcher.window, 0);
    fetcher_destroy(&fetcher);
}

static void pass(uint64_t ms)
{
    now.ns += ms * NS_PER_MS;
    for (int i = 0; i < KEYS; i++)
        fetch_tick(&fetcher, &fetches[i], now);
    fetcher_step(&fetcher, now);
}

static void want(int first, int end)
{
    for (int i = first; i < end; i++)
        fetch_want(&fetcher, &fetches[i], now);
    fetcher_step(&fetcher, now);
}

static void hear(struct fetch *fetch, unsigned values)
{
    for (unsigned i = 0; i < values; i++)
        fetch_heard(&fetcher, fetch, true, now);
}

START_TEST(a_get_that_ends_soon_is_sure)
{
    want(0, 1);
    ck_assert_uint_eq(gets, 1);
    hear(&fetches[0], 3);
    pass(20);
    ck_assert(!fetches[0].sure);
    fetch_ended(&fetcher, &fetches[0], true, now);
    ck_assert(fetches[0].sure && !fetches[0].unconfirmed);
    ck_assert_uint_eq(fetches[0].expected, 3);
    fetch_want(&fetcher, &fetches[0], now);
    fetcher_step(&fetcher, now);
    ck_assert_uint_eq(gets, 1);
}
END_TEST

START_TEST(a_get_that_ends_late_is_sure_when_another_brings_nothing_new)
{
    want(0, 1);
    hear(&fetches[0], 1);
    pass(FETCH_CALM_MS);
    fetch_ended(&fetcher, &fetches[0], true, now);
    ck_assert(!fetches[0].sure);
    pass(50);
    ck_assert_uint_eq(gets, 2);
    hear(&fetches[0], 1);
    pass(FETCH_CALM_MS);
    fetch_ended(&fetcher, &fetches[0], true, now);
    ck_assert(!fetches[0].sure);
    pass(100);
    ck_assert_uint_eq(gets, 3);
    fetch_heard(&fetcher, &fetches[0], false, now);
    pass(FETCH_CALM_MS);
    fetch_ended(&fetcher, &fetches[0], true, now);
    ck_assert(fetches[0].sure);
}
END_TEST

START_TEST(a_get_that_goes_on_is_sure_when_asking_again_has_brought_nothing)
{
    want(0, 2);
    hear(&fetches[0], 1);
    pass(500);
    hear(&fetches[0], 1);
    pass(FETCH_QUIET_MS - 1);
    ck_assert(!fetches[0].sure);
    pass(1);
    ck_assert(fetches[0].sure && !fetches[0].unconfirmed);
    ck_assert(!fetches[1].sure); /* nothing at all is another matter */
    ck_assert_int_eq(fetches[0].state, FETCH_RUNNING);
    fetch_ended(&fetcher, &fetches[0], true, now);
    ck_assert_int_eq(fetches[0].state, FETCH_IDLE);
    ck_assert_uint_eq(gets, 2);
}
END_TEST

START_TEST(that_there_is_nothing_is_asked_twice)
{
    want(0, 1);
    fetch_ended(&fetcher, &fetches[0], true, now);
    ck_assert(!fetches[0].sure);
    pass(50);
    ck_assert_uint_eq(gets, 2);
    fetch_ended(&fetcher, &fetches[0], true, now);
    ck_assert(fetches[0].sure);
}
END_TEST

START_TEST(a_get_that_never_ends_is_given_up)
{
    want(0, 1);
    for (int i = 0; i < FETCH_ATTEMPTS; i++) {
        pass(FETCH_BURST_MS);
        pass(20000);
        pass(1000);
    }
    ck_assert_uint_eq(gets, FETCH_ATTEMPTS);
    ck_assert(fetches[0].sure && fetches[0].unconfirmed);
    fetch_again(&fetcher, &fetches[0], now);
    ck_assert(!fetches[0].sure);
}
END_TEST

START_TEST(so_many_values_are_under_way_at_once)
{
    for (int i = 0; i < KEYS; i++)
        fetches[i].expected = 31;
    want(0, KEYS);
    ck_assert_uint_eq(gets, FETCH_WINDOW / 32);
    fetch_ended(&fetcher, &fetches[0], false, now);
    fetcher_step(&fetcher, now);
    ck_assert_uint_eq(gets, FETCH_WINDOW / 32 + 1);
    pass(FETCH_BURST_MS); /* whatever has not come by then comes one by one */
    ck_assert_uint_eq(gets, 2 * (FETCH_WINDOW / 32) + 1);
}
END_TEST

START_TEST(one_that_is_larger_than_the_window_runs_alone)
{
    fetches[0].expected = fetches[1].expected = 10 * FETCH_WINDOW;
    fetcher.nodes = 1000;
    pass(1000);
    want(0, 3);
    ck_assert_uint_eq(gets, 1);
    pass(FETCH_BURST_MS);
    ck_assert_uint_eq(gets, 2);
    pass(FETCH_BURST_MS);
    ck_assert_uint_eq(gets, 3);
}
END_TEST

START_TEST(no_more_are_asked_for_than_the_nodes_take)
{
    want(0, KEYS);
    for (int i = 0; i < 100; i++) {
        for (int k = 0; k < KEYS; k++)
            if (fetches[k].state == FETCH_RUNNING) {
                hear(&fetches[k], 9);
                fetch_ended(&fetcher, &fetches[k], true, now);
            }
        fetcher_step(&fetcher, now);
    }
    ck_assert_uint_ge(gets, FETCH_RATE / 10);
    ck_assert_uint_le(gets, FETCH_RATE / 10 + FETCH_WINDOW);
    const size_t before = gets;
    const uint64_t due_ns = fetcher_step(&fetcher, now);
    ck_assert_uint_lt(due_ns, now.ns + 10 * NS_PER_S);
    now.ns = due_ns;
    fetcher_step(&fetcher, now);
    ck_assert_uint_gt(gets, before);
}
END_TEST

START_TEST(what_is_queued_can_be_dropped)
{
    for (int i = 0; i < 2; i++)
        fetches[i].expected = FETCH_WINDOW;
    want(0, 2);
    ck_assert_int_eq(fetches[1].state, FETCH_QUEUED);
    fetch_drop(&fetcher, &fetches[1], now);
    pass(FETCH_BURST_MS);
    ck_assert_uint_eq(gets, 1);
}
END_TEST

START_TEST(listening_waits_for_a_pause_but_not_for_ever)
{
    want(0, 1);
    for (int i = 10; i < 30; i++)
        fetch_listen(&fetcher, &fetches[i], now);
    fetch_listen(&fetcher, &fetches[10], now);
    pass(10);
    ck_assert_uint_eq(listens, 0);
    pass(FETCH_BURST_MS);
    ck_assert_uint_gt(listens, 0);
    ck_assert_uint_lt(listens, 20); /* a few at a time */
    for (int i = 0; i < 20; i++)
        pass(5);
    ck_assert_uint_eq(listens, 20);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("fetch");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_get_that_ends_soon_is_sure);
    tcase_add_test(all, a_get_that_ends_late_is_sure_when_another_brings_nothing_new);
    tcase_add_test(all, a_get_that_goes_on_is_sure_when_asking_again_has_brought_nothing);
    tcase_add_test(all, that_there_is_nothing_is_asked_twice);
    tcase_add_test(all, a_get_that_never_ends_is_given_up);
    tcase_add_test(all, so_many_values_are_under_way_at_once);
    tcase_add_test(all, one_that_is_larger_than_the_window_runs_alone);
    tcase_add_test(all, no_more_are_asked_for_than_the_nodes_take);
    tcase_add_test(all, what_is_queued_can_be_dropped);
    tcase_add_test(all, listening_waits_for_a_pause_but_not_for_ever);
    return world_run(all, "fetch");
}
