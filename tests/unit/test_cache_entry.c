#include "dht_world.h"

static struct world_server one, two;

static void setup(void)
{
    world_begin(10000);
    one = world_server(1);
    two = world_server(2);
}

static void teardown(void)
{
    world_end();
    identity_destroy(&one.identity);
    identity_destroy(&two.identity);
}

/* Whether the prefix is exactly known. */
static bool exact(const char *prefix)
{
    struct cache_entry *entry;
    const int rc = cache_find(&world.cache, prefix, CACHE_EXACT, false, world.now, &entry);
    ck_assert_int_ge(rc, 0);
    return rc == 1;
}

static size_t get_of(const char *key)
{
    for (size_t i = 0; i < world.gets_count; i++)
        if (strcmp(world.gets[i].key, key) == 0)
            return i;
    ck_abort_msg("nobody asked for %s", key);
}

/* What a get brings on its way, which is not its end. */
static void bring(const char *key)
{
    const uint64_t token = world.gets[get_of(key)].token;
    for (size_t i = 0; i < world.values_count; i++)
        if (strcmp(world.values[i].key, key) == 0 && !world.values[i].lost)
            cache_on_value(&world.cache, token, false, world.values[i].bytes, world.values[i].size, world.now);
    cache_tick(&world.cache, world.now);
}

START_TEST(nobody_is_said_only_when_it_is_certain)
{
    world_host(&one, "ffn.4.0");
    ck_assert(!exact("ffn.4."));
    bring("ffn.4."); /* one server's record, but who else has one? */
    ck_assert(!exact("ffn.4."));
    bring("ffn.");
    ck_assert(!exact("ffn.4."));
    world_pass(100);
    ck_assert(!exact("ffn.4."));
    world_answer_one(get_of("ffn."));
    ck_assert(!exact("ffn.4.")); /* does he live? */
    char key[HEARTBEAT_KEY_SIZE];
    heartbeat_key(identity_id(one.identity), key);
    bring(key);
    ck_assert(!exact("ffn.4.")); /* that may have been the last but one, before a farewell */
    world_pass(PEER_GRACE_MS);
    ck_assert(exact("ffn.4.")); /* though neither get has ended */
    ck_assert_str_eq(world_experts("ffn.4."), "0");
}
END_TEST

START_TEST(what_a_get_missed_is_got_again_since_the_prefix_above_names_it)
{
    world_host(&one, "ffn.4.0");
    world_host(&two, "ffn.4.1");
    for (size_t i = 0; i < world.values_count; i++)
        world.values[i].lost = i == 1; /* the record of the first server under ffn.4. */
    ck_assert_str_eq(world.values[1].key, "ffn.4.");
    ck_assert(!exact("ffn.4."));
    char key[HEARTBEAT_KEY_SIZE];
    heartbeat_key(identity_id(one.identity), key);
    for (int i = 0; i < 3; i++) {
        while (world.gets_count)
            world_answer_one(0);
        ck_assert(!exact("ffn.4."));
        world_pass(i == 0 ? 20 : 40 * (uint64_t)i);
        ck_assert_uint_eq(world.gets_count, 1);
    }
    world.values[1].lost = false;
    world_answer_one(0);
    ck_assert(exact("ffn.4."));
    ck_assert_str_eq(world_experts("ffn.4."), "0-1");
}
END_TEST

START_TEST(who_names_what_he_does_not_have_is_not_waited_for_for_ever)
{
    world_host(&one, "ffn.4.0");
    world_host(&two, "ffn.4.1");
    world.values[1].lost = true;
    ck_assert(!exact("ffn.4."));
    world_answer();
    ck_assert(exact("ffn.4."));
    ck_assert_str_eq(world_experts("ffn.4."), "1");
}
END_TEST

START_TEST(what_nobody_names_above_is_not_asked_for)
{
    world_host(&one, "ffn.4.0");
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    const size_t before = world.gets_total;
    ck_assert(exact("ffn.5."));
    ck_assert(exact("ffn.6.7."));
    ck_assert_uint_eq(world.gets_total, before);
    /* Until somebody does. */
    world_host(&two, "ffn.5.3");
    world_answer();
    ck_assert_str_eq(world_experts("ffn.5."), "3");
}
END_TEST

START_TEST(a_get_that_took_long_is_done_again_until_it_brings_nothing_new)
{
    world_host(&one, "ffn.4.0");
    world_host(&two, "ffn.5.0");
    ck_assert(!exact("ffn."));
    world.values[3].lost = true;
    ck_assert_str_eq(world.values[3].key, "ffn.");
    world_pass(FETCH_CALM_MS);
    world_answer_one(get_of("ffn.")); /* some peer had been given up: he may have had more */
    world_pass(40);
    world.values[3].lost = false;
    world_answer_one(get_of("ffn."));
    world_answer();
    ck_assert(exact("ffn."));
    ck_assert_str_eq(world_branches("ffn."), "4-5");
}
END_TEST

START_TEST(a_server_without_a_heartbeat_is_dead_after_a_second_look)
{
    world_host(&one, "ffn.4.0");
    world.values[2].lost = true;
    ck_assert(!exact("ffn.4."));
    while (world.gets_count)
        world_answer_one(0);
    ck_assert(!exact("ffn.4."));
    world_pass(40);
    ck_assert_uint_eq(world.gets_count, 1);
    world.values[2].lost = false;
    world_answer_one(0);
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    world_host(&two, "bert.1.0");
    for (size_t i = 0; i < world.values_count; i++)
        world.values[i].lost |= strncmp(world.values[i].key, "heartbeat/", 10) == 0;
    ck_assert_str_eq(world_experts("bert.1."), "");
}
END_TEST

START_TEST(a_farewell_is_not_overlooked_for_the_heartbeat_before)
{
    char key[HEARTBEAT_KEY_SIZE];
    heartbeat_key(identity_id(one.identity), key);
    world_host(&one, "ffn.4.0");
    world_heartbeat(&one, 0, NULL);
    world.values[3].lost = true;
    ck_assert(!exact("ffn.4."));
    world_answer_one(get_of("ffn."));
    bring("ffn.4.");
    bring(key);
    ck_assert(!exact("ffn.4."));
    world.values[3].lost = false;
    world_answer_one(get_of(key));
    ck_assert_str_eq(world_experts("ffn.4."), "");
}
END_TEST

START_TEST(who_has_just_started_does_not_say_nobody)
{
    world_host(&one, "ffn.4.0");
    cache_set_alone(&world.cache, true);
    world.down = true;
    for (int i = 0; i < 9; i++) {
        ck_assert(!exact("ffn.4."));
        while (world.gets_count)
            world_answer_one(0);
        world_pass(100);
    }
    ck_assert(!exact("ffn.4."));
    world.down = false;
    cache_set_alone(&world.cache, false);
    cache_on_connected(&world.cache, world.now);
    ck_assert_str_eq(world_experts("ffn.4."), "0");
}
END_TEST

START_TEST(who_stays_alone_says_what_he_knows)
{
    cache_set_alone(&world.cache, true);
    world.down = true;
    ck_assert(!exact("ffn.4."));
    for (int i = 0; i < 20; i++) {
        while (world.gets_count)
            world_answer_one(0);
        world_pass(100);
    }
    ck_assert(exact("ffn.4."));
}
END_TEST

START_TEST(listening_begins_when_all_is_known)
{
    world_host(&one, "ffn.4.0");
    ck_assert(!exact("ffn.4."));
    bring("ffn.");
    bring("ffn.4.");
    world_pass(50);
    ck_assert_uint_eq(world.listenings_count, 0);
    world_answer();
    ck_assert_uint_eq(world.listenings_count, 3); /* both prefixes and the heartbeat */
}
END_TEST

START_TEST(gets_keep_to_a_pace)
{
    struct cache_entry *entry;
    char prefix[UID_SIZE];
    size_t first = 0;
    for (int i = 0; i < 4000; i++) {
        snprintf(prefix, sizeof prefix, "p%d.", i);
        ck_assert_int_eq(cache_find(&world.cache, prefix, CACHE_EXACT, true, world.now, &entry), 0);
    }
    for (; world.gets_count > 0; first++)
        world_answer_one(0);
    ck_assert_uint_le(first, FETCH_RATE / FETCH_NODES + 1);
    world_pass(1000);
    ck_assert_uint_gt(world.gets_count, 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("cache_entry");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, nobody_is_said_only_when_it_is_certain);
    tcase_add_test(all, what_a_get_missed_is_got_again_since_the_prefix_above_names_it);
    tcase_add_test(all, who_names_what_he_does_not_have_is_not_waited_for_for_ever);
    tcase_add_test(all, what_nobody_names_above_is_not_asked_for);
    tcase_add_test(all, a_get_that_took_long_is_done_again_until_it_brings_nothing_new);
    tcase_add_test(all, a_server_without_a_heartbeat_is_dead_after_a_second_look);
    tcase_add_test(all, a_farewell_is_not_overlooked_for_the_heartbeat_before);
    tcase_add_test(all, who_has_just_started_does_not_say_nobody);
    tcase_add_test(all, who_stays_alone_says_what_he_knows);
    tcase_add_test(all, listening_begins_when_all_is_known);
    tcase_add_test(all, gets_keep_to_a_pace);
    return world_run(all, "cache_entry");
}
