#include "runtime/layers/reference.h"

#include <math.h>

void reference_gate(const struct reference_gate *gate)
{
    for (size_t i = 0; i < gate->count; i++) {
        const double g = fmin((double)gate->pairs[2 * i], gate->limit);
        const double u = fmax(fmin((double)gate->pairs[2 * i + 1], gate->limit), -gate->limit);
        gate->out[i] = (float)(reference_activation(gate->flags, gate->alpha * g) / gate->alpha * (u + gate->shift));
    }
}

void reference_gate_backward(const struct reference_gate *gate)
{
    for (size_t i = 0; i < gate->count; i++) {
        const double g = (double)gate->pairs[2 * i], u = (double)gate->pairs[2 * i + 1], dy = (double)gate->dy[i];
        const double cut_g = fmin(g, gate->limit), cut_u = fmax(fmin(u, gate->limit), -gate->limit);
        gate->gradients[2 * i] =
            g > gate->limit ? 0
                            : (float)(dy * reference_slope(gate->flags, gate->alpha * cut_g) * (cut_u + gate->shift));
        gate->gradients[2 * i + 1] =
            fabs(u) > gate->limit ? 0
                                  : (float)(dy * reference_activation(gate->flags, gate->alpha * cut_g) / gate->alpha);
    }
}
