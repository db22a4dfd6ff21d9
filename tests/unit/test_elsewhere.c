#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_cut.h"
#include "common/config_live.h"
#include "frontend/elsewhere.h"

static char folder[160];
static struct config whole;
static struct elsewhere *elsewhere;
static struct elsewhere_expert expert;

static void parse(struct config *config, const char *more)
{
    char text[1024];
    snprintf(text, sizeof text,
             "server: {name: box, run_dir: %s}\ndevices: [{name: a}, {name: b}]\nfrontends:\n"
             "  - {name: left, devices: [a], listen: [\"tcp://127.0.0.1:1\"]}\n"
             "  - {name: right, devices: [b], listen: [\"tcp://127.0.0.1:2\"], advertise: \"tcp://10.0.0.7:2\"}\n"
             "experts: [{uid: l.0, device: a}, {uid: \"r.[0:2]\", device: b}%s]\n",
             folder, more);
    ck_assert_int_eq(config_parse(config, text, strlen(text), "text"), 0);
}

static void set_up(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/elsewhere.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    parse(&whole, "");
    ck_assert_int_eq(elsewhere_create(&elsewhere, &whole, "box-left"), 0);
}

static void tear_down(void)
{
    char path[256];
    elsewhere_destroy(&elsewhere);
    config_destroy(&whole);
    snprintf(path, sizeof path, "%s/box-right.live.yaml", folder);
    unlink(path);
    ck_assert_int_eq(rmdir(folder), 0);
}

/* What the right one has, live, by a change of the configuration `base`. */
static void make_live(const struct config *base, const char *uid)
{
    char text[512];
    snprintf(text, sizeof text, "server: {name: box-right, run_dir: %s}\ndevices: [{name: b}]\nexperts: [{uid: %s}]\n",
             folder, uid);
    ck_assert_int_eq(config_live_propose(base, base, text), 0);
    ck_assert_int_eq(config_live_accept(base), 0);
}

START_TEST(others_experts_are_known_with_their_endpoint)
{
    ck_assert_uint_eq(elsewhere_count(elsewhere), 2);
    ck_assert(elsewhere_find(elsewhere, "r.1", &expert));
    ck_assert_str_eq(expert.uid, "r.1");
    ck_assert_str_eq(expert.device, "b");
    ck_assert_str_eq(expert.endpoint, "tcp://10.0.0.7:2");
    ck_assert_str_eq(expert.server, "box-right");
    ck_assert(!elsewhere_find(elsewhere, "l.0", &expert));
    ck_assert(!elsewhere_find(elsewhere, "r.2", &expert));
    ck_assert_str_eq(elsewhere_server_of(elsewhere, "b"), "box-right");
    ck_assert_ptr_null(elsewhere_server_of(elsewhere, "a"));
    ck_assert(!elsewhere_look(elsewhere));
    const char *server, *endpoint;
    ck_assert(elsewhere_frontend(elsewhere, 0, &server, &endpoint));
    ck_assert_str_eq(server, "box-right");
    ck_assert_str_eq(endpoint, "tcp://10.0.0.7:2");
    ck_assert(!elsewhere_frontend(elsewhere, 1, &server, &endpoint));
}
END_TEST

START_TEST(what_is_changed_there_is_known_after_a_look)
{
    struct config right;
    ck_assert_int_eq(config_cut(&right, &whole, 1), 0);
    make_live(&right, "r.7");
    ck_assert(elsewhere_look(elsewhere));
    ck_assert(!elsewhere_outdated(elsewhere));
    ck_assert(elsewhere_find(elsewhere, "r.7", &expert));
    ck_assert(!elsewhere_find(elsewhere, "r.0", &expert));
    ck_assert_str_eq(elsewhere_server_of_entry(elsewhere, "r.0"), "box-right"); /* who would load it again */
    ck_assert_ptr_null(elsewhere_server_of_entry(elsewhere, "l.0"));
    ck_assert(!elsewhere_look(elsewhere));
    make_live(&right, "r.8");
    ck_assert(elsewhere_look(elsewhere));
    ck_assert(elsewhere_find(elsewhere, "r.8", &expert));
    config_destroy(&right);
}
END_TEST

START_TEST(changes_of_another_configuration_do_not_count)
{
    struct config other, right;
    parse(&other, ", {uid: x.0, device: b}");
    ck_assert_int_eq(config_cut(&right, &other, 1), 0);
    make_live(&right, "r.7");
    ck_assert(elsewhere_look(elsewhere));
    ck_assert(elsewhere_outdated(elsewhere));
    ck_assert(elsewhere_find(elsewhere, "r.0", &expert));
    ck_assert(!elsewhere_find(elsewhere, "r.7", &expert));
    config_destroy(&right);
    config_destroy(&other);
}
END_TEST

START_TEST(a_new_configuration_tells_which_other_has_changed)
{
    struct config changed;
    struct elsewhere *newer;
    parse(&changed, ", {uid: x.0, device: b}");
    ck_assert_int_eq(elsewhere_create(&newer, &changed, "box-left"), 0);
    ck_assert_str_eq(elsewhere_changed(elsewhere, newer), "box-right");
    elsewhere_destroy(&newer);
    config_destroy(&changed);
    parse(&changed, ", {uid: x.0, device: a}");
    ck_assert_int_eq(elsewhere_create(&newer, &changed, "box-left"), 0);
    ck_assert_ptr_null(elsewhere_changed(elsewhere, newer));
    elsewhere_destroy(&newer);
    config_destroy(&changed);
}
END_TEST

START_TEST(one_frontend_alone_has_no_others)
{
    struct config alone;
    struct elsewhere *none;
    static const char text[] = "experts: [{uid: a.0}]";
    ck_assert_int_eq(config_parse(&alone, text, strlen(text), "text"), 0);
    ck_assert_int_eq(elsewhere_create(&none, &alone, "expertd"), 0);
    ck_assert_ptr_null(none);
    ck_assert_uint_eq(elsewhere_count(none), 0);
    ck_assert(!elsewhere_find(none, "a.0", &expert));
    ck_assert(!elsewhere_look(none));
    ck_assert_ptr_null(elsewhere_server_of(none, "device0"));
    config_destroy(&alone);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("elsewhere");
    TCase *tests = tcase_create("elsewhere");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, others_experts_are_known_with_their_endpoint);
    tcase_add_test(tests, what_is_changed_there_is_known_after_a_look);
    tcase_add_test(tests, changes_of_another_configuration_do_not_count);
    tcase_add_test(tests, a_new_configuration_tells_which_other_has_changed);
    tcase_add_test(tests, one_frontend_alone_has_no_others);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
