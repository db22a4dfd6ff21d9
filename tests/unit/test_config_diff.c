#include <check.h>
#include <string.h>

#include "common/config_diff.h"

static struct config old, new;
static struct config_diff diff;

static void tear_down(void)
{
    config_diff_free(&diff);
    config_destroy(&old);
    config_destroy(&new);
}

static void compare(const char *before, const char *after, const char *device)
{
    ck_assert_int_eq(config_parse(&old, before, strlen(before), "old"), 0);
    ck_assert_int_eq(config_parse(&new, after, strlen(after), "new"), 0);
    ck_assert_int_eq(config_diff_make(&diff, &old, &new, device), 0);
}

/* The differences of the uid, in the diff's order: "s", "ra". */
static const char *of(const char *uid)
{
    static const char letters[] = {
        [CONFIG_SAME] = '=', [CONFIG_ADDED] = 'a', [CONFIG_REMOVED] = 'r', [CONFIG_SET] = 's', [CONFIG_REPLACED] = 'R'};
    static char found[8];
    size_t count = 0;
    for (size_t i = 0; i < diff.count; i++)
        if (strcmp(diff.items[i].uid, uid) == 0)
            found[count++] = letters[diff.items[i].difference];
    found[count] = 0;
    return found;
}

START_TEST(what_was_written_in_another_way_is_the_same)
{
    compare("experts: [{uid: 'a.[0:3]', block: nop}]",
            "experts: [{uid: a.2, block: nop}, {uid: 'a.[0:3]', block: nop, except: [a.2]}]", NULL);
    ck_assert_uint_eq(diff.count, 3);
    ck_assert_str_eq(of("a.0"), "=");
    ck_assert_str_eq(of("a.2"), "=");
}
END_TEST

START_TEST(each_expert_is_told_by_itself)
{
    compare("experts: [{uid: 'a.[0:3]', block: nop}, {uid: b.0, hidden_dim: 8}, {uid: c.0}]",
            "experts: [{uid: 'a.[1:4]', block: nop}, {uid: b.0, hidden_dim: 16}, {uid: c.0, learning_rate: 0.5}]",
            NULL);
    ck_assert_str_eq(of("a.0"), "r");
    ck_assert_str_eq(of("a.1"), "=");
    ck_assert_str_eq(of("a.3"), "a");
    ck_assert_str_eq(of("b.0"), "R");
    ck_assert_str_eq(of("c.0"), "s");
}
END_TEST

START_TEST(a_block_that_means_something_else_replaces_its_experts)
{
    static const char blocks[] =
        "blocks: [{name: b, inputs: [{name: x, shape: [hidden_dim]}], layers: [{name: y, layer: "
        "linear, input: x, size: %s}], outputs: [{name: o, value: y}]}]\n"
        "experts: [{uid: e.0, block: b}, {uid: f.0}]";
    char before[512], after[512];
    snprintf(before, sizeof before, "%.*s%s%s", (int)(strstr(blocks, "%s") - blocks), blocks, "8",
             strstr(blocks, "%s") + 2);
    snprintf(after, sizeof after, "%.*s%s%s", (int)(strstr(blocks, "%s") - blocks), blocks, "16",
             strstr(blocks, "%s") + 2);
    compare(before, after, NULL);
    ck_assert_str_eq(of("e.0"), "R");
    ck_assert_str_eq(of("f.0"), "=");
    ck_assert_uint_ne(config_diff_fingerprint(&old), config_diff_fingerprint(&new));
}
END_TEST

START_TEST(a_device_sees_its_own_and_a_move_is_an_end_and_a_beginning)
{
    static const char before[] =
        "devices: [{name: x}, {name: y}]\nexperts: [{uid: a.0, device: x}, {uid: b.0, device: y}]";
    static const char after[] =
        "devices: [{name: x}, {name: y}]\nexperts: [{uid: a.0, device: y}, {uid: b.0, device: y}]";
    compare(before, after, NULL);
    ck_assert_str_eq(of("a.0"), "ra");
    config_diff_free(&diff);
    ck_assert_int_eq(config_diff_make(&diff, &old, &new, "x"), 0);
    ck_assert_uint_eq(diff.count, 1);
    ck_assert_str_eq(of("a.0"), "r");
    config_diff_free(&diff);
    ck_assert_int_eq(config_diff_make(&diff, &old, &new, "y"), 0);
    ck_assert_str_eq(of("a.0"), "a");
    ck_assert_str_eq(of("b.0"), "=");
}
END_TEST

START_TEST(other_sections_are_named_and_experts_have_a_number)
{
    compare("experts: [{uid: a.0}]", "frontend: {max_requests: 5}\nexperts: [{uid: a.0}]", NULL);
    ck_assert_str_eq(config_diff_elsewhere(&old, &new), "frontend");
    ck_assert_uint_eq(config_diff_fingerprint(&old), config_diff_fingerprint(&new));
    ck_assert_ptr_null(config_diff_elsewhere(&old, &old));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("config_diff");
    tcase_add_checked_fixture(all, NULL, tear_down);
    tcase_add_test(all, what_was_written_in_another_way_is_the_same);
    tcase_add_test(all, each_expert_is_told_by_itself);
    tcase_add_test(all, a_block_that_means_something_else_replaces_its_experts);
    tcase_add_test(all, a_device_sees_its_own_and_a_move_is_an_end_and_a_beginning);
    tcase_add_test(all, other_sections_are_named_and_experts_have_a_number);
    Suite *suite = suite_create("config_diff");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
