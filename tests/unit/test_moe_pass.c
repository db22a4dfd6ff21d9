#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "client/moe_pass.h"
#include "tests/unit/support_mixing.h"

START_TEST(rows_and_inputs_are_checked_before_anything_is_asked)
{
    struct moe moe;
    enum expertd_status status;
    float x[EXPERTS_IN] = {1, NAN, 0};
    mixing.options.detect_anomalies = true;
    ck_assert_int_eq(moe_init(&moe, mixing.dht, &mixing.options), 0);
    ck_assert_ptr_null(moe_pass_new(&moe, x, 0, &status));
    ck_assert_int_eq(status, EXPERTD_INVALID_ARGUMENT);
    ck_assert_ptr_null(moe_pass_new(&moe, x, (size_t)1 << 40, &status));
    ck_assert_int_eq(status, EXPERTD_INVALID_ARGUMENT);
    ck_assert_ptr_null(moe_pass_new(&moe, x, 1, &status));
    ck_assert_str_eq(moe.message, "the inputs have NaN or Inf");
    moe.options.detect_anomalies = false;
    struct expertd_pass *pass = moe_pass_new(&moe, x, 1, &status);
    ck_assert_ptr_nonnull(pass);
    ck_assert_ptr_ne(pass->x, x);
    expertd_pass_release(&pass);
    ck_assert_ptr_null(pass);
    expertd_pass_release(&pass);
    moe_clear(&moe);
    ck_assert_int_eq(mixing.known.beams, 0);
}
END_TEST

START_TEST(a_pass_tells_what_it_chose)
{
    mixing_host_all(0);
    mixing_make();
    mixing_forward_as(EXPERTD_OK);
    for (size_t r = 0; r < MIXING_ROWS; r++) {
        float sum = 0;
        for (size_t s = 0; s < MIXING_K; s++) {
            ck_assert_int_eq(strncmp(expertd_pass_uid(mixing.pass, r, s), "ffn.", 4), 0);
            ck_assert(s == 0 || expertd_pass_weight(mixing.pass, r, s) <= expertd_pass_weight(mixing.pass, r, s - 1));
            sum += expertd_pass_weight(mixing.pass, r, s);
        }
        ck_assert_float_eq_tol(sum, 1, 1e-5F);
    }
    ck_assert_ptr_null(expertd_pass_uid(mixing.pass, MIXING_ROWS, 0));
    ck_assert_ptr_null(expertd_pass_uid(mixing.pass, 0, MIXING_K));
    ck_assert_float_eq(expertd_pass_weight(mixing.pass, MIXING_ROWS, 0), 0);
}
END_TEST

START_TEST(nobody_there_leaves_the_outputs_as_they_were)
{
    mixing_make();
    for (size_t i = 0; i < sizeof mixing.y / sizeof mixing.y[0]; i++)
        mixing.y[i] = 42;
    mixing_forward_as(EXPERTD_UNAVAILABLE);
    for (size_t i = 0; i < sizeof mixing.y / sizeof mixing.y[0]; i++)
        ck_assert_float_eq(mixing.y[i], 42);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("moe_pass");
    TCase *tests = tcase_create("moe_pass");
    tcase_add_checked_fixture(tests, mixing_open, mixing_close);
    tcase_add_test(tests, rows_and_inputs_are_checked_before_anything_is_asked);
    tcase_add_test(tests, a_pass_tells_what_it_chose);
    tcase_add_test(tests, nobody_there_leaves_the_outputs_as_they_were);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
