#include "client/moe_calls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/remote_task.h"
#include "common/clock.h"

/* ---- making them ----------------------------------------------------------------------------------------------- */

static size_t calls_of(const struct moe *moe, const struct moe_expert *expert)
{
    return (expert->n_rows + moe->options.max_rows - 1) / moe->options.max_rows;
}

/* Sorts the slots by expert, by counting: starts[e] becomes the end of expert e's places. */
static void fill_places(uint32_t *places, size_t *starts, const struct moe_route *route)
{
    for (size_t place = 0; place < route->rows * route->k; place++)
        if (route->slots[place] != MOE_NO_EXPERT)
            places[starts[route->slots[place]]++] = (uint32_t)place;
}

int moe_calls_make(struct moe_calls *calls, const struct moe *moe, const struct moe_route *route)
{
    size_t n_calls = 0;
    size_t n_places = 0;
    size_t *starts = malloc((route->n_experts + 1) * sizeof *starts);
    *calls = (struct moe_calls){0};
    for (size_t e = 0; starts && e < route->n_experts; e++) {
        starts[e] = n_places;
        n_places += route->experts[e].n_rows;
        n_calls += calls_of(moe, &route->experts[e]);
    }
    calls->calls = calloc(n_calls + 1, sizeof *calls->calls);
    calls->places = malloc((n_places + 1) * sizeof *calls->places);
    if (!starts || !calls->calls || !calls->places) {
        free(starts);
        moe_calls_clear(calls);
        return -ENOMEM;
    }
    fill_places(calls->places, starts, route);
    for (uint32_t e = 0; e < route->n_experts; e++) {
        const size_t n_rows = route->experts[e].n_rows;
        for (size_t at = 0; at < n_rows; at += moe->options.max_rows) {
            struct moe_call *call = &calls->calls[calls->count++];
            call->expert = e;
            call->count = n_rows - at < moe->options.max_rows ? n_rows - at : moe->options.max_rows;
            call->places = calls->places + starts[e] - n_rows + at;
        }
    }
    free(starts);
    return 0;
}

void moe_calls_clear(struct moe_calls *calls)
{
    for (size_t i = 0; calls->calls && i < calls->count; i++) {
        expertd_task_release(&calls->calls[i].forward);
        expertd_task_release(&calls->calls[i].backward);
        shared_data_release(calls->calls[i].inputs);
    }
    free(calls->calls);
    free(calls->places);
    *calls = (struct moe_calls){0};
}

/* ---- waiting for them ------------------------------------------------------------------------------------------ */

/* One direction of the calls, while they are waited for. */
struct round {
    struct moe *moe;
    const struct moe_route *route;
    bool backward;
    uint32_t k_min;
    struct moe_call **open; /* not ended yet */
    size_t n_open;
    uint32_t *answers, *expected; /* of each row */
    size_t unsettled;             /* rows that have fewer answers than k_min, and more to come */
    size_t n_answers;             /* rows times experts */
    size_t n_failed, n_calls;
    char failure[384]; /* the first one */
};

static struct expertd_task **task_of(const struct round *round, struct moe_call *call)
{
    return round->backward ? &call->backward : &call->forward;
}

static bool settled(const struct round *round, size_t row)
{
    return round->expected[row] == 0 || (round->k_min > 0 && round->answers[row] >= round->k_min);
}

/* What is wrong with an answer; NULL. */
static const char *answer_problem(const struct round *round, const struct expertd_task *task)
{
    const struct expertd_mixture_options *options = &round->moe->options;
    const struct expertd_tensor *tensor = expertd_task_output(task, 0);
    const uint64_t width = round->backward ? options->in_features : options->out_features;
    if (expertd_task_output_count(task) != 1 || tensor->dtype != EXPERTD_FLOAT32 || tensor->ndim != 2 ||
        tensor->shape[1] != width)
        return "its answer is not one float32 tensor of the mixture's width";
    if (options->detect_anomalies && !moe_all_finite(tensor->data, tensor->bytes / sizeof(float)))
        return "its answer has NaN or Inf";
    return NULL;
}

static void note_failure(struct round *round, const struct moe_call *call, const char *status, const char *problem)
{
    if (round->n_failed++ == 0)
        snprintf(round->failure, sizeof round->failure, "%s: %s%s%.160s", round->route->experts[call->expert].uid,
                 status, *status ? ": " : "", problem);
}

static void take(struct round *round, struct moe_call *call)
{
    const struct expertd_task *task = *task_of(round, call);
    const bool answered = expertd_task_status(task) == EXPERTD_OK;
    const char *problem = answered ? answer_problem(round, task) : NULL;
    const bool ok = answered && !problem;
    if (round->backward)
        call->backward_ok = ok;
    else
        call->forward_ok = ok;
    if (problem)
        note_failure(round, call, "", problem);
    else if (!ok)
        note_failure(round, call, expertd_status_name(expertd_task_status(task)), expertd_task_message(task));
    for (size_t i = 0; i < call->count; i++) {
        const size_t row = call->places[i] / round->route->k;
        const bool before = settled(round, row);
        round->expected[row]--;
        round->answers[row] += ok;
        round->n_answers += ok;
        round->unsettled -= settled(round, row) && !before;
    }
}

static void take_ended(struct round *round)
{
    for (size_t i = round->n_open; i-- > 0;) {
        struct moe_call *call = round->open[i];
        if (expertd_task_done(*task_of(round, call))) {
            round->open[i] = round->open[--round->n_open];
            take(round, call);
        }
    }
}

static bool all_settled(void *context)
{
    struct round *round = context;
    take_ended(round);
    return round->unsettled == 0;
}

static bool all_ended(void *context)
{
    struct round *round = context;
    take_ended(round);
    return round->n_open == 0;
}

static void give_up(struct round *round)
{
    while (round->n_open > 0) {
        struct moe_call *call = round->open[--round->n_open];
        note_failure(round, call, "", "no answer in time");
        expertd_task_release(task_of(round, call));
    }
}

static enum expertd_status wait_for(struct round *round, uint64_t end_ns)
{
    struct moe *moe = round->moe;
    for (size_t row = 0; row < round->route->rows; row++)
        round->unsettled += !settled(round, row);
    if (remote_task_await(moe->dht, all_settled, round, end_ns)) {
        const uint64_t last_ns = clock_now_ns() + moe->options.timeout_after_k_min_ms * NS_PER_MS;
        remote_task_await(moe->dht, all_ended, round, last_ns < end_ns ? last_ns : end_ns);
    }
    give_up(round);
    if (round->n_answers < round->k_min)
        return moe_fail(moe, EXPERTD_DEADLINE_EXCEEDED, "%s: %zu answers, less than %u; %s",
                        round->backward ? "backward" : "forward", round->n_answers, round->k_min,
                        round->failure[0] ? round->failure : "no expert was called");
    if (round->n_failed)
        moe_fail(moe, EXPERTD_OK, "%zu of %zu calls failed; %s", round->n_failed, round->n_calls, round->failure);
    return EXPERTD_OK;
}

/* ---- the two directions ---------------------------------------------------------------------------------------- */

/* Rows of x (width wide), one behind the other, each times its place's weight (weights NULL: 1). */
static struct shared_data *gather(const struct moe_call *call, size_t k, const float *x, size_t width,
                                  const float *weights)
{
    struct shared_data *data = shared_data_new(call->count * width * sizeof(float));
    float *to = data ? shared_data_bytes(data) : NULL;
    for (size_t i = 0; data && i < call->count; i++) {
        const uint32_t place = call->places[i];
        memcpy(to + i * width, x + place / k * width, width * sizeof *to);
        for (size_t f = 0; weights && f < width; f++)
            to[i * width + f] *= weights[place];
    }
    return data;
}

static struct expertd_tensor lend(struct shared_data *data, size_t rows, size_t width)
{
    struct expertd_tensor tensor = expertd_tensor_f32(NULL, rows, width);
    shared_data_lend(data, &tensor);
    return tensor;
}

static int start_forward(struct moe *moe, const struct moe_route *route, struct moe_call *call, const float *x,
                         uint32_t deadline_ms)
{
    call->inputs = gather(call, route->k, x, moe->options.in_features, NULL);
    if (!call->inputs)
        return -ENOMEM;
    const struct expertd_tensor input = lend(call->inputs, call->count, moe->options.in_features);
    const struct remote_task_request request = {
        .uid = route->experts[call->expert].uid, .tensors = {&input}, .count = {1}, .deadline_ms = deadline_ms};
    return remote_task_start(moe->dht, &request, &call->forward);
}

/* To the server that answered the forward, if it can be had: its parameters are those that the outputs came from. */
static int start_backward(struct moe *moe, const struct moe_route *route, struct moe_call *call, const float *weights,
                          const float *grad_y, uint32_t deadline_ms)
{
    struct shared_data *gradients = gather(call, route->k, grad_y, moe->options.out_features, weights);
    if (!gradients)
        return -ENOMEM;
    const struct expertd_tensor input = lend(call->inputs, call->count, moe->options.in_features);
    const struct expertd_tensor gradient = lend(gradients, call->count, moe->options.out_features);
    shared_data_release(gradients);
    const struct remote_task_request request = {.uid = route->experts[call->expert].uid,
                                                .first = remote_task_server(call->forward),
                                                .backward = true,
                                                .tensors = {&input, &gradient},
                                                .count = {1, 1},
                                                .deadline_ms = deadline_ms};
    return remote_task_start(moe->dht, &request, &call->backward);
}

static uint32_t ms_until(uint64_t end_ns)
{
    const uint64_t now_ns = clock_now_ns();
    return now_ns >= end_ns ? 1 : (uint32_t)((end_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static enum expertd_status start_all(struct round *round, struct moe_calls *calls, const float *x, const float *weights,
                                     uint64_t end_ns)
{
    for (size_t i = 0; i < calls->count; i++) {
        struct moe_call *call = &calls->calls[i];
        if (round->backward && !call->forward_ok)
            continue;
        const int rc = round->backward ? start_backward(round->moe, round->route, call, weights, x, ms_until(end_ns))
                                       : start_forward(round->moe, round->route, call, x, ms_until(end_ns));
        if (rc < 0)
            return moe_fail(round->moe, EXPERTD_RESOURCE_EXHAUSTED, "no memory for the calls");
        round->open[round->n_open++] = call;
        for (size_t p = 0; p < call->count; p++)
            round->expected[call->places[p] / round->route->k]++;
    }
    round->n_calls = round->n_open;
    return EXPERTD_OK;
}

static enum expertd_status run(struct round *round, struct moe_calls *calls, const float *x, const float *weights,
                               uint64_t end_ns)
{
    enum expertd_status status = EXPERTD_RESOURCE_EXHAUSTED;
    round->open = malloc((calls->count + 1) * sizeof(struct moe_call *));
    round->answers = calloc(round->route->rows + 1, sizeof *round->answers);
    round->expected = calloc(round->route->rows + 1, sizeof *round->expected);
    if (round->open && round->answers && round->expected) {
        status = start_all(round, calls, x, weights, end_ns);
        if (status == EXPERTD_OK)
            status = wait_for(round, end_ns);
    } else {
        moe_fail(round->moe, status, "no memory");
    }
    free(round->open);
    free(round->answers);
    free(round->expected);
    return status;
}

enum expertd_status moe_calls_forward(struct moe_calls *calls, struct moe *moe, const struct moe_route *route,
                                      const float *x, uint64_t end_ns)
{
    struct round round = {.moe = moe, .route = route, .k_min = moe->options.k_min};
    return run(&round, calls, x, NULL, end_ns);
}

enum expertd_status moe_calls_backward(struct moe_calls *calls, struct moe *moe, const struct moe_route *route,
                                       const float *weights, const float *grad_y, uint64_t end_ns)
{
    struct round round = {.moe = moe, .route = route, .backward = true, .k_min = moe->options.backward_k_min};
    return run(&round, calls, grad_y, weights, end_ns);
}

const float *moe_call_output(const struct moe_call *call, size_t i)
{
    const struct expertd_tensor *tensor = expertd_task_output(call->forward, 0);
    return (const float *)tensor->data + i * tensor->shape[1];
}

const float *moe_call_grad_input(const struct moe_call *call, size_t i)
{
    const struct expertd_tensor *tensor = expertd_task_output(call->backward, 0);
    return (const float *)tensor->data + i * tensor->shape[1];
}
