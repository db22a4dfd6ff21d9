/* One call for each expert with the rows that chose it: made, waited for with a mixture's patience, and kept for what
 * comes of them. */
#ifndef EXPERTD_CLIENT_MOE_CALLS_H
#define EXPERTD_CLIENT_MOE_CALLS_H

#include "client/moe_route.h"
#include "client/shared_data.h"

struct moe_call {
    uint32_t expert;
    size_t count;           /* rows */
    const uint32_t *places; /* of each: row * k + slot */
    struct shared_data *inputs;
    struct expertd_task *forward, *backward;
    bool forward_ok, backward_ok; /* answered, in time and well; the tasks hold the outputs */
};

struct moe_calls {
    struct moe_call *calls;
    size_t count;
    uint32_t *places;
};

/* Calls for all of the route's slots. -ENOMEM. */
int moe_calls_make(struct moe_calls *calls, const struct moe *moe, const struct moe_route *route);
void moe_calls_clear(struct moe_calls *calls);

/* Sends each call its rows of x, and waits: until each row has answers of k_min experts (or no more to come), then for
 * the others no longer than timeout_after_k_min_ms, all in all until end_ns. Calls without an answer are given up.
 * EXPERTD_OK: at least k_min answers; moe->message says what failed nevertheless. */
enum expertd_status moe_calls_forward(struct moe_calls *calls, struct moe *moe, const struct moe_route *route,
                                      const float *x, uint64_t end_ns);
/* The same backward, of the calls that were answered forward: each row's grad_y times the weight of its place. */
enum expertd_status moe_calls_backward(struct moe_calls *calls, struct moe *moe, const struct moe_route *route,
                                       const float *weights, const float *grad_y, uint64_t end_ns);

/* The i-th row's output, or gradient by its input, of a call for which that is ok. */
const float *moe_call_output(const struct moe_call *call, size_t i);
const float *moe_call_grad_input(const struct moe_call *call, size_t i);

#endif
