/* What each layer computes, forward and backward, in plain C: one file a layer, beside it, <layer>_reference.c. Kernels
 * are compared with it; no server has it in it. Matrices are row-major; sums are made in double, and each result is
 * rounded to float once. Formulas are those of docs/blocks.md. */
#ifndef EXPERTD_RUNTIME_REFERENCE_H
#define EXPERTD_RUNTIME_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>

/* Element by element, by the flags of runtime/compute/linear.h. Of an activation's flag its value at x (without one:
 * x), of a derivative's the slope (without one: 1); and all of an epilogue behind the bias. `second` is read if the
 * flags have use for it. */
double reference_activation(unsigned flags, double x);
double reference_slope(unsigned flags, double x);
double reference_applied(unsigned flags, double value, double second);
void reference_apply(size_t count, unsigned flags, const float *a, const float *second, float *out);
/* y = x * scale * weight + bias + shift, of rows of columns; weight and bias, each of which may be NULL, have a number
 * for each column of `period` rows, and then again. And its gradients if `grad` is not NULL; they are overwritten. */
struct reference_affine {
    size_t rows, columns, period;
    double scale, shift;
    const float *x, *weight, *bias;
    float *y;
    const float *grad;
    float *grad_x, *grad_weight, *grad_bias;
};
void reference_affine(const struct reference_affine *call);
/* The mask is of bools, or `wide`, of int64; it may lie at any byte. Its way back is the same, of gradients. */
void reference_mask(size_t count, const float *x, const void *mask, bool wide, double scale, float *y);

/* out[rows][n] = epilogue(a[rows][k] b[k][n]); flags of runtime/compute/linear.h. What they do not need may be NULL. */
struct reference_product {
    size_t rows, n, k;
    unsigned flags;
    const float *a, *b, *bias, *second;
    float *out, *save;
};
void reference_product(const struct reference_product *call);
/* Of `count` pairs {gate, what it lets through} one result each; and back, of dy the gradients of the pairs. The
 * activation and its derivative by the flags. */
struct reference_gate {
    size_t count;
    unsigned flags;
    double limit, alpha, shift;
    const float *pairs, *dy;
    float *out, *gradients;
};
void reference_gate(const struct reference_gate *gate);
void reference_gate_backward(const struct reference_gate *gate);
/* The linear layer's gradients: dw[k][n] (+)= x[rows][k]^T dy[rows][n]. */
void reference_gradient(size_t rows, size_t n, size_t k, const float *x, const float *dy, bool accumulate, float *dw);

void reference_layer_norm(size_t rows, size_t columns, double eps, const float *gamma, const float *beta,
                          const float *x, float *y);
/* dgamma, dbeta and dbias are overwritten; stats[row] = {mean, 1 / deviation}. */
struct reference_norm_gradients {
    float *dx, *stats, *dgamma, *dbeta, *dbias;
};
void reference_layer_norm_backward(size_t rows, size_t columns, double eps, const float *gamma, const float *x,
                                   const float *dy, const struct reference_norm_gradients *out);
void reference_rms_norm(size_t rows, size_t columns, double eps, const float *gamma, const float *x, float *y);
/* dgamma is overwritten; stats[row] = 1 / root of the mean of squares. */
void reference_rms_norm_backward(size_t rows, size_t columns, double eps, const float *gamma, const float *x,
                                 const float *dy, float *dx, float *stats, float *dgamma);

/* Attention (runtime/layers/attention.h), and its gradients if `grad` is not NULL. Matrices of rows * tokens rows and
 * heads * width columns; a mask of zeros leaves nothing out. */
struct reference_attention {
    size_t rows, tokens, heads, width;
    const float *q, *k, *v;
    const unsigned char *mask;
    float *out;
    const float *grad;
    float *grad_q, *grad_k, *grad_v;
};
void reference_attention(const struct reference_attention *call);

/* The product of two values (docs/blocks.md), and its gradients if `grad` is not NULL. Of each of `matrices` and heads
 * a[rows][count], b[count][columns] or (b_across) [columns][count], out[rows][columns]; in memory
 * [matrices][rows][heads] [columns] of each. */
struct reference_matmul {
    size_t matrices, heads, rows, columns, count;
    bool b_across;
    double scale;
    const float *a, *b;
    float *out;
    const float *grad;
    float *grad_a, *grad_b;
};
void reference_matmul(const struct reference_matmul *call);

void reference_column_sums(size_t rows, size_t columns, const float *data, float *sums);

#endif
