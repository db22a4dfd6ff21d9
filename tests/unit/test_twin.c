#include <unistd.h>

#include "dht_world.h"

#include "dht/twin.h"

static struct twin twin;
static struct world_server *other;
static struct identity *identity;

static void setup(void)
{
    char file[] = "/tmp/test_twin.XXXXXX";
    world_begin(16);
    const int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    close(fd);
    unlink(file);
    other = world_server(1);
    identity_destroy(&other->identity);
    ck_assert_int_eq(identity_create(&other->identity, file), 0);
    ck_assert_int_eq(identity_create(&identity, file), 0);
    unlink(file);
}

static void teardown(void)
{
    twin_destroy(&twin);
    world_end();
    identity_destroy(&identity);
}

static void begin(uint64_t started_ms)
{
    const struct twin_options options = {.network_id = WORLD_NETWORK,
                                         .id = identity_id(identity),
                                         .instance = world.own_instance,
                                         .started_ms = started_ms,
                                         .token = 5,
                                         .find = world_find_begins};
    twin_init(&twin, world.subscriptions, &options);
}

/* A round: who is announced under the id is asked, and answers. */
static void look(void)
{
    char name[TWIN_NAME_SIZE], key[RENDEZVOUS_KEY_SIZE];
    twin_step(&twin, world.now);
    ck_assert_uint_eq(world.finds_count, 1);
    ck_assert_uint_eq(world.finds[0].token, 5);
    rendezvous_key(key, WORLD_NETWORK, twin_name(identity_id(identity), name), "");
    ck_assert_str_eq(world.finds[0].key, key);
    world.finds_count = 0;
    twin_on_peers(&twin, &other->contact, 1, world.now);
    twin_on_found(&twin);
    world_answer();
}

START_TEST(the_one_that_started_later_gives_way)
{
    begin(world.now.wall_ms + 1);
    look();
    ck_assert_ptr_nonnull(twin_older(&twin));
    ck_assert_mem_eq(&twin_older(&twin)->contact, &other->contact, sizeof other->contact);
}
END_TEST

START_TEST(the_one_that_started_before_stays)
{
    begin(world.now.wall_ms - 1);
    look();
    ck_assert_ptr_null(twin_older(&twin));
}
END_TEST

START_TEST(of_two_that_started_at_once_one_stays)
{
    begin(world.now.wall_ms);
    look();
    ck_assert_ptr_null(twin_older(&twin)); /* its own instance is all zeros: the smaller */
    twin.options.instance = (const uint8_t *)"\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377";
    ck_assert_ptr_nonnull(twin_older(&twin));
}
END_TEST

START_TEST(another_that_only_announces_the_id_is_no_twin)
{
    identity_destroy(&other->identity);
    ck_assert_int_eq(identity_create(&other->identity, ""), 0);
    begin(world.now.wall_ms + 1);
    look();
    ck_assert_ptr_null(twin_older(&twin));
}
END_TEST

START_TEST(it_is_looked_for_again_and_again)
{
    begin(world.now.wall_ms + 1);
    look();
    ck_assert_uint_gt(twin_step(&twin, world.now), world.now.ns);
    world_pass(1000 * TWIN_PERIOD_S);
    look();
    twin_on_connected(&twin, world.now);
    look();
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("twin");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, the_one_that_started_later_gives_way);
    tcase_add_test(all, the_one_that_started_before_stays);
    tcase_add_test(all, of_two_that_started_at_once_one_stays);
    tcase_add_test(all, another_that_only_announces_the_id_is_no_twin);
    tcase_add_test(all, it_is_looked_for_again_and_again);
    return world_run(all, "twin");
}
