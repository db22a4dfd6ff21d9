/* Steps of the products that layers with weights share: y = x W^T + b, and back. */
#ifndef EXPERTD_RUNTIME_PRODUCT_H
#define EXPERTD_RUNTIME_PRODUCT_H

#include "runtime/layers/plan.h"

/* A layer's weight and bias, as numbers of parameters; no bias: PLAN_NONE. Of parameters in pairs, the first ones. */
struct product {
    int weight, bias;
    uint64_t out, in; /* columns in memory: kernel_paired_columns() of pairs */
};

/* The product with its epilogue: y, and what the flags (of runtime/compute/linear.h) say besides. `save` is a buffer or
 * PLAN_NONE, as `second`; `gate` may be NULL. */
struct product_forward {
    int x, out, second, save;
    unsigned flags;
    const struct linear_gate *gate; /* kept */
};
void product_forward(struct plan *plan, const struct product *product, const struct product_forward *forward);

/* The gradients, of dy = the gradient of x W^T + b: of the bias and of the weight, for which dy and x are in panels;
 * and of x, where somebody wants it. */
void product_bias_gradient(struct plan *plan, const struct product *product, int dy);
void product_weight_gradient(struct plan *plan, const struct product *product, int x, int dy);
void product_input_gradient(struct plan *plan, const struct product *product, unsigned value, int dy);

#endif
