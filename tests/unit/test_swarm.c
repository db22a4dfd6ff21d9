// timeout: 600
#include "dht_swarm.h"
#include "dht_world.h"

/* Only what hangs takes so long; and less than the 300 s after which all is announced again in any case. */
enum { HANG_MS = 150000 };

static struct swarm swarm;

static void setup(void)
{
    memset(&swarm, 0, sizeof swarm);
    swarm.network_id = (uint32_t)getpid();
    swarm.update_period_ns = 1000 * NS_PER_MS;
    swarm.expiration_ns = 4000 * NS_PER_MS;
}

static void teardown(void)
{
    swarm_end(&swarm);
}

static struct agent *add(const char *endpoint, const char *uids)
{
    struct agent *agent = swarm_add(&swarm, endpoint);
    ck_assert_ptr_nonnull(agent);
    if (uids) {
        struct catalog catalog = world_catalog(uids);
        ck_assert_int_eq(publisher_set(agent->publisher, &catalog, clock_now_ns(), moment_now()), 0);
    }
    return agent;
}

/* The frontends of all servers but those that are dead are there. */
static void confirm(void)
{
    for (size_t i = 0; i < swarm.count; i++)
        if (swarm.agents[i] && swarm.agents[i]->publisher)
            publisher_confirm(swarm.agents[i]->publisher, clock_now_ns(), moment_now());
}

/* Live servers of a uid, as one node sees it. */
static size_t replicas(size_t node, const char *uid)
{
    struct lookup lookup;
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    char *uids[] = {(char *)uid};
    request.method = EXPERTD__DHT__METHOD__RESOLVE;
    request.deadline_ms = LOOKUP_DEADLINE_MAX_MS;
    request.n_uids = 1;
    request.uids = uids;
    confirm();
    ck_assert_uint_eq(swarm_ask(&swarm, node, &resolve_kind, &request, &lookup), STATUS_OK);
    const size_t count = lookup.reply.resolved[0]->n_replicas;
    lookup_destroy(&lookup);
    return count;
}

/* How many of the experts s.<server>.0...7 of the live (or the dead) servers a node finds. */
static size_t experts_found(size_t node, size_t servers, bool dead)
{
    enum { EACH = 8 };
    static char text[SWARM_MAX * EACH][UID_SIZE];
    static char *uids[SWARM_MAX * EACH];
    struct lookup lookup;
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    size_t count = 0, found = 0;
    for (size_t s = 0; s < servers; s++)
        for (size_t e = 0; e < EACH; e++) {
            if ((swarm.agents[s] == NULL) != dead)
                continue;
            snprintf(text[count], UID_SIZE, "s.%zu.%zu", s, e);
            uids[count] = text[count];
            count++;
        }
    request.method = EXPERTD__DHT__METHOD__RESOLVE;
    request.deadline_ms = LOOKUP_DEADLINE_MAX_MS;
    request.n_uids = count;
    request.uids = uids;
    confirm();
    ck_assert_uint_eq(swarm_ask(&swarm, node, &resolve_kind, &request, &lookup), STATUS_OK);
    for (size_t i = 0; i < count; i++)
        found += lookup.reply.resolved[i]->n_replicas == 1;
    lookup_destroy(&lookup);
    return found;
}

START_TEST(sixty_four_nodes_of_which_a_tenth_dies)
{
    enum { NODES = 64, SERVERS = 48, EACH = 8, KILLED = 7 };
    for (size_t i = 0; i < NODES; i++) {
        static char endpoint[SERVERS][32];
        if (i < SERVERS) {
            char uids[EACH * 16] = "";
            snprintf(endpoint[i], sizeof endpoint[i], "tcp://127.0.0.1:%zu", 1000 + i);
            for (size_t e = 0; e < EACH; e++)
                snprintf(uids + strlen(uids), sizeof uids - strlen(uids), "s.%zu.%zu ", i, e);
            add(endpoint[i], uids);
        } else {
            add(NULL, NULL);
        }
    }
    confirm();
    ck_assert(SWARM_UNTIL(&swarm, HANG_MS, swarm_joined(&swarm)));
    confirm();
    ck_assert(SWARM_UNTIL(&swarm, HANG_MS, swarm_published(&swarm)));
    for (size_t node = 0; node < NODES; node += 21)
        ck_assert(SWARM_UNTIL(&swarm, HANG_MS, experts_found(node, SERVERS, false) == SERVERS * EACH));

    /* Not the first, by which those that come later join. */
    size_t dead = 0;
    for (size_t i = 3; dead < KILLED; i += 9, dead++)
        swarm_kill(&swarm, i);
    size_t servers_dead = 0;
    for (size_t i = 0; i < SERVERS; i++)
        servers_dead += swarm.agents[i] == NULL;
    const size_t live = (SERVERS - servers_dead) * EACH;
    add(NULL, NULL); /* one that knows nothing yet */
    ck_assert(SWARM_UNTIL(&swarm, HANG_MS, swarm_joined(&swarm)));
    const size_t asked[] = {0, 20, 50, NODES - 1, NODES};
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
        ck_assert_msg(SWARM_UNTIL(&swarm, HANG_MS, experts_found(asked[i], SERVERS, false) == live),
                      "node %zu finds %zu of %zu live experts", asked[i], experts_found(asked[i], SERVERS, false),
                      live);
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
        ck_assert_msg(SWARM_UNTIL(&swarm, HANG_MS, experts_found(asked[i], SERVERS, true) == 0),
                      "node %zu still finds dead experts", asked[i]);
    ck_assert_uint_eq(experts_found(NODES, SERVERS, false), live);
}
END_TEST

START_TEST(news_and_the_end_of_a_server_are_known_at_once)
{
    add(NULL, NULL);
    struct agent *server = add("tcp://127.0.0.1:1000", "ffn.0.0");
    add(NULL, NULL);
    ck_assert(SWARM_UNTIL(&swarm, HANG_MS, swarm_joined(&swarm) && swarm_published(&swarm)));
    ck_assert(SWARM_UNTIL(&swarm, HANG_MS, replicas(2, "ffn.0.0") == 1));
    const uint64_t finds = swarm.agents[2]->cache.counters.finds;
    struct catalog catalog = world_catalog("ffn.0.0 ffn.0.1");
    ck_assert_int_eq(publisher_set(server->publisher, &catalog, clock_now_ns(), moment_now()), 0);
    ck_assert(SWARM_UNTIL(&swarm, HANG_MS, replicas(2, "ffn.0.1") == 1));
    swarm_kill(&swarm, 1);
    /* Its connection broke: nobody has to wait for the end of its life. */
    const uint64_t began_ns = clock_now_ns();
    ck_assert(SWARM_UNTIL(&swarm, HANG_MS, replicas(2, "ffn.0.1") == 0));
    ck_assert(clock_now_ns() - began_ns < swarm.expiration_ns || swarm.agents[2]->cache.counters.finds == finds);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("swarm");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 600);
    tcase_add_test(all, sixty_four_nodes_of_which_a_tenth_dies);
    tcase_add_test(all, news_and_the_end_of_a_server_are_known_at_once);
    return world_run(all, "swarm");
}
