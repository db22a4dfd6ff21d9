/* Calls to experts that fail, dawdle or die, over a mixture. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "common/clock.h"
#include "tests/unit/support_mixing.h"

/* Learns whom row 0 likes best, and makes a new world in which that one does not answer. */
static const char *silence_favourite(void)
{
    static char uid[64];
    mixing_host_all(0);
    mixing_make();
    mixing_forward_as(EXPERTD_OK);
    strcpy(uid, expertd_pass_uid(mixing.pass, 0, 0));
    expertd_pass_release(&mixing.pass);
    experts_stop(&mixing.servers[0]);
    fake_dht_remove(&mixing.known, NULL);
    strcpy(mixing.servers[1].silent_uid, uid);
    mixing_host_all(1);
    return uid;
}

static bool all_but_one_answered(const char *silent)
{
    for (size_t r = 0; r < MIXING_ROWS; r++)
        for (size_t s = 0; s < mixing.options.k_best; s++)
            if (expertd_pass_weight(mixing.pass, r, s) == 0 && strcmp(expertd_pass_uid(mixing.pass, r, s), silent) != 0)
                return false;
    return true;
}

/* A forward of a new mixture, whose first bias is moved, that only the silent one does not answer: a machine on which
 * the others do not answer within that timeout has more of it. */
static void forward_all_but(const char *silent, uint32_t *timeout_ms, float moved)
{
    for (;; *timeout_ms *= 2) {
        expertd_pass_release(&mixing.pass);
        mixing_make();
        expertd_mixture_gate(mixing.mixture)->bias[0] += moved;
        const uint64_t start_ns = clock_now_ns();
        const enum expertd_status status =
            expertd_mixture_forward(mixing.mixture, mixing.x, MIXING_ROWS, mixing.y, &mixing.pass);
        ck_assert(clock_now_ns() - start_ns < MIXING_LONG_MS * NS_PER_MS);
        if (status == EXPERTD_OK && all_but_one_answered(silent))
            return;
        ck_assert_msg(*timeout_ms < MIXING_LONG_MS / 4, "%s", expertd_mixture_message(mixing.mixture));
    }
}

static size_t experts_answered(void)
{
    const char *uids[MIXING_ROWS * MIXING_K];
    size_t count = 0;
    for (size_t i = 0; i < MIXING_ROWS * MIXING_K; i++) {
        const char *uid = expertd_pass_uid(mixing.pass, i / MIXING_K, i % MIXING_K);
        bool known = expertd_pass_weight(mixing.pass, i / MIXING_K, i % MIXING_K) == 0;
        for (size_t j = 0; j < count && !known; j++)
            known = strcmp(uids[j], uid) == 0;
        if (!known)
            uids[count++] = uid;
    }
    return count;
}

static double weighted_sum(void)
{
    double sum = 0;
    for (size_t i = 0; i < MIXING_ROWS * EXPERTS_OUT; i++)
        sum += (double)mixing.g[i] * mixing.y[i];
    return sum;
}

START_TEST(a_straggler_is_not_waited_for_and_contributes_nothing)
{
    const float step = 4e-3F;
    const char *silent = silence_favourite();
    uint32_t *timeout_ms = &mixing.options.timeout_after_k_min_ms;
    *timeout_ms = 1000;
    forward_all_but(silent, timeout_ms, 0);
    mixing_outputs_are_right(silent);
    ck_assert_float_eq(expertd_pass_weight(mixing.pass, 0, 0), 0);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixing.mixture), silent));
    const size_t answered = experts_answered();
    mixing_backward_as(EXPERTD_OK);
    ck_assert_uint_eq((size_t)mixing.servers[1].backwards, answered);
    const float gradient = expertd_mixture_gate(mixing.mixture)->bias_grad[0];
    forward_all_but(silent, timeout_ms, step);
    const double up = weighted_sum();
    forward_all_but(silent, timeout_ms, -step);
    ck_assert_double_eq_tol(gradient, (up - weighted_sum()) / (2 * (double)step), 2e-4);
}
END_TEST

START_TEST(failing_experts_contribute_nothing)
{
    mixing_host_all(0);
    mixing.servers[0].status = EXPERTD_INTERNAL;
    mixing.servers[0].failing = 1;
    mixing_make();
    mixing_forward_as(EXPERTD_OK);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixing.mixture), "1 of "));
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixing.mixture), "INTERNAL"));
}
END_TEST

START_TEST(fewer_answers_than_k_min_are_an_error)
{
    mixing_host_all(0);
    mixing.servers[0].status = EXPERTD_INVALID_ARGUMENT;
    mixing.servers[0].failing = -1;
    mixing_make();
    mixing.y[0] = 1234;
    mixing_forward_as(EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_float_eq(mixing.y[0], 1234);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixing.mixture), "INVALID_ARGUMENT"));
}
END_TEST

START_TEST(a_row_without_answers_is_an_error_or_zeros)
{
    mixing.options.k_best = 1;
    const char *silent = silence_favourite();
    uint32_t *timeout_ms = &mixing.options.forward_timeout_ms;
    enum expertd_status status = EXPERTD_OK;
    for (*timeout_ms = 1000; status != EXPERTD_DEADLINE_EXCEEDED && *timeout_ms < MIXING_LONG_MS; *timeout_ms *= 2) {
        mixing_make(); /* a machine on which the experts are not found within it has more */
        status = expertd_mixture_forward(mixing.mixture, mixing.x, MIXING_ROWS, mixing.y, &mixing.pass);
    }
    ck_assert_int_eq(status, EXPERTD_DEADLINE_EXCEEDED);
    mixing.options.allow_zero_outputs = true;
    forward_all_but(silent, timeout_ms, 0);
    ck_assert_float_eq(mixing.y[0], 0);
    ck_assert_float_eq(mixing.y[1], 0);
    ck_assert_float_ne(mixing.y[2], 0);
    mixing_backward_as(EXPERTD_OK);
    for (size_t i = 0; i < MIXING_ROWS * EXPERTS_IN; i++)
        ck_assert(isfinite(mixing.grad_x[i]));
    for (size_t i = 0; i < EXPERTS_IN; i++)
        ck_assert_float_eq(mixing.grad_x[i], 0);
}
END_TEST

START_TEST(anomalies_are_found_when_they_are_looked_for)
{
    mixing_host_all(0);
    mixing.options.detect_anomalies = true;
    mixing_make();
    mixing.servers[0].nan = true;
    mixing_forward_as(EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixing.mixture), "NaN"));
    mixing.servers[0].nan = false;
    mixing_forward_as(EXPERTD_OK);
    mixing.g[3] = NAN;
    mixing_backward_as(EXPERTD_INVALID_ARGUMENT);
    ck_assert_int_eq(mixing.servers[0].backwards, 0);
    mixing.x[2] = INFINITY;
    mixing_forward_as(EXPERTD_INVALID_ARGUMENT);
}
END_TEST

START_TEST(answers_of_another_width_are_failures)
{
    mixing_host_all(0);
    mixing.servers[0].wrong_shape = true;
    mixing_make();
    mixing_forward_as(EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixing.mixture), "width"));
}
END_TEST

START_TEST(nobody_there_is_unavailable)
{
    mixing_make();
    mixing_forward_as(EXPERTD_UNAVAILABLE);
    mixing.known.silent = true;
    mixing.options.forward_timeout_ms = 100;
    mixing_make();
    mixing_forward_as(EXPERTD_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixing.mixture), "beam search"));
}
END_TEST

START_TEST(a_gate_gone_mad_is_an_error)
{
    mixing_host_all(0);
    mixing_make();
    expertd_mixture_gate(mixing.mixture)->bias[1] = NAN;
    mixing_forward_as(EXPERTD_INVALID_ARGUMENT);
    expertd_mixture_gate(mixing.mixture)->bias[1] = INFINITY;
    mixing_forward_as(EXPERTD_INVALID_ARGUMENT);
    expertd_mixture_gate(mixing.mixture)->bias[1] = -INFINITY;
    mixing_forward_as(EXPERTD_OK);
    expertd_pass_release(&mixing.pass);
    ck_assert_int_eq(expertd_mixture_forward(mixing.mixture, mixing.x, 0, mixing.y, &mixing.pass),
                     EXPERTD_INVALID_ARGUMENT);
}
END_TEST

START_TEST(experts_that_fail_backward_contribute_nothing)
{
    mixing_host_all(0);
    mixing_make();
    struct expertd_gate *gate = expertd_mixture_gate(mixing.mixture);
    mixing_forward_as(EXPERTD_OK);
    mixing.servers[0].status = EXPERTD_ABORTED;
    mixing.servers[0].failing = 1;
    mixing_backward_as(EXPERTD_OK);
    ck_assert_ptr_nonnull(strstr(expertd_mixture_message(mixing.mixture), "ABORTED"));
    for (size_t i = 0; i < MIXING_SCORES; i++) /* of the forward's outputs, which are all there */
        mixing_derivative_is(&gate->bias[i], gate->bias_grad[i]);
}
END_TEST

START_TEST(a_backward_that_nobody_answers_changes_nothing)
{
    mixing_host_all(0);
    mixing_make();
    const struct expertd_gate *gate = expertd_mixture_gate(mixing.mixture);
    mixing_forward_as(EXPERTD_OK);
    mixing.servers[0].status = EXPERTD_ABORTED;
    mixing.servers[0].failing = -1;
    mixing.grad_x[0] = 77;
    mixing_backward_as(EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_float_eq(mixing.grad_x[0], 77);
    for (size_t i = 0; i < MIXING_SCORES; i++)
        ck_assert_float_eq(gate->bias_grad[i], 0);
}
END_TEST

START_TEST(a_backward_goes_to_the_server_of_its_forward)
{
    mixing_host_all(0);
    mixing_host_all(1);
    mixing.options.max_rows = 1;
    mixing_make();
    for (int i = 0; i < 3; i++) {
        mixing_forward_as(EXPERTD_OK);
        mixing_backward_as(EXPERTD_OK);
        ck_assert_int_gt(mixing.servers[0].forwards, 0);
        ck_assert_int_eq(mixing.servers[0].forwards, mixing.servers[0].backwards);
        ck_assert_int_eq(mixing.servers[1].forwards, mixing.servers[1].backwards);
    }
}
END_TEST

START_TEST(training_goes_on_when_a_server_dies)
{
    mixing_host_all(0);
    fake_dht_add(&mixing.known, "ffn.9.9", router_endpoint(mixing.servers[1].router)); /* not of this grid */
    for (unsigned b = 0; b < MIXING_GRID_B; b++) {
        char uid[64];
        snprintf(uid, sizeof uid, "ffn.0.%u", b);
        fake_dht_add(&mixing.known, uid, router_endpoint(mixing.servers[1].router));
    }
    mixing_make();
    mixing_forward_as(EXPERTD_OK);
    mixing_backward_as(EXPERTD_OK);
    experts_stop(&mixing.servers[0]); /* and the dht does not know, yet */
    for (int i = 0; i < 5; i++) {
        expertd_pass_release(&mixing.pass);
        enum expertd_status status =
            expertd_mixture_forward(mixing.mixture, mixing.x, MIXING_ROWS, mixing.y, &mixing.pass);
        ck_assert(status == EXPERTD_OK || i == 0); /* the first one may find out */
    }
    for (size_t r = 0; r < MIXING_ROWS; r++)
        for (size_t s = 0; s < MIXING_K; s++)
            ck_assert_int_eq(strncmp(expertd_pass_uid(mixing.pass, r, s), "ffn.0.", 6), 0);
    ck_assert_str_eq(expertd_mixture_message(mixing.mixture), "");
    mixing_backward_as(EXPERTD_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("moe_calls");
    TCase *tests = tcase_create("moe_calls");
    tcase_add_checked_fixture(tests, mixing_open, mixing_close);
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
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
