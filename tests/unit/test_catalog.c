#include <errno.h>

#include "dht_world.h"

START_TEST(uids_are_sorted_into_their_prefixes)
{
    struct catalog catalog = world_catalog("ffn.4.17 ffn.4.18 ffn.0.3 top.9 !ffn.4.2");
    ck_assert_uint_eq(catalog.experts, 5);
    ck_assert_uint_eq(catalog.alive, 4);
    ck_assert_uint_eq(catalog.count, 3);
    ck_assert_str_eq(catalog.contents[0]->prefix, "ffn.0.");
    ck_assert_str_eq(world_text(&catalog_find(&catalog, "ffn.4.")->experts), "17-18");
    ck_assert_str_eq(world_text(&catalog_find(&catalog, "top.")->experts), "9");
    ck_assert_ptr_null(catalog_find(&catalog, "ffn."));
    ck_assert_int_eq(catalog_add(&catalog, "no uid", true), -EINVAL);
    catalog_destroy(&catalog);
}
END_TEST

static void check_changes(const char *before, const char *after, const char *expected)
{
    struct catalog old = world_catalog(before), new = world_catalog(after);
    struct dialogue_content *changes;
    size_t count;
    char text[2048] = "";
    ck_assert_int_eq(catalog_changes(&old, &new, &changes, &count), 0);
    for (size_t i = 0; i < count; i++)
        strcat(strcat(strcat(strcat(text, changes[i].prefix), " "), world_text(&changes[i].experts)), ";");
    ck_assert_str_eq(text, expected);
    free(changes);
    catalog_destroy(&old);
    catalog_destroy(&new);
}

START_TEST(only_what_has_changed_is_told)
{
    check_changes("", "", "");
    check_changes("ffn.0.0 ffn.1.1", "ffn.0.0 ffn.1.1", "");
    check_changes("", "ffn.0.0 !ffn.1.1", "ffn.0. 0;");
    check_changes("ffn.0.0 ffn.1.1", "ffn.1.1 ffn.1.2 top.3", "ffn.1. 1-2;top. 3;ffn.0. ;");
    check_changes("ffn.0.0 ffn.0.1", "ffn.0.0 !ffn.0.1", "ffn.0. 0;");
    check_changes("ffn.0.0", "!ffn.0.0", "ffn.0. ;");
    check_changes("!ffn.0.0", "", "");
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("catalog");
    tcase_add_test(all, uids_are_sorted_into_their_prefixes);
    tcase_add_test(all, only_what_has_changed_is_told);
    return world_run(all, "catalog");
}
