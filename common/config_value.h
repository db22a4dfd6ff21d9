/* Values of options: from a text, by default, and as text. Used by common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_VALUE_H
#define EXPERTD_COMMON_CONFIG_VALUE_H

#include <stdio.h>

#include "common/config_table.h"

enum { CONFIG_PROBLEM_SIZE = 320 };

/* Sets the option of `record` (a section's struct) from what stands in the YAML file or after the flag. For STRINGS,
 * one item is appended. 0; or -EINVAL and a sentence in `problem`. */
int config_value_set(const struct config_option *option, void *record, struct config_memory **memory, const char *text,
                     char problem[CONFIG_PROBLEM_SIZE]);
/* A list option loses its items. */
void config_value_clear(const struct config_option *option, void *record);
/* Sets every option of a record to its default. */
void config_value_defaults(const struct config_section *section, void *record);

/* A value as it is meant: a relative path, of an option that is one, is in `folder` (NULL: unchanged). NULL and a
 * sentence in `problem` if it cannot be. */
const char *config_value_resolve(const struct config_option *option, struct config_memory **memory, const char *text,
                                 const char *folder, char problem[CONFIG_PROBLEM_SIZE]);
/* Whether a block's name is the path of a shared object. */
bool config_value_is_path(const char *block);
/* Whether the word is one of "this|that|other". */
bool config_value_is_choice(const char *choices, const char *word);
/* Whether the option is one text. */
bool config_value_is_text(const struct config_option *option);

/* "4 to 64 threads", "true or false", "auto|cpu|gpu"; empty where anything goes. */
void config_value_print_range(FILE *out, const struct config_option *option);
/* Of a record, the section's struct. */
bool config_value_is_default(const struct config_option *option, const void *record);
/* False where only the description can tell the default: lists, and strings that are empty by default. */
bool config_value_has_default(const struct config_option *option);
/* The default as it would stand in the file. */
void config_value_print_default(FILE *out, const struct config_option *option);

#endif
