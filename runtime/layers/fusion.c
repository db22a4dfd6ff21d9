#include "runtime/layers/fusion.h"

#include <assert.h>
#include <string.h>

#include "runtime/layers/layer.h"

static unsigned add_value(struct plan *plan, const struct block_value *from)
{
    struct plan_value *value = &plan->values[plan->values_count];
    assert(plan->values_count < PLAN_VALUES_MAX);
    *value = (struct plan_value){.layer = PLAN_NONE, .input = PLAN_NONE, .output = PLAN_NONE};
    value->tokens = from->tokens;
    value->columns = from->columns;
    return plan->values_count++;
}

static struct plan_layer *add_layer(struct plan *plan, const struct layer_kind *kind, const struct block_node *node,
                                    unsigned value)
{
    struct plan_layer *layer = &plan->layers[plan->layers_count];
    assert(plan->layers_count < PLAN_LAYERS_MAX);
    *layer = (struct plan_layer){.kind = kind, .node = node, .mask = PLAN_NONE, .second = PLAN_NONE, .value = value};
    for (unsigned i = 0; i < PLAN_LAYER_PARAMETERS; i++)
        layer->parameters[i] = PLAN_NONE;
    plan->values[value].layer = (int)plan->layers_count++;
    return layer;
}

static void read(struct plan *plan, struct plan_layer *layer, unsigned value)
{
    layer->operands[layer->operands_count++] = value;
    plan->values[value].uses++;
}

static void place(struct plan *plan, const struct block_node *node, unsigned value, enum plan_epilogue epilogue,
                  int second)
{
    struct plan_layer *layer = add_layer(
        plan, node->kind->implementation != NULL ? node->kind->implementation : layer_kind_find(node->kind->name), node,
        value);
    for (unsigned i = 0; i < node->operands_count; i++)
        read(plan, layer, node->operands[i]);
    layer->mask = node->mask;
    if (node->mask >= 0)
        plan->values[node->mask].uses++;
    layer->epilogue = epilogue;
    layer->second = second;
    if (second != PLAN_NONE)
        plan->values[second].uses++;
}

static bool is(const struct block_node *node, const char *kind)
{
    return strcmp(node->kind->name, kind) == 0;
}

static enum plan_epilogue epilogue_of(const struct block_node *node)
{
    return is(node, "add") ? PLAN_ADD : is(node, "multiply") ? PLAN_MULTIPLY : PLAN_PLAIN;
}

/* A linear layer that only one sum or product reads, and that has to wait for its other operands. */
static bool waits(const struct plan *plan, const struct block_node *node)
{
    const struct block_graph *graph = plan->graph;
    const struct block_value *value = &graph->values[node->value];
    if (!is(node, "linear") || value->uses != 1 || value->output >= 0)
        return false;
    for (unsigned i = 0; i < graph->nodes_count; i++) {
        const struct block_node *reader = &graph->nodes[i];
        for (unsigned j = 0; j < reader->operands_count; j++) {
            if (reader->operands[j] == node->value)
                return epilogue_of(reader) != PLAN_PLAIN;
        }
    }
    return false;
}

/* The node that makes an operand, if it waits for this layer. */
static const struct block_node *waiting(const struct plan *plan, unsigned operand)
{
    const int node = plan->graph->values[operand].node;
    return node >= 0 && waits(plan, &plan->graph->nodes[node]) ? &plan->graph->nodes[node] : NULL;
}

/* One operand after the other is combined with what there is of the others: those that are there, then the linear
 * layers that wait, each with the rest in its epilogue. */
static void combine(struct plan *plan, const struct block_node *node)
{
    const enum plan_epilogue epilogue = epilogue_of(node);
    int so_far = PLAN_NONE;
    unsigned left = node->operands_count;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < node->operands_count; i++) {
            const unsigned operand = node->operands[i];
            const struct block_node *linear = waiting(plan, operand);
            if ((linear != NULL) != (pass == 1))
                continue;
            left--;
            if (so_far == PLAN_NONE) {
                if (linear != NULL)
                    place(plan, linear, operand, PLAN_PLAIN, PLAN_NONE);
                so_far = (int)operand;
                continue;
            }
            const unsigned sum = left == 0 ? node->value : add_value(plan, &plan->graph->values[node->value]);
            if (linear != NULL) {
                place(plan, linear, sum, epilogue, so_far);
            } else {
                struct plan_layer *layer = add_layer(plan, layer_kind_find(node->kind->name), node, sum);
                read(plan, layer, (unsigned)so_far);
                read(plan, layer, operand);
            }
            so_far = (int)sum;
        }
    }
}

void fusion_find(struct plan *plan)
{
    const struct block_graph *graph = plan->graph;
    for (unsigned i = 0; i < graph->values_count; i++) {
        const struct block_value *from = &graph->values[i];
        struct plan_value *value = &plan->values[add_value(plan, from)];
        value->desc = &from->desc;
        value->input = from->node < 0 ? (int)i : PLAN_NONE;
        value->output = from->output;
    }
    for (unsigned i = 0; i < graph->nodes_count; i++) {
        const struct block_node *node = &graph->nodes[i];
        if (epilogue_of(node) != PLAN_PLAIN)
            combine(plan, node);
        else if (!waits(plan, node))
            place(plan, node, node->value, PLAN_PLAIN, PLAN_NONE);
    }
}

unsigned fusion_activation(enum block_activation activation)
{
    static const unsigned flags[] = {[BLOCK_RELU] = LINEAR_RELU,
                                     [BLOCK_GELU] = LINEAR_GELU,
                                     [BLOCK_GELU_ERF] = LINEAR_GELU_ERF,
                                     [BLOCK_SILU] = LINEAR_SILU};
    return flags[activation];
}

unsigned fusion_activation_gradient(enum block_activation activation)
{
    static const unsigned flags[] = {[BLOCK_RELU] = LINEAR_RELU_GRAD,
                                     [BLOCK_GELU] = LINEAR_GELU_GRAD,
                                     [BLOCK_GELU_ERF] = LINEAR_GELU_ERF_GRAD,
                                     [BLOCK_SILU] = LINEAR_SILU_GRAD};
    return flags[activation];
}
