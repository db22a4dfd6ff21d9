// timeout: 3000 (at the first run PoCL compiles for minutes)
/* The blocks that are made of layers against PyTorch (tests/fixtures/make_block_fixtures.py), on every provider, in
 * place and staged: outputs, the gradients of inputs, and those of parameters as a step of plain SGD with the rate 1.
 */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "unit/support_device.h"
#include "unit/support_fixture.h"

enum { FIRST_ROW = 3, MAX_TENSORS = SCHEMA_MAX_TENSORS };

/* `name` of the fixture's tensors; `own`: what stands under `blocks`, without the last brace. */
struct block_case {
    const char *name;
    unsigned rows;
    const char *expert, *own;
};

#define MULTIHEAD                                                                                                      \
    "name: multihead, arguments: {out: 10}, "                                                                          \
    "inputs: [{name: a, shape: [hidden_dim]}, {name: b, shape: [2 * hidden_dim]}, {name: c, shape: [3 * "              \
    "hidden_dim]}], "                                                                                                  \
    "layers: [{name: linear1, layer: linear, input: a, size: out}, {name: linear2, layer: linear, input: b, size: "    \
    "out}, {name: linear3, layer: linear, input: c, size: out}, "                                                      \
    "{name: sum, layer: add, inputs: [linear1, linear2, linear3]}], outputs: [{name: output, value: sum}]"
#define ACTIVATIONS                                                                                                    \
    "name: activations, inputs: [{name: x, shape: [hidden_dim]}], "                                                    \
    "layers: [{name: a, layer: linear, input: x, size: hidden_dim + 3, activation: gelu_erf}, "                        \
    "{name: b, layer: linear, input: a, size: hidden_dim, activation: relu}, "                                         \
    "{name: c, layer: linear, input: a, size: hidden_dim, activation: silu, bias: false}, "                            \
    "{name: d, layer: linear, input: c, size: 7, activation: gelu}, "                                                  \
    "{name: xc, layer: multiply, inputs: [x, c]}, {name: sum, layer: add, inputs: [b, xc]}], "                         \
    "outputs: [{name: first, value: sum}, {name: second, value: d}]"
#define GATED                                                                                                          \
    "name: gated, inputs: [{name: x, shape: [hidden_dim]}], "                                                          \
    "layers: [{name: norm, layer: rms_norm, input: x}, "                                                               \
    "{name: gate_proj, layer: linear, input: norm, size: 3 * hidden_dim, activation: silu, bias: false}, "             \
    "{name: up_proj, layer: linear, input: norm, size: 3 * hidden_dim, bias: false}, "                                 \
    "{name: gated, layer: multiply, inputs: [gate_proj, up_proj]}, "                                                   \
    "{name: down_proj, layer: linear, input: gated, size: hidden_dim, bias: false}, "                                  \
    "{name: sum, layer: add, inputs: [x, down_proj]}], outputs: [{name: y, value: sum}]"

#define MIXING                                                                                                         \
    "name: mixing, arguments: {tokens: 7, heads: 3}, inputs: [{name: x, shape: [tokens, hidden_dim]}], "               \
    "layers: [{name: xp, layer: affine, input: x, bias: trained, over: row, bias_name: positions}, "                   \
    "{name: scaled, layer: affine, input: mixed, scale: -0.5, weight: trained, weight_name: gamma, shift: 0.25}, "     \
    "{name: y, layer: affine, input: sum, bias: fixed, bias_name: bias}, "                                             \
    "{name: q, layer: linear, input: xp, size: hidden_dim}, {name: k, layer: linear, input: xp, size: hidden_dim}, "   \
    "{name: v, layer: linear, input: xp, size: hidden_dim}, "                                                          \
    "{name: all, layer: matmul, inputs: [q, k], transpose: second, scale: 1 / 4}, "                                    \
    "{name: whole, layer: matmul, inputs: [all, v]}, "                                                                 \
    "{name: scores, layer: matmul, inputs: [q, k], transpose: second, heads: heads}, "                                 \
    "{name: by_head, layer: matmul, inputs: [scores, v], heads: heads, scale: 1 / 8}, "                                \
    "{name: mixed, layer: add, inputs: [by_head, whole]}, "                                                            \
    "{name: sum, layer: add, inputs: [xp, scaled]}], outputs: [{name: output, value: y}]"

#define CLAMPED "intermediate_size: 23, bias: true, limit: 1.5, alpha: 1.702, up_shift: 1"

static const struct block_case cases[] = {
    {"transformer.32.5", 3, "block: transformer, hidden_dim: 32, arguments: {sequence: 5}", ""},
    {"transformer.48.17", 4, "block: transformer, hidden_dim: 48, arguments: {sequence: 17, heads: 4}", ""},
    {"transformer.64.1", 2, "block: transformer, hidden_dim: 64, arguments: {sequence: 1}", ""},
    {"det_dropout.24", 7, "block: det_dropout, hidden_dim: 24", ""},
    {"det_dropout.65", 1, "block: det_dropout, hidden_dim: 65", ""},
    {"perceptron.24", 7, "block: perceptron, hidden_dim: 24", ""},
    {"perceptron.65", 1, "block: perceptron, hidden_dim: 65", ""},
    {"multihead.24", 7, "block: multihead, hidden_dim: 24", MULTIHEAD},
    {"multihead.65", 1, "block: multihead, hidden_dim: 65", MULTIHEAD},
    {"activations.24", 7, "block: activations, hidden_dim: 24", ACTIVATIONS},
    {"activations.65", 1, "block: activations, hidden_dim: 65", ACTIVATIONS},
    {"gated.24", 7, "block: gated, hidden_dim: 24", GATED},
    {"gated.65", 1, "block: gated, hidden_dim: 65", GATED},
    {"swiglu.24", 7, "block: swiglu, hidden_dim: 24", ""},
    {"swiglu.65", 1, "block: swiglu, hidden_dim: 65", ""},
    {"swiglu_oss.24", 7, "block: swiglu, hidden_dim: 24, arguments: {" CLAMPED "}", ""},
    {"swiglu_oss.65", 1, "block: swiglu, hidden_dim: 65, arguments: {" CLAMPED "}", ""},
    {"geglu.24", 7, "block: swiglu, hidden_dim: 24, arguments: {intermediate_size: 37, activation: gelu}", ""},
    {"geglu.65", 1, "block: swiglu, hidden_dim: 65, arguments: {intermediate_size: 37, activation: gelu}", ""},
    {"reglu.24", 7, "block: swiglu, hidden_dim: 24, arguments: {intermediate_size: 64, activation: relu, bias: true}",
     ""},
    {"reglu.65", 1, "block: swiglu, hidden_dim: 65, arguments: {intermediate_size: 64, activation: relu, bias: true}",
     ""},
    {"mixing.24", 5, "block: mixing, hidden_dim: 24", MIXING},
    {"mixing.65", 1, "block: mixing, hidden_dim: 65, arguments: {tokens: 1, heads: 1}", MIXING},
    {"mixing.20", 2, "block: mixing, hidden_dim: 20, arguments: {tokens: 34, heads: 5}", MIXING},
};
enum { CASES = sizeof cases / sizeof cases[0] };

/* Of the greatest magnitude. Where operands have 11 bits errors of 2^-11 come together over several products; where
 * only weights have, fewer. */
struct provider_case {
    const char *kernel, *device;
    double tolerance;
};
static const struct provider_case providers[] = {
    {"cpu", "", 2e-5},
    {"cpu", "chunk_rows: 11", 2e-5},
    {"amx", "", 2e-5},
    {"gpu", "", 2e-5},
    {"cpu", "precision: fp16", 4e-3},
    {"mma", "precision: tf32", 8e-3},
    {"mma", "precision: fp16", 8e-3},
    {"clblast", "", 2e-5},
};
enum { PROVIDERS = sizeof providers / sizeof providers[0] };

struct world {
    struct support_device support;
    struct expert *expert;
    struct device_slab slabs[2 * MAX_TENSORS]; /* inputs, grad_outputs, then outputs or grad_inputs */
    unsigned inputs, outputs, rows;
};

/* Slabs of FIRST_ROW rows more on either side. */
static struct device_slab slab_for(const struct world *world, const struct tensor_desc *desc)
{
    return support_slab((world->rows + 2 * FIRST_ROW) * tensor_row_bytes(desc) / sizeof(float) + 64);
}

static void *first_of(const struct device_slab *slab, const struct tensor_desc *desc)
{
    return (char *)slab->mapping + FIRST_ROW * tensor_row_bytes(desc);
}

static size_t elements(const struct world *world, const struct tensor_desc *desc)
{
    return world->rows * tensor_row_bytes(desc) / dtype_size(desc->dtype);
}

static void fill_input(const struct world *world, unsigned index)
{
    const struct tensor_desc *desc = &world->expert->inputs.tensors[index];
    const size_t count = elements(world, desc);
    void *to = first_of(&world->slabs[index], desc);
    float *values = malloc(count * sizeof *values);
    support_random(values, count, 50 + index, 1);
    for (size_t i = 0; i < count; i++) {
        if (desc->dtype == DTYPE_FLOAT32)
            ((float *)to)[i] = values[i];
        else if (dtype_is_float(desc->dtype))
            ((uint16_t *)to)[i] = half_from_float(values[i]);
        else if (desc->dtype == DTYPE_BOOL)
            ((unsigned char *)to)[i] = values[i] > 0.5f;
        else
            ((int64_t *)to)[i] = values[i] > 0.5f;
    }
    free(values);
}

static void fill_parameters(struct expert *expert)
{
    struct expert_tensor tensor;
    for (unsigned p = 0; p < expert_tensors(expert); p++) {
        expert_tensor(expert, p, &tensor);
        if (!tensor.is_parameter)
            continue;
        float *values = malloc(tensor.count * sizeof *values);
        support_random(values, tensor.count, 400 + p, 0.5f);
        ck_assert_int_eq(expert_tensor_write(expert, p, values), 0);
        free(values);
    }
}

static void open_world(struct world *world, const struct block_case *block, const struct provider_case *provider,
                       bool staged, const char *options)
{
    char text[2000];
    snprintf(text, sizeof text, "%s, optimizer: sgd, learning_rate: 1, max_batch_size: 64%s%s%s", block->expert,
             options, block->own[0] ? "}\nblocks:\n  - {" : "", block->own);
    support_device_open(&world->support, provider->kernel, staged, provider->device, text);
    const int result = expert_create(&world->expert, world->support.device, &world->support.config.experts[0], 1);
    ck_assert_msg(result == 0, "%s: %s", block->name, device_error(world->support.device));
    fill_parameters(world->expert);
    world->rows = block->rows;
    world->inputs = world->expert->inputs.count;
    world->outputs = world->expert->outputs.count;
    for (unsigned i = 0; i < world->inputs; i++) {
        world->slabs[i] = slab_for(world, &world->expert->inputs.tensors[i]);
        fill_input(world, i);
    }
    for (unsigned i = 0; i < world->outputs; i++) {
        const struct tensor_desc *desc = &world->expert->outputs.tensors[i];
        world->slabs[world->inputs + i] = slab_for(world, desc);
        if (desc->dtype == DTYPE_FLOAT32)
            support_random(first_of(&world->slabs[world->inputs + i], desc), elements(world, desc), 60 + i, 1);
    }
}

static void close_world(struct world *world)
{
    for (unsigned i = 0; i < world->inputs + world->outputs; i++)
        support_slab_free(&world->slabs[i]);
    expert_destroy(&world->expert);
    support_device_close(&world->support);
}

/* Runs a batch; the results are the caller's to free. */
static struct expert_batch run(struct world *world, bool backward, struct device_slab *results)
{
    const struct schema *schema = backward ? &world->expert->inputs : &world->expert->outputs;
    for (unsigned i = 0; i < schema->count; i++)
        results[i] = slab_for(world, &schema->tensors[i]);
    struct expert_batch batch = {
        .first_row = FIRST_ROW, .rows = world->rows, .inputs = world->slabs, .outputs = results};
    const int result = backward ? expert_backward(world->expert, &batch) : expert_forward(world->expert, &batch);
    ck_assert_msg(result == 0, "%s", device_error(world->support.device));
    ck_assert_msg(expert_finish(world->expert, &batch) == 0, "%s", device_error(world->support.device));
    return batch;
}

static void check_sample(const struct support_fixture *fixture, const char *block, const char *key, const float *values,
                         size_t count, double tolerance)
{
    size_t samples;
    const float *expected = support_fixture_find(fixture, &samples, "%s.%s", block, key);
    float *found = malloc(samples * sizeof *found);
    for (size_t i = 0; i < samples; i++)
        found[i] = values[(i * 7919 + 13) % count];
    const double error = support_error(found, expected, samples);
    ck_assert_msg(error <= tolerance, "%s.%s: %g", block, key, error);
    free(found);
}

/* Results are what the fixture has, or zeros of what has no gradient; the rows around them were not written. */
static void check_results(const struct world *world, const struct support_fixture *fixture, const char *block,
                          const char *what, const struct schema *schema, struct device_slab *results, double tolerance)
{
    char key[64];
    for (unsigned i = 0; i < schema->count; i++) {
        const struct tensor_desc *desc = &schema->tensors[i];
        const size_t bytes = tensor_row_bytes(desc);
        const unsigned char *rows = first_of(&results[i], desc);
        snprintf(key, sizeof key, "%s.%u", what, i);
        if (desc->dtype == DTYPE_FLOAT32)
            check_sample(fixture, block, key, (const float *)(const void *)rows, elements(world, desc), tolerance);
        else
            for (size_t b = 0; b < world->rows * bytes; b++)
                ck_assert_uint_eq(rows[b], 0);
        const struct device_slab untouched = slab_for(world, desc);
        const size_t end = (FIRST_ROW + world->rows) * bytes;
        ck_assert_mem_eq(results[i].mapping, untouched.mapping, FIRST_ROW * bytes);
        ck_assert_mem_eq((char *)results[i].mapping + end, (char *)untouched.mapping + end, FIRST_ROW * bytes);
        struct device_slab to_free = untouched;
        support_slab_free(&to_free);
        support_slab_free(&results[i]);
    }
}

static void parameters_of(struct expert *expert, float **values)
{
    struct expert_tensor tensor;
    for (unsigned p = 0; p < expert_tensors(expert); p++) {
        expert_tensor(expert, p, &tensor);
        values[p] = malloc(tensor.count * sizeof *values[p]);
        ck_assert_int_eq(expert_tensor_read(expert, p, values[p]), 0);
    }
}

static void block_agrees(const struct block_case *block, const struct provider_case *provider, bool staged)
{
    struct support_fixture *fixture = support_fixture_open("blocks");
    struct device_slab results[MAX_TENSORS];
    struct world world;
    float *before[64] = {NULL}, *after[64] = {NULL};
    open_world(&world, block, provider, staged, "");
    run(&world, false, results);
    check_results(&world, fixture, block->name, "output", &world.expert->outputs, results, provider->tolerance);
    parameters_of(world.expert, before);
    const struct expert_batch batch = run(&world, true, results);
    ck_assert_int_eq(batch.step, EXPERT_STEP_APPLIED);
    check_results(&world, fixture, block->name, "grad_input", &world.expert->inputs, results, provider->tolerance);
    parameters_of(world.expert, after);
    ck_assert_uint_le(expert_tensors(world.expert), 64);
    for (unsigned p = 0; p < expert_tensors(world.expert); p++) {
        struct expert_tensor tensor;
        expert_tensor(world.expert, p, &tensor);
        ck_assert(before[p] != NULL && after[p] != NULL);
        for (size_t i = 0; i < tensor.count; i++)
            before[p][i] -= after[p][i];
        check_sample(fixture, block->name, tensor.name, before[p], tensor.count, provider->tolerance);
        free(before[p]);
        free(after[p]);
    }
    close_world(&world);
    support_fixture_close(&fixture);
}

/* A sanitizer sees what the host does for a kernel, at several times the cost: then each provider has another third of
 * the blocks, the first two all of them. */
#ifdef __SANITIZE_ADDRESS__
enum { CASE_STEP = 3 };
#else
enum { CASE_STEP = 1 };
#endif

START_TEST(blocks_are_pytorchs)
{
    const struct provider_case *provider = &providers[_i];
    if (strcmp(provider->kernel, "clblast") == 0 && !support_device_has_clblast())
        return;
    const unsigned step = _i <= 1 ? 1 : CASE_STEP; /* the second one's chunks are the host's work */
    for (unsigned i = (unsigned)_i % step; i < CASES; i += step)
        block_agrees(&cases[i], provider, i % 2 == 1);
}
END_TEST

/* Frozen: other launches, as no gradient of a parameter needs an input in panels. */
START_TEST(gradients_of_inputs_are_the_same_where_nothing_trains)
{
    struct support_fixture *fixture = support_fixture_open("blocks");
    for (unsigned i = 0; i < CASES; i++) {
        struct device_slab results[MAX_TENSORS];
        struct world world;
        open_world(&world, &cases[i], &providers[0], false, "");
        expert_destroy(&world.expert);
        struct config_expert frozen = world.support.config.experts[0];
        frozen.optimizer = "none";
        ck_assert_int_eq(expert_create(&world.expert, world.support.device, &frozen, 1), 0);
        fill_parameters(world.expert);
        ck_assert_int_eq(run(&world, true, results).step, EXPERT_STEP_NONE);
        check_results(&world, fixture, cases[i].name, "grad_input", &world.expert->inputs, results,
                      providers[0].tolerance);
        close_world(&world);
    }
    support_fixture_close(&fixture);
}
END_TEST

/* Its attention is 0, so that the rest of the layer decides; no other row changes by a bit. */
START_TEST(a_row_whose_keys_are_all_masked_has_a_result_and_the_others_keep_theirs)
{
    struct device_slab without[MAX_TENSORS], with[MAX_TENSORS];
    struct world world;
    const struct provider_case *provider = &providers[_i == 0 ? 0 : 3];
    open_world(&world, &cases[1], provider, false, "");
    const struct tensor_desc *out = &world.expert->outputs.tensors[0];
    const size_t row = tensor_row_bytes(out);
    run(&world, false, without);
    memset((char *)first_of(&world.slabs[1], &world.expert->inputs.tensors[1]) + 17, 1, 17); /* the second row */
    run(&world, false, with);
    const char *a = first_of(&without[0], out), *b = first_of(&with[0], out);
    ck_assert_mem_eq(a, b, row);
    ck_assert_mem_eq(a + 2 * row, b + 2 * row, 2 * row);
    ck_assert_mem_ne(a + row, b + row, row);
    for (size_t i = 0; i < row / sizeof(float); i++)
        ck_assert(isfinite(((const float *)(const void *)(b + row))[i]));
    support_slab_free(&without[0]);
    support_slab_free(&with[0]);
    close_world(&world);
}
END_TEST

/* --- rows of 16 bits ---------------------------------------------------------------------------------------------- */

static float widened(uint16_t bits, uint32_t dtype)
{
    return dtype == DTYPE_BFLOAT16 ? half_float_of_bits((uint32_t)bits << 16) : half_to_float(bits);
}

static uint16_t narrowed(float value, uint32_t dtype)
{
    const uint32_t bits = half_float_bits(value);
    return dtype == DTYPE_BFLOAT16 ? (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : half_from_float(value);
}

static const struct tensor_desc *tensor_of(const struct expert *expert, unsigned tensor)
{
    return tensor < expert->inputs.count ? &expert->inputs.tensors[tensor]
                                         : &expert->outputs.tensors[tensor - expert->inputs.count];
}

/* What one world's tensor has, rounded, goes to both. */
static void share_rows(struct world *wide, struct world *narrow, unsigned tensor)
{
    const struct tensor_desc *from = tensor_of(wide->expert, tensor), *to = tensor_of(narrow->expert, tensor);
    void *whole = first_of(&wide->slabs[tensor], from), *half = first_of(&narrow->slabs[tensor], to);
    if (!dtype_is_float(to->dtype)) {
        memcpy(half, whole, elements(wide, from) * dtype_size(to->dtype));
        return;
    }
    for (size_t i = 0; i < elements(wide, from); i++) {
        ((uint16_t *)half)[i] = narrowed(((float *)whole)[i], to->dtype);
        ((float *)whole)[i] = widened(((uint16_t *)half)[i], to->dtype);
    }
}

static void same_results(struct world *wide, struct world *narrow, bool backward, const char *block)
{
    struct device_slab expected[MAX_TENSORS], found[MAX_TENSORS];
    const struct schema *schema = backward ? &narrow->expert->inputs : &narrow->expert->outputs;
    const struct schema *wide_schema = backward ? &wide->expert->inputs : &wide->expert->outputs;
    run(wide, backward, expected);
    run(narrow, backward, found);
    for (unsigned i = 0; i < schema->count; i++) {
        const struct tensor_desc *desc = &schema->tensors[i];
        const float *whole = first_of(&expected[i], &wide_schema->tensors[i]);
        const uint16_t *half = first_of(&found[i], desc);
        for (size_t e = 0; e < elements(narrow, desc) && dtype_is_float(desc->dtype); e++)
            ck_assert_msg(half[e] == narrowed(whole[e], desc->dtype), "%s: %s %zu is %a, and should be %a", block,
                          desc->name, e, (double)widened(half[e], desc->dtype), (double)whole[e]);
        const struct device_slab untouched = slab_for(narrow, desc);
        const size_t bytes = tensor_row_bytes(desc), end = (FIRST_ROW + narrow->rows) * bytes;
        ck_assert_mem_eq(found[i].mapping, untouched.mapping, FIRST_ROW * bytes);
        ck_assert_mem_eq((char *)found[i].mapping + end, (char *)untouched.mapping + end, FIRST_ROW * bytes);
        struct device_slab to_free = untouched;
        support_slab_free(&to_free);
        support_slab_free(&expected[i]);
        support_slab_free(&found[i]);
    }
}

/* The same computation, of what the narrow rows hold exactly, so that results differ by their own rounding alone. */
START_TEST(rows_of_16_bits_are_computed_with_as_floats_are)
{
    static const char *const dtypes[] = {", dtype: float16", ", dtype: bfloat16"};
    const struct provider_case *provider = &providers[_i == 0 ? 0 : 3];
    for (unsigned i = (unsigned)_i; i < CASES; i += 2) {
        struct world wide, narrow;
        const bool staged = i / 2 % 2 == 1;
        open_world(&wide, &cases[i], provider, staged, "");
        open_world(&narrow, &cases[i], provider, staged, dtypes[_i]);
        for (unsigned tensor = 0; tensor < wide.inputs + wide.outputs; tensor++)
            share_rows(&wide, &narrow, tensor);
        same_results(&wide, &narrow, false, cases[i].name);
        same_results(&wide, &narrow, true, cases[i].name);
        close_world(&narrow);
        close_world(&wide);
    }
}
END_TEST

START_TEST(a_row_is_the_same_alone_and_among_others)
{
    struct device_slab together[MAX_TENSORS], alone[MAX_TENSORS];
    const struct block_case *block = &cases[_i];
    struct world world;
    open_world(&world, block, &providers[0], false, "");
    const struct tensor_desc *out = &world.expert->outputs.tensors[0];
    const size_t bytes = tensor_row_bytes(out);
    run(&world, false, together);
    for (unsigned row = 0; row < block->rows; row++) {
        alone[0] = slab_for(&world, out);
        for (unsigned i = 1; i < world.outputs; i++)
            alone[i] = slab_for(&world, &world.expert->outputs.tensors[i]);
        struct expert_batch batch = {.first_row = FIRST_ROW + row, .rows = 1, .inputs = world.slabs, .outputs = alone};
        ck_assert_int_eq(expert_forward(world.expert, &batch), 0);
        ck_assert_int_eq(expert_finish(world.expert, &batch), 0);
        const size_t at = (FIRST_ROW + row) * bytes;
        ck_assert_double_le(support_error((const float *)(const void *)((char *)alone[0].mapping + at),
                                          (const float *)(const void *)((char *)together[0].mapping + at),
                                          bytes / sizeof(float)),
                            1e-6);
        for (unsigned i = 0; i < world.outputs; i++)
            support_slab_free(&alone[i]);
    }
    for (unsigned i = 0; i < world.outputs; i++)
        support_slab_free(&together[i]);
    close_world(&world);
}
END_TEST

/* --- the examples of blocks of one's own
 * ------------------------------------------------------------------------------ */

enum { STEPS = 80 };

static double squares(const float *y, const float *wanted, float *dy, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        dy[i] = (y[i] - wanted[i]) / (float)count;
        sum += ((double)y[i] - (double)wanted[i]) * ((double)y[i] - (double)wanted[i]);
    }
    return sum / (double)count;
}

/* To give wanted rows for given ones. */
static void example_trains(const struct config_expert *config, struct device *device)
{
    struct world world = {.rows = 16};
    struct device_slab results[MAX_TENSORS];
    double first = 0, last = 0;
    ck_assert_msg(expert_create(&world.expert, device, config, 1) == 0, "%s: %s", config->block, device_error(device));
    world.support.device = device;
    world.inputs = world.expert->inputs.count;
    world.outputs = 1;
    for (unsigned i = 0; i < world.inputs; i++) {
        world.slabs[i] = slab_for(&world, &world.expert->inputs.tensors[i]);
        fill_input(&world, i);
    }
    const struct tensor_desc *out = &world.expert->outputs.tensors[0];
    const size_t count = elements(&world, out);
    float *wanted = malloc(count * sizeof *wanted);
    support_random(wanted, count, 90, 1);
    world.slabs[world.inputs] = slab_for(&world, out);
    for (unsigned step = 0; step < STEPS; step++) {
        run(&world, false, results);
        last = squares(first_of(&results[0], out), wanted, first_of(&world.slabs[world.inputs], out), count);
        first = step == 0 ? last : first;
        support_slab_free(&results[0]);
        ck_assert_int_eq(run(&world, true, results).step, EXPERT_STEP_APPLIED);
        for (unsigned i = 0; i < world.inputs; i++)
            support_slab_free(&results[i]);
    }
    ck_assert_msg(last < first / 4, "%s: from %g to %g in %d steps", config->block, first, last, STEPS);
    free(wanted);
    for (unsigned i = 0; i <= world.inputs; i++)
        support_slab_free(&world.slabs[i]);
    expert_destroy(&world.expert);
}

START_TEST(the_examples_of_own_blocks_train)
{
    static char text[16384];
    struct support_device support;
    struct config config;
    FILE *file = fopen("examples/own_blocks.yaml", "re");
    ck_assert_ptr_nonnull(file);
    const size_t length = fread(text, 1, sizeof text, file);
    fclose(file);
    ck_assert_int_eq(config_parse(&config, text, length, "examples/own_blocks.yaml"), 0);
    ck_assert_uint_ge(config.experts_count, 3);
    support_device_open(&support, "cpu", false, "", "");
    for (unsigned i = 0; i < config.experts_count; i++)
        example_trains(&config.experts[i], support.device);
    config_destroy(&config);
    support_device_close(&support);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("blocks");
    tcase_set_timeout(all, 800); /* kernels are compiled at the first run */
    tcase_add_loop_test(all, blocks_are_pytorchs, 0, PROVIDERS);
    tcase_add_test(all, gradients_of_inputs_are_the_same_where_nothing_trains);
    tcase_add_loop_test(all, a_row_whose_keys_are_all_masked_has_a_result_and_the_others_keep_theirs, 0, 2);
    tcase_add_loop_test(all, a_row_is_the_same_alone_and_among_others, 0, CASES);
    tcase_add_test(all, the_examples_of_own_blocks_train);
    TCase *shorts = tcase_create("rows of 16 bits");
    tcase_set_timeout(shorts, 800);
    tcase_add_loop_test(shorts, rows_of_16_bits_are_computed_with_as_floats_are, 0, 2);
    Suite *suite = suite_create("blocks");
    suite_add_tcase(suite, all);
    suite_add_tcase(suite, shorts);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
