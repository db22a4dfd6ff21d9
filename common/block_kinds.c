/* The kinds of layers: what a declaration says of one, and the shapes that meet in it. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/block.h"

#define GATE_ACTIVATIONS "relu|gelu|gelu_erf|silu"
#define ACTIVATIONS "none|" GATE_ACTIVATIONS
#define OPTION(option_name, option_type, field, option_standard, option_choices)                                       \
    {                                                                                                                  \
        option_name, option_type, offsetof(struct block_settings, field), option_standard, option_choices              \
    }

__attribute__((format(printf, 2, 3))) static int refuse(char *problem, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem, BLOCK_PROBLEM_SIZE, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

static const struct tensor_desc *operand(const struct block_node *node, const struct block_value *values, unsigned i)
{
    return &values[node->operands[i]].desc;
}

static int need_floats(const struct block_node *node, const struct block_value *values, unsigned count, char *problem)
{
    for (unsigned i = 0; i < count; i++) {
        const struct tensor_desc *desc = operand(node, values, i);
        if (!dtype_is_float(desc->dtype))
            return refuse(problem, "'%s' is %s: it reads float32, float16 or bfloat16", desc->name,
                          dtype_name(desc->dtype));
    }
    return 0;
}

static int need_dims(const struct block_node *node, const struct block_value *values, char *problem)
{
    const struct tensor_desc *desc = operand(node, values, 0);
    return desc->ndim > 0 ? 0 : refuse(problem, "'%s' is one number a row: it reads rows of several", desc->name);
}

static bool same_dims(const struct tensor_desc *a, const struct tensor_desc *b)
{
    return a->ndim == b->ndim && memcmp(a->dims, b->dims, a->ndim * sizeof a->dims[0]) == 0;
}

/* All operands as the first one. */
static int need_same(const struct block_node *node, const struct block_value *values, char *problem)
{
    char first[96], other[96];
    for (unsigned i = 1; i < node->operands_count; i++) {
        const struct tensor_desc *a = operand(node, values, 0), *b = operand(node, values, i);
        if (!same_dims(a, b))
            return refuse(problem, "'%s' is %s and '%s' is %s: their shapes must be the same", a->name,
                          tensor_desc_format(a, first, sizeof first), b->name,
                          tensor_desc_format(b, other, sizeof other));
    }
    return 0;
}

static int linear_shape(const struct block_node *node, const struct block_value *values, struct tensor_desc *result,
                        char problem[BLOCK_PROBLEM_SIZE])
{
    int rc = need_floats(node, values, 1, problem);
    if (rc == 0)
        rc = need_dims(node, values, problem);
    if (rc != 0)
        return rc;
    *result = *operand(node, values, 0);
    result->dims[result->ndim - 1] = node->settings.size;
    return 0;
}

static int gated_shape(const struct block_node *node, const struct block_value *values, struct tensor_desc *result,
                       char problem[BLOCK_PROBLEM_SIZE])
{
    const struct block_settings *settings = &node->settings;
    if (settings->activation == BLOCK_NONE)
        return refuse(problem, "a gate has an activation: " GATE_ACTIVATIONS);
    if (!(settings->alpha > 0) || !(settings->limit >= 0))
        return refuse(problem, "alpha is %g and limit %g: alpha must be more than 0, and limit not negative",
                      settings->alpha, settings->limit);
    return linear_shape(node, values, result, problem);
}

static int norm_shape(const struct block_node *node, const struct block_value *values, struct tensor_desc *result,
                      char problem[BLOCK_PROBLEM_SIZE])
{
    int rc = need_floats(node, values, 1, problem);
    if (rc == 0)
        rc = need_dims(node, values, problem);
    if (rc == 0 && !(node->settings.epsilon >= 0))
        rc = refuse(problem, "epsilon is %g: it must not be negative", node->settings.epsilon);
    *result = *operand(node, values, 0);
    return rc;
}

static int activation_shape(const struct block_node *node, const struct block_value *values, struct tensor_desc *result,
                            char problem[BLOCK_PROBLEM_SIZE])
{
    if (node->settings.activation == BLOCK_NONE)
        return refuse(problem, "it is an activation: " GATE_ACTIVATIONS);
    *result = *operand(node, values, 0);
    return need_floats(node, values, 1, problem);
}

static int elementwise_shape(const struct block_node *node, const struct block_value *values,
                             struct tensor_desc *result, char problem[BLOCK_PROBLEM_SIZE])
{
    int rc = need_floats(node, values, node->operands_count, problem);
    if (rc == 0)
        rc = need_same(node, values, problem);
    *result = *operand(node, values, 0);
    return rc;
}

static int mask_shape(const struct block_node *node, const struct block_value *values, struct tensor_desc *result,
                      char problem[BLOCK_PROBLEM_SIZE])
{
    int rc = need_floats(node, values, 1, problem);
    if (rc == 0)
        rc = need_same(node, values, problem);
    const struct tensor_desc *mask = operand(node, values, 1);
    if (rc == 0 && mask->dtype != DTYPE_BOOL && mask->dtype != DTYPE_INT64)
        rc = refuse(problem, "'%s' is %s: the mask is bool or int64", mask->name, dtype_name(mask->dtype));
    *result = *operand(node, values, 0);
    return rc;
}

/* Queries, keys and values, [tokens, heads x width] each; or all three in one, side by side. */
static int attention_shape(const struct block_node *node, const struct block_value *values, struct tensor_desc *result,
                           char problem[BLOCK_PROBLEM_SIZE])
{
    char text[96];
    int rc = need_floats(node, values, node->operands_count, problem);
    if (rc == 0 && node->operands_count == 2)
        rc = refuse(problem, "it reads one value (queries, keys and values side by side) or three");
    if (rc == 0)
        rc = need_same(node, values, problem);
    if (rc != 0)
        return rc;
    *result = *operand(node, values, 0);
    const uint64_t parts = node->operands_count == 1 ? 3 : 1, heads = node->settings.heads;
    if (result->ndim != 2)
        return refuse(problem, "'%s' is %s: it reads rows of [tokens, size]", result->name,
                      tensor_desc_format(result, text, sizeof text));
    if (heads > result->dims[1] || result->dims[1] % (parts * heads) != 0)
        return refuse(problem, "'%s' is %s: %" PRIu64 " is no multiple of %s%" PRIu64 " heads", result->name,
                      tensor_desc_format(result, text, sizeof text), result->dims[1], parts == 3 ? "3 x " : "", heads);
    result->dims[1] /= parts;
    if (node->mask < 0)
        return 0;
    const struct tensor_desc *mask = &values[node->mask].desc;
    if (mask->dtype != DTYPE_BOOL || mask->ndim != 1 || mask->dims[0] != result->dims[0])
        return refuse(problem, "the mask '%s' is %s: it must be bool[%" PRIu64 "], true for a key to be left out",
                      mask->name, tensor_desc_format(mask, text, sizeof text), result->dims[0]);
    return 0;
}

/* [..., m, heads x k] by [..., k, heads x n], or by the transposed of [..., n, heads x k]: [..., m, heads x n]. */
static int matmul_shape(const struct block_node *node, const struct block_value *values, struct tensor_desc *result,
                        char problem[BLOCK_PROBLEM_SIZE])
{
    char first[96], second[96];
    const int rc = need_floats(node, values, 2, problem);
    if (rc != 0)
        return rc;
    const struct tensor_desc *a = operand(node, values, 0), *b = operand(node, values, 1);
    const uint64_t heads = node->settings.heads;
    tensor_desc_format(a, first, sizeof first);
    tensor_desc_format(b, second, sizeof second);
    if (a->ndim < 2 || a->ndim != b->ndim)
        return refuse(problem, "'%s' is %s and '%s' is %s: it reads rows of [..., m, k] and [..., k, n]", a->name,
                      first, b->name, second);
    const unsigned down = a->ndim - 2, across = a->ndim - 1;
    if (memcmp(a->dims, b->dims, down * sizeof a->dims[0]) != 0)
        return refuse(problem, "'%s' is %s and '%s' is %s: all dimensions but the last two must be the same", a->name,
                      first, b->name, second);
    if (a->dims[across] % heads != 0 || b->dims[across] % heads != 0)
        return refuse(problem, "'%s' is %s and '%s' is %s: their last dimensions are no multiples of %" PRIu64 " heads",
                      a->name, first, b->name, second, heads);
    const uint64_t count = a->dims[across] / heads;
    if (count != (node->settings.transpose ? b->dims[across] / heads : b->dims[down]))
        return refuse(problem,
                      "'%s' is %s and '%s' is %s: each of the %" PRIu64 " heads has %" PRIu64
                      " columns in the first; the second must have as many %s",
                      a->name, first, b->name, second, heads, count, node->settings.transpose ? "columns" : "rows");
    *result = *a;
    result->dims[across] = node->settings.transpose ? heads * b->dims[down] : b->dims[across];
    return 0;
}

static int affine_shape(const struct block_node *node, const struct block_value *values, struct tensor_desc *result,
                        char problem[BLOCK_PROBLEM_SIZE])
{
    int rc = need_floats(node, values, 1, problem);
    if (rc == 0 && (node->settings.weight != BLOCK_CONSTANT_NONE || node->settings.bias != BLOCK_CONSTANT_NONE))
        rc = need_dims(node, values, problem);
    *result = *operand(node, values, 0);
    return rc;
}

static const struct block_option_kind linear_options[] = {
    OPTION("size", BLOCK_OPTION_SIZE, size, NULL, NULL),
    OPTION("bias", BLOCK_OPTION_CHOICE, bias, "true", "false|true"),
    OPTION("activation", BLOCK_OPTION_CHOICE, activation, "none", ACTIVATIONS),
    OPTION("init", BLOCK_OPTION_CHOICE, init, "uniform", "uniform|xavier|zero"),
    OPTION("bias_init", BLOCK_OPTION_CHOICE, bias_init, "uniform", "uniform|xavier|zero"),
    OPTION("weight_name", BLOCK_OPTION_TEXT, weight_name, NULL, NULL),
    OPTION("bias_name", BLOCK_OPTION_TEXT, bias_name, NULL, NULL),
};
static const struct block_option_kind activation_options[] = {
    OPTION("activation", BLOCK_OPTION_CHOICE, activation, "none", ACTIVATIONS)};
static const struct block_option_kind gated_options[] = {
    OPTION("size", BLOCK_OPTION_SIZE, size, NULL, NULL),
    OPTION("bias", BLOCK_OPTION_CHOICE, bias, "false", "false|true"),
    OPTION("activation", BLOCK_OPTION_CHOICE, activation, "silu", ACTIVATIONS),
    OPTION("limit", BLOCK_OPTION_NUMBER, limit, "0", NULL),
    OPTION("alpha", BLOCK_OPTION_NUMBER, alpha, "1", NULL),
    OPTION("up_shift", BLOCK_OPTION_NUMBER, up_shift, "0", NULL),
    OPTION("init", BLOCK_OPTION_CHOICE, init, "uniform", "uniform|xavier|zero"),
    OPTION("bias_init", BLOCK_OPTION_CHOICE, bias_init, "uniform", "uniform|xavier|zero"),
    OPTION("gate", BLOCK_OPTION_TEXT, gate, NULL, NULL),
    OPTION("up", BLOCK_OPTION_TEXT, up, NULL, NULL),
};
static const struct block_option_kind layer_norm_options[] = {
    OPTION("epsilon", BLOCK_OPTION_NUMBER, epsilon, "1e-5", NULL)};
static const struct block_option_kind rms_norm_options[] = {
    OPTION("epsilon", BLOCK_OPTION_NUMBER, epsilon, "1e-6", NULL)};
static const struct block_option_kind mask_options[] = {OPTION("scale", BLOCK_OPTION_NUMBER, scale, "1", NULL)};
static const struct block_option_kind attention_options[] = {OPTION("heads", BLOCK_OPTION_SIZE, heads, NULL, NULL)};

static const struct block_option_kind matmul_options[] = {
    OPTION("heads", BLOCK_OPTION_SIZE, heads, "1", NULL),
    OPTION("transpose", BLOCK_OPTION_CHOICE, transpose, "none", "none|second"),
    OPTION("scale", BLOCK_OPTION_NUMBER, scale, "1", NULL),
};

static const struct block_option_kind affine_options[] = {
    OPTION("scale", BLOCK_OPTION_NUMBER, scale, "1", NULL),
    OPTION("shift", BLOCK_OPTION_NUMBER, shift, "0", NULL),
    OPTION("weight", BLOCK_OPTION_CHOICE, weight, "none", "none|fixed|trained"),
    OPTION("bias", BLOCK_OPTION_CHOICE, bias, "none", "none|fixed|trained"),
    OPTION("over", BLOCK_OPTION_CHOICE, over, "last", "last|row"),
    OPTION("weight_name", BLOCK_OPTION_TEXT, weight_name, NULL, NULL),
    OPTION("bias_name", BLOCK_OPTION_TEXT, bias_name, NULL, NULL),
};

#define OPTIONS(table) .options = table, .options_count = sizeof(table) / sizeof(table)[0]
static const struct block_kind kinds[] = {
    {.name = "linear",
     .operands_min = 1,
     .operands_max = 1,
     .parameters = 2,
     .shape = linear_shape,
     OPTIONS(linear_options)},
    {.name = "gated",
     .operands_min = 1,
     .operands_max = 1,
     .parameters = 4,
     .shape = gated_shape,
     OPTIONS(gated_options)},
    {.name = "activation",
     .operands_min = 1,
     .operands_max = 1,
     .shape = activation_shape,
     OPTIONS(activation_options)},
    {.name = "add", .operands_min = 2, .operands_max = BLOCK_OPERANDS_MAX, .shape = elementwise_shape},
    {.name = "multiply", .operands_min = 2, .operands_max = 2, .shape = elementwise_shape},
    {.name = "affine",
     .operands_min = 1,
     .operands_max = 1,
     .parameters = 2,
     .shape = affine_shape,
     OPTIONS(affine_options)},
    {.name = "mask", .operands_min = 2, .operands_max = 2, .shape = mask_shape, OPTIONS(mask_options)},
    {.name = "layer_norm",
     .operands_min = 1,
     .operands_max = 1,
     .parameters = 2,
     .shape = norm_shape,
     OPTIONS(layer_norm_options)},
    {.name = "rms_norm",
     .operands_min = 1,
     .operands_max = 1,
     .parameters = 1,
     .shape = norm_shape,
     OPTIONS(rms_norm_options)},
    {.name = "attention",
     .operands_min = 1,
     .operands_max = 3,
     .takes_mask = true,
     .shape = attention_shape,
     OPTIONS(attention_options)},
    {.name = "matmul", .operands_min = 2, .operands_max = 2, .shape = matmul_shape, OPTIONS(matmul_options)},
};

const struct block_kind *block_kind_find(const struct block *block, const char *name)
{
    for (unsigned i = 0; block->kinds != NULL && block->kinds[i] != NULL; i++) {
        if (strcmp(block->kinds[i]->name, name) == 0)
            return block->kinds[i];
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    }
    return NULL;
}
