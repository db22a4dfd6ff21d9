/* What differs between the experts of two configurations: what has to be done to a server that has the one, so that it
 * has the other. Pure. */
#ifndef EXPERTD_COMMON_CONFIG_DIFF_H
#define EXPERTD_COMMON_CONFIG_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"

enum config_difference {
    CONFIG_SAME,
    CONFIG_ADDED,
    CONFIG_REMOVED,
    CONFIG_SET,      /* only options that a living expert can take on */
    CONFIG_REPLACED, /* others: the expert ends, and another one begins in its place */
};

struct config_diff_item {
    enum config_difference difference;
    const char *uid;
    const struct config_expert *old, *new; /* NULL: it is not there. Of the two configurations. */
};

struct config_diff {
    struct config_diff_item *items; /* first the old one's experts in their order, then what is new */
    size_t count;
    char ***lists; /* whose strings the uids are */
    size_t lists_count;
};

/* The experts of the device, or of all (device NULL). One that goes from a device to another is removed from the one
 * and added to the other. 0 or -ENOMEM. */
int config_diff_make(struct config_diff *diff, const struct config *old, const struct config *new, const char *device);
void config_diff_free(struct config_diff *diff);

/* Whether a living expert can take another value of the option on. */
bool config_option_is_live(const char *name);
/* A number for the experts and blocks of a configuration; another configuration has another. */
uint64_t config_diff_fingerprint(const struct config *config);
/* The name of the first section beside experts and blocks in which the two differ; NULL: there is none. */
const char *config_diff_elsewhere(const struct config *old, const struct config *new);

#endif
