#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/expertd_moe.h"
#include "common/clock.h"
#include "tests/unit/support_experts.h"

enum { ROWS = 5, GRID_A = 3, GRID_B = 4, SCORES = GRID_A + GRID_B, K = 3, LONG_MS = 50000 };

static struct fake_dht known;
static struct experts servers[2];
static struct expertd_dht *dht;
static struct expertd_mixture *mixture;
static struct expertd_mixture_options options;
static struct expertd_pass *pass;
static const uint32_t grid[] = {GRID_A, GRID_B};
static float x[ROWS * EXPERTS_IN], y[ROWS * EXPERTS_OUT], g[ROWS * EXPERTS_OUT], grad_x[ROWS * EXPERTS_IN];

static float pseudo_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1;
}

static void setup(void)
{
    uint32_t state = 7;
    memset(&known, 0, sizeof known);
    memset(servers, 0, sizeof servers);
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++)
        x[i] = pseudo_random(&state);
    for (size_t i = 0; i < sizeof g / sizeof g[0]; i++)
        g[i] = pseudo_random(&state);
    fake_dht_start(&known);
    for (size_t i = 0; i < 2; i++)
        experts_start(&servers[i], NULL);
    ck_assert_int_eq(expertd_dht_new(&dht, router_endpoint(known.router), NULL), 0);
    expertd_mixture_options_init(&options);
    options.in_features = EXPERTS_IN;
    options.out_features = EXPERTS_OUT;
    options.grid_size = grid;
    options.n_grid = 2;
    options.prefix = "ffn.";
    options.k_best = K;
    options.forward_timeout_ms = options.backward_timeout_ms = options.timeout_after_k_min_ms = LONG_MS;
    options.seed = 11;
    mixture = NULL;
    pass = NULL;
}

static void teardown(void)
{
    expertd_pass_release(&pass);
    expertd_mixture_destroy(&mixture);
    expertd_dht_destroy(&dht);
    fake_dht_stop(&known);
    for (size_t i = 0; i < 2; i++)
        experts_stop(&servers[i]);
}

/* All experts of the grid at that server. */
static void host_all(size_t server)
{
    char uid[64];
    for (unsigned a = 0; a < GRID_A; a++) {
        for (unsigned b = 0; b < GRID_B; b++) {
            snprintf(uid, sizeof uid, "ffn.%u.%u", a, b);
            fake_dht_add(&known, uid, router_endpoint(servers[server].router));
        }
    }
}

static void make(void)
{
    expertd_mixture_destroy(&mixture);
    ck_assert_int_eq(expertd_mixture_new(&mixture, dht, &options), 0);
}

static void forward_as(enum expertd_status status)
{
    expertd_pass_release(&pass);
    const enum expertd_status is = expertd_mixture_forward(mixture, x, ROWS, y, &pass);
    ck_assert_msg(is == status, "%s: %s", expertd_status_name(is), expertd_mixture_message(mixture));
    ck_assert((pass != NULL) == (status == EXPERTD_OK));
}

static void backward_as(enum expertd_status status)
{
    const enum expertd_status is = expertd_mixture_backward(mixture, &pass, g, grad_x);
    ck_assert_msg(is == status, "%s: %s", expertd_status_name(is), expertd_mixture_message(mixture));
    ck_assert_ptr_null(pass);
}

static double score(const float *row, unsigned s)
{
    const struct expertd_gate *gate = expertd_mixture_gate(mixture);
    double sum = gate->bias[s];
    for (size_t i = 0; i < EXPERTS_IN; i++)
        sum += gate->weight[s * EXPERTS_IN + i] * row[i];
    return sum;
}

static double uid_score(const float *row, const char *uid)
{
    unsigned a, b;
    ck_assert_int_eq(sscanf(uid, "ffn.%u.%u", &a, &b), 2);
    return score(row, a) + score(row, GRID_A + b);
}

/* What the mixture has to give, from the definition: the K best of all experts, less `missing` (NULL: none). */
static void reference(const float *row, const char *missing, double *out)
{
    char uids[GRID_A * GRID_B][64];
    bool taken[GRID_A * GRID_B] = {false};
    double weight[K], sum = 0;
    const char *chosen[K];
    for (unsigned i = 0; i < GRID_A * GRID_B; i++)
        snprintf(uids[i], sizeof uids[i], "ffn.%u.%u", i / GRID_B, i % GRID_B);
    for (size_t k = 0; k < K; k++) {
        int best = -1;
        for (int i = 0; i < GRID_A * GRID_B; i++)
            if (!taken[i] && (best < 0 || uid_score(row, uids[i]) > uid_score(row, uids[best])))
                best = i;
        taken[best] = true;
        chosen[k] = uids[best];
        weight[k] = missing && strcmp(missing, chosen[k]) == 0 ? 0 : exp(uid_score(row, chosen[k]));
        sum += weight[k];
    }
    memset(out, 0, EXPERTS_OUT * sizeof *out);
    for (size_t k = 0; k < K; k++) {
        float one[EXPERTS_OUT];
        experts_forward(chosen[k], row, one);
        for (size_t o = 0; o < EXPERTS_OUT && sum > 0; o++)
            out[o] += weight[k] / sum * one[o];
    }
}

static void outputs_are_right(const char *missing)
{
    for (size_t r = 0; r < ROWS; r++) {
        double expected[EXPERTS_OUT];
        reference(x + r * EXPERTS_IN, missing, expected);
        for (size_t o = 0; o < EXPERTS_OUT; o++)
            ck_assert_double_eq_tol(y[r * EXPERTS_OUT + o], expected[o], 1e-5);
    }
}

/* ---- what it computes ------------------------------------------------------------------------------------------ */

START_TEST(outputs_are_the_softmax_average_of_the_best_experts)
{
    host_all(0);
    make();
    forward_as(EXPERTD_OK);
    outputs_are_right(NULL);
    ck_assert_str_eq(expertd_mixture_message(mixture), "");
    for (size_t r = 0; r < ROWS; r++) {
        float sum = 0;
        for (size_t s = 0; s < K; s++) {
            sum += expertd_pass_weight(pass, r, s);
            ck_assert(s == 0 || uid_score(x + r * EXPERTS_IN, expertd_pass_uid(pass, r, s - 1)) >=
                                    uid_score(x + r * EXPERTS_IN, expertd_pass_uid(pass, r, s)));
        }
        ck_assert_float_eq_tol(sum, 1, 1e-6F);
    }
    ck_assert_ptr_null(expertd_pass_uid(pass, ROWS, 0));
    ck_assert_ptr_null(expertd_pass_uid(pass, 0, K));
}
END_TEST

START_TEST(each_expert_gets_one_call_with_the_rows_that_chose_it)
{
    const char *distinct[ROWS * K];
    size_t count = 0;
    host_all(0);
    make();
    forward_as(EXPERTD_OK);
    for (size_t i = 0; i < ROWS * K; i++) {
        const char *uid = expertd_pass_uid(pass, i / K, i % K);
        size_t at = 0;
        while (at < count && strcmp(distinct[at], uid) != 0)
            at++;
        if (at == count)
            distinct[count++] = uid;
    }
    ck_assert_uint_lt(count, ROWS * K);
    ck_assert_int_eq(servers[0].forwards, (int)count);
    ck_assert_int_eq(servers[0].rows, ROWS * K);
    ck_assert_int_eq(known.beams, 1);
    ck_assert_int_eq(known.resolves, 0);
}
END_TEST

START_TEST(more_rows_than_an_expert_takes_are_several_calls)
{
    host_all(0);
    options.max_rows = 1;
    make();
    forward_as(EXPERTD_OK);
    outputs_are_right(NULL);
    ck_assert_int_eq(servers[0].forwards, ROWS * K);
    backward_as(EXPERTD_OK);
    ck_assert_int_eq(servers[0].backwards, ROWS * K);
}
END_TEST

static double loss(void)
{
    double sum = 0;
    ck_assert_int_eq(expertd_mixture_forward(mixture, x, ROWS, y, NULL), EXPERTD_OK);
    for (size_t i = 0; i < ROWS * EXPERTS_OUT; i++)
        sum += (double)g[i] * y[i];
    return sum;
}

/* Central differences of the loss by *parameter. */
static void derivative_is(float *parameter, float gradient)
{
    const float before = *parameter, step = 4e-3F;
    *parameter = before + step;
    const double up = loss();
    *parameter = before - step;
    const double down = loss();
    *parameter = before;
    ck_assert_double_eq_tol(gradient, (up - down) / (2 * (double)step), 2e-4);
}

START_TEST(gradients_are_those_of_finite_differences)
{
    host_all(0);
    make();
    struct expertd_gate *gate = expertd_mixture_gate(mixture);
    forward_as(EXPERTD_OK);
    backward_as(EXPERTD_OK);
    for (size_t i = 0; i < SCORES * EXPERTS_IN; i++)
        derivative_is(&gate->weight[i], gate->weight_grad[i]);
    for (size_t i = 0; i < SCORES; i++)
        derivative_is(&gate->bias[i], gate->bias_grad[i]);
    for (size_t i = 0; i < ROWS * EXPERTS_IN; i++)
        derivative_is(&x[i], grad_x[i]);
}
END_TEST

START_TEST(gradients_are_added_up)
{
    float once[SCORES];
    host_all(0);
    make();
    struct expertd_gate *gate = expertd_mixture_gate(mixture);
    for (int i = 0; i < 2; i++) {
        forward_as(EXPERTD_OK);
        ck_assert_int_eq(expertd_mixture_backward(mixture, &pass, g, i ? NULL : grad_x), EXPERTD_OK);
        for (size_t s = 0; s < SCORES; s++) {
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
    float other_y[ROWS * EXPERTS_OUT];
    host_all(0);
    make();
    forward_as(EXPERTD_OK);
    ck_assert_int_eq(expertd_mixture_forward(mixture, x, 2, other_y, &second), EXPERTD_OK);
    ck_assert_mem_eq(other_y, y, 2 * EXPERTS_OUT * sizeof *y);
    backward_as(EXPERTD_OK);
    ck_assert_int_eq(expertd_mixture_backward(mixture, &second, g, grad_x), EXPERTD_OK);
}
END_TEST

START_TEST(a_thousand_rows_are_several_beam_questions_with_one_result)
{
    enum { MANY = 3000, WIDE = 512 };
    static const uint32_t wide[] = {WIDE, WIDE};
    float *many = malloc(MANY * EXPERTS_IN * sizeof *many), *out = malloc(MANY * EXPERTS_OUT * sizeof *out);
    for (size_t i = 0; i < MANY * EXPERTS_IN; i++)
        many[i] = x[i % (ROWS * EXPERTS_IN)];
    for (unsigned i = 0; i < 4; i++) {
        char uid[64];
        snprintf(uid, sizeof uid, "ffn.%u.%u", 100 * i, WIDE - 1 - i);
        fake_dht_add(&known, uid, router_endpoint(servers[0].router));
    }
    options.grid_size = wide;
    options.k_best = 2;
    make();
    ck_assert_int_eq(expertd_mixture_forward(mixture, many, MANY, out, &pass), EXPERTD_OK);
    ck_assert_int_eq(known.beams, 3);
    for (size_t r = ROWS; r < MANY; r++) {
        ck_assert_str_eq(expertd_pass_uid(pass, r, 1), expertd_pass_uid(pass, r % ROWS, 1));
        for (size_t o = 0; o < EXPERTS_OUT; o++)
            ck_assert_float_eq_tol(out[r * EXPERTS_OUT + o], out[r % ROWS * EXPERTS_OUT + o], 1e-6F);
    }
    free(many);
    free(out);
}
END_TEST

START_TEST(fewer_live_experts_than_k_best_will_do)
{
    fake_dht_add(&known, "ffn.1.2", router_endpoint(servers[0].router));
    make();
    forward_as(EXPERTD_OK);
    for (size_t r = 0; r < ROWS; r++) {
        float expected[EXPERTS_OUT];
        experts_forward("ffn.1.2", x + r * EXPERTS_IN, expected);
        ck_assert_str_eq(expertd_pass_uid(pass, r, 0), "ffn.1.2");
        ck_assert_ptr_null(expertd_pass_uid(pass, r, 1));
        ck_assert_float_eq_tol(y[r * EXPERTS_OUT], expected[0], 1e-6F);
    }
    backward_as(EXPERTD_OK);
}
END_TEST

START_TEST(a_prefix_may_have_coordinates_of_its_own)
{
    static const uint32_t line[] = {GRID_B};
    host_all(0);
    options.prefix = "ffn.2.";
    options.grid_size = line;
    options.n_grid = 1;
    make();
    forward_as(EXPERTD_OK);
    ck_assert_int_eq(strncmp(expertd_pass_uid(pass, 0, 0), "ffn.2.", 6), 0);
}
END_TEST

/* ---- what fails ------------------------------------------------------------------------------------------------ */

/* Learns whom row 0 likes best, and makes a new world in which that one does not answer. */
static const char *silence_favourite(void)
{
    static char uid[64];
    host_all(0);
    make();
    forward_as(EXPERTD_OK);
    strcpy(uid, expertd_pass_uid(pass, 0, 0));
    expertd_pass_release(&pass);
    experts_stop(&servers[0]);
    fake_dht_remove(&known, NULL);
    strcpy(servers[1].silent_uid, uid);
    host_all(1);
    return uid;
}

START_TEST(a_straggler_is_not_waited_for_and_contributes_nothing)
{
    options.timeout_after_k_min_ms = 500;
    const char *silent = silence_favourite();
    const uint64_t start_ns = clock_now_ns();
    forward_as(EXPERTD_OK);
    ck_assert(clock_now_ns() - start_ns < LONG_MS * NS_PER_MS);
    outputs_are_right(silent);
    ck_assert_float_eq(expertd_pass_weight(pass, 0, 0), 0);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixture), silent));
    struct expertd_gate *gate = expertd_mixture_gate(mixture);
    backward_as(EXPERTD_OK);
    ck_assert_int_eq(servers[1].backwards, servers[1].forwards);
    for (size_t i = 0; i < 2; i++) /* each waits for the straggler */
        derivative_is(&gate->bias[i], gate->bias_grad[i]);
}
END_TEST

START_TEST(failing_experts_contribute_nothing)
{
    options.forward_timeout_ms = 1500;
    host_all(0);
    servers[0].status = EXPERTD_INTERNAL;
    servers[0].failing = 1;
    make();
    forward_as(EXPERTD_OK);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixture), "1 of "));
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixture), "INTERNAL"));
}
END_TEST

START_TEST(fewer_answers_than_k_min_are_an_error)
{
    host_all(0);
    servers[0].status = EXPERTD_INVALID_ARGUMENT;
    servers[0].failing = -1;
    make();
    y[0] = 1234;
    forward_as(EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_float_eq(y[0], 1234);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixture), "INVALID_ARGUMENT"));
}
END_TEST

START_TEST(a_row_without_answers_is_an_error_or_zeros)
{
    options.k_best = 1;
    options.forward_timeout_ms = 1000;
    silence_favourite();
    forward_as(EXPERTD_DEADLINE_EXCEEDED);
    options.allow_zero_outputs = true;
    make();
    forward_as(EXPERTD_OK);
    ck_assert_float_eq(y[0], 0);
    ck_assert_float_eq(y[1], 0);
    ck_assert_float_ne(y[2], 0);
    backward_as(EXPERTD_OK);
    for (size_t i = 0; i < ROWS * EXPERTS_IN; i++)
        ck_assert(isfinite(grad_x[i]));
    for (size_t i = 0; i < EXPERTS_IN; i++)
        ck_assert_float_eq(grad_x[i], 0);
}
END_TEST

START_TEST(anomalies_are_found_when_they_are_looked_for)
{
    host_all(0);
    options.detect_anomalies = true;
    make();
    servers[0].nan = true;
    forward_as(EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixture), "NaN"));
    servers[0].nan = false;
    forward_as(EXPERTD_OK);
    g[3] = NAN;
    backward_as(EXPERTD_INVALID_ARGUMENT);
    ck_assert_int_eq(servers[0].backwards, 0);
    x[2] = INFINITY;
    forward_as(EXPERTD_INVALID_ARGUMENT);
}
END_TEST

START_TEST(answers_of_another_width_are_failures)
{
    host_all(0);
    servers[0].wrong_shape = true;
    make();
    forward_as(EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixture), "width"));
}
END_TEST

START_TEST(nobody_there_is_unavailable)
{
    make();
    forward_as(EXPERTD_UNAVAILABLE);
    known.silent = true;
    options.forward_timeout_ms = 100;
    make();
    forward_as(EXPERTD_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixture), "beam search"));
}
END_TEST

START_TEST(a_gate_gone_mad_is_an_error)
{
    host_all(0);
    make();
    expertd_mixture_gate(mixture)->bias[1] = NAN;
    forward_as(EXPERTD_INVALID_ARGUMENT);
    expertd_mixture_gate(mixture)->bias[1] = INFINITY;
    forward_as(EXPERTD_INVALID_ARGUMENT);
    expertd_mixture_gate(mixture)->bias[1] = -INFINITY;
    forward_as(EXPERTD_OK);
    expertd_pass_release(&pass);
    ck_assert_int_eq(expertd_mixture_forward(mixture, x, 0, y, &pass), EXPERTD_INVALID_ARGUMENT);
}
END_TEST

START_TEST(experts_that_fail_backward_contribute_nothing)
{
    host_all(0);
    make();
    struct expertd_gate *gate = expertd_mixture_gate(mixture);
    options.backward_timeout_ms = 1500;
    forward_as(EXPERTD_OK);
    servers[0].status = EXPERTD_ABORTED;
    servers[0].failing = 1;
    backward_as(EXPERTD_OK);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixture), "ABORTED"));
    for (size_t i = 0; i < SCORES; i++) /* of the forward's outputs, which are all there */
        derivative_is(&gate->bias[i], gate->bias_grad[i]);
}
END_TEST

START_TEST(a_backward_that_nobody_answers_changes_nothing)
{
    host_all(0);
    make();
    const struct expertd_gate *gate = expertd_mixture_gate(mixture);
    forward_as(EXPERTD_OK);
    servers[0].status = EXPERTD_ABORTED;
    servers[0].failing = -1;
    grad_x[0] = 77;
    backward_as(EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_float_eq(grad_x[0], 77);
    for (size_t i = 0; i < SCORES; i++)
        ck_assert_float_eq(gate->bias_grad[i], 0);
}
END_TEST

START_TEST(a_backward_goes_to_the_server_of_its_forward)
{
    host_all(0);
    host_all(1);
    options.max_rows = 1;
    make();
    for (int i = 0; i < 3; i++) {
        forward_as(EXPERTD_OK);
        backward_as(EXPERTD_OK);
        ck_assert_int_gt(servers[0].forwards, 0);
        ck_assert_int_eq(servers[0].forwards, servers[0].backwards);
        ck_assert_int_eq(servers[1].forwards, servers[1].backwards);
    }
}
END_TEST

START_TEST(training_goes_on_when_a_server_dies)
{
    host_all(0);
    fake_dht_add(&known, "ffn.9.9", router_endpoint(servers[1].router)); /* not of this grid */
    for (unsigned b = 0; b < GRID_B; b++) {
        char uid[64];
        snprintf(uid, sizeof uid, "ffn.0.%u", b);
        fake_dht_add(&known, uid, router_endpoint(servers[1].router));
    }
    make();
    forward_as(EXPERTD_OK);
    backward_as(EXPERTD_OK);
    experts_stop(&servers[0]); /* and the dht does not know, yet */
    for (int i = 0; i < 5; i++) {
        expertd_pass_release(&pass);
        enum expertd_status status = expertd_mixture_forward(mixture, x, ROWS, y, &pass);
        ck_assert(status == EXPERTD_OK || i == 0); /* the first one may find out */
    }
    for (size_t r = 0; r < ROWS; r++)
        for (size_t s = 0; s < K; s++)
            ck_assert_int_eq(strncmp(expertd_pass_uid(pass, r, s), "ffn.0.", 6), 0);
    ck_assert_str_eq(expertd_mixture_message(mixture), "");
    backward_as(EXPERTD_OK);
}
END_TEST

START_TEST(options_that_make_no_sense_are_refused)
{
    static const uint32_t empty[] = {3, 0}, huge[] = {1 << 20, 1};
    struct expertd_mixture_options wrong[16];
    for (size_t i = 0; i < 16; i++)
        wrong[i] = options;
    wrong[0].in_features = 0;
    wrong[1].n_grid = 0;
    wrong[2].grid_size = empty;
    wrong[3].grid_size = huge;
    wrong[4].prefix = "ffn";
    wrong[5].prefix = "ffn..";
    wrong[6].prefix = NULL;
    wrong[7].k_best = 0;
    wrong[8].k_min = K + 1;
    wrong[9].backward_k_min = K + 1;
    wrong[10].forward_timeout_ms = 0;
    wrong[11].max_rows = 0;
    wrong[12].jitter_eps = 1;
    wrong[13].grid_dropout = 0;
    wrong[14].utilization_alpha = NAN;
    wrong[15].prefix = ".";
    for (size_t i = 0; i < 16; i++) {
        ck_assert_msg(expertd_mixture_new(&mixture, dht, &wrong[i]) == -EINVAL, "%zu", i);
        ck_assert_ptr_null(mixture);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mixture");
    TCase *tests = tcase_create("mixture");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, outputs_are_the_softmax_average_of_the_best_experts);
    tcase_add_test(tests, each_expert_gets_one_call_with_the_rows_that_chose_it);
    tcase_add_test(tests, more_rows_than_an_expert_takes_are_several_calls);
    tcase_add_test(tests, gradients_are_those_of_finite_differences);
    tcase_add_test(tests, gradients_are_added_up);
    tcase_add_test(tests, several_passes_can_be_open);
    tcase_add_test(tests, a_thousand_rows_are_several_beam_questions_with_one_result);
    tcase_add_test(tests, fewer_live_experts_than_k_best_will_do);
    tcase_add_test(tests, a_prefix_may_have_coordinates_of_its_own);
    tcase_add_test(tests, a_straggler_is_not_waited_for_and_contributes_nothing);
    tcase_add_test(tests, failing_experts_contribute_nothing);
    tcase_add_test(tests, fewer_answers_than_k_min_are_an_error);
    tcase_add_test(tests, a_row_without_answers_is_an_error_or_zeros);
    tcase_add_test(tests, anomalies_are_found_when_they_are_looked_for);
    tcase_add_test(tests, answers_of_another_width_are_failures);
    tcase_add_test(tests, nobody_there_is_unavailable);
    tcase_add_test(tests, a_gate_gone_mad_is_an_error);
    tcase_add_test(tests, experts_that_fail_backward_contribute_nothing);
    tcase_add_test(tests, a_backward_that_nobody_answers_changes_nothing);
    tcase_add_test(tests, a_backward_goes_to_the_server_of_its_forward);
    tcase_add_test(tests, training_goes_on_when_a_server_dies);
    tcase_add_test(tests, options_that_make_no_sense_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
