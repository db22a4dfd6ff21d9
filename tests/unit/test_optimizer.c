#include <check.h>
#include <errno.h>
#include <string.h>

#include "common/config.h"
#include "runtime/train/optimizer.h"

static int parse(struct optimizer_settings *settings, const char *options)
{
    struct config config;
    char text[256];
    snprintf(text, sizeof text, "experts:\n  - {uid: ffn.0%s%s}\n", options[0] != '\0' ? ", " : "", options);
    ck_assert_int_eq(config_parse(&config, text, strlen(text), "test"), 0);
    const int result = optimizer_settings_parse(settings, &config.experts[0]);
    config_destroy(&config);
    return result;
}

START_TEST(defaults_are_pytorchs_adam_without_a_schedule)
{
    struct optimizer_settings settings;
    char text[128];
    ck_assert_int_eq(parse(&settings, ""), 0);
    ck_assert_int_eq(settings.kind, OPTIMIZER_ADAM);
    ck_assert_uint_eq(optimizer_moments(&settings), 2);
    ck_assert_double_eq(optimizer_rate(&settings, 0), 1e-3);
    ck_assert_double_eq(optimizer_rate(&settings, 1000000), 1e-3);
    ck_assert_str_eq(optimizer_describe(&settings, text, sizeof text),
                     "adam lr=0.001 betas=0.9,0.999 eps=1e-08 clip=0 accumulation=1");
    ck_assert_uint_eq(strlen(optimizer_describe(&settings, text, 8)), 7);
}
END_TEST

START_TEST(the_linear_schedule_warms_up_from_0_and_ends_at_0)
{
    struct optimizer_settings settings;
    ck_assert_int_eq(parse(&settings, "learning_rate: 2, schedule: linear, warmup_steps: 4, total_steps: 12"), 0);
    static const double expected[] = {0, 0.5, 1, 1.5, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25, 0, 0};
    for (unsigned i = 0; i < sizeof expected / sizeof expected[0]; i++)
        ck_assert_double_eq_tol(optimizer_rate(&settings, i), expected[i], 1e-12);
    ck_assert_double_eq(optimizer_rate(&settings, UINT64_MAX), 0);
}
END_TEST

START_TEST(a_schedule_without_warm_up_begins_at_the_full_rate_and_one_of_warm_up_alone_ends_with_it)
{
    struct optimizer_settings settings;
    ck_assert_int_eq(parse(&settings, "learning_rate: 1, schedule: linear, total_steps: 10"), 0);
    ck_assert_double_eq(optimizer_rate(&settings, 0), 1);
    ck_assert_double_eq_tol(optimizer_rate(&settings, 9), 0.1, 1e-12);
    settings.warmup_steps = 4;
    settings.total_steps = 2;
    ck_assert_double_eq_tol(optimizer_rate(&settings, 3), 0.75, 1e-12);
    ck_assert_double_eq(optimizer_rate(&settings, 4), 0);
}
END_TEST

START_TEST(the_cosine_schedule_warms_up_like_the_linear_one_and_ends_at_0)
{
    struct optimizer_settings settings;
    char text[160];
    ck_assert_int_eq(
        parse(&settings, "optimizer: adamw, learning_rate: 2, schedule: cosine, warmup_steps: 2, total_steps: 6"), 0);
    static const double expected[] = {0, 1, 2, 1.70710678118654752, 1, 0.29289321881345248, 0, 0};
    for (unsigned i = 0; i < sizeof expected / sizeof expected[0]; i++)
        ck_assert_double_eq_tol(optimizer_rate(&settings, i), expected[i], 1e-12);
    ck_assert_double_eq(optimizer_rate(&settings, UINT64_MAX), 0);
    ck_assert_str_eq(optimizer_describe(&settings, text, sizeof text),
                     "adamw lr=2 betas=0.9,0.999 eps=1e-08 schedule=cosine warmup=2 total=6 clip=0 accumulation=1");
}
END_TEST

START_TEST(amsgrad_keeps_a_third_copy_and_weight_decay_none)
{
    struct optimizer_settings settings;
    char text[160];
    ck_assert_int_eq(parse(&settings, "optimizer: adamw, amsgrad: true, weight_decay: 0.01"), 0);
    ck_assert_uint_eq(optimizer_moments(&settings), 3);
    ck_assert_str_eq(optimizer_moment_name(&settings, 2), "max_exp_avg_sq");
    ck_assert_str_eq(optimizer_describe(&settings, text, sizeof text),
                     "adamw lr=0.001 betas=0.9,0.999 eps=1e-08 amsgrad weight_decay=0.01 clip=0 accumulation=1");
    ck_assert_int_eq(parse(&settings, "optimizer: sgd, weight_decay: 0.5"), 0);
    ck_assert_uint_eq(optimizer_moments(&settings), 0);
}
END_TEST

START_TEST(sgd_keeps_a_copy_only_with_momentum_and_none_keeps_nothing)
{
    struct optimizer_settings settings;
    char text[128];
    ck_assert_int_eq(parse(&settings, "optimizer: sgd"), 0);
    ck_assert_uint_eq(optimizer_moments(&settings), 0);
    ck_assert_int_eq(parse(&settings, "optimizer: sgd, momentum: 0.9"), 0);
    ck_assert_uint_eq(optimizer_moments(&settings), 1);
    ck_assert_int_eq(parse(&settings, "optimizer: none"), 0);
    ck_assert_uint_eq(optimizer_moments(&settings), 0);
    ck_assert_str_eq(optimizer_describe(&settings, text, sizeof text), "none");
}
END_TEST

START_TEST(unknown_optimizers_and_schedules_are_refused)
{
    struct config_expert config = {.uid = "ffn.0", .optimizer = "adagrad", .schedule = "none"};
    struct optimizer_settings settings;
    ck_assert_int_eq(optimizer_settings_parse(&settings, &config), -EINVAL);
    config.optimizer = "adam";
    config.schedule = "exponential";
    ck_assert_int_eq(optimizer_settings_parse(&settings, &config), -EINVAL);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("optimizer");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, defaults_are_pytorchs_adam_without_a_schedule);
    tcase_add_test(all, the_linear_schedule_warms_up_from_0_and_ends_at_0);
    tcase_add_test(all, a_schedule_without_warm_up_begins_at_the_full_rate_and_one_of_warm_up_alone_ends_with_it);
    tcase_add_test(all, the_cosine_schedule_warms_up_like_the_linear_one_and_ends_at_0);
    tcase_add_test(all, amsgrad_keeps_a_third_copy_and_weight_decay_none);
    tcase_add_test(all, sgd_keeps_a_copy_only_with_momentum_and_none_keeps_nothing);
    tcase_add_test(all, unknown_optimizers_and_schedules_are_refused);
    Suite *suite = suite_create("optimizer");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
