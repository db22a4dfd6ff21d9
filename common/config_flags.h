/* The command line. Used by common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_FLAGS_H
#define EXPERTD_COMMON_CONFIG_FLAGS_H

#include "common/config_table.h"

/* Finds --config's FILE and does what --help, --version and --print-config ask (exit 0); sets the program's own flags.
 * 0, or -EINVAL after a message. *file is NULL if there is none. */
int config_flags_begin(const struct config_program *program, int argc, char **argv, const char **file);
/* The options' flags, over what the file said. */
int config_flags_apply(struct config *config, const struct config_program *program, int argc, char **argv);

#endif
