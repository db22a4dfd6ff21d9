// timeout: 1800
#include <errno.h>
#include <sys/stat.h>

#include "dht_swarm.h"
#include "dht_world.h"

enum { HANG_MS = 600000 }; /* only what hangs takes so long */

static struct swarm swarm;
static void *context;
static struct agent *agent;

static void setup(void)
{
    log_open("test", LOG_LEVEL_ERROR);
    context = zmq_ctx_new();
    memset(&swarm, 0, sizeof swarm);
    swarm.context = context;
    swarm.network_id = (uint32_t)getpid();
    swarm.update_period_ns = NS_PER_S;
    swarm.expiration_ns = 3600 * NS_PER_S;
}

static void teardown(void)
{
    agent_destroy(&agent);
    swarm_end(&swarm);
}

static struct agent_options options(void)
{
    return (struct agent_options){.context = context,
                                  .address = "127.0.0.1",
                                  .network_id = swarm.network_id,
                                  .identity_file = "",
                                  .endpoint = "tcp://127.0.0.1:31330",
                                  .update_period_ns = NS_PER_S,
                                  .expiration_ns = 3600 * NS_PER_S,
                                  .max_cache = 1024,
                                  .max_servers = 1024,
                                  .max_catalogs = 1 << 20};
}

/* Into the swarm, to be stepped with the others. */
static struct agent *join(const struct agent_options *with)
{
    ck_assert_int_eq(agent_create(&swarm.agents[swarm.count], with, moment_now()), 0);
    return swarm.agents[swarm.count++];
}

START_TEST(what_cannot_work_is_refused_and_leaves_nothing)
{
    const char *const nowhere[] = {"host:port:x"};
    struct agent_options bad = options();
    bad.bootstrap = nowhere;
    bad.bootstrap_count = 1;
    ck_assert_int_eq(agent_create(&agent, &bad, moment_now()), -EINVAL);
    ck_assert_ptr_null(agent);
    bad = options();
    bad.identity_file = "/no/such/folder/key";
    ck_assert_int_lt(agent_create(&agent, &bad, moment_now()), 0);
    bad = options();
    bad.address = "nonsense";
    ck_assert_int_eq(agent_create(&agent, &bad, moment_now()), -EINVAL);
    /* A port that another has: of its node, and of its catalog. */
    const struct agent_options good = options();
    const struct agent *other = join(&good);
    bad = options();
    bad.port = engine_port(other->engine);
    ck_assert_int_eq(agent_create(&agent, &bad, moment_now()), -EADDRINUSE);
    bad = options();
    bad.tcp_port = publisher_port(other->publisher);
    ck_assert_int_eq(agent_create(&agent, &bad, moment_now()), -EADDRINUSE);
    ck_assert_ptr_null(agent);
}
END_TEST

START_TEST(one_without_a_frontend_only_reads)
{
    zmq_pollitem_t items[AGENT_POLL_ITEMS];
    struct agent_options only = options();
    only.endpoint = NULL;
    ck_assert_int_eq(agent_create(&agent, &only, moment_now()), 0);
    ck_assert_ptr_null(agent->publisher);
    ck_assert_ptr_null(agent_twin(agent));
    const int items_count = agent_poll_items(agent, items);
    agent_destroy(&agent);
    const struct agent_options both = options();
    ck_assert_int_eq(agent_create(&agent, &both, moment_now()), 0);
    ck_assert_ptr_nonnull(agent->publisher);
    ck_assert_int_eq(agent_poll_items(agent, items), items_count + 1);
}
END_TEST

START_TEST(it_is_connected_when_it_is_to_be_alone_or_when_another_answers)
{
    char address[48];
    const char *bootstrap[] = {address};
    struct agent_options later = options();
    const struct agent_options alone = options();
    struct agent *first = join(&alone);
    ck_assert(agent_connected(first));
    snprintf(address, sizeof address, "127.0.0.1:%u", engine_port(first->engine));
    later.bootstrap = bootstrap;
    later.bootstrap_count = 1;
    const struct agent *second = join(&later);
    ck_assert(!agent_connected(second));
    ck_assert(SWARM_UNTIL(&swarm, HANG_MS, agent_connected(second)));
    ck_assert_uint_eq(bootstrap_alive(second->bootstrap), 1);
}
END_TEST

START_TEST(who_asks_wants_it_to_be_stepped_at_once)
{
    struct cache_entry *entry;
    const struct agent_options alone = options();
    struct agent *first = join(&alone);
    agent_step(first, moment_now());
    ck_assert_uint_eq(agent_due_ns(first), UINT64_MAX);
    ck_assert_int_eq(cache_find(&first->cache, "ffn.", CACHE_SURE, true, moment_now(), &entry), 0);
    ck_assert_uint_eq(agent_due_ns(first), 0);
    ck_assert(
        SWARM_UNTIL(&swarm, HANG_MS, cache_find(&first->cache, "ffn.", CACHE_SURE, false, moment_now(), &entry) == 1));
    agent_step(first, moment_now());
    ck_assert_uint_eq(agent_due_ns(first), UINT64_MAX);
}
END_TEST

START_TEST(of_two_with_one_identity_the_later_one_learns_of_it)
{
    char address[48], file[] = "/tmp/test-agent.XXXXXX", path[64];
    const char *bootstrap[] = {address};
    struct agent_options with = options();
    ck_assert_ptr_nonnull(mkdtemp(file));
    snprintf(path, sizeof path, "%s/key", file);
    with.identity_file = path;
    struct agent *first = join(&with);
    struct catalog catalog = world_catalog("ffn.0.0");
    ck_assert_int_eq(publisher_set(first->publisher, &catalog, clock_now_ns(), moment_now()), 0);
    snprintf(address, sizeof address, "127.0.0.1:%u", engine_port(first->engine));
    with.bootstrap = bootstrap;
    with.bootstrap_count = 1;
    const uint64_t began_ms = moment_now().wall_ms;
    while (moment_now().wall_ms == began_ms)
        swarm_step(&swarm, 1);
    struct agent *second = join(&with);
    catalog = world_catalog("ffn.0.1");
    ck_assert_int_eq(publisher_set(second->publisher, &catalog, clock_now_ns(), moment_now()), 0);
    ck_assert(SWARM_UNTIL(&swarm, HANG_MS, agent_twin(second) != NULL));
    ck_assert_ptr_null(agent_twin(first));
    unlink(path);
    rmdir(file);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("agent");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 180);
    tcase_add_test(all, what_cannot_work_is_refused_and_leaves_nothing);
    tcase_add_test(all, one_without_a_frontend_only_reads);
    tcase_add_test(all, it_is_connected_when_it_is_to_be_alone_or_when_another_answers);
    tcase_add_test(all, who_asks_wants_it_to_be_stepped_at_once);
    tcase_add_test(all, of_two_with_one_identity_the_later_one_learns_of_it);
    return world_run(all, "agent");
}
