#include "common/config_diff.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_print.h"
#include "common/uid.h"

bool config_option_is_live(const char *name)
{
    static const char
        *const names[] =
            {
                "learning_rate", "beta1",       "beta2",       "epsilon",      "weight_decay",
                "clip_norm",     "schedule",    "total_steps", "warmup_steps", "min_batch_size",
                "batch_timeout", "compression", "weights", /* which are looked at when it begins */
            };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static bool is_identity(const char *name)
{
    return strcmp(name, "uid") == 0 || strcmp(name, "count") == 0 || strcmp(name, "except") == 0;
}

static bool is_identity_or_live(const char *name)
{
    return is_identity(name) || config_option_is_live(name);
}

/* --- entries as texts ------------------------------------------------------------------------------------------------
 */

/* What an entry says of each of its experts: all, and what cannot be changed. */
struct texts {
    char *all, *fixed;
};

static char *text_of(const struct config *config, unsigned entry, config_print_filter *leave_out)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return NULL;
    config_print_entry(out, config, "experts", entry, leave_out);
    /* A block of the configuration's own may have changed under its name. */
    for (unsigned b = 0; b < config->blocks_count; b++)
        if (strcmp(config->blocks[b].name, config->experts[entry].block) == 0)
            config_print_entry(out, config, "blocks", b, NULL);
    const bool failed = ferror(out) != 0;
    if (fclose(out) == 0 && !failed)
        return text;
    free(text);
    return NULL;
}

static void free_texts(struct texts *texts, unsigned count)
{
    for (unsigned i = 0; texts && i < count; i++) {
        free(texts[i].all);
        free(texts[i].fixed);
    }
    free(texts);
}

static struct texts *texts_of(const struct config *config)
{
    struct texts *texts = calloc((size_t)config->experts_count + 1, sizeof *texts);
    for (unsigned i = 0; texts && i < config->experts_count; i++) {
        texts[i].all = text_of(config, i, is_identity);
        texts[i].fixed = text_of(config, i, is_identity_or_live);
        if (!texts[i].all || !texts[i].fixed) {
            free_texts(texts, i + 1);
            return NULL;
        }
    }
    return texts;
}

/* --- experts by uid --------------------------------------------------------------------------------------------------
 */

struct known {
    const char *uid;
    unsigned entry;
    size_t item; /* of the diff */
};

struct table {
    struct known *slots;
    uint64_t mask;
};

static struct known *find(const struct table *table, const char *uid)
{
    uint64_t at = uid_hash(uid, strlen(uid)) & table->mask;
    while (table->slots[at].uid && strcmp(table->slots[at].uid, uid) != 0)
        at = (at + 1) & table->mask;
    return &table->slots[at];
}

static bool is_on(const struct config *config, unsigned entry, const char *device)
{
    return !device || strcmp(config->experts[entry].device, device) == 0;
}

static int list_uids(struct config_diff *diff, const struct config *config, const char *device, uint64_t *total,
                     uint64_t *counts)
{
    for (unsigned i = 0; i < config->experts_count; i++) {
        char **uids = NULL;
        counts[i] = 0;
        const int result = is_on(config, i, device) ? config_expert_uids(&config->experts[i], &uids, &counts[i]) : 0;
        if (result < 0)
            return result;
        diff->lists[diff->lists_count++] = uids;
        *total += counts[i];
    }
    return 0;
}

struct work {
    const struct config *old, *new;
    struct texts *old_texts, *new_texts;
    uint64_t *old_counts, *new_counts;
    struct table table;
};

static enum config_difference compare(const struct work *work, unsigned old, unsigned new)
{
    const struct texts *was = &work->old_texts[old], *is = &work->new_texts[new];
    if (strcmp(was->all, is->all) == 0)
        return CONFIG_SAME;
    return strcmp(was->fixed, is->fixed) == 0 ? CONFIG_SET : CONFIG_REPLACED;
}

static void add_new(struct config_diff *diff, const struct work *work, const char *uid, unsigned entry)
{
    struct known *known = find(&work->table, uid);
    const struct config_expert *expert = &work->new->experts[entry];
    if (known->uid && strcmp(diff->items[known->item].old->device, expert->device) == 0) {
        diff->items[known->item].new = expert;
        diff->items[known->item].difference = compare(work, known->entry, entry);
        return;
    }
    diff->items[diff->count++] = (struct config_diff_item){.difference = CONFIG_ADDED, .uid = uid, .new = expert};
}

static int fill(struct config_diff *diff, struct work *work, const char *device)
{
    uint64_t olds = 0, news = 0;
    diff->lists = calloc((size_t)work->old->experts_count + work->new->experts_count + 1, sizeof *diff->lists);
    work->old_counts = calloc((size_t)work->old->experts_count + 1, sizeof *work->old_counts);
    work->new_counts = calloc((size_t)work->new->experts_count + 1, sizeof *work->new_counts);
    if (!diff->lists || !work->old_counts || !work->new_counts)
        return -ENOMEM;
    int result = list_uids(diff, work->old, device, &olds, work->old_counts);
    if (result == 0)
        result = list_uids(diff, work->new, device, &news, work->new_counts);
    work->table.mask = 1;
    while (work->table.mask < 2 * olds)
        work->table.mask = 2 * work->table.mask + 1;
    work->table.slots = calloc(work->table.mask + 1, sizeof *work->table.slots);
    diff->items = calloc(olds + news + 1, sizeof *diff->items);
    work->old_texts = texts_of(work->old);
    work->new_texts = texts_of(work->new);
    if (result < 0 || !work->table.slots || !diff->items || !work->old_texts || !work->new_texts)
        return result < 0 ? result : -ENOMEM;
    for (unsigned i = 0; i < work->old->experts_count; i++)
        for (uint64_t u = 0; u < work->old_counts[i]; u++) {
            const char *uid = diff->lists[i][u];
            *find(&work->table, uid) = (struct known){uid, i, diff->count};
            diff->items[diff->count++] =
                (struct config_diff_item){.difference = CONFIG_REMOVED, .uid = uid, .old = &work->old->experts[i]};
        }
    for (unsigned i = 0; i < work->new->experts_count; i++)
        for (uint64_t u = 0; u < work->new_counts[i]; u++)
            add_new(diff, work, diff->lists[work->old->experts_count + i][u], i);
    return 0;
}

int config_diff_make(struct config_diff *diff, const struct config *old, const struct config *new, const char *device)
{
    struct work work = {.old = old, .new = new};
    *diff = (struct config_diff){0};
    const int result = fill(diff, &work, device);
    free_texts(work.old_texts, old->experts_count);
    free_texts(work.new_texts, new->experts_count);
    free(work.old_counts);
    free(work.new_counts);
    free(work.table.slots);
    if (result < 0)
        config_diff_free(diff);
    return result;
}

void config_diff_free(struct config_diff *diff)
{
    for (size_t i = 0; i < diff->lists_count; i++)
        free(diff->lists[i]);
    free(diff->lists);
    free(diff->items);
    *diff = (struct config_diff){0};
}

/* --- the rest --------------------------------------------------------------------------------------------------------
 */

static char *section_text(const struct config *config, const struct config_section *section)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return NULL;
    config_print_section(out, config, section);
    return fclose(out) == 0 ? text : NULL;
}

static bool is_of_experts(const struct config_section *section)
{
    return strcmp(section->name, "experts") == 0 || strcmp(section->name, "blocks") == 0;
}

uint64_t config_diff_fingerprint(const struct config *config)
{
    uint64_t chain[2] = {0};
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++) {
        if (!is_of_experts(&config_sections[s]))
            continue;
        char *text = section_text(config, &config_sections[s]);
        chain[1] = text ? uid_hash(text, strlen(text)) : 0;
        chain[0] = uid_hash(chain, sizeof chain);
        free(text);
    }
    return chain[0];
}

const char *config_diff_elsewhere(const struct config *old, const struct config *new)
{
    const char *found = NULL;
    for (unsigned s = 0; s < CONFIG_SECTIONS && !found; s++) {
        if (is_of_experts(&config_sections[s]))
            continue;
        char *was = section_text(old, &config_sections[s]), *is = section_text(new, &config_sections[s]);
        if (was && is && strcmp(was, is) != 0)
            found = config_sections[s].name;
        free(was);
        free(is);
    }
    return found;
}
