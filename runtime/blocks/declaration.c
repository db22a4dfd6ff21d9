#include "runtime/blocks/declaration.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/blocks/own_expert.h"

const struct block *declaration_find(const struct config_expert *config)
{
    if (config->declared != NULL)
        return config->declared;
    return strchr(config->block, '/') != NULL ? own_expert_find(config->block) : block_builtin(config->block);
}

int declaration_graph(const struct config_expert *config, struct block_graph **graph)
{
    const struct block *block = declaration_find(config);
    *graph = NULL;
    if (block == NULL)
        return -EINVAL;
    const struct block_values values = {.hidden_dim = config->hidden_dim,
                                        .items = config->values.items,
                                        .count = config->values.count,
                                        .dtype = dtype_of_name(config->dtype)};
    struct block_problem problem;
    const int result = block_resolve(block, &values, graph, &problem);
    if (result == -EINVAL)
        log_error("experts: uid %s: block %s: %s", config->uid, block->name, problem.text);
    return result;
}

int declaration_schema(const struct config_expert *config, struct schema *inputs, struct schema *outputs)
{
    struct block_graph *graph;
    const int result = declaration_graph(config, &graph);
    if (result != 0)
        return result;
    *inputs = graph->inputs;
    *outputs = graph->outputs;
    free(graph);
    return 0;
}
