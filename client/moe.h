/* What mixtures and switches have in common: options, gate, random numbers, the message of the last call. */
#ifndef EXPERTD_CLIENT_MOE_H
#define EXPERTD_CLIENT_MOE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/dht.h"
#include "client/expertd_moe.h"
#include "common/uid.h"

struct moe {
    struct expertd_dht *dht;
    struct expertd_mixture_options options; /* its pointers are to what follows */
    uint32_t grid_size[UID_MAX_DIMS];
    char prefix[UID_SIZE];
    struct expertd_gate gate;
    uint64_t random; /* state of moe_random() */
    char message[512];
};

/* 0; -EINVAL for options that make no sense; -ENOMEM. Safe to clear after a failure. */
int moe_init(struct moe *moe, struct expertd_dht *dht, const struct expertd_mixture_options *options);
void moe_clear(struct moe *moe);

/* Uniform within 0 ... 1, 1 excluded. */
double moe_random(struct moe *moe);

/* Sets the message, returns the status. */
enum expertd_status moe_fail(struct moe *moe, enum expertd_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* No NaN and no infinity. */
bool moe_all_finite(const float *values, size_t count);

/* ---- gate: scores = x W' + b ------------------------------------------------------------------------------------- */

/* scores: rows x n_scores, written. */
void moe_gate_scores(const struct expertd_gate *gate, const float *x, size_t rows, float *scores);
/* Adds to weight_grad and bias_grad, and to grad_x (rows x in_features; NULL: not wanted), what grad_scores gives. */
void moe_gate_backward(struct expertd_gate *gate, const float *x, size_t rows, const float *grad_scores, float *grad_x);

/* y += a x, and x . y, of count floats. */
void moe_axpy(float a, const float *x, float *y, size_t count);
float moe_dot(const float *x, const float *y, size_t count);

#endif
