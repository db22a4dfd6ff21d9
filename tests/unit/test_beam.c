#include <errno.h>
#include <math.h>

#include "dht/beam.h"
#include "dht_world.h"

/* A grid of up to three dimensions, hosted by one server; some of it hidden at first. */
static struct world grid;
static struct resident host;
static struct table hidden; /* prefixes that are not known yet */
static char hidden_keys[4096][UID_SIZE];
static size_t asked;
static char asked_prefix[4096][UID_SIZE];

static int find(void *context, const char *prefix, const struct ranges **experts, const struct ranges **branches)
{
    (void)context;
    if (table_find(&hidden, prefix, strlen(prefix))) {
        snprintf(asked_prefix[asked++], UID_SIZE, "%s", prefix);
        return 0;
    }
    const struct place *place = world_find(&grid, prefix);
    *experts = &place->experts;
    *branches = &place->branches;
    return 1;
}

static const struct beam_source source = {NULL, find};

struct scored {
    double score;
    uint32_t coordinates[3];
};

static int compare(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    for (int d = 0; d < 3; d++)
        if (x->coordinates[d] != y->coordinates[d])
            return x->coordinates[d] < y->coordinates[d] ? -1 : 1;
    return 0;
}

static struct scored all[200000];

/* A random grid of these dimensions with about `count` experts (some outside the query's grid); returns how many in it.
 */
static size_t make_grid(uint32_t dims, const uint32_t *size, int count, bool outside, const float *scores)
{
    size_t inside = 0;
    struct catalog catalog = {0};
    for (int i = 0; i < count; i++) {
        struct scored expert = {0};
        char uid[UID_SIZE] = "grid";
        uint32_t at = 0;
        bool in = true;
        for (uint32_t d = 0; d < dims; d++) {
            expert.coordinates[d] = (uint32_t)rand() % (size[d] + (outside ? 3 : 0));
            snprintf(uid + strlen(uid), sizeof uid - strlen(uid), ".%u", expert.coordinates[d]);
            in &= expert.coordinates[d] < size[d];
            expert.score += in ? (double)scores[at + expert.coordinates[d]] : 0;
            at += size[d];
        }
        ck_assert_int_eq(catalog_add(&catalog, uid, true), 0);
        bool seen = false;
        for (size_t k = 0; k < inside && !seen; k++)
            seen = memcmp(all[k].coordinates, expert.coordinates, sizeof expert.coordinates) == 0;
        if (in && !seen)
            all[inside++] = expert;
    }
    ck_assert_int_eq(catalog_finish(&catalog), 0);
    for (size_t i = 0; i < catalog.count; i++)
        ck_assert_int_eq(world_put(&grid, &host, catalog.contents[i]), 0);
    ck_assert_int_eq(world_branch(&grid, &host), 0);
    catalog_destroy(&catalog);
    qsort(all, inside, sizeof all[0], compare);
    return inside;
}

static void check_same(const struct beam_best *best, size_t found, size_t wanted, uint32_t dims)
{
    ck_assert_uint_eq(found, wanted);
    for (size_t i = 0; i < found; i++) {
        ck_assert(best[i].score == all[i].score || fabs(best[i].score - all[i].score) < 1e-9);
        for (uint32_t d = 0; d < dims; d++)
            ck_assert_uint_eq(best[i].coordinates[d], all[i].coordinates[d]);
    }
}

START_TEST(the_beam_is_what_an_exhaustive_search_finds)
{
    struct beam beam = {0};
    struct beam_best best[64];
    float scores[3 * 40];
    srand(2);
    for (int round = 0; round < 400; round++) {
        const uint32_t dims = 1 + (uint32_t)rand() % 3;
        uint32_t size[3];
        for (uint32_t d = 0; d < dims; d++)
            size[d] = 1 + (uint32_t)rand() % 12;
        /* Every third round has many equal scores, and some of no hope at all. */
        for (size_t i = 0; i < sizeof scores / sizeof scores[0]; i++)
            scores[i] =
                round % 3 ? (float)rand() / (float)RAND_MAX - 0.5f : (rand() % 9 ? (float)(rand() % 3) : -INFINITY);
        const size_t inside = make_grid(dims, size, rand() % 120, round % 2, scores);
        const uint32_t beam_size = 1 + (uint32_t)rand() % 40;
        const struct beam_query query = {"grid.", dims, size, scores, beam_size};
        size_t found;
        ck_assert_int_eq(beam_search(&beam, &query, &source, 1, best, &found), 1);
        check_same(best, found, inside < beam_size ? inside : beam_size, dims);
        world_remove(&grid, &host);
    }
    beam_destroy(&beam);
    world_destroy(&grid);
}
END_TEST

START_TEST(prefixes_that_are_missing_are_asked_for_together_and_then_it_is_exact)
{
    struct beam beam = {0};
    struct beam_best best[8];
    const uint32_t size[] = {10, 12};
    float scores[22];
    srand(3);
    for (int round = 0; round < 100; round++) {
        for (size_t i = 0; i < 22; i++)
            scores[i] = (float)rand() / (float)RAND_MAX;
        const size_t inside = make_grid(2, size, 50, false, scores);
        const struct beam_query query = {"grid.", 2, size, scores, 4};
        size_t found, rounds = 0;
        int done;
        const struct place *place;
        for (size_t at = 0, i = 0; (place = table_next(&grid.places, &at)); i++) {
            snprintf(hidden_keys[i], UID_SIZE, "%s", place->prefix);
            ck_assert_int_eq(table_insert(&hidden, hidden_keys[i], strlen(hidden_keys[i]), hidden_keys[i]), 0);
        }
        do {
            asked = 0;
            done = beam_search(&beam, &query, &source, 4, best, &found);
            ck_assert_int_ge(done, 0);
            ck_assert_uint_le(asked, 4);
            ck_assert_int_eq(done, asked == 0);
            if (rounds == 1)
                ck_assert_msg(asked > 1 || inside < 12, "more than one at a time");
            for (size_t i = 0; i < asked; i++)
                table_remove(&hidden, asked_prefix[i], strlen(asked_prefix[i]));
            rounds++;
        } while (!done);
        ck_assert_uint_le(rounds, 5);
        check_same(best, found, inside < 4 ? inside : 4, 2);
        table_destroy(&hidden);
        world_remove(&grid, &host);
    }
    beam_destroy(&beam);
    world_destroy(&grid);
}
END_TEST

/* Everything, at every depth. */
static int find_everything(void *context, const char *prefix, const struct ranges **experts,
                           const struct ranges **branches)
{
    static struct range whole = {0, RANGES_END_MAX};
    static const struct ranges set = {&whole, 1, 1};
    (void)context;
    (void)prefix;
    *experts = *branches = &set;
    return 1;
}

START_TEST(a_grid_that_claims_everything_ends)
{
    const struct beam_source endless = {NULL, find_everything};
    struct beam beam = {0};
    struct beam_best best[4];
    static float scores[16 * 65536];
    uint32_t size[16];
    size_t found;
    for (int d = 0; d < 16; d++)
        size[d] = 65536;
    for (size_t i = 0; i < sizeof scores / sizeof scores[0]; i++)
        scores[i] = (float)(i % 7);
    /* uids of 16 coordinates of five digits are longer than a uid may be, and there are 2^256 of them. */
    const struct beam_query query = {"grid.", 16, size, scores, 4};
    const int rc = beam_search(&beam, &query, &endless, 1, best, &found);
    ck_assert(rc == -E2BIG || (rc == 1 && found == 4));
    beam_destroy(&beam);
    world_destroy(&grid);
}
END_TEST

static int refuse(void *context, const char *prefix, const struct ranges **experts, const struct ranges **branches)
{
    (void)context;
    (void)prefix;
    (void)experts;
    (void)branches;
    return -ENOSPC;
}

START_TEST(an_error_of_the_source_ends_the_search)
{
    const struct beam_source broken = {NULL, refuse};
    struct beam beam = {0};
    struct beam_best best[1];
    const uint32_t size[] = {1};
    const float scores[] = {0};
    const struct beam_query query = {"grid.", 1, size, scores, 1};
    size_t found;
    ck_assert_int_eq(beam_search(&beam, &query, &broken, 1, best, &found), -ENOSPC);
    beam_destroy(&beam);
    world_destroy(&grid);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("beam");
    tcase_add_test(tests, the_beam_is_what_an_exhaustive_search_finds);
    tcase_add_test(tests, prefixes_that_are_missing_are_asked_for_together_and_then_it_is_exact);
    tcase_add_test(tests, a_grid_that_claims_everything_ends);
    tcase_add_test(tests, an_error_of_the_source_ends_the_search);
    return world_run(tests, "beam");
}
