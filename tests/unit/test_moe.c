#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "client/moe.h"
#include "client/struct_size.h"

static struct expertd_dht *dht;
static struct expertd_mixture_options options;
static const uint32_t grid[] = {3, 4};

static void setup(void)
{
    ck_assert_int_eq(expertd_dht_new(&dht, "tcp://127.0.0.1:1", NULL), 0);
    expertd_mixture_options_init(&options);
    options.in_features = 5;
    options.grid_size = grid;
    options.n_grid = 2;
    options.prefix = "ffn.";
    options.seed = 3;
}

static void teardown(void)
{
    expertd_dht_destroy(&dht);
}

START_TEST(options_are_copied_with_what_they_point_to)
{
    struct moe moe;
    uint32_t own_grid[] = {3, 4};
    char prefix[] = "ffn.";
    options.grid_size = own_grid;
    options.prefix = prefix;
    ck_assert_int_eq(moe_init(&moe, dht, &options), 0);
    own_grid[0] = 99;
    prefix[0] = 'x';
    ck_assert_uint_eq(moe.options.grid_size[0], 3);
    ck_assert_str_eq(moe.options.prefix, "ffn.");
    ck_assert_uint_eq(moe.options.out_features, 5);
    ck_assert_uint_eq(moe.gate.n_scores, 7);
    moe_clear(&moe);
}
END_TEST

START_TEST(the_gate_starts_within_its_bound_and_by_its_seed)
{
    struct moe a, b;
    ck_assert_int_eq(moe_init(&a, dht, &options), 0);
    ck_assert_int_eq(moe_init(&b, dht, &options), 0);
    for (size_t i = 0; i < 7 * 5; i++) {
        ck_assert(fabsf(a.gate.weight[i]) <= 1 / sqrtf(5));
        ck_assert_float_eq(a.gate.weight[i], b.gate.weight[i]);
        ck_assert_float_eq(a.gate.weight_grad[i], 0);
    }
    moe_clear(&a);
    moe_clear(&b);
}
END_TEST

START_TEST(random_numbers_are_uniform)
{
    struct moe moe = {.random = 1};
    double sum = 0;
    for (int i = 0; i < 10000; i++) {
        const double number = moe_random(&moe);
        ck_assert(number >= 0 && number < 1);
        sum += number;
    }
    ck_assert_double_eq_tol(sum / 10000, 0.5, 0.02);
}
END_TEST

START_TEST(what_is_not_finite_is_found)
{
    float x[100] = {0};
    ck_assert(moe_all_finite(x, 100));
    x[99] = NAN;
    ck_assert(!moe_all_finite(x, 100));
    ck_assert(moe_all_finite(x, 99));
    x[0] = -INFINITY;
    ck_assert(!moe_all_finite(x, 1));
    ck_assert(moe_all_finite(x, 0));
}
END_TEST

/* An older program's options end before the last fields; these keep their defaults. */
START_TEST(options_of_an_older_program_are_taken)
{
    struct moe moe;
    options.grid_dropout = -1; /* nonsense, but not seen */
    options.jitter_eps = -1;
    options.size = offsetof(struct expertd_mixture_options, grid_dropout);
    ck_assert_int_eq(moe_init(&moe, dht, &options), 0);
    ck_assert_float_eq(moe.options.grid_dropout, 1);
    ck_assert_float_eq(moe.options.jitter_eps, 0.01F);
    moe_clear(&moe);
    options.size = sizeof options;
    ck_assert_int_eq(moe_init(&moe, dht, &options), -EINVAL);
    moe_clear(&moe);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("moe");
    TCase *tests = tcase_create("moe");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, options_are_copied_with_what_they_point_to);
    tcase_add_test(tests, the_gate_starts_within_its_bound_and_by_its_seed);
    tcase_add_test(tests, random_numbers_are_uniform);
    tcase_add_test(tests, what_is_not_finite_is_found);
    tcase_add_test(tests, options_of_an_older_program_are_taken);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
