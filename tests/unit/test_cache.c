#include <errno.h>

#include "dht_world.h"

#include "dht/announcer.h"

static struct world_server *one, *two;

static int woken;

static void wake(struct cache_waiter *waiter)
{
    (void)waiter;
    woken++;
}

static void setup(void)
{
    world_begin(64);
    one = world_server(1);
    two = world_server(2);
}

static void teardown(void)
{
    world_end();
}

START_TEST(what_was_asked_once_needs_no_network)
{
    world_host(one, "ffn.4.1 ffn.4.2 ffn.5.0");
    world_host(two, "ffn.4.7");
    ck_assert_str_eq(world_experts("ffn.4."), "1-2 7");
    const size_t finds = world.finds_total;
    const uint64_t misses = world.cache.counters.misses;
    for (int i = 0; i < 100; i++)
        ck_assert_str_eq(world_experts("ffn.4."), "1-2 7");
    ck_assert_uint_eq(world.finds_total, finds);
    ck_assert_uint_eq(world.cache.counters.misses, misses);
    ck_assert_str_eq(world_experts("none."), "");
    ck_assert_int_eq(world_known("none.", CACHE_SURE), 1);
}
END_TEST

START_TEST(what_is_below_a_known_prefix_is_known)
{
    world_host(one, "ffn.4.1");
    ck_assert_str_eq(world_branches("ffn."), "4");
    const size_t finds = world.finds_total;
    ck_assert_int_eq(world_known("ffn.4.", CACHE_SURE), 1);
    ck_assert_int_eq(world_known("ffn.5.6.7.", CACHE_SURE), 1);
    ck_assert_int_eq(world_known("gpt.", CACHE_SURE), 0);
    ck_assert_uint_eq(world.finds_total, finds + 1);
}
END_TEST

START_TEST(it_is_not_known_before_everyone_has_answered)
{
    world_host(one, "ffn.4.1");
    world_host(two, "ffn.4.2");
    two->silent = true;
    ck_assert_int_eq(world_known("ffn.4.", CACHE_SETTLED), 0);
    world_answer();
    ck_assert_int_eq(world_known("ffn.4.", CACHE_SETTLED), 0);
    world_pass(SERVERS_ANSWER_MS);
    ck_assert_int_eq(world_known("ffn.4.", CACHE_SETTLED), 1);
    ck_assert_int_eq(world_known("ffn.4.", CACHE_SURE), 0);
    two->silent = false;
    world_pass(600);
    world_answer();
    ck_assert_int_eq(world_known("ffn.4.", CACHE_SURE), 1);
    ck_assert_str_eq(world_experts("ffn.4."), "1-2");
}
END_TEST

START_TEST(those_that_come_later_are_found_in_the_background)
{
    world_host(one, "ffn.4.1");
    ck_assert_str_eq(world_experts("ffn.4."), "1");
    world_host(two, "ffn.4.2");
    world_pass(CACHE_REFRESH_MS);
    /* Known all the while. */
    ck_assert_str_eq(world_experts("ffn.4."), "1");
    world_answer();
    ck_assert_str_eq(world_experts("ffn.4."), "1-2");
    ck_assert_str_eq(world_experts("new."), "");
    world_host(world_server(3), "new.0");
    world_pass(CACHE_REFRESH_MS);
    ck_assert_int_eq(world_known("new.", CACHE_SURE), 1);
    world_answer();
    ck_assert_str_eq(world_experts("new."), "0");
}
END_TEST

START_TEST(when_no_node_answers_nothing_is_certain)
{
    world.down = true;
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 0);
    for (int i = 0; i < 50; i++) {
        while (world.finds_count > 0)
            world_answer_find(0);
        world_pass(100);
        ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 0);
    }
    world.down = false;
    world_host(one, "ffn.0");
    world_answer();
    ck_assert_str_eq(world_experts("ffn."), "0");
    /* And what was known stays so, as far as its servers are there. */
    world.down = true;
    world_pass(CACHE_REFRESH_MS);
    ck_assert_str_eq(world_experts("ffn."), "0");
    world_answer();
    ck_assert_str_eq(world_experts("ffn."), "0");
}
END_TEST

/* Rounds, one after the other, as long as there are any now. */
static void answer_finds(void)
{
    for (int i = 0; i < 10; i++) {
        while (world.finds_count > 0)
            world_answer_find(0);
        world_pass(50);
    }
    ck_assert_uint_eq(world.finds_count, 0);
}

START_TEST(where_most_nodes_are_silent_for_a_moment_nobody_is_said_to_host_what_one_does)
{
    static struct cache_waiter sure = {.wake = wake, .need = CACHE_SURE};
    struct cache_entry *entry;
    world.silent = 9;
    world_host(one, "ffn.1");
    world.announced_count = 0; /* the silent ones have it */
    woken = 0;
    ck_assert_int_eq(cache_find(&world.cache, "ffn.", CACHE_SURE, true, world.now, &entry), 0);
    cache_wait(entry, &sure);
    answer_finds();
    ck_assert_int_eq(world_known("ffn.", CACHE_SETTLED), 1);
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 0);
    world.silent = 0;
    world_announce(one, "ffn.");
    two->silent = true; /* another, that takes its time: nobody waits for it, but who has to be sure */
    world_announce(two, "ffn.");
    world_pass(7000);
    while (world.finds_count > 0)
        world_answer_find(0);
    ck_assert_int_eq(world_known("ffn.", CACHE_SETTLED), 1);
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 0);
    ck_assert(world_answer_asks());
    ck_assert_int_eq(woken, 0);
    world_pass(SERVERS_ANSWER_MS);
    two->silent = false;
    world_pass(600);
    world_answer();
    ck_assert_int_eq(woken, 1);
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 1);
    ck_assert_str_eq(world_text(&world_find(&world.places, "ffn.")->experts), "1");
}
END_TEST

START_TEST(nodes_that_stay_silent_are_taken_for_dead)
{
    world.silent = 9;
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 0);
    answer_finds();
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 0);
    world_pass(7000);
    ck_assert_uint_eq(world.finds_count, 1);
    answer_finds();
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 1);
    /* That is known then, and stays so. */
    for (int i = 0; i < 10; i++) {
        world_pass(CACHE_REFRESH_MS);
        ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 1);
        answer_finds();
    }
}
END_TEST

START_TEST(what_was_known_before_most_nodes_died_stays_known)
{
    world_host(one, "ffn.1");
    ck_assert_str_eq(world_experts("ffn."), "1");
    world.silent = 9;
    for (int i = 0; i < 10; i++) {
        world_pass(CACHE_REFRESH_MS);
        ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 1);
        answer_finds();
    }
}
END_TEST

START_TEST(doubt_outlasts_a_time_in_which_no_node_answers)
{
    static struct cache_waiter sure = {.wake = wake, .need = CACHE_SURE};
    struct cache_entry *entry;
    world.silent = 9;
    woken = 0;
    ck_assert_int_eq(cache_find(&world.cache, "ffn.", CACHE_SURE, true, world.now, &entry), 0);
    cache_wait(entry, &sure);
    answer_finds();
    world.down = true;
    for (int i = 0; i < 10; i++) {
        world_pass(2000);
        while (world.finds_count > 0)
            world_answer_find(0);
    }
    ck_assert_int_eq(woken, 0);
    world.down = false;
    world.silent = 0;
    world_host(one, "ffn.1");
    world_pass(2000);
    world_answer();
    ck_assert_int_eq(woken, 1);
    ck_assert_str_eq(world_experts("ffn."), "1");
}
END_TEST

START_TEST(a_node_that_never_met_another_says_what_it_knows)
{
    world.down = true;
    world.cache.met = false;
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 0);
    for (int i = 0; i < 12; i++) {
        while (world.finds_count > 0)
            world_answer_find(0);
        world_pass(100);
    }
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 1);
    world.down = false;
    world_host(one, "ffn.0");
    cache_on_connected(&world.cache, world.now);
    world_pass(1);
    world_answer();
    ck_assert_str_eq(world_experts("ffn."), "0");
}
END_TEST

/* Nodes that keep announcements, no more under a key than a reply holds. */
struct kept {
    unsigned count;
    char key[RENDEZVOUS_KEY_SIZE];
};

static struct {
    struct table kept; /* key -> struct kept */
    struct world_server *server;
    struct {
        uint64_t token;
        unsigned fullest;
    } ended[4];
    size_t ended_count;
} keeping;

static void keep(void *context, const char *key, uint64_t token)
{
    (void)context;
    struct kept *kept = table_find(&keeping.kept, key, strlen(key));
    if (!kept) {
        kept = calloc(1, sizeof *kept);
        snprintf(kept->key, sizeof kept->key, "%s", key);
        ck_assert_int_eq(table_insert(&keeping.kept, kept->key, strlen(key), kept), 0);
    }
    ck_assert_uint_lt(keeping.ended_count, 4);
    keeping.ended[keeping.ended_count].token = token;
    keeping.ended[keeping.ended_count++].fullest = kept->count;
    if (kept->count == ENGINE_REPLY_PEERS)
        return;
    kept->count++;
    ck_assert_uint_lt(world.announced_count, WORLD_ANNOUNCED);
    memcpy(world.announced[world.announced_count].key, kept->key, RENDEZVOUS_KEY_SIZE);
    world.announced[world.announced_count++].contact = keeping.server->contact;
}

/* As a server does: deeper and deeper, as long as it finds the key crowded. */
static void announce(struct world_server *server)
{
    const struct announcer_options options = {
        .network_id = WORLD_NETWORK, .id = identity_id(server->identity), .announce = keep};
    struct announcer *announcer;
    keeping.server = server;
    ck_assert_int_eq(announcer_create(&announcer, &options), 0);
    ck_assert_int_eq(announcer_host(announcer, &server->catalog), 0);
    while (!announcer_done(announcer)) {
        announcer_step(announcer, 8, world.now);
        for (; keeping.ended_count > 0; keeping.ended_count--)
            announcer_on_announced(announcer, keeping.ended[keeping.ended_count - 1].token, 8,
                                   keeping.ended[keeping.ended_count - 1].fullest, world.now);
    }
    announcer_destroy(&announcer);
}

START_TEST(all_of_ten_thousand_servers_under_one_prefix_are_found)
{
    enum { SERVERS = 10000, SHARDS = 16 };
    world_end();
    world_begin(64);
    for (int i = 0; i < SERVERS; i++) {
        struct world_server *server = world_server(i);
        char uid[UID_SIZE];
        snprintf(uid, sizeof uid, "ffn.%d", i);
        server->catalog = world_catalog(uid);
        announce(server);
    }
    struct kept *kept;
    for (size_t at = 0; (kept = table_next(&keeping.kept, &at));)
        free(kept);
    table_destroy(&keeping.kept);
    const struct place *place = world_look("ffn.");
    ck_assert_uint_eq(place->count, SERVERS);
    ck_assert_str_eq(world_text(&place->experts), "0-9999");
    ck_assert_uint_le(world.finds_total, 1 + SHARDS + SHARDS * SHARDS + SHARDS * SHARDS * SHARDS);
}
END_TEST

START_TEST(a_prefix_with_more_servers_than_are_connected_to_is_wide)
{
    world_end();
    world_begin_with(64, 8, 64 << 20);
    char uid[UID_SIZE];
    for (int i = 0; i < 20; i++) {
        snprintf(uid, sizeof uid, "ffn.%d.0", i);
        world_host(world_server(i), uid);
    }
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 0);
    world_answer();
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), -E2BIG);
    ck_assert_str_eq(world_experts("ffn.4."), "0");
    ck_assert_uint_le(servers_count(world.subscriptions, SERVER_LIVE), 8);
}
END_TEST

/* A prefix with a server for each of `count` branches. */
static void host_branches(const char *name, int first, int count)
{
    char uid[UID_SIZE];
    for (int i = 0; i < count; i++) {
        snprintf(uid, sizeof uid, "%s.%d.0", name, i);
        world_host(world_server(first + i), uid);
    }
}

static void find_peeked(const char *prefix)
{
    ck_assert_int_eq(cache_peek(&world.cache, prefix, false, world.now), 0);
    while (world.finds_count > 0)
        world_answer_find(0);
    world_step();
}

START_TEST(many_servers_of_a_prefix_that_is_only_peeked_at_are_not_asked)
{
    enum { MANY = CACHE_FEW + 8 };
    host_branches("ffn", 100, MANY);
    host_branches("few", 200, 3);
    find_peeked("few.");
    ck_assert_uint_eq(servers_total(world.subscriptions), 3);
    world_answer();
    ck_assert_int_eq(cache_peek(&world.cache, "few.", false, world.now), 1);
    find_peeked("ffn.");
    ck_assert_uint_eq(servers_total(world.subscriptions), 3);
    ck_assert_int_eq(cache_peek(&world.cache, "ffn.", false, world.now), 0);
    /* Who needs it all waits for all. */
    ck_assert_int_eq(world_known("ffn.", CACHE_SETTLED), 0);
    ck_assert_uint_eq(servers_total(world.subscriptions), 3 + MANY);
    ck_assert_uint_eq(world.finds_count, 0);
    world_answer();
    ck_assert_str_eq(world_branches("ffn."), "0-39");
}
END_TEST

START_TEST(what_was_peeked_at_is_known_some_time_later)
{
    enum { MANY = CACHE_FEW + 8 };
    host_branches("ffn", 100, MANY);
    find_peeked("ffn.");
    world_pass(CACHE_BEHIND_MS);
    ck_assert_uint_eq(servers_total(world.subscriptions), MANY);
    world_answer();
    ck_assert_int_eq(cache_peek(&world.cache, "ffn.", false, world.now), 1);
    ck_assert_str_eq(world_branches("ffn."), "0-39");
}
END_TEST

START_TEST(who_is_announced_to_this_node_itself_is_asked_at_once)
{
    world_host(world_server(300), "ffn.0.0");
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 0);
    const uint64_t token = world.finds[0].token;
    ck_assert_str_eq(world_branches("ffn."), "0");
    struct world_server *late = world_server(301);
    world_host(late, "ffn.1.0");
    const size_t finds = world.finds_total;
    cache_on_kept(&world.cache, token, &late->contact, world.now);
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 1); /* nobody waits for it */
    ck_assert(world_answer_asks());
    ck_assert_str_eq(world_branches("ffn."), "0-1");
    ck_assert_uint_eq(world.finds_total, finds);
    cache_on_kept(&world.cache, token + 1, &late->contact, world.now);
    cache_on_kept(&world.cache, token, &late->contact, world.now);
    ck_assert_uint_eq(servers_total(world.subscriptions), 2);
}
END_TEST

START_TEST(servers_of_the_least_recently_asked_prefix_are_let_go_of)
{
    world_end();
    world_begin_with(64, 3, 64 << 20);
    char uid[UID_SIZE];
    for (int i = 0; i < 6; i++) {
        snprintf(uid, sizeof uid, "p%d.0", i);
        world_host(world_server(i), uid);
    }
    for (int i = 0; i < 6; i++) {
        snprintf(uid, sizeof uid, "p%d.", i);
        ck_assert_int_eq(world_known(uid, CACHE_SURE), 0);
        world_answer();
        ck_assert_int_eq(world_known(uid, CACHE_SURE), 1);
        world_pass(2000);
        ck_assert_uint_le(servers_count(world.subscriptions, SERVER_LIVE), 3);
    }
    ck_assert_int_eq(world_known("p5.", CACHE_SURE), 1);
    /* Not "nobody has it": it has to be looked for again. */
    ck_assert_int_eq(world_known("p0.", CACHE_SURE), 0);
    world_answer();
    ck_assert_str_eq(world_experts("p0."), "0");
}
END_TEST

START_TEST(the_least_recently_used_is_forgotten)
{
    char prefix[UID_SIZE];
    world_end();
    world_begin(4);
    for (int i = 0; i < 8; i++) {
        snprintf(prefix, sizeof prefix, "p%d.", i);
        world_experts(prefix);
        world_experts("p0.");
    }
    ck_assert_uint_eq(world.cache.entries.count, 4);
    ck_assert_uint_eq(world.cache.counters.evictions, 4);
    ck_assert_int_eq(world_known("p0.", CACHE_SURE), 1);
    ck_assert_int_eq(world_known("p3.", CACHE_SURE), 0);
}
END_TEST

START_TEST(who_waits_is_woken_when_it_is_known_and_not_before)
{
    struct cache_waiter settled = {.wake = wake, .need = CACHE_SETTLED}, sure = {.wake = wake, .need = CACHE_SURE};
    struct cache_entry *entry;
    world_host(one, "ffn.4.1");
    world_host(two, "ffn.4.2");
    two->silent = true;
    woken = 0;
    ck_assert_int_eq(cache_find(&world.cache, "ffn.4.", CACHE_SETTLED, true, world.now, &entry), 0);
    cache_wait(entry, &settled);
    cache_wait(entry, &sure);
    world_answer();
    ck_assert_int_eq(woken, 0);
    world_pass(SERVERS_ANSWER_MS);
    ck_assert_int_eq(woken, 1);
    two->silent = false;
    world_pass(600);
    world_answer();
    ck_assert_int_eq(woken, 2);
    ck_assert_ptr_null(sure.waits_for);
}
END_TEST

START_TEST(what_is_waited_for_is_not_forgotten)
{
    struct cache_waiter waiters[4] = {{0}};
    struct cache_entry *entry;
    char prefix[UID_SIZE];
    world_end();
    world_begin(4);
    for (int i = 0; i < 4; i++) {
        snprintf(prefix, sizeof prefix, "p%d.", i);
        ck_assert_int_eq(cache_find(&world.cache, prefix, CACHE_SURE, true, world.now, &entry), 0);
        waiters[i].wake = wake;
        cache_wait(entry, &waiters[i]);
    }
    ck_assert_int_eq(world_known("p4.", CACHE_SURE), -ENOSPC);
    world_pass(1000 * (CACHE_IDLE_S + 1));
    ck_assert_uint_eq(world.cache.entries.count, 4);
    cache_waiter_remove(&waiters[2]);
    ck_assert_int_eq(world_known("p4.", CACHE_SURE), 0);
    for (int i = 0; i < 4; i++)
        cache_waiter_remove(&waiters[i]);
}
END_TEST

START_TEST(what_nobody_asks_for_is_forgotten_in_time)
{
    world_host(one, "ffn.0");
    world_experts("ffn.");
    world_experts("none.");
    ck_assert_uint_eq(world.cache.entries.count, 2);
    world_pass(1000 * (CACHE_NEGATIVE_S + 2));
    world_pass(1);
    ck_assert_uint_eq(world.cache.entries.count, 1);
    for (int i = 0; i < 60; i++) {
        world_pass(1000 * CACHE_IDLE_S / 50);
        if (world_subscription(one))
            world_heartbeat(one, 60000);
    }
    ck_assert_uint_eq(world.cache.entries.count, 0);
    ck_assert_uint_eq(servers_total(world.subscriptions), 0);
}
END_TEST

START_TEST(finds_of_what_was_forgotten_end_in_nothing)
{
    ck_assert_int_eq(world_known("ffn.", CACHE_SURE), 0);
    world_host(one, "ffn.0");
    world_pass(1000 * (CACHE_IDLE_S + 1));
    world_pass(1000);
    ck_assert_uint_eq(world.cache.entries.count, 0);
    ck_assert_uint_eq(world.finds_count, 1);
    world_answer_find(0);
    ck_assert_uint_eq(servers_total(world.subscriptions), 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("cache");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 300);
    tcase_add_test(all, what_was_asked_once_needs_no_network);
    tcase_add_test(all, what_is_below_a_known_prefix_is_known);
    tcase_add_test(all, it_is_not_known_before_everyone_has_answered);
    tcase_add_test(all, those_that_come_later_are_found_in_the_background);
    tcase_add_test(all, when_no_node_answers_nothing_is_certain);
    tcase_add_test(all, where_most_nodes_are_silent_for_a_moment_nobody_is_said_to_host_what_one_does);
    tcase_add_test(all, nodes_that_stay_silent_are_taken_for_dead);
    tcase_add_test(all, what_was_known_before_most_nodes_died_stays_known);
    tcase_add_test(all, doubt_outlasts_a_time_in_which_no_node_answers);
    tcase_add_test(all, a_node_that_never_met_another_says_what_it_knows);
    tcase_add_test(all, all_of_ten_thousand_servers_under_one_prefix_are_found);
    tcase_add_test(all, a_prefix_with_more_servers_than_are_connected_to_is_wide);
    tcase_add_test(all, many_servers_of_a_prefix_that_is_only_peeked_at_are_not_asked);
    tcase_add_test(all, what_was_peeked_at_is_known_some_time_later);
    tcase_add_test(all, who_is_announced_to_this_node_itself_is_asked_at_once);
    tcase_add_test(all, servers_of_the_least_recently_asked_prefix_are_let_go_of);
    tcase_add_test(all, the_least_recently_used_is_forgotten);
    tcase_add_test(all, who_waits_is_woken_when_it_is_known_and_not_before);
    tcase_add_test(all, what_is_waited_for_is_not_forgotten);
    tcase_add_test(all, what_nobody_asks_for_is_forgotten_in_time);
    tcase_add_test(all, finds_of_what_was_forgotten_end_in_nothing);
    return world_run(all, "cache");
}
