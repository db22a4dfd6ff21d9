#include <errno.h>

#include "dht/publication.h"
#include "dht_world.h"

START_TEST(uids_are_sorted_into_their_prefixes)
{
    struct catalog catalog = world_catalog("ffn.4.17 ffn.4.18 ffn.0.3 top.9 ffn.4.2");
    ck_assert_uint_eq(catalog.experts, 5);
    ck_assert_uint_eq(catalog.alive, 5);
    ck_assert_uint_eq(catalog.count, 4);
    ck_assert_str_eq(world_text(&catalog_find(&catalog, "ffn.")->branches), "0 4");
    ck_assert_uint_eq(catalog_find(&catalog, "ffn.")->experts.count, 0);
    ck_assert_str_eq(world_text(&catalog_find(&catalog, "ffn.4.")->experts), "2 17-18");
    ck_assert_str_eq(world_text(&catalog_find(&catalog, "top.")->experts), "9");
    ck_assert_ptr_null(catalog_find(&catalog, "ffn.1."));
    ck_assert_int_eq(catalog_add(&catalog, "no uid", true), -EINVAL);
    catalog_destroy(&catalog);
}
END_TEST

static void check_excluded(const char *uids, const char *expected)
{
    struct catalog catalog = world_catalog(uids);
    struct exclusion *excluded;
    size_t count, degraded;
    char text[2048] = "";
    ck_assert_int_eq(catalog_exclusions(&catalog, &excluded, &count, &degraded), 0);
    ck_assert_uint_eq(degraded, 0);
    for (size_t i = 0; i < count; i++) {
        strcat(strcat(text, excluded[i].prefix), " ");
        strcat(strcat(text, world_text(&excluded[i].experts)), "/");
        strcat(strcat(text, world_text(&excluded[i].branches)), ";");
    }
    ck_assert_str_eq(text, expected);
    catalog_exclusions_free(excluded, count);
    catalog_destroy(&catalog);
}

START_TEST(the_dead_are_named_as_high_up_as_possible)
{
    check_excluded("ffn.0.0 ffn.0.1", "");
    check_excluded("ffn.0.0 !ffn.0.1", "ffn.0. 1/;");
    check_excluded("!ffn.0.0 !ffn.0.1 ffn.1.0", "ffn. /0;");
    check_excluded("!ffn.0.0 !ffn.0.1", "ffn. /0;");
    check_excluded("!a.0.0.0 !a.0.0.1 !a.0.1.0 a.1.0.0 !a.1.0.1", "a. /0;a.1.0. 1/;");
    check_excluded("!top.1 top.2 !ffn.1", "ffn. 1/;top. 1/;");
    check_excluded("ffn.1 !ffn.1.0", "ffn. /1;");
}
END_TEST

START_TEST(too_many_scattered_dead_are_given_up_whole)
{
    struct catalog catalog = {0};
    struct exclusion *excluded;
    size_t count, degraded, bytes = 0;
    char uid[UID_SIZE];
    for (unsigned i = 0; i < 40000; i++) {
        snprintf(uid, sizeof uid, "ffn.%u.%u", i % 3, i * 2);
        ck_assert_int_eq(catalog_add(&catalog, uid, i % 2 || i % 3 == 0), 0);
    }
    ck_assert_int_eq(catalog_finish(&catalog), 0);
    ck_assert_int_eq(catalog_exclusions(&catalog, &excluded, &count, &degraded), 0);
    ck_assert_uint_eq(degraded, 0);
    catalog_exclusions_free(excluded, count);
    catalog_destroy(&catalog);

    for (unsigned i = 0; i < 120000; i++) {
        snprintf(uid, sizeof uid, "big.%u.%u", i % 3, i * 64);
        ck_assert_int_eq(catalog_add(&catalog, uid, i % 2), 0);
    }
    ck_assert_int_eq(catalog_finish(&catalog), 0);
    ck_assert_int_eq(catalog_exclusions(&catalog, &excluded, &count, &degraded), 0);
    ck_assert_uint_gt(degraded, 0);
    for (size_t i = 0; i < count; i++)
        bytes += record_list_bytes(&excluded[i].experts, 0, excluded[i].experts.count);
    ck_assert_uint_le(bytes, HEARTBEAT_LIST_BYTES);
    /* Whoever is dead is excluded, be it with others. */
    for (unsigned i = 0; i < 120000; i += 2) {
        snprintf(uid, sizeof uid, "big.%u.", i % 3);
        bool found = false;
        for (size_t k = 0; k < count; k++)
            found |= strcmp(excluded[k].prefix, uid) == 0 && ranges_contain(&excluded[k].experts, i * 64);
        ck_assert(found);
    }
    catalog_exclusions_free(excluded, count);
    catalog_destroy(&catalog);
}
END_TEST

START_TEST(thousands_of_prefixes_with_dead_experts_are_given_up_at_the_top)
{
    struct catalog catalog = {0};
    struct exclusion *excluded;
    size_t count, degraded;
    char uid[UID_SIZE];
    for (unsigned i = 0; i < 8000; i++) {
        snprintf(uid, sizeof uid, "wide.%u.%u", i / 2, i % 2);
        ck_assert_int_eq(catalog_add(&catalog, uid, i % 2), 0);
    }
    ck_assert_int_eq(catalog_add(&catalog, "fine.1.1", true), 0);
    ck_assert_int_eq(catalog_finish(&catalog), 0);
    ck_assert_int_eq(catalog_exclusions(&catalog, &excluded, &count, &degraded), 0);
    ck_assert_uint_gt(degraded, 0);
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(excluded[0].prefix, "wide.");
    ck_assert(ranges_contain(&excluded[0].branches, 3999));
    catalog_exclusions_free(excluded, count);
    catalog_destroy(&catalog);
}
END_TEST

START_TEST(a_long_list_is_cut_into_parts_that_fit)
{
    struct catalog catalog = {0};
    struct publication publication = {.prefix = "big."};
    struct record_slice slices[RECORD_MAX_PARTS];
    char uid[UID_SIZE];
    bool cut;
    for (unsigned i = 0; i < 30000; i++) {
        snprintf(uid, sizeof uid, "big.%u", i * 100000);
        ck_assert_int_eq(catalog_add(&catalog, uid, true), 0);
    }
    ck_assert_int_eq(catalog_finish(&catalog), 0);
    ck_assert_int_eq(publication_set(&publication, catalog_find(&catalog, "big.")), 0);
    ck_assert(publication.due);
    const uint32_t parts = publication_slices(&publication, slices, &cut);
    ck_assert_uint_gt(parts, 3);
    ck_assert(!cut);
    size_t at = 0;
    for (uint32_t p = 0; p < parts; p++) {
        ck_assert_uint_eq(slices[p].experts_from, at);
        ck_assert_uint_le(record_list_bytes(&publication.experts, at, slices[p].experts), RECORD_PART_BYTES);
        at += slices[p].experts;
    }
    ck_assert_uint_eq(at, 30000);
    publication.due = false;
    ck_assert_int_eq(publication_set(&publication, catalog_find(&catalog, "big.")), 0);
    ck_assert_msg(!publication.due, "what has not changed is not published again");
    ck_assert_int_eq(publication_set(&publication, NULL), 0);
    ck_assert(publication.due);
    ck_assert_uint_eq(publication_slices(&publication, slices, &cut), 1);
    publication_destroy(&publication);
    catalog_destroy(&catalog);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("catalog");
    tcase_add_test(all, uids_are_sorted_into_their_prefixes);
    tcase_add_test(all, the_dead_are_named_as_high_up_as_possible);
    tcase_add_test(all, too_many_scattered_dead_are_given_up_whole);
    tcase_add_test(all, thousands_of_prefixes_with_dead_experts_are_given_up_at_the_top);
    tcase_add_test(all, a_long_list_is_cut_into_parts_that_fit);
    return world_run(all, "catalog");
}
