/* A forward through a mixture or switch, and what its backward needs of it (struct expertd_pass). Both kinds differ in
 * how scores become weights, which they do themselves. */
#ifndef EXPERTD_CLIENT_MOE_PASS_H
#define EXPERTD_CLIENT_MOE_PASS_H

#include "client/moe_calls.h"

struct expertd_pass {
    struct moe *moe;
    struct moe_route route;
    struct moe_calls calls;
    float *x;           /* rows x in_features: what the gate saw */
    float *scores;      /* rows x n_scores; of a switch their softmax over each dimension */
    float *weights;     /* rows x k: of each slot's output; 0 without an answer */
    float *noise;       /* a switch's jitter, rows x in_features; NULL: none */
    float *utilization; /* a switch's, n_scores, at the time of the forward; NULL */
};

/* x, scores and weights are there, x is copied from inputs; route and calls are empty. Checks the inputs as the options
 * say. NULL: *status, and moe->message. */
struct expertd_pass *moe_pass_new(struct moe *moe, const float *inputs, size_t rows, enum expertd_status *status);

/* Routes by `scores` and calls the experts. */
enum expertd_status moe_pass_call(struct expertd_pass *pass, const float *inputs, const float *scores);
/* outputs (rows x out_features) = sum over the answers of weight times output. An error, and outputs as they were, if a
 * row without answers is one. */
enum expertd_status moe_pass_combine(struct expertd_pass *pass, float *outputs);

/* The experts' backward; then grad_weights (rows x k): of each answered slot, grad_outputs times its output; 0 of the
 * others. */
enum expertd_status moe_pass_backward(struct expertd_pass *pass, const float *grad_outputs, float *grad_weights);
/* The gate's gradients from those of its scores, and grad_inputs (NULL: not wanted): the gate's share and the experts'.
 */
enum expertd_status moe_pass_finish(struct expertd_pass *pass, const float *grad_scores, float *grad_inputs);

#endif
