/* The tables of config_options.h as data, for the code that treats all options alike. Used by common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_TABLE_H
#define EXPERTD_COMMON_CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"

enum config_kind {
    CONFIG_STRING,
    CONFIG_PATH,
    CONFIG_BLOCK,
    CONFIG_ENDPOINT,
    CONFIG_CHOICE,
    CONFIG_UINT,
    CONFIG_FLOAT,
    CONFIG_BOOL,
    CONFIG_STRINGS,
    CONFIG_TREE,
};

struct config_option {
    const char *name;
    enum config_kind kind;
    size_t offset; /* of the value in its section's struct */
    const char *unit;
    const char *description;
    const char *string; /* defaults and bounds, by kind */
    uint64_t uint, uint_min, uint_max;
    double number, number_min, number_max;
    bool boolean;
};

struct config_section {
    const char *name;
    const char *description;
    const struct config_option *options; /* `count` of them */
    unsigned count;
    size_t record_size;  /* of the section's struct */
    bool list;           /* devices, experts: any number of records */
    size_t offset;       /* in struct config: of the struct, or of the pointer to the records */
    size_t count_offset; /* list: in struct config, of the number of records */
};

enum {
    CONFIG_SECTIONS = 10,
    CONFIG_SECTION_OPTIONS_MAX = 40, /* pinned by an assertion in config_table.c */
};
extern const struct config_section config_sections[CONFIG_SECTIONS];
/* NULL if there is none of that name. */
const struct config_section *config_section_find(const char *name);

#endif
