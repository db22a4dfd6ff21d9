/* What training makes of an expert, and what of it is kept: the names that its parameters, its optimizer and its
 * checkpoints share. */
#ifndef EXPERTD_RUNTIME_TRAINING_H
#define EXPERTD_RUNTIME_TRAINING_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/train/optimizer.h"

enum { EXPERT_TENSOR_NAME_SIZE = 96 };

/* One named tensor of an expert's state, as PyTorch's state_dict has it: row-major, (out, in) for a weight. Optimizer
 * state is "optimizer.exp_avg.<parameter>", "optimizer.exp_avg_sq.<parameter>" (adam, adamw), and with amsgrad
 * "optimizer.max_exp_avg_sq.<parameter>",
 * "optimizer.momentum_buffer.<...>" (sgd with momentum), and "optimizer.gradient.<...>" when gradients are accumulated
 * over batches. All are float32. */
struct expert_tensor {
    char name[EXPERT_TENSOR_NAME_SIZE];
    unsigned ndim;
    uint64_t dims[2];
    uint64_t count;        /* elements */
    bool is_parameter;     /* false: optimizer state, which a weights file need not have */
    float least, greatest; /* that an element may be */
};

/* What a backward did to the parameters. */
enum expert_step {
    EXPERT_STEP_NONE,        /* nothing was to be done: optimizer none, or a forward */
    EXPERT_STEP_ACCUMULATED, /* the gradients were added to those of earlier batches; the step comes later */
    EXPERT_STEP_APPLIED,
    EXPERT_STEP_SKIPPED, /* a gradient was NaN or Inf (or so large that the norm is): parameters and moments are
                            untouched */
};

struct expert_counters {
    uint64_t updates;  /* optimizer steps applied: Adam's t, and the schedule's step */
    uint64_t examples; /* rows of backward batches that were not skipped */
    uint64_t skipped;  /* backward batches skipped because of NaN or Inf */
};

/* How an expert is trained and how far it is; the expert's own. */
struct trainee {
    const struct optimizer_settings *optimizer; /* kind OPTIMIZER_NONE for a block without parameters */
    struct expert_counters *counters;
    unsigned *accumulated; /* batches whose gradients wait for the step */
};

#endif
