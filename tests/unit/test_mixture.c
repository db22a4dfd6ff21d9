#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support_mixing.h"

START_TEST(outputs_are_the_softmax_average_of_the_best_experts)
{
    mixing_host_all(0);
    mixing_make();
    mixing_forward_as(EXPERTD_OK);
    mixing_outputs_are_right(NULL);
    ck_assert_str_eq(expertd_mixture_message(mixing.mixture), "");
    for (size_t r = 0; r < MIXING_ROWS; r++) {
        float sum = 0;
        for (size_t s = 0; s < MIXING_K; s++) {
            sum += expertd_pass_weight(mixing.pass, r, s);
            ck_assert(s == 0 || mixing_uid_score(mixing.x + r * EXPERTS_IN, expertd_pass_uid(mixing.pass, r, s - 1)) >=
                                    mixing_uid_score(mixing.x + r * EXPERTS_IN, expertd_pass_uid(mixing.pass, r, s)));
        }
        ck_assert_float_eq_tol(sum, 1, 1e-6F);
    }
    ck_assert_ptr_null(expertd_pass_uid(mixing.pass, MIXING_ROWS, 0));
    ck_assert_ptr_null(expertd_pass_uid(mixing.pass, 0, MIXING_K));
}
END_TEST

START_TEST(each_expert_gets_one_call_with_the_rows_that_chose_it)
{
    const char *distinct[MIXING_ROWS * MIXING_K];
    size_t count = 0;
    mixing_host_all(0);
    mixing_make();
    mixing_forward_as(EXPERTD_OK);
    for (size_t i = 0; i < MIXING_ROWS * MIXING_K; i++) {
        const char *uid = expertd_pass_uid(mixing.pass, i / MIXING_K, i % MIXING_K);
        size_t at = 0;
        while (at < count && strcmp(distinct[at], uid) != 0)
            at++;
        if (at == count)
            distinct[count++] = uid;
    }
    ck_assert_uint_lt(count, MIXING_ROWS * MIXING_K);
    ck_assert_int_eq(mixing.servers[0].forwards, (int)count);
    ck_assert_int_eq(mixing.servers[0].rows, MIXING_ROWS * MIXING_K);
    ck_assert_int_eq(mixing.known.beams, 1);
    ck_assert_int_eq(mixing.known.resolves, 0);
}
END_TEST

START_TEST(more_rows_than_an_expert_takes_are_several_calls)
{
    mixing_host_all(0);
    mixing.options.max_rows = 1;
    mixing_make();
    mixing_forward_as(EXPERTD_OK);
    mixing_outputs_are_right(NULL);
    ck_assert_int_eq(mixing.servers[0].forwards, MIXING_ROWS * MIXING_K);
    mixing_backward_as(EXPERTD_OK);
    ck_assert_int_eq(mixing.servers[0].backwards, MIXING_ROWS * MIXING_K);
}
END_TEST

START_TEST(gradients_are_those_of_finite_differences)
{
    mixing_host_all(0);
    mixing_make();
    struct expertd_gate *gate = expertd_mixture_gate(mixing.mixture);
    mixing_forward_as(EXPERTD_OK);
    mixing_backward_as(EXPERTD_OK);
    for (size_t i = 0; i < MIXING_SCORES * EXPERTS_IN; i++)
        mixing_derivative_is(&gate->weight[i], gate->weight_grad[i]);
    for (size_t i = 0; i < MIXING_SCORES; i++)
        mixing_derivative_is(&gate->bias[i], gate->bias_grad[i]);
    for (size_t i = 0; i < MIXING_ROWS * EXPERTS_IN; i++)
        mixing_derivative_is(&mixing.x[i], mixing.grad_x[i]);
}
END_TEST

START_TEST(gradients_are_added_up)
{
    float once[MIXING_SCORES];
    mixing_host_all(0);
    mixing_make();
    struct expertd_gate *gate = expertd_mixture_gate(mixing.mixture);
    for (int i = 0; i < 2; i++) {
        mixing_forward_as(EXPERTD_OK);
        ck_assert_int_eq(expertd_mixture_backward(mixing.mixture, &mixing.pass, mixing.g, i ? NULL : mixing.grad_x),
                         EXPERTD_OK);
        for (size_t s = 0; s < MIXING_SCORES; s++) {
            if (i == 0)
                once[s] = gate->bias_grad[s];
            else
                ck_assert_float_eq_tol(gate->bias_grad[s], 2 * once[s], 1e-6F);
        }
    }
}
END_TEST

START_TEST(several_passes_can_be_open)
{
    struct expertd_pass *second;
    float other_y[MIXING_ROWS * EXPERTS_OUT];
    mixing_host_all(0);
    mixing_make();
    mixing_forward_as(EXPERTD_OK);
    ck_assert_int_eq(expertd_mixture_forward(mixing.mixture, mixing.x, 2, other_y, &second), EXPERTD_OK);
    ck_assert_mem_eq(other_y, mixing.y, 2 * EXPERTS_OUT * sizeof *mixing.y);
    mixing_backward_as(EXPERTD_OK);
    ck_assert_int_eq(expertd_mixture_backward(mixing.mixture, &second, mixing.g, mixing.grad_x), EXPERTD_OK);
}
END_TEST

START_TEST(a_thousand_rows_are_several_beam_questions_with_one_result)
{
    enum { MANY = 3000, WIDE = 512 };
    static const uint32_t wide[] = {WIDE, WIDE};
    float *many = malloc(MANY * EXPERTS_IN * sizeof *many), *out = malloc(MANY * EXPERTS_OUT * sizeof *out);
    for (size_t i = 0; i < MANY * EXPERTS_IN; i++)
        many[i] = mixing.x[i % (MIXING_ROWS * EXPERTS_IN)];
    for (unsigned i = 0; i < 4; i++) {
        char uid[64];
        snprintf(uid, sizeof uid, "ffn.%u.%u", 100 * i, WIDE - 1 - i);
        fake_dht_add(&mixing.known, uid, router_endpoint(mixing.servers[0].router));
    }
    mixing.options.grid_size = wide;
    mixing.options.k_best = 2;
    mixing_make();
    ck_assert_int_eq(expertd_mixture_forward(mixing.mixture, many, MANY, out, &mixing.pass), EXPERTD_OK);
    ck_assert_int_eq(mixing.known.beams, 3);
    for (size_t r = MIXING_ROWS; r < MANY; r++) {
        ck_assert_str_eq(expertd_pass_uid(mixing.pass, r, 1), expertd_pass_uid(mixing.pass, r % MIXING_ROWS, 1));
        for (size_t o = 0; o < EXPERTS_OUT; o++)
            ck_assert_float_eq_tol(out[r * EXPERTS_OUT + o], out[r % MIXING_ROWS * EXPERTS_OUT + o], 1e-6F);
    }
    free(many);
    free(out);
}
END_TEST

START_TEST(fewer_live_experts_than_k_best_will_do)
{
    fake_dht_add(&mixing.known, "ffn.1.2", router_endpoint(mixing.servers[0].router));
    mixing_make();
    mixing_forward_as(EXPERTD_OK);
    for (size_t r = 0; r < MIXING_ROWS; r++) {
        float expected[EXPERTS_OUT];
        experts_forward("ffn.1.2", mixing.x + r * EXPERTS_IN, expected);
        ck_assert_str_eq(expertd_pass_uid(mixing.pass, r, 0), "ffn.1.2");
        ck_assert_ptr_null(expertd_pass_uid(mixing.pass, r, 1));
        ck_assert_float_eq_tol(mixing.y[r * EXPERTS_OUT], expected[0], 1e-6F);
    }
    mixing_backward_as(EXPERTD_OK);
}
END_TEST

START_TEST(a_prefix_may_have_coordinates_of_its_own)
{
    static const uint32_t line[] = {MIXING_GRID_B};
    mixing_host_all(0);
    mixing.options.prefix = "ffn.2.";
    mixing.options.grid_size = line;
    mixing.options.n_grid = 1;
    mixing_make();
    mixing_forward_as(EXPERTD_OK);
    ck_assert_int_eq(strncmp(expertd_pass_uid(mixing.pass, 0, 0), "ffn.2.", 6), 0);
}
END_TEST

START_TEST(options_that_make_no_sense_are_refused)
{
    static const uint32_t empty[] = {3, 0}, huge[] = {1 << 20, 1};
    struct expertd_mixture_options wrong[16];
    for (size_t i = 0; i < 16; i++)
        wrong[i] = mixing.options;
    wrong[0].in_features = 0;
    wrong[1].n_grid = 0;
    wrong[2].grid_size = empty;
    wrong[3].grid_size = huge;
    wrong[4].prefix = "ffn";
    wrong[5].prefix = "ffn..";
    wrong[6].prefix = NULL;
    wrong[7].k_best = 0;
    wrong[8].k_min = MIXING_K + 1;
    wrong[9].backward_k_min = MIXING_K + 1;
    wrong[10].forward_timeout_ms = 0;
    wrong[11].max_rows = 0;
    wrong[12].jitter_eps = 1;
    wrong[13].grid_dropout = 0;
    wrong[14].utilization_alpha = NAN;
    wrong[15].prefix = ".";
    for (size_t i = 0; i < 16; i++) {
        ck_assert_msg(expertd_mixture_new(&mixing.mixture, mixing.dht, &wrong[i]) == -EINVAL, "%zu", i);
        ck_assert_ptr_null(mixing.mixture);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mixture");
    TCase *tests = tcase_create("mixture");
    tcase_add_checked_fixture(tests, mixing_open, mixing_close);
    tcase_add_test(tests, outputs_are_the_softmax_average_of_the_best_experts);
    tcase_add_test(tests, each_expert_gets_one_call_with_the_rows_that_chose_it);
    tcase_add_test(tests, more_rows_than_an_expert_takes_are_several_calls);
    tcase_add_test(tests, gradients_are_those_of_finite_differences);
    tcase_add_test(tests, gradients_are_added_up);
    tcase_add_test(tests, several_passes_can_be_open);
    tcase_add_test(tests, a_thousand_rows_are_several_beam_questions_with_one_result);
    tcase_add_test(tests, fewer_live_experts_than_k_best_will_do);
    tcase_add_test(tests, a_prefix_may_have_coordinates_of_its_own);
    tcase_add_test(tests, options_that_make_no_sense_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
