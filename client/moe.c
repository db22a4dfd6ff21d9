#include "client/moe.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "client/struct_size.h"

enum { SCORES_MAX = 1 << 20, K_MAX = 256 };

static const struct expertd_mixture_options mixture_defaults = {
    .size = sizeof(struct expertd_mixture_options),
    .k_best = 4,
    .k_min = 1,
    .backward_k_min = 1,
    .forward_timeout_ms = 30000,
    .timeout_after_k_min_ms = 1000,
    .backward_timeout_ms = 30000,
    .max_rows = 1024,
    .utilization_alpha = 0.9F,
    .grid_dropout = 1,
    .jitter_eps = 0.01F,
};

void expertd_mixture_options_default(struct expertd_mixture_options *options)
{
    struct_size_give(options, &mixture_defaults, sizeof mixture_defaults);
}

void expertd_switch_options_default(struct expertd_mixture_options *options)
{
    struct expertd_mixture_options defaults = mixture_defaults;
    defaults.k_best = 1;
    defaults.k_min = 0;
    defaults.backward_k_min = 0;
    defaults.allow_zero_outputs = true;
    struct_size_give(options, &defaults, sizeof defaults);
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
double moe_random(struct moe *moe)
{
    uint64_t z = moe->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ z >> 31) >> 11) / (double)(UINT64_C(1) << 53);
}

enum expertd_status moe_fail(struct moe *moe, enum expertd_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(moe->message, sizeof moe->message, format, arguments);
    va_end(arguments);
    return status;
}

bool moe_all_finite(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

/* A prefix of one more coordinate each is a uid, so it ends with a dot and has the form of one. */
static bool prefix_valid(const char *prefix, size_t dims)
{
    char uid[UID_SIZE + 64];
    const size_t length = strnlen(prefix, UID_SIZE);
    if (length < 2 || length >= UID_SIZE || prefix[length - 1] != '.')
        return false;
    int used = snprintf(uid, sizeof uid, "%s0", prefix);
    for (size_t i = 1; i < dims; i++)
        used += snprintf(uid + used, sizeof uid - (size_t)used, ".0");
    return uid_valid(uid);
}

static bool options_valid(const struct expertd_mixture_options *options)
{
    uint64_t scores = 0;
    if (options->in_features == 0 || options->n_grid == 0 || options->n_grid > UID_MAX_DIMS || !options->grid_size ||
        !options->prefix || !prefix_valid(options->prefix, options->n_grid))
        return false;
    for (size_t i = 0; i < options->n_grid; i++) {
        if (options->grid_size[i] == 0)
            return false;
        scores += options->grid_size[i];
    }
    return scores <= SCORES_MAX && options->k_best > 0 && options->k_best <= K_MAX &&
           options->k_min <= options->k_best && options->backward_k_min <= options->k_best &&
           options->forward_timeout_ms > 0 && options->backward_timeout_ms > 0 && options->max_rows > 0 &&
           options->utilization_alpha >= 0 && options->utilization_alpha <= 1 && options->grid_dropout > 0 &&
           options->grid_dropout <= 1 && options->jitter_eps >= 0 && options->jitter_eps < 1;
}

static int make_gate(struct moe *moe)
{
    struct expertd_gate *gate = &moe->gate;
    const double bound = 1 / sqrt((double)moe->options.in_features);
    for (size_t i = 0; i < moe->options.n_grid; i++)
        gate->n_scores += moe->grid_size[i];
    gate->in_features = moe->options.in_features;
    gate->weight = calloc(gate->n_scores * gate->in_features, sizeof *gate->weight);
    gate->weight_grad = calloc(gate->n_scores * gate->in_features, sizeof *gate->weight_grad);
    gate->bias = calloc(gate->n_scores, sizeof *gate->bias);
    gate->bias_grad = calloc(gate->n_scores, sizeof *gate->bias_grad);
    if (!gate->weight || !gate->weight_grad || !gate->bias || !gate->bias_grad)
        return -ENOMEM;
    for (size_t i = 0; i < gate->n_scores * gate->in_features; i++)
        gate->weight[i] = (float)((2 * moe_random(moe) - 1) * bound);
    for (size_t i = 0; i < gate->n_scores; i++)
        gate->bias[i] = (float)((2 * moe_random(moe) - 1) * bound);
    return 0;
}

int moe_init(struct moe *moe, struct expertd_dht *dht, const struct expertd_mixture_options *given)
{
    memset(moe, 0, sizeof *moe);
    moe->options = mixture_defaults; /* of what an older program's struct has no room for */
    const struct expertd_mixture_options *options = &moe->options;
    const int rc = struct_size_take(&moe->options, sizeof moe->options, given);
    if (rc < 0)
        return rc;
    if (!options_valid(options) || !dht->lookups)
        return -EINVAL;
    moe->dht = dht;
    if (moe->options.out_features == 0)
        moe->options.out_features = options->in_features;
    memcpy(moe->grid_size, options->grid_size, options->n_grid * sizeof moe->grid_size[0]);
    memcpy(moe->prefix, options->prefix, strlen(options->prefix) + 1);
    moe->options.grid_size = moe->grid_size;
    moe->options.prefix = moe->prefix;
    moe->random = options->seed;
    if (moe->random == 0 && getrandom(&moe->random, sizeof moe->random, 0) != (ssize_t)sizeof moe->random)
        return -errno;
    return make_gate(moe);
}

void moe_clear(struct moe *moe)
{
    free(moe->gate.weight);
    free(moe->gate.weight_grad);
    free(moe->gate.bias);
    free(moe->gate.bias_grad);
    memset(&moe->gate, 0, sizeof moe->gate);
}
