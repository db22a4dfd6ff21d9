/* How a block's layers become launches: which of them are done in the epilogue of a product.
 *
 * A product ends with what its epilogue does to each sum before it is stored: bias, activation, and then one more
 * operand, added or multiplied. So
 *   - a linear layer's bias and activation are its product's;
 *   - a sum of which a term is a linear layer that nothing else reads becomes that layer's last addition: a residual,
 *     or the sum of several linear layers, one behind the other;
 *   - a product of two values, of which one is a linear layer that nothing else reads, likewise (a gate);
 *   - in a backward, a value's gradient goes through the activation that made it in the product that makes the
 *     gradient, and a product adds to the gradient what was there (runtime/layers/plan.c);
 *   - a norm works in place on what it alone reads (plan.c), and the gradient of a bias under a layer norm is summed
 *     with the norm's own (runtime/layers/layer_norm.c).
 * A layer that goes into another one's product is computed where that other one is: everything that it reads is there
 * by then. */
#ifndef EXPERTD_RUNTIME_FUSION_H
#define EXPERTD_RUNTIME_FUSION_H

#include "runtime/layers/plan.h"

/* Fills the plan's values and layers from its graph. */
void fusion_find(struct plan *plan);

/* The flags of linear_call for an activation, and for the way back through it; 0 of none. */
unsigned fusion_activation(enum block_activation activation);
unsigned fusion_activation_gradient(enum block_activation activation);

#endif
