/* Own blocks, the arguments of experts' blocks, and where their parameters are in a model, from the configuration's
 * text. Used by common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_BLOCKS_H
#define EXPERTD_COMMON_CONFIG_BLOCKS_H

#include "common/config_source.h"
#include "common/config_table.h"

/* Reads what stands under `blocks` and each expert's `arguments` and `tensors`. 0, -EINVAL after a message, or -ENOMEM.
 */
int config_blocks_read(struct config *config, const struct config_source *source);
/* The block of the configuration, or built in, of that name; NULL. */
const struct block *config_blocks_find(const struct config *config, const char *name);
/* Checks each declaration, with the arguments of the experts that have it. 0 or -EINVAL after a message. */
int config_blocks_check(const struct config *config, const struct config_source *source);

#endif
