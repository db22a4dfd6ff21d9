#include "dht_world.h"

static struct world places;
static struct resident one, two;

static void setup(void)
{
    memset(&one, 0, sizeof one);
    memset(&two, 0, sizeof two);
}

static void teardown(void)
{
    world_remove(&places, &one);
    world_remove(&places, &two);
    ck_assert_uint_eq(places.holdings, 0);
    ck_assert_uint_eq(places.bytes, 0);
    ck_assert_uint_eq(places.places.count, 0);
    world_destroy(&places);
}

static void put(struct resident *server, const char *uids)
{
    struct catalog catalog = world_catalog(uids);
    for (size_t i = 0; i < catalog.count; i++)
        ck_assert_int_eq(world_put(&places, server, catalog.contents[i]), 0);
    ck_assert_int_eq(world_branch(&places, server), 0);
    catalog_destroy(&catalog);
}

static const char *experts(const char *prefix)
{
    return world_text(&world_find(&places, prefix)->experts);
}

static const char *branches(const char *prefix)
{
    return world_text(&world_find(&places, prefix)->branches);
}

START_TEST(every_prefix_shows_what_follows_it)
{
    put(&one, "ffn.4.1 ffn.4.2 ffn.7 deep.1.2.3");
    put(&two, "ffn.4.2 ffn.5.0");
    ck_assert_str_eq(experts("ffn.4."), "1-2");
    ck_assert_str_eq(experts("ffn."), "7");
    ck_assert_str_eq(branches("ffn."), "4-5");
    ck_assert_str_eq(branches("deep."), "1");
    ck_assert_str_eq(branches("deep.1."), "2");
    ck_assert_str_eq(experts("deep.1.2."), "3");
    ck_assert_str_eq(experts("nothing."), "");
}
END_TEST

START_TEST(replicas_are_those_that_have_it)
{
    size_t at = 0;
    put(&one, "ffn.4.1 ffn.4.2");
    put(&two, "ffn.4.2");
    const struct place *place = world_find(&places, "ffn.4.");
    ck_assert_ptr_eq(place_replica(place, 1, &at), &one);
    ck_assert_ptr_null(place_replica(place, 1, &at));
    at = 0;
    ck_assert_ptr_nonnull(place_replica(place, 2, &at));
    ck_assert_ptr_nonnull(place_replica(place, 2, &at));
    ck_assert_ptr_null(place_replica(place, 2, &at));
}
END_TEST

START_TEST(what_is_told_anew_takes_the_place_of_what_was)
{
    const struct dialogue_content none = {.prefix = "ffn.4."};
    struct dialogue_content more = {.prefix = "ffn.5.", .adds = true};
    put(&one, "ffn.4.1 ffn.5.0");
    put(&one, "ffn.4.9");
    ck_assert_str_eq(experts("ffn.4."), "9");
    ck_assert_str_eq(experts("ffn.5."), "0");
    ck_assert_int_eq(ranges_append(&more.experts, 3, 5), 0);
    ck_assert_int_eq(world_put(&places, &one, &more), 0);
    ck_assert_str_eq(experts("ffn.5."), "0 3-4");
    ck_assert_int_eq(world_put(&places, &one, &none), 0);
    ck_assert_int_eq(world_branch(&places, &one), 0);
    ck_assert_str_eq(branches("ffn."), "5");
    ck_assert_str_eq(experts("ffn.4."), "");
    ranges_destroy(&more.experts);
}
END_TEST

START_TEST(one_that_goes_takes_only_its_own)
{
    put(&one, "ffn.4.1 ffn.6.6");
    put(&two, "ffn.4.2");
    world_remove(&places, &one);
    ck_assert_str_eq(experts("ffn.4."), "2");
    ck_assert_str_eq(branches("ffn."), "4");
    ck_assert_uint_eq(one.bytes, 0);
    ck_assert_uint_gt(two.bytes, 0);
}
END_TEST

START_TEST(any_order_of_changes_leads_to_the_same)
{
    enum { ROWS = 4, COLUMNS = 6, STEPS = 200 };
    bool has[2][ROWS][COLUMNS] = {{{false}}};
    srand((unsigned)_i);
    for (int step = 0; step < STEPS; step++) {
        struct resident *server = rand() % 2 ? &one : &two;
        const int row = rand() % ROWS;
        struct dialogue_content content = {0};
        snprintf(content.prefix, sizeof content.prefix, "ffn.%d.", row);
        for (int column = 0; column < COLUMNS; column++) {
            has[server == &two][row][column] = rand() % 3 == 0;
            if (has[server == &two][row][column])
                ck_assert_int_eq(ranges_append(&content.experts, (uint64_t)column, (uint64_t)column + 1), 0);
        }
        ck_assert_int_eq(world_put(&places, server, &content), 0);
        ck_assert_int_eq(world_branch(&places, server), 0);
        ranges_destroy(&content.experts);
        for (int r = 0; r < ROWS; r++) {
            bool any = false;
            char prefix[UID_SIZE];
            snprintf(prefix, sizeof prefix, "ffn.%d.", r);
            for (int c = 0; c < COLUMNS; c++) {
                const bool here = has[0][r][c] || has[1][r][c];
                ck_assert_int_eq(ranges_contain(&world_find(&places, prefix)->experts, (uint64_t)c), here);
                any |= here;
            }
            ck_assert_int_eq(ranges_contain(&world_find(&places, "ffn.")->branches, (uint64_t)r), any);
        }
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("world");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, every_prefix_shows_what_follows_it);
    tcase_add_test(all, replicas_are_those_that_have_it);
    tcase_add_test(all, what_is_told_anew_takes_the_place_of_what_was);
    tcase_add_test(all, one_that_goes_takes_only_its_own);
    tcase_add_loop_test(all, any_order_of_changes_leads_to_the_same, 0, 10);
    return world_run(all, "world");
}
