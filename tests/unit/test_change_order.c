#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/uid.h"
#include "frontend/change_order.h"

static struct config config;

static Expertd__RequestHeader asked(Expertd__Method method, const char *uid, char **settings, size_t count)
{
    Expertd__RequestHeader header = EXPERTD__REQUEST_HEADER__INIT;
    header.method = method;
    header.uid = (char *)(uintptr_t)uid;
    header.settings = settings;
    header.n_settings = count;
    return header;
}

/* The text of the configuration that the order makes, or why it makes none. */
static int edit(const Expertd__RequestHeader *header, char **text, char why[CONFIG_EDIT_WHY_SIZE])
{
    struct change_order *order = change_order_create(header);
    ck_assert_ptr_nonnull(order);
    *text = NULL;
    const int rc = change_order_edit(order, &config, &config, text, why);
    change_order_destroy(&order);
    ck_assert_ptr_null(order);
    return rc;
}

static void set_up(void)
{
    static const char start[] = "devices: [{name: a}, {name: b}]\n"
                                "experts: [{uid: one.0, block: nop, hidden_dim: 4}]\n";
    ck_assert_int_eq(config_parse(&config, start, strlen(start), "start"), 0);
}

static void tear_down(void)
{
    config_destroy(&config);
}

START_TEST(faults_are_told_and_all_else_has_none)
{
    enum { SETTINGS = 129 };
    char setting[] = "a=b", *settings[SETTINGS], uid[UID_SIZE + 1];
    for (int i = 0; i < SETTINGS; i++)
        settings[i] = setting;
    memset(uid, 'a', sizeof uid);
    memcpy(uid + UID_SIZE - 3, ".1", 3); /* as long as one may be */
    Expertd__RequestHeader header = asked(EXPERTD__METHOD__LOAD, uid, settings, SETTINGS - 1);
    ck_assert_ptr_null(change_order_fault(&header));
    header.n_settings = SETTINGS;
    ck_assert_str_eq(change_order_fault(&header), "too many settings");
    header.n_settings = 0;
    memcpy(uid + UID_SIZE - 3, ".12", 4);
    ck_assert_str_eq(change_order_fault(&header), "that is no uid");
    header.uid = (char[]){"many.[0:4]"};
    ck_assert_str_eq(change_order_fault(&header), "that is no uid");
    header.uid = (char[]){""};
    ck_assert_str_eq(change_order_fault(&header), "that is no uid");
    header.method = EXPERTD__METHOD__RELOAD;
    ck_assert_ptr_null(change_order_fault(&header));
}
END_TEST

START_TEST(an_order_outlives_its_request)
{
    char uid[] = "new.1", setting[] = "device=b", *settings[] = {setting};
    const Expertd__RequestHeader header = asked(EXPERTD__METHOD__LOAD, uid, settings, 1);
    struct change_order *order = change_order_create(&header);
    memset(uid, 'x', strlen(uid));
    memset(setting, 'x', strlen(setting));
    ck_assert_str_eq(change_order_uid(order), "new.1");
    ck_assert_str_eq(change_order_device(order), "b");
    ck_assert(!change_order_reloads(order));
    change_order_destroy(&order);
}
END_TEST

START_TEST(a_device_that_is_named_twice_is_the_one_that_the_configuration_gets)
{
    char *settings[] = {(char[]){"device=a"}, (char[]){"block=nop"}, (char[]){"device=b"}, (char[]){"hidden_dim=4"}};
    char why[CONFIG_EDIT_WHY_SIZE] = "", *text;
    const Expertd__RequestHeader header = asked(EXPERTD__METHOD__LOAD, "new.1", settings, 4);
    struct change_order *order = change_order_create(&header);
    struct config after;
    ck_assert_str_eq(change_order_device(order), "b");
    change_order_destroy(&order);
    ck_assert_int_eq(edit(&header, &text, why), 0);
    ck_assert_int_eq(config_parse(&after, text, strlen(text), "after"), 0);
    ck_assert_uint_eq(after.experts_count, 2);
    ck_assert_str_eq(after.experts[1].uid, "new.1");
    ck_assert_str_eq(after.experts[1].device, "b");
    config_destroy(&after);
    free(text);
}
END_TEST

START_TEST(what_changes_no_expert_is_refused)
{
    char why[CONFIG_EDIT_WHY_SIZE] = "", *text;
    const Expertd__RequestHeader header = asked(EXPERTD__METHOD__FORWARD, "one.0", NULL, 0);
    ck_assert_int_eq(edit(&header, &text, why), -EINVAL);
    ck_assert_str_eq(why, "that changes no expert");
    ck_assert_ptr_null(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("change_order");
    TCase *tcase = tcase_create("change_order");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, faults_are_told_and_all_else_has_none);
    tcase_add_test(tcase, an_order_outlives_its_request);
    tcase_add_test(tcase, a_device_that_is_named_twice_is_the_one_that_the_configuration_gets);
    tcase_add_test(tcase, what_changes_no_expert_is_refused);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
