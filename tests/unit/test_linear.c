#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "examples/digits/linear.h"

enum { IN = 5, OUT = 4, ROWS = 3 };

static const uint8_t labels[ROWS] = {0, 3, 2};

static void inputs(float x[ROWS * IN])
{
    for (int i = 0; i < ROWS * IN; i++) {
        x[i] = sinf((float)i);
    }
}

static double loss_of(const struct linear *layer, const float *x)
{
    float logits[ROWS * OUT];
    size_t right;
    linear_forward(layer, x, ROWS, logits);
    return linear_cross_entropy(logits, labels, ROWS, OUT, &right);
}

START_TEST(forward_is_x_times_w_transposed_plus_b)
{
    struct linear layer;
    ck_assert_int_eq(linear_create(&layer, 2, 3, 1), 0);
    static const float weight[6] = {1, 2, 3, 4, 5, 6}, bias[3] = {10, 20, 30}, x[4] = {1, -1, 0.5F, 2};
    memcpy(layer.weight, weight, sizeof weight);
    memcpy(layer.bias, bias, sizeof bias);
    static const float expected[6] = {9, 19, 29, 14.5F, 29.5F, 44.5F};
    float y[6];
    linear_forward(&layer, x, 2, y);
    for (int i = 0; i < 6; i++) {
        ck_assert_float_eq(y[i], expected[i]);
    }
    linear_destroy(&layer);
    linear_destroy(&layer);
}
END_TEST

START_TEST(initial_weights_are_bounded_and_come_from_the_seed)
{
    struct linear a, b, c;
    ck_assert_int_eq(linear_create(&a, 64, 32, 7), 0);
    ck_assert_int_eq(linear_create(&b, 64, 32, 7), 0);
    ck_assert_int_eq(linear_create(&c, 64, 32, 8), 0);
    ck_assert_mem_eq(a.weight, b.weight, a.count * sizeof(float));
    ck_assert_int_ne(memcmp(a.weight, c.weight, a.count * sizeof(float)), 0);
    float largest = 0;
    for (size_t i = 0; i < a.count; i++) {
        largest = fmaxf(largest, fabsf(a.weight[i]));
    }
    ck_assert_float_le(largest, 1.0F / 8);
    ck_assert_float_gt(largest, 0.9F / 8);
    linear_destroy(&a);
    linear_destroy(&b);
    linear_destroy(&c);
}
END_TEST

START_TEST(gradients_agree_with_finite_differences)
{
    struct linear layer;
    float x[ROWS * IN], logits[ROWS * OUT], gradient[OUT * IN + OUT] = {0}, grad_x[ROWS * IN];
    size_t right;
    const float step = 1e-2F;
    inputs(x);
    ck_assert_int_eq(linear_create(&layer, IN, OUT, 3), 0);
    linear_forward(&layer, x, ROWS, logits);
    linear_cross_entropy(logits, labels, ROWS, OUT, &right);
    linear_backward(&layer, x, logits, ROWS, gradient, grad_x);
    for (size_t i = 0; i < layer.count; i++) {
        float kept = layer.weight[i];
        layer.weight[i] = kept + step;
        double above = loss_of(&layer, x);
        layer.weight[i] = kept - step;
        double below = loss_of(&layer, x);
        layer.weight[i] = kept;
        ck_assert_double_eq_tol(gradient[i], (above - below) / (2 * step), 2e-4);
    }
    for (int i = 0; i < ROWS * IN; i++) {
        float kept = x[i];
        x[i] = kept + step;
        double above = loss_of(&layer, x);
        x[i] = kept - step;
        double below = loss_of(&layer, x);
        x[i] = kept;
        ck_assert_double_eq_tol(grad_x[i], (above - below) / (2 * step), 2e-4);
    }
    float first = gradient[0];
    linear_backward(&layer, x, logits, ROWS, gradient, NULL);
    ck_assert_float_eq(gradient[0], 2 * first); /* gradients add up */
    linear_destroy(&layer);
}
END_TEST

START_TEST(the_first_adam_step_is_the_rate_and_nan_makes_none)
{
    struct linear layer;
    ck_assert_int_eq(linear_create(&layer, 1, 1, 5), 0);
    float weight = layer.weight[0], bias = layer.bias[0], gradient[2] = {0.3F, -40.0F};
    ck_assert_int_eq(linear_step(&layer, gradient, 0.01F), 0);
    ck_assert_float_eq_tol(layer.weight[0], weight - 0.01F, 1e-6F);
    ck_assert_float_eq_tol(layer.bias[0], bias + 0.01F, 1e-6F);
    weight = layer.weight[0];
    gradient[1] = NAN;
    ck_assert_int_eq(linear_step(&layer, gradient, 0.01F), -EDOM);
    gradient[1] = INFINITY;
    ck_assert_int_eq(linear_step(&layer, gradient, 0.01F), -EDOM);
    ck_assert_float_eq(layer.weight[0], weight);
    ck_assert_uint_eq(layer.steps, 1);
    linear_destroy(&layer);
}
END_TEST

START_TEST(cross_entropy_counts_the_right_rows_and_bears_large_logits)
{
    float logits[2 * 3] = {1000, 0, -1000, 5, 5, 5};
    static const uint8_t wanted[2] = {0, 1};
    size_t right;
    ck_assert_double_eq_tol(linear_cross_entropy(logits, wanted, 2, 3, &right), log(3) / 2, 1e-6);
    ck_assert_uint_eq(right, 1);
    ck_assert_float_eq_tol(logits[0], 0, 1e-6F);
    ck_assert_float_eq_tol(logits[4], (1.0F / 3 - 1) / 2, 1e-6F);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("linear");
    tcase_add_test(all, forward_is_x_times_w_transposed_plus_b);
    tcase_add_test(all, initial_weights_are_bounded_and_come_from_the_seed);
    tcase_add_test(all, gradients_agree_with_finite_differences);
    tcase_add_test(all, the_first_adam_step_is_the_rate_and_nan_makes_none);
    tcase_add_test(all, cross_entropy_counts_the_right_rows_and_bears_large_logits);
    Suite *suite = suite_create("linear");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
