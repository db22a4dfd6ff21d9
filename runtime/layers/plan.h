/* A plan: the launches that a block's forward, or its backward, is made of, in order, each with the matrices that it
 * reads and writes. It is made once for all experts of an entry of the configuration; running it for a chunk of rows
 * only fills in where things lie (struct plan_run).
 *
 * Values. A value (common/block.h) of one row is tokens x columns numbers; of a chunk of rows it is a matrix of
 * rows x tokens rows. In a forward plan all of them are row-major. In a backward plan they are recomputed as far as
 * gradients need them, in panels, as weight gradients walk over them column by column; the block's inputs are used
 * where they lie, row-major, unless such a walk is needed: then they are packed first.
 *
 * Gradients. Layers go backward in reverse order, so that when a layer's turn comes the gradient of its value is
 * complete. A value's gradient is the sum of what its readers contribute: the first contribution is it, a product adds
 * what was there in its epilogue, and what only hands a gradient on (a sum) contributes the same matrix without a copy.
 *
 * Workspace. Matrices that are not in a batch's rows are placed in the device's workspace by their lifetimes: from the
 * first step that names one to the last; two that do not meet may share their place. Nothing is written in place
 * but where a step names the same matrix as what it reads and writes.
 *
 * Wanted. Not every gradient of an input is wanted of every batch. A step that makes nothing else (plan_makes) is left
 * out when nobody wants what it makes, nor what is made of that. */
#ifndef EXPERTD_RUNTIME_PLAN_H
#define EXPERTD_RUNTIME_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/block.h"
#include "runtime/compute/kernel.h"
#include "runtime/compute/linear.h"
#include "runtime/train/parameters.h"

enum {
    PLAN_NONE = -1, /* of numbers of buffers, values, parameters */
    PLAN_STEP_BUFFERS = 10,
    PLAN_STEP_PARAMETERS = 4,
    PLAN_LAYER_PARAMETERS = 4,
    PLAN_VALUES_MAX = BLOCK_VALUES_MAX + BLOCK_LAYERS_MAX, /* and partial sums */
    PLAN_LAYERS_MAX = 2 * BLOCK_LAYERS_MAX,
    PLAN_TENSORS_MAX = 2 * SCHEMA_MAX_TENSORS,
    PLAN_GROUP = LINEAR_GROUP,
};
/* Beside a bit for each result: what is done whichever of them are wanted. */
#define PLAN_ALWAYS (UINT32_C(1) << 31)

enum plan_place {
    PLAN_WORKSPACE,
    PLAN_INPUT,  /* rows of tensor number `tensor` of the batch's inputs (and grad_outputs behind them) */
    PLAN_RESULT, /* rows of tensor number `tensor` of the batch's outputs, or grad_inputs */
};

/* A matrix, or with `fixed_floats` a place of that size for something else, whatever the number of rows. */
struct plan_buffer {
    enum plan_place place;
    unsigned tensor;
    bool rows; /* row-major; else in panels */
    uint64_t tokens, columns;
    uint64_t fixed_floats;
    unsigned first, last; /* steps */
    uint64_t offset;      /* floats, in the workspace */
};

struct plan;
struct plan_run;
struct plan_step;
typedef int plan_launch(const struct plan_run *run, const struct plan_step *step);
typedef int plan_launch_group(const struct plan_run *runs, unsigned count, const struct plan_step *step);

/* One launch. What the buffers and parameters are, and what the other fields mean, is the launcher's. */
struct plan_step {
    plan_launch *launch;
    plan_launch_group *launch_group; /* the same of several runs; NULL: one after the other */
    int buffers[PLAN_STEP_BUFFERS];
    int parameters[PLAN_STEP_PARAMETERS];
    unsigned makes;      /* roles of the buffers that it writes, a bit each; 0: it writes something else, too */
    uint32_t wanted_for; /* results that take it, a bit each, and PLAN_ALWAYS */
    unsigned flags;
    float number, second_number;
    uint64_t sizes[2];
    const struct linear_gate *gate;
};

struct plan_value {
    const struct tensor_desc *desc; /* NULL: a partial sum */
    uint64_t tokens, columns;
    int layer;     /* whose result it is; PLAN_NONE: input number `input` */
    int input;     /* or PLAN_NONE */
    int output;    /* or PLAN_NONE */
    unsigned uses; /* by layers */
    /* Of the plan that is being made. */
    int by_rows, packed; /* where it lies */
    int home;            /* the value in whose place it is made, for a layer that works in place; or PLAN_NONE */
    bool needed, needed_packed;
    int gradient;           /* complete when `pending` is 0 */
    unsigned pending;       /* contributions to come */
    bool gradient_is_inner; /* `gradient` went through the activation of the layer that made the value already */
};

/* What a product does with its sum besides, after bias and activation. */
enum plan_epilogue { PLAN_PLAIN, PLAN_ADD, PLAN_MULTIPLY };

struct layer_kind;
struct plan_layer {
    const struct layer_kind *kind;
    const struct block_node *node; /* NULL: a sum that was made of one of more than two */
    unsigned operands[BLOCK_OPERANDS_MAX];
    unsigned operands_count;
    int mask; /* a value, or PLAN_NONE */
    unsigned value;
    enum plan_epilogue epilogue;
    int second;                            /* the value it is done with, or PLAN_NONE */
    int parameters[PLAN_LAYER_PARAMETERS]; /* numbers, PLAN_NONE where there is none */
    /* Of the plan that is being made. */
    bool recomputed; /* in a backward plan: its forward is part of it */
    bool saves;      /* what its backward needs besides values, in `saved` */
    int saved[2];
    struct linear_gate gate;
    bool bias_summed; /* the gradient of its bias came out of the layer behind it */
};

struct plan {
    const struct block_graph *graph;
    const struct kernel_shape *shape;
    struct parameters *parameters;
    bool backward, trains;
    struct plan_value values[PLAN_VALUES_MAX];
    unsigned values_count;
    struct plan_layer layers[PLAN_LAYERS_MAX]; /* in order of computation */
    unsigned layers_count;
    struct plan_buffer *buffers;
    unsigned buffers_count, buffers_room;
    struct plan_step *steps;
    unsigned steps_count, steps_room;
    struct linear_size *sizes; /* of its products, each once */
    unsigned sizes_count, sizes_room;
    uint64_t gradient_floats; /* of parameters, at the beginning of the workspace; 0 unless trains */
    bool failed;              /* out of memory on the way */
};

/* --- making one ----------------------------------------------------------------------------------------------------
 * plan_make does it; the rest is for layers (runtime/layers/layer.h). */

/* Plans the forward or the backward of a graph. The graph, the shape and the parameters, to which the forward plan adds
 * those of the layers, are kept. -ENOMEM. Free with plan_free. */
int plan_make(struct plan *plan, const struct block_graph *graph, const struct kernel_shape *shape,
              struct parameters *parameters, bool backward);
void plan_free(struct plan *plan);
/* Floats of workspace for chunks of so many rows; places the buffers for them. */
uint64_t plan_place(struct plan *plan, uint64_t chunk_rows);
/* Greatest number of rows that the matrices of one row of the block have. */
uint64_t plan_tokens(const struct plan *plan);

/* plan_step.c: a step with no buffers and no parameters, to be filled in before the next one is added. */
struct plan_step *plan_add(struct plan *plan, plan_launch *launch);
/* Names a buffer of the last step. */
void plan_use(struct plan *plan, unsigned role, int buffer);
/* Says that the last step writes the buffers of these roles, a bit each, and nothing else: no gradient of a parameter.
 * It may be left out of a batch then. A step of which this is not said always runs. */
void plan_makes(struct plan *plan, unsigned roles);

/* A new matrix in the workspace: row-major, or in panels. */
int plan_matrix(struct plan *plan, uint64_t tokens, uint64_t columns, bool rows);
int plan_scratch(struct plan *plan, uint64_t floats);
/* The batch's tensor of that number, rows as the value's are. */
int plan_slab(struct plan *plan, enum plan_place place, unsigned tensor, const struct plan_value *value);
/* `buffer` in panels: itself, or a copy. */
int plan_packed(struct plan *plan, int buffer);
/* A step: out = what the flags (of runtime/compute/linear.h: activations, ways back through them, LINEAR_MULTIPLY,
 * LINEAR_ADD) make of a, and of second, if they take one. Matrices of one size, row-major or in panels. */
void plan_apply(struct plan *plan, unsigned flags, int a, int second, int out);
/* Steps from a tensor of 16 bits to floats, and back. */
bool plan_is_short(uint32_t dtype);
void plan_widen(struct plan *plan, uint32_t dtype, int from, int to);
void plan_narrow(struct plan *plan, uint32_t dtype, int from, int to);
void plan_note_product(struct plan *plan, uint64_t n, uint64_t k);

/* plan.c again. */
/* Where a value that was computed, or is an input, is to be read. */
int plan_read(struct plan *plan, unsigned value);
/* The same, in panels. */
int plan_read_packed(struct plan *plan, unsigned value);
/* Where the value is to be written by its layer. */
int plan_write(struct plan *plan, unsigned value);
/* Says that the backward reads the value; `packed`: in panels. */
void plan_need(struct plan *plan, unsigned value, bool packed);

/* Whether anybody wants the gradient of a value: it is float32. */
bool plan_wants(const struct plan *plan, unsigned value);
/* The complete gradient of the layer's value. */
int plan_gradient(const struct plan *plan, const struct plan_layer *layer);

/* For what makes a contribution to the gradient of a value: where it is to be written. A product takes `second` and the
 * flags into its epilogue. */
struct plan_contribution {
    int out;
    int second;
    unsigned flags; /* of linear_call */
};
void plan_contribute_product(struct plan *plan, unsigned value, struct plan_contribution *contribution);
/* Or: a new matrix to write it to, which is then handed to plan_contribute. */
int plan_contribution(struct plan *plan, unsigned value);
/* `gradient` is a contribution; it may be the gradient of something else, too. */
void plan_contribute(struct plan *plan, unsigned value, int gradient);

/* --- running it: plan_run.c
 * ----------------------------------------------------------------------------------------------------
 */

/* Rows in reach of the device. */
struct plan_rows {
    cl_mem buffer;
    uint64_t offset_bytes;
};

struct plan_run {
    struct device *device;
    const struct plan *plan;
    const struct parameters *parameters;
    cl_int rows;        /* of the chunk, of the block */
    uint64_t first_row; /* those of other runs that are in the workspace, too, before these */
    cl_int accumulate;  /* parameter gradients are added to those of the chunks before */
    uint32_t unwanted;  /* results that are not to be made, a bit each; their rows may be written all the same */
    struct plan_rows inputs[PLAN_TENSORS_MAX], results[PLAN_TENSORS_MAX];
};

/* Enqueues all of it for one chunk. */
int plan_enqueue(const struct plan_run *run);
/* Enqueues 1 to PLAN_GROUP runs of one plan, with parameters of their own, step by step: all rows together are those of
 * one chunk, at most, and a run's first_row is the sum of the rows of those before it. Only where plan_groups. */
int plan_enqueue_group(const struct plan_run *runs, unsigned count);
/* Whether a group is fewer launches than its runs by themselves. */
bool plan_groups(const struct plan *plan);

const struct plan_buffer *plan_buffer_of(const struct plan_run *run, const struct plan_step *step, unsigned role);
/* The matrix, for kernels; and how many rows it has. A buffer of PLAN_NONE is an empty view. */
struct kernel_view plan_view(const struct plan_run *run, const struct plan_step *step, unsigned role);
cl_int plan_view_rows(const struct plan_run *run, const struct plan_step *step, unsigned role);
/* The same as buffer and offset in floats. */
struct device_rows plan_rows_of(const struct plan_run *run, const struct plan_step *step, unsigned role);
/* Where the gradient of the step's parameter is summed: an offset into the workspace. */
cl_mem plan_workspace(const struct plan_run *run);
/* So many columns as whole panels. */
uint64_t plan_padded(const struct plan_run *run, uint64_t columns);
cl_ulong plan_parameter_gradient(const struct plan_run *run, const struct plan_step *step, unsigned which);
const struct parameter *plan_parameter(const struct plan_run *run, const struct plan_step *step, unsigned which);

#endif
