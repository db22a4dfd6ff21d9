#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_diff.h"
#include "common/config_edit.h"

static const char start[] =
    "server: {run_dir: /run/x}\n"
    "devices: [{name: one}, {name: two}]\n"
    "blocks:\n"
    "  - {name: two, arguments: {inner: 8}, inputs: [{name: x, shape: [hidden_dim]}],\n"
    "     layers: [{name: a, layer: linear, input: x, size: inner}, {name: y, layer: linear, input: a, size: "
    "hidden_dim}],\n"
    "     outputs: [{name: output, value: y}]}\n"
    "experts:\n"
    "  - {uid: 'many.[0:4]', block: two, hidden_dim: 4, arguments: {inner: 16}, optimizer: sgd, learning_rate: 0.5}\n"
    "  - {uid: one.0, block: nop, hidden_dim: 4}\n";

static struct config config, next;
static char why[CONFIG_EDIT_WHY_SIZE], *text; /* of what was tried last */

static void set_up(void)
{
    ck_assert_int_eq(config_parse(&config, start, strlen(start), "start"), 0);
    memset(&next, 0, sizeof next);
    why[0] = 0;
}

static void tear_down(void)
{
    config_destroy(&config);
    config_destroy(&next);
}

static struct config_settings settings_of(const char *const *items)
{
    size_t count = 0;
    while (items[count])
        count++;
    return (struct config_settings){items, count};
}

static int move(const char *uid, const char *other, const char *device)
{
    const struct config_move moves[] = {{uid, device}, {other, device}};
    return config_edit_move(&config, moves, other ? 2 : 1, &text, why);
}

/* The text that came of it is a configuration: it becomes `next`. */
static void take(int rc)
{
    ck_assert_msg(rc == 0, "%d: %s", rc, why);
    config_destroy(&next);
    ck_assert_msg(config_parse(&next, text, strlen(text), "text") == 0, "%s", text);
    free(text);
}

static const struct config_expert *find(const char *uid)
{
    const struct config_expert *found = NULL;
    for (unsigned i = 0; i < next.experts_count; i++) {
        char **uids;
        uint64_t count;
        ck_assert_int_eq(config_expert_uids(&next.experts[i], &uids, &count), 0);
        for (uint64_t u = 0; u < count; u++)
            if (strcmp(uids[u], uid) == 0)
                found = &next.experts[i];
        free(uids);
    }
    return found;
}

static int load(const char *uid, const char *const *items)
{
    const struct config_settings settings = settings_of(items);
    return config_edit_load(&config, &config, uid, &settings, &text, why);
}

static int set(const char *uid, const char *const *items)
{
    const struct config_settings settings = settings_of(items);
    return config_edit_set(&config, uid, &settings, &text, why);
}

START_TEST(an_expert_is_added_with_the_options_that_are_said)
{
    const char *items[] = {"block=two", "hidden-dim=8", "arguments.inner=32", "learning_rate=0.125", NULL};
    take(load("new.1", items));
    const struct config_expert *expert = find("new.1");
    ck_assert_ptr_nonnull(expert);
    ck_assert_uint_eq(expert->hidden_dim, 8);
    ck_assert_double_eq(expert->learning_rate, 0.125);
    ck_assert_uint_eq(expert->values.count, 1);
    ck_assert_str_eq(expert->values.items[0].value, "32");
    ck_assert_ptr_nonnull(find("many.3"));
    ck_assert_str_eq(find("many.3")->values.items[0].value, "16");
}
END_TEST

START_TEST(one_of_a_pattern_goes_and_comes_again_as_it_was)
{
    const char *none[] = {NULL};
    take(config_edit_unload(&config, "many.2", &text, why));
    ck_assert_ptr_null(find("many.2"));
    ck_assert_ptr_nonnull(find("many.1"));
    const struct config_settings nothing = settings_of(none);
    struct config less = next;
    memset(&next, 0, sizeof next);
    take(config_edit_load(&less, &config, "many.2", &nothing, &text, why));
    config_destroy(&less);
    ck_assert_ptr_nonnull(find("many.2"));
    ck_assert_double_eq(find("many.2")->learning_rate, 0.5);
    ck_assert_uint_eq(config_diff_fingerprint(&next), config_diff_fingerprint(&config));
}
END_TEST

START_TEST(the_last_of_an_entry_takes_it_along_and_the_file_brings_it_back)
{
    const char *none[] = {NULL};
    const struct config_settings nothing = settings_of(none);
    take(config_edit_unload(&config, "one.0", &text, why));
    ck_assert_uint_eq(next.experts_count, 1);
    struct config less = next;
    memset(&next, 0, sizeof next);
    take(config_edit_load(&less, &config, "one.0", &nothing, &text, why));
    config_destroy(&less);
    ck_assert_str_eq(find("one.0")->block, "nop");
}
END_TEST

START_TEST(one_of_a_pattern_gets_settings_of_its_own)
{
    const char *items[] = {"learning_rate=0.25", "clip_norm=1", NULL};
    take(set("many.1", items));
    ck_assert_double_eq(find("many.1")->learning_rate, 0.25);
    ck_assert_str_eq(find("many.1")->values.items[0].value, "16");
    ck_assert_double_eq(find("many.0")->learning_rate, 0.5);
}
END_TEST

static const struct {
    const char *uid;
    const char *setting;
    int error;
    const char *said;
} bad_loads[] = {
    {"one.0", "block=nop", -EEXIST, "already"},
    {"other.0", NULL, -ENOENT, "block="},
    {"x.0", "hidden_dim", -EINVAL, "option=value"},
    {"x.0", "hiden_dim=4", -EINVAL, "'hidden_dim' meant"},
    {"x.0", "hidden_dim=-4", -EINVAL, "whole number"},
    {"x.0", "uid=y.0", -EINVAL, "cannot be set"},
    {"x.0", "except=y.0", -EINVAL, "cannot be set"},
    {"x.0", "arguments={}", -EINVAL, "cannot be set"},
    {"x.0", "arguments.a b=1", -EINVAL, "NAME=NUMBER"},
    {"x.0", "arguments.inner=x", -EINVAL, "NAME=NUMBER"},
    {"x.0", "weights=w.safetensors", -EINVAL, "absolute"},
    {"x.0", "block=./own.so", -EINVAL, "absolute"},
    {"x.0", "=4", -EINVAL, "no option"},
};

START_TEST(what_cannot_be_written_down_is_refused_with_a_reason)
{
    const char *items[] = {bad_loads[_i].setting, NULL};
    ck_assert_int_eq(load(bad_loads[_i].uid, items), bad_loads[_i].error);
    ck_assert_msg(strstr(why, bad_loads[_i].said) != NULL, "%s", why);
}
END_TEST

START_TEST(a_text_cannot_become_more_than_a_text)
{
    const char *items[] = {"block=nop\"}\nserver: {name: evil}\n#", NULL};
    const int rc = load("x.0", items);
    if (rc < 0)
        return;
    ck_assert_int_lt(config_parse(&next, text, strlen(text), "text"), 0); /* there is no such block */
    free(text);
}
END_TEST

START_TEST(a_living_expert_takes_on_only_what_it_can)
{
    const char *fixed[] = {"hidden_dim=8", NULL}, *nothing[] = {NULL}, *good[] = {"learning_rate=1", NULL};
    ck_assert_int_eq(set("many.1", fixed), -EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "cannot be changed"));
    ck_assert_int_eq(set("many.1", nothing), -EINVAL);
    ck_assert_int_eq(set("many.9", good), -ENOENT);
    ck_assert_int_eq(config_edit_unload(&config, "many.9", &text, why), -ENOENT);
}
END_TEST

START_TEST(experts_are_moved_with_their_settings_and_the_others_stay)
{
    const struct config_move all[] = {{"many.3", "two"}, {"many.0", "one"}, {"many.2", "two"}, {"many.1", "two"}};
    take(move("many.1", "one.0", "two"));
    ck_assert_str_eq(find("many.1")->device, "two");
    ck_assert_double_eq(find("many.1")->learning_rate, 0.5);
    ck_assert_str_eq(find("many.1")->values.items[0].value, "16");
    ck_assert_str_eq(find("one.0")->device, "two");
    ck_assert_str_eq(find("many.0")->device, "one");
    ck_assert_str_eq(find("many.3")->device, "one");
    take(config_edit_move(&config, all, 4, &text, why));
    ck_assert_str_eq(find("many.0")->device, "one");
    ck_assert_str_eq(find("many.3")->device, "two");
    ck_assert_uint_eq(next.experts_count, 5); /* nothing is left of the pattern */
    ck_assert_int_eq(move("many.1", "other.9", "two"), -ENOENT);
    ck_assert_str_ne(why, "");
}
END_TEST

START_TEST(what_was_moved_goes_home_when_it_is_loaded_again)
{
    struct config there;
    const struct config_settings none = {0};
    memset(&there, 0, sizeof there);
    take(move("many.1", "one.0", "two"));
    for (unsigned i = 0; i < 2; i++) {
        const char *uid = i ? "one.0" : "many.1";
        there = next;
        memset(&next, 0, sizeof next);
        take(config_edit_unload(&there, uid, &text, why));
        config_destroy(&there);
        ck_assert_ptr_null(find(uid));
        there = next;
        memset(&next, 0, sizeof next);
        take(config_edit_load(&there, &config, uid, &none, &text, why));
        config_destroy(&there);
        ck_assert_str_eq(find(uid)->device, "one");
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("config_edit");
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, an_expert_is_added_with_the_options_that_are_said);
    tcase_add_test(all, one_of_a_pattern_goes_and_comes_again_as_it_was);
    tcase_add_test(all, the_last_of_an_entry_takes_it_along_and_the_file_brings_it_back);
    tcase_add_test(all, one_of_a_pattern_gets_settings_of_its_own);
    tcase_add_loop_test(all, what_cannot_be_written_down_is_refused_with_a_reason, 0,
                        (int)(sizeof bad_loads / sizeof bad_loads[0]));
    tcase_add_test(all, a_text_cannot_become_more_than_a_text);
    tcase_add_test(all, a_living_expert_takes_on_only_what_it_can);
    tcase_add_test(all, experts_are_moved_with_their_settings_and_the_others_stay);
    tcase_add_test(all, what_was_moved_goes_home_when_it_is_loaded_again);
    Suite *suite = suite_create("config_edit");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
