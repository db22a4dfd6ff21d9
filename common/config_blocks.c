#include "common/config_blocks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_memory.h"
#include "common/config_tree.h"
#include "common/numeral.h"
#include "common/suggest.h"

struct reading {
    struct config *config;
    const struct config_source *source;
    int index; /* of the block */
};

#define REFUSE(reading, line, ...)                                                                                     \
    config_source_error_at((reading)->source, line, (struct config_place){"blocks", (reading)->index, NULL},           \
                           __VA_ARGS__)

static void *allocate(struct reading *reading, size_t count, size_t size)
{
    return config_memory_alloc(&reading->config->memory, (count + 1) * size);
}

static const char *kind_name(const struct config_node *node)
{
    return node->kind == CONFIG_NODE_LIST ? "a list" : node->kind == CONFIG_NODE_MAP ? "a mapping" : "one value";
}

/* Null is as if the entry were left out, except that its name must be one that can be there. */
static const char *text_of(const struct config_node *node)
{
    return node->null ? NULL : node->text;
}

/* The entry of a map that is there and not null, which is as if it were left out. */
static const struct config_node *find(const struct config_node *map, const char *key)
{
    const struct config_node *node = config_tree_find(map, key);
    return node && !node->null ? node : NULL;
}

static int need_kind(struct reading *reading, const struct config_node *node, const char *what,
                     enum config_node_kind kind)
{
    const struct config_node wanted = {.kind = kind};
    if (node->kind == kind && !node->null)
        return 0;
    return REFUSE(reading, node->line, "%s: is %s, and must be %s", what, node->null ? "null" : kind_name(node),
                  kind_name(&wanted));
}

/* The text of an entry that must be there, in *text. */
static int need_text(struct reading *reading, const struct config_node *map, const char *what, const char *key,
                     const char **text)
{
    const struct config_node *node = find(map, key);
    if (!node)
        return REFUSE(reading, map->line, "%s needs %s", what, key);
    *text = node->text;
    return need_kind(reading, node, key, CONFIG_NODE_SCALAR);
}

static int only_keys(struct reading *reading, const struct config_node *map, const char *what, const char *const *keys)
{
    for (unsigned i = 0; i < map->count; i++) {
        struct suggest suggest;
        bool known = false;
        suggest_begin(&suggest, map->children[i].key);
        for (unsigned k = 0; keys[k]; k++) {
            known = known || strcmp(keys[k], map->children[i].key) == 0;
            suggest_offer(&suggest, keys[k]);
        }
        if (!known)
            return REFUSE(reading, map->children[i].line, "%s has no '%.100s'%s%s%s", what, map->children[i].key,
                          suggest.nearest ? ": is '" : "", suggest.nearest ? suggest.nearest : "",
                          suggest.nearest ? "' meant?" : "");
    }
    return 0;
}

/* --- arguments ---------------------------------------------------------------------------------------------------- */

static int read_arguments(struct reading *reading, const struct config_node *node, struct block *block)
{
    static const double most = 1e12;
    int rc = node->null ? 0 : need_kind(reading, node, "arguments", CONFIG_NODE_MAP);
    if (rc < 0 || node->null)
        return rc;
    struct block_argument *arguments = allocate(reading, node->count, sizeof *arguments);
    if (!arguments)
        return -ENOMEM;
    for (unsigned i = 0; i < node->count && rc == 0; i++) {
        const struct config_node *item = &node->children[i];
        rc = need_kind(reading, item, item->key, CONFIG_NODE_SCALAR);
        if (rc < 0)
            break;
        arguments[i] = (struct block_argument){.name = item->key, .max = most, .line = item->line};
        if (numeral_read_real(item->text, &arguments[i].value) < 0 ||
            !(arguments[i].value >= 0 && arguments[i].value <= most))
            rc = REFUSE(reading, item->line, "argument %s: '%.60s' is no number from 0 to 1e12%s", item->key,
                        item->text, numeral_hint(item->text));
    }
    block->arguments = arguments;
    block->arguments_count = node->count;
    return rc;
}

/* --- inputs and outputs ------------------------------------------------------------------------------------------- */

static int read_shape(struct reading *reading, const struct config_node *node, struct block_input *input)
{
    int rc = need_kind(reading, node, "shape", CONFIG_NODE_LIST);
    if (rc == 0 && node->count > TENSOR_MAX_DIMS)
        rc = REFUSE(reading, node->line, "input %s has more than %d dimensions", input->name, TENSOR_MAX_DIMS);
    for (unsigned d = 0; rc == 0 && d < node->count; d++) {
        rc = need_kind(reading, &node->children[d], "shape", CONFIG_NODE_SCALAR);
        input->shape[d] = node->children[d].text;
    }
    input->ndim = node->count;
    return rc;
}

static int read_input(struct reading *reading, const struct config_node *node, struct block_input *input)
{
    static const char *const keys[] = {"name", "shape", "dtype", NULL};
    const char *dtype = "float32";
    int rc = need_kind(reading, node, "inputs", CONFIG_NODE_MAP);
    input->line = node->line;
    if (rc == 0)
        rc = only_keys(reading, node, "an input", keys);
    if (rc == 0)
        rc = need_text(reading, node, "an input", "name", &input->name);
    if (rc == 0 && find(node, "dtype"))
        rc = need_text(reading, node, "an input", "dtype", &dtype);
    if (rc < 0)
        return rc;
    input->dtype = dtype_of_name(dtype);
    const struct config_node *shape = find(node, "shape");
    return shape ? read_shape(reading, shape, input)
                 : REFUSE(reading, node->line, "input %s needs shape: [hidden_dim], say", input->name);
}

static int read_output(struct reading *reading, const struct config_node *node, struct block_output *output)
{
    static const char *const keys[] = {"name", "value", "dtype", NULL};
    const char *dtype = "float32";
    int rc = need_kind(reading, node, "outputs", CONFIG_NODE_MAP);
    output->line = node->line;
    if (rc == 0)
        rc = only_keys(reading, node, "an output", keys);
    if (rc == 0)
        rc = need_text(reading, node, "an output", "name", &output->name);
    if (rc == 0)
        rc = need_text(reading, node, "an output", "value", &output->value);
    if (rc == 0 && find(node, "dtype"))
        rc = need_text(reading, node, "an output", "dtype", &dtype);
    output->dtype = dtype_of_name(dtype);
    if (rc == 0 && output->dtype == DTYPE_NONE)
        rc = REFUSE(reading, node->line, "output %s: there is no dtype '%.60s'", output->name, dtype);
    return rc;
}

/* --- layers ------------------------------------------------------------------------------------------------------- */

static int read_operands(struct reading *reading, const struct config_node *node, struct block_layer *layer)
{
    int rc = need_kind(reading, node, "inputs", CONFIG_NODE_LIST);
    if (rc == 0 && node->count > BLOCK_OPERANDS_MAX)
        rc = REFUSE(reading, node->line, "layer %s reads more than %d values", layer->name, BLOCK_OPERANDS_MAX);
    for (unsigned i = 0; rc == 0 && i < node->count; i++) {
        rc = need_kind(reading, &node->children[i], "inputs", CONFIG_NODE_SCALAR);
        layer->operands[layer->operands_count++] = node->children[i].text;
    }
    return rc;
}

static int read_layer_entry(struct reading *reading, const struct config_node *item, struct block_layer *layer)
{
    int rc;
    const bool is_option =
        strcmp(item->key, "input") != 0 && strcmp(item->key, "inputs") != 0 && strcmp(item->key, "mask") != 0;
    if (strcmp(item->key, "name") == 0 || strcmp(item->key, "layer") == 0 || (item->null && !is_option))
        return 0;
    if (strcmp(item->key, "inputs") == 0)
        return layer->operands_count == 0 ? read_operands(reading, item, layer)
                                          : REFUSE(reading, item->line, "layer %s: input or inputs", layer->name);
    rc = item->null ? 0 : need_kind(reading, item, item->key, CONFIG_NODE_SCALAR);
    if (rc < 0)
        return rc;
    if (strcmp(item->key, "input") == 0) {
        if (layer->operands_count > 0)
            return REFUSE(reading, item->line, "layer %s: input or inputs", layer->name);
        layer->operands[layer->operands_count++] = item->text;
    } else if (strcmp(item->key, "mask") == 0) {
        layer->mask = item->text;
    } else if (layer->options_count == BLOCK_OPTIONS_MAX) {
        return REFUSE(reading, item->line, "layer %s has more than %d options", layer->name, BLOCK_OPTIONS_MAX);
    } else {
        layer->options[layer->options_count++] = (struct block_option){item->key, text_of(item), item->line};
    }
    return 0;
}

static int read_layer(struct reading *reading, const struct config_node *node, struct block_layer *layer)
{
    int rc = need_kind(reading, node, "layers", CONFIG_NODE_MAP);
    layer->line = node->line;
    if (rc == 0)
        rc = need_text(reading, node, "a layer", "name", &layer->name);
    if (rc == 0)
        rc = need_text(reading, node, "a layer", "layer", &layer->kind);
    for (unsigned i = 0; rc == 0 && i < node->count; i++)
        rc = read_layer_entry(reading, &node->children[i], layer);
    return rc;
}

/* --- blocks ------------------------------------------------------------------------------------------------------- */

/* Each entry of a list to an element of an array: *items, *count. */
#define READ_LIST(reading, map, key, items, items_count, element, read)                                                \
    do {                                                                                                               \
        const struct config_node *list = find(map, key);                                                               \
        if (rc < 0 || !list)                                                                                           \
            break;                                                                                                     \
        rc = need_kind(reading, list, key, CONFIG_NODE_LIST);                                                          \
        element *array = rc == 0 ? allocate(reading, list->count, sizeof *array) : NULL;                               \
        if (rc == 0 && !array)                                                                                         \
            rc = -ENOMEM;                                                                                              \
        for (unsigned i = 0; rc == 0 && i < list->count; i++)                                                          \
            rc = read(reading, &list->children[i], &array[i]);                                                         \
        (items) = array;                                                                                               \
        (items_count) = rc == 0 ? list->count : 0;                                                                     \
    } while (0)

static int read_block(struct reading *reading, const struct config_node *node, struct block *block)
{
    int rc = need_kind(reading, node, "blocks", CONFIG_NODE_MAP);
    if (rc == 0)
        rc = need_text(reading, node, "a block", "name", &block->name);
    if (rc < 0)
        return rc;
    block->line = node->line;
    block->description = "";
    for (int i = 0; i < reading->index; i++) {
        if (strcmp(reading->config->declared[i].name, block->name) == 0)
            return REFUSE(reading, node->line, "there are two blocks called '%.60s'", block->name);
    }
    if (!block->name[0] || strpbrk(block->name, "/ ") || strlen(block->name) >= BLOCK_OWN_NAME_SIZE)
        return REFUSE(reading, node->line, "'%.60s': the name of a block has 1 to %d characters, no / and no blank",
                      block->name, BLOCK_OWN_NAME_SIZE - 1);
    if (block_builtin(block->name))
        return REFUSE(reading, node->line, "'%s' is the name of a built-in block", block->name);
    const struct config_node *arguments = find(node, "arguments");
    if (arguments)
        rc = read_arguments(reading, arguments, block);
    READ_LIST(reading, node, "inputs", block->inputs, block->inputs_count, struct block_input, read_input);
    READ_LIST(reading, node, "layers", block->layers, block->layers_count, struct block_layer, read_layer);
    READ_LIST(reading, node, "outputs", block->outputs, block->outputs_count, struct block_output, read_output);
    if (rc == 0 && block->layers_count == 0)
        rc = REFUSE(reading, node->line, "block %s has no layers", block->name);
    return rc;
}

static int read_blocks(struct reading *reading, const struct config_node *list)
{
    struct config *config = reading->config;
    struct block *blocks = allocate(reading, list->count, sizeof *blocks);
    if (!blocks)
        return -ENOMEM;
    config->declared = blocks;
    for (unsigned i = 0; i < list->count; i++) {
        reading->index = (int)i;
        const int rc = read_block(reading, &list->children[i], &blocks[i]);
        if (rc < 0)
            return rc;
        config->declared_count = i + 1;
    }
    return 0;
}

/* --- experts ------------------------------------------------------------------------------------------------------ */

static int read_values(struct reading *reading, const struct config_node *node, int index, struct config_expert *expert)
{
    const struct config_place place = {"experts", index, "arguments"};
    if (node->null)
        return 0;
    if (node->kind != CONFIG_NODE_MAP)
        return config_source_error_at(reading->source, node->line, place, "is %s, and must be a mapping",
                                      kind_name(node));
    struct block_option *items = allocate(reading, node->count, sizeof *items);
    if (!items)
        return -ENOMEM;
    expert->values.items = items;
    for (unsigned i = 0; i < node->count; i++) {
        const struct config_node *item = &node->children[i];
        if (item->kind != CONFIG_NODE_SCALAR)
            return config_source_error_at(reading->source, item->line, place, "%.60s must be a number", item->key);
        items[expert->values.count++] = (struct block_option){item->key, text_of(item), item->line};
    }
    return 0;
}

static int read_templates(struct reading *reading, const struct config_node *node, int index,
                          struct config_expert *expert)
{
    const struct config_place place = {"experts", index, "tensors"};
    if (node->null)
        return 0;
    if (node->kind != CONFIG_NODE_MAP)
        return config_source_error_at(reading->source, node->line, place, "is %s, and must be a mapping",
                                      kind_name(node));
    struct config_template *items = allocate(reading, node->count, sizeof *items);
    if (!items)
        return -ENOMEM;
    expert->templates.items = items;
    for (unsigned i = 0; i < node->count; i++) {
        const struct config_node *item = &node->children[i];
        if (item->kind != CONFIG_NODE_SCALAR)
            return config_source_error_at(reading->source, item->line, place, "%.60s must be a template", item->key);
        items[expert->templates.count++] = (struct config_template){item->key, text_of(item), item->line};
    }
    return 0;
}

int config_blocks_read(struct config *config, const struct config_source *source)
{
    struct reading reading = {.config = config, .source = source};
    const struct config_node *root;
    int rc = config_tree_read(&root, &config->memory, source);
    if (rc < 0)
        return rc;
    config->tree = root;
    const struct config_node *blocks = config_tree_find(root, "blocks");
    const struct config_node *experts = config_tree_find(root, "experts");
    if (rc == 0 && blocks && blocks->kind == CONFIG_NODE_LIST)
        rc = read_blocks(&reading, blocks);
    for (unsigned i = 0; rc == 0 && i < config->experts_count && experts && i < experts->count; i++) {
        const struct config_node *arguments = config_tree_find(&experts->children[i], "arguments");
        const struct config_node *tensors = config_tree_find(&experts->children[i], "tensors");
        if (arguments)
            rc = read_values(&reading, arguments, (int)i, &config->experts[i]);
        if (rc == 0 && tensors)
            rc = read_templates(&reading, tensors, (int)i, &config->experts[i]);
    }
    return rc;
}

const struct block *config_blocks_find(const struct config *config, const char *name)
{
    for (unsigned i = 0; i < config->declared_count; i++) {
        if (strcmp(config->declared[i].name, name) == 0)
            return &config->declared[i];
    }
    return block_builtin(name);
}

/* --- the check ---------------------------------------------------------------------------------------------------- */

static int resolve(const struct block *block, const struct block_values *values, struct block_problem *problem)
{
    struct block_graph *graph = NULL;
    const int rc = block_resolve(block, values, &graph, problem);
    free(graph);
    return rc;
}

static int check_expert(const struct config *config, const struct config_source *source, int index)
{
    const struct config_expert *expert = &config->experts[index];
    const struct block_values values = {expert->hidden_dim, expert->values.items, expert->values.count,
                                        dtype_of_name(expert->dtype)};
    struct block_problem problem;
    if (!expert->declared)
        return expert->values.count == 0 ? 0
                                         : config_source_error_at(source, expert->values.items[0].line,
                                                                  (struct config_place){"experts", index, "arguments"},
                                                                  "a block of a shared object takes none");
    const int rc = resolve(expert->declared, &values, &problem);
    if (rc != -EINVAL)
        return rc;
    if (problem.of_arguments)
        return config_source_error_at(source, problem.line, (struct config_place){"experts", index, "arguments"}, "%s",
                                      problem.text);
    if (problem.line == 0)
        return config_source_error(source, (struct config_place){"experts", index, "block"}, "%s: %s",
                                   expert->declared->name, problem.text);
    return config_source_error_at(source, problem.line, (struct config_place){"", -1, NULL},
                                  "block %s (as of experts[%d]): %s", expert->declared->name, index, problem.text);
}

int config_blocks_check(const struct config *config, const struct config_source *source)
{
    for (unsigned i = 0; i < config->declared_count; i++) {
        const struct block *block = &config->declared[i];
        const struct block_values standard = {.hidden_dim = 1024};
        struct block_problem problem;
        bool used = false;
        for (unsigned e = 0; e < config->experts_count; e++)
            used = used || config->experts[e].declared == block;
        const int rc = used ? 0 : resolve(block, &standard, &problem);
        if (rc == -EINVAL)
            return config_source_error_at(source, problem.line, (struct config_place){"", -1, NULL}, "block %s: %s",
                                          block->name, problem.text);
        if (rc < 0)
            return rc;
    }
    for (unsigned i = 0; i < config->experts_count; i++) {
        const int rc = check_expert(config, source, (int)i);
        if (rc < 0)
            return rc;
    }
    return 0;
}
