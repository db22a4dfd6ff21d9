/* hivemind's RemoteSwitchMixtureOfExperts: one expert a row, its output times its probability, and a loss that keeps
 * the experts busy alike (Switch Transformers, Fedus, Zoph, Shazeer 2021, section 2.2, over each dimension of the
 * grid). */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/moe_pass.h"

struct expertd_switch {
    struct moe moe;
    float *utilization; /* n_scores */
};

/* ---- life ------------------------------------------------------------------------------------------------------ */

int expertd_switch_new(struct expertd_switch **result, struct expertd_dht *dht,
                       const struct expertd_mixture_options *options)
{
    struct expertd_switch *mixture = calloc(1, sizeof *mixture);
    *result = NULL;
    if (!mixture)
        return -ENOMEM;
    int rc = moe_init(&mixture->moe, dht, options);
    if (rc == 0) {
        mixture->utilization = malloc(mixture->moe.gate.n_scores * sizeof *mixture->utilization);
        rc = mixture->utilization ? 0 : -ENOMEM;
    }
    if (rc < 0) {
        expertd_switch_destroy(&mixture);
        return rc;
    }
    float *utilization = mixture->utilization;
    for (size_t d = 0; d < mixture->moe.options.n_grid; d++)
        for (uint32_t c = 0; c < mixture->moe.grid_size[d]; c++)
            *utilization++ = 1 / (float)mixture->moe.grid_size[d];
    *result = mixture;
    return 0;
}

void expertd_switch_destroy(struct expertd_switch **mixture)
{
    if (*mixture) {
        moe_clear(&(*mixture)->moe);
        free((*mixture)->utilization);
    }
    free(*mixture);
    *mixture = NULL;
}

const char *expertd_switch_message(const struct expertd_switch *mixture)
{
    return mixture->moe.message;
}

struct expertd_gate *expertd_switch_gate(struct expertd_switch *mixture)
{
    return &mixture->moe.gate;
}

const float *expertd_switch_utilization(const struct expertd_switch *mixture)
{
    return mixture->utilization;
}

/* ---- forward --------------------------------------------------------------------------------------------------- */

/* What the gate sees is x times the noise. */
static bool jitter(struct expertd_pass *pass)
{
    struct moe *moe = pass->moe;
    const size_t count = pass->route.rows * moe->options.in_features;
    const float eps = moe->options.jitter_eps;
    if (eps == 0)
        return true;
    pass->noise = malloc(count * sizeof *pass->noise);
    for (size_t i = 0; pass->noise && i < count; i++) {
        pass->noise[i] = 1 + eps * (float)(2 * moe_random(moe) - 1);
        pass->x[i] *= pass->noise[i];
    }
    return pass->noise != NULL;
}

/* Scores of the coordinates that are not kept become -Inf in all rows. A dimension that would lose all keeps one. */
static void drop_coordinates(const struct expertd_pass *pass)
{
    struct moe *moe = pass->moe;
    float *scores = pass->scores;
    const float kept = moe->options.grid_dropout;
    for (size_t d = 0; d < moe->options.n_grid && kept < 1; d++) {
        const uint32_t size = moe->grid_size[d];
        const uint32_t last = (uint32_t)(moe_random(moe) * size);
        for (uint32_t c = 0; c < size; c++)
            if (moe_random(moe) >= kept && c != last)
                for (size_t r = 0; r < pass->route.rows; r++)
                    scores[r * moe->gate.n_scores + c] = -INFINITY;
        scores += size;
    }
}

/* In place, over each dimension of each row. False for NaN or +Inf, or a row of a dimension without any finite score.
 */
static bool softmax(const struct moe *moe, float *scores, size_t rows)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t d = 0; d < moe->options.n_grid; d++) {
            const uint32_t size = moe->grid_size[d];
            float greatest = -INFINITY;
            float sum = 0;
            for (uint32_t c = 0; c < size; c++) {
                if (!(scores[c] < INFINITY))
                    return false;
                greatest = fmaxf(greatest, scores[c]);
            }
            if (greatest == -INFINITY)
                return false;
            for (uint32_t c = 0; c < size; c++) {
                scores[c] = expf(scores[c] - greatest);
                sum += scores[c];
            }
            for (uint32_t c = 0; c < size; c++)
                scores[c] /= sum;
            scores += size;
        }
    }
    return true;
}

static const float *row_of(const struct expertd_pass *pass, uint32_t place)
{
    return pass->scores + place / pass->route.k * pass->moe->gate.n_scores;
}

/* The probability of an expert: the product over the dimensions. */
static float probability(const struct moe_route *route, uint32_t expert, const float *softmaxed)
{
    float product = 1;
    for (size_t d = 0; d < route->dims; d++)
        product *= softmaxed[route->experts[expert].scores[d]];
    return product;
}

/* pass->scores are softmaxed. Of the answered slots; and how often each coordinate was used by them. */
static void weigh(struct expertd_pass *pass, float *used)
{
    const struct moe_route *route = &pass->route;
    memset(used, 0, pass->moe->gate.n_scores * sizeof *used);
    for (size_t c = 0; c < pass->calls.count; c++) {
        const struct moe_call *call = &pass->calls.calls[c];
        if (!call->forward_ok)
            continue;
        for (size_t i = 0; i < call->count; i++)
            pass->weights[call->places[i]] = probability(route, call->expert, row_of(pass, call->places[i]));
        for (size_t d = 0; d < route->dims; d++)
            used[route->experts[call->expert].scores[d]] += (float)call->count;
    }
}

/* The moving average of the shares of use, dimension by dimension. A batch without any answer says nothing. */
static void update_utilization(struct expertd_switch *mixture, const float *used)
{
    const struct moe *moe = &mixture->moe;
    const float alpha = moe->options.utilization_alpha;
    float *utilization = mixture->utilization;
    for (size_t d = 0; d < moe->options.n_grid; d++) {
        const uint32_t size = moe->grid_size[d];
        float sum = 0;
        for (uint32_t c = 0; c < size; c++)
            sum += used[c];
        for (uint32_t c = 0; c < size && sum > 0; c++)
            utilization[c] = alpha * utilization[c] + (1 - alpha) * used[c] / sum;
        utilization += size;
        used += size;
    }
}

/* Sum over the dimensions of size * sum over the coordinates of mean probability * utilization. */
static float balancing_loss(const struct expertd_pass *pass, const float *utilization)
{
    const struct moe *moe = pass->moe;
    double loss = 0;
    size_t first = 0;
    for (size_t d = 0; d < moe->options.n_grid; d++) {
        double sum = 0;
        for (size_t r = 0; r < pass->route.rows; r++)
            sum += moe_dot(pass->scores + r * moe->gate.n_scores + first, utilization + first, moe->grid_size[d]);
        loss += moe->grid_size[d] * sum / (double)pass->route.rows;
        first += moe->grid_size[d];
    }
    return (float)loss;
}

/* Scores, what is dropped of them, and their softmax; then the calls by the scores. */
static enum expertd_status choose_and_call(struct expertd_pass *pass, const float *inputs, bool training)
{
    struct moe *moe = pass->moe;
    const size_t count = pass->route.rows * moe->gate.n_scores;
    if (training && !jitter(pass))
        return moe_fail(moe, EXPERTD_RESOURCE_EXHAUSTED, "no memory");
    moe_gate_scores(&moe->gate, pass->x, pass->route.rows, pass->scores);
    if (training)
        drop_coordinates(pass);
    float *scores = calloc(count, sizeof *scores);
    if (!scores)
        return moe_fail(moe, EXPERTD_RESOURCE_EXHAUSTED, "no memory");
    memcpy(scores, pass->scores, count * sizeof *scores);
    const enum expertd_status status =
        softmax(moe, pass->scores, pass->route.rows)
            ? moe_pass_call(pass, inputs, scores)
            : moe_fail(moe, EXPERTD_INVALID_ARGUMENT, "the gate's scores have NaN or Inf");
    free(scores);
    return status;
}

static enum expertd_status weigh_and_combine(struct expertd_switch *mixture, struct expertd_pass *pass, float *outputs,
                                             float *loss, bool training)
{
    const size_t size = mixture->moe.gate.n_scores * sizeof(float);
    float *used = calloc(1, size);
    pass->utilization = calloc(1, size);
    if (!used || !pass->utilization) {
        free(used);
        return moe_fail(&mixture->moe, EXPERTD_RESOURCE_EXHAUSTED, "no memory");
    }
    weigh(pass, used);
    const enum expertd_status status = moe_pass_combine(pass, outputs);
    if (status == EXPERTD_OK) {
        if (training)
            update_utilization(mixture, used);
        memcpy(pass->utilization, mixture->utilization, size);
        if (loss)
            *loss = balancing_loss(pass, mixture->utilization);
    }
    free(used);
    return status;
}

enum expertd_status expertd_switch_forward(struct expertd_switch *mixture, const float *inputs, size_t rows,
                                           float *outputs, float *loss, struct expertd_pass **result)
{
    enum expertd_status status;
    struct expertd_pass *pass = moe_pass_new(&mixture->moe, inputs, rows, &status);
    const bool training = result != NULL;
    if (result)
        *result = NULL;
    if (!pass)
        return status;
    status = choose_and_call(pass, inputs, training);
    if (status == EXPERTD_OK)
        status = weigh_and_combine(mixture, pass, outputs, loss, training);
    if (status == EXPERTD_OK && result)
        *result = pass;
    else
        expertd_pass_release(&pass);
    return status;
}

/* ---- backward -------------------------------------------------------------------------------------------------- */

/* grad_scores becomes the gradient by the softmax: of the outputs by the probabilities' factors, and of the balancing
 * loss, in which the utilization counts as a constant. */
static void probabilities_backward(const struct expertd_pass *pass, const float *grad_weights, float balancing_weight,
                                   float *grad_scores)
{
    const struct moe *moe = pass->moe;
    const struct moe_route *route = &pass->route;
    const size_t n_scores = moe->gate.n_scores;
    for (size_t r = 0; r < route->rows; r++) {
        size_t first = 0;
        for (size_t d = 0; d < moe->options.n_grid; d++) {
            const float factor = balancing_weight * (float)moe->grid_size[d] / (float)route->rows;
            moe_axpy(factor, pass->utilization + first, grad_scores + r * n_scores + first, moe->grid_size[d]);
            first += moe->grid_size[d];
        }
    }
    for (size_t c = 0; c < pass->calls.count; c++) {
        const struct moe_call *call = &pass->calls.calls[c];
        for (size_t i = 0; call->forward_ok && i < call->count; i++) {
            const uint32_t place = call->places[i];
            const float *softmaxed = row_of(pass, place);
            for (size_t d = 0; d < route->dims; d++) {
                float others = 1;
                for (size_t e = 0; e < route->dims; e++)
                    others *= e == d ? 1 : softmaxed[route->experts[call->expert].scores[e]];
                grad_scores[place / route->k * n_scores + route->experts[call->expert].scores[d]] +=
                    grad_weights[place] * others;
            }
        }
    }
}

/* In place: from the gradient by the softmax to that by the scores. What was dropped has probability 0, and no
 * gradient. */
static void softmax_backward(const struct expertd_pass *pass, float *grad_scores)
{
    const struct moe *moe = pass->moe;
    const float *softmaxed = pass->scores;
    for (size_t r = 0; r < pass->route.rows; r++) {
        for (size_t d = 0; d < moe->options.n_grid; d++) {
            const uint32_t size = moe->grid_size[d];
            const float mean = moe_dot(softmaxed, grad_scores, size);
            for (uint32_t c = 0; c < size; c++)
                grad_scores[c] = softmaxed[c] * (grad_scores[c] - mean);
            softmaxed += size;
            grad_scores += size;
        }
    }
}

enum expertd_status expertd_switch_backward(struct expertd_switch *mixture, struct expertd_pass **pointer,
                                            const float *grad_outputs, float balancing_weight, float *grad_inputs)
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
        probabilities_backward(pass, grad_weights, balancing_weight, grad_scores);
        softmax_backward(pass, grad_scores);
        status = moe_pass_finish(pass, grad_scores, grad_inputs);
    }
    free(grad_weights);
    free(grad_scores);
    expertd_pass_release(pointer);
    return status;
}
