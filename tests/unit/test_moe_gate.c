#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/moe.h"

enum { MOST = 100 };
static float a[MOST + 1], b[MOST + 1], c[MOST + 1];

static void setup(void)
{
    for (size_t i = 0; i <= MOST; i++) {
        a[i] = (float)(i % 7) - 3;
        b[i] = (float)(i % 5) * 0.5F;
        c[i] = (float)i;
    }
}

START_TEST(products_are_right_at_every_length_and_address)
{
    for (size_t offset = 0; offset < 2; offset++) {
        for (size_t count = 0; count + offset <= MOST; count++) {
            double expected = 0;
            float sum[MOST];
            for (size_t i = 0; i < count; i++)
                expected += (double)a[offset + i] * b[offset + i];
            ck_assert_double_eq_tol(moe_dot(a + offset, b + offset, count), expected, 1e-4);
            memcpy(sum, c, sizeof sum);
            moe_axpy(0.5F, a + offset, sum, count);
            for (size_t i = 0; i < MOST; i++)
                ck_assert_float_eq(sum[i], c[i] + (i < count ? 0.5F * a[offset + i] : 0));
        }
    }
}
END_TEST

START_TEST(scores_are_those_of_a_linear_layer)
{
    float weight[] = {1, 2, 3, 4, 5, 6}, bias[] = {10, 20}, weight_grad[6] = {0}, bias_grad[2] = {1, 1};
    float x[] = {1, 0, -1, 2, 2, 2}, scores[4], grad_scores[] = {1, 0, 0, 2}, grad_x[6] = {0};
    struct expertd_gate gate = {3, 2, weight, bias, weight_grad, bias_grad};
    moe_gate_scores(&gate, x, 2, scores);
    const float expected[] = {8, 18, 22, 50};
    ck_assert_mem_eq(scores, expected, sizeof scores);
    moe_gate_backward(&gate, x, 2, grad_scores, grad_x);
    const float expected_x[] = {1, 2, 3, 8, 10, 12}, expected_weight[] = {1, 0, -1, 4, 4, 4}, expected_bias[] = {2, 3};
    ck_assert_mem_eq(grad_x, expected_x, sizeof grad_x);
    ck_assert_mem_eq(weight_grad, expected_weight, sizeof weight_grad);
    ck_assert_mem_eq(bias_grad, expected_bias, sizeof bias_grad);
}
END_TEST

START_TEST(nan_and_infinity_are_seen)
{
    ck_assert(moe_all_finite(a, MOST));
    a[MOST - 1] = NAN;
    ck_assert(!moe_all_finite(a, MOST));
    ck_assert(moe_all_finite(a, MOST - 1));
    a[0] = -INFINITY;
    ck_assert(!moe_all_finite(a, 1));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("moe_gate");
    TCase *tests = tcase_create("moe_gate");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, products_are_right_at_every_length_and_address);
    tcase_add_test(tests, scores_are_those_of_a_linear_layer);
    tcase_add_test(tests, nan_and_infinity_are_seen);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
