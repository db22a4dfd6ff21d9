#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_check.h"
#include "common/tensor_part.h"
#include "common/uid.h"

/* Far above what a server can hold, and low enough that listing all uids to compare them is no burden. */
static const uint64_t experts_max = UINT64_C(1) << 20;

static uint64_t expert_count(const struct config_expert *expert, const struct uid_pattern *pattern)
{
    return expert->count ? expert->count : uid_pattern_count(pattern);
}

/* One block: the pointers, then the strings, each in a slot that holds the longest. */
static char **uids_alloc(const struct uid_pattern *pattern, uint64_t count, size_t *slot)
{
    *slot = strlen(pattern->prefix) + pattern->dims * sizeof ".4294967295";
    char **uids = count <= SIZE_MAX / (sizeof *uids + *slot) ? malloc(count * (sizeof *uids + *slot)) : NULL;
    for (uint64_t i = 0; uids && i < count; i++)
        uids[i] = (char *)(uids + count) + i * *slot;
    return uids;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Takes what is excepted out of the list, whose order stays. */
static int leave_out(const struct config_expert *expert, char **list, uint64_t *count)
{
    uint64_t kept = 0;
    const size_t excepted = expert->except.count;
    if (excepted == 0)
        return 0;
    const char **sorted = malloc(excepted * sizeof *sorted);
    if (!sorted)
        return -ENOMEM;
    memcpy(sorted, expert->except.items, excepted * sizeof *sorted);
    qsort(sorted, excepted, sizeof *sorted, compare_texts);
    for (uint64_t i = 0; i < *count; i++)
        if (!bsearch(&list[i], sorted, excepted, sizeof *sorted, compare_texts))
            list[kept++] = list[i];
    free(sorted);
    *count = kept;
    return 0;
}

int config_expert_uids(const struct config_expert *expert, char ***uids, uint64_t *count)
{
    char text[UID_SIZE];
    struct uid_pattern pattern;
    size_t slot;
    int rc = uid_pattern_parse(&pattern, expert->uid, text, sizeof text);
    if (rc < 0)
        return rc;
    uint64_t wanted = expert_count(expert, &pattern);
    uint64_t *indices = expert->count ? calloc(wanted, sizeof *indices) : NULL;
    char **list = indices || !expert->count ? uids_alloc(&pattern, wanted, &slot) : NULL;
    if (!list)
        rc = -ENOMEM;
    else if (expert->count)
        rc = uid_pattern_draw(&pattern, wanted, expert->seed, indices);
    for (uint64_t i = 0; rc == 0 && i < wanted; i++) {
        uid_pattern_nth(&pattern, indices ? indices[i] : i, text);
        memcpy(list[i], text, strlen(text) + 1);
    }
    free(indices);
    if (rc == 0)
        rc = leave_out(expert, list, &wanted);
    if (rc < 0) {
        free(list);
        return rc;
    }
    *uids = list;
    *count = wanted;
    return 0;
}

/* Only what is left out has to be looked for among the uids. */
static uint64_t count_uids(const struct config_expert *expert)
{
    char text[UID_SIZE], **uids;
    struct uid_pattern pattern;
    uint64_t count;
    if (expert->except.count == 0)
        return uid_pattern_parse(&pattern, expert->uid, text, sizeof text) == 0 ? expert_count(expert, &pattern) : 0;
    if (config_expert_uids(expert, &uids, &count) < 0)
        return 0;
    free(uids);
    return count;
}

uint64_t config_experts_on(const struct config *config, const char *device)
{
    uint64_t count = 0;
    for (unsigned e = 0; e < config->experts_count; e++)
        if (!device || strcmp(config->experts[e].device, device) == 0)
            count += count_uids(&config->experts[e]);
    return count;
}

/* All uids of the configuration, for the search of one that stands twice: open addressing, NULL is an empty slot. */
struct uid_set {
    struct {
        const char *uid;
        unsigned entry;
    } * slots;
    uint64_t mask;
    char ***lists; /* of each entry, to be freed */
};

/* The entry that has the uid already, or `entry` itself. */
static unsigned set_insert(struct uid_set *set, const char *uid, unsigned entry)
{
    uint64_t at = uid_hash(uid, strlen(uid)) & set->mask;
    for (; set->slots[at].uid; at = (at + 1) & set->mask)
        if (strcmp(set->slots[at].uid, uid) == 0)
            return set->slots[at].entry;
    set->slots[at].uid = uid;
    set->slots[at].entry = entry;
    return entry;
}

static int check_unique(const struct config *config, const struct config_source *source, struct uid_set *set)
{
    for (unsigned entry = 0; entry < config->experts_count; entry++) {
        uint64_t count;
        const int rc = config_expert_uids(&config->experts[entry], &set->lists[entry], &count);
        if (rc < 0)
            return rc;
        if (count == 0)
            return config_source_error(source, (struct config_place){"experts", (int)entry, "except"},
                                       "leaves no expert of '%s'", config->experts[entry].uid);
        for (uint64_t i = 0; i < count; i++) {
            const unsigned first = set_insert(set, set->lists[entry][i], entry);
            if (first != entry)
                return config_source_error(
                    source, (struct config_place){"experts", (int)entry, "uid"},
                    "'%s' is in experts[%u] (line %u) already", set->lists[entry][i], first,
                    config_source_line(source, (struct config_place){"experts", (int)first, "uid"}));
        }
    }
    return 0;
}

/* What `tensors` says can be read, for the first uid and so for all. */
static int check_templates(const struct config_expert *expert, const struct uid_pattern *pattern,
                           const struct config_source *source, unsigned entry)
{
    const struct config_place place = {"experts", (int)entry, "tensors"};
    char uid[UID_SIZE], problem[TENSOR_PART_ERROR_SIZE];
    uid_pattern_nth(pattern, 0, uid);
    for (unsigned i = 0; i < expert->templates.count; i++) {
        struct tensor_part part;
        const struct config_template *item = &expert->templates.items[i];
        if (item->template == NULL)
            continue;
        if (!expert->weights[0])
            return config_source_error(source, place, "is of no use without weights");
        if (tensor_part_parse(&part, item->template, uid, problem) < 0)
            return config_source_error_at(source, item->line, place, "%.60s: %s", item->parameter, problem);
    }
    return 0;
}

/* How many experts the entry makes, 0 after a message. */
static uint64_t check_pattern(const struct config *config, const struct config_source *source, unsigned entry)
{
    char problem[320];
    struct uid_pattern pattern;
    const struct config_expert *expert = &config->experts[entry];
    struct config_place place = {"experts", (int)entry, "uid"};
    if (uid_pattern_parse(&pattern, expert->uid, problem, sizeof problem) < 0) {
        place.option = expert->uid[0] ? "uid" : NULL;
        config_source_error(source, place, "%s", expert->uid[0] ? problem : "an expert needs a uid");
        return 0;
    }
    if (expert->count > uid_pattern_count(&pattern)) {
        place.option = "count";
        config_source_error(source, place, "%" PRIu64 " is more than the %" PRIu64 " uids of '%s'", expert->count,
                            uid_pattern_count(&pattern), expert->uid);
        return 0;
    }
    if (expert_count(expert, &pattern) > experts_max) {
        config_source_error(source, place, "'%s' names %" PRIu64 " experts, more than %" PRIu64 ": set count",
                            expert->uid, expert_count(expert, &pattern), experts_max);
        return 0;
    }
    return check_templates(expert, &pattern, source, entry) < 0 ? 0 : expert_count(expert, &pattern);
}

int config_experts_check(const struct config *config, const struct config_source *source)
{
    uint64_t total = 0;
    for (unsigned entry = 0; entry < config->experts_count; entry++) {
        const uint64_t count = check_pattern(config, source, entry);
        total += count;
        if (count == 0)
            return -EINVAL;
        if (total > experts_max)
            return config_source_error(source, (struct config_place){"experts", (int)entry, "uid"},
                                       "with it there are %" PRIu64 " experts, more than %" PRIu64, total, experts_max);
    }
    struct uid_set set = {.mask = 1};
    while (set.mask < 2 * total)
        set.mask = set.mask * 2 + 1;
    set.slots = calloc(set.mask + 1, sizeof *set.slots);
    set.lists = calloc(config->experts_count + 1, sizeof *set.lists);
    const int rc = set.slots && set.lists ? check_unique(config, source, &set) : -ENOMEM;
    for (unsigned entry = 0; set.lists && entry < config->experts_count; entry++)
        free(set.lists[entry]);
    free(set.lists);
    free(set.slots);
    return rc;
}
