/* Declarations: the built-in ones, and what is wrong in one of the configuration's, by its line. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/block.h"
#include "common/config.h"

static struct block_graph *resolved(const char *name, uint64_t hidden, const struct block_option *items, unsigned count)
{
    const struct block_values values = {.hidden_dim = hidden, .items = items, .count = count};
    struct block_problem problem;
    struct block_graph *graph;
    ck_assert_ptr_nonnull(block_builtin(name));
    const int rc = block_resolve(block_builtin(name), &values, &graph, &problem);
    ck_assert_msg(rc == 0, "%s", problem.text);
    return graph;
}

START_TEST(built_in_blocks_have_hiveminds_shapes)
{
    static const struct {
        const char *block, *input, *second, *output;
    } shapes[] = {
        {"ffn", "float32[32]", NULL, "float32[32]"},
        {"transformer", "float32[128,32]", "bool[128]", "float32[128,32]"},
        {"det_dropout", "float32[32]", "int64[32]", "float32[32]"},
        {"perceptron", "float32[32]", NULL, "float32[10]"},
        {"swiglu", "float32[32]", NULL, "float32[32]"},
        {"nop", "float32[32]", NULL, "float32[32]"},
        {"nop_delay", "float32[32]", NULL, "float32[32]"},
    };
    char text[96];
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct block_graph *graph = resolved(shapes[i].block, 32, NULL, 0);
        ck_assert_uint_eq(graph->inputs.count, shapes[i].second ? 2 : 1);
        ck_assert_str_eq(tensor_desc_format(&graph->inputs.tensors[0], text, sizeof text), shapes[i].input);
        if (shapes[i].second)
            ck_assert_str_eq(tensor_desc_format(&graph->inputs.tensors[1], text, sizeof text), shapes[i].second);
        ck_assert_uint_eq(graph->outputs.count, 1);
        ck_assert_str_eq(tensor_desc_format(&graph->outputs.tensors[0], text, sizeof text), shapes[i].output);
        free(graph);
    }
    ck_assert_ptr_null(block_builtin("no_such_block"));
}
END_TEST

START_TEST(arguments_change_shapes_and_have_defaults)
{
    const struct block_option items[] = {{"sequence", "7", 0}, {"heads", "4", 0}};
    struct block_graph *graph = resolved("transformer", 20, items, 2);
    char text[128];
    ck_assert_uint_eq(graph->inputs.tensors[0].dims[0], 7);
    ck_assert_double_eq(block_argument(graph, "heads", 0), 4);
    ck_assert_double_eq(block_argument(graph, "hidden_dim", 0), 20);
    ck_assert_double_eq(block_argument(graph, "none", 3), 3);
    ck_assert_str_eq(block_arguments_format(graph, text, sizeof text), "sequence=7 heads=4 dropout=0");
    free(graph);
}
END_TEST

START_TEST(an_argument_may_be_a_word_or_depend_on_the_hidden_size)
{
    const struct block_option items[] = {{"activation", "relu", 0}, {"bias", "true", 0}};
    struct block_graph *graph = resolved("swiglu", 20, items, 2);
    char text[128];
    ck_assert_str_eq(block_arguments_format(graph, text, sizeof text),
                     "intermediate_size=80 activation=relu bias=true limit=0 alpha=1 up_shift=0");
    ck_assert_uint_eq(graph->nodes[0].settings.activation, BLOCK_RELU);
    ck_assert_uint_eq(graph->nodes[0].settings.size, 80);
    ck_assert_uint_eq(graph->nodes[1].settings.bias, 1);
    free(graph);
}
END_TEST

START_TEST(layers_are_placed_behind_what_they_read)
{
    struct block_graph *graph = resolved("transformer", 32, NULL, 0);
    for (unsigned i = 0; i < graph->nodes_count; i++)
        for (unsigned o = 0; o < graph->nodes[i].operands_count; o++)
            ck_assert_int_lt(graph->values[graph->nodes[i].operands[o]].node, (int)i);
    free(graph);
}
END_TEST

/* --- what the configuration says ------------------------------------------------------------------------------------
 */

#define HEAD "blocks:\n  - name: mine\n    inputs: [{name: x, shape: [hidden_dim]}]\n    layers:\n"
#define TAIL "    outputs: [{name: y, value: last}]\nexperts: [{uid: a.0, block: mine, hidden_dim: 8}]\n"
#define LAST "      - {name: last, layer: linear, input: x, size: 4}\n" /* line 5 */
#define WITH(layers) HEAD layers TAIL
#define MATRICES(first, second, options)                                                                               \
    "blocks:\n  - name: b\n    inputs: [{name: x, shape: " first "}, {name: y, shape: " second "}]\n"                  \
    "    layers: [{name: last, layer: matmul, inputs: [x, y]" options "}]\n    outputs: [{name: y1, value: last}]\n"   \
    "experts:\n  - {uid: a.0, block: b, hidden_dim: 8}\n" /* the layer is in line 4 */

static const struct {
    const char *text;
    unsigned line;
    const char *says;
} wrong[] = {
    {WITH("      - {name: last, layer: linaer, input: x, size: 4}\n"), 5, "no layer 'linaer'"},
    {WITH("      - {name: last, layer: linear, input: z, size: 4}\n"), 5, "reads 'z'"},
    {WITH("      - {name: last, layer: linear, input: x}\n"), 5, "needs the option size"},
    {WITH("      - {name: last, layer: linear, input: x, size: 4,\n         activation: tanh}\n"), 6,
     "'tanh' is none of"},
    {WITH("      - {name: last, layer: linear, input: x, size: 4,\n         sise: 5}\n"), 6, "no option 'sise'"},
    {WITH("      - {name: last, layer: linear, input: x, size: 4 * hiden_dim}\n"), 5, "no argument 'hiden_dim'"},
    {WITH("      - {name: last, layer: linear, input: x, size: 1000000000000000000}\n"), 5, "not a whole number"},
    {WITH("      - {name: last, layer: linear, input: x, size: 100000000000}\n"), 5, "more than"},
    {WITH("      - {name: last, layer: linear, input: x, size: hidden_dim / 3}\n"), 5, "not a whole number"},
    {WITH("      - {name: last, layer: linear, inputs: [x, x], size: 4}\n"), 5, "reads 1 value"},
    {WITH("      - {name: last, layer: linear, inputs: x, size: 4}\n"), 5, "must be a list"},
    {WITH("      - {name: last, layer: add, inputs: [x]}\n"), 5, "reads 2 or more"},
    {WITH(LAST "      - {name: two, layer: linear, input: x, size: 4}\n"), 6, "nothing reads the layer two"},
    {WITH(LAST "      - {name: last, layer: linear, input: x, size: 4}\n"), 6, "two things called last"},
    {WITH("      - {name: last, layer: add, inputs: [x, b]}\n      - {name: b, layer: layer_norm, input: c}\n"
          "      - {name: c, layer: layer_norm, input: b}\n"),
     7, "its own result"},
    {WITH("      - {name: last, layer: layer_norm, input: last}\n"), 5, "its own result"},
    {WITH("      - {name: b, layer: linear, input: x, size: 3}\n      - {name: last, layer: add, inputs: [x, b]}\n"), 6,
     "must be the same"},
    {WITH("      - {name: last, layer: attention, input: x, heads: 2}\n"), 5, "[tokens, size]"},
    {WITH("      - {name: last, layer: matmul, inputs: [x, x]}\n"), 5, "rows of [..., m, k] and [..., k, n]"},
    {WITH("      - {name: last, layer: matmul, input: x}\n"), 5, "reads"},
    {WITH("      - {name: last, layer: matmul, inputs: [x, x], heads: 0}\n"), 5, "heads"},
    {WITH("      - {name: last, layer: matmul, inputs: [x, x], transpose: first}\n"), 5, "transpose"},
    {MATRICES("[4, 6]", "[5, 6]", ""), 4,
     "each of the 1 heads has 6 columns in the first; the second must have as many rows"},
    {MATRICES("[4, 6]", "[5, 7]", ", transpose: second"), 4, "the second must have as many columns"},
    {MATRICES("[4, 6]", "[3, 7]", ", heads: 2"), 4, "no multiples of 2 heads"},
    {MATRICES("[2, 4, 6]", "[3, 6, 4]", ""), 4, "all dimensions but the last two"},
    {MATRICES("[2, 4, 6]", "[6, 4]", ""), 4, "[..., m, k] and [..., k, n]"},
    {MATRICES("[1048576, 1]", "[1048576, 1]", ", transpose: second"), 4, "has more than"},
    {WITH("      - {name: last, layer: affine, input: x, weight: some}\n"), 5, "'some' is none of none|fixed|trained"},
    {WITH("      - {name: last, layer: affine, input: x, over: columns}\n"), 5, "none of last|row"},
    {WITH("      - {name: last, layer: affine, input: x, scale: 1 / 0}\n"), 5, "division by zero"},
    {WITH("      - {name: last, layer: affine, inputs: [x, x]}\n"), 5, "reads"},
    {WITH("      - {name: b, layer: linear, input: x, size: 4, weight_name: last.weight}\n"
          "      - {name: last, layer: affine, input: b, weight: fixed}\n"),
     5, "both have a parameter last.weight"},
    {WITH("      - {name: last, layer: linear, input: x, size: 4, mask: x}\n"), 5, "takes no mask"},
    {WITH("      - {name: last, layer: mask, inputs: [x, x]}\n"), 5, "bool or int64"},
    {WITH("      - {name: last, layer: layer_norm, input: x, epsilon: -1}\n"), 5, "negative"},
    {WITH("      - {name: \"la st\", layer: linear, input: x, size: 4}\n"), 5, "a name is"},
    {WITH("      - {name: b, layer: linear, input: x, size: 4, weight_name: last.weight}\n"
          "      - {name: last, layer: linear, input: b, size: 4}\n"),
     5, "both have a parameter"},
    {WITH("      - {name: last, layer: gated, input: x, size: 4, activation: none}\n"), 5, "a gate has an activation"},
    {WITH("      - {name: last, layer: gated, input: x, size: 4, alpha: 0}\n"), 5, "alpha must be more than 0"},
    {WITH("      - {name: last, layer: gated, input: x, size: 4, gate: a, up: a}\n"), 5,
     "both have a parameter a.weight"},
    {WITH("      - {name: a, layer: gated, input: x, size: 4}\n"
          "      - {name: a.up_proj, layer: linear, input: a, size: 4}\n"
          "      - {name: last, layer: add, inputs: [a, a.up_proj]}\n"),
     6, "both have a parameter a.up_proj.weight"},
    {WITH("      - {layer: linear, input: x, size: 4}\n"), 5, "needs name"},
    {WITH("      - last\n"), 5, "must be a mapping"},
    {WITH("      - {name: last, layer: linear, input: x, size: [4]}\n"), 5, "must be one value"},
    {WITH("      - {name: last, layer: linear, input: x, size: 4,\n         size: 5}\n"), 6, "stands twice"},
    {"blocks:\n  - name: mine\n    inputs:\n      - {name: x, shape: [hidden_dim]}\n      - {name: z, shape: [3]}\n"
     "    layers:\n" LAST TAIL,
     5, "no layer reads the input z"},
    {"blocks:\n  - name: mine\n    inputs: [{name: x, shape: [hidden_dim], dtype: float64}]\n    layers:\n" LAST TAIL,
     3, "float32, float16, bfloat16, int64 or bool"},
    {HEAD LAST "    outputs: [{name: y, value: last, dtype: int64}]\nexperts: [{uid: a.0, block: mine}]\n", 6,
     "float32, float16 or bfloat16"},
    {HEAD LAST "    outputs: [{name: y, value: last, dtype: float17}]\nexperts: [{uid: a.0, block: mine}]\n", 6,
     "no dtype 'float17'"},
    {HEAD LAST "    outputs: [{name: a234567890123456789012345678, value: last}]\nexperts: [{uid: a.0, block: mine}]\n",
     6, "a name is 1 to 26 letters"}, /* grad_ comes before it */
    {"blocks:\n  - name: mine\n    inputs: [{name: grad_y, shape: [hidden_dim]}]\n    layers:\n"
     "      - {name: last, layer: linear, input: grad_y, size: 4}\n" TAIL,
     6, "output y: its gradient would have the name of the input grad_y"},
    {"blocks:\n  - name: mine\n    inputs: [{name: x}]\n    layers:\n" LAST TAIL, 3, "needs shape"},
    {"blocks:\n  - name: mine\n    inputs: [{name: x, shape: [2, 3, 4, 5, 6, 7, 8]}]\n    layers:\n" LAST TAIL, 3,
     "more than 6 dimensions"},
    {"blocks:\n  - name: ffn\n    inputs: [{name: x, shape: [8]}]\n    layers:\n" LAST TAIL, 2, "built-in block"},
    {"blocks:\n  - name: mine\n    layers:\n      - {name: last, layer: linear, input: x, size: 4}\n" TAIL, 2,
     "has no inputs"},
    {"blocks:\n  - name: mine\n    inputs: [{name: x, shape: [8]}]\n" TAIL, 2, "no layers"},
    {"experts:\n  - {uid: a.0, block: transformer, hidden_dim: 100}\n", 2, "heads"},
    {"experts:\n  - uid: a.0\n    block: transformer\n    arguments: {sequenze: 4}\n", 4, "no argument 'sequenze'"},
    {"experts:\n  - uid: a.0\n    block: transformer\n    arguments: {dropout: 0.1}\n", 4, "must be 0"},
    {"experts:\n  - uid: a.0\n    block: transformer\n    arguments: {sequenze: ~}\n", 4, "no argument 'sequenze'"},
    {"experts:\n  - uid: a.0\n    block: ffn\n    arguments:\n      hidden_dim:\n", 5, "no argument 'hidden_dim'"},
    {"experts:\n  - uid: a.0\n    block: /no/block.so\n    arguments: {n: ~}\n", 4, "takes none"},
    {"experts:\n  - uid: a.0\n    block: transformer\n    arguments: {heads: 010}\n", 4, "octal"},
    {"experts:\n  - uid: a.0\n    block: transformer\n    arguments: {heads: 0x10}\n", 4, "decimal digits"},
    {"experts:\n  - uid: a.0\n    block: transformer\n    arguments: {heads: 1_6}\n", 4, "decimal digits"},
    {WITH("      - {name: last, layer: linear, input: x, size: 4, sise: ~}\n"), 5, "no option 'sise'"},
    {WITH("      - {name: last, layer: linear, input: x, size: ~}\n"), 5, "needs the option size"},
    {WITH("      - {name: last, layer: linear, input: x, size: 010}\n"), 5, "octal"},
    {WITH("      - {name: last, layer: linear, input: x, size: 1e1}\n"), 5, "no power of ten: '1e1'"},
    {"experts:\n  - uid: a.0\n    block: swiglu\n    arguments: {activation: tanh}\n", 4, "'tanh' is none of silu|"},
    {"experts:\n  - uid: a.0\n    block: nop_delay\n    arguments: {delay: -1}\n", 4, "not from 0"},
    {"experts:\n  - uid: a.0\n    block: nop_delay\n    arguments: [delay]\n", 4, "must be a mapping"},
    {"experts:\n  - {uid: a.0, block: nine}\n", 2, "no block 'nine'"},
    {WITH("      - {name: last, layer: linear, input: &a x, size: 4}\n"
          "      - {name: b, layer: linear, input: *a, size: 4}\n"),
     5, "alias"},
};

/* What goes to the log when the configuration is read. */
static void log_of(const char *text, char *said, size_t size)
{
    struct config config;
    FILE *file = tmpfile();
    const int kept = dup(STDERR_FILENO);
    ck_assert_int_ge(dup2(fileno(file), STDERR_FILENO), 0);
    const int rc = config_parse(&config, text, strlen(text), "mine.yaml");
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    said[fread(said, 1, size - 1, file)] = '\0';
    fclose(file);
    ck_assert_msg(rc == -EINVAL, "it was taken:\n%s", text);
}

START_TEST(what_is_wrong_is_refused_with_its_line)
{
    char said[4096], place[32];
    log_of(wrong[_i].text, said, sizeof said);
    snprintf(place, sizeof place, "mine.yaml:%u:", wrong[_i].line);
    ck_assert_msg(strstr(said, place) && strstr(said, wrong[_i].says), "wanted %s ... %s, in\n%s%s", place,
                  wrong[_i].says, said, wrong[_i].text);
}
END_TEST

START_TEST(inputs_and_outputs_may_be_of_16_bits)
{
    static const char text[] = HEAD LAST "    outputs: [{name: y, value: last, dtype: float16}]\n"
                                         "experts:\n  - {uid: a.0, block: mine, hidden_dim: 8, dtype: bfloat16}\n"
                                         "  - {uid: b.0, block: transformer, dtype: float16}\n"
                                         "  - {uid: c.0, block: nop, dtype: bfloat16}\n";
    static const struct {
        enum dtype input, last_input, output;
    } wanted[] = {{DTYPE_BFLOAT16, DTYPE_BFLOAT16, DTYPE_FLOAT16},
                  {DTYPE_FLOAT16, DTYPE_BOOL, DTYPE_FLOAT16},
                  {DTYPE_BFLOAT16, DTYPE_BFLOAT16, DTYPE_BFLOAT16}};
    struct config config;
    ck_assert_int_eq(config_parse(&config, text, strlen(text), "mine.yaml"), 0);
    for (unsigned i = 0; i < 3; i++) {
        const struct config_expert *expert = &config.experts[i];
        const struct block_values values = {.hidden_dim = 1024, .dtype = dtype_of_name(expert->dtype)};
        struct block_problem problem;
        struct block_graph *graph;
        ck_assert_int_eq(block_resolve(expert->declared, &values, &graph, &problem), 0);
        ck_assert_uint_eq(graph->inputs.tensors[0].dtype, wanted[i].input);
        ck_assert_uint_eq(graph->inputs.tensors[graph->inputs.count - 1].dtype, wanted[i].last_input);
        ck_assert_uint_eq(graph->outputs.tensors[0].dtype, wanted[i].output);
        free(graph);
    }
    config_destroy(&config);
}
END_TEST

/* As of every other option. */
START_TEST(null_is_the_default_below_blocks_and_experts)
{
    static const char text[] =
        "blocks:\n"
        "  - name: mine\n"
        "    arguments: ~\n"
        "    inputs: [{name: x, shape: [8], dtype: ~}]\n"
        "    layers: [{name: last, layer: linear, input: x, inputs: ~, size: 4, activation: null, mask: ~}]\n"
        "    outputs: [{name: y, value: last, dtype: ~}]\n"
        "experts:\n"
        "  - {uid: a.0, block: transformer, hidden_dim: 20, arguments: {sequence: ~, heads: 4, dropout: null}}\n"
        "  - {uid: b.0, block: ffn, arguments: ~, tensors: {weight: ~}}\n"
        "  - {uid: c.0, block: mine}\n";
    struct config config;
    ck_assert_int_eq(config_parse(&config, text, strlen(text), "mine.yaml"), 0);
    struct block_problem problem;
    struct block_graph *graph;
    const struct block_values values = {20, config.experts[0].values.items, config.experts[0].values.count, DTYPE_NONE};
    char described[128];
    ck_assert_int_eq(block_resolve(config.experts[0].declared, &values, &graph, &problem), 0);
    ck_assert_str_eq(block_arguments_format(graph, described, sizeof described), "sequence=128 heads=4 dropout=0");
    free(graph);
    ck_assert_uint_eq(config.experts[1].templates.count,
                      1); /* whose name is looked at where the parameters are known */
    ck_assert_ptr_null(config.experts[1].templates.items[0].template);
    const struct block_values none = {.hidden_dim = 8};
    ck_assert_int_eq(block_resolve(&config.declared[0], &none, &graph, &problem), 0);
    ck_assert_uint_eq(graph->nodes[0].settings.activation, BLOCK_NONE);
    free(graph);
    ck_assert_uint_eq(config.declared[0].inputs[0].dtype, DTYPE_FLOAT32);
    config_destroy(&config);
}
END_TEST

START_TEST(what_is_right_is_taken)
{
    static const char text[] =
        WITH("      - {name: b.0, layer: linear, input: last, size: 2 * n, activation: silu}\n" LAST) "blocks_end: 0\n";
    char good[sizeof text];
    struct config config;
    snprintf(good, sizeof good, "%s", text);
    *strstr(good, "blocks_end") = '\0';
    /* An argument, and an output that another layer reads. */
    char *at = strstr(good, "    layers");
    char whole[sizeof text + 128];
    snprintf(whole, sizeof whole, "%.*s    arguments: {n: 3}\n%s", (int)(at - good), good, at);
    at = strstr(whole, "value: last}");
    memcpy(at, "value: b.0 }", 12);
    ck_assert_int_eq(config_parse(&config, whole, strlen(whole), "mine.yaml"), 0);
    ck_assert_uint_eq(config.declared_count, 1);
    ck_assert_ptr_eq(config.experts[0].declared, &config.declared[0]);
    ck_assert_uint_eq(config.declared[0].layers_count, 2);
    config_destroy(&config);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("block");
    tcase_add_test(all, built_in_blocks_have_hiveminds_shapes);
    tcase_add_test(all, arguments_change_shapes_and_have_defaults);
    tcase_add_test(all, an_argument_may_be_a_word_or_depend_on_the_hidden_size);
    tcase_add_test(all, inputs_and_outputs_may_be_of_16_bits);
    tcase_add_test(all, layers_are_placed_behind_what_they_read);
    tcase_add_loop_test(all, what_is_wrong_is_refused_with_its_line, 0, sizeof wrong / sizeof wrong[0]);
    tcase_add_test(all, null_is_the_default_below_blocks_and_experts);
    tcase_add_test(all, what_is_right_is_taken);
    Suite *suite = suite_create("block");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
