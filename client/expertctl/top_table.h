/* The experts of `top`: what each did between two looks, in the order of a column. */
#ifndef EXPERTD_CLIENT_TOP_TABLE_H
#define EXPERTD_CLIENT_TOP_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "client/expertd.h"

enum top_column {
    TOP_UID,
    TOP_DEVICE,
    TOP_FORWARD_CALLS, /* a second, as all that follow up to TOP_PENDING */
    TOP_FORWARD_ROWS,
    TOP_BACKWARD_CALLS,
    TOP_BACKWARD_ROWS,
    TOP_PENDING, /* requests, queued or running */
    TOP_OLDEST,  /* s, how long the first of them has waited */
    TOP_STEPS,   /* of the optimizer, in the expert's life */
    TOP_SKIPPED,
    TOP_COLUMNS,
};
const char *top_column_title(enum top_column column);

struct top_expert {
    const char *uid, *device;   /* in `now`'s statistics */
    double values[TOP_COLUMNS]; /* from TOP_FORWARD_CALLS on */
};
struct top_table {
    struct top_expert *experts;
    size_t count;
};

/* Of what is in `now`; before may be NULL: then all rates are 0. 0 or -ENOMEM. */
int top_table_make(struct top_table *table, const struct expertd_stats *before, const struct expertd_stats *now,
                   double seconds);
/* Numbers from the largest on, names from the first on; `reversed`: the other way. Equal ones by uid. */
void top_table_sort(struct top_table *table, enum top_column column, bool reversed);
void top_table_clear(struct top_table *table);

#endif
