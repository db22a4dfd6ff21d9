#include "dht/publication.h"

int publication_set(struct publication *publication, const struct catalog_entry *entry)
{
    static const struct ranges nothing = {0};
    const struct ranges *experts = entry ? &entry->experts : &nothing;
    const struct ranges *branches = entry ? &entry->branches : &nothing;
    if (ranges_equal(&publication->experts, experts) && ranges_equal(&publication->branches, branches))
        return 0;
    publication->due = true;
    const int rc = ranges_copy(&publication->experts, experts);
    return rc != 0 ? rc : ranges_copy(&publication->branches, branches);
}

/* As many ranges from `from` on as fit into *room bytes, which shrinks. */
static size_t take(const struct ranges *set, size_t from, size_t *room)
{
    size_t n = 0;
    while (from + n < set->count) {
        /* Each costed as the first of a part: dearer than it may be, never cheaper. */
        const size_t bytes = record_list_bytes(set, from + n, 1);
        if (bytes > *room)
            break;
        *room -= bytes;
        n++;
    }
    return n;
}

uint32_t publication_slices(const struct publication *publication, struct record_slice slices[RECORD_MAX_PARTS],
                            bool *cut)
{
    size_t experts = 0;
    size_t branches = 0;
    uint32_t parts = 0;
    do {
        size_t room = RECORD_PART_BYTES;
        struct record_slice *slice = &slices[parts++];
        *slice = (struct record_slice){.experts_from = experts, .branches_from = branches};
        slice->experts = take(&publication->experts, experts, &room);
        slice->branches = take(&publication->branches, branches, &room);
        experts += slice->experts;
        branches += slice->branches;
        *cut = experts < publication->experts.count || branches < publication->branches.count;
    } while (*cut && parts < RECORD_MAX_PARTS);
    return parts;
}

void publication_withdraw(struct publication *publication, struct node *node)
{
    for (uint32_t i = 0; i < publication->puts_count; i++)
        node_withdraw(node, &publication->puts[i]);
    publication->puts_count = 0;
}

void publication_destroy(struct publication *publication)
{
    ranges_destroy(&publication->experts);
    ranges_destroy(&publication->branches);
}
