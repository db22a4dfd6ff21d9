/* The middle of a digits model whose experts are found through a DHT: a top-k mixture or a switch of them, and Adam for
 * its gate. */
#ifndef EXPERTD_EXAMPLES_DIGITS_MIDDLE_H
#define EXPERTD_EXAMPLES_DIGITS_MIDDLE_H

#include <stdbool.h>

#include "client/expertd_moe.h"
#include "examples/digits/linear.h"

struct middle {
    struct expertd_mixture *mixture; /* this, or ... */
    struct expertd_switch *sparse;   /* ... that one */
    struct linear adam;              /* the gate's twin: its parameters in one block, and Adam's moments of them */
    float *gradient;                 /* adam.count */
    float balancing_weight;          /* of a switch's balancing loss beside the model's */
};

/* 0, or -errno as expertd_mixture_new() (and then nothing is held). */
int middle_create(struct middle *middle, struct expertd_dht *dht, const struct expertd_mixture_options *options,
                  bool is_switch, float balancing_weight);
void middle_destroy(struct middle *middle); /* release its passes before */

/* As the mixture's or the switch's own. */
enum expertd_status middle_forward(struct middle *middle, const float *x, size_t rows, float *y,
                                   struct expertd_pass **pass);
enum expertd_status middle_backward(struct middle *middle, struct expertd_pass **pass, const float *grad_y,
                                    float *grad_x);
const char *middle_message(const struct middle *middle);

/* The gate learns from the gradients that have added up, which are zero then. -EDOM: they were not finite, no step. */
int middle_step(struct middle *middle, float learning_rate);

#endif
