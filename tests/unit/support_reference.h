/* What tests compare kernels with beside the layers' references (runtime/layers/reference.h): roundings, the
 * optimizer's step in plain C, and matrices in panels. A kernel adds in another order and in float, so its results
 * differ by the rounding of its sums: SUPPORT_TOLERANCE, of the greatest magnitude (support_error). */
#ifndef EXPERTD_TESTS_SUPPORT_REFERENCE_H
#define EXPERTD_TESTS_SUPPORT_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/layers/reference.h"
#include "runtime/train/optimizer.h"

#define SUPPORT_TOLERANCE 1e-5

/* To what "fp32", "tf32" or "fp16" (config_device.precision) hold. */
void support_round(const char *precision, const float *values, size_t count, float *rounded);
/* What the operands of products are rounded to by a provider with a precision (runtime/compute/linear.h): activations
 * of those that multiply no gradients, the operands that are no weights of those that do, and weights. */
enum support_operand { SUPPORT_ACTIVATION, SUPPORT_OF_GRADIENT, SUPPORT_WEIGHT };
void support_round_operand(const char *kernel, const char *precision, enum support_operand operand, const float *values,
                           size_t count, float *rounded);

double support_reference_norm(const float *values, size_t count);
/* Update number `update` (from 0) of `count` parameters, their gradients times `factor`. v: adams only; greatest: with
 * amsgrad. */
void support_reference_step(const struct optimizer_settings *settings, unsigned update, double factor, size_t count,
                            const float *gradient, float *w, float *m, float *v, float *greatest);

/* To and from [ceil(columns / panel)][rows][panel]; packing fills the pad columns with 0. A panel of 0: row-major,
 * with none. */
void support_reference_pack(size_t rows, size_t columns, size_t panel, const float *plain, float *packed);
void support_reference_unpack(size_t rows, size_t columns, size_t panel, const float *packed, float *plain);

#endif
