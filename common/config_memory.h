/* What owns the strings and lists of a configuration: nothing is freed singly. Used by common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_MEMORY_H
#define EXPERTD_COMMON_CONFIG_MEMORY_H

#include <stddef.h>

struct config_memory;

void *config_memory_alloc(struct config_memory **memory, size_t size); /* zeroed; NULL when out of memory */
char *config_memory_copy(struct config_memory **memory, const char *text);
/* As snprintf; NULL when out of memory. */
char *config_memory_format(struct config_memory **memory, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void config_memory_destroy(struct config_memory **memory);

#endif
