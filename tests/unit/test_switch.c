#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/expertd_moe.h"
#include "tests/unit/support_experts.h"

enum { ROWS = 6, GRID_A = 3, GRID_B = 4, SCORES = GRID_A + GRID_B, LONG_MS = 500000 };

static struct fake_dht known;
static struct experts server;
static struct expertd_dht *dht;
static struct expertd_switch *mixture;
static struct expertd_mixture_options options;
static struct expertd_pass *pass;
static const uint32_t grid[] = {GRID_A, GRID_B};
static float x[ROWS * EXPERTS_IN], y[ROWS * EXPERTS_OUT], g[ROWS * EXPERTS_OUT], grad_x[ROWS * EXPERTS_IN], balance;

static void setup(void)
{
    uint32_t state = 3;
    memset(&known, 0, sizeof known);
    memset(&server, 0, sizeof server);
    for (size_t i = 0; i < ROWS * EXPERTS_IN; i++, state = state * 1664525u + 1013904223u)
        x[i] = (float)(state >> 8) / (float)(1 << 23) - 1;
    for (size_t i = 0; i < ROWS * EXPERTS_OUT; i++, state = state * 1664525u + 1013904223u)
        g[i] = (float)(state >> 8) / (float)(1 << 23) - 1;
    fake_dht_start(&known);
    experts_start(&server, NULL);
    for (unsigned i = 0; i < GRID_A * GRID_B; i++) {
        char uid[64];
        snprintf(uid, sizeof uid, "ffn.%u.%u", i / GRID_B, i % GRID_B);
        fake_dht_add(&known, uid, router_endpoint(server.router));
    }
    ck_assert_int_eq(expertd_dht_new(&dht, router_endpoint(known.router), NULL), 0);
    expertd_switch_options_init(&options);
    options.in_features = EXPERTS_IN;
    options.out_features = EXPERTS_OUT;
    options.grid_size = grid;
    options.n_grid = 2;
    options.prefix = "ffn.";
    options.forward_timeout_ms = options.backward_timeout_ms = LONG_MS;
    options.seed = 5;
    mixture = NULL;
    pass = NULL;
}

static void teardown(void)
{
    expertd_pass_release(&pass);
    expertd_switch_destroy(&mixture);
    expertd_dht_destroy(&dht);
    fake_dht_stop(&known);
    experts_stop(&server);
}

/* Anew from the seed, so that jitter and dropout are the same again. */
static void make(void)
{
    expertd_pass_release(&pass);
    expertd_switch_destroy(&mixture);
    ck_assert_int_eq(expertd_switch_new(&mixture, dht, &options), 0);
}

static void forward(bool training)
{
    const enum expertd_status status = expertd_switch_forward(mixture, x, ROWS, y, &balance, training ? &pass : NULL);
    ck_assert_msg(status == EXPERTD_OK, "%s", expertd_switch_message(mixture));
}

static void softmax_of(const float *row, unsigned first, unsigned size, double *out)
{
    const struct expertd_gate *gate = expertd_switch_gate(mixture);
    double sum = 0;
    for (unsigned c = 0; c < size; c++) {
        double score = gate->bias[first + c];
        for (size_t i = 0; i < EXPERTS_IN; i++)
            score += gate->weight[(first + c) * EXPERTS_IN + i] * row[i];
        sum += out[c] = exp(score);
    }
    for (unsigned c = 0; c < size; c++)
        out[c] /= sum;
}

START_TEST(an_output_is_that_of_the_best_expert_times_its_probability)
{
    make();
    forward(false);
    for (size_t r = 0; r < ROWS; r++) {
        double a[GRID_A], b[GRID_B];
        float expected[EXPERTS_OUT];
        unsigned best_a = 0, best_b = 0;
        char uid[64];
        softmax_of(x + r * EXPERTS_IN, 0, GRID_A, a);
        softmax_of(x + r * EXPERTS_IN, GRID_A, GRID_B, b);
        for (unsigned i = 1; i < GRID_A; i++)
            best_a = a[i] > a[best_a] ? i : best_a;
        for (unsigned i = 1; i < GRID_B; i++)
            best_b = b[i] > b[best_b] ? i : best_b;
        snprintf(uid, sizeof uid, "ffn.%u.%u", best_a, best_b);
        experts_forward(uid, x + r * EXPERTS_IN, expected);
        for (size_t o = 0; o < EXPERTS_OUT; o++)
            ck_assert_double_eq_tol(y[r * EXPERTS_OUT + o], a[best_a] * b[best_b] * expected[o], 1e-6);
    }
    ck_assert_int_eq(server.rows, ROWS);
}
END_TEST

START_TEST(the_balancing_loss_is_that_of_its_formula)
{
    make();
    forward(false);
    /* Utilization is uniform at first: each dimension gives size * sum of mean probability / size = 1. */
    ck_assert_float_eq_tol(balance, 2, 1e-5F);
    options.jitter_eps = 0;
    make();
    forward(true);
    const float *utilization = expertd_switch_utilization(mixture);
    double expected = 0;
    for (size_t r = 0; r < ROWS; r++) {
        double p[SCORES];
        softmax_of(x + r * EXPERTS_IN, 0, GRID_A, p);
        softmax_of(x + r * EXPERTS_IN, GRID_A, GRID_B, p + GRID_A);
        for (size_t c = 0; c < SCORES; c++)
            expected += (c < GRID_A ? GRID_A : GRID_B) * p[c] * utilization[c] / ROWS;
    }
    ck_assert_double_eq_tol(balance, expected, 1e-5);
}
END_TEST

START_TEST(utilization_is_a_moving_average_of_shares)
{
    double used[SCORES] = {0};
    make();
    const float *utilization = expertd_switch_utilization(mixture);
    forward(true);
    for (size_t r = 0; r < ROWS; r++) {
        unsigned a, b;
        ck_assert_int_eq(sscanf(expertd_pass_uid(pass, r, 0), "ffn.%u.%u", &a, &b), 2);
        used[a]++;
        used[GRID_A + b]++;
    }
    for (size_t c = 0; c < SCORES; c++)
        ck_assert_double_eq_tol(utilization[c], 0.9 / (c < GRID_A ? GRID_A : GRID_B) + 0.1 * used[c] / ROWS, 1e-6);
}
END_TEST

START_TEST(inference_changes_nothing_and_has_no_noise)
{
    float before[SCORES], first[ROWS * EXPERTS_OUT];
    options.jitter_eps = 0.5F;
    options.grid_dropout = 0.3F;
    make();
    memcpy(before, expertd_switch_utilization(mixture), sizeof before);
    forward(false);
    memcpy(first, y, sizeof first);
    forward(false);
    ck_assert_mem_eq(first, y, sizeof first);
    ck_assert_mem_eq(before, expertd_switch_utilization(mixture), sizeof before);
}
END_TEST

START_TEST(dropped_coordinates_are_not_chosen_and_some_always_remain)
{
    bool varied = false;
    options.grid_dropout = 0.01F;
    make();
    for (int i = 0; i < 20; i++) {
        char first[64];
        expertd_pass_release(&pass);
        forward(true);
        if (i > 0)
            varied |= strcmp(first, expertd_pass_uid(pass, 0, 0)) != 0;
        strcpy(first, expertd_pass_uid(pass, 0, 0));
        for (size_t r = 1; r < ROWS; r++) /* all rows lose the same coordinates, so few are left to choose from */
            ck_assert_ptr_nonnull(expertd_pass_uid(pass, r, 0));
        for (size_t o = 0; o < ROWS * EXPERTS_OUT; o++)
            ck_assert(isfinite(y[o]));
    }
    ck_assert(varied);
}
END_TEST

enum { BALANCING = 2 };

/* In training, with everything that is random drawn as before: the weights are kept over make(). */
static double loss_of_a_new_switch(const struct expertd_gate *values)
{
    double sum;
    make();
    struct expertd_gate *gate = expertd_switch_gate(mixture);
    memcpy(gate->weight, values->weight, SCORES * EXPERTS_IN * sizeof(float));
    memcpy(gate->bias, values->bias, SCORES * sizeof(float));
    forward(true);
    sum = (double)BALANCING * balance;
    for (size_t i = 0; i < ROWS * EXPERTS_OUT; i++)
        sum += (double)g[i] * y[i];
    return sum;
}

static void derivative_is(const struct expertd_gate *values, float *parameter, float gradient)
{
    const float before = *parameter, step = 4e-3F;
    *parameter = before + step;
    const double up = loss_of_a_new_switch(values);
    *parameter = before - step;
    const double down = loss_of_a_new_switch(values);
    *parameter = before;
    ck_assert_double_eq_tol(gradient, (up - down) / (2 * (double)step), 3e-4);
}

static void check_gradients(void)
{
    float weight[SCORES * EXPERTS_IN], bias[SCORES], weight_grad[SCORES * EXPERTS_IN], bias_grad[SCORES];
    const struct expertd_gate values = {.weight = weight, .bias = bias};
    make();
    struct expertd_gate *gate = expertd_switch_gate(mixture);
    memcpy(weight, gate->weight, sizeof weight);
    memcpy(bias, gate->bias, sizeof bias);
    forward(true);
    ck_assert_int_eq(expertd_switch_backward(mixture, &pass, g, BALANCING, grad_x), EXPERTD_OK);
    memcpy(weight_grad, gate->weight_grad, sizeof weight_grad);
    memcpy(bias_grad, gate->bias_grad, sizeof bias_grad);
    for (size_t i = 0; i < SCORES * EXPERTS_IN; i++)
        derivative_is(&values, &weight[i], weight_grad[i]);
    for (size_t i = 0; i < SCORES; i++)
        derivative_is(&values, &bias[i], bias_grad[i]);
    for (size_t i = 0; i < ROWS * EXPERTS_IN; i++)
        derivative_is(&values, &x[i], grad_x[i]);
}

START_TEST(gradients_are_those_of_finite_differences)
{
    check_gradients();
}
END_TEST

START_TEST(gradients_are_right_with_jitter_and_dropout)
{
    options.jitter_eps = 0.3F;
    options.grid_dropout = 0.6F;
    check_gradients();
}
END_TEST

START_TEST(rows_without_answers_are_zeros)
{
    options.forward_timeout_ms = 100;
    make();
    server.silent = true;
    y[0] = 1;
    forward(true);
    for (size_t i = 0; i < ROWS * EXPERTS_OUT; i++)
        ck_assert_float_eq(y[i], 0);
    ck_assert(isfinite(balance));
    ck_assert_int_eq(expertd_switch_backward(mixture, &pass, g, 1, grad_x), EXPERTD_OK);
    for (size_t i = 0; i < ROWS * EXPERTS_IN; i++)
        ck_assert(isfinite(grad_x[i]));
    ck_assert_float_eq_tol(expertd_switch_utilization(mixture)[0], 1.0F / GRID_A, 1e-6F);
}
END_TEST

START_TEST(the_loss_pulls_the_experts_together)
{
    options.jitter_eps = 0;
    make();
    struct expertd_gate *gate = expertd_switch_gate(mixture);
    gate->bias[0] = 4; /* a coordinate that everybody prefers */
    memset(g, 0, sizeof g);
    float first = 0;
    for (int i = 0; i < 60; i++) {
        forward(true);
        first = i ? first : balance;
        ck_assert_int_eq(expertd_switch_backward(mixture, &pass, g, 1, NULL), EXPERTD_OK);
        for (size_t s = 0; s < SCORES; s++) {
            gate->bias[s] -= 0.5F * gate->bias_grad[s];
            gate->bias_grad[s] = 0;
        }
    }
    ck_assert_float_lt(gate->bias[0], 3.8F);
    ck_assert_float_ge(first, 2);
}
END_TEST

START_TEST(switches_without_sense_are_refused)
{
    options.prefix = "";
    ck_assert_int_eq(expertd_switch_new(&mixture, dht, &options), -EINVAL);
    ck_assert_ptr_null(mixture);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("switch");
    TCase *tests = tcase_create("switch");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, an_output_is_that_of_the_best_expert_times_its_probability);
    tcase_add_test(tests, the_balancing_loss_is_that_of_its_formula);
    tcase_add_test(tests, utilization_is_a_moving_average_of_shares);
    tcase_add_test(tests, inference_changes_nothing_and_has_no_noise);
    tcase_add_test(tests, dropped_coordinates_are_not_chosen_and_some_always_remain);
    tcase_add_test(tests, gradients_are_those_of_finite_differences);
    tcase_add_test(tests, gradients_are_right_with_jitter_and_dropout);
    tcase_add_test(tests, rows_without_answers_are_zeros);
    tcase_add_test(tests, the_loss_pulls_the_experts_together);
    tcase_add_test(tests, switches_without_sense_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
