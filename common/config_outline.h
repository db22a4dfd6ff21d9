/* What libcyaml does not say well, or at all, is said before it reads: the text is YAML, one document, in which each
 * key is known and stands once; and which values are null. Used by common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_OUTLINE_H
#define EXPERTD_COMMON_CONFIG_OUTLINE_H

#include "common/config_source.h"

/* An option whose value is null: the number of its section, the entry's in a list (else 0), its own. */
struct config_null {
    unsigned section, index, option;
};

struct config_outline {
    struct config_null *nulls;
    size_t nulls_count;
    bool has_trees; /* there are options of kind TREE */
};

/* 0; or -EINVAL (-ENOMEM) after a message with the line. Free with config_outline_destroy in any case. */
int config_outline_read(struct config_outline *outline, const struct config_source *source);
void config_outline_destroy(struct config_outline *outline);

#endif
