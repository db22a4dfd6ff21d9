/* Parts of what config_print prints. Used by common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_PRINT_H
#define EXPERTD_COMMON_CONFIG_PRINT_H

#include <stdbool.h>
#include <stdio.h>

#include "common/config_table.h"

/* True: the option of that name is left out. */
typedef bool config_print_filter(const char *option);

/* An entry of a list, without what is to be left out (NULL: nothing). */
void config_print_entry(FILE *out, const struct config *config, const char *section, unsigned index,
                        config_print_filter *leave_out);
void config_print_section(FILE *out, const struct config *config, const struct config_section *section);

#endif
