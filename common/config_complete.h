/* The defaults that hang on something else: run_dir, listen, advertise, devices, ... Used by common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_COMPLETE_H
#define EXPERTD_COMMON_CONFIG_COMPLETE_H

#include "common/config.h"

/* Where a frontend listens of which nothing is said: then this very text stands in the list. */
extern const char config_default_listen[];

/* Fills them in. 0 or -ENOMEM. */
int config_complete(struct config *config);

#endif
