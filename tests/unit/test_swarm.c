#include "dht_swarm.h"
#include "dht_world.h"

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
        ck_assert_int_eq(publisher_set(agent->publisher, &catalog, clock_now_ns()), 0);
    }
    return agent;
}

/* The frontends of all servers but those that are dead are there. */
static void confirm(void)
{
    for (size_t i = 0; i < swarm.count; i++)
        if (swarm.agents[i] && swarm.agents[i]->publisher)
            publisher_confirm(swarm.agents[i]->publisher, clock_now_ns());
}

/* Live servers of a uid, as one node sees it. */
static size_t replicas(size_t node, const char *uid)
{
    struct lookup lookup;
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    char *uids[] = {(char *)uid};
    request.method = EXPERTD__DHT__METHOD__RESOLVE;
    request.n_uids = 1;
    request.uids = uids;
    confirm();
    ck_assert_uint_eq(swarm_ask(&swarm, node, &request, &lookup), STATUS_OK);
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
    request.deadline_ms = 30000;
    request.n_uids = count;
    request.uids = uids;
    confirm();
    ck_assert_uint_eq(swarm_ask(&swarm, node, &request, &lookup), STATUS_OK);
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
    ck_assert(SWARM_UNTIL(&swarm, 20000, swarm_joined(&swarm)));
    confirm();
    ck_assert(SWARM_UNTIL(&swarm, 20000, swarm_published(&swarm)));
    for (size_t node = 0; node < NODES; node += 21)
        ck_assert(SWARM_UNTIL(&swarm, 20000, experts_found(node, SERVERS, false) == SERVERS * EACH));

    /* Not the first, by which those that come later join. */
    size_t dead = 0;
    for (size_t i = 3; dead < KILLED; i += 9, dead++)
        swarm_kill(&swarm, i);
    size_t servers_dead = 0;
    for (size_t i = 0; i < SERVERS; i++)
        servers_dead += swarm.agents[i] == NULL;
    const size_t live = (SERVERS - servers_dead) * EACH;
    add(NULL, NULL); /* one that knows nothing yet */
    ck_assert(SWARM_UNTIL(&swarm, 20000, swarm_joined(&swarm)));
    const size_t asked[] = {0, 20, 50, NODES - 1, NODES};
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
        ck_assert_msg(SWARM_UNTIL(&swarm, 30000, experts_found(asked[i], SERVERS, false) == live),
                      "node %zu finds %zu of %zu live experts", asked[i], experts_found(asked[i], SERVERS, false),
                      live);
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++)
        ck_assert_msg(SWARM_UNTIL(&swarm, 10000, experts_found(asked[i], SERVERS, true) == 0),
                      "node %zu still finds dead experts", asked[i]);
    ck_assert_uint_eq(experts_found(NODES, SERVERS, false), live);
}
END_TEST

static uint64_t ignored(const struct agent *agent)
{
    const struct cache_counters *c = &agent->cache.counters;
    return c->ignored_forged + c->ignored_garbled + c->ignored_time + c->ignored_overflow;
}

/* What an evil node puts; the value that it makes is signed by `signer` and claims to be of `claimed`. */
static void put_forged(struct agent *evil, const char *key, enum seal_kind kind, const struct identity *signer,
                       const uint8_t *claimed, const uint8_t *payload, size_t payload_size)
{
    static struct node_put *puts[16];
    static size_t count;
    Expertd__Dht__Signed message = EXPERTD__DHT__SIGNED__INIT;
    uint8_t signature[SIGNATURE_SIZE], bytes[4096];
    ck_assert_int_eq(identity_sign(signer, kind == SEAL_RECORD ? "expertd record 1" : "expertd heartbeat 1", payload,
                                   payload_size, signature),
                     0);
    message.server_id = (ProtobufCBinaryData){SERVER_ID_SIZE, (uint8_t *)claimed};
    message.payload = (ProtobufCBinaryData){payload_size, (uint8_t *)payload};
    message.signature = (ProtobufCBinaryData){SIGNATURE_SIZE, signature};
    const size_t size = expertd__dht__signed__pack(&message, bytes);
    ck_assert_int_eq(node_put(evil->node, key, bytes, size, 0, &puts[count++]), 0);
}

START_TEST(forged_and_garbled_values_are_ignored_and_counted)
{
    add(NULL, NULL);
    struct agent *server = add("tcp://127.0.0.1:1000", "ffn.0.0 ffn.0.1");
    struct agent *evil = add(NULL, NULL);
    struct agent *reader = add(NULL, NULL);
    const uint8_t *victim = identity_id(server->identity);
    char key[HEARTBEAT_KEY_SIZE];
    heartbeat_key(victim, key);
    ck_assert(SWARM_UNTIL(&swarm, 10000, swarm_joined(&swarm) && swarm_published(&swarm)));
    ck_assert(SWARM_UNTIL(&swarm, 10000, replicas(3, "ffn.0.0") == 1));
    ck_assert_uint_eq(ignored(reader), 0);

    uint8_t *payload;
    size_t size;
    struct node_put *garbage;
    /* Not even an envelope, under both keys. */
    ck_assert_int_eq(node_put(evil->node, "ffn.0.", (const uint8_t *)"garbage", 7, 0, &garbage), 0);
    ck_assert(SWARM_UNTIL(&swarm, 10000, ignored(reader) == 1));
    ck_assert_int_eq(node_put(evil->node, key, (const uint8_t *)"garbage", 7, 0, &garbage), 0);
    ck_assert(SWARM_UNTIL(&swarm, 10000, ignored(reader) == 2));
    /* A farewell in the victim's name, signed by another; and by another, in his own name, under the victim's key. */
    struct heartbeat farewell = {
        .endpoint = "tcp://6.6.6.6:6", .published_ms = moment_now().wall_ms, .sequence = UINT64_MAX - 1};
    ck_assert_int_eq(heartbeat_encode(&farewell, &payload, &size), 0);
    put_forged(evil, key, SEAL_HEARTBEAT, evil->identity, victim, payload, size);
    ck_assert(SWARM_UNTIL(&swarm, 10000, ignored(reader) == 3));
    put_forged(evil, key, SEAL_HEARTBEAT, evil->identity, identity_id(evil->identity), payload, size);
    ck_assert(SWARM_UNTIL(&swarm, 10000, ignored(reader) == 4));
    free(payload);
    /* A record in the victim's name that has nothing in it; and one of the evil node's own for another prefix. */
    struct record record = {.prefix = "ffn.0.", .endpoint = "tcp://6.6.6.6:6", .sequence = UINT64_MAX - 1, .parts = 1};
    const struct record_slice none = {0};
    ck_assert_int_eq(record_encode(&record, &none, &payload, &size), 0);
    put_forged(evil, "ffn.0.", SEAL_RECORD, evil->identity, victim, payload, size);
    ck_assert(SWARM_UNTIL(&swarm, 10000, ignored(reader) == 5));
    free(payload);
    strcpy(record.prefix, "ffn.1.");
    ck_assert_int_eq(record_encode(&record, &none, &payload, &size), 0);
    put_forged(evil, "ffn.0.", SEAL_RECORD, evil->identity, identity_id(evil->identity), payload, size);
    ck_assert(SWARM_UNTIL(&swarm, 10000, ignored(reader) == 6));
    free(payload);

    ck_assert_uint_eq(replicas(3, "ffn.0.0"), 1);
    ck_assert_uint_eq(replicas(3, "ffn.0.1"), 1);
    /* The same for a node that finds all of it at once. */
    add(NULL, NULL);
    ck_assert(SWARM_UNTIL(&swarm, 10000, swarm_joined(&swarm)));
    ck_assert(SWARM_UNTIL(&swarm, 10000, replicas(4, "ffn.0.1") == 1));
    ck_assert_uint_gt(ignored(swarm.agents[4]), 3);
}
END_TEST

START_TEST(an_identity_whose_clock_was_ahead_publishes_again)
{
    add(NULL, NULL);
    struct agent *server = add("tcp://127.0.0.1:1000", "ffn.0.0");
    add(NULL, NULL);
    ck_assert(SWARM_UNTIL(&swarm, 10000, swarm_joined(&swarm) && swarm_published(&swarm)));
    /* A farewell of its own from the far future, as from a life before with a clock that was an hour ahead. */
    uint8_t *payload, *value;
    size_t size, value_size;
    char key[HEARTBEAT_KEY_SIZE];
    struct node_put *put;
    struct heartbeat farewell = {.endpoint = "tcp://127.0.0.1:1",
                                 .published_ms = moment_now().wall_ms,
                                 .sequence = (moment_now().wall_ms + 3600000) * 1000};
    ck_assert_int_eq(heartbeat_encode(&farewell, &payload, &size), 0);
    ck_assert_int_eq(seal_encode(server->identity, SEAL_HEARTBEAT, payload, size, &value, &value_size), 0);
    heartbeat_key(identity_id(server->identity), key);
    ck_assert_int_eq(node_put(swarm.agents[2]->node, key, value, value_size, 0, &put), 0);
    const uint64_t records = publisher_counters(server->publisher)->records;
    ck_assert(SWARM_UNTIL(&swarm, 10000, (confirm(), publisher_counters(server->publisher)->records > records)));
    ck_assert(SWARM_UNTIL(&swarm, 10000, replicas(2, "ffn.0.0") == 1));
    free(payload);
    free(value);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("swarm");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 110);
    tcase_add_test(all, sixty_four_nodes_of_which_a_tenth_dies);
    tcase_add_test(all, forged_and_garbled_values_are_ignored_and_counted);
    tcase_add_test(all, an_identity_whose_clock_was_ahead_publishes_again);
    return world_run(all, "swarm");
}
