// timeout: 3000 (at the first run PoCL compiles for a minute; then it is 2,000 blocks)
/* Random blocks of up to six layers, declared in YAML, against a plain interpreter of their graph: outputs, gradients
 * of inputs and of parameters. What layers are next to each other, and who reads whose value how often, decides which
 * launches a plan is made of; no list of cases would have them all. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/blocks/engine.h"
#include "runtime/device/device_private.h"
#include "runtime/train/parameters.h"
#include "unit/support_device.h"
#include "unit/support_graph.h"

enum { GRAPHS = 2000, AT_ONCE = 40, LAYERS = 6, TEXT = 4096, SLABS = 2 * SCHEMA_MAX_TENSORS };

/* --- random declarations ------------------------------------------------------------------------------------------ */

struct dice {
    uint64_t state;
};

static unsigned roll(struct dice *dice, unsigned sides)
{
    uint64_t x = dice->state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (unsigned)((x ^ (x >> 31)) >> 33) % sides;
}

struct drawn {
    char name[16];
    unsigned tokens, columns; /* tokens 0: rows of `columns` */
    unsigned uses;
    bool input;
};

struct drawing {
    struct dice dice;
    struct drawn values[2 + LAYERS];
    unsigned count;
    char inputs[TEXT / 2], layers[TEXT / 2], outputs[512];
    unsigned inputs_count, outputs_count;
    bool has_key_mask, has_affine;
};

#define APPEND(to, ...) snprintf((to) + strlen(to), sizeof(to) - strlen(to), __VA_ARGS__)

static void shape_text(unsigned tokens, unsigned columns, char text[32])
{
    if (tokens > 0)
        snprintf(text, 32, "[%u, %u]", tokens, columns);
    else
        snprintf(text, 32, "[%u]", columns);
}

static void add_input(struct drawing *drawing, const char *name, unsigned tokens, unsigned columns, const char *dtype)
{
    char shape[32];
    shape_text(tokens, columns, shape);
    APPEND(drawing->inputs, "%s{name: %s, shape: %s, dtype: %s}", drawing->inputs_count++ > 0 ? ", " : "", name, shape,
           dtype);
}

static struct drawn *add_value(struct drawing *drawing, const char *letter, unsigned tokens, unsigned columns)
{
    struct drawn *value = &drawing->values[drawing->count];
    *value = (struct drawn){.tokens = tokens, .columns = columns};
    snprintf(value->name, sizeof value->name, "%s%u", letter, drawing->count++);
    return value;
}

/* One that nobody reads yet, mostly. */
static struct drawn *pick(struct drawing *drawing)
{
    struct drawn *value = NULL;
    for (unsigned tries = 0; tries < 4; tries++) {
        value = &drawing->values[roll(&drawing->dice, drawing->count)];
        if (value->uses == 0)
            break;
    }
    return value;
}

static struct drawn *pick_like(struct drawing *drawing, const struct drawn *like)
{
    struct drawn *value;
    do
        value = &drawing->values[roll(&drawing->dice, drawing->count)];
    while (value->tokens != like->tokens || value->columns != like->columns);
    return value;
}

static void add_linear(struct drawing *drawing)
{
    static const char *const activations[] = {"none", "none", "relu", "gelu", "gelu_erf", "silu"};
    struct drawn *x = pick(drawing);
    /* Often a size that there is already, so that sums and products are possible. */
    const unsigned size = roll(&drawing->dice, 3) ? pick(drawing)->columns : 4 + roll(&drawing->dice, 33);
    x->uses++;
    struct drawn *y = add_value(drawing, "l", x->tokens, size);
    APPEND(drawing->layers, "{name: %s, layer: linear, input: %s, size: %u, activation: %s, bias: %s}", y->name,
           x->name, size, activations[roll(&drawing->dice, 6)], roll(&drawing->dice, 4) ? "true" : "false");
}

static void add_gated(struct drawing *drawing)
{
    static const char *const options[] = {"activation: silu", "activation: silu, limit: 0.9, alpha: 1.702, up_shift: 1",
                                          "activation: gelu, alpha: 2", "activation: gelu_erf, limit: 1.5",
                                          "activation: relu"};
    struct drawn *x = pick(drawing);
    const unsigned size = roll(&drawing->dice, 3) ? pick(drawing)->columns : 1 + roll(&drawing->dice, 36);
    x->uses++;
    const struct drawn *y = add_value(drawing, "g", x->tokens, size);
    APPEND(drawing->layers, "{name: %s, layer: gated, input: %s, size: %u, %s, bias: %s}", y->name, x->name, size,
           options[roll(&drawing->dice, 5)], roll(&drawing->dice, 2) ? "true" : "false");
}

static void add_combination(struct drawing *drawing, const char *kind, unsigned operands)
{
    struct drawn *first = pick(drawing);
    char names[64] = "";
    first->uses++;
    APPEND(names, "%s", first->name);
    for (unsigned i = 1; i < operands; i++) {
        struct drawn *next = pick_like(drawing, first);
        next->uses++;
        APPEND(names, ", %s", next->name);
    }
    const struct drawn *y = add_value(drawing, "c", first->tokens, first->columns);
    APPEND(drawing->layers, "{name: %s, layer: %s, inputs: [%s]}", y->name, kind, names);
}

static void add_norm(struct drawing *drawing)
{
    struct drawn *x = pick(drawing);
    x->uses++;
    const struct drawn *y = add_value(drawing, "n", x->tokens, x->columns);
    APPEND(drawing->layers, "{name: %s, layer: %s, input: %s, epsilon: 0.01}", y->name,
           roll(&drawing->dice, 2) ? "layer_norm" : "rms_norm", x->name);
}

static void add_mask(struct drawing *drawing)
{
    struct drawn *x = pick(drawing);
    char mask[16];
    snprintf(mask, sizeof mask, "m%u", drawing->count);
    add_input(drawing, mask, x->tokens, x->columns, roll(&drawing->dice, 2) ? "bool" : "int64");
    x->uses++;
    const struct drawn *y = add_value(drawing, "k", x->tokens, x->columns);
    APPEND(drawing->layers, "{name: %s, layer: mask, inputs: [%s, %s], scale: 1 / 0.8}", y->name, x->name, mask);
}

/* Of what has tokens: three parts of one value, or three values. */
static bool add_attention(struct drawing *drawing)
{
    struct drawn *q = pick(drawing);
    char mask[32] = "";
    if (q->tokens == 0)
        return false;
    const bool in_one = q->columns % 3 == 0 && roll(&drawing->dice, 2);
    const unsigned columns = in_one ? q->columns / 3 : q->columns;
    unsigned heads = 1 + roll(&drawing->dice, 4);
    while (columns % heads != 0)
        heads--;
    if (roll(&drawing->dice, 2)) {
        if (!drawing->has_key_mask)
            add_input(drawing, "keys", 0, q->tokens, "bool");
        drawing->has_key_mask = true;
        snprintf(mask, sizeof mask, ", mask: keys");
    }
    struct drawn *k = in_one ? q : pick_like(drawing, q), *v = in_one ? q : pick_like(drawing, q);
    char names[64];
    snprintf(names, sizeof names, in_one ? "%s" : "%s, %s, %s", q->name, k->name, v->name);
    q->uses++;
    k->uses += !in_one;
    v->uses += !in_one;
    const struct drawn *y = add_value(drawing, "a", q->tokens, columns);
    APPEND(drawing->layers, "{name: %s, layer: attention, inputs: [%s], heads: %u%s}", y->name, names, heads, mask);
    return true;
}

/* Of what has tokens: x y^T, head by head; or x y where x has as many columns as y has tokens. */
static bool add_matmul(struct drawing *drawing)
{
    struct drawn *a = pick(drawing), *b = pick_like(drawing, a);
    if (a->tokens == 0 || a->columns * a->tokens > 400)
        return false;
    const bool plain = a->columns % a->tokens == 0 && b->columns % (a->columns / a->tokens) == 0;
    unsigned heads = plain ? a->columns / a->tokens : 1 + roll(&drawing->dice, 3);
    while (a->columns % heads != 0)
        heads--;
    a->uses++;
    b->uses++;
    const struct drawn *y = add_value(drawing, "p", a->tokens, plain ? b->columns : heads * b->tokens);
    APPEND(drawing->layers, "{name: %s, layer: matmul, inputs: [%s, %s], heads: %u, transpose: %s, scale: 1 / 4}",
           y->name, a->name, b->name, heads, plain ? "none" : "second");
    return true;
}

static void add_activation(struct drawing *drawing)
{
    static const char *const activations[] = {"relu", "gelu", "gelu_erf", "silu"};
    struct drawn *x = pick(drawing);
    x->uses++;
    const struct drawn *y = add_value(drawing, "f", x->tokens, x->columns);
    APPEND(drawing->layers, "{name: %s, layer: activation, input: %s, activation: %s}", y->name, x->name,
           activations[roll(&drawing->dice, 4)]);
}

static void add_affine(struct drawing *drawing)
{
    static const char *const constants[] = {"none", "fixed", "trained"}, *const scales[] = {"1", "-1 / 2"};
    struct drawn *x = pick(drawing);
    x->uses++;
    const struct drawn *y = add_value(drawing, "s", x->tokens, x->columns);
    APPEND(drawing->layers,
           "{name: %s, layer: affine, input: %s, scale: %s, shift: 0.25, weight: %s, bias: %s, over: %s}", y->name,
           x->name, scales[roll(&drawing->dice, 2)], constants[roll(&drawing->dice, 3)],
           constants[roll(&drawing->dice, 3)], roll(&drawing->dice, 2) ? "row" : "last");
}

static void add_layer(struct drawing *drawing)
{
    switch (roll(&drawing->dice, drawing->has_affine ? 15 : 14)) {
    case 0:
    case 1:
        add_combination(drawing, "add", 2 + roll(&drawing->dice, 3));
        break;
    case 2:
        add_combination(drawing, "multiply", 2);
        break;
    case 3:
        add_norm(drawing);
        break;
    case 4:
        add_mask(drawing);
        break;
    case 11:
        add_activation(drawing);
        break;
    case 14:
        add_affine(drawing);
        break;
    case 12:
    case 13:
        if (add_matmul(drawing))
            break;
        __attribute__((fallthrough));
    case 5:
    case 6:
        if (add_attention(drawing))
            break;
        __attribute__((fallthrough));
    case 7:
        add_gated(drawing);
        break;
    default:
        add_linear(drawing);
    }
}

/* Writes a block; false: what was drawn is none (too many outputs), so another number is to be tried. */
static bool draw(uint64_t seed, char text[TEXT], unsigned number)
{
    struct drawing drawing = {.dice = {seed * 0xd1342543de82ef95u}, .has_affine = seed % 4 == 0};
    const unsigned tokens = roll(&drawing.dice, 2) ? 1 + roll(&drawing.dice, 9) : 0;
    const unsigned columns = roll(&drawing.dice, 3) ? 3 * (2 + roll(&drawing.dice, 7)) : 4 + roll(&drawing.dice, 37);
    const unsigned inputs = 1 + roll(&drawing.dice, 2), layers = 1 + roll(&drawing.dice, LAYERS);
    for (unsigned i = 0; i < inputs; i++) {
        const struct drawn *x = add_value(&drawing, "x", tokens, columns);
        add_input(&drawing, x->name, tokens, columns, "float32");
        drawing.values[i].input = true;
    }
    for (unsigned i = 0; i < layers; i++) {
        APPEND(drawing.layers, "%s", i > 0 ? ", " : "");
        add_layer(&drawing);
    }
    for (unsigned i = 0; i < drawing.count; i++) {
        const struct drawn *value = &drawing.values[i];
        if (value->input && value->uses == 0)
            return false;
        /* Now and then an output is what others read, too. */
        if (value->uses == 0 || (!value->input && roll(&drawing.dice, 8) == 0))
            APPEND(drawing.outputs, "%s{name: out%u, value: %s}", drawing.outputs_count > 0 ? ", " : "",
                   drawing.outputs_count, value->name),
                drawing.outputs_count++;
    }
    snprintf(text, TEXT, "  - {name: b%u, inputs: [%s], layers: [%s], outputs: [%s]}\n", number, drawing.inputs,
             drawing.layers, drawing.outputs);
    return drawing.inputs_count + drawing.outputs_count <= SCHEMA_MAX_TENSORS;
}

/* Of what is compared: where operands have 11 bits, errors of 2^-11 come together over several products. */
static const double FP32 = 1e-4, FP16_WEIGHTS = 4e-3, REDUCED = 1e-2;

/* --- the check ---------------------------------------------------------------------------------------------------- */

struct trial {
    struct expert *expert;
    struct engine_expert *engine;
    struct support_graph reference;
    struct device_slab slabs[SLABS];
    float *before[PARAMETERS_MAX];
    unsigned rows;
    double tolerance; /* of results, beside the magnitude */
    double magnitude; /* of the greatest number on the way: what differs of large ones is rounded as they are */
    const char *text; /* the declaration, for messages */
    bool all_masked;  /* else masks are drawn */
};

static const float *before_of(void *context, const char *name)
{
    struct trial *trial = context;
    const int index = expert_tensor_find(trial->expert, name);
    ck_assert_msg(index >= 0, "there is no %s in %s", name, trial->text);
    return trial->before[index];
}

static void set_parameters(struct trial *trial)
{
    for (unsigned p = 0; p < expert_tensors(trial->expert); p++) {
        struct expert_tensor tensor;
        expert_tensor(trial->expert, p, &tensor);
        trial->before[p] = malloc(tensor.count * sizeof(float));
        /* Sums of products stay about as large as what goes in. */
        support_random(trial->before[p], tensor.count, 400 + p,
                       tensor.ndim == 2 ? 1.5f / sqrtf((float)tensor.dims[1]) : 0.7f);
        ck_assert_int_eq(expert_tensor_write(trial->expert, p, trial->before[p]), 0);
    }
}

static void set_rows(const struct trial *trial, unsigned slab, const struct tensor_desc *desc, double *reference)
{
    const size_t count = trial->rows * tensor_row_bytes(desc) / dtype_size(desc->dtype);
    float *values = malloc(count * sizeof *values);
    support_random(values, count, 50 + slab, 1);
    for (size_t i = 0; i < count; i++) {
        /* A bool leaves a key out, or lets a number through, as its layer says; a number of a mask lets through. */
        const bool set = trial->all_masked ? desc->dtype == DTYPE_BOOL : values[i] > 0.2f;
        if (desc->dtype == DTYPE_FLOAT32)
            ((float *)trial->slabs[slab].mapping)[i] = values[i];
        else if (desc->dtype == DTYPE_BOOL)
            ((unsigned char *)trial->slabs[slab].mapping)[i] = set;
        else
            ((int64_t *)trial->slabs[slab].mapping)[i] = set ? 3 : 0;
        reference[i] = desc->dtype == DTYPE_FLOAT32 ? (double)values[i] : set ? desc->dtype == DTYPE_INT64 ? 3 : 1 : 0;
    }
    free(values);
}

static void compare(const struct trial *trial, const char *what, const float *found, const double *expected,
                    size_t count)
{
    double magnitude = 0.05 * trial->magnitude, difference = 0;
    for (size_t i = 0; i < count; i++) {
        ck_assert_msg(!isnan(found[i]), "%s is NaN: %s", what, trial->text);
        magnitude = fmax(magnitude, fabs(expected[i]));
        difference = fmax(difference, fabs((double)found[i] - expected[i]));
    }
    ck_assert_msg(difference <= trial->tolerance * magnitude, "%s differs by %g of %g: %s", what, difference, magnitude,
                  trial->text);
}

static void run(const struct trial *trial, bool backward)
{
    const unsigned inputs = trial->expert->inputs.count, outputs = trial->expert->outputs.count;
    struct expert_batch batch = {.rows = trial->rows,
                                 .inputs = (struct device_slab *)trial->slabs,
                                 .outputs = (struct device_slab *)&trial->slabs[inputs + outputs]};
    ck_assert_int_eq(backward ? expert_backward(trial->expert, &batch) : expert_forward(trial->expert, &batch), 0);
    ck_assert_int_eq(expert_finish(trial->expert, &batch), 0);
}

static void note_magnitude(struct trial *trial)
{
    trial->magnitude = 1;
    for (unsigned v = 0; v < trial->reference.graph->values_count; v++) {
        for (size_t i = 0; i < support_graph_elements(&trial->reference, v); i++) {
            trial->magnitude = fmax(trial->magnitude, fabs(trial->reference.values[v][i]));
            if (trial->reference.gradients[v] != NULL)
                trial->magnitude = fmax(trial->magnitude, fabs(trial->reference.gradients[v][i]));
        }
    }
}

static void check_backward(struct trial *trial)
{
    const struct block_graph *graph = trial->engine->model->graph;
    const unsigned inputs = graph->inputs.count, outputs = graph->outputs.count;
    char name[128];
    run(trial, true);
    support_graph_backward(&trial->reference);
    note_magnitude(trial);
    for (unsigned i = 0; i < inputs; i++) {
        const struct device_slab *slab = &trial->slabs[inputs + outputs + i];
        const size_t bytes = trial->rows * tensor_row_bytes(&graph->inputs.tensors[i]);
        if (trial->reference.gradients[i] != NULL)
            compare(trial, graph->inputs.tensors[i].name, slab->mapping, trial->reference.gradients[i],
                    bytes / sizeof(float));
        for (size_t b = 0; b < bytes && trial->reference.gradients[i] == NULL; b++)
            ck_assert_uint_eq(((unsigned char *)slab->mapping)[b], 0);
    }
    for (unsigned i = 0; i < SUPPORT_GRAPH_PARAMETERS * graph->nodes_count; i++) {
        const unsigned node = i / SUPPORT_GRAPH_PARAMETERS, which = i % SUPPORT_GRAPH_PARAMETERS;
        support_graph_name(&graph->nodes[node], which, name, sizeof name);
        if (name[0] == '\0')
            continue;
        const size_t count = support_graph_parameter_elements(&trial->reference, node, which);
        const int index = expert_tensor_find(trial->expert, name);
        float *after = malloc(count * sizeof *after);
        ck_assert_int_eq(expert_tensor_read(trial->expert, (unsigned)index, after), 0);
        for (size_t e = 0; e < count; e++)
            after[e] = trial->before[index][e] - after[e];
        compare(trial, name, after, trial->reference.parameter_gradients[node][which], count);
        free(after);
    }
}

/* --- the reference's gradients themselves: finite differences, in double ------------------------------------------ */

enum { SAMPLES = 60 }; /* of a tensor, at most */

/* What the gradients are of: the outputs, each element times the gradient that was set for it. */
static double weighed_sum(struct support_graph *graph, double *const *weights)
{
    double sum = 0;
    support_graph_forward(graph);
    for (unsigned o = 0; o < graph->graph->outputs.count; o++) {
        const unsigned value = graph->graph->results[o];
        const double *weight = weights[o];
        for (size_t i = 0; i < support_graph_elements(graph, value) && weight != NULL; i++)
            sum += graph->values[value][i] * weight[i];
    }
    return sum;
}

static void near_enough(const struct trial *trial, const char *what, size_t i, double found, double difference)
{
    ck_assert_msg(fabs(found - difference) <= 2e-6 * (1 + trial->magnitude),
                  "%s %zu: the gradient is %.9g, and %.9g by differences: %s", what, i, found, difference, trial->text);
}

static void check_differences(struct trial *trial, double *const *weights)
{
    static const float step = 0x1p-12f;
    struct support_graph *graph = &trial->reference;
    for (unsigned v = 0; v < graph->graph->inputs.count; v++) {
        const size_t count = support_graph_elements(graph, v), stride = count / SAMPLES + 1;
        for (size_t i = 0; i < count && graph->gradients[v] != NULL; i += stride) {
            const double kept = graph->values[v][i];
            graph->values[v][i] = kept + (double)step;
            const double above = weighed_sum(graph, weights);
            graph->values[v][i] = kept - (double)step;
            const double below = weighed_sum(graph, weights);
            graph->values[v][i] = kept;
            near_enough(trial, graph->graph->values[v].desc.name, i, graph->gradients[v][i],
                        (above - below) / (2 * (double)step));
        }
    }
    for (unsigned p = 0; p < SUPPORT_GRAPH_PARAMETERS * graph->graph->nodes_count; p++) {
        const unsigned node = p / SUPPORT_GRAPH_PARAMETERS, which = p % SUPPORT_GRAPH_PARAMETERS;
        float *values = (float *)(uintptr_t)graph->parameters[node][which]; /* the trial's own */
        if (values == NULL || support_graph_is_fixed(&graph->graph->nodes[node], which))
            continue;
        const size_t count = support_graph_parameter_elements(graph, node, which), stride = count / SAMPLES + 1;
        for (size_t i = 0; i < count; i += stride) {
            const float kept = values[i], more = kept + step, less = kept - step;
            values[i] = more;
            const double above = weighed_sum(graph, weights);
            values[i] = less;
            const double below = weighed_sum(graph, weights);
            values[i] = kept;
            near_enough(trial, graph->graph->nodes[node].layer->name, i, graph->parameter_gradients[node][which][i],
                        (above - below) / ((double)more - (double)less));
        }
    }
}

/* Whether its gradients could be compared. */
static bool check_expert(struct expert *expert, unsigned rows, const char *text, double tolerance, bool all_masked,
                         bool differences)
{
    struct trial trial = {.expert = expert,
                          .engine = (struct engine_expert *)expert,
                          .rows = rows,
                          .text = text,
                          .tolerance = tolerance,
                          .all_masked = all_masked};
    double *weights[SCHEMA_MAX_TENSORS] = {NULL};
    const struct block_graph *graph = trial.engine->model->graph;
    const unsigned inputs = graph->inputs.count, outputs = graph->outputs.count;
    ck_assert_uint_gt(inputs + outputs, 0);
    set_parameters(&trial);
    support_graph_open(&trial.reference, graph, rows, before_of, &trial);
    for (unsigned i = 0; i < 2 * (inputs + outputs); i++) {
        const unsigned tensor = i < inputs + outputs ? i : i - inputs - outputs;
        trial.slabs[i] = support_slab(64 * 64 * rows);
        if (i < inputs)
            set_rows(&trial, i, &graph->inputs.tensors[i], trial.reference.values[i]);
        else if (i < inputs + outputs)
            set_rows(&trial, i, &graph->outputs.tensors[tensor - inputs],
                     trial.reference.gradients[graph->results[tensor - inputs]]);
    }
    run(&trial, false);
    support_graph_forward(&trial.reference);
    note_magnitude(&trial);
    for (unsigned i = 0; i < outputs; i++)
        compare(&trial, graph->outputs.tensors[i].name, trial.slabs[inputs + outputs + i].mapping,
                trial.reference.values[graph->results[i]], support_graph_elements(&trial.reference, graph->results[i]));
    for (unsigned i = 0; i < outputs; i++) {
        const size_t bytes = support_graph_elements(&trial.reference, graph->results[i]) * sizeof(double);
        weights[i] = malloc(bytes);
        memcpy(weights[i], trial.reference.gradients[graph->results[i]], bytes);
    }
    const bool smooth = !trial.reference.kink;
    if (smooth)
        check_backward(&trial);
    if (smooth && differences)
        check_differences(&trial, weights);
    for (unsigned i = 0; i < outputs; i++)
        free(weights[i]);
    for (unsigned i = 0; i < 2 * (inputs + outputs); i++)
        support_slab_free(&trial.slabs[i]);
    for (unsigned p = 0; p < expert_tensors(expert); p++)
        free(trial.before[p]);
    support_graph_close(&trial.reference);
    return smooth;
}

/* AT_ONCE blocks in one configuration, drawn from `seed` on; the device stays. */
static unsigned check_some(struct device *device, uint64_t *seed)
{
    static char texts[AT_ONCE][TEXT], text[AT_ONCE * (TEXT + 128)];
    struct config config;
    unsigned compared = 0;
    size_t used = (size_t)snprintf(text, sizeof text, "experts:\n");
    for (unsigned i = 0; i < AT_ONCE; i++) {
        while (!draw((*seed)++, texts[i], i))
            ;
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "  - {uid: e.%u, block: b%u, optimizer: sgd, learning_rate: 1, max_batch_size: 8}\n",
                                 i, i);
    }
    used += (size_t)snprintf(text + used, sizeof text - used, "blocks:\n");
    for (unsigned i = 0; i < AT_ONCE; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s", texts[i]);
    ck_assert_int_eq(config_parse(&config, text, used, "random"), 0);
    for (unsigned i = 0; i < AT_ONCE; i++) {
        struct expert *expert;
        const int result = expert_create(&expert, device, &config.experts[i], 1);
        ck_assert_msg(result == 0, "%s: %s", device_error(device), texts[i]);
        compared += check_expert(expert, 1 + (unsigned)(*seed + i) % 4, texts[i], FP32, false, false);
        expert_destroy(&expert);
    }
    config_destroy(&config);
    return compared;
}

START_TEST(random_blocks_compute_what_their_layers_say)
{
    static const struct {
        const char *kernel, *options;
        unsigned graphs;
    } providers[] = {{"cpu", "chunk_rows: 10", GRAPHS}, {"gpu", "", GRAPHS / 10}, {"amx", "", GRAPHS / 10}};
    struct support_device support;
    unsigned compared = 0;
    uint64_t seed = 1;
    support_device_open(&support, providers[_i].kernel, _i == 1, providers[_i].options, "");
    for (unsigned done = 0; done < providers[_i].graphs; done += AT_ONCE)
        compared += check_some(support.device, &seed);
    ck_assert_uint_gt(compared, providers[_i].graphs * 9 / 10);
    support_device_close(&support);
}
END_TEST

/* --- every built-in block, and every kind of layer with each of its options ----------------------------------------
 */

#define ONE(layer) "inputs: [{name: x, shape: [hidden_dim]}], layers: [" layer "], outputs: [{name: y, value: l}]"
#define TOKENS(inputs, layers)                                                                                         \
    "inputs: [{name: x, shape: [5, hidden_dim]}" inputs "], layers: [" layers "], outputs: [{name: y, value: l}]"
#define KEYS ", {name: keys, shape: [5], dtype: bool}"

static const struct {
    const char *expert, *own; /* own: without a name */
} each[] = {
    {"block: ffn, hidden_dim: 11", ""},
    {"block: transformer, hidden_dim: 12, arguments: {sequence: 5, heads: 3}", ""},
    {"block: transformer, hidden_dim: 15, arguments: {sequence: 1, heads: 5}", ""},
    {"block: det_dropout, hidden_dim: 13", ""},
    {"block: perceptron, hidden_dim: 9", ""},
    {"block: swiglu, hidden_dim: 7", ""},
    {"block: swiglu, hidden_dim: 10, arguments: {intermediate_size: 13, bias: true, limit: 0.8, alpha: 1.702, "
     "up_shift: 1}",
     ""},
    {"block: swiglu, hidden_dim: 9, arguments: {intermediate_size: 5, activation: gelu_erf}", ""},
    {"hidden_dim: 7", ONE("{name: l, layer: linear, input: x, size: 5, activation: gelu}")},
    {"hidden_dim: 7", ONE("{name: l, layer: linear, input: x, size: 5, activation: gelu_erf, bias: false}")},
    {"hidden_dim: 7", ONE("{name: l, layer: linear, input: x, size: 5, activation: silu}")},
    {"hidden_dim: 7", ONE("{name: l, layer: linear, input: x, size: 5, activation: relu}")},
    {"hidden_dim: 7", ONE("{name: l, layer: gated, input: x, size: 5, activation: gelu, alpha: 2}")},
    {"hidden_dim: 7", ONE("{name: l, layer: gated, input: x, size: 33, activation: relu, bias: true}")},
    {"hidden_dim: 7", ONE("{name: l, layer: layer_norm, input: x}")},
    {"hidden_dim: 1", ONE("{name: l, layer: rms_norm, input: x}")},
    {"hidden_dim: 7", ONE("{name: l, layer: rms_norm, input: x, epsilon: 0.1}")},
    {"hidden_dim: 7", ONE("{name: a, layer: linear, input: x, size: 7}, {name: l, layer: multiply, inputs: [x, a]}")},
    {"hidden_dim: 7", ONE("{name: l, layer: add, inputs: [x, x, x]}")},
    {"hidden_dim: 7", ONE("{name: l, layer: affine, input: x, scale: -1.5, shift: 2}")},
    {"hidden_dim: 7", ONE("{name: l, layer: affine, input: x, weight: trained, bias: fixed, scale: 1 / 4}")},
    {"hidden_dim: 7", TOKENS("", "{name: l, layer: affine, input: x, weight: fixed, bias: trained}")},
    {"hidden_dim: 7", TOKENS("", "{name: l, layer: affine, input: x, weight: trained, bias: trained, over: row}")},
    {"hidden_dim: 7", TOKENS("", "{name: l, layer: affine, input: x, weight: fixed, bias: fixed, over: row}")},
    {"hidden_dim: 6",
     TOKENS("", "{name: l, layer: matmul, inputs: [x, x], transpose: second, heads: 2, scale: 1 / 3}")},
    {"hidden_dim: 15", TOKENS("", "{name: l, layer: matmul, inputs: [x, x], heads: 3}")},
    {"hidden_dim: 6", TOKENS("", "{name: l, layer: attention, inputs: [x, x, x], heads: 2}")},
    {"hidden_dim: 9", TOKENS(KEYS, "{name: l, layer: attention, input: x, heads: 3, mask: keys}")},
    {"hidden_dim: 5",
     TOKENS(", {name: m, shape: [5, hidden_dim], dtype: bool}", "{name: l, layer: mask, inputs: [x, m], scale: 3}")},
};
enum { EACH = sizeof each / sizeof each[0] };

static const struct {
    const char *kernel, *options;
    bool staged;
    double tolerance;
} on[] = {
    {"cpu", "", false, FP32},
    {"cpu", "precision: fp16", true, FP16_WEIGHTS},
    {"cpu", "precision: bf16", false, 8 * FP16_WEIGHTS},
    {"amx", "", true, FP32},
    {"gpu", "", true, FP32},
    {"gpu", "precision: fp16", false, FP16_WEIGHTS},
    {"mma", "precision: tf32", true, REDUCED},
    {"mma", "precision: fp16", false, REDUCED},
    {"clblast", "", true, FP32}, /* the last, as it may be missing */
};
enum { ON = sizeof on / sizeof on[0] };

START_TEST(gradients_are_what_differences_say)
{
    const bool first = _i == 0; /* the reference's differences are the same for all */
    struct support_device support;
    unsigned compared = 0;
    support_device_open(&support, on[_i].kernel, on[_i].staged, on[_i].options, "");
    for (unsigned i = 0; i < EACH; i++) {
        char text[1024];
        struct config config;
        struct expert *expert;
        const int length =
            snprintf(text, sizeof text,
                     "experts: [{uid: e.0, optimizer: sgd, learning_rate: 1, max_batch_size: 8, %s%s}]\n%s%s%s",
                     each[i].expert, each[i].own[0] ? ", block: own" : "",
                     each[i].own[0] ? "blocks: [{name: own, " : "", each[i].own, each[i].own[0] ? "}]\n" : "");
        ck_assert_int_eq(config_parse(&config, text, (size_t)length, "each"), 0);
        ck_assert_msg(expert_create(&expert, support.device, &config.experts[0], 1) == 0, "%s: %s", text,
                      device_error(support.device));
        for (unsigned rows = 1; rows <= 3; rows += 2) {
            compared += check_expert(expert, rows, text, on[_i].tolerance, false, first);
            compared += check_expert(expert, rows, text, on[_i].tolerance, true, first);
        }
        expert_destroy(&expert);
        config_destroy(&config);
    }
    ck_assert_uint_gt(compared, 4 * EACH * 9 / 10);
    support_device_close(&support);
}
END_TEST

/* --- chunks ----------------------------------------------------------------------------------------------------------
 */

static uint64_t chunk_of(const char *device, const char *expert, uint64_t cache_bytes)
{
    struct support_device support;
    struct expert *made;
    support_device_open(&support, "cpu", false, device, expert);
    support.device->info.cache_bytes = cache_bytes;
    ck_assert_int_eq(expert_create(&made, support.device, &support.config.experts[0], 1), 0);
    const uint64_t rows = ((struct engine_expert *)made)->model->chunk_rows;
    expert_destroy(&made);
    support_device_close(&support);
    return rows;
}

START_TEST(chunks_count_tokens_and_fit_the_cache_and_the_memory)
{
    static const char ffn[] = "hidden_dim: 64, max_batch_size: 4096";
    static const char transformer[] =
        "block: transformer, hidden_dim: 64, max_batch_size: 64, arguments: {sequence: 128}";
    ck_assert_uint_eq(chunk_of("", ffn, 0), 1024);
    ck_assert_uint_eq(chunk_of("", ffn, UINT64_C(1) << 40), 1024);
    ck_assert_uint_eq(chunk_of("", ffn, 1), 256);
    ck_assert_uint_eq(chunk_of("", ffn, 2 << 20), 512); /* of about 1,000 floats a row */
    ck_assert_uint_eq(chunk_of("", transformer, 0), 8);
    ck_assert_uint_eq(chunk_of("", transformer, 1), 2);
    ck_assert_uint_eq(chunk_of("chunk_rows: 7", ffn, 1), 7);
    ck_assert_uint_eq(chunk_of("chunk_rows: 7", transformer, 1), 1);
    ck_assert_uint_eq(chunk_of("memory: 16", ffn, 0), 512); /* an eighth of it is 2 MiB */
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("plan");
    tcase_set_timeout(all, 800);
    tcase_add_loop_test(all, random_blocks_compute_what_their_layers_say, 0, 3);
    TCase *differences = tcase_create("differences");
    tcase_set_timeout(differences, 800);
    tcase_add_test(differences, chunks_count_tokens_and_fit_the_cache_and_the_memory);
    tcase_add_loop_test(differences, gradients_are_what_differences_say, 0, support_device_has_clblast() ? ON : ON - 1);
    Suite *suite = suite_create("plan");
    suite_add_tcase(suite, all);
    suite_add_tcase(suite, differences);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
