#include <check.h>
#include <errno.h>
#include <math.h>

#include "examples/digits/middle.h"

/* The calls are tested where real servers are (tests/system/test_mixture.sh); here, what is the example's own. */
enum { WIDTH = 3 };

static const uint32_t grid[] = {2, 4};
static struct expertd_dht *dht;
static struct middle middle;

static struct expertd_mixture_options options_of(bool is_switch)
{
    struct expertd_mixture_options options;
    (is_switch ? expertd_switch_options_init : expertd_mixture_options_init)(&options);
    options.in_features = WIDTH;
    options.grid_size = grid;
    options.n_grid = 2;
    options.prefix = "ffn.";
    options.forward_timeout_ms = 50;
    options.seed = 5;
    return options;
}

static struct expertd_gate *gate_of(bool is_switch)
{
    return is_switch ? expertd_switch_gate(middle.sparse) : expertd_mixture_gate(middle.mixture);
}

/* Nobody listens there. */
static void setup(void)
{
    ck_assert_int_eq(expertd_dht_new(&dht, "ipc:///nonexistent/expertd-dht", NULL), 0);
}

static void teardown(void)
{
    middle_destroy(&middle);
    expertd_dht_destroy(&dht);
}

/* _i: whether it is a switch. Adam's first step is the learning rate, against the gradient's sign. */
START_TEST(a_step_moves_the_gate_against_its_gradients_which_are_zero_then)
{
    struct expertd_mixture_options options = options_of(_i);
    ck_assert_int_eq(middle_create(&middle, dht, &options, _i, 0.1F), 0);
    struct expertd_gate *gate = gate_of(_i);
    ck_assert_uint_eq(gate->n_scores, 6);
    float weight = gate->weight[4], other = gate->weight[7], bias = gate->bias[5];
    gate->weight_grad[4] = 2;
    gate->bias_grad[5] = -0.5F;
    ck_assert_int_eq(middle_step(&middle, 0.01F), 0);
    ck_assert_float_eq_tol(gate->weight[4], weight - 0.01F, 1e-5);
    ck_assert_float_eq(gate->weight[7], other);
    ck_assert_float_eq_tol(gate->bias[5], bias + 0.01F, 1e-5);
    ck_assert_float_eq(gate->weight_grad[4], 0);
    ck_assert_float_eq(gate->bias_grad[5], 0);
}
END_TEST

START_TEST(a_gradient_that_is_not_finite_makes_no_step_and_is_gone)
{
    struct expertd_mixture_options options = options_of(_i);
    ck_assert_int_eq(middle_create(&middle, dht, &options, _i, 0.1F), 0);
    struct expertd_gate *gate = gate_of(_i);
    float weight = gate->weight[0];
    gate->weight_grad[0] = 1;
    gate->bias_grad[0] = NAN;
    ck_assert_int_eq(middle_step(&middle, 0.01F), -EDOM);
    ck_assert_float_eq(gate->weight[0], weight);
    ck_assert_float_eq(gate->weight_grad[0], 0);
    ck_assert_float_eq(gate->bias_grad[0], 0);
}
END_TEST

START_TEST(a_forward_without_any_dht_is_unavailable_and_says_so)
{
    float x[WIDTH] = {1, 2, 3}, y[WIDTH];
    struct expertd_pass *pass;
    struct expertd_mixture_options options = options_of(_i);
    ck_assert_int_eq(middle_create(&middle, dht, &options, _i, 0.1F), 0);
    ck_assert_int_eq(middle_forward(&middle, x, 1, y, &pass), EXPERTD_UNAVAILABLE);
    ck_assert_ptr_null(pass);
    ck_assert_str_ne(middle_message(&middle), "");
}
END_TEST

START_TEST(options_that_make_no_sense_are_refused)
{
    struct expertd_mixture_options options = options_of(_i);
    options.prefix = NULL;
    ck_assert_int_eq(middle_create(&middle, dht, &options, _i, 0.1F), -EINVAL);
    ck_assert_ptr_null(middle.mixture);
    ck_assert_ptr_null(middle.sparse);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("middle");
    TCase *tests = tcase_create("middle");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, a_step_moves_the_gate_against_its_gradients_which_are_zero_then, 0, 2);
    tcase_add_loop_test(tests, a_gradient_that_is_not_finite_makes_no_step_and_is_gone, 0, 2);
    tcase_add_loop_test(tests, a_forward_without_any_dht_is_unavailable_and_says_so, 0, 2);
    tcase_add_loop_test(tests, options_that_make_no_sense_are_refused, 0, 2);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
