#include "client/expertctl/top_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *top_column_title(enum top_column column)
{
    static const char *const titles[TOP_COLUMNS] = {"UID",    "DEVICE",  "FWD/s",  "ROWS/s", "BWD/s",
                                                    "ROWS/s", "PENDING", "OLDEST", "STEPS",  "SKIPPED"};
    return titles[column];
}

static int by_uid(const void *a, const void *b)
{
    const struct expertd_expert_stats *const *left = a, *const *right = b;
    return strcmp((*left)->uid, (*right)->uid);
}

static double rate(uint64_t before, uint64_t now, double seconds)
{
    return now > before && seconds > 0 ? (double)(now - before) / seconds : 0;
}

static void fill(struct top_expert *expert, const struct expertd_expert_stats *before,
                 const struct expertd_expert_stats *now, double seconds)
{
    expert->uid = now->uid;
    expert->device = now->device;
    expert->values[TOP_FORWARD_CALLS] = rate(before->forward_tasks, now->forward_tasks, seconds);
    expert->values[TOP_FORWARD_ROWS] = rate(before->forward_rows, now->forward_rows, seconds);
    expert->values[TOP_BACKWARD_CALLS] = rate(before->backward_tasks, now->backward_tasks, seconds);
    expert->values[TOP_BACKWARD_ROWS] = rate(before->backward_rows, now->backward_rows, seconds);
    expert->values[TOP_PENDING] = now->pending;
    expert->values[TOP_OLDEST] = now->oldest_seconds;
    expert->values[TOP_STEPS] = (double)now->update_count;
    expert->values[TOP_SKIPPED] = (double)now->skipped_steps;
}

int top_table_make(struct top_table *table, const struct expertd_stats *before, const struct expertd_stats *now,
                   double seconds)
{
    const size_t before_count = before ? before->experts_count : 0;
    const struct expertd_expert_stats **known = calloc(before_count + 1, sizeof(struct expertd_expert_stats *));
    table->count = 0;
    table->experts = calloc(now->experts_count + 1, sizeof *table->experts);
    if (!known || !table->experts) {
        free(known);
        top_table_clear(table);
        return -ENOMEM;
    }
    for (size_t i = 0; i < before_count; i++)
        known[i] = &before->experts[i];
    qsort(known, before_count, sizeof known[0], by_uid);
    for (size_t i = 0; i < now->experts_count; i++) {
        const struct expertd_expert_stats *expert = &now->experts[i];
        const struct expertd_expert_stats *const *old = bsearch(&expert, known, before_count, sizeof known[0], by_uid);
        fill(&table->experts[table->count++], old ? *old : expert, expert, seconds);
    }
    free(known);
    return 0;
}

struct order {
    enum top_column column;
    int sign;
};

static int compare(const void *a, const void *b, void *context)
{
    const struct top_expert *left = a, *right = b;
    const struct order *order = context;
    int result = 0;
    if (order->column == TOP_DEVICE)
        result = strcmp(left->device, right->device);
    else if (order->column != TOP_UID)
        result = (left->values[order->column] < right->values[order->column]) -
                 (left->values[order->column] > right->values[order->column]);
    else
        result = strcmp(left->uid, right->uid);
    return result ? result * order->sign : strcmp(left->uid, right->uid);
}

void top_table_sort(struct top_table *table, enum top_column column, bool reversed)
{
    struct order order = {column, reversed ? -1 : 1};
    qsort_r(table->experts, table->count, sizeof *table->experts, compare, &order);
}

void top_table_clear(struct top_table *table)
{
    free(table->experts);
    *table = (struct top_table){0};
}
