/* A block's graph (common/block.h) in plain C, in double: every value forward, every gradient backward, layer by layer
 * as declared, with nothing fused. */
#ifndef EXPERTD_TESTS_SUPPORT_GRAPH_H
#define EXPERTD_TESTS_SUPPORT_GRAPH_H

#include <stdbool.h>
#include <stddef.h>

#include "common/block.h"

enum { SUPPORT_GRAPH_PARAMETERS = 4 };

struct support_graph {
    const struct block_graph *graph;
    size_t rows;
    double *values[BLOCK_VALUES_MAX], *gradients[BLOCK_VALUES_MAX]; /* gradients NULL: of no float */
    /* Of a node: weight and bias, gamma and beta; of a gated one both of the gate, then both of what it lets through;
     * NULL where there is none. The gradients belong to the graph. */
    const float *parameters[BLOCK_LAYERS_MAX][SUPPORT_GRAPH_PARAMETERS];
    double *parameter_gradients[BLOCK_LAYERS_MAX][SUPPORT_GRAPH_PARAMETERS];
    bool kink; /* a relu was so near to its corner that rounding decides */
};

/* The parameters are the caller's, as `parameter` gives them: by the node's number and the name in the state dict. */
typedef const float *support_graph_parameter(void *context, const char *name);
void support_graph_open(struct support_graph *support, const struct block_graph *graph, size_t rows,
                        support_graph_parameter *parameter, void *context);
void support_graph_close(struct support_graph *support);
/* "<layer>.weight" or what the declaration calls it; "" where the node has none. */
void support_graph_name(const struct block_node *node, unsigned which, char *name, size_t size);

/* values[0 .. inputs) are set by the caller. */
void support_graph_forward(struct support_graph *support);
/* The gradients of the outputs are set by the caller (added to what is there: 0). */
void support_graph_backward(struct support_graph *support);

size_t support_graph_elements(const struct support_graph *support, unsigned value);
/* Whether it is no optimizer's: its gradient is 0. */
bool support_graph_is_fixed(const struct block_node *node, unsigned which);
size_t support_graph_parameter_elements(const struct support_graph *support, unsigned node, unsigned which);

#endif
