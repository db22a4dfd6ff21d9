/* An expert: a neural-network block on a device, with its parameters, its optimizer's state and its counters.
 *
 * A batch goes in two steps, so that several can be enqueued back to back and the launch cost is hidden:
 *     expert_forward(expert, &batch)      enqueues, returns at once
 *     expert_finish(expert, &batch)       waits for that batch; then its outputs are in the slab, or result says why
 * not Batches finish in the order in which they were enqueued. Any number of forwards may be in flight, of any experts
 * of the device; of backwards one per expert (-EBUSY), and a forward enqueued behind it computes with the new
 * parameters. On a device with its own memory at most EXPERT_IN_FLIGHT batches: -EBUSY says that the oldest must be
 * finished first.
 *
 * Errors are those of runtime/device/device.h, with the text in device_error(), and -EAGAIN: nothing of the batch has
 * run, because a command before its first kernel failed; it may be given to the expert again. A failed batch leaves the
 * expert as it was before, but for a backward that failed in its optimizer step on a device that reports errors late.
 *
 * Thread: that of the device, for everything but expert_snapshot_tensor(). */
#ifndef EXPERTD_RUNTIME_EXPERT_H
#define EXPERTD_RUNTIME_EXPERT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/tensor.h"
#include "runtime/device/device.h"
#include "runtime/train/training.h"

enum {
    EXPERT_IN_FLIGHT = 2,
    EXPERT_GROUP = 8, /* forwards that are enqueued together, at most */
};

struct expert_batch {
    /* Filled by the caller. Rows [first_row, first_row + rows) of every slab: rows >= 1, at most max_batch_size. */
    uint64_t first_row;
    uint64_t rows;
    /* One slab per tensor. Forward: the inputs. Backward: the inputs, then grad_outputs, as backward_schema is. */
    struct device_slab *inputs;
    /* Forward: the outputs. Backward: grad_inputs, one per input. The other rows of the slabs are not written. */
    struct device_slab *outputs;
    /* Backward: inputs whose gradient nobody wants, a bit each. Those rows of its slab are anything afterwards. */
    uint32_t unwanted;

    /* Filled by expert_finish. */
    enum expert_step step;
    double
        grad_norm; /* global L2 norm before clipping, of the step's gradients; 0 unless a step was applied or skipped */

    /* Between the two; not for the caller. */
    cl_event done;     /* NULL: was done at once */
    uint64_t ready_ns; /* and is to be finished no earlier than this (common/clock.h); 0: at once */
    bool backward;
    unsigned staging;
};

struct expert;
struct parameters;        /* runtime/train/parameters.h */
struct weight_format;     /* runtime/compute/weight_format.h */
struct quantized_numbers; /* runtime/compute/quantized.h */

/* With whom an expert's forwards can be enqueued together. */
struct expert_group {
    const void *kin; /* experts that have the same; NULL: with nobody */
    uint64_t rows;   /* of all batches together, at most */
    unsigned count;  /* of batches, at most: EXPERT_GROUP, or fewer that take as long as a launch had better */
};

/* The operations of one kind of block. */
struct expert_ops {
    const char *name;
    /* The tensors of one row. -EINVAL with a logged message if config asks for what the block cannot be. */
    int (*schema)(const struct config_expert *config, struct schema *inputs, struct schema *outputs);
    /* Device memory of one expert (own), and what all experts of a device share (workspace: the largest one counts). An
     * expert that cannot be is an error. */
    int (*memory)(const struct device *device, const struct config_expert *config, uint64_t *own, uint64_t *workspace);
    /* Allocates, and initialises the parameters from seed: the same seed gives the same values on every device. Those
     * of an entry with weights are zeros until they are loaded. */
    int (*create)(struct expert **expert, struct device *device, const struct config_expert *config, uint64_t seed);
    /* Runs every kernel that a batch will need, so that nothing compiles later; changes no parameter. */
    int (*warm)(struct expert *expert);
    int (*forward)(struct expert *expert, struct expert_batch *batch);
    int (*backward)(struct expert *expert, struct expert_batch *batch);
    /* As expert_group_of and expert_forward_group; NULL: none of its forwards goes with another. */
    struct expert_group (*group_of)(const struct expert *expert);
    int (*forward_group)(struct expert *const *experts, struct expert_batch *const *batches, unsigned count);
    int (*finish)(struct expert *expert, struct expert_batch *batch);
    struct parameters *(*parameters)(struct expert *expert); /* NULL: the block has none */
    void (*destroy)(struct expert **expert);
};

/* The part that every block has; a block's own struct begins with it. Read it, but let only the expert write it. */
struct expert {
    const struct expert_ops *ops;
    struct device *device;
    const struct config_expert *config; /* kept, not copied */
    const char *block;                  /* its name, for people */
    struct schema inputs, outputs;
    struct {
        const char *name;
        double value;
        char text[BLOCK_WORD_SIZE];   /* of one that is a word; "" */
    } arguments[BLOCK_ARGUMENTS_MAX]; /* of the block */
    unsigned arguments_count;
    struct expert_counters counters;
    unsigned accumulated; /* batches whose gradients wait for the step */
    bool backward_in_flight;
    struct optimizer_settings optimizer; /* kind OPTIMIZER_NONE for a block without parameters */
};

/* For what trains it (runtime/train/optimizer_step.h). */
static inline struct trainee expert_trainee(struct expert *expert)
{
    return (struct trainee){&expert->optimizer, &expert->counters, &expert->accumulated};
}

/* What runs an expert's block: by its name in the configuration, or by its path (runtime/blocks/own_expert.h); NULL if
 * there is none. */
const struct expert_ops *expert_find(const struct config_expert *config);

int expert_schema(const struct config_expert *config, struct schema *inputs, struct schema *outputs);
/* Device bytes that one expert of this entry takes, and that all of a device share; for the check before any is made.
 */
int expert_memory(const struct device *device, const struct config_expert *config, uint64_t *own, uint64_t *workspace);
/* Creates and warms. `config` must outlive the expert. -EINVAL for an unknown block. On failure *expert is NULL. */
int expert_create(struct expert **expert, struct device *device, const struct config_expert *config, uint64_t seed);
void expert_destroy(struct expert **expert); /* finish its batches first */

int expert_forward(struct expert *expert, struct expert_batch *batch);
int expert_backward(struct expert *expert, struct expert_batch *batch);
struct expert_group expert_group_of(const struct expert *expert);
/* Enqueues forwards of 1 to EXPERT_GROUP different experts of one group in as few launches as the device can make of
 * them: between two of them none of its units waits for the others. Each batch's outputs are what they are by itself,
 * and each is finished by itself; but they are done at the same time. An error says that none of them is enqueued, and
 * one of expert_finish may be due to any of them: then each is to be tried by itself. */
int expert_forward_group(struct expert *const *experts, struct expert_batch *const *batches, unsigned count);
int expert_finish(struct expert *expert, struct expert_batch *batch);
/* After expert_finish of a backward whose step was applied: a tensor of which a value would have become NaN or
 * infinite, and was left as it was; NULL: there is none. */
const char *expert_held(const struct expert *expert);
/* After a skipped backward whose tasks are done one by one, and counted then. */
void expert_uncount_skipped(struct expert *expert);
bool expert_batch_is_done(const struct expert_batch *batch); /* expert_finish would not wait */

/* The state, for checkpoints. Tensors are numbered; the order never changes; parameters come first. */
unsigned expert_tensors(const struct expert *expert);
void expert_tensor(const struct expert *expert, unsigned index, struct expert_tensor *tensor);
/* The number of the tensor of that name, or -ENOENT. */
int expert_tensor_find(const struct expert *expert, const char *name);
/* Copies one tensor's count floats out or in (converting to and from the device's packing). Waits for the device. */
int expert_tensor_read(struct expert *expert, unsigned index, float *values);
int expert_tensor_write(struct expert *expert, unsigned index, const float *values);
/* The format in which a file must have the tensor, as it is kept as it is there (precision: fp8, mxfp4): floats are
 * -EINVAL. NULL: any. */
const struct weight_format *expert_tensor_format(const struct expert *expert, unsigned index);
int expert_tensor_write_numbers(struct expert *expert, unsigned index, const struct quantized_numbers *numbers);
/* Sets the counters, and so the place in the schedule, when a checkpoint is loaded. accumulated is how many batches the
 * "optimizer.gradient" tensors hold. */
void expert_set_counters(struct expert *expert, const struct expert_counters *counters, unsigned accumulated);

/* A consistent copy of the whole state, taken between batches at the speed of one device-to-host copy into memory
 * of expert_snapshot_bytes() (keep and reuse it: fresh pages cost more than the copy). Converting it to named tensors
 * is slow and may be done in any one other thread while the expert works on: it reads nothing of the expert that
 * changes. */
struct expert_snapshot {
    void *memory;
    struct expert_counters counters;
    unsigned accumulated;
};
uint64_t expert_snapshot_bytes(const struct expert *expert);
int expert_snapshot_take(struct expert *expert, struct expert_snapshot *snapshot);
void expert_snapshot_tensor(const struct expert *expert, const struct expert_snapshot *snapshot, unsigned index,
                            float *values);

#endif
