#include "common/block.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/expression.h"

static const uint64_t row_elements_max = 1 << 28; /* of one row of a value: what a kernel counts in 31 bits */

struct resolver {
    const struct block *block;
    struct block_graph *graph;
    struct block_problem *problem;
    enum dtype dtype;              /* in float32's place */
    int numbers[BLOCK_LAYERS_MAX]; /* of the layers' nodes; -1: not placed yet */
};

__attribute__((format(printf, 3, 4))) static int refuse(const struct resolver *resolver, unsigned line,
                                                        const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(resolver->problem->text, sizeof resolver->problem->text, format, arguments);
    va_end(arguments);
    resolver->problem->line = line;
    return -EINVAL;
}

/* Something that a person may call so, and that a state dict may: letters, digits, '_', and inside '.' and '-'. */
static bool is_name(const char *name, size_t size)
{
    const size_t length = strlen(name);
    for (size_t i = 0; i < length; i++) {
        const bool inside = i > 0 && i + 1 < length;
        if (!isascii(name[i]) ||
            !(isalnum((unsigned char)name[i]) || name[i] == '_' || (inside && (name[i] == '.' || name[i] == '-'))))
            return false;
    }
    return length > 0 && length < size;
}

static int check_name(const struct resolver *resolver, const char *what, const char *name, size_t size, unsigned line)
{
    return is_name(name, size)
               ? 0
               : refuse(resolver, line, "%s '%.60s': a name is 1 to %zu letters, digits and _, and inside . and -",
                        what, name, size - 1);
}

/* --- arguments ---------------------------------------------------------------------------------------------------- */

static bool lookup(const void *context, const char *name, size_t length, double *value)
{
    const struct block_graph *graph = context;
    const struct block *block = graph->block;
    if (length == strlen("hidden_dim") && memcmp(name, "hidden_dim", length) == 0) {
        *value = graph->hidden_dim;
        return true;
    }
    for (unsigned i = 0; i < block->arguments_count; i++) {
        if (strlen(block->arguments[i].name) == length && memcmp(block->arguments[i].name, name, length) == 0) {
            *value = graph->arguments[i];
            return true;
        }
    }
    return false;
}

/* The number of a word in "one|two|...", or -1. */
static int choice_number(const char *choices, const char *value)
{
    const size_t length = strlen(value);
    int number = 0;
    for (const char *at = choices; *at != '\0'; number++) {
        const size_t word = strcspn(at, "|");
        if (word == length && memcmp(at, value, length) == 0)
            return number;
        at += word + (at[word] == '|');
    }
    return -1;
}

void block_argument_word(const struct block_argument *argument, double value, char text[BLOCK_WORD_SIZE])
{
    const char *word = argument->choices != NULL ? argument->choices : "";
    for (unsigned number = (unsigned)value; number > 0; number--)
        word += strcspn(word, "|") + (strchr(word, '|') != NULL);
    snprintf(text, BLOCK_WORD_SIZE, "%.*s", (int)strcspn(word, "|"), word);
}

/* What an option is that names an argument which is one of some words: the number of that word among the option's. */
static int argument_choice(const struct block_graph *graph, const char *name, const char *choices)
{
    for (unsigned i = 0; i < graph->block->arguments_count; i++) {
        const struct block_argument *argument = &graph->block->arguments[i];
        char word[BLOCK_WORD_SIZE];
        if (argument->choices == NULL || strcmp(argument->name, name) != 0)
            continue;
        block_argument_word(argument, graph->arguments[i], word);
        return choice_number(choices, word);
    }
    return -1;
}

static bool no_names(const void *context, const char *name, size_t length, double *value)
{
    (void)context, (void)name, (void)length, (void)value;
    return false;
}

static int set_argument(struct resolver *resolver, const struct block_option *item)
{
    const struct block *block = resolver->block;
    char problem[EXPRESSION_PROBLEM_SIZE];
    double value;
    for (unsigned i = 0; i < block->arguments_count; i++) {
        const struct block_argument *argument = &block->arguments[i];
        if (strcmp(argument->name, item->name) != 0)
            continue;
        if (item->value == NULL)
            return 0;
        if (argument->choices != NULL) {
            const int number = choice_number(argument->choices, item->value);
            resolver->graph->arguments[i] = number;
            return number >= 0 ? 0
                               : refuse(resolver, item->line, "argument %s: '%.60s' is none of %s", item->name,
                                        item->value, argument->choices);
        }
        if (expression_number(item->value, no_names, NULL, &value, problem) != 0)
            return refuse(resolver, item->line, "argument %s: %s", item->name, problem);
        if (value < argument->min || value > argument->max)
            return argument->min == argument->max ? refuse(resolver, item->line, "argument %s: %g; it must be %g",
                                                           item->name, value, argument->max)
                                                  : refuse(resolver, item->line, "argument %s: %g is not from %g to %g",
                                                           item->name, value, argument->min, argument->max);
        resolver->graph->arguments[i] = value;
        return 0;
    }
    return refuse(resolver, item->line, "block %s has no argument '%.60s'", block->name, item->name);
}

static int set_arguments(struct resolver *resolver, const struct block_values *values)
{
    const struct block *block = resolver->block;
    char problem[EXPRESSION_PROBLEM_SIZE];
    resolver->graph->hidden_dim = (double)values->hidden_dim;
    if (block->arguments_count > BLOCK_ARGUMENTS_MAX)
        return refuse(resolver, block->line, "more than %d arguments", BLOCK_ARGUMENTS_MAX);
    for (unsigned i = 0; i < block->arguments_count; i++) {
        const struct block_argument *argument = &block->arguments[i];
        int result = check_name(resolver, "argument", argument->name, BLOCK_NAME_SIZE, argument->line);
        for (unsigned j = 0; j < i && result == 0; j++) {
            if (strcmp(block->arguments[j].name, argument->name) == 0)
                result = refuse(resolver, argument->line, "argument %s stands there twice", argument->name);
        }
        if (result == 0 && (strcmp(argument->name, "hidden_dim") == 0 || strpbrk(argument->name, ".-") != NULL))
            result = refuse(resolver, argument->line, "argument '%s': %s", argument->name,
                            strpbrk(argument->name, ".-") != NULL ? "a name in expressions has no . and no -"
                                                                  : "every block has it; experts set it");
        if (result != 0)
            return result;
        resolver->graph->arguments[i] = argument->value;
        if (argument->expression != NULL &&
            expression_number(argument->expression, lookup, resolver->graph, &resolver->graph->arguments[i], problem))
            return refuse(resolver, argument->line, "argument %s: %s", argument->name, problem);
    }
    resolver->problem->of_arguments = true;
    for (unsigned i = 0; i < values->count; i++) {
        const int result = set_argument(resolver, &values->items[i]);
        if (result != 0)
            return result;
    }
    resolver->problem->of_arguments = false;
    return 0;
}

/* --- inputs ------------------------------------------------------------------------------------------------------- */

static bool readable(enum dtype dtype)
{
    return dtype_is_float(dtype) || dtype == DTYPE_INT64 || dtype == DTYPE_BOOL;
}

/* Tokens and columns of a value whose dims are known; 0 elements or too many are refused. */
static int set_extent(const struct resolver *resolver, struct block_value *value, unsigned line)
{
    const struct tensor_desc *desc = &value->desc;
    uint64_t elements = 1;
    for (unsigned d = 0; d < desc->ndim; d++) {
        if (desc->dims[d] == 0 || desc->dims[d] > row_elements_max / elements)
            return refuse(resolver, line, "a row of '%s' has more than %llu numbers", desc->name,
                          (unsigned long long)row_elements_max);
        elements *= desc->dims[d];
    }
    value->columns = desc->ndim > 0 ? desc->dims[desc->ndim - 1] : 1;
    value->tokens = elements / value->columns;
    return 0;
}

static int find_value(const struct block_graph *graph, const char *name)
{
    for (unsigned i = 0; i < graph->values_count; i++) {
        if (strcmp(graph->values[i].desc.name, name) == 0)
            return (int)i;
    }
    return -1;
}

static int find_input(const struct block *block, const char *name)
{
    for (unsigned i = 0; i < block->inputs_count; i++) {
        if (strcmp(block->inputs[i].name, name) == 0)
            return (int)i;
    }
    return -1;
}

static int find_layer(const struct block *block, const char *name)
{
    for (unsigned i = 0; i < block->layers_count; i++) {
        if (strcmp(block->layers[i].name, name) == 0)
            return (int)i;
    }
    return -1;
}

static struct block_value *new_value(struct block_graph *graph, const char *name)
{
    struct block_value *value = &graph->values[graph->values_count++];
    snprintf(value->desc.name, sizeof value->desc.name, "%s", name);
    value->node = value->output = -1;
    return value;
}

static int add_input(struct resolver *resolver, const struct block_input *input)
{
    char problem[EXPRESSION_PROBLEM_SIZE];
    struct block_graph *graph = resolver->graph;
    int result = check_name(resolver, "input", input->name, TENSOR_NAME_SIZE, input->line);
    if (result == 0 && find_value(graph, input->name) >= 0)
        result = refuse(resolver, input->line, "input %s stands there twice", input->name);
    if (result == 0 && !readable(input->dtype))
        result = refuse(resolver, input->line, "input %s: its dtype must be float32, float16, bfloat16, int64 or bool",
                        input->name);
    if (result == 0 && input->ndim > TENSOR_MAX_DIMS)
        result = refuse(resolver, input->line, "input %s has more than %d dimensions", input->name, TENSOR_MAX_DIMS);
    if (result != 0)
        return result;
    struct block_value *value = new_value(graph, input->name);
    value->desc.dtype = (uint32_t)(input->dtype == DTYPE_FLOAT32 ? resolver->dtype : input->dtype);
    value->desc.ndim = input->ndim;
    for (unsigned d = 0; d < input->ndim; d++) {
        if (expression_size(input->shape[d], lookup, graph, &value->desc.dims[d], problem) != 0)
            return refuse(resolver, input->line, "input %s: shape[%u]: %s", input->name, d, problem);
    }
    return set_extent(resolver, value, input->line);
}

static int add_inputs(struct resolver *resolver)
{
    const struct block *block = resolver->block;
    if (block->inputs_count == 0 || block->outputs_count == 0)
        return refuse(resolver, block->line, "block %s has no %s", block->name,
                      block->inputs_count == 0 ? "inputs" : "outputs");
    if (block->inputs_count + block->outputs_count > SCHEMA_MAX_TENSORS)
        return refuse(resolver, block->line, "block %s has more than %d inputs and outputs", block->name,
                      SCHEMA_MAX_TENSORS);
    for (unsigned i = 0; i < block->inputs_count; i++) {
        const int result = add_input(resolver, &block->inputs[i]);
        if (result != 0)
            return result;
    }
    return 0;
}

/* --- layers ------------------------------------------------------------------------------------------------------- */

static int set_option(const struct resolver *resolver, struct block_node *node, const struct block_option_kind *kind,
                      const char *value, unsigned line)
{
    char problem[EXPRESSION_PROBLEM_SIZE];
    char *field = (char *)&node->settings + kind->offset;
    int result = 0;
    switch (kind->type) {
    case BLOCK_OPTION_SIZE:
        result = expression_size(value, lookup, resolver->graph, (uint64_t *)(void *)field, problem);
        break;
    case BLOCK_OPTION_NUMBER:
        result = expression_number(value, lookup, resolver->graph, (double *)(void *)field, problem);
        break;
    case BLOCK_OPTION_CHOICE:
        result = choice_number(kind->choices, value);
        if (result < 0)
            result = argument_choice(resolver->graph, value, kind->choices);
        if (result < 0)
            return refuse(resolver, line, "layer %s: %s: '%.60s' is none of %s", node->layer->name, kind->name, value,
                          kind->choices);
        *(unsigned *)(void *)field = (unsigned)result;
        return 0;
    case BLOCK_OPTION_TEXT:
        *(const char **)(void *)field = value;
        return check_name(resolver, kind->name, value, BLOCK_NAME_SIZE, line);
    }
    return result == 0 ? 0 : refuse(resolver, line, "layer %s: %s: %s", node->layer->name, kind->name, problem);
}

static int set_options(const struct resolver *resolver, struct block_node *node)
{
    const struct block_layer *layer = node->layer;
    const struct block_kind *kind = node->kind;
    for (unsigned i = 0; i < kind->options_count; i++) {
        const struct block_option_kind *option = &kind->options[i];
        const struct block_option *given = NULL;
        for (unsigned j = 0; j < layer->options_count && given == NULL; j++) {
            if (strcmp(layer->options[j].name, option->name) == 0)
                given = &layer->options[j];
        }
        const char *value = given != NULL && given->value != NULL ? given->value : option->standard;
        if (value == NULL && option->type != BLOCK_OPTION_TEXT)
            return refuse(resolver, layer->line, "layer %s: a %s layer needs the option %s", layer->name, kind->name,
                          option->name);
        const int result =
            value != NULL ? set_option(resolver, node, option, value, given != NULL ? given->line : layer->line) : 0;
        if (result != 0)
            return result;
    }
    for (unsigned j = 0; j < layer->options_count; j++) {
        bool known = false;
        for (unsigned i = 0; i < kind->options_count; i++)
            known = known || strcmp(kind->options[i].name, layer->options[j].name) == 0;
        if (!known)
            return refuse(resolver, layer->options[j].line, "layer %s: a %s layer has no option '%.60s'", layer->name,
                          kind->name, layer->options[j].name);
    }
    return 0;
}

static int check_layer(const struct resolver *resolver, unsigned index)
{
    const struct block_layer *layer = &resolver->block->layers[index];
    int result = check_name(resolver, "layer", layer->name, BLOCK_NAME_SIZE, layer->line);
    if (result != 0)
        return result;
    const struct block_kind *kind = block_kind_find(resolver->block, layer->kind);
    if (find_layer(resolver->block, layer->name) < (int)index || find_input(resolver->block, layer->name) >= 0)
        return refuse(resolver, layer->line, "there are two things called %s", layer->name);
    if (kind == NULL)
        return refuse(resolver, layer->line, "layer %s: there is no layer '%.60s'", layer->name, layer->kind);
    if (layer->operands_count < kind->operands_min || layer->operands_count > kind->operands_max)
        return refuse(resolver, layer->line, "layer %s: a %s layer reads %u%s value%s, not %u", layer->name, kind->name,
                      kind->operands_min, kind->operands_max > kind->operands_min ? " or more" : "",
                      kind->operands_max > 1 ? "s" : "", layer->operands_count);
    if (layer->mask != NULL && !kind->takes_mask)
        return refuse(resolver, layer->line, "layer %s: a %s layer takes no mask", layer->name, kind->name);
    for (unsigned i = 0; i < layer->operands_count + (layer->mask != NULL); i++) {
        const char *name = i < layer->operands_count ? layer->operands[i] : layer->mask;
        if (find_input(resolver->block, name) < 0 && find_layer(resolver->block, name) < 0)
            return refuse(resolver, layer->line, "layer %s reads '%.60s': there is no input or layer of that name",
                          layer->name, name);
    }
    if (layer->mask != NULL && find_input(resolver->block, layer->mask) < 0)
        return refuse(resolver, layer->line, "layer %s: its mask must be an input, not the layer %s", layer->name,
                      layer->mask);
    return 0;
}

/* The value of that name, or -1: of a layer that is not placed yet. */
static int value_of(const struct resolver *resolver, const char *name)
{
    const int input = find_input(resolver->block, name);
    if (input >= 0)
        return input;
    const int node = resolver->numbers[find_layer(resolver->block, name)];
    return node >= 0 ? (int)resolver->graph->nodes[node].value : -1;
}

static bool can_be_placed(const struct resolver *resolver, const struct block_layer *layer)
{
    for (unsigned i = 0; i < layer->operands_count; i++) {
        if (value_of(resolver, layer->operands[i]) < 0)
            return false;
    }
    return true;
}

static int place_layer(struct resolver *resolver, unsigned index)
{
    struct block_graph *graph = resolver->graph;
    const struct block_layer *layer = &resolver->block->layers[index];
    struct block_node *node = &graph->nodes[graph->nodes_count];
    char problem[BLOCK_PROBLEM_SIZE];
    node->layer = layer;
    node->kind = block_kind_find(resolver->block, layer->kind);
    node->operands_count = layer->operands_count;
    for (unsigned i = 0; i < layer->operands_count; i++) {
        node->operands[i] = (unsigned)value_of(resolver, layer->operands[i]);
        graph->values[node->operands[i]].uses++;
    }
    node->mask = layer->mask != NULL ? value_of(resolver, layer->mask) : -1;
    if (node->mask >= 0)
        graph->values[node->mask].uses++;
    int result = set_options(resolver, node);
    if (result != 0)
        return result;
    struct tensor_desc desc;
    if (node->kind->shape(node, graph->values, &desc, problem) != 0)
        return refuse(resolver, layer->line, "layer %s: %s", layer->name, problem);
    struct block_value *value = new_value(graph, layer->name);
    memcpy(desc.name, value->desc.name, sizeof desc.name);
    value->desc = desc;
    value->desc.dtype = DTYPE_FLOAT32;
    value->node = (int)graph->nodes_count;
    node->value = graph->values_count - 1;
    resolver->numbers[index] = (int)graph->nodes_count++;
    return set_extent(resolver, value, layer->line);
}

/* Each layer behind those that it reads, otherwise as they are declared. */
static int place_layers(struct resolver *resolver)
{
    const struct block *block = resolver->block;
    if (block->layers_count > BLOCK_LAYERS_MAX)
        return refuse(resolver, block->line, "block %s has more than %d layers", block->name, BLOCK_LAYERS_MAX);
    for (unsigned i = 0; i < block->layers_count; i++) {
        const int result = check_layer(resolver, i);
        if (result != 0)
            return result;
        resolver->numbers[i] = -1;
    }
    while (resolver->graph->nodes_count < block->layers_count) {
        int next = -1;
        unsigned waiting = 0;
        for (unsigned i = 0; i < block->layers_count && next < 0; i++) {
            if (resolver->numbers[i] >= 0)
                continue;
            waiting = i;
            if (can_be_placed(resolver, &block->layers[i]))
                next = (int)i;
        }
        if (next < 0)
            return refuse(resolver, block->layers[waiting].line, "layer %s reads, by way of others, its own result",
                          block->layers[waiting].name);
        const int result = place_layer(resolver, (unsigned)next);
        if (result != 0)
            return result;
    }
    return 0;
}

static bool is_affine(const struct block_node *node)
{
    return strcmp(node->kind->name, "affine") == 0;
}

static unsigned parameters_of(const struct block_node *node)
{
    const struct block_settings *settings = &node->settings;
    if (!is_affine(node))
        return node->kind->parameters;
    return (settings->weight != BLOCK_CONSTANT_NONE ? 1U : 0U) + (settings->bias != BLOCK_CONSTANT_NONE ? 1U : 0U);
}

/* What the parameter number `which` of a layer is called in the state dict; false: it has no such. Of own kinds the
 * names are theirs to choose, mostly these. */
static bool parameter_name(const struct block_node *node, unsigned which, char *name, size_t size)
{
    const struct block_settings *settings = &node->settings;
    const char *suffix = which % 2 == 0 ? "weight" : "bias", *layer = node->layer->name;
    const bool is_gated = strcmp(node->kind->name, "gated") == 0;
    const unsigned constant = which == 0 ? settings->weight : settings->bias;
    const char *given = which == 0 ? settings->weight_name : settings->bias_name;
    if (which >= node->kind->parameters || (is_affine(node) && constant == BLOCK_CONSTANT_NONE))
        return false;
    if (is_gated && (which < 2 ? settings->gate : settings->up) != NULL)
        snprintf(name, size, "%s.%s", which < 2 ? settings->gate : settings->up, suffix);
    else if (is_gated)
        snprintf(name, size, "%s.%s.%s", layer, which < 2 ? "gate_proj" : "up_proj", suffix);
    else if (given != NULL && which < 2)
        snprintf(name, size, "%s", given);
    else
        snprintf(name, size, "%s.%s", layer, suffix);
    return true;
}

static bool has_given_names(const struct block_node *node)
{
    const struct block_settings *settings = &node->settings;
    return settings->weight_name || settings->bias_name || settings->gate || settings->up;
}

enum { NAMES = 4 }; /* of a layer */

/* Parameters of two layers, or of one, must not have one name. */
static int check_names(const struct resolver *resolver)
{
    const struct block_graph *graph = resolver->graph;
    unsigned parameters = 0;
    for (unsigned i = 0; i < graph->nodes_count; i++)
        parameters += parameters_of(&graph->nodes[i]);
    if (parameters > BLOCK_PARAMETERS_MAX)
        return refuse(resolver, resolver->block->line, "block %s has more than %d parameters", resolver->block->name,
                      BLOCK_PARAMETERS_MAX);
    for (unsigned i = 0; i < NAMES * graph->nodes_count; i++) {
        const struct block_node *first = &graph->nodes[i / NAMES];
        char name[BLOCK_NAME_SIZE + 24], other[BLOCK_NAME_SIZE + 24];
        if (!parameter_name(first, i % NAMES, name, sizeof name))
            continue;
        for (unsigned j = 0; j < i; j++) {
            const struct block_node *second = &graph->nodes[j / NAMES];
            if (!parameter_name(second, j % NAMES, other, sizeof other) || strcmp(name, other) != 0)
                continue;
            const struct block_node *said = has_given_names(second) ? second : first;
            return refuse(resolver, said->layer->line, "layers %s and %s both have a parameter %s", second->layer->name,
                          first->layer->name, name);
        }
    }
    return 0;
}

/* --- outputs ------------------------------------------------------------------------------------------------------ */

static bool is_plain(enum dtype dtype)
{
    return dtype == DTYPE_NONE || dtype == DTYPE_FLOAT32;
}

static int add_output(struct resolver *resolver, unsigned index)
{
    struct block_graph *graph = resolver->graph;
    const struct block *block = resolver->block;
    const struct block_output *output = &block->outputs[index];
    static const char gradient_prefix[] = "grad_"; /* of schema_gradients() */
    char gradient[TENSOR_NAME_SIZE];
    int result =
        check_name(resolver, "output", output->name, TENSOR_NAME_SIZE + 1 - sizeof gradient_prefix, output->line);
    snprintf(gradient, sizeof gradient, "%s%s", gradient_prefix, result == 0 ? output->name : "");
    if (result == 0 && find_input(block, gradient) >= 0)
        result = refuse(resolver, output->line, "output %s: its gradient would have the name of the input %s",
                        output->name, gradient);
    if (result == 0 && !is_plain(output->dtype) && !dtype_is_float(output->dtype))
        result =
            refuse(resolver, output->line, "output %s: its dtype must be float32, float16 or bfloat16", output->name);
    for (unsigned i = 0; i < index && result == 0; i++) {
        if (strcmp(block->outputs[i].name, output->name) == 0)
            result = refuse(resolver, output->line, "output %s stands there twice", output->name);
    }
    if (result != 0)
        return result;
    const bool is_input = find_input(block, output->value) >= 0;
    if (!is_input && find_layer(block, output->value) < 0)
        return refuse(resolver, output->line, "output %s: there is no layer '%.60s'", output->name, output->value);
    if (is_input && block->layers_count > 0)
        return refuse(resolver, output->line, "output %s is the input %s itself", output->name, output->value);
    struct block_value *value = &graph->values[value_of(resolver, output->value)];
    if (value->output >= 0)
        return refuse(resolver, output->line, "outputs %s and %s are one value", block->outputs[value->output].name,
                      output->name);
    value->output = (int)index;
    value->uses += is_input;
    graph->results[index] = (unsigned)(value - graph->values);
    graph->outputs.tensors[index] = value->desc;
    if (!is_input)
        graph->outputs.tensors[index].dtype = (uint32_t)(is_plain(output->dtype) ? resolver->dtype : output->dtype);
    snprintf(graph->outputs.tensors[index].name, TENSOR_NAME_SIZE, "%s", output->name);
    return 0;
}

static int add_outputs(struct resolver *resolver)
{
    struct block_graph *graph = resolver->graph;
    const struct block *block = resolver->block;
    for (unsigned i = 0; i < block->outputs_count; i++) {
        const int result = add_output(resolver, i);
        if (result != 0)
            return result;
    }
    for (unsigned i = 0; i < graph->values_count; i++) {
        const struct block_value *value = &graph->values[i];
        if (value->uses > 0 || value->output >= 0)
            continue;
        return value->node < 0
                   ? refuse(resolver, block->inputs[i].line, "no layer reads the input %s", value->desc.name)
                   : refuse(resolver, graph->nodes[value->node].layer->line, "nothing reads the layer %s",
                            graph->nodes[value->node].layer->name);
    }
    graph->inputs.count = block->inputs_count;
    graph->outputs.count = block->outputs_count;
    for (unsigned i = 0; i < block->inputs_count; i++)
        graph->inputs.tensors[i] = graph->values[i].desc;
    return 0;
}

int block_resolve(const struct block *block, const struct block_values *values, struct block_graph **graph,
                  struct block_problem *problem)
{
    struct resolver resolver = {.block = block, .problem = problem, .dtype = values->dtype};
    if (resolver.dtype == DTYPE_NONE)
        resolver.dtype = DTYPE_FLOAT32;
    *problem = (struct block_problem){0};
    *graph = resolver.graph = calloc(1, sizeof **graph);
    if (*graph == NULL)
        return -ENOMEM;
    resolver.graph->block = block;
    int result = set_arguments(&resolver, values);
    if (result == 0)
        result = add_inputs(&resolver);
    if (result == 0)
        result = place_layers(&resolver);
    if (result == 0)
        result = check_names(&resolver);
    if (result == 0)
        result = add_outputs(&resolver);
    if (result != 0) {
        free(*graph);
        *graph = NULL;
    }
    return result;
}

/* -------------------------------------------------------------------------------------------------------------------*/

double block_argument(const struct block_graph *graph, const char *name, double standard)
{
    double value = standard;
    lookup(graph, name, strlen(name), &value);
    return value;
}

const char *block_arguments_format(const struct block_graph *graph, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < graph->block->arguments_count && used < size; i++) {
        const struct block_argument *argument = &graph->block->arguments[i];
        char word[BLOCK_WORD_SIZE];
        block_argument_word(argument, graph->arguments[i], word);
        if (argument->choices == NULL)
            snprintf(word, sizeof word, "%.15g", graph->arguments[i]);
        const int length = snprintf(text + used, size - used, "%s%s=%s", i > 0 ? " " : "", argument->name, word);
        used += length > 0 ? (size_t)length : 0;
    }
    return text;
}
