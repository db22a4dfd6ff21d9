/* The engine: experts whose block is declared (common/block.h), run by a plan of launches that is derived from the
 * declaration (runtime/layers/plan.h). */
#ifndef EXPERTD_RUNTIME_ENGINE_H
#define EXPERTD_RUNTIME_ENGINE_H

#include "common/block.h"
#include "runtime/blocks/expert.h"
#include "runtime/layers/plan.h"

extern const struct expert_ops expert_engine;

/* What all experts of one entry of the configuration have in common on a device. */
struct engine_model {
    struct block_graph *graph;
    struct plan forward, backward;
    struct parameters parameters; /* laid out, without memory */
    uint64_t chunk_rows;
    uint64_t workspace_floats;
    struct expert_group group; /* of forwards of its experts */
    uint64_t staging_bytes;    /* of a backward's rows, which are the most */
    /* For engine.c. */
    struct engine_model *next;
    struct device *device;
    const struct config_expert *config;
    unsigned users;
};

struct engine_expert {
    struct expert base;
    struct parameters parameters;
    struct engine_model *model;
};

/* For measuring without the copies of rows to a device: enqueue the kernels for rows in its reach, first_row 0, of
 * tensors as a batch has them. A backward leaves the parameter gradients in the workspace. */
int engine_enqueue(struct engine_expert *expert, bool backward, uint64_t rows, const struct plan_rows *inputs,
                   const struct plan_rows *results);

#endif
