#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "client/moe_route.h"
#include "common/clock.h"
#include "tests/unit/support_experts.h"

enum { ROWS = 6, A = 3, B = 4, SCORES = A + B };

static struct fake_dht known;
static struct experts server;
static struct expertd_dht *dht;
static struct moe moe;
static struct moe_route route;
static float scores[ROWS * SCORES];

static void setup(void)
{
    static const uint32_t grid[] = {A, B};
    struct expertd_mixture_options options;
    char uid[32];
    memset(&known, 0, sizeof known);
    memset(&server, 0, sizeof server);
    memset(&route, 0, sizeof route);
    fake_dht_start(&known);
    experts_start(&server, NULL);
    for (int a = 0; a < A; a++)
        for (int b = 0; b < B; b++) {
            snprintf(uid, sizeof uid, "ffn.%d.%d", a, b);
            fake_dht_add(&known, uid, router_endpoint(server.router));
        }
    ck_assert_int_eq(expertd_dht_new(&dht, router_endpoint(known.router), NULL), 0);
    expertd_mixture_options_init(&options);
    options.in_features = 2;
    options.grid_size = grid;
    options.n_grid = 2;
    options.prefix = "ffn.";
    options.k_best = 3;
    ck_assert_int_eq(moe_init(&moe, dht, &options), 0);
    for (int i = 0; i < ROWS * SCORES; i++)
        scores[i] = (float)((i * 37) % 23) / 7;
}

static void teardown(void)
{
    moe_route_clear(&route);
    moe_clear(&moe);
    expertd_dht_destroy(&dht);
    fake_dht_stop(&known);
    experts_stop(&server);
}

static enum expertd_status find(void)
{
    return moe_route_find(&route, &moe, scores, ROWS, clock_now_ns() + 500000 * NS_PER_MS);
}

START_TEST(each_row_gets_its_best_experts_in_order)
{
    ck_assert_int_eq(find(), EXPERTD_OK);
    size_t counted = 0;
    for (size_t r = 0; r < ROWS; r++) {
        float before = INFINITY;
        for (size_t s = 0; s < route.k; s++) {
            const uint32_t expert = route.slots[r * route.k + s];
            ck_assert_uint_ne(expert, MOE_NO_EXPERT);
            const float score = moe_route_score(&route, expert, scores + r * SCORES);
            ck_assert(score <= before);
            before = score;
        }
        /* No expert that was not chosen has a better score than the last that was. */
        int better = 0;
        for (size_t a = 0; a < A; a++)
            for (size_t b = 0; b < B; b++)
                better += scores[r * SCORES + a] + scores[r * SCORES + A + b] > before;
        ck_assert_int_le(better, (int)route.k - 1);
    }
    for (size_t e = 0; e < route.n_experts; e++)
        counted += route.experts[e].n_rows;
    ck_assert_uint_eq(counted, ROWS * route.k);
}
END_TEST

START_TEST(what_must_never_be_chosen_is_not)
{
    for (size_t r = 0; r < ROWS; r++)
        for (size_t a = 1; a < A; a++)
            scores[r * SCORES + a] = -INFINITY;
    ck_assert_int_eq(find(), EXPERTD_OK);
    for (size_t e = 0; e < route.n_experts; e++)
        ck_assert(route.experts[e].n_rows == 0 || strncmp(route.experts[e].uid, "ffn.0.", 6) == 0);
}
END_TEST

START_TEST(fewer_experts_than_wanted_leave_slots_empty)
{
    fake_dht_remove(&known, NULL);
    fake_dht_add(&known, "ffn.1.2", router_endpoint(server.router));
    ck_assert_int_eq(find(), EXPERTD_OK);
    ck_assert_uint_eq(route.n_experts, 1);
    for (size_t r = 0; r < ROWS; r++) {
        ck_assert_uint_eq(route.slots[r * route.k], 0);
        ck_assert_uint_eq(route.slots[r * route.k + 1], MOE_NO_EXPERT);
    }
}
END_TEST

START_TEST(nobody_to_ask_is_unavailable)
{
    known.silent = true;
    ck_assert_int_eq(moe_route_find(&route, &moe, scores, ROWS, clock_now_ns() + 50 * NS_PER_MS), EXPERTD_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(moe.message, "beam search: "));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("moe_route");
    TCase *tests = tcase_create("moe_route");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, each_row_gets_its_best_experts_in_order);
    tcase_add_test(tests, what_must_never_be_chosen_is_not);
    tcase_add_test(tests, fewer_experts_than_wanted_leave_slots_empty);
    tcase_add_test(tests, nobody_to_ask_is_unavailable);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
