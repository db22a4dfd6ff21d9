/* Products and weight gradients of given sizes on operands of their own: to measure how long one takes, or to have
 * compiled what it needs, before an expert has any. What they compute is nothing. */
#ifndef EXPERTD_RUNTIME_TRIAL_H
#define EXPERTD_RUNTIME_TRIAL_H

#include "runtime/compute/linear.h"

struct trial {
    struct device *device;
    cl_mem memory; /* the operands, one behind the other */
    bool borrowed;
};

/* Operands for any of the sizes and up to `rows` rows: random numbers, as a card runs faster on zeros. */
int trial_open(struct trial *trial, struct device *device, uint64_t rows, const struct linear_size *sizes,
               unsigned count);
/* In the device's workspace, which must be as large; for as long as nothing else reserves it. */
void trial_borrow(struct trial *trial, struct device *device);
void trial_close(struct trial *trial);

uint64_t trial_floats(const struct device *device, uint64_t rows, const struct linear_size *size);
/* Enqueues one on the device's provider; does not wait. */
int trial_launch(const struct trial *trial, bool gradient, uint64_t rows, const struct linear_size *size);

#endif
