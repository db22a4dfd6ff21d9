/* Steps that do something element by element. */
#ifndef EXPERTD_RUNTIME_ELEMENTWISE_H
#define EXPERTD_RUNTIME_ELEMENTWISE_H

#include "runtime/layers/layer.h"

/* out = what the flags (of runtime/compute/linear.h: activations, ways back through them, LINEAR_MULTIPLY, LINEAR_ADD)
 * make of a, and of second, if they take one. Matrices of one size, row-major or in panels. */
void elementwise_add_step(struct plan *plan, unsigned flags, int a, int second, int out);

#endif
