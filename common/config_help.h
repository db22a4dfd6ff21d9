/* The help text. Used by common/config*.c only; config_print_sample() is in config.h. */
#ifndef EXPERTD_COMMON_CONFIG_HELP_H
#define EXPERTD_COMMON_CONFIG_HELP_H

#include <stdio.h>

#include "common/config_table.h"

/* The flag of an option, without the leading hyphens: "server-run-dir". */
void config_help_flag(const struct config_section *section, const struct config_option *option, char *flag,
                      size_t size);
void config_help_print(FILE *out, const struct config_program *program);

#endif
