/* Any text as what stands under `blocks`: it is refused with a message, or gives a graph that keeps its promises, of
 * which both plans can be made. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "runtime/layers/layer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_graph(const struct block_graph *graph)
{
    must(schema_valid(&graph->inputs) && schema_valid(&graph->outputs));
    for (unsigned i = 0; i < graph->nodes_count; i++) {
        const struct block_node *node = &graph->nodes[i];
        must(node->value < graph->values_count && graph->values[node->value].node == (int)i);
        for (unsigned o = 0; o < node->operands_count; o++)
            must(graph->values[node->operands[o]].node < (int)i);
    }
    for (unsigned v = 0; v < graph->values_count; v++)
        must(graph->values[v].uses > 0 || graph->values[v].output >= 0);
}

static void plan_both(const struct block_graph *graph)
{
    const struct kernel_shape shape = {.vec = 16, .panel = 32, .tile_rows = 12, .weight_bytes = 4};
    const struct optimizer_settings optimizer = {.kind = OPTIMIZER_SGD, .grad_accumulation = 1};
    static struct parameters parameters;
    static struct plan forward, backward;
    parameters = (struct parameters){.trains = true};
    must(plan_make(&forward, graph, &shape, &parameters, false) == 0);
    must(plan_make(&backward, graph, &shape, &parameters, true) == 0);
    parameters_layout(&parameters, &shape, &optimizer);
    must(plan_place(&forward, 3) <= plan_place(&backward, 3) + UINT64_C(1) * 3 * BLOCK_VALUES_MAX * (1 << 28));
    plan_free(&forward);
    plan_free(&backward);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config;
    struct block_graph *graph;
    struct block_problem problem;
    char *text = malloc(size + 64);
    const int head = snprintf(text, 64, "blocks:\n");
    memcpy(text + head, data, size);
    if (config_parse(&config, text, (size_t)head + size, "fuzz") == 0) {
        for (unsigned i = 0; i < config.declared_count; i++) {
            const struct block_values values = {.hidden_dim = 48};
            if (block_resolve(&config.declared[i], &values, &graph, &problem) == 0) {
                check_graph(graph);
                plan_both(graph);
                free(graph);
            } else {
                must(problem.text[0] != '\0');
            }
        }
        config_destroy(&config);
    }
    free(text);
    return 0;
}
