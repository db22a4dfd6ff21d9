/* A linear layer y = x W^T + b that is trained with Adam, in plain C: a client's own part of a model whose experts are
 * remote. It is small, so that no library is worth its while. Not thread-safe. */
#ifndef EXPERTD_EXAMPLES_DIGITS_LINEAR_H
#define EXPERTD_EXAMPLES_DIGITS_LINEAR_H

#include <stddef.h>
#include <stdint.h>

struct linear {
    size_t in, out;
    size_t count;             /* parameters: out x in weights, then out biases, in one block each */
    float *weight, *bias;     /* weight is out x in, as in PyTorch */
    float *moment1, *moment2; /* Adam's, of count floats each */
    uint64_t steps;           /* that Adam has made */
};

/* Weights and biases uniform within 1/sqrt(in), as PyTorch draws them; the same seed gives the same ones.
 * 0 or -ENOMEM (and then nothing is held). */
int linear_create(struct linear *layer, size_t in, size_t out, uint64_t seed);
void linear_destroy(struct linear *layer);

/* y (rows x out) of x (rows x in). */
void linear_forward(const struct linear *layer, const float *x, size_t rows, float *y);
/* Of grad_y (rows x out): adds the parameters' gradient to `gradient` (count floats), and sets grad_x (rows x in; NULL:
 * not wanted). */
void linear_backward(const struct linear *layer, const float *x, const float *grad_y, size_t rows, float *gradient,
                     float *grad_x);
/* One step of Adam (betas .9 and .999, epsilon 1e-8, bias-corrected). A gradient that holds a NaN or an infinity makes
 * no step: -EDOM. */
int linear_step(struct linear *layer, const float *gradient, float learning_rate);

/* Mean cross-entropy of logits (rows x classes) against labels, with its gradient in place of the logits; *right counts
 * the rows whose largest logit is the label's. */
double linear_cross_entropy(float *logits, const uint8_t *labels, size_t rows, size_t classes, size_t *right);

#endif
