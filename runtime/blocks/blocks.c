#include "runtime/blocks/blocks.h"

#include <stdlib.h>

#include "runtime/blocks/declaration.h"
#include "runtime/device/device_private.h"

static void take_graph(struct expert *expert, const struct block_graph *graph)
{
    expert->inputs = graph->inputs;
    expert->outputs = graph->outputs;
    expert->arguments_count = graph->block->arguments_count;
    for (unsigned i = 0; i < expert->arguments_count; i++) {
        expert->arguments[i].name = graph->block->arguments[i].name;
        expert->arguments[i].value = graph->arguments[i];
        block_argument_word(&graph->block->arguments[i], graph->arguments[i], expert->arguments[i].text);
    }
}

int blocks_prepare(struct expert *expert, const struct expert_ops *ops, struct device *device,
                   const struct config_expert *config)
{
    expert->ops = ops;
    expert->device = device;
    expert->config = config;
    expert->block = declaration_find(config)->name;
    struct block_graph *graph = NULL;
    int result = optimizer_settings_parse(&expert->optimizer, config);
    if (result == 0)
        result = declaration_graph(config, &graph);
    if (result == 0)
        take_graph(expert, graph);
    free(graph);
    return result == 0
               ? 0
               : device_complain(device, result, "%s is not a configuration of block %s", config->uid, expert->block);
}
