#include <errno.h>

#include <unistd.h>

#include "dht_world.h"

static struct world_server *one, *two;
static struct server_link links[4];
static int changes, gone;

static void changed(struct server_link *link, bool is_gone)
{
    (void)link;
    changes++;
    gone += is_gone;
}

static void setup(void)
{
    world_begin(64);
    one = world_server(1);
    two = world_server(2);
    memset(links, 0, sizeof links);
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++)
        links[i].changed = changed;
    changes = gone = 0;
    one->catalog = world_catalog("ffn.4.1 ffn.4.2");
    two->catalog = world_catalog("ffn.4.2 ffn.5.0");
}

static void teardown(void)
{
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++)
        servers_unlink(world.subscriptions, &links[i]);
    world_end();
}

/* Links to it, and lets it answer. */
static struct server *meet(struct world_server *server, size_t link)
{
    ck_assert_int_eq(servers_link(world.subscriptions, &server->contact, &links[link], world.now), 0);
    world_answer();
    struct server *subscription = world_subscription(server);
    ck_assert_int_eq(subscription->state, SERVER_LIVE);
    ck_assert(subscription->settled && subscription->sure);
    return subscription;
}

static const char *experts(const char *prefix)
{
    return world_text(&world_find(&world.places, prefix)->experts);
}

START_TEST(one_that_is_asked_tells_all_and_then_news)
{
    struct dialogue_content news[] = {{.prefix = "ffn.4."}, {.prefix = "ffn.9."}};
    const struct dialogue_tell tell = {
        .network_id = WORLD_NETWORK, .expiration_ms = 60000, .contents = news, .contents_count = 2};
    meet(one, 0);
    ck_assert_int_eq(changes, 1);
    ck_assert_str_eq(experts("ffn.4."), "1-2");
    ck_assert_int_eq(ranges_append(&news[1].experts, 3, 4), 0);
    world_hear(one, &tell);
    ck_assert_str_eq(experts("ffn.4."), "");
    ck_assert_str_eq(experts("ffn.9."), "3");
    ck_assert_str_eq(world_text(&world_find(&world.places, "ffn.")->branches), "9");
    ranges_destroy(&news[1].experts);
}
END_TEST

START_TEST(who_is_not_trusted_is_not_believed_about_what_others_are_trusted_with)
{
    char id[SERVER_ID_TEXT], text[SERVER_ID_TEXT + 8];
    const char *items[] = {text};
    const struct config_strings entries = {items, 1};
    struct trust *trust;
    snprintf(text, sizeof text, "ffn.4. %s", server_id_format(identity_id(one->identity), id));
    ck_assert_int_eq(trust_create(&trust, &entries), 0);
    teardown();
    world_trust = trust;
    world_begin(64);
    struct world_server *other = world_server(2);
    other->catalog = world_catalog("ffn.4.2 ffn.5.0");
    memset(links, 0, sizeof links);
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++)
        links[i].changed = changed;
    meet(other, 0);
    ck_assert_str_eq(experts("ffn.4."), "");
    ck_assert_str_eq(experts("ffn.5."), "0");
    ck_assert_str_eq(world_text(&world_find(&world.places, "ffn.")->branches), "5");
    ck_assert_uint_eq(servers_counters(world.subscriptions)->untrusted, 1);
    world_trust = NULL;
    trust_destroy(&trust);
}
END_TEST

START_TEST(heartbeats_keep_it_alive_and_it_expires_without)
{
    struct server *subscription = meet(one, 0);
    for (int i = 0; i < 5; i++) {
        world_pass(50000);
        world_heartbeat(one, 60000);
        ck_assert_str_eq(experts("ffn.4."), "1-2");
    }
    world_pass(59999);
    ck_assert_int_eq(subscription->state, SERVER_LIVE);
    world_pass(1);
    ck_assert_int_eq(subscription->state, SERVER_RESTING);
    ck_assert_str_eq(experts("ffn.4."), "");
    /* It is asked again, and is back. */
    world_pass(1000);
    world_answer();
    ck_assert_str_eq(experts("ffn.4."), "1-2");
}
END_TEST

START_TEST(a_farewell_counts_at_once)
{
    meet(one, 0);
    meet(two, 1);
    world_heartbeat(one, 0);
    ck_assert_str_eq(experts("ffn.4."), "2");
    ck_assert_uint_eq(servers_counters(world.subscriptions)->farewells, 1);
}
END_TEST

START_TEST(a_life_that_is_told_to_be_shorter_is)
{
    meet(one, 0);
    world_heartbeat(one, 100);
    world_pass(100);
    ck_assert_str_eq(experts("ffn.4."), "");
}
END_TEST

START_TEST(one_that_does_not_answer_is_asked_longer_and_longer_apart)
{
    uint64_t last_ns = 0, pause_ns = 0;
    one->silent = true;
    ck_assert_int_eq(servers_link(world.subscriptions, &one->contact, &links[0], world.now), 0);
    world_pass(0);
    ck_assert(!world_subscription(one)->settled);
    world_pass(SERVERS_ANSWER_MS);
    ck_assert(world_subscription(one)->settled && !world_subscription(one)->sure);
    world_pass(500);
    world_pass(4 * SERVERS_ANSWER_MS);
    ck_assert(world_subscription(one)->sure);
    for (uint64_t asked = servers_counters(world.subscriptions)->asked; asked < 12; world_pass(100)) {
        const uint64_t now_asked = servers_counters(world.subscriptions)->asked;
        if (now_asked == asked)
            continue;
        asked = now_asked;
        ck_assert(!last_ns || world.now.ns - last_ns + 2 * NS_PER_S >= pause_ns);
        pause_ns = last_ns ? world.now.ns - last_ns : 0;
        last_ns = world.now.ns;
    }
    ck_assert_uint_gt(pause_ns, 100 * NS_PER_S);
}
END_TEST

static void check_liar_beside(size_t bytes)
{
    struct server *subscription = world_subscription(one);
    ck_assert_uint_eq(servers_counters(world.subscriptions)->liars, 1);
    ck_assert_int_eq(subscription->state, SERVER_RESTING);
    ck_assert(subscription->settled && subscription->sure);
    ck_assert_uint_eq(world.places.bytes, bytes);
    world_pass(30000);
    ck_assert_int_eq(subscription->state, SERVER_RESTING);
}

static void check_liar(void)
{
    check_liar_beside(0);
}

static void ask_one(void)
{
    ck_assert_int_eq(servers_link(world.subscriptions, &one->contact, &links[0], world.now), 0);
    world_pass(0);
    ck_assert_int_eq(world_subscription(one)->state, SERVER_ASKED);
}

/* All of its catalog, after an introduction that somebody else signed. */
static void lie(void)
{
    struct dialogue_tell tell = world_introduction(one, two->identity);
    tell.contents = one->catalog.contents[0];
    tell.contents_count = 1;
    tell.whole = true;
    world_hear(one, &tell);
}

START_TEST(one_that_cannot_prove_its_id_is_left_alone)
{
    ask_one();
    lie();
    world_pass(20);
    ck_assert_str_eq(experts("ffn.4."), "");
    check_liar();
}
END_TEST

START_TEST(nobody_is_told_of_one_that_does_not_prove_its_id)
{
    size_t at = 0;
    meet(two, 1);
    ask_one();
    lie();
    ck_assert_str_eq(experts("ffn.4."), "1-2");
    ck_assert_ptr_null(place_replica(world_find(&world.places, "ffn.4."), 1, &at));
    at = 0;
    ck_assert_ptr_eq(place_replica(world_find(&world.places, "ffn.4."), 2, &at), &world_subscription(two)->resident);
    ck_assert_ptr_null(place_replica(world_find(&world.places, "ffn.4."), 2, &at));
    world_pass(0);
    ck_assert_str_eq(experts("ffn.4."), "2");
    check_liar_beside(world_subscription(two)->resident.bytes);
}
END_TEST

START_TEST(one_that_lies_each_time_is_left_alone_for_longer)
{
    uint64_t pauses_ns[3];
    ask_one();
    for (int i = 0; i < 3; i++) {
        lie();
        world_pass(20);
        const uint64_t from_ns = world.now.ns;
        ck_assert_int_eq(world_subscription(one)->state, SERVER_RESTING);
        while (world_subscription(one)->state == SERVER_RESTING)
            world_pass(1000);
        pauses_ns[i] = world.now.ns - from_ns;
    }
    ck_assert_uint_gt(pauses_ns[1], pauses_ns[0] + 30 * NS_PER_S);
    ck_assert_uint_gt(pauses_ns[2], pauses_ns[1] + 30 * NS_PER_S);
}
END_TEST

START_TEST(one_that_lies_and_leaves_is_left_alone_all_the_same)
{
    ask_one();
    lie();
    if (_i == 0) {
        world_heartbeat(one, 0); /* a farewell */
    } else {
        world_heartbeat(one, 1);
        world_pass(1);
    }
    check_liar();
}
END_TEST

START_TEST(one_of_another_network_is_left_alone)
{
    ask_one();
    struct dialogue_tell tell = world_introduction(one, one->identity);
    tell.network_id++;
    world_hear(one, &tell);
    check_liar();
}
END_TEST

START_TEST(one_that_tells_before_it_introduces_itself_is_left_alone)
{
    ask_one();
    world_heartbeat(one, 1000);
    check_liar();
}
END_TEST

START_TEST(garbage_in_the_middle_of_a_catalog_leaves_nothing_of_it)
{
    ask_one();
    struct dialogue_tell tell = world_introduction(one, one->identity);
    tell.contents = one->catalog.contents[0];
    tell.contents_count = 1;
    world_hear(one, &tell);
    ck_assert_str_eq(experts("ffn.4."), "1-2");
    servers_hear(world.subscriptions, world_subscription(one), (const uint8_t *)"garbage", 7, world.now);
    ck_assert_str_eq(experts("ffn.4."), "");
    check_liar();
}
END_TEST

START_TEST(one_that_talks_too_much_is_left_alone)
{
    meet(one, 0);
    for (int i = 0; i < 5000 && world_subscription(one)->state == SERVER_LIVE; i++)
        world_heartbeat(one, 60000);
    check_liar();
}
END_TEST

START_TEST(a_catalog_that_never_ends_is_given_up)
{
    const struct dialogue_tell page = {.network_id = WORLD_NETWORK, .expiration_ms = 60000};
    ask_one();
    struct dialogue_tell tell = world_introduction(one, one->identity);
    world_hear(one, &tell);
    for (int i = 0; i < 100 && world_subscription(one)->state == SERVER_ASKED; i++) {
        world_hear(one, &page);
        world_pass(1000);
    }
    ck_assert(world_subscription(one)->settled);
    ck_assert_uint_eq(servers_counters(world.subscriptions)->silent, 1);
}
END_TEST

START_TEST(one_that_falls_silent_after_its_introduction_is_waited_for_twice_and_no_more)
{
    enum { ROUNDS = 5 };
    ask_one();
    struct server *subscription = world_subscription(one);
    for (int round = 0; round < ROUNDS; round++) {
        struct dialogue_tell tell = world_introduction(one, one->identity);
        world_hear(one, &tell);
        while (subscription->state == SERVER_ASKED)
            world_pass(100);
        ck_assert(subscription->settled);
        ck_assert_int_eq(subscription->sure, round > 0);
        one->silent = true;
        while (subscription->state != SERVER_ASKED) {
            ck_assert_int_eq(subscription->sure, round > 0);
            world_pass(100);
        }
    }
    world_tell(one);
    ck_assert_int_eq(subscription->state, SERVER_LIVE);
    ck_assert_uint_eq(subscription->timeouts, 0);
}
END_TEST

START_TEST(of_all_catalogs_the_largest_goes_when_there_is_no_room)
{
    teardown();
    world_begin_with(64, 100, 200000);
    one = world_server(1);
    two = world_server(2);
    one->catalog = world_catalog("ffn.4.1");
    char uid[UID_SIZE];
    struct catalog large = {0};
    for (int i = 0; i < 20000; i++) {
        snprintf(uid, sizeof uid, "ffn.%d.0", i);
        ck_assert_int_eq(catalog_add(&large, uid, true), 0);
    }
    ck_assert_int_eq(catalog_finish(&large), 0);
    two->catalog = large;
    meet(one, 0);
    ck_assert_int_eq(servers_link(world.subscriptions, &two->contact, &links[1], world.now), 0);
    world_answer();
    ck_assert_int_eq(world_subscription(two)->state, SERVER_RESTING);
    ck_assert_str_eq(experts("ffn.4."), "1");
    ck_assert_uint_lt(world.places.bytes, 200000);
    ck_assert_uint_eq(servers_counters(world.subscriptions)->overflow, 1);
}
END_TEST

START_TEST(the_same_identity_at_two_addresses_is_two_servers)
{
    identity_destroy(&two->identity);
    ck_assert_int_eq(identity_create(&two->identity, ""), 0);
    /* The same key, by way of a file. */
    char file[] = "/tmp/test_servers.XXXXXX";
    const int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    close(fd);
    unlink(file);
    identity_destroy(&one->identity);
    identity_destroy(&two->identity);
    ck_assert_int_eq(identity_create(&one->identity, file), 0);
    ck_assert_int_eq(identity_create(&two->identity, file), 0);
    unlink(file);
    meet(one, 0);
    meet(two, 1);
    size_t at = 0, count = 0;
    while (place_replica(world_find(&world.places, "ffn.4."), 2, &at))
        count++;
    ck_assert_uint_eq(count, 2);
    ck_assert_uint_eq(servers_counters(world.subscriptions)->doubles, 1);
}
END_TEST

START_TEST(one_process_at_two_addresses_is_one_server)
{
    char file[] = "/tmp/test_servers.XXXXXX";
    const int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    close(fd);
    unlink(file);
    identity_destroy(&one->identity);
    identity_destroy(&two->identity);
    ck_assert_int_eq(identity_create(&one->identity, file), 0);
    ck_assert_int_eq(identity_create(&two->identity, file), 0);
    unlink(file);
    memcpy(two->instance, one->instance, INSTANCE_SIZE);
    meet(one, 0);
    ck_assert_int_eq(servers_link(world.subscriptions, &two->contact, &links[1], world.now), 0);
    world_answer();
    world_pass(20);
    ck_assert_int_eq(world_subscription(two)->state, SERVER_RESTING);
    ck_assert(world_subscription(two)->sure);
    ck_assert_uint_eq(servers_counters(world.subscriptions)->doubles, 0);
}
END_TEST

START_TEST(this_process_itself_is_settled_at_once)
{
    memcpy(one->instance, world.own_instance, INSTANCE_SIZE);
    ask_one();
    world_answer();
    ck_assert_int_eq(world_subscription(one)->state, SERVER_RESTING);
    ck_assert(world_subscription(one)->sure);
    ck_assert_str_eq(experts("ffn.4."), "");
}
END_TEST

START_TEST(many_that_say_nothing_do_not_keep_others_from_being_asked)
{
    enum { STRANGERS = 1000 };
    static struct server_link silent[STRANGERS];
    struct contact contact;
    char text[CONTACT_TEXT];
    size_t kept = 0;
    for (int i = 0; i < STRANGERS; i++) {
        snprintf(text, sizeof text, "6.6.6.6:%d", 1000 + i);
        ck_assert(contact_parse(&contact, text));
        silent[i] = (struct server_link){.changed = changed};
        kept += servers_link(world.subscriptions, &contact, &silent[i], world.now) == 0;
    }
    ck_assert_uint_eq(kept, SERVERS_OF_IP);
    world_pass(0);
    ck_assert_uint_eq(servers_count(world.subscriptions, SERVER_ASKED), SERVERS_ASKED_OF_IP);
    meet(one, 0);
    ck_assert_str_eq(experts("ffn.4."), "1-2");
    for (int i = 0; i < STRANGERS; i++)
        servers_unlink(world.subscriptions, &silent[i]);
}
END_TEST

static void of_number(struct contact *contact, unsigned number)
{
    char text[CONTACT_TEXT];
    snprintf(text, sizeof text, "7.%u.%u.%u:4222", number >> 16, number >> 8 & 255, number & 255);
    ck_assert(contact_parse(contact, text));
}

START_TEST(addresses_that_turned_out_to_be_nothing_make_room_for_others)
{
    static struct server_link silent[SERVERS_MAX];
    struct contact contact;
    struct server_link new[2] = {{.changed = changed}, {.changed = changed}};
    for (unsigned i = 0; i < SERVERS_MAX; i++) {
        of_number(&contact, i);
        silent[i] = (struct server_link){.changed = changed};
        ck_assert_int_eq(servers_link(world.subscriptions, &contact, &silent[i], world.now), 0);
    }
    of_number(&contact, SERVERS_MAX);
    ck_assert_int_eq(servers_link(world.subscriptions, &contact, &new[0], world.now), -ENOSPC);
    /* All have been asked twice. */
    for (int i = 0; i < 100; i++)
        world_pass(3 * SERVERS_ANSWER_MS);
    for (int i = 0; i < 2; i++) {
        int rc;
        of_number(&contact, SERVERS_MAX + (unsigned)i);
        for (int tries = 0; tries < 1000; tries++)
            if ((rc = servers_link(world.subscriptions, &contact, &new[i], world.now)) == 0)
                break;
        ck_assert_int_eq(rc, 0);
    }
    ck_assert_uint_eq(servers_total(world.subscriptions), SERVERS_MAX);
    size_t replaced = 0;
    for (int i = 0; i < SERVERS_MAX; i++) {
        replaced += !silent[i].server;
        servers_unlink(world.subscriptions, &silent[i]);
    }
    ck_assert_uint_eq(replaced, 2);
    for (int i = 0; i < 2; i++)
        servers_unlink(world.subscriptions, &new[i]);
}
END_TEST

START_TEST(no_more_than_so_many_connections_are_made_at_once)
{
    enum { STRANGERS = 2000 };
    static struct server_link silent[STRANGERS];
    struct contact contact;
    char text[CONTACT_TEXT];
    for (int i = 0; i < STRANGERS; i++) {
        snprintf(text, sizeof text, "6.6.%d.%d:4222", i / 250, i % 250);
        ck_assert(contact_parse(&contact, text));
        silent[i] = (struct server_link){.changed = changed};
        ck_assert_int_eq(servers_link(world.subscriptions, &contact, &silent[i], world.now), 0);
    }
    for (int i = 0; i < 100; i++) {
        world_pass(100);
        ck_assert_uint_le(servers_count(world.subscriptions, SERVER_ASKED), SERVERS_ASKED_MAX);
    }
    for (int i = 0; i < STRANGERS; i++)
        servers_unlink(world.subscriptions, &silent[i]);
}
END_TEST

START_TEST(one_that_nobody_is_interested_in_is_closed)
{
    meet(one, 0);
    meet(two, 1);
    ck_assert_int_eq(servers_link(world.subscriptions, &two->contact, &links[2], world.now), 0);
    servers_unlink(world.subscriptions, &links[0]);
    servers_unlink(world.subscriptions, &links[1]);
    ck_assert_ptr_null(world_subscription(one));
    ck_assert_str_eq(experts("ffn.4."), "2");
    ck_assert_int_eq(gone, 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("servers");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 300);
    tcase_add_test(all, one_that_is_asked_tells_all_and_then_news);
    tcase_add_test(all, who_is_not_trusted_is_not_believed_about_what_others_are_trusted_with);
    tcase_add_test(all, heartbeats_keep_it_alive_and_it_expires_without);
    tcase_add_test(all, a_farewell_counts_at_once);
    tcase_add_test(all, a_life_that_is_told_to_be_shorter_is);
    tcase_add_test(all, one_that_does_not_answer_is_asked_longer_and_longer_apart);
    tcase_add_test(all, one_that_cannot_prove_its_id_is_left_alone);
    tcase_add_test(all, nobody_is_told_of_one_that_does_not_prove_its_id);
    tcase_add_test(all, one_that_lies_each_time_is_left_alone_for_longer);
    tcase_add_loop_test(all, one_that_lies_and_leaves_is_left_alone_all_the_same, 0, 2);
    tcase_add_test(all, one_of_another_network_is_left_alone);
    tcase_add_test(all, one_that_tells_before_it_introduces_itself_is_left_alone);
    tcase_add_test(all, garbage_in_the_middle_of_a_catalog_leaves_nothing_of_it);
    tcase_add_test(all, one_that_talks_too_much_is_left_alone);
    tcase_add_test(all, a_catalog_that_never_ends_is_given_up);
    tcase_add_test(all, one_that_falls_silent_after_its_introduction_is_waited_for_twice_and_no_more);
    tcase_add_test(all, of_all_catalogs_the_largest_goes_when_there_is_no_room);
    tcase_add_test(all, the_same_identity_at_two_addresses_is_two_servers);
    tcase_add_test(all, one_process_at_two_addresses_is_one_server);
    tcase_add_test(all, this_process_itself_is_settled_at_once);
    tcase_add_test(all, many_that_say_nothing_do_not_keep_others_from_being_asked);
    tcase_add_test(all, no_more_than_so_many_connections_are_made_at_once);
    tcase_add_test(all, addresses_that_turned_out_to_be_nothing_make_room_for_others);
    tcase_add_test(all, one_that_nobody_is_interested_in_is_closed);
    return world_run(all, "servers");
}
