#include <errno.h>

#include "dht_world.h"

static struct world_server one, two;

static void setup(void)
{
    world_begin(64);
    one = world_server(1);
    two = world_server(2);
}

static void teardown(void)
{
    world_end();
    identity_destroy(&one.identity);
    identity_destroy(&two.identity);
}

static size_t replicas_of(const char *prefix, uint32_t coordinate)
{
    struct cache_entry *entry;
    size_t count = 0;
    ck_assert_int_eq(cache_find(&world.cache, prefix, CACHE_EXACT, false, world.now, &entry), 1);
    for (size_t at = 0; cache_replica(entry, coordinate, world.now, &at);)
        count++;
    return count;
}

START_TEST(what_was_asked_once_needs_no_network)
{
    world_host(&one, "ffn.4.0 ffn.4.1");
    ck_assert_str_eq(world_experts("ffn.4."), "0-1");
    ck_assert_uint_eq(world.gets_total, 3); /* the prefix, the one above, and the heartbeat of the server */
    ck_assert_str_eq(world_experts("none."), "");
    const size_t before = world.gets_total;
    for (int i = 0; i < 10; i++) {
        ck_assert_str_eq(world_experts("ffn.4."), "0-1");
        ck_assert_str_eq(world_experts("none."), "");
    }
    ck_assert_uint_eq(world.gets_total, before);
    ck_assert_uint_eq(world.cache.counters.hits, 20);
    ck_assert_uint_eq(world.cache.counters.misses, 2);
}
END_TEST

START_TEST(listening_keeps_it_fresh)
{
    world_host(&one, "ffn.4.0");
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    const size_t before = world.gets_total;
    world_host(&one, "ffn.4.0 ffn.4.9");
    ck_assert_str_eq(world_experts("ffn.4."), "0 9");
    world_host(&two, "ffn.4.9 ffn.4.10");
    world_answer(); /* of the second server's heartbeat */
    ck_assert_str_eq(world_experts("ffn.4."), "0 9-10");
    ck_assert_uint_eq(replicas_of("ffn.4.", 9), 2);
    ck_assert_uint_eq(replicas_of("ffn.4.", 0), 1);
    ck_assert_uint_eq(replicas_of("ffn.4.", 3), 0);
    ck_assert_uint_eq(world.gets_total, before + 1);
}
END_TEST

START_TEST(a_prefix_that_nobody_had_is_heard_of_when_someone_has_it)
{
    ck_assert_str_eq(world_experts("ffn.4."), "");
    world_host(&one, "ffn.4.0");
    world_answer();
    ck_assert_str_eq(world_experts("ffn.4."), "0");
}
END_TEST

START_TEST(a_server_without_heartbeats_expires)
{
    world_host(&one, "ffn.4.0");
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    world_pass(59000);
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    world_pass(1000);
    ck_assert_str_eq(world_experts("ffn.4."), "");
    world_heartbeat(&one, 60000, NULL);
    ck_assert_str_eq(world_experts("ffn.4."), "0");
}
END_TEST

START_TEST(a_heartbeat_that_did_not_come_is_asked_for_in_time)
{
    world_host(&one, "ffn.4.0");
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    for (size_t i = 0; i < world.listenings_count; i++)
        world.listenings[i].token = 0; /* nothing is heard any more */
    world_pass(30000);
    world_heartbeat(&one, 60000, NULL);
    world_pass(16000);
    world_answer();
    world_pass(20000);
    ck_assert_str_eq(world_experts("ffn.4."), "0");
}
END_TEST

START_TEST(a_farewell_counts_at_once)
{
    world_host(&one, "ffn.4.0");
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    world_heartbeat(&one, 0, NULL);
    ck_assert_str_eq(world_experts("ffn.4."), "");
}
END_TEST

START_TEST(the_newest_counts_however_they_come)
{
    struct world_server restarted = one;
    world_host(&one, "ffn.4.0 ffn.4.1");
    restarted.sequence = one.sequence + 100;
    restarted.records_from = restarted.sequence;
    strcpy(restarted.endpoint, "tcp://10.0.0.9:1");
    world_host(&restarted, "ffn.4.0");
    world_host(&one, "ffn.4.7"); /* late, from its life before */
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    struct cache_entry *entry;
    size_t at = 0;
    ck_assert_int_eq(cache_find(&world.cache, "ffn.4.", CACHE_EXACT, false, world.now, &entry), 1);
    ck_assert_str_eq(cache_replica(entry, 0, world.now, &at)->heartbeat.endpoint, "tcp://10.0.0.9:1");
    /* A prefix that the new life no longer has: its old record is obsolete, though it is the newest there. */
    world_record(&one, "old.", &entry->experts, NULL);
    ck_assert_str_eq(world_experts("old."), "");
}
END_TEST

START_TEST(the_excluded_are_not_alive)
{
    world_host(&one, "ffn.4.0 !ffn.4.1 ffn.5.0 !ffn.6.0 !ffn.6.1");
    world_host(&two, "ffn.6.1 ffn.4.0");
    ck_assert_str_eq(world_branches("ffn."), "4-6");
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    ck_assert_str_eq(world_experts("ffn.6."), "1");
    ck_assert_uint_eq(replicas_of("ffn.6.", 1), 1);
    world_heartbeat(&two, 0, NULL);
    ck_assert_str_eq(world_branches("ffn."), "4-5");
    ck_assert_str_eq(world_experts("ffn.6."), "");
}
END_TEST

START_TEST(forged_and_garbled_values_are_ignored_and_counted)
{
    struct catalog catalog = world_catalog("ffn.4.0");
    world_host(&one, "ffn.4.0");
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    /* Bytes that are nothing; two's record under another prefix; two's seal with one's name; two's heartbeat under
     * one's key. */
    world_put("ffn.4.", (uint8_t *)strdup("garbage"), 7);
    ck_assert_uint_eq(world.cache.counters.ignored_garbled, 1);
    world_seal(&two, SEAL_RECORD, "ffn.4.", (uint8_t *)strdup("garbage"), 7);
    ck_assert_uint_eq(world.cache.counters.ignored_garbled, 2);
    world_record(&two, "ffn.5.", &catalog.entries[1]->experts, NULL);
    world_put("ffn.4.",
              memcpy(malloc(world.values[world.values_count - 1].size), world.values[world.values_count - 1].bytes,
                     world.values[world.values_count - 1].size),
              world.values[world.values_count - 1].size);
    ck_assert_uint_eq(world.cache.counters.ignored_forged, 1);
    struct world_value *record;
    world_record(&two, "ffn.4.", &catalog.entries[1]->experts, NULL);
    record = &world.values[world.values_count - 1];
    uint8_t *forged = memcpy(malloc(record->size), record->bytes, record->size);
    memcpy(forged + 2, identity_id(one.identity), SERVER_ID_SIZE);
    forged[record->size - 80] ^= 1; /* in the payload or its length: anything that is not the same */
    world_put("ffn.4.", forged, record->size);
    ck_assert_uint_eq(world.cache.counters.ignored_forged + world.cache.counters.ignored_garbled, 4);
    char key[HEARTBEAT_KEY_SIZE];
    heartbeat_key(identity_id(one.identity), key);
    world_heartbeat(&two, 0, NULL);
    record = &world.values[world.values_count - 1];
    world_put(key, memcpy(malloc(record->size), record->bytes, record->size), record->size);
    ck_assert_uint_eq(world.cache.counters.ignored_forged + world.cache.counters.ignored_garbled, 5);
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    catalog_destroy(&catalog);
}
END_TEST

START_TEST(a_signature_is_what_makes_a_heartbeat)
{
    char key[HEARTBEAT_KEY_SIZE];
    world_host(&one, "ffn.4.0");
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    one.sequence += 10;
    world_heartbeat(&one, 0, NULL);
    ck_assert_str_eq(world_experts("ffn.4."), "");
    world_heartbeat(&one, 60000, NULL);
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    /* A farewell with a greater sequence whose last byte, of the signature, is wrong. */
    heartbeat_key(identity_id(one.identity), key);
    struct world_server silent = one;
    silent.sequence += 10;
    const size_t heard = world.listenings_count;
    world.listenings_count = 0;
    world_heartbeat(&silent, 0, NULL);
    world.listenings_count = heard;
    struct world_value *value = &world.values[world.values_count - 1];
    value->bytes[value->size - 1] ^= 1;
    world_put(key, memcpy(malloc(value->size), value->bytes, value->size), value->size);
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    ck_assert_uint_eq(world.cache.counters.ignored_forged, 1);
}
END_TEST

/* A heartbeat made while the world's wall clock is `skew_ms` off, heard when it is right. */
static void skewed_heartbeat(int64_t skew_ms, uint64_t expiration_ms)
{
    char key[HEARTBEAT_KEY_SIZE];
    const size_t heard = world.listenings_count;
    heartbeat_key(identity_id(one.identity), key);
    world.listenings_count = 0;
    world.now.wall_ms += (uint64_t)skew_ms;
    world_heartbeat(&one, expiration_ms, NULL);
    world.now.wall_ms -= (uint64_t)skew_ms;
    world.listenings_count = heard;
    struct world_value *value = &world.values[world.values_count - 1];
    world_put(key, memcpy(malloc(value->size), value->bytes, value->size), value->size);
}

START_TEST(a_heartbeat_lives_by_the_wall_and_no_longer_than_its_expiration)
{
    world_host(&one, "ffn.4.0");
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    skewed_heartbeat(-20000, 60000);
    world_pass(39000);
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    world_pass(1000);
    ck_assert_str_eq(world_experts("ffn.4."), "");
    skewed_heartbeat(30000, 60000);
    world_pass(59000);
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    world_pass(1000);
    ck_assert_str_eq(world_experts("ffn.4."), "");
    skewed_heartbeat(-70000, 60000);
    ck_assert_str_eq(world_experts("ffn.4."), "");
    skewed_heartbeat(PEER_FUTURE_MS + 1000, 60000);
    ck_assert_str_eq(world_experts("ffn.4."), "");
    ck_assert_uint_eq(world.cache.counters.ignored_time, 1);
}
END_TEST

START_TEST(the_least_recently_used_is_forgotten)
{
    char prefix[UID_SIZE];
    for (int i = 0; i < 200; i++) {
        snprintf(prefix, sizeof prefix, "p%d.", i);
        ck_assert_str_eq(world_experts(prefix), "");
        ck_assert_str_eq(world_experts("p0."), ""); /* used all the time */
        ck_assert_uint_le(world.cache.entries.count + world.cache.peers.count, 64);
    }
    const size_t before = world.gets_total;
    world_experts("p0.");
    world_experts("p199.");
    world_experts("p140.");
    ck_assert_uint_eq(world.gets_total, before);
    world_experts("p10.");
    ck_assert_uint_gt(world.gets_total, before);
    ck_assert_uint_eq(world.cache.counters.evictions, 137);
}
END_TEST

static int woken;
static void wake(struct cache_waiter *waiter)
{
    (void)waiter;
    woken++;
}

START_TEST(what_is_waited_for_is_not_forgotten)
{
    static struct cache_waiter waiters[65];
    struct cache_entry *entry;
    char prefix[UID_SIZE];
    woken = 0;
    for (int i = 0; i < 64; i++) {
        snprintf(prefix, sizeof prefix, "p%d.", i);
        ck_assert_int_eq(cache_find(&world.cache, prefix, CACHE_EXACT, true, world.now, &entry), 0);
        waiters[i].wake = wake;
        waiters[i].level = CACHE_EXACT;
        cache_wait(entry, &waiters[i]);
    }
    ck_assert_int_eq(cache_find(&world.cache, "more.", CACHE_EXACT, true, world.now, &entry), -ENOSPC);
    cache_waiter_remove(&waiters[7]);
    cache_waiter_remove(&waiters[7]);
    ck_assert_int_eq(cache_find(&world.cache, "more.", CACHE_EXACT, true, world.now, &entry), 0);
    world_answer();
    ck_assert_int_eq(woken, 63);
}
END_TEST

START_TEST(no_more_than_so_many_gets_run_at_once)
{
    struct cache_entry *entry;
    char prefix[UID_SIZE];
    world.cache.max_keys = 1000;
    for (int i = 0; i < 200; i++) {
        snprintf(prefix, sizeof prefix, "p%d.", i);
        ck_assert_int_eq(cache_find(&world.cache, prefix, CACHE_EXACT, true, world.now, &entry), 0);
    }
    /* Each may bring a value from each of eight nodes' servers, for all that is known. */
    ck_assert_uint_eq(world.gets_count, FETCH_WINDOW / FETCH_NODES);
    world_answer();
    ck_assert_uint_eq(world.gets_total, 400); /* that there is nothing is asked twice */
}
END_TEST

START_TEST(what_nobody_asks_for_is_forgotten_in_time)
{
    world_host(&one, "ffn.4.0");
    world_experts("ffn.4.");
    world_experts("none.");
    world_experts("last."); /* the newest is kept */
    world_pass(CACHE_NEGATIVE_S * 1000 + 1000);
    ck_assert_ptr_null(table_find(&world.cache.entries, "none.", 5));
    ck_assert_ptr_nonnull(table_find(&world.cache.entries, "ffn.4.", 6));
    world_pass(CACHE_IDLE_S * 1000);
    ck_assert_ptr_null(table_find(&world.cache.entries, "ffn.4.", 6));
    ck_assert_uint_eq(world.cache.peers.count, 0);
    ck_assert_uint_eq(world.cache.records, 0);
}
END_TEST

/* What OpenDHT says when the values under a key have expired. */
static void expire_all(const char *prefix)
{
    const struct cache_entry *entry = table_find(&world.cache.entries, prefix, strlen(prefix));
    for (size_t i = 0; i < world.values_count; i++)
        if (strcmp(world.values[i].key, prefix) == 0)
            cache_on_value(&world.cache, entry->fetch.token, true, world.values[i].bytes, world.values[i].size,
                           world.now);
}

START_TEST(a_record_that_the_dht_forgot_is_forgotten_when_its_server_is_dead)
{
    world_host(&one, "ffn.4.0");
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    expire_all("ffn.4.");
    world_pass(2000);
    ck_assert_str_eq(world_experts("ffn.4."), "0"); /* the peers that were listened to are gone, not the record */
    ck_assert_uint_eq(world.cache.records, 2);
    world_pass(60000);
    ck_assert_str_eq(world_experts("ffn.4."), "");
    ck_assert_uint_eq(world.cache.records, 1); /* that of the prefix above */
    expire_all("ffn.");
    world_pass(2000);
    ck_assert_uint_eq(world.cache.records, 0);
    ck_assert_uint_eq(world.cache.peers.count, 0);
}
END_TEST

START_TEST(without_peers_it_is_tried_again_and_then_taken_for_known)
{
    struct cache_entry *entry;
    world.down = true;
    ck_assert_int_eq(cache_find(&world.cache, "ffn.4.", CACHE_EXACT, true, world.now, &entry), 0);
    const size_t before = world.gets_total;
    world_answer();
    ck_assert_uint_gt(world.gets_total, before + FETCH_ATTEMPTS - 2);
    ck_assert_int_eq(cache_find(&world.cache, "ffn.4.", CACHE_EXACT, true, world.now, &entry), 1);
    world_host(&one, "ffn.4.0");
    world.down = false;
    cache_on_connected(&world.cache, world.now);
    ck_assert_int_eq(cache_find(&world.cache, "ffn.4.", CACHE_EXACT, true, world.now, &entry), 0);
    world_answer();
    ck_assert_str_eq(world_experts("ffn.4."), "0");
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("cache");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, what_was_asked_once_needs_no_network);
    tcase_add_test(all, listening_keeps_it_fresh);
    tcase_add_test(all, a_prefix_that_nobody_had_is_heard_of_when_someone_has_it);
    tcase_add_test(all, a_server_without_heartbeats_expires);
    tcase_add_test(all, a_heartbeat_that_did_not_come_is_asked_for_in_time);
    tcase_add_test(all, a_farewell_counts_at_once);
    tcase_add_test(all, the_newest_counts_however_they_come);
    tcase_add_test(all, the_excluded_are_not_alive);
    tcase_add_test(all, forged_and_garbled_values_are_ignored_and_counted);
    tcase_add_test(all, a_signature_is_what_makes_a_heartbeat);
    tcase_add_test(all, a_heartbeat_lives_by_the_wall_and_no_longer_than_its_expiration);
    tcase_add_test(all, the_least_recently_used_is_forgotten);
    tcase_add_test(all, what_is_waited_for_is_not_forgotten);
    tcase_add_test(all, no_more_than_so_many_gets_run_at_once);
    tcase_add_test(all, what_nobody_asks_for_is_forgotten_in_time);
    tcase_add_test(all, a_record_that_the_dht_forgot_is_forgotten_when_its_server_is_dead);
    tcase_add_test(all, without_peers_it_is_tried_again_and_then_taken_for_known);
    return world_run(all, "cache");
}
