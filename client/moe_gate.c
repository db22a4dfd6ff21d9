/* The gate's arithmetic, on the client's CPU. Beside the experts' it is little: sum(grid_size) x in_features a row. */
#include <string.h>

#include "client/moe.h"

/* Four floats at once, wherever they lie: every machine has registers for that. */
typedef float lanes __attribute__((vector_size(16)));
enum { LANES = 4, UNROLLED = 4 };

static inline lanes load(const float *from)
{
    lanes value;
    memcpy(&value, from, sizeof value);
    return value;
}

float moe_dot(const float *x, const float *y, size_t count)
{
    lanes sums[UNROLLED] = {{0}};
    float sum = 0;
    size_t i = 0;
    for (; i + LANES * UNROLLED <= count; i += LANES * UNROLLED)
        for (size_t u = 0; u < UNROLLED; u++)
            sums[u] += load(x + i + u * LANES) * load(y + i + u * LANES);
    for (; i + LANES <= count; i += LANES)
        sums[0] += load(x + i) * load(y + i);
    for (; i < count; i++)
        sum += x[i] * y[i];
    const lanes all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (size_t l = 0; l < LANES; l++)
        sum += all[l];
    return sum;
}

void moe_axpy(float a, const float *x, float *y, size_t count)
{
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const lanes value = load(y + i) + a * load(x + i);
        memcpy(y + i, &value, sizeof value);
    }
    for (; i < count; i++)
        y[i] += a * x[i];
}

void moe_gate_scores(const struct expertd_gate *gate, const float *x, size_t rows, float *scores)
{
    const size_t width = gate->in_features;
    for (size_t r = 0; r < rows; r++)
        for (size_t s = 0; s < gate->n_scores; s++)
            scores[r * gate->n_scores + s] = gate->bias[s] + moe_dot(x + r * width, gate->weight + s * width, width);
}

void moe_gate_backward(struct expertd_gate *gate, const float *x, size_t rows, const float *grad_scores, float *grad_x)
{
    const size_t width = gate->in_features;
    for (size_t r = 0; r < rows; r++) {
        for (size_t s = 0; s < gate->n_scores; s++) {
            const float grad = grad_scores[r * gate->n_scores + s];
            if (grad == 0) /* most are: only the chosen coordinates of a mixture have any */
                continue;
            gate->bias_grad[s] += grad;
            moe_axpy(grad, x + r * width, gate->weight_grad + s * width, width);
            if (grad_x)
                moe_axpy(grad, gate->weight + s * width, grad_x + r * width, width);
        }
    }
}
