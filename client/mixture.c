/* hivemind's RemoteMixtureOfExperts: outputs averaged by the softmax of the scores of those that answered. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "client/moe_pass.h"

struct expertd_mixture {
    struct moe moe;
};

int expertd_mixture_new(struct expertd_mixture **result, struct expertd_dht *dht,
                        const struct expertd_mixture_options *options)
{
    struct expertd_mixture *mixture = calloc(1, sizeof *mixture);
    *result = NULL;
    if (!mixture)
        return -ENOMEM;
    const int rc = moe_init(&mixture->moe, dht, options);
    if (rc < 0)
        expertd_mixture_destroy(&mixture);
    *result = mixture;
    return rc;
}

void expertd_mixture_destroy(struct expertd_mixture **mixture)
{
    if (*mixture)
        moe_clear(&(*mixture)->moe);
    free(*mixture);
    *mixture = NULL;
}

const char *expertd_mixture_message(const struct expertd_mixture *mixture)
{
    return mixture->moe.message;
}

struct expertd_gate *expertd_mixture_gate(struct expertd_mixture *mixture)
{
    return &mixture->moe.gate;
}

/* NaN has no place in an order, +Inf none in a softmax. */
static bool scores_good(const float *scores, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!(scores[i] < INFINITY))
            return false;
    return true;
}

/* Logits of the answered slots, then their softmax within each row. The greatest is subtracted before, so that no
 * exponential overflows and none of a row that has answers is 0 / 0. */
static void weigh(struct expertd_pass *pass)
{
    const struct moe_route *route = &pass->route;
    const size_t n_scores = pass->moe->gate.n_scores;
    for (size_t place = 0; place < route->rows * route->k; place++)
        pass->weights[place] = -INFINITY;
    for (size_t c = 0; c < pass->calls.count; c++) {
        const struct moe_call *call = &pass->calls.calls[c];
        for (size_t i = 0; call->forward_ok && i < call->count; i++)
            pass->weights[call->places[i]] =
                moe_route_score(route, call->expert, pass->scores + call->places[i] / route->k * n_scores);
    }
    for (size_t r = 0; r < route->rows; r++) {
        float *weights = pass->weights + r * route->k;
        float greatest = -INFINITY;
        float sum = 0;
        for (size_t s = 0; s < route->k; s++)
            greatest = fmaxf(greatest, weights[s]);
        for (size_t s = 0; s < route->k; s++) {
            weights[s] = weights[s] == -INFINITY ? 0 : expf(weights[s] - greatest);
            sum += weights[s];
        }
        for (size_t s = 0; s < route->k && sum > 0; s++)
            weights[s] /= sum;
    }
}

enum expertd_status expertd_mixture_forward(struct expertd_mixture *mixture, const float *inputs, size_t rows,
                                            float *outputs, struct expertd_pass **result)
{
    enum expertd_status status;
    struct expertd_pass *pass = moe_pass_new(&mixture->moe, inputs, rows, &status);
    if (result)
        *result = NULL;
    if (!pass)
        return status;
    moe_gate_scores(&mixture->moe.gate, pass->x, rows, pass->scores);
    if (!scores_good(pass->scores, rows * mixture->moe.gate.n_scores))
        status = moe_fail(&mixture->moe, EXPERTD_INVALID_ARGUMENT, "the gate's scores have NaN or +Inf");
    if (status == EXPERTD_OK)
        status = moe_pass_call(pass, inputs, pass->scores);
    if (status == EXPERTD_OK) {
        weigh(pass);
        status = moe_pass_combine(pass, outputs);
    }
    if (status == EXPERTD_OK && result)
        *result = pass;
    else
        expertd_pass_release(&pass);
    return status;
}

/* dL/dlogit = w * (dL/dw - sum of w * dL/dw), for each coordinate of the expert. */
static void softmax_backward(const struct expertd_pass *pass, const float *grad_weights, float *grad_scores)
{
    const struct moe_route *route = &pass->route;
    const size_t n_scores = pass->moe->gate.n_scores;
    for (size_t r = 0; r < route->rows; r++) {
        const float *weights = pass->weights + r * route->k;
        const float *grads = grad_weights + r * route->k;
        float mean = 0;
        for (size_t s = 0; s < route->k; s++)
            mean += weights[s] * grads[s];
        for (size_t s = 0; s < route->k; s++) {
            const uint32_t expert = route->slots[r * route->k + s];
            for (size_t d = 0; d < route->dims && weights[s] > 0; d++)
                grad_scores[r * n_scores + route->experts[expert].scores[d]] += weights[s] * (grads[s] - mean);
        }
    }
}

enum expertd_status expertd_mixture_backward(struct expertd_mixture *mixture, struct expertd_pass **pointer,
                                             const float *grad_outputs, float *grad_inputs)
{
    struct expertd_pass *pass = *pointer;
    struct moe *moe = &mixture->moe;
    float *grad_weights = malloc(pass->route.rows * pass->route.k * sizeof *grad_weights);
    float *grad_scores = calloc(pass->route.rows * moe->gate.n_scores, sizeof *grad_scores);
    enum expertd_status status = EXPERTD_RESOURCE_EXHAUSTED;
    if (grad_weights && grad_scores)
        status = moe_pass_backward(pass, grad_outputs, grad_weights);
    else
        moe_fail(moe, status, "no memory");
    if (status == EXPERTD_OK) {
        softmax_backward(pass, grad_weights, grad_scores);
        status = moe_pass_finish(pass, grad_scores, grad_inputs);
    }
    free(grad_weights);
    free(grad_scores);
    expertd_pass_release(pointer);
    return status;
}
