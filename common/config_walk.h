/* A configuration's text, key by key, as libyaml (which libcyaml stands on) reads it: for what libcyaml does not tell,
 * which is where something stands, twice or again in a second document, and whether a word was quoted. Used by
 * common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_WALK_H
#define EXPERTD_COMMON_CONFIG_WALK_H

#include "common/config_source.h"

struct config_visitor {
    void *context;
    /* Each key that the schema could know: a section, or an option of one; and with option NULL each entry of a list.
     * True: found, go no further. */
    bool (*key)(void *context, struct config_place place, unsigned line);
    /* NULL, or: an option's value, or (of_list) one of those of its list, is YAML's null. True: go no further. */
    bool (*null)(void *context, struct config_place place, bool of_list, unsigned line);
};

/* How the walk ended: with problem_line 0 well, or where the visitor stopped it. */
struct config_walk_end {
    unsigned problem_line; /* where the text is no YAML, or where a second document begins */
    char problem[256];
};

void config_walk(const struct config_source *source, const struct config_visitor *visitor, struct config_walk_end *end);

#endif
