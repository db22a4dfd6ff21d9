#include "dht/service.h"
#include "dht_world.h"

static struct world_server *one, *two;
static Expertd__Dht__Request request;
static Expertd__Dht__Request *decoded;
static struct lookup lookup;
static int woken;

static void setup(void)
{
    world_begin(4096);
    one = world_server(1);
    two = world_server(2);
    expertd__dht__request__init(&request);
    request.version = 1;
    request.request_id = 7;
}

static void done(void)
{
    lookup_destroy(&lookup);
    expertd__dht__request__free_unpacked(decoded, NULL);
    decoded = NULL;
}

static void teardown(void)
{
    done();
    world_end();
}

static void wake(struct lookup *l)
{
    (void)l;
    woken++;
}

static void begin(void)
{
    static uint8_t frame[SERVICE_FRAME_MAX];
    const size_t size = expertd__dht__request__pack(&request, frame);
    done();
    decoded = service_decode(frame, size, &world.cache, &lookup, world.now);
    lookup.wake = wake;
    woken = 0;
}

/* Sends the request, answers what it asks of the DHT, and runs it to its end. Returns the status. */
static unsigned ask(void)
{
    begin();
    for (int round = 0;; round++) {
        ck_assert_int_lt(round, 100000);
        const enum lookup_result result = lookup_run(&lookup, world.now);
        if (result == LOOKUP_DONE)
            return lookup.reply.status;
        if (result == LOOKUP_WAITING) {
            woken = 0;
            world_answer();
            ck_assert_int_gt(woken, 0);
        }
    }
}

static unsigned resolve(size_t count, char **uids)
{
    request.method = EXPERTD__DHT__METHOD__RESOLVE;
    request.n_uids = count;
    request.uids = uids;
    return ask();
}

START_TEST(uids_resolve_in_the_order_of_the_request)
{
    char *uids[] = {(char *)"ffn.4.1", (char *)"top.0", (char *)"ffn.0.0", (char *)"ffn.4.0", (char *)"ffn.4.1"};
    world_host(one, "ffn.4.0 ffn.4.1 ffn.0.0");
    world_host(two, "ffn.4.1");
    ck_assert_uint_eq(resolve(5, uids), STATUS_OK);
    static const size_t expected[] = {2, 0, 1, 1, 2};
    ck_assert_uint_eq(lookup.reply.n_resolved, 5);
    for (size_t i = 0; i < 5; i++) {
        ck_assert_str_eq(lookup.reply.resolved[i]->uid, uids[i]);
        ck_assert_uint_eq(lookup.reply.resolved[i]->n_replicas, expected[i]);
    }
    ck_assert_str_eq(lookup.reply.resolved[2]->replicas[0]->endpoint, one->endpoint);
    ck_assert_mem_eq(lookup.reply.resolved[2]->replicas[0]->server_id.data, identity_id(one->identity), SERVER_ID_SIZE);
}
END_TEST

START_TEST(what_is_below_a_known_prefix_is_known_without_a_question)
{
    char *uids[] = {(char *)"ffn.4.1"}, *prefixes[] = {(char *)"ffn."};
    world_host(one, "ffn.4.1 ffn.5.2");
    request.method = EXPERTD__DHT__METHOD__PREFIX;
    request.n_prefixes = 1;
    request.prefixes = prefixes;
    ck_assert_uint_eq(ask(), STATUS_OK);
    const size_t finds = world.finds_total;
    ck_assert_uint_eq(resolve(1, uids), STATUS_OK);
    ck_assert_uint_eq(lookup.reply.resolved[0]->n_replicas, 1);
    uids[0] = (char *)"ffn.9.9";
    ck_assert_uint_eq(resolve(1, uids), STATUS_OK);
    ck_assert_uint_eq(lookup.reply.resolved[0]->n_replicas, 0);
    ck_assert_uint_eq(world.finds_total, finds);
}
END_TEST

START_TEST(who_has_it_is_told_before_a_silent_server_is_given_up)
{
    char *uids[] = {(char *)"ffn.4.1", (char *)"ffn.4.2"};
    world_host(one, "ffn.4.1");
    world_host(two, "ffn.4.7");
    two->silent = true;
    request.method = EXPERTD__DHT__METHOD__RESOLVE;
    request.n_uids = 2;
    request.uids = uids;
    begin();
    ck_assert_int_eq(lookup_run(&lookup, world.now), LOOKUP_WAITING);
    world_answer();
    ck_assert_int_eq(lookup_run(&lookup, world.now), LOOKUP_WAITING);
    world_pass(SERVERS_ANSWER_MS);
    /* It may have ffn.4.2: only the second time that it does not answer is enough to say that nobody does. */
    ck_assert_int_eq(lookup_run(&lookup, world.now), LOOKUP_WAITING);
    done();
    request.n_uids = 1;
    begin();
    ck_assert_int_eq(lookup_run(&lookup, world.now), LOOKUP_DONE);
    ck_assert_uint_eq(lookup.reply.resolved[0]->n_replicas, 1);
}
END_TEST

enum { CONNECTIONS = 8, STRANGERS = 10 * CONNECTIONS };

static char honest[] = "ffn.0.7", rare[] = "ffn.0.1085", missing[] = "ffn.0.9";
static char *honest_uids[] = {honest};

static struct world_server *stranger(int number, bool silent)
{
    struct world_server *server = world_server(100 + number);
    char uid[UID_SIZE];
    snprintf(uid, sizeof uid, "ffn.0.%d", 1000 + number);
    world_host(server, uid);
    server->silent = silent;
    return server;
}

/* Asked again and again, until it is found; be it at the deadline, among what is known. */
static bool resolves_in(int tries_max, char *uid)
{
    static char *uids[1];
    uids[0] = uid;
    request.method = EXPERTD__DHT__METHOD__RESOLVE;
    request.n_uids = 1;
    request.uids = uids;
    for (int tries = 0; tries < tries_max; tries++) {
        begin();
        while (lookup_run(&lookup, world.now) != LOOKUP_DONE) {
            world_answer();
            world_pass(100);
        }
        if (lookup.reply.n_resolved == 1 && lookup.reply.resolved[0]->n_replicas > 0)
            return true;
    }
    return false;
}

/* More than connections are kept, before it and after it: those that say nothing, or host something else. */
START_TEST(what_is_hosted_resolves_however_many_strangers_announce_its_prefix)
{
    const bool silent = _i == 0, mixed = _i == 2;
    teardown();
    world_begin_with(64, CONNECTIONS, 64 << 20);
    for (int i = 0; i < STRANGERS; i++) {
        if (i == STRANGERS / 2)
            world_host(world_server(1), honest);
        stranger(i, mixed ? i % 2 : silent);
    }
    ck_assert(resolves_in(20, honest));
    for (int i = STRANGERS; i < 2 * STRANGERS; i++)
        stranger(i, mixed ? i % 2 : silent);
    /* Who is known stays known, whatever else is asked for. */
    for (int i = 0; i < 6; i++) {
        world_pass(CACHE_REFRESH_MS);
        resolves_in(2, i % 2 ? rare : missing);
        ck_assert_uint_eq(resolve(1, honest_uids), STATUS_OK);
        ck_assert_uint_eq(lookup.reply.resolved[0]->n_replicas, 1);
        ck_assert_uint_le(servers_count(world.subscriptions, SERVER_LIVE), CONNECTIONS);
    }
}
END_TEST

START_TEST(where_all_strangers_are_dead_it_is_known_that_nobody_has_it)
{
    teardown();
    world_begin_with(64, CONNECTIONS, 64 << 20);
    for (int i = 0; i < 50; i++)
        stranger(i, true);
    for (int i = 0; i < 1000 && world_known("ffn.0.", CACHE_SURE) != 1; i++) {
        world_answer();
        world_pass(100);
    }
    ck_assert_uint_eq(resolve(1, honest_uids), STATUS_OK);
    ck_assert_uint_eq(lookup.reply.resolved[0]->n_replicas, 0);
}
END_TEST

START_TEST(thousands_resolve_at_once)
{
    enum { COUNT = 20000 };
    static char text[COUNT][UID_SIZE];
    static char *uids[COUNT];
    struct catalog catalog = {0};
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(text[i], UID_SIZE, "ffn.%zu.%zu", i % 128, i / 128);
        uids[i] = text[i];
        if (i % 2 == 0)
            ck_assert_int_eq(catalog_add(&catalog, text[i], true), 0);
    }
    ck_assert_int_eq(catalog_finish(&catalog), 0);
    world_publish(one, catalog);
    ck_assert_uint_eq(resolve(COUNT, uids), STATUS_OK);
    for (size_t i = 0; i < COUNT; i++)
        ck_assert_uint_eq(lookup.reply.resolved[i]->n_replicas, i % 2 == 0);
}
END_TEST

START_TEST(at_the_deadline_it_says_what_is_known)
{
    char *uids[] = {(char *)"ffn.4.1", (char *)"other.0"};
    world_host(one, "ffn.4.1");
    ck_assert_uint_eq(resolve(1, uids), STATUS_OK);
    request.n_uids = 2;
    request.deadline_ms = 100;
    begin();
    ck_assert_int_eq(lookup_run(&lookup, world.now), LOOKUP_WAITING);
    world_pass(99);
    ck_assert_int_eq(lookup_run(&lookup, world.now), LOOKUP_WAITING);
    world_pass(1);
    ck_assert_int_eq(lookup_run(&lookup, world.now), LOOKUP_DONE);
    ck_assert_uint_eq(lookup.reply.status, STATUS_DEADLINE_EXCEEDED);
    ck_assert_uint_eq(lookup.reply.resolved[0]->n_replicas, 1);
    ck_assert_uint_eq(lookup.reply.resolved[1]->n_replicas, 0);
}
END_TEST

START_TEST(prefixes_are_listed)
{
    char *prefixes[] = {(char *)"ffn.", (char *)"ffn.4.", (char *)"none."};
    world_host(one, "ffn.4.0 ffn.4.1 ffn.4.2 ffn.9.0 ffn.7");
    request.method = EXPERTD__DHT__METHOD__PREFIX;
    request.n_prefixes = 3;
    request.prefixes = prefixes;
    ck_assert_uint_eq(ask(), STATUS_OK);
    ck_assert_uint_eq(lookup.reply.n_prefixes, 3);
    const Expertd__Dht__PrefixContent *top = lookup.reply.prefixes[0], *four = lookup.reply.prefixes[1];
    ck_assert_uint_eq(top->n_experts, 1);
    ck_assert_uint_eq(top->experts[0]->first, 7);
    ck_assert_uint_eq(top->n_branches, 2);
    ck_assert_uint_eq(top->branches[1]->first, 9);
    ck_assert_uint_eq(four->n_experts, 1);
    ck_assert_uint_eq(four->experts[0]->first, 0);
    ck_assert_uint_eq(four->experts[0]->count, 3);
    ck_assert_uint_eq(lookup.reply.prefixes[2]->n_experts, 0);
}
END_TEST

START_TEST(rows_of_scores_get_their_experts)
{
    uint32_t grid[] = {3, 2};
    float scores[] = {0, 1, 2, 0, 5, /* */ 3, 0, 0, 0, 0};
    Expertd__Dht__BeamQuery beam = EXPERTD__DHT__BEAM_QUERY__INIT;
    world_host(one, "ffn.0.0 ffn.1.1 ffn.2.0 !ffn.2.1");
    world_host(two, "ffn.1.1 ffn.8.1");
    beam.prefix = (char *)"ffn.";
    beam.n_grid_size = 2;
    beam.grid_size = grid;
    beam.n_scores = 10;
    beam.scores = scores;
    beam.beam_size = 2;
    request.method = EXPERTD__DHT__METHOD__BEAM_SEARCH;
    request.beam = &beam;
    ck_assert_uint_eq(ask(), STATUS_OK);
    const Expertd__Dht__BeamResult *result = lookup.reply.beam;
    ck_assert_uint_eq(result->n_rows, 2);
    ck_assert_uint_eq(result->rows[0]->n_experts, 2);
    ck_assert_str_eq(result->experts[result->rows[0]->experts[0]]->uid, "ffn.1.1");
    ck_assert_uint_eq(result->experts[result->rows[0]->experts[0]]->n_replicas, 2);
    ck_assert_float_eq(result->rows[0]->scores[0], 6);
    ck_assert_str_eq(result->experts[result->rows[0]->experts[1]]->uid, "ffn.2.0");
    ck_assert_str_eq(result->experts[result->rows[1]->experts[0]]->uid, "ffn.0.0");
    ck_assert_str_eq(result->experts[result->rows[1]->experts[1]]->uid, "ffn.1.1");
    ck_assert_uint_eq(result->n_experts, 3);
}
END_TEST

static void draw(const char *pattern, uint32_t count, unsigned status)
{
    Expertd__Dht__DrawQuery query = EXPERTD__DHT__DRAW_QUERY__INIT;
    query.pattern = (char *)pattern;
    query.count = count;
    request.method = EXPERTD__DHT__METHOD__DRAW;
    request.draw = &query;
    ck_assert_msg(ask() == status, "%s: %s", pattern, lookup.reply.message);
    request.draw = NULL;
}

START_TEST(free_uids_are_drawn_evenly)
{
    unsigned seen[4][8] = {{0}};
    world_host(one, "ffn.0.0 ffn.0.1 ffn.0.2 ffn.3.7");
    world_host(two, "ffn.0.1 ffn.2.5");
    for (int round = 0; round < 1000; round++) {
        draw("ffn.[0:4].[0:8]", 9, STATUS_OK);
        ck_assert_uint_eq(lookup.reply.draw->n_uids, 9);
        ck_assert_uint_eq(lookup.reply.draw->free, 27);
        for (size_t i = 0; i < 9; i++) {
            unsigned a, b;
            ck_assert_int_eq(sscanf(lookup.reply.draw->uids[i], "ffn.%u.%u", &a, &b), 2);
            seen[a][b]++;
        }
    }
    for (unsigned a = 0; a < 4; a++)
        for (unsigned b = 0; b < 8; b++) {
            const bool taken = (a == 0 && b < 3) || (a == 3 && b == 7) || (a == 2 && b == 5);
            /* Each free one is drawn 333 times of 1000 on average; eight deviations of 15. */
            ck_assert_msg(taken ? seen[a][b] == 0 : seen[a][b] > 213 && seen[a][b] < 453, "%u.%u: %u", a, b,
                          seen[a][b]);
        }
    draw("ffn.[0:4].[0:8]", 100, STATUS_OK);
    ck_assert_uint_eq(lookup.reply.draw->n_uids, 27);
    draw("ffn.0.1", 1, STATUS_OK);
    ck_assert_uint_eq(lookup.reply.draw->n_uids, 0);
    draw("ffn.[0:4].[0:4294967295]", 5000, STATUS_OK);
    ck_assert_uint_eq(lookup.reply.draw->n_uids, 5000);
    draw("ffn.[0:4097].[0:2]", 5, STATUS_INVALID_ARGUMENT);
    draw("ffn.[0:4294967295].[0:4294967295].[0:2]", 5, STATUS_INVALID_ARGUMENT);
    draw("ffn.[0:4].[0:2]", 0, STATUS_INVALID_ARGUMENT);
    draw("ffn.[4:0]", 5, STATUS_INVALID_ARGUMENT);
    draw("ffn", 5, STATUS_INVALID_ARGUMENT);
}
END_TEST

START_TEST(requests_that_break_a_rule_are_refused)
{
    char *uids[] = {(char *)"ffn.4.1", (char *)"ffn"};
    char *prefixes[] = {(char *)"ffn"};
    ck_assert_uint_eq(resolve(0, NULL), STATUS_INVALID_ARGUMENT);
    ck_assert_uint_eq(resolve(2, uids), STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(lookup.reply.message, "uid 1"));
    request.method = EXPERTD__DHT__METHOD__PREFIX;
    request.n_prefixes = 1;
    request.prefixes = prefixes;
    ck_assert_uint_eq(ask(), STATUS_INVALID_ARGUMENT);
    request.method = 77;
    ck_assert_uint_eq(ask(), STATUS_UNIMPLEMENTED);
    request.method = EXPERTD__DHT__METHOD__DRAW;
    ck_assert_uint_eq(ask(), STATUS_INVALID_ARGUMENT);
    request.method = EXPERTD__DHT__METHOD__BEAM_SEARCH;
    ck_assert_uint_eq(ask(), STATUS_INVALID_ARGUMENT);
    request.version = 2;
    ck_assert_uint_eq(ask(), STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(lookup.reply.message, "version"));
}
END_TEST

START_TEST(more_than_the_limits_is_refused)
{
    static char *many[LOOKUP_MAX_UIDS + 1];
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++)
        many[i] = (char *)"ffn.0";
    ck_assert_uint_eq(resolve(LOOKUP_MAX_UIDS + 1, many), STATUS_INVALID_ARGUMENT);
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++)
        many[i] = (char *)"ffn.";
    request.method = EXPERTD__DHT__METHOD__PREFIX;
    request.n_prefixes = LOOKUP_MAX_PREFIXES + 1;
    request.prefixes = many;
    ck_assert_uint_eq(ask(), STATUS_INVALID_ARGUMENT);
}
END_TEST

static void refused_beam(const char *prefix, size_t dims, uint32_t *grid, size_t scores_count, float *scores,
                         uint32_t size)
{
    Expertd__Dht__BeamQuery beam = EXPERTD__DHT__BEAM_QUERY__INIT;
    beam.prefix = (char *)prefix;
    beam.n_grid_size = dims;
    beam.grid_size = grid;
    beam.n_scores = scores_count;
    beam.scores = scores;
    beam.beam_size = size;
    request.method = EXPERTD__DHT__METHOD__BEAM_SEARCH;
    request.beam = &beam;
    ck_assert_uint_eq(ask(), STATUS_INVALID_ARGUMENT);
    request.beam = NULL;
}

START_TEST(absurd_grids_and_scores_are_refused)
{
    uint32_t grid[17] = {2, 2}, zero[] = {2, 0}, large[] = {65537};
    float scores[40] = {0}, nan[4] = {0, 0.0f / 0.0f, 0, 0}, infinite[4] = {0, 0, 1.0f / 0.0f, 0};
    refused_beam("ffn", 2, grid, 4, scores, 1);
    refused_beam("ffn.", 0, grid, 4, scores, 1);
    refused_beam("ffn.", 17, grid, 4, scores, 1);
    refused_beam("ffn.", 2, zero, 2, scores, 1);
    refused_beam("ffn.", 1, large, 2, scores, 1);
    refused_beam("ffn.", 2, grid, 0, scores, 1);
    refused_beam("ffn.", 2, grid, 6, scores, 1);
    refused_beam("ffn.", 2, grid, 4, nan, 1);
    refused_beam("ffn.", 2, grid, 4, infinite, 1);
    refused_beam("ffn.", 2, grid, 4, scores, 0);
    refused_beam("ffn.", 2, grid, 4, scores, 1025);
}
END_TEST

START_TEST(a_full_cache_says_so)
{
    static char text[100][UID_SIZE];
    char *uids[100];
    world.cache.options.max_entries = 16;
    for (int i = 0; i < 100; i++) {
        snprintf(text[i], UID_SIZE, "p%d.0", i);
        uids[i] = text[i];
    }
    ck_assert_uint_eq(resolve(100, uids), STATUS_RESOURCE_EXHAUSTED);
    done();
    ck_assert_uint_eq(resolve(10, uids), STATUS_OK);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("lookup");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, uids_resolve_in_the_order_of_the_request);
    tcase_add_test(all, what_is_below_a_known_prefix_is_known_without_a_question);
    tcase_add_test(all, who_has_it_is_told_before_a_silent_server_is_given_up);
    tcase_add_loop_test(all, what_is_hosted_resolves_however_many_strangers_announce_its_prefix, 0, 3);
    tcase_add_test(all, where_all_strangers_are_dead_it_is_known_that_nobody_has_it);
    tcase_add_test(all, thousands_resolve_at_once);
    tcase_add_test(all, at_the_deadline_it_says_what_is_known);
    tcase_add_test(all, prefixes_are_listed);
    tcase_add_test(all, rows_of_scores_get_their_experts);
    tcase_add_test(all, free_uids_are_drawn_evenly);
    tcase_add_test(all, requests_that_break_a_rule_are_refused);
    tcase_add_test(all, more_than_the_limits_is_refused);
    tcase_add_test(all, absurd_grids_and_scores_are_refused);
    tcase_add_test(all, a_full_cache_says_so);
    return world_run(all, "lookup");
}
