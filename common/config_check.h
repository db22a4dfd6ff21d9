/* What a single value cannot show: names, references, and options that must fit each other. Used by common/config*.c
 * only. */
#ifndef EXPERTD_COMMON_CONFIG_CHECK_H
#define EXPERTD_COMMON_CONFIG_CHECK_H

#include "common/config_source.h"
#include "common/config_table.h"

/* 0, or -EINVAL after a message. */
int config_check(const struct config *config, const struct config_source *source);
/* What only some programs need, which need it whole (enum config_needs). */
int config_check_needs(const struct config *config, const struct config_source *source, unsigned needs);
/* CONFIG_HAS_FILES: that the files which it names can be read. Each that cannot is said. */
int config_files_check(const struct config *config, const struct config_source *source);
/* Options that would have no effect beside the others, and say something else than their default. */
int config_idle_check(const struct config *config, const struct config_source *source);
/* Of entry number `index` of the list of experts what it says of itself. */
int config_entry_check(const struct config *config, const struct config_source *source, int index);
/* The experts' part of it, of all of them: patterns, counts, and that no uid stands twice. */
int config_experts_check(const struct config *config, const struct config_source *source);

#endif
