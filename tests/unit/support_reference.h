/* Every kernel in plain C, to compare what a device computes with. Matrices are row-major; sums are made in double, and
 * each result is rounded to float once. A kernel adds in another order and in float, so its results differ by the
 * rounding of its sums: SUPPORT_TOLERANCE, of the greatest magnitude (support_error). Formulas are those of
 * docs/blocks.md, runtime/layers/layer_norm.h and runtime/train/optimizer.h. */
#ifndef EXPERTD_TESTS_SUPPORT_REFERENCE_H
#define EXPERTD_TESTS_SUPPORT_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/train/optimizer.h"

#define SUPPORT_TOLERANCE 1e-5

/* out[rows][n] = epilogue(a[rows][k] b[k][n]); flags of runtime/compute/linear.h. What they do not need may be NULL. */
struct support_product {
    size_t rows, n, k;
    unsigned flags;
    const float *a, *b, *bias, *second;
    float *out, *save;
};
void support_reference_product(const struct support_product *call);
/* Of `count` pairs {gate, what it lets through} one result each; and back, of dy the gradients of the pairs. The
 * activation and its derivative by the flags. */
struct support_gate {
    size_t count;
    unsigned flags;
    double limit, alpha, shift;
    const float *pairs, *dy;
    float *out, *gradients;
};
void support_reference_gate(const struct support_gate *gate);
void support_reference_gate_backward(const struct support_gate *gate);
/* dw[k][n] (+)= x[rows][k]^T dy[rows][n]. */
void support_reference_gradient(size_t rows, size_t n, size_t k, const float *x, const float *dy, bool accumulate,
                                float *dw);

void support_reference_layer_norm(size_t rows, size_t columns, double eps, const float *gamma, const float *beta,
                                  const float *x, float *y);
/* dgamma, dbeta and dbias are overwritten; stats[row] = {mean, 1 / deviation}. */
struct support_norm_gradients {
    float *dx, *stats, *dgamma, *dbeta, *dbias;
};
void support_reference_layer_norm_backward(size_t rows, size_t columns, double eps, const float *gamma, const float *x,
                                           const float *dy, const struct support_norm_gradients *out);
void support_reference_rms_norm(size_t rows, size_t columns, double eps, const float *gamma, const float *x, float *y);
/* dgamma is overwritten; stats[row] = 1 / root of the mean of squares. */
void support_reference_rms_norm_backward(size_t rows, size_t columns, double eps, const float *gamma, const float *x,
                                         const float *dy, float *dx, float *stats, float *dgamma);

/* Attention (runtime/layers/attention.h), and its gradients if `grad` is not NULL. Matrices of rows * tokens rows and
 * heads * width columns; a mask of zeros leaves nothing out. */
struct support_attention {
    size_t rows, tokens, heads, width;
    const float *q, *k, *v;
    const unsigned char *mask;
    float *out;
    const float *grad;
    float *grad_q, *grad_k, *grad_v;
};
void support_reference_attention(const struct support_attention *call);
void support_reference_column_sums(size_t rows, size_t columns, const float *data, float *sums);

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
