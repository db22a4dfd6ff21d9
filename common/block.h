/* A block as it is declared: its arguments, its inputs, its layers by name, its outputs. Built-in blocks are tables of
 * this in common/block_builtin.c, own ones stand in the configuration's `blocks:` (docs/blocks.md). What it is for one
 * expert, with values for the arguments, is a graph: block_resolve. Every program can check a declaration so; what
 * computes it is runtime/blocks/.
 *
 * All strings belong to whoever made the declaration and must outlive what is made of it. */
#ifndef EXPERTD_COMMON_BLOCK_H
#define EXPERTD_COMMON_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/tensor.h"

enum {
    BLOCK_NAME_SIZE = 48,     /* of a layer, a parameter, an argument */
    BLOCK_OWN_NAME_SIZE = 32, /* of a block */
    BLOCK_WORD_SIZE = 24,     /* of what an argument may be instead of a number */
    BLOCK_ARGUMENTS_MAX = 8,
    BLOCK_LAYERS_MAX = 64,
    BLOCK_OPERANDS_MAX = 8,
    BLOCK_OPTIONS_MAX = 12,
    BLOCK_PARAMETERS_MAX = 64,
    BLOCK_VALUES_MAX = SCHEMA_MAX_TENSORS + BLOCK_LAYERS_MAX,
    BLOCK_PROBLEM_SIZE = 320,
};

/* --- the declaration ---------------------------------------------------------------------------------------------- */

/* Beside hidden_dim, which every block has. `line` is the configuration's, 0 of built-in ones; so below. */
struct block_argument {
    const char *name;
    double value, min, max; /* the default, and what may stand for it */
    const char *expression; /* the default, where it depends on hidden_dim (common/expression.h); NULL */
    const char *choices;    /* "silu|gelu|...": it is one of these words, and its value the word's number; NULL */
    const char *description;
    unsigned line;
};

struct block_input {
    const char *name; /* the keyword */
    enum dtype dtype;
    const char *shape[TENSOR_MAX_DIMS]; /* of one row; expressions (common/expression.h) of the arguments */
    unsigned ndim;
    unsigned line;
};

struct block_option {
    const char *name, *value; /* NULL: as if it were left out, if there is one of that name */
    unsigned line;
};

struct block_layer {
    const char *name, *kind;
    const char *operands[BLOCK_OPERANDS_MAX]; /* inputs and layers, by name */
    unsigned operands_count;
    const char *mask; /* an input, of kinds that take one; NULL */
    struct block_option options[BLOCK_OPTIONS_MAX];
    unsigned options_count;
    unsigned line;
};

struct block_output {
    const char *name, *value; /* its keyword, and the layer that it is the result of */
    enum dtype dtype;         /* float32 (also DTYPE_NONE), float16 or bfloat16 */
    unsigned line;
};

struct block {
    const char *name;
    const char *description;
    const struct block_argument *arguments;
    unsigned arguments_count;
    const struct block_input *inputs;
    unsigned inputs_count;
    const struct block_layer *layers; /* in the order of the state dict; any order of computation */
    unsigned layers_count;            /* 0: the outputs are the inputs, only of built-in ones */
    const struct block_output *outputs;
    unsigned outputs_count;
    const struct block_kind *const *kinds; /* of layers besides the known ones; NULL ends, or is none */
    unsigned line;
};

/* The built-in block of that name, NULL if there is none; or by number, NULL behind the last. */
const struct block *block_builtin(const char *name);
const struct block *block_builtin_nth(unsigned index);

/* --- kinds of layers ---------------------------------------------------------------------------------------------- */

enum block_activation {
    BLOCK_NONE,
    BLOCK_RELU,
    BLOCK_GELU,     /* by tanh: x/2 (1 + tanh(0.7978845608 x (1 + 0.044715 x^2))) */
    BLOCK_GELU_ERF, /* x/2 (1 + erf(x / sqrt 2)) */
    BLOCK_SILU,     /* x / (1 + e^-x) */
};

enum block_init {
    BLOCK_INIT_UNIFORM, /* PyTorch's nn.Linear: +-1 / sqrt(fan_in) */
    BLOCK_INIT_XAVIER,  /* xavier_uniform_: +-sqrt(6 / (fan_in + fan_out)) */
    BLOCK_INIT_ZERO,
};

/* Of an affine layer: whether it has a weight (or a bias), and whether that trains; and what it has a number for. */
enum block_constant { BLOCK_CONSTANT_NONE, BLOCK_CONSTANT_FIXED, BLOCK_CONSTANT_TRAINED };
enum block_over { BLOCK_OVER_LAST, BLOCK_OVER_ROW };

/* What the options of a layer say; each kind has some of them. */
struct block_settings {
    uint64_t size;  /* outputs of a linear or gated layer */
    uint64_t heads; /* of attention, and of a product of two values */
    double epsilon; /* of norms */
    double scale, shift;
    unsigned bias;         /* 0 or 1; of an affine layer enum block_constant */
    unsigned weight, over; /* of an affine layer: enum block_constant, block_over */
    unsigned transpose;    /* of a product of two values: the second one */
    unsigned activation, init, bias_init;
    const char *weight_name, *bias_name; /* in the state dict; NULL: <layer>.weight, <layer>.bias */
    double limit, alpha, up_shift;       /* of a gate (struct linear_gate of runtime/compute/linear.h); limit 0: none */
    const char *gate, *up; /* <gate>.weight, ... in the state dict; NULL: <layer>.gate_proj, <layer>.up_proj */
};

enum block_option_type { BLOCK_OPTION_SIZE, BLOCK_OPTION_NUMBER, BLOCK_OPTION_CHOICE, BLOCK_OPTION_TEXT };
struct block_option_kind {
    const char *name;
    enum block_option_type type;
    size_t offset;        /* in struct block_settings: uint64_t, double, unsigned, const char * */
    const char *standard; /* the default; NULL: must be given, or none, of a text */
    const char *choices;  /* "none|relu|...", in the order of their numbers; or an argument that is one of these */
};

struct block_node;
struct block_value;
struct layer_kind;
/* What a declaration may say of a kind of layer, and the shape of what comes out. */
struct block_kind {
    const char *name;
    unsigned operands_min, operands_max;
    unsigned parameters; /* that a layer has at most */
    bool takes_mask;
    const struct block_option_kind *options;
    unsigned options_count;
    /* Sets the dims of node->value from its operands', or says in `problem` why they do not meet (-EINVAL). The result
     * is float32. */
    int (*shape)(const struct block_node *node, const struct block_value *values, struct tensor_desc *result,
                 char problem[BLOCK_PROBLEM_SIZE]);
    const struct layer_kind *implementation; /* of an own kind (runtime/layers/layer.h); NULL of known ones */
};

/* The kind of that name: of the block's own, or of the known ones. NULL if there is none. */
const struct block_kind *block_kind_find(const struct block *block, const char *name);

/* --- what it is for one expert ------------------------------------------------------------------------------------ */

/* Values for the arguments, of which those that are not named have their defaults. */
struct block_values {
    uint64_t hidden_dim;
    const struct block_option *items;
    unsigned count;
    enum dtype dtype; /* of inputs and outputs that are declared float32; DTYPE_NONE: that */
};

struct block_value {
    struct tensor_desc desc; /* of one row */
    uint64_t tokens;         /* the dims but the last one, multiplied: a row is so many rows of a matrix */
    uint64_t columns;        /* the last dim */
    int node;                /* whose result it is, or -1: an input, which has the same number */
    int output;              /* its number among the outputs, or -1 */
    unsigned uses;           /* how often layers read it */
};

struct block_node {
    const struct block_layer *layer;
    const struct block_kind *kind;
    struct block_settings settings;
    unsigned operands[BLOCK_OPERANDS_MAX]; /* numbers of values */
    unsigned operands_count;
    int mask;       /* likewise, or -1 */
    unsigned value; /* of its result */
};

struct block_graph {
    const struct block *block;
    double hidden_dim, arguments[BLOCK_ARGUMENTS_MAX];
    struct schema inputs, outputs;
    struct block_value values[BLOCK_VALUES_MAX]; /* the inputs first */
    unsigned values_count;
    struct block_node nodes[BLOCK_LAYERS_MAX]; /* each behind those whose results it reads */
    unsigned nodes_count;
    unsigned results[SCHEMA_MAX_TENSORS]; /* numbers of values */
};

struct block_problem {
    unsigned line;     /* 0: none, so that of whoever used the block is meant */
    bool of_arguments; /* it is about values->items[...], whose line it is */
    char text[BLOCK_PROBLEM_SIZE];
};

/* Checks everything: names, kinds, options, shapes that meet, cycles, inputs and layers that nothing reads, sizes.
 * 0 and a graph (free() it); -EINVAL with the problem, or -ENOMEM. */
int block_resolve(const struct block *block, const struct block_values *values, struct block_graph **graph,
                  struct block_problem *problem);
/* The value of an argument by name, its default where there is none of that name. */
double block_argument(const struct block_graph *graph, const char *name, double standard);
/* The word that an argument of that value is, into text; "" where it is a number. */
void block_argument_word(const struct block_argument *argument, double value, char text[BLOCK_WORD_SIZE]);
/* "sequence=128 heads=16" into text, always terminated: for people. */
const char *block_arguments_format(const struct block_graph *graph, char *text, size_t size);

#endif
