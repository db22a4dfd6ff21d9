/* The reference of the configuration, in Markdown: every option with what may stand there, its default and its flag,
 * from the tables of config_options.h, as the help texts and the sample are. */
#ifndef EXPERTD_COMMON_CONFIG_REFERENCE_H
#define EXPERTD_COMMON_CONFIG_REFERENCE_H

#include <stdio.h>

void config_reference_print(FILE *out);

#endif
