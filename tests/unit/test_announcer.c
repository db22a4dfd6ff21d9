#include "dht_world.h"

#include "dht/announcer.h"

enum { NODES = 8, RUNS_MAX = 64 };

static struct announcer *announcer;
static struct moment now;
static const uint8_t id[SERVER_ID_SIZE] = {0xab, 0xcd, 0xef};
static struct {
    char key[RENDEZVOUS_KEY_SIZE];
    uint64_t token;
} running[RUNS_MAX];
static size_t running_count;

static void begin(void *context, const char *key, uint64_t token)
{
    ck_assert_ptr_eq(context, &running);
    ck_assert_uint_lt(running_count, RUNS_MAX);
    snprintf(running[running_count].key, RENDEZVOUS_KEY_SIZE, "%s", key);
    running[running_count++].token = token;
}

static void open_announcer(bool single)
{
    const struct announcer_options options = {.network_id = 7,
                                              .id = id,
                                              .single = single,
                                              .tokens_tag = UINT64_C(2) << 56,
                                              .announce = begin,
                                              .context = &running};
    announcer_destroy(&announcer);
    ck_assert_int_eq(announcer_create(&announcer, &options), 0);
}

static void setup(void)
{
    log_open("test", LOG_LEVEL_ERROR);
    now = (struct moment){1000 * NS_PER_S, 0};
    running_count = 0;
    open_announcer(false);
}

static void teardown(void)
{
    announcer_destroy(&announcer);
}

static void host(const char *uids)
{
    struct catalog catalog = world_catalog(uids);
    ck_assert_int_eq(announcer_host(announcer, &catalog), 0);
    catalog_destroy(&catalog);
}

static void pass(uint64_t ms, size_t nodes)
{
    now.ns += ms * NS_PER_MS;
    announcer_step(announcer, nodes, now);
}

static void end(unsigned answered, unsigned fullest)
{
    while (running_count > 0) {
        const uint64_t token = running[--running_count].token;
        announcer_on_announced(announcer, token, answered, fullest, now);
    }
}

static bool is_running(const char *key)
{
    for (size_t i = 0; i < running_count; i++)
        if (strcmp(running[i].key, key) == 0)
            return true;
    return false;
}

START_TEST(every_prefix_is_announced_at_every_length_and_again_in_time)
{
    char key[RENDEZVOUS_KEY_SIZE] = "expertd 7 id ";
    host("ffn.4.1 ffn.4.2 ffn.5.0 top.3");
    ck_assert(!announcer_done(announcer));
    pass(0, NODES);
    ck_assert_uint_eq(running_count, 5);
    ck_assert(is_running("expertd 7 ffn.") && is_running("expertd 7 ffn.4.") && is_running("expertd 7 ffn.5.") &&
              is_running("expertd 7 top."));
    server_id_format(id, key + strlen(key));
    ck_assert_msg(is_running(key), "no %s", key);
    end(NODES, 1);
    ck_assert(announcer_done(announcer));
    pass(1000 * ANNOUNCER_REFRESH_S - 1, NODES);
    ck_assert_uint_eq(running_count, 0);
    pass(1, NODES);
    ck_assert_uint_eq(running_count, 5);
    ck_assert_uint_eq(announcer_counters(announcer)->made, 10);
}
END_TEST

START_TEST(what_is_hosted_no_more_is_not_announced_again)
{
    host("ffn.4.1 top.3");
    pass(0, NODES);
    end(NODES, 1);
    host("top.3");
    pass(1000 * ANNOUNCER_REFRESH_S, NODES);
    ck_assert_uint_eq(running_count, 2);
    ck_assert(is_running("expertd 7 top."));
    end(NODES, 1);
    host("ffn.4.1 top.3");
    pass(1000 * ANNOUNCER_REFRESH_S, NODES);
    ck_assert_uint_eq(running_count, 4);
}
END_TEST

START_TEST(what_no_node_has_taken_is_announced_again_soon)
{
    uint64_t pause_s = ANNOUNCER_RETRY_S;
    host("top.3");
    pass(0, NODES);
    for (int failures = 1; failures < 12; failures++) {
        end(0, 0);
        ck_assert(!announcer_done(announcer));
        pass(1000 * pause_s - 1, NODES);
        ck_assert_uint_eq(running_count, 0);
        pass(1, NODES);
        ck_assert_uint_eq(running_count, 2);
        pause_s = 2 * pause_s < ANNOUNCER_RETRY_MAX_S ? 2 * pause_s : ANNOUNCER_RETRY_MAX_S;
    }
    ck_assert_uint_eq(announcer_counters(announcer)->unheard, 22);
    end(1, 1);
    ck_assert(announcer_done(announcer));
    pass(1000 * ANNOUNCER_RETRY_MAX_S, NODES);
    ck_assert_uint_eq(running_count, 0);
}
END_TEST

START_TEST(one_that_looks_for_nobody_is_not_kept_waiting)
{
    open_announcer(true);
    host("top.3");
    pass(0, 0);
    end(0, 0);
    ck_assert(announcer_done(announcer));
}
END_TEST

START_TEST(a_crowded_key_is_announced_in_its_shard_too)
{
    host("top.3");
    pass(0, NODES);
    end(NODES, RENDEZVOUS_CROWDED);
    pass(0, NODES);
    ck_assert(is_running("expertd 7 top.#a"));
    end(0, ENGINE_REPLY_PEERS); /* it is full: no node takes it, and it is not tried again and again */
    pass(0, NODES);
    ck_assert(is_running("expertd 7 top.#ab"));
    ck_assert_uint_eq(running_count, 2); /* and the id's */
    pass(1000 * ANNOUNCER_RETRY_MAX_S, NODES);
    ck_assert_uint_eq(running_count, 2);
    end(NODES, RENDEZVOUS_CROWDED - 1);
    pass(0, NODES);
    ck_assert_uint_eq(running_count, 0);
    host("other.1");
    pass(1000 * ANNOUNCER_REFRESH_S, NODES);
    ck_assert(!is_running("expertd 7 top.") && !is_running("expertd 7 top.#a") && !is_running("expertd 7 top.#ab"));
}
END_TEST

START_TEST(all_is_announced_anew_when_others_are_met)
{
    host("top.3");
    pass(0, NODES);
    end(NODES, 1);
    announcer_on_connected(announcer);
    ck_assert(!announcer_done(announcer));
    pass(0, NODES);
    ck_assert_uint_eq(running_count, 2);
    end(NODES, 1);
    /* Half as many nodes again, and no fewer, are others that are nearer. */
    pass(10000, NODES * 3 / 2);
    ck_assert_uint_eq(running_count, 0);
    pass(10000, NODES * 3 / 2 + 1);
    ck_assert_uint_eq(running_count, 2);
}
END_TEST

START_TEST(each_is_announced_anew_when_there_are_more_nodes_than_when_it_was)
{
    host("few.1");
    pass(0, NODES);
    end(NODES, 1);
    host("few.1 many.1");
    pass(1000, 3 * NODES);
    ck_assert(running_count == 1 && is_running("expertd 7 many."));
    end(NODES, 1);
    /* Not at once: a network that forms has more with each look. */
    pass(999, 4 * NODES);
    ck_assert_uint_eq(running_count, 0);
    pass(1, 4 * NODES);
    ck_assert_uint_eq(running_count, 2);
    ck_assert(is_running("expertd 7 few.") && !is_running("expertd 7 many."));
    end(NODES, 1);
    pass(10000, 4 * NODES);
    ck_assert_uint_eq(running_count, 0);
}
END_TEST

START_TEST(an_event_that_it_does_not_know_changes_nothing)
{
    host("top.3");
    pass(0, NODES);
    announcer_on_announced(announcer, 12345, NODES, 1, now);
    ck_assert(!announcer_done(announcer));
    const uint64_t token = running[0].token;
    end(NODES, 1);
    announcer_on_announced(announcer, token, 0, 0, now);
    ck_assert(announcer_done(announcer));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("announcer");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, every_prefix_is_announced_at_every_length_and_again_in_time);
    tcase_add_test(all, what_is_hosted_no_more_is_not_announced_again);
    tcase_add_test(all, what_no_node_has_taken_is_announced_again_soon);
    tcase_add_test(all, one_that_looks_for_nobody_is_not_kept_waiting);
    tcase_add_test(all, a_crowded_key_is_announced_in_its_shard_too);
    tcase_add_test(all, all_is_announced_anew_when_others_are_met);
    tcase_add_test(all, each_is_announced_anew_when_there_are_more_nodes_than_when_it_was);
    tcase_add_test(all, an_event_that_it_does_not_know_changes_nothing);
    return world_run(all, "announcer");
}
