/* A part of the configuration that no table of options describes: what stands below the options of kind TREE, with the
 * lines. Used by common/config*.c only. */
#ifndef EXPERTD_COMMON_CONFIG_TREE_H
#define EXPERTD_COMMON_CONFIG_TREE_H

#include "common/config_source.h"
#include "common/config_table.h"

enum config_node_kind { CONFIG_NODE_SCALAR, CONFIG_NODE_LIST, CONFIG_NODE_MAP };

struct config_node {
    enum config_node_kind kind;
    const char *key;  /* of an entry of a map; NULL */
    const char *text; /* of a scalar */
    bool null;        /* a scalar that is YAML's null */
    unsigned line;    /* of the key, or of what has none */
    const struct config_node *children;
    unsigned count;
};

/* Reads the text, which is known to be one YAML document. 0; -EINVAL after a message with the line: a key twice, an
 * alias, too deep; or -ENOMEM. */
int config_tree_read(const struct config_node **root, struct config_memory **memory,
                     const struct config_source *source);
/* The entry of a map, NULL if there is none or it is no map. */
const struct config_node *config_tree_find(const struct config_node *map, const char *key);

#endif
