#include "common/config_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/config_memory.h"
#include "common/log.h"

enum { DEPTH_MAX = 12 };

struct tree {
    yaml_document_t document;
    struct config_memory **memory;
    const struct config_source *source;
    bool *seen; /* nodes: one that is met again is an alias */
    size_t seen_count;
};

static int refuse(const struct tree *tree, const yaml_node_t *node, const char *what)
{
    return config_source_error_at(tree->source, (unsigned)node->start_mark.line + 1,
                                  (struct config_place){"", -1, NULL}, "%s", what);
}

static int fill(struct tree *tree, int id, unsigned depth, struct config_node *out);

static bool is_null(const yaml_node_t *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    if (node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp((const char *)node->data.scalar.value, words[i]) == 0)
            return true;
    }
    return false;
}

static int fill_list(struct tree *tree, const yaml_node_t *node, unsigned depth, struct config_node *out)
{
    const size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    struct config_node *children = config_memory_alloc(tree->memory, (count + 1) * sizeof *children);
    int rc = children ? 0 : -ENOMEM;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = fill(tree, node->data.sequence.items.start[i], depth + 1, &children[i]);
    out->children = children;
    out->count = (unsigned)count;
    return rc;
}

static int fill_map(struct tree *tree, const yaml_node_t *node, unsigned depth, struct config_node *out)
{
    const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
    const size_t count = (size_t)(node->data.mapping.pairs.top - pairs);
    struct config_node *children = config_memory_alloc(tree->memory, (count + 1) * sizeof *children);
    int rc = children ? 0 : -ENOMEM;
    for (size_t i = 0; i < count && rc == 0; i++) {
        struct config_node key = {0};
        const yaml_node_t *key_node = yaml_document_get_node(&tree->document, pairs[i].key);
        rc = fill(tree, pairs[i].key, depth + 1, &key);
        if (rc == 0 && key.kind != CONFIG_NODE_SCALAR)
            rc = refuse(tree, key_node, "a list or a mapping is no key");
        for (size_t j = 0; j < i && rc == 0 && depth > 0; j++) {
            if (strcmp(children[j].key, key.text) == 0)
                rc = config_source_error_at(tree->source, key.line, (struct config_place){"", -1, NULL},
                                            "%.100s stands twice; the first is in line %u", key.text, children[j].line);
        }
        if (rc == 0)
            rc = fill(tree, pairs[i].value, depth + 1, &children[i]);
        children[i].key = key.text;
        children[i].line = key.line;
    }
    out->children = children;
    out->count = (unsigned)count;
    return rc;
}

static int fill(struct tree *tree, int id, unsigned depth, struct config_node *out)
{
    const yaml_node_t *node = yaml_document_get_node(&tree->document, id);
    out->line = (unsigned)node->start_mark.line + 1;
    if (tree->seen[id])
        return refuse(tree, node, "an alias is taken here: write it out");
    tree->seen[id] = true;
    if (depth > DEPTH_MAX)
        return refuse(tree, node, "nothing here is nested so deep");
    if (node->type == YAML_SEQUENCE_NODE) {
        out->kind = CONFIG_NODE_LIST;
        return fill_list(tree, node, depth, out);
    }
    if (node->type == YAML_MAPPING_NODE) {
        out->kind = CONFIG_NODE_MAP;
        return fill_map(tree, node, depth, out);
    }
    out->kind = CONFIG_NODE_SCALAR;
    out->null = is_null(node);
    if (strlen((const char *)node->data.scalar.value) != node->data.scalar.length)
        return refuse(tree, node, "a text with a zero byte");
    out->text = config_memory_copy(tree->memory, (const char *)node->data.scalar.value);
    return out->text ? 0 : -ENOMEM;
}

static int read_document(struct tree *tree, struct config_node *root)
{
    tree->seen_count = (size_t)(tree->document.nodes.top - tree->document.nodes.start) + 1;
    tree->seen = calloc(tree->seen_count, sizeof *tree->seen);
    const int rc = tree->seen ? fill(tree, 1, 0, root) : -ENOMEM;
    free(tree->seen);
    return rc;
}

int config_tree_read(const struct config_node **root, struct config_memory **memory, const struct config_source *source)
{
    struct tree tree = {.memory = memory, .source = source};
    struct config_node *node = config_memory_alloc(memory, sizeof *node);
    yaml_parser_t parser;
    int rc = -ENOMEM;
    *root = node;
    if (!node || !yaml_parser_initialize(&parser))
        return -ENOMEM;
    yaml_parser_set_input_string(&parser, (const unsigned char *)source->text, source->length);
    if (yaml_parser_load(&parser, &tree.document)) {
        rc = yaml_document_get_root_node(&tree.document) ? read_document(&tree, node) : 0;
        yaml_document_delete(&tree.document);
    } else if (parser.error != YAML_MEMORY_ERROR) { /* an alias to nothing, say: only who composes a tree sees it */
        const yaml_mark_t mark = parser.problem ? parser.problem_mark : parser.mark;
        rc = config_source_error_at(source, (unsigned)mark.line + 1, (struct config_place){"", -1, NULL}, "%s",
                                    parser.problem ? parser.problem : "is no YAML");
    }
    yaml_parser_delete(&parser);
    return rc;
}

const struct config_node *config_tree_find(const struct config_node *map, const char *key)
{
    for (unsigned i = 0; map && map->kind == CONFIG_NODE_MAP && i < map->count; i++) {
        if (strcmp(map->children[i].key, key) == 0)
            return &map->children[i];
    }
    return NULL;
}
