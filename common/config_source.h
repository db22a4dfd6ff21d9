/* The text of a configuration, and where in it a key stands: for messages. Used by common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_SOURCE_H
#define EXPERTD_COMMON_CONFIG_SOURCE_H

#include <stdbool.h>
#include <stddef.h>

struct config_source {
    const char *origin; /* the file's name */
    const char *text;   /* NULL: there is no file, only flags */
    size_t length;
    const char *folder; /* what relative paths in it are relative to; NULL: to where the process stands */
};

/* A place in the text: an option (`index` counts the entries of a list, -1 where there is none), or with option NULL
 * its whole section or entry. */
struct config_place {
    const char *section;
    int index;
    const char *option;
};

/* Logs "origin:line: section[index].option: ...". The line is left out when the place is not in the text. Returns
 * -EINVAL. */
int config_source_error(const struct config_source *source, struct config_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same of a line that is known. */
int config_source_error_at(const struct config_source *source, unsigned line, struct config_place place,
                           const char *format, ...) __attribute__((format(printf, 4, 5)));
/* The line of a place, from 1; 0 if it is not in the text. */
unsigned config_source_line(const struct config_source *source, struct config_place place);

#endif
