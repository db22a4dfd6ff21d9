/* A kind of layer: what it adds to a plan. One file a kind; what a declaration may say of it is common/block_kinds.c's.
 *
 * A kind that cannot do better is four functions:
 *     parameters  names and shapes, in the order of the state dict
 *     needs       which values the backward reads (plan_need), and whether it needs more that only the forward knows
 *                 (layer->saves)
 *     forward     reads its operands (plan_read), writes its value (plan_write)
 *     backward    takes the gradient of its value (plan_gradient) to those of its parameters, if plan->trains, and of
 *                 its operands, if they are wanted (plan_wants): every operand gets one contribution for each time that
 *                 it is read
 * each of which adds steps whose launchers run when a batch comes. */
#ifndef EXPERTD_RUNTIME_LAYER_H
#define EXPERTD_RUNTIME_LAYER_H

#include "runtime/layers/plan.h"

struct layer_kind {
    const char *name;
    /* Any of these but forward and backward may be NULL: nothing to do. */
    void (*parameters)(struct plan *plan, struct plan_layer *layer);
    void (*needs)(struct plan *plan, struct plan_layer *layer);
    void (*forward)(struct plan *plan, struct plan_layer *layer);
    void (*backward)(struct plan *plan, struct plan_layer *layer);
    bool in_place; /* its forward may write its value over its only operand */
};

/* The known kinds; NULL for a name that is none, or whose kernels this program has not. */
const struct layer_kind *layer_kind_find(const char *name);

extern const struct layer_kind layer_linear;
extern const struct layer_kind layer_gated;
extern const struct layer_kind layer_activation;
extern const struct layer_kind layer_add;
extern const struct layer_kind layer_multiply;
extern const struct layer_kind layer_affine;
extern const struct layer_kind layer_mask;
extern const struct layer_kind layer_layer_norm;
extern const struct layer_kind layer_rms_norm;
extern const struct layer_kind layer_attention;
extern const struct layer_kind layer_matmul;

/* Adds the parameter <layer>.<suffix>, or `name` if it is not NULL, and returns its number. in 0: a vector. */
int layer_parameter(struct plan *plan, const struct plan_layer *layer, const char *name, const char *suffix,
                    uint64_t out, uint64_t in, enum parameter_init init);
/* Of a layer's option (enum block_init). */
enum parameter_init layer_init(unsigned init);

#endif
