/* The built-in blocks, as docs/blocks.md has them for users. */
#include <string.h>

#include "common/block.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define ARGUMENTS(table) .arguments = table, .arguments_count = COUNT(table)
#define INPUTS(table) .inputs = table, .inputs_count = COUNT(table)
#define LAYERS(table) .layers = table, .layers_count = COUNT(table)
#define OUTPUTS(table) .outputs = table, .outputs_count = COUNT(table)
#define ROW(input_name, width)                                                                                         \
    {                                                                                                                  \
        .name = input_name, .dtype = DTYPE_FLOAT32, .shape = {width}, .ndim = 1                                        \
    }
#define READS(...) .operands = {__VA_ARGS__}, .operands_count = COUNT(((const char *const[]){__VA_ARGS__}))
#define SET(...) .options = {__VA_ARGS__}, .options_count = COUNT(((const struct block_option[]){__VA_ARGS__}))

static const struct block_input one_row[] = {ROW("input", "hidden_dim")};

/* --- ffn: LayerNorm(x + W2 gelu(W1 x + b1) + b2) ------------------------------------------------------------------ */

static const struct block_layer ffn_layers[] = {
    {.name = "ffn", .kind = "linear", READS("input"), SET({"size", "4 * hidden_dim", 0}, {"activation", "gelu", 0})},
    {.name = "ffn_output", .kind = "linear", READS("ffn"), SET({"size", "hidden_dim", 0})},
    {.name = "sum", .kind = "add", READS("input", "ffn_output")},
    {.name = "layer_norm", .kind = "layer_norm", READS("sum"), SET({"epsilon", "1e-12", 0})},
};
static const struct block_output ffn_outputs[] = {{.name = "output", .value = "layer_norm"}};

/* --- nop, nop_delay: the input ------------------------------------------------------------------------------------ */

static const struct block_output nop_outputs[] = {{.name = "output", .value = "input"}};
static const struct block_argument nop_delay_arguments[] = {
    {.name = "delay", .value = 0.5, .max = 30, .description = "seconds that a batch takes"},
};

/* --- det_dropout: W2 relu(W1 (x mask / 0.8) + b1) + b2 ------------------------------------------------------------ */

static const struct block_argument det_dropout_arguments[] = {
    {.name = "rate", .value = 0.2, .max = 0.999, .description = "share that the mask is meant to leave out"},
};
static const struct block_input det_dropout_inputs[] = {
    ROW("input", "hidden_dim"),
    {.name = "mask", .dtype = DTYPE_INT64, .shape = {"hidden_dim"}, .ndim = 1},
};
static const struct block_layer det_dropout_layers[] = {
    {.name = "dropout", .kind = "mask", READS("input", "mask"), SET({"scale", "1 / (1 - rate)", 0})},
    {.name = "linear_in",
     .kind = "linear",
     READS("dropout"),
     SET({"size", "2 * hidden_dim", 0}, {"activation", "relu", 0})},
    {.name = "linear_out", .kind = "linear", READS("linear_in"), SET({"size", "hidden_dim", 0})},
};
static const struct block_output det_dropout_outputs[] = {{.name = "output", .value = "linear_out"}};

/* --- transformer: a post-norm encoder layer ----------------------------------------------------------------------- */

static const struct block_argument transformer_arguments[] = {
    {.name = "sequence", .value = 128, .min = 1, .max = 1048576, .description = "tokens of a row"},
    {.name = "heads", .value = 16, .min = 1, .max = 65536, .description = "of the attention; they divide hidden_dim"},
    {.name = "dropout", .description = "nothing else than 0: the same request has the same answer"},
};
static const struct block_input transformer_inputs[] = {
    {.name = "src", .dtype = DTYPE_FLOAT32, .shape = {"sequence", "hidden_dim"}, .ndim = 2},
    {.name = "src_key_padding_mask", .dtype = DTYPE_BOOL, .shape = {"sequence"}, .ndim = 1},
};
static const struct block_layer transformer_layers[] = {
    {.name = "self_attn.in_proj",
     .kind = "linear",
     READS("src"),
     SET({"size", "3 * hidden_dim", 0}, {"init", "xavier", 0}, {"bias_init", "zero", 0},
         {"weight_name", "self_attn.in_proj_weight", 0}, {"bias_name", "self_attn.in_proj_bias", 0})},
    {.name = "self_attn",
     .kind = "attention",
     READS("self_attn.in_proj"),
     .mask = "src_key_padding_mask",
     SET({"heads", "heads", 0})},
    {.name = "self_attn.out_proj",
     .kind = "linear",
     READS("self_attn"),
     SET({"size", "hidden_dim", 0}, {"bias_init", "zero", 0})},
    {.name = "linear1",
     .kind = "linear",
     READS("norm1"),
     SET({"size", "4 * hidden_dim", 0}, {"activation", "gelu", 0})},
    {.name = "linear2", .kind = "linear", READS("linear1"), SET({"size", "hidden_dim", 0})},
    {.name = "attended", .kind = "add", READS("src", "self_attn.out_proj")},
    {.name = "norm1", .kind = "layer_norm", READS("attended")},
    {.name = "fed", .kind = "add", READS("norm1", "linear2")},
    {.name = "norm2", .kind = "layer_norm", READS("fed")},
};
static const struct block_output transformer_outputs[] = {{.name = "output", .value = "norm2"}};

/* --- perceptron --------------------------------------------------------------------------------------------------- */

static const struct block_argument perceptron_arguments[] = {
    {.name = "output_dim", .value = 10, .min = 1, .max = 1048576, .description = "width of the output"},
};
static const struct block_layer perceptron_layers[] = {
    {.name = "layer1", .kind = "linear", READS("input"), SET({"size", "2 * hidden_dim", 0}, {"activation", "relu", 0})},
    {.name = "layer2",
     .kind = "linear",
     READS("layer1"),
     SET({"size", "2 * hidden_dim", 0}, {"activation", "relu", 0})},
    {.name = "layer3", .kind = "linear", READS("layer2"), SET({"size", "output_dim", 0})},
};
static const struct block_output perceptron_outputs[] = {{.name = "output", .value = "layer3"}};

/* --- swiglu: the experts of decoders: W2 (silu(G x) * (U x)) ------------------------------------------------------ */

static const struct block_argument swiglu_arguments[] = {
    {.name = "intermediate_size",
     .expression = "4 * hidden_dim",
     .min = 1,
     .max = 1048576,
     .description = "inner width; 4 hidden_dim by default"},
    {.name = "activation", .choices = "silu|gelu|gelu_erf|relu", .description = "of the gate"},
    {.name = "bias", .choices = "false|true", .description = "of all three products"},
    {.name = "limit", .max = 1e6, .description = "gate cut above it, up to either side; 0: not"},
    {.name = "alpha", .value = 1, .min = 1e-3, .max = 1e3, .description = "the gate is activation(alpha g) / alpha"},
    {.name = "up_shift", .min = -1e3, .max = 1e3, .description = "added to up"},
};
static const struct block_layer swiglu_layers[] = {
    {.name = "gated",
     .kind = "gated",
     READS("input"),
     SET({"size", "intermediate_size", 0}, {"activation", "activation", 0}, {"bias", "bias", 0}, {"limit", "limit", 0},
         {"alpha", "alpha", 0}, {"up_shift", "up_shift", 0}, {"gate", "gate_proj", 0}, {"up", "up_proj", 0})},
    {.name = "down_proj", .kind = "linear", READS("gated"), SET({"size", "hidden_dim", 0}, {"bias", "bias", 0})},
};
static const struct block_output swiglu_outputs[] = {{.name = "output", .value = "down_proj"}};

/* -------------------------------------------------------------------------------------------------------------------*/

static const struct block blocks[] = {
    {.name = "ffn",
     .description = "LayerNorm(x + W2 gelu(W1 x + b1) + b2)",
     INPUTS(one_row),
     LAYERS(ffn_layers),
     OUTPUTS(ffn_outputs)},
    {.name = "transformer",
     .description = "a post-norm encoder layer over `sequence` tokens",
     ARGUMENTS(transformer_arguments),
     INPUTS(transformer_inputs),
     LAYERS(transformer_layers),
     OUTPUTS(transformer_outputs)},
    {.name = "det_dropout",
     .description = "W2 relu(W1 (x mask / (1 - rate)) + b1) + b2",
     ARGUMENTS(det_dropout_arguments),
     INPUTS(det_dropout_inputs),
     LAYERS(det_dropout_layers),
     OUTPUTS(det_dropout_outputs)},
    {.name = "perceptron",
     .description = "W3 relu(W2 relu(W1 x + b1) + b2) + b3",
     ARGUMENTS(perceptron_arguments),
     INPUTS(one_row),
     LAYERS(perceptron_layers),
     OUTPUTS(perceptron_outputs)},
    {.name = "swiglu",
     .description = "W2 (silu(G x) * (U x)), without biases by default",
     ARGUMENTS(swiglu_arguments),
     INPUTS(one_row),
     LAYERS(swiglu_layers),
     OUTPUTS(swiglu_outputs)},
    {.name = "nop", .description = "the input", INPUTS(one_row), OUTPUTS(nop_outputs)},
    {.name = "nop_delay",
     .description = "the input, after a while",
     ARGUMENTS(nop_delay_arguments),
     INPUTS(one_row),
     OUTPUTS(nop_outputs)},
};

const struct block *block_builtin_nth(unsigned index)
{
    return index < COUNT(blocks) ? &blocks[index] : NULL;
}

const struct block *block_builtin(const char *name)
{
    for (size_t i = 0; i < COUNT(blocks); i++) {
        if (strcmp(blocks[i].name, name) == 0)
            return &blocks[i];
    }
    return NULL;
}
