#include "dht/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "dht/prefix.h"

static size_t holding_bytes(const struct holding *holding)
{
    /* With its share of the place. */
    return 2 * sizeof *holding + strlen(holding->place->prefix) +
           (holding->experts.capacity + holding->branches.capacity) * sizeof(struct range);
}

static void count_bytes(struct world *world, struct resident *server, size_t before, size_t after)
{
    server->bytes += after - before;
    world->bytes += after - before;
}

/* ---- places and holdings -------------------------------------------------------------------------------------------
 */

static struct place *place_for(struct world *world, const char *prefix)
{
    const size_t length = strlen(prefix);
    struct place *place = table_find(&world->places, prefix, length);
    if (place)
        return place;
    place = calloc(1, sizeof *place + length + 1);
    if (!place)
        return NULL;
    memcpy(place->prefix, prefix, length);
    if (table_insert(&world->places, place->prefix, length, place) != 0) {
        free(place);
        return NULL;
    }
    return place;
}

static void drop_if_empty(struct world *world, struct place *place)
{
    if (place->count > 0)
        return;
    table_remove(&world->places, place->prefix, strlen(place->prefix));
    ranges_destroy(&place->experts);
    ranges_destroy(&place->branches);
    free(place->holdings);
    free(place);
}

/* Few servers have many prefixes, and few prefixes many servers: a server's newest holding is mostly the one, and the
 * place's last otherwise. */
static struct holding *find_holding(const struct place *place, const struct resident *server)
{
    for (size_t i = place->count; i-- > 0;)
        if (place->holdings[i]->server == server)
            return place->holdings[i];
    return NULL;
}

static struct holding *add_holding(struct world *world, struct place *place, struct resident *server)
{
    struct holding *holding =
        ARRAY_RESERVE(place->holdings, place->capacity, place->count + 1) == 0 ? calloc(1, sizeof *holding) : NULL;
    if (!holding)
        return NULL;
    holding->place = place;
    holding->server = server;
    holding->at = place->count;
    place->holdings[place->count++] = holding;
    LIST_INSERT_HEAD(&server->holdings, holding, entry);
    world->holdings++;
    count_bytes(world, server, 0, holding_bytes(holding));
    return holding;
}

static void remove_holding(struct world *world, struct resident *server, struct holding *holding)
{
    struct place *place = holding->place;
    count_bytes(world, server, holding_bytes(holding), 0);
    place->right = false;
    place->holdings[holding->at] = place->holdings[--place->count];
    place->holdings[holding->at]->at = holding->at;
    LIST_REMOVE(holding, entry);
    ranges_destroy(&holding->experts);
    ranges_destroy(&holding->branches);
    free(holding);
    world->holdings--;
    drop_if_empty(world, place);
}

/* The server's holding under a prefix, made if there is none. */
static struct holding *reach(struct world *world, struct resident *server, const char *prefix)
{
    struct place *place = place_for(world, prefix);
    struct holding *holding = place ? find_holding(place, server) : NULL;
    if (place && !holding) {
        holding = add_holding(world, place, server);
        if (!holding)
            drop_if_empty(world, place);
    }
    return holding;
}

/* ---- changes -------------------------------------------------------------------------------------------------------
 */

int world_put(struct world *world, struct resident *server, const struct dialogue_content *content)
{
    struct holding *holding;
    if (content->experts.count == 0 && content->adds)
        return 0;
    if (content->experts.count == 0) {
        const struct place *place = table_find(&world->places, content->prefix, strlen(content->prefix));
        holding = place ? find_holding(place, server) : NULL;
        if (!holding)
            return 0;
    } else {
        holding = reach(world, server, content->prefix);
    }
    if (!holding)
        return -ENOMEM;
    const size_t before = holding_bytes(holding);
    int rc;
    if (content->adds) {
        rc = ranges_append_all(&holding->experts, &content->experts);
        ranges_normalize(&holding->experts);
    } else {
        rc = ranges_copy(&holding->experts, &content->experts);
    }
    count_bytes(world, server, before, holding_bytes(holding));
    holding->place->right = false;
    return rc;
}

/* The branches that lead to the prefix. *last: the one below the prefix before, which mostly is the same. */
static int branch_to(struct world *world, struct resident *server, const char *prefix, struct holding **last)
{
    char above[UID_SIZE];
    uint32_t coordinate;
    bool first = true;
    memcpy(above, prefix, strlen(prefix) + 1);
    while (prefix_parent(above, above, &coordinate)) {
        const bool same = first && *last && strcmp((*last)->place->prefix, above) == 0;
        struct holding *holding = same ? *last : reach(world, server, above);
        if (first)
            *last = holding;
        first = false;
        if (!holding)
            return -ENOMEM;
        const size_t before = holding_bytes(holding);
        const int rc = ranges_append(&holding->branches, coordinate, (uint64_t)coordinate + 1);
        count_bytes(world, server, before, holding_bytes(holding));
        if (rc != 0)
            return rc;
        holding->place->right = false;
    }
    return 0;
}

int world_branch(struct world *world, struct resident *server)
{
    struct holding *holding, *last = NULL;
    int rc = 0;
    for (holding = LIST_FIRST(&server->holdings); holding; holding = LIST_NEXT(holding, entry))
        ranges_clear(&holding->branches);
    /* What is added on the way comes before those that are still to be seen. */
    for (holding = LIST_FIRST(&server->holdings); holding; holding = LIST_NEXT(holding, entry))
        if (holding->experts.count > 0 && rc == 0)
            rc = branch_to(world, server, holding->place->prefix, &last);
    for (struct holding *next = LIST_FIRST(&server->holdings); (holding = next);) {
        next = LIST_NEXT(holding, entry);
        holding->place->right = false;
        ranges_normalize(&holding->branches);
        if (holding->experts.count == 0 && holding->branches.count == 0)
            remove_holding(world, server, holding);
    }
    return rc;
}

void world_remove(struct world *world, struct resident *server)
{
    for (struct holding *holding = LIST_FIRST(&server->holdings), *next; holding; holding = next) {
        next = LIST_NEXT(holding, entry);
        remove_holding(world, server, holding);
    }
}

/* ---- looking -------------------------------------------------------------------------------------------------------
 */

static int make_right(struct place *place)
{
    ranges_clear(&place->experts);
    ranges_clear(&place->branches);
    for (size_t i = 0; i < place->count; i++)
        if (ranges_append_all(&place->experts, &place->holdings[i]->experts) != 0 ||
            ranges_append_all(&place->branches, &place->holdings[i]->branches) != 0)
            return -ENOMEM;
    ranges_normalize(&place->experts);
    ranges_normalize(&place->branches);
    place->right = true;
    return 0;
}

const struct place *world_find(struct world *world, const char *prefix)
{
    static const struct place empty;
    struct place *place = table_find(&world->places, prefix, strlen(prefix));
    if (!place)
        return &empty;
    return place->right || make_right(place) == 0 ? place : NULL;
}

bool resident_proves(struct resident *server)
{
    return !server->prove || server->prove(server);
}

struct resident *place_replica(const struct place *place, uint32_t coordinate, size_t *at)
{
    while (*at < place->count) {
        const struct holding *holding = place->holdings[(*at)++];
        if (ranges_contain(&holding->experts, coordinate) && resident_proves(holding->server))
            return holding->server;
    }
    return NULL;
}

void world_destroy(struct world *world)
{
    struct place *place;
    for (size_t at = 0; (place = table_next(&world->places, &at));) {
        for (size_t i = 0; i < place->count; i++) {
            ranges_destroy(&place->holdings[i]->experts);
            ranges_destroy(&place->holdings[i]->branches);
            free(place->holdings[i]);
        }
        ranges_destroy(&place->experts);
        ranges_destroy(&place->branches);
        free(place->holdings);
        free(place);
    }
    table_destroy(&world->places);
    *world = (struct world){0};
}
