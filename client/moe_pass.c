#include "client/moe_pass.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

enum { ROWS_MAX = 1 << 24 };

void expertd_pass_release(struct expertd_pass **pointer)
{
    struct expertd_pass *pass = *pointer;
    *pointer = NULL;
    if (!pass)
        return;
    moe_calls_clear(&pass->calls);
    moe_route_clear(&pass->route);
    free(pass->x);
    free(pass->scores);
    free(pass->weights);
    free(pass->noise);
    free(pass->utilization);
    free(pass);
}

struct expertd_pass *moe_pass_new(struct moe *moe, const float *inputs, size_t rows, enum expertd_status *status)
{
    const size_t width = moe->options.in_features;
    moe->message[0] = 0;
    if (rows == 0 || rows > ROWS_MAX) {
        *status = moe_fail(moe, EXPERTD_INVALID_ARGUMENT, "%zu rows; there must be 1 to %d", rows, ROWS_MAX);
        return NULL;
    }
    if (moe->options.detect_anomalies && !moe_all_finite(inputs, rows * width)) {
        *status = moe_fail(moe, EXPERTD_INVALID_ARGUMENT, "the inputs have NaN or Inf");
        return NULL;
    }
    struct expertd_pass *pass = calloc(1, sizeof *pass);
    if (pass) {
        pass->moe = moe;
        pass->x = malloc(rows * width * sizeof *pass->x);
        pass->scores = malloc(rows * moe->gate.n_scores * sizeof *pass->scores);
        pass->weights = calloc(rows * moe->options.k_best, sizeof *pass->weights);
    }
    if (!pass || !pass->x || !pass->scores || !pass->weights) {
        expertd_pass_release(&pass);
        *status = moe_fail(moe, EXPERTD_RESOURCE_EXHAUSTED, "no memory");
        return NULL;
    }
    memcpy(pass->x, inputs, rows * width * sizeof *pass->x);
    pass->route.rows = rows;
    *status = EXPERTD_OK;
    return pass;
}

enum expertd_status moe_pass_call(struct expertd_pass *pass, const float *inputs, const float *scores)
{
    struct moe *moe = pass->moe;
    const uint64_t end_ns = clock_now_ns() + moe->options.forward_timeout_ms * NS_PER_MS;
    const enum expertd_status status = moe_route_find(&pass->route, moe, scores, pass->route.rows, end_ns);
    if (status != EXPERTD_OK)
        return status;
    if (pass->route.n_experts == 0)
        return moe_fail(moe, EXPERTD_UNAVAILABLE, "no live expert of %s was found", moe->prefix);
    if (moe_calls_make(&pass->calls, moe, &pass->route) < 0)
        return moe_fail(moe, EXPERTD_RESOURCE_EXHAUSTED, "no memory");
    return moe_calls_forward(&pass->calls, moe, &pass->route, inputs, end_ns);
}

/* A row that has no answer; route.rows if each has one. */
static size_t unanswered_row(const struct expertd_pass *pass, unsigned char *answered)
{
    const size_t k = pass->route.k;
    for (size_t c = 0; c < pass->calls.count; c++)
        for (size_t i = 0; pass->calls.calls[c].forward_ok && i < pass->calls.calls[c].count; i++)
            answered[pass->calls.calls[c].places[i] / k] = 1;
    size_t row = 0;
    while (row < pass->route.rows && answered[row])
        row++;
    return row;
}

enum expertd_status moe_pass_combine(struct expertd_pass *pass, float *outputs)
{
    struct moe *moe = pass->moe;
    const size_t rows = pass->route.rows;
    const size_t width = moe->options.out_features;
    unsigned char *answered = calloc(rows, 1);
    if (!answered)
        return moe_fail(moe, EXPERTD_RESOURCE_EXHAUSTED, "no memory");
    const size_t row = unanswered_row(pass, answered);
    free(answered);
    if (row < rows && !moe->options.allow_zero_outputs) {
        char failures[sizeof moe->message];
        memcpy(failures, moe->message, sizeof failures);
        return moe_fail(moe, EXPERTD_DEADLINE_EXCEEDED, "row %zu has no answer; %.400s", row, failures);
    }
    memset(outputs, 0, rows * width * sizeof *outputs);
    for (size_t c = 0; c < pass->calls.count; c++) {
        const struct moe_call *call = &pass->calls.calls[c];
        for (size_t i = 0; call->forward_ok && i < call->count; i++)
            moe_axpy(pass->weights[call->places[i]], moe_call_output(call, i),
                     outputs + call->places[i] / pass->route.k * width, width);
    }
    return EXPERTD_OK;
}

enum expertd_status moe_pass_backward(struct expertd_pass *pass, const float *grad_outputs, float *grad_weights)
{
    struct moe *moe = pass->moe;
    const size_t width = moe->options.out_features;
    const uint64_t end_ns = clock_now_ns() + moe->options.backward_timeout_ms * NS_PER_MS;
    moe->message[0] = 0;
    if (moe->options.detect_anomalies && !moe_all_finite(grad_outputs, pass->route.rows * width))
        return moe_fail(moe, EXPERTD_INVALID_ARGUMENT, "the gradients have NaN or Inf");
    const enum expertd_status status =
        moe_calls_backward(&pass->calls, moe, &pass->route, pass->weights, grad_outputs, end_ns);
    if (status != EXPERTD_OK)
        return status;
    memset(grad_weights, 0, pass->route.rows * pass->route.k * sizeof *grad_weights);
    for (size_t c = 0; c < pass->calls.count; c++) {
        const struct moe_call *call = &pass->calls.calls[c];
        for (size_t i = 0; call->forward_ok && i < call->count; i++)
            grad_weights[call->places[i]] =
                moe_dot(moe_call_output(call, i), grad_outputs + call->places[i] / pass->route.k * width, width);
    }
    return EXPERTD_OK;
}

enum expertd_status moe_pass_finish(struct expertd_pass *pass, const float *grad_scores, float *grad_inputs)
{
    struct moe *moe = pass->moe;
    const size_t width = moe->options.in_features;
    const size_t count = pass->route.rows * width;
    if (grad_inputs)
        memset(grad_inputs, 0, count * sizeof *grad_inputs);
    moe_gate_backward(&moe->gate, pass->x, pass->route.rows, grad_scores, grad_inputs);
    /* So far it is the gradient by what the gate saw, which is the inputs times the noise. */
    for (size_t i = 0; grad_inputs && pass->noise && i < count; i++)
        grad_inputs[i] *= pass->noise[i];
    for (size_t c = 0; c < pass->calls.count && grad_inputs; c++) {
        const struct moe_call *call = &pass->calls.calls[c];
        for (size_t i = 0; call->backward_ok && i < call->count; i++)
            moe_axpy(1, moe_call_grad_input(call, i), grad_inputs + call->places[i] / pass->route.k * width, width);
    }
    return EXPERTD_OK;
}

const char *expertd_pass_uid(const struct expertd_pass *pass, size_t row, size_t slot)
{
    if (row >= pass->route.rows || slot >= pass->route.k)
        return NULL;
    const uint32_t expert = pass->route.slots[row * pass->route.k + slot];
    return expert == MOE_NO_EXPERT ? NULL : pass->route.experts[expert].uid;
}

float expertd_pass_weight(const struct expertd_pass *pass, size_t row, size_t slot)
{
    return row < pass->route.rows && slot < pass->route.k ? pass->weights[row * pass->route.k + slot] : 0;
}
