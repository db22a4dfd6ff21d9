#include "dht/lookup_kinds.h"
#include "dht_world.h"

enum { SERVERS = 24, BEAM_MAX = 8 };

static struct world_server *servers[SERVERS];
static struct lookup lookup;
static int woken, runs;
static struct world_server *slow; /* silent until it has once been given up; NULL: none is */

static void setup(void)
{
    world_begin(20000);
    for (int i = 0; i < SERVERS; i++)
        servers[i] = world_server(i);
    lookup = (struct lookup){0};
    slow = NULL;
}

static void teardown(void)
{
    lookup_destroy(&lookup);
    world_end();
}

static void wake(struct lookup *l)
{
    (void)l;
    woken++;
}

/* A search of a grid: `queries` rows of scores. */
static void begin(uint32_t rows, uint32_t columns, float *scores, size_t queries, uint32_t beam_size)
{
    static Expertd__Dht__Request request;
    static Expertd__Dht__BeamQuery beam;
    static uint32_t grid[2];
    expertd__dht__request__init(&request);
    expertd__dht__beam_query__init(&beam);
    grid[0] = rows;
    grid[1] = columns;
    beam.prefix = (char *)"ffn.";
    beam.grid_size = grid;
    beam.n_grid_size = 2;
    beam.scores = scores;
    beam.n_scores = queries * (rows + columns);
    beam.beam_size = beam_size;
    request.method = EXPERTD__DHT__METHOD__BEAM_SEARCH;
    request.deadline_ms = LOOKUP_DEADLINE_MAX_MS;
    request.beam = &beam;
    lookup_destroy(&lookup);
    lookup_init(&lookup, &world.cache, &search_kind, &request, world.now);
    lookup.wake = wake;
}

/* Runs a search of a cold or warm cache to its end; gets are answered one by one, and it runs whenever it is woken. */
static const Expertd__Dht__BeamResult *search(uint32_t rows, uint32_t columns, float *scores, uint32_t beam_size)
{
    begin(rows, columns, scores, 1, beam_size);
    enum lookup_result result;
    for (runs = 1; (result = lookup_run(&lookup, world.now)) != LOOKUP_DONE; runs++) {
        if (result == LOOKUP_AGAIN)
            world_step();
        for (woken = result == LOOKUP_AGAIN; woken == 0;) {
            if (slow && world_subscription(slow) && world_subscription(slow)->timeouts > 0)
                slow->silent = false;
            if (world.finds_count > 0)
                world_answer_find(0);
            else if (!world_answer_asks())
                world_pass(5);
            ck_assert_uint_lt(world.now.ns, lookup.deadline_ns);
        }
    }
    ck_assert_msg(lookup.reply.status == STATUS_OK, "%s", lookup.reply.message);
    return lookup.reply.beam;
}

static const char *uid_at(const Expertd__Dht__BeamResult *result, size_t i)
{
    return result->experts[result->rows[0]->experts[i]]->uid;
}

START_TEST(what_one_hosts_that_does_not_prove_its_id_is_none_of_the_best)
{
    float scores[] = {1, 2, 0, 1, 2};
    world_host(servers[0], "ffn.0.0 ffn.1.0");
    world_host(servers[1], "ffn.0.2 ffn.1.2");
    world_host(servers[2], "ffn.1.1");
    servers[1]->signer = servers[0]->identity;
    const Expertd__Dht__BeamResult *result = search(2, 3, scores, 2);
    ck_assert_uint_eq(result->rows[0]->n_experts, 2);
    ck_assert_str_eq(uid_at(result, 0), "ffn.1.1");
    ck_assert_str_eq(uid_at(result, 1), "ffn.1.0");
    ck_assert_uint_eq(result->n_experts, 2);
    for (size_t i = 0; i < result->n_experts; i++)
        ck_assert_uint_eq(result->experts[i]->n_replicas, 1);
}
END_TEST

START_TEST(liars_cost_a_search_of_many_rows_no_more_than_one_of_few)
{
    enum { LIARS = 8, ROWS = 64, COLUMNS = 9, BEAM = 4 };
    static float scores[ROWS][1 + COLUMNS];
    char uids[2 * UID_SIZE];
    for (int i = 0; i < LIARS; i++) {
        snprintf(uids, sizeof uids, "ffn.0.%d", i + 1);
        world_host(servers[i], uids);
        servers[i]->signer = servers[LIARS]->identity;
        for (int row = 0; row < ROWS; row++)
            scores[row][1 + i + 1] = (float)(i + 1);
    }
    world_host(servers[LIARS], "ffn.0.0");
    world_look("ffn."); /* no time passes: nobody has proved who it is yet */
    size_t bytes[2];
    for (int warm = 0; warm < 2; warm++) {
        enum lookup_result result;
        begin(1, COLUMNS, scores[0], ROWS, BEAM);
        for (runs = 1; (result = lookup_run(&lookup, world.now)) != LOOKUP_DONE; runs++) {
            ck_assert_int_eq(result, LOOKUP_AGAIN);
            world_step();
        }
        ck_assert_int_eq(lookup.reply.status, STATUS_OK);
        for (int row = 0; row < ROWS; row++) {
            ck_assert_uint_eq(lookup.reply.beam->rows[row]->n_experts, 1);
            ck_assert_uint_eq(lookup.reply.beam->rows[row]->experts[0], 0);
        }
        ck_assert_str_eq(uid_at(lookup.reply.beam, 0), "ffn.0.0");
        bytes[warm] = lookup.arena.bytes;
    }
    ck_assert_uint_eq(servers_counters(world.subscriptions)->liars, LIARS);
    ck_assert_uint_le(bytes[0], bytes[1] + (size_t)LIARS * BEAM * 2 * sizeof(float) * 2);
}
END_TEST

START_TEST(a_grid_whose_best_expert_is_in_the_last_row_is_searched_to_its_end)
{
    enum { ROWS = 1500 };
    static float scores[ROWS + 2];
    struct catalog catalog = {0};
    char uid[UID_SIZE];
    for (unsigned i = 0; i < ROWS; i++) {
        snprintf(uid, sizeof uid, "ffn.%u.%d", i, i == ROWS - 1);
        ck_assert_int_eq(catalog_add(&catalog, uid, true), 0);
        scores[i] = (float)(ROWS - i);
    }
    ck_assert_int_eq(catalog_finish(&catalog), 0);
    world_publish(servers[0], catalog);
    scores[ROWS + 1] = ROWS + 1;
    ck_assert_str_eq(uid_at(search(ROWS, 2, scores, 1), 0), "ffn.1499.1");
    ck_assert_int_lt(runs, 4);
    search(ROWS, 2, scores, 1);
    ck_assert_int_eq(runs, 1);
}
END_TEST

START_TEST(experts_of_dead_servers_are_passed_over)
{
    float scores[2 + 24] = {0};
    char uids[2 * UID_SIZE];
    for (int i = 0; i < SERVERS; i++) {
        snprintf(uids, sizeof uids, "ffn.0.%d", i);
        world_host(servers[i], uids);
        servers[i]->silent = i > 2;
        scores[2 + i] = (float)i;
    }
    const Expertd__Dht__BeamResult *result = search(2, 24, scores, 2);
    ck_assert_uint_eq(result->rows[0]->n_experts, 2);
    ck_assert_str_eq(uid_at(result, 0), "ffn.0.2");
    ck_assert_str_eq(uid_at(result, 1), "ffn.0.1");
}
END_TEST

START_TEST(that_there_is_nothing_is_said_after_who_was_slow_has_been_asked_again)
{
    float scores[8] = {0};
    world_host(servers[0], "ffn.1.2");
    slow = servers[0];
    slow->silent = true;
    const Expertd__Dht__BeamResult *result = search(4, 4, scores, 1);
    ck_assert_uint_eq(result->rows[0]->n_experts, 1);
    ck_assert_str_eq(uid_at(result, 0), "ffn.1.2");
    ck_assert(!slow->silent);
}
END_TEST

START_TEST(where_more_servers_are_than_are_connected_to_longer_prefixes_are_asked_for)
{
    float scores[24 + 4] = {0};
    char uid[UID_SIZE];
    teardown();
    world_begin_with(20000, 8, 64 << 20);
    for (int i = 0; i < SERVERS; i++) {
        servers[i] = world_server(i);
        snprintf(uid, sizeof uid, "ffn.%d.%d", i, i % 4);
        world_host(servers[i], uid);
        scores[i] = (float)i;
    }
    scores[24 + 1] = 100;
    const Expertd__Dht__BeamResult *result = search(24, 4, scores, 2);
    ck_assert_uint_eq(result->rows[0]->n_experts, 2);
    ck_assert_str_eq(uid_at(result, 0), "ffn.21.1");
    ck_assert_str_eq(uid_at(result, 1), "ffn.17.1");
    ck_assert_uint_le(servers_count(world.subscriptions, SERVER_LIVE), 8);
}
END_TEST

START_TEST(of_a_full_grid_few_servers_are_asked)
{
    enum { ROWS = CACHE_FEW + 28 };
    static float scores[ROWS + 2];
    char uids[2 * UID_SIZE];
    for (int i = 0; i < ROWS; i++) {
        snprintf(uids, sizeof uids, "ffn.%d.0 ffn.%d.1", i, i);
        world_host(i < SERVERS ? servers[i] : world_server(i), uids);
        scores[i] = (float)i;
    }
    scores[ROWS + 1] = 0.5f;
    const Expertd__Dht__BeamResult *result = search(ROWS, 2, scores, 2);
    ck_assert_uint_eq(result->rows[0]->n_experts, 2);
    ck_assert_str_eq(uid_at(result, 0), "ffn.59.1");
    ck_assert_str_eq(uid_at(result, 1), "ffn.59.0");
    ck_assert_uint_le(servers_total(world.subscriptions), ROWS / 4);
}
END_TEST

static int compare(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

START_TEST(a_cold_search_finds_what_an_exhaustive_one_does)
{
    enum { ROWS = 12, COLUMNS = 20 };
    static float scores[ROWS + COLUMNS], live[ROWS * COLUMNS];
    bool alive[ROWS][COLUMNS] = {{false}};
    int had[ROWS][COLUMNS] = {{0}}; /* number of the last server that has it, plus 1 */
    size_t count = 0;
    srand((unsigned)_i);
    for (int i = 0; i < ROWS + COLUMNS; i++)
        scores[i] = (float)rand() / (float)RAND_MAX;
    for (int s = 0; s < SERVERS; s++) {
        struct catalog catalog = {0};
        const bool dead = rand() % 4 == 0;
        for (int e = 0; e < 6; e++) {
            char uid[UID_SIZE];
            const int row = rand() % ROWS, column = rand() % COLUMNS;
            const bool excluded = rand() % 5 == 0;
            if (had[row][column] == s + 1)
                continue;
            had[row][column] = s + 1;
            snprintf(uid, sizeof uid, "ffn.%d.%d", row, column);
            ck_assert_int_eq(catalog_add(&catalog, uid, !excluded), 0);
            alive[row][column] |= !dead && !excluded;
        }
        ck_assert_int_eq(catalog_finish(&catalog), 0);
        world_publish(servers[s], catalog);
        servers[s]->silent = dead;
    }
    for (int row = 0; row < ROWS; row++)
        for (int column = 0; column < COLUMNS; column++)
            if (alive[row][column])
                live[count++] = scores[row] + scores[ROWS + column];
    qsort(live, count, sizeof *live, compare);
    const Expertd__Dht__BeamResult *result = search(ROWS, COLUMNS, scores, BEAM_MAX);
    ck_assert_uint_eq(result->rows[0]->n_experts, count < BEAM_MAX ? count : BEAM_MAX);
    for (size_t i = 0; i < result->rows[0]->n_experts; i++)
        ck_assert_float_eq_tol(result->rows[0]->scores[i], live[i], 1e-5);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("search");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 60);
    tcase_add_test(all, what_one_hosts_that_does_not_prove_its_id_is_none_of_the_best);
    tcase_add_test(all, liars_cost_a_search_of_many_rows_no_more_than_one_of_few);
    tcase_add_test(all, a_grid_whose_best_expert_is_in_the_last_row_is_searched_to_its_end);
    tcase_add_test(all, experts_of_dead_servers_are_passed_over);
    tcase_add_test(all, of_a_full_grid_few_servers_are_asked);
    tcase_add_test(all, that_there_is_nothing_is_said_after_who_was_slow_has_been_asked_again);
    tcase_add_test(all, where_more_servers_are_than_are_connected_to_longer_prefixes_are_asked_for);
    tcase_add_loop_test(all, a_cold_search_finds_what_an_exhaustive_one_does, 0, 20);
    return world_run(all, "search");
}
