#include "examples/digits/middle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int middle_create(struct middle *middle, struct expertd_dht *dht, const struct expertd_mixture_options *options,
                  bool is_switch, float balancing_weight)
{
    *middle = (struct middle){.balancing_weight = balancing_weight};
    int rc = is_switch ? expertd_switch_new(&middle->sparse, dht, options)
                       : expertd_mixture_new(&middle->mixture, dht, options);
    if (rc != 0) {
        return rc;
    }
    const struct expertd_gate *gate =
        is_switch ? expertd_switch_gate(middle->sparse) : expertd_mixture_gate(middle->mixture);
    rc = linear_create(&middle->adam, gate->in_features, gate->n_scores, 0);
    middle->gradient = calloc(gate->n_scores * (gate->in_features + 1), sizeof(float));
    if (rc != 0 || !middle->gradient) {
        middle_destroy(middle);
        return -ENOMEM;
    }
    return 0;
}

void middle_destroy(struct middle *middle)
{
    expertd_mixture_destroy(&middle->mixture);
    expertd_switch_destroy(&middle->sparse);
    linear_destroy(&middle->adam);
    free(middle->gradient);
    *middle = (struct middle){0};
}

enum expertd_status middle_forward(struct middle *middle, const float *x, size_t rows, float *y,
                                   struct expertd_pass **pass)
{
    return middle->sparse ? expertd_switch_forward(middle->sparse, x, rows, y, NULL, pass)
                          : expertd_mixture_forward(middle->mixture, x, rows, y, pass);
}

enum expertd_status middle_backward(struct middle *middle, struct expertd_pass **pass, const float *grad_y,
                                    float *grad_x)
{
    return middle->sparse ? expertd_switch_backward(middle->sparse, pass, grad_y, middle->balancing_weight, grad_x)
                          : expertd_mixture_backward(middle->mixture, pass, grad_y, grad_x);
}

const char *middle_message(const struct middle *middle)
{
    return middle->sparse ? expertd_switch_message(middle->sparse) : expertd_mixture_message(middle->mixture);
}

int middle_step(struct middle *middle, float learning_rate)
{
    struct expertd_gate *gate =
        middle->sparse ? expertd_switch_gate(middle->sparse) : expertd_mixture_gate(middle->mixture);
    struct linear *adam = &middle->adam;
    size_t weights = adam->out * adam->in, weight_bytes = weights * sizeof(float);
    size_t bias_bytes = adam->out * sizeof(float);
    memcpy(adam->weight, gate->weight, weight_bytes);
    memcpy(adam->bias, gate->bias, bias_bytes);
    memcpy(middle->gradient, gate->weight_grad, weight_bytes);
    memcpy(middle->gradient + weights, gate->bias_grad, bias_bytes);
    int rc = linear_step(adam, middle->gradient, learning_rate);
    memcpy(gate->weight, adam->weight, weight_bytes);
    memcpy(gate->bias, adam->bias, bias_bytes);
    memset(gate->weight_grad, 0, weight_bytes);
    memset(gate->bias_grad, 0, bias_bytes);
    return rc;
}
