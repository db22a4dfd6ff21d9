#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "http/repository.h"

static struct repository_settings settings;
static char why[REPOSITORY_WHY_SIZE];

static int parse(const char *body)
{
    why[0] = 0;
    return repository_parse(&settings, body, strlen(body), why);
}

static void tear_down(void)
{
    repository_free(&settings);
}

START_TEST(parameters_are_settings_and_so_is_what_is_in_config)
{
    ck_assert_int_eq(parse("{\"parameters\": {\"config\": \"{\\\"block\\\": \\\"ffn\\\", \\\"hidden_dim\\\": 64}\", "
                           "\"learning_rate\": 0.5, \"amsgrad\": true}}"),
                     0);
    ck_assert_uint_eq(settings.count, 4);
    ck_assert_str_eq(settings.items[0], "block=ffn");
    ck_assert_str_eq(settings.items[1], "hidden_dim=64");
    ck_assert_str_eq(settings.items[2], "learning_rate=0.5");
    ck_assert_str_eq(settings.items[3], "amsgrad=true");
}
END_TEST

static const char *const nothing[] = {"", "{}", "{\"parameters\": {}}"};

START_TEST(no_parameters_are_no_settings)
{
    ck_assert_int_eq(parse(nothing[_i]), 0);
    ck_assert_uint_eq(settings.count, 0);
}
END_TEST

static const char *const bad[] = {
    "[",
    "[]",
    "{\"parameters\": []}",
    "{\"parameters\": {\"a\": {}}}",
    "{\"parameters\": {\"a\": null}}",
    "{\"parameters\": {\"a\": \"x\\u0000y\"}}",
    "{\"parameters\": {\"config\": {}}}",
    "{\"parameters\": {\"config\": \"[]\"}}",
    "{\"parameters\": {\"config\": \"{\\\"a\\\": [1]}\"}}",
};

START_TEST(what_is_none_is_refused_with_a_reason)
{
    ck_assert_int_eq(parse(bad[_i]), -EINVAL);
    ck_assert(why[0] != 0);
}
END_TEST

START_TEST(there_are_not_more_than_there_is_room_for)
{
    char body[4096] = "{\"parameters\": {";
    for (int i = 0; i <= REPOSITORY_SETTINGS_MAX; i++)
        snprintf(body + strlen(body), sizeof body - strlen(body), "%s\"a%d\": 1", i ? "," : "", i);
    strcat(body, "}}");
    ck_assert_int_eq(parse(body), -EINVAL);
}
END_TEST

START_TEST(paths_name_a_model_and_what_is_to_be_done)
{
    char uid[EXPERTD_MAX_UID + 1];
    bool load;
    ck_assert(repository_path("/repository/models/ffn.0/load", uid, &load) && load);
    ck_assert_str_eq(uid, "ffn.0");
    ck_assert(repository_path("/repository/models/ffn.0/unload", uid, &load) && !load);
    ck_assert(!repository_path("/repository/models/ffn.0/loads", uid, &load));
    ck_assert(!repository_path("/repository/models//load", uid, &load));
    ck_assert(!repository_path("/repository/models/ffn.0", uid, &load));
    ck_assert(!repository_path("/repository/index", uid, &load));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("repository");
    tcase_add_checked_fixture(all, NULL, tear_down);
    tcase_add_test(all, parameters_are_settings_and_so_is_what_is_in_config);
    tcase_add_loop_test(all, no_parameters_are_no_settings, 0, (int)(sizeof nothing / sizeof nothing[0]));
    tcase_add_loop_test(all, what_is_none_is_refused_with_a_reason, 0, (int)(sizeof bad / sizeof bad[0]));
    tcase_add_test(all, there_are_not_more_than_there_is_room_for);
    tcase_add_test(all, paths_name_a_model_and_what_is_to_be_done);
    Suite *suite = suite_create("repository");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
