/* The YAML file into a configuration that holds the defaults. Used by common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_YAML_H
#define EXPERTD_COMMON_CONFIG_YAML_H

#include "common/config_source.h"
#include "common/config_table.h"

/* What stands in the text is set, the rest left. 0; or -EINVAL (-ENOMEM) after a message. */
int config_yaml_read(struct config *config, const struct config_source *source);

#endif
