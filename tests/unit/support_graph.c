#include "unit/support_graph.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is(const struct block_node *node, const char *kind)
{
    return strcmp(node->kind->name, kind) == 0;
}

size_t support_graph_elements(const struct support_graph *support, unsigned value)
{
    const struct block_value *v = &support->graph->values[value];
    return support->rows * v->tokens * v->columns;
}

void support_graph_name(const struct block_node *node, unsigned which, char *name, size_t size)
{
    const char *given = which == 0 ? node->settings.weight_name : node->settings.bias_name;
    if (is(node, "gated")) {
        const char *module = which < 2 ? node->settings.gate : node->settings.up;
        name[0] = '\0';
        if (which % 2 == 1 && !node->settings.bias)
            return;
        if (module == NULL)
            snprintf(name, size, "%s.", node->layer->name);
        snprintf(name + strlen(name), size - strlen(name), "%s.%s",
                 module != NULL ? module
                 : which < 2    ? "gate_proj"
                                : "up_proj",
                 which % 2 == 0 ? "weight" : "bias");
        return;
    }
    if (which > 1) {
        name[0] = '\0';
        return;
    }
    const unsigned constant = which == 0 ? node->settings.weight : node->settings.bias;
    const bool has = is(node, "affine")   ? constant != BLOCK_CONSTANT_NONE
                     : is(node, "linear") ? which == 0 || node->settings.bias
                                          : is(node, "layer_norm") || (is(node, "rms_norm") && which == 0);
    if (!has)
        name[0] = '\0';
    else if (given != NULL)
        snprintf(name, size, "%s", given);
    else
        snprintf(name, size, "%s.%s", node->layer->name, which == 0 ? "weight" : "bias");
}

bool support_graph_is_fixed(const struct block_node *node, unsigned which)
{
    return is(node, "affine") &&
           (which == 0 ? node->settings.weight : node->settings.bias) == (unsigned)BLOCK_CONSTANT_FIXED;
}

size_t support_graph_parameter_elements(const struct support_graph *support, unsigned node, unsigned which)
{
    const struct block_node *n = &support->graph->nodes[node];
    const size_t columns = support->graph->values[n->value].columns;
    if (is(n, "affine") && n->settings.over == BLOCK_OVER_ROW)
        return support->graph->values[n->value].tokens * columns;
    return (which == 0 && is(n, "linear")) || (which % 2 == 0 && is(n, "gated"))
               ? columns * support->graph->values[n->operands[0]].columns
               : columns;
}

void support_graph_open(struct support_graph *support, const struct block_graph *graph, size_t rows,
                        support_graph_parameter *parameter, void *context)
{
    *support = (struct support_graph){.graph = graph, .rows = rows};
    for (unsigned v = 0; v < graph->values_count; v++) {
        const size_t count = support_graph_elements(support, v);
        support->values[v] = calloc(count, sizeof(double));
        if (graph->values[v].desc.dtype == DTYPE_FLOAT32)
            support->gradients[v] = calloc(count, sizeof(double));
    }
    for (unsigned i = 0; i < SUPPORT_GRAPH_PARAMETERS * graph->nodes_count; i++) {
        char name[128];
        support_graph_name(&graph->nodes[i / SUPPORT_GRAPH_PARAMETERS], i % SUPPORT_GRAPH_PARAMETERS, name,
                           sizeof name);
        if (name[0] == '\0')
            continue;
        const unsigned node = i / SUPPORT_GRAPH_PARAMETERS, which = i % SUPPORT_GRAPH_PARAMETERS;
        support->parameters[node][which] = parameter(context, name);
        support->parameter_gradients[node][which] =
            calloc(support_graph_parameter_elements(support, node, which), sizeof(double));
    }
}

void support_graph_close(struct support_graph *support)
{
    for (unsigned v = 0; v < support->graph->values_count; v++) {
        free(support->values[v]);
        free(support->gradients[v]);
    }
    for (unsigned i = 0; i < SUPPORT_GRAPH_PARAMETERS * support->graph->nodes_count; i++)
        free(support->parameter_gradients[i / SUPPORT_GRAPH_PARAMETERS][i % SUPPORT_GRAPH_PARAMETERS]);
}

/* --- activations: the value, and its derivative ---------------------------------------------------------------------
 */

static double activation(unsigned kind, double x, double *slope)
{
    const double s = 1 / (1 + exp(-x)), u = 0.7978845608 * x * (1 + 0.044715 * x * x), t = tanh(u);
    switch (kind) {
    case BLOCK_RELU:
        *slope = x > 0;
        return x > 0 ? x : 0;
    case BLOCK_GELU:
        *slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608 * (1 + 3 * 0.044715 * x * x);
        return 0.5 * x * (1 + t);
    case BLOCK_GELU_ERF:
        *slope = 0.5 * (1 + erf(x / sqrt(2))) + x * exp(-x * x / 2) / sqrt(2 * M_PI);
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case BLOCK_SILU:
        *slope = s + x * s * (1 - s);
        return x * s;
    default:
        *slope = 1;
        return x;
    }
}

/* --- layers: forward, or with `backward` their gradients added to those of what they read ------------------------- */

struct step {
    struct support_graph *support;
    unsigned number;
    const struct block_node *node;
    size_t rows, columns; /* of the result, as a matrix */
    double *y, *dy;
    bool backward;
};

static double *value(const struct step *step, unsigned operand)
{
    return step->support->values[step->node->operands[operand]];
}
static double *gradient(const struct step *step, unsigned operand)
{
    return step->support->gradients[step->node->operands[operand]];
}

static void linear(const struct step *step)
{
    const size_t in = step->support->graph->values[step->node->operands[0]].columns;
    const float *w = step->support->parameters[step->number][0], *b = step->support->parameters[step->number][1];
    double *dw = step->support->parameter_gradients[step->number][0];
    double *db = step->support->parameter_gradients[step->number][1];
    for (size_t r = 0; r < step->rows; r++) {
        const double *x = value(step, 0) + r * in;
        double *dx = gradient(step, 0) + r * in;
        for (size_t c = 0; c < step->columns; c++) {
            double sum = b != NULL ? (double)b[c] : 0, size = fabs(sum), slope;
            for (size_t k = 0; k < in; k++) {
                sum += (double)w[c * in + k] * x[k];
                size += fabs((double)w[c * in + k] * x[k]);
            }
            const double y = activation(step->node->settings.activation, sum, &slope);
            if (step->node->settings.activation == BLOCK_RELU && fabs(sum) <= 1e-4 * size)
                step->support->kink = true;
            if (!step->backward) {
                step->y[r * step->columns + c] = y;
                continue;
            }
            const double g = step->dy[r * step->columns + c] * slope;
            if (b != NULL)
                db[c] += g;
            for (size_t k = 0; k < in; k++) {
                dw[c * in + k] += g * x[k];
                dx[k] += g * (double)w[c * in + k];
            }
        }
    }
}

/* The sum of one row with one of the weights, and how large what was summed is. */
static double product_sum(const struct step *step, unsigned which, const double *x, size_t in, size_t c, double *size)
{
    const float *w = step->support->parameters[step->number][which],
                *b = step->support->parameters[step->number][which + 1];
    double sum = b != NULL ? (double)b[c] : 0;
    *size = fabs(sum);
    for (size_t k = 0; k < in; k++) {
        sum += (double)w[c * in + k] * x[k];
        *size += fabs((double)w[c * in + k] * x[k]);
    }
    return sum;
}

static void add_product_gradient(const struct step *step, unsigned which, const double *x, double *dx, size_t in,
                                 size_t c, double dy)
{
    const float *w = step->support->parameters[step->number][which];
    double *dw = step->support->parameter_gradients[step->number][which];
    double *db = step->support->parameter_gradients[step->number][which + 1];
    if (db != NULL)
        db[c] += dy;
    for (size_t k = 0; k < in; k++) {
        dw[c * in + k] += dy * x[k];
        dx[k] += dy * (double)w[c * in + k];
    }
}

static bool near(double x, double corner, double size)
{
    return fabs(x - corner) <= 1e-4 * (size + 1);
}

static void gated(const struct step *step)
{
    const size_t in = step->support->graph->values[step->node->operands[0]].columns;
    const struct block_settings *settings = &step->node->settings;
    const double limit = settings->limit > 0 ? settings->limit : INFINITY, alpha = settings->alpha;
    for (size_t i = 0; i < step->rows * step->columns; i++) {
        const size_t r = i / step->columns, c = i % step->columns;
        const double *x = value(step, 0) + r * in;
        double *dx = gradient(step, 0) + r * in, gate_size, up_size, slope;
        const double g = product_sum(step, 0, x, in, c, &gate_size), u = product_sum(step, 2, x, in, c, &up_size);
        const double y = activation(settings->activation, alpha * fmin(g, limit), &slope) / alpha;
        const double through = fmax(fmin(u, limit), -limit) + settings->up_shift;
        if ((settings->activation == BLOCK_RELU && near(g, 0, gate_size)) || near(g, limit, gate_size) ||
            near(fabs(u), limit, up_size))
            step->support->kink = true;
        if (!step->backward) {
            step->y[i] = y * through;
            continue;
        }
        add_product_gradient(step, 0, x, dx, in, c, g > limit ? 0 : step->dy[i] * slope * through);
        add_product_gradient(step, 2, x, dx, in, c, fabs(u) > limit ? 0 : step->dy[i] * y);
    }
}

static void norm(const struct step *step)
{
    const bool rms = is(step->node, "rms_norm");
    const float *gamma = step->support->parameters[step->number][0], *beta = step->support->parameters[step->number][1];
    double *dgamma = step->support->parameter_gradients[step->number][0];
    double *dbeta = step->support->parameter_gradients[step->number][1];
    const size_t n = step->columns;
    for (size_t r = 0; r < step->rows; r++) {
        const double *x = value(step, 0) + r * n;
        double *dx = gradient(step, 0) + r * n;
        double mean = 0, square = 0, mean_g = 0, mean_gz = 0;
        for (size_t c = 0; c < n && !rms; c++)
            mean += x[c] / (double)n;
        for (size_t c = 0; c < n; c++)
            square += (x[c] - mean) * (x[c] - mean) / (double)n;
        const double scale = 1 / sqrt(square + step->node->settings.epsilon);
        for (size_t c = 0; c < n; c++) {
            const double z = (x[c] - mean) * scale;
            if (!step->backward) {
                step->y[r * n + c] = z * (double)gamma[c] + (rms ? 0 : (double)beta[c]);
                continue;
            }
            const double dy = step->dy[r * n + c];
            dgamma[c] += dy * z;
            if (!rms)
                dbeta[c] += dy;
            mean_g += rms ? 0 : dy * (double)gamma[c] / (double)n;
            mean_gz += dy * (double)gamma[c] * z / (double)n;
        }
        for (size_t c = 0; c < n && step->backward; c++) {
            const double z = (x[c] - mean) * scale;
            dx[c] += scale * (step->dy[r * n + c] * (double)gamma[c] - mean_g - z * mean_gz);
        }
    }
}

static void activate(const struct step *step)
{
    const enum block_activation kind = step->node->settings.activation;
    for (size_t i = 0; i < step->rows * step->columns; i++) {
        double slope;
        const double x = value(step, 0)[i], y = activation(kind, x, &slope);
        if (kind == BLOCK_RELU && fabs(x) <= 1e-4)
            step->support->kink = true;
        if (step->backward)
            gradient(step, 0)[i] += step->dy[i] * slope;
        else
            step->y[i] = y;
    }
}

static void affine(const struct step *step)
{
    const struct block_settings *settings = &step->node->settings;
    const size_t constants = support_graph_parameter_elements(step->support, step->number, 0);
    const float *w = step->support->parameters[step->number][0], *b = step->support->parameters[step->number][1];
    double *dw = step->support->parameter_gradients[step->number][0];
    double *db = step->support->parameter_gradients[step->number][1];
    for (size_t i = 0; i < step->rows * step->columns; i++) {
        const size_t c = i % constants;
        const double x = value(step, 0)[i], factor = settings->scale * (w != NULL ? (double)w[c] : 1);
        if (!step->backward) {
            step->y[i] = x * factor + settings->shift + (b != NULL ? (double)b[c] : 0);
            continue;
        }
        gradient(step, 0)[i] += step->dy[i] * factor;
        if (settings->weight == BLOCK_CONSTANT_TRAINED)
            dw[c] += step->dy[i] * x * settings->scale;
        if (settings->bias == BLOCK_CONSTANT_TRAINED)
            db[c] += step->dy[i];
    }
}

static void elementwise(const struct step *step)
{
    const size_t count = step->rows * step->columns;
    const bool add = is(step->node, "add"), mask = is(step->node, "mask");
    const double scale = mask ? step->node->settings.scale : 1;
    for (size_t i = 0; i < count; i++) {
        if (!step->backward && add) {
            step->y[i] = 0;
            for (unsigned o = 0; o < step->node->operands_count; o++)
                step->y[i] += value(step, o)[i];
        } else if (!step->backward) {
            step->y[i] = value(step, 0)[i] * value(step, 1)[i] * scale;
        } else if (add) {
            for (unsigned o = 0; o < step->node->operands_count; o++)
                gradient(step, o)[i] += step->dy[i];
        } else {
            gradient(step, 0)[i] += step->dy[i] * value(step, 1)[i] * scale;
            if (!mask)
                gradient(step, 1)[i] += step->dy[i] * value(step, 0)[i];
        }
    }
}

/* Queries, keys and values of one row of the batch and one head: `part` of them, element (token, i). */
struct heads {
    const struct step *step;
    size_t row, head, width, tokens;
};

static size_t place(const struct heads *h, unsigned part, size_t token, size_t i, unsigned *operand)
{
    const bool shared = h->step->node->operands_count == 1;
    const size_t columns = h->step->columns * (shared ? 3 : 1);
    *operand = shared ? 0 : part;
    return (h->row * h->tokens + token) * columns + (shared ? part * h->step->columns : 0) + h->head * h->width + i;
}

static double *element(const struct heads *h, unsigned part, size_t token, size_t i)
{
    unsigned operand;
    const size_t at = place(h, part, token, i, &operand);
    return value(h->step, operand) + at;
}

static double *element_gradient(const struct heads *h, unsigned part, size_t token, size_t i)
{
    unsigned operand;
    const size_t at = place(h, part, token, i, &operand);
    return gradient(h->step, operand) + at;
}

/* The weights of one query; all 0 where all keys are left out. */
static void weights_of(const struct heads *h, size_t query, double *weights)
{
    const struct step *step = h->step;
    const double *mask = step->node->mask >= 0 ? step->support->values[step->node->mask] + h->row * h->tokens : NULL;
    double most = -INFINITY, sum = 0;
    for (size_t t = 0; t < h->tokens; t++) {
        weights[t] = 0;
        for (size_t i = 0; i < h->width; i++)
            weights[t] += *element(h, 0, query, i) * *element(h, 1, t, i) / sqrt((double)h->width);
        if (mask != NULL && mask[t] != 0)
            weights[t] = -INFINITY;
        most = fmax(most, weights[t]);
    }
    for (size_t t = 0; t < h->tokens; t++)
        sum += weights[t] = isinf(most) ? 0 : exp(weights[t] - most);
    for (size_t t = 0; t < h->tokens && sum > 0; t++)
        weights[t] /= sum;
}

static void attend(const struct heads *h, size_t query, double *weights, double *slopes)
{
    const struct step *step = h->step;
    const size_t at = (h->row * h->tokens + query) * step->columns + h->head * h->width;
    double mean = 0;
    weights_of(h, query, weights);
    if (!step->backward) {
        for (size_t i = 0; i < h->width; i++) {
            step->y[at + i] = 0;
            for (size_t t = 0; t < h->tokens; t++)
                step->y[at + i] += weights[t] * *element(h, 2, t, i);
        }
        return;
    }
    for (size_t t = 0; t < h->tokens; t++) {
        slopes[t] = 0;
        for (size_t i = 0; i < h->width; i++) {
            slopes[t] += step->dy[at + i] * *element(h, 2, t, i);
            *element_gradient(h, 2, t, i) += weights[t] * step->dy[at + i];
        }
        mean += weights[t] * slopes[t];
    }
    for (size_t t = 0; t < h->tokens; t++) {
        const double score = weights[t] * (slopes[t] - mean) / sqrt((double)h->width);
        for (size_t i = 0; i < h->width; i++) {
            *element_gradient(h, 0, query, i) += score * *element(h, 1, t, i);
            *element_gradient(h, 1, t, i) += score * *element(h, 0, query, i);
        }
    }
}

static void attention(const struct step *step)
{
    const size_t tokens = step->support->graph->values[step->node->value].tokens;
    double *weights = calloc(tokens, sizeof *weights), *slopes = calloc(tokens, sizeof *slopes);
    for (size_t row = 0; row < step->support->rows; row++) {
        for (size_t head = 0; head < step->node->settings.heads; head++) {
            const struct heads h = {step, row, head, step->columns / step->node->settings.heads, tokens};
            for (size_t query = 0; query < tokens; query++)
                attend(&h, query, weights, slopes);
        }
    }
    free(weights);
    free(slopes);
}

/* One product of all that make a value of two: y += scale a b, or the gradients of both. */
static void matmul_term(const struct step *step, size_t y, size_t a, size_t b)
{
    const double scale = step->node->settings.scale;
    if (!step->backward) {
        step->y[y] += scale * value(step, 0)[a] * value(step, 1)[b];
        return;
    }
    gradient(step, 0)[a] += scale * step->dy[y] * value(step, 1)[b];
    gradient(step, 1)[b] += scale * step->dy[y] * value(step, 0)[a];
}

static void matmul(const struct step *step)
{
    const struct block_graph *graph = step->support->graph;
    const struct block_value *a = &graph->values[step->node->operands[0]], *b = &graph->values[step->node->operands[1]];
    const struct tensor_desc *desc = &a->desc;
    const size_t heads = step->node->settings.heads, m = desc->dims[desc->ndim - 2], k = a->columns / heads;
    const size_t n = step->columns / heads, matrices = step->support->rows * a->tokens / m;
    const bool across = step->node->settings.transpose != 0;
    if (!step->backward)
        memset(step->y, 0, matrices * m * step->columns * sizeof *step->y);
    for (size_t i = 0; i < matrices * m * heads * n * k; i++) {
        const size_t inner = i % k, column = i / k % n, head = i / k / n % heads, row = i / k / n / heads;
        const size_t of_b = row / m * (across ? n : k) + (across ? column : inner);
        matmul_term(step, row * step->columns + head * n + column, row * a->columns + head * k + inner,
                    of_b * b->columns + (across ? head * k + inner : head * n + column));
    }
}

static void run(struct support_graph *support, unsigned number, bool backward)
{
    const struct block_node *node = &support->graph->nodes[number];
    const struct block_value *result = &support->graph->values[node->value];
    const struct step step = {.support = support,
                              .number = number,
                              .node = node,
                              .rows = support->rows * result->tokens,
                              .columns = result->columns,
                              .y = support->values[node->value],
                              .dy = support->gradients[node->value],
                              .backward = backward};
    if (is(node, "linear"))
        linear(&step);
    else if (is(node, "activation"))
        activate(&step);
    else if (is(node, "gated"))
        gated(&step);
    else if (is(node, "layer_norm") || is(node, "rms_norm"))
        norm(&step);
    else if (is(node, "affine"))
        affine(&step);
    else if (is(node, "attention"))
        attention(&step);
    else if (is(node, "matmul"))
        matmul(&step);
    else
        elementwise(&step);
}

void support_graph_forward(struct support_graph *support)
{
    for (unsigned i = 0; i < support->graph->nodes_count; i++)
        run(support, i, false);
}

void support_graph_backward(struct support_graph *support)
{
    for (unsigned i = support->graph->nodes_count; i-- > 0;)
        run(support, i, true);
}
