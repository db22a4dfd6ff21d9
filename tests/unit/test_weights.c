// timeout: 600
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/state/weights.h"
#include "unit/support_device.h"
#include "unit/support_model.h"
#include "unit/support_stderr.h"

enum { H = 6, I = 4 };

static struct support_device support;
static struct weights *weights;
static const char *folder;
static const char *logged;

/* Of an expert of layer 1: what its parameters are, in the order of the state dict. */
static float gate[I][H], up[I][H], down[H][I];
static float *const parts[] = {&gate[0][0], &up[0][0], &down[0][0]};

static void set_up(void)
{
    folder = support_model_folder();
    support_device_open(&support, "cpu", false, "",
                        "block: gated, hidden_dim: 6, arguments: {intermediate: 4}, optimizer: none}\n"
                        "blocks:\n"
                        "  - {name: gated, arguments: {intermediate: 8}, inputs: [{name: x, shape: [hidden_dim]}], "
                        "layers: [{name: gate_proj, layer: linear, input: x, size: intermediate, bias: false}, "
                        "{name: up_proj, layer: linear, input: x, size: intermediate, bias: false}, "
                        "{name: product, layer: multiply, inputs: [gate_proj, up_proj]}, "
                        "{name: down_proj, layer: linear, input: product, size: hidden_dim, bias: false}], "
                        "outputs: [{name: y, value: down_proj}]");
    ck_assert_int_eq(weights_create(&weights), 0);
    for (unsigned i = 0; i < 3 * I * H; i++)
        parts[i / (I * H)][i % (I * H)] = (float)i + 1;
}

static void tear_down(void)
{
    weights_destroy(&weights);
    ck_assert_ptr_null(weights);
    support_device_close(&support);
    support_model_remove();
}

static void write_model(void)
{
    const char *const stem = "model.layers.1.mlp.experts.2.";
    char names[3][64];
    struct support_tensor tensors[3] = {{NULL, "F32", {I, H}, 2, gate, sizeof gate},
                                        {NULL, "F32", {I, H}, 2, up, sizeof up},
                                        {NULL, "F32", {H, I}, 2, down, sizeof down}};
    static const char *const ends[] = {"gate_proj.weight", "up_proj.weight", "down_proj.weight"};
    for (unsigned i = 0; i < 3; i++) {
        snprintf(names[i], sizeof names[i], "%s%s", stem, ends[i]);
        tensors[i].name = names[i];
    }
    support_model_write("model.safetensors", tensors, 3);
}

/* Loads, and keeps what was logged. */
static int load(struct expert *expert, const char *path, const char *uid)
{
    struct config_expert *config = &support.config.experts[0];
    config->weights = path;
    stderr_capture();
    const int rc = weights_load(weights, expert, uid);
    logged = stderr_text();
    stderr_release();
    return rc;
}

static struct expert *make(void)
{
    struct expert *expert;
    ck_assert_int_eq(expert_create(&expert, support.device, &support.config.experts[0], 1), 0);
    return expert;
}

static void expect_loaded(struct expert *expert, float *const expected[3])
{
    float values[I * H];
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(expert_tensor_read(expert, i, values), 0);
        ck_assert_msg(memcmp(values, expected[i], sizeof values) == 0, "parameter %u", i);
    }
}

START_TEST(an_expert_is_loaded_from_a_folder_by_its_coordinates)
{
    struct expert *expert = make();
    write_model();
    ck_assert_msg(load(expert, folder, "m.1.2") == 1, "%s", logged);
    expect_loaded(expert, parts);
    /* Again from the files that are open, and from files that are opened anew. */
    ck_assert_int_eq(unlink(support_model_path("model.safetensors")), 0);
    ck_assert_int_eq(load(expert, folder, "m.1.2"), 1);
    weights_close(weights);
    ck_assert_int_eq(load(expert, folder, "m.1.2"), -ENOENT);
    expert_destroy(&expert);
}
END_TEST

START_TEST(templates_of_the_entry_come_before_the_layout)
{
    static const struct config_template templates[] = {
        {"gate_proj.weight", "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight", 1},
        {"up_proj.weight", "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight", 1}};
    float *const swapped[] = {&up[0][0], &gate[0][0], &down[0][0]};
    struct expert *expert = make();
    write_model();
    support.config.experts[0].templates.items = (struct config_template *)templates;
    support.config.experts[0].templates.count = 2;
    ck_assert_msg(load(expert, support_model_path("model.safetensors"), "m.1.2") == 1, "%s", logged);
    expect_loaded(expert, swapped);
    expert_destroy(&expert);
}
END_TEST

START_TEST(nothing_is_taken_of_an_expert_of_which_a_value_is_no_number)
{
    float before[I * H], after[I * H];
    struct expert *expert = make();
    ck_assert_int_eq(expert_tensor_read(expert, 0, before), 0);
    down[5][3] = NAN;
    write_model();
    ck_assert_int_eq(load(expert, folder, "m.1.2"), -EPROTO);
    ck_assert_msg(strstr(logged, "element 23 of what 'model.layers.1.mlp.experts.2.down_proj.weight'"), "%s", logged);
    ck_assert_int_eq(expert_tensor_read(expert, 0, after), 0);
    ck_assert_mem_eq(before, after, sizeof before);
    expert_destroy(&expert);
}
END_TEST

START_TEST(a_file_of_one_experts_state_is_none_of_a_model)
{
    struct expert *expert = make();
    const struct support_tensor tensors[3] = {{"gate_proj.weight", "F32", {I, H}, 2, gate, sizeof gate},
                                              {"up_proj.weight", "F32", {I, H}, 2, up, sizeof up},
                                              {"down_proj.weight", "F32", {H, I}, 2, down, sizeof down}};
    support_model_write("m.7.safetensors", tensors, 3);
    ck_assert_msg(load(expert, support_model_path("{uid}.safetensors"), "m.7") == 0, "%s", logged);
    expect_loaded(expert, parts);
    ck_assert_msg(load(expert, support_model_path("m.7.safetensors"), "m.1.2") == 0, "%s", logged);
    expect_loaded(expert, parts);
    support_model_write("m.8.safetensors", tensors, 2);
    ck_assert_int_eq(load(expert, support_model_path("m.8.safetensors"), "m.8"), -EINVAL);
    ck_assert_msg(strstr(logged, "has no tensor 'down_proj.weight'"), "%s", logged);
    expert_destroy(&expert);
}
END_TEST

/* What lies beside a state dict of several files: it is recognised, and said. */
START_TEST(an_index_of_something_else_is_said_to_be_an_index)
{
    struct expert *expert = make();
    const char *path = support_model_path("other.safetensors.index.json");
    FILE *file = fopen(path, "w");
    fputs("{\"weight_map\": {\"ffn.weight\": \"one.safetensors\"}}", file);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_int_eq(load(expert, path, "m.1.2"), -EINVAL);
    ck_assert_msg(strstr(logged, "it is the shard index of a model that has no experts of a known layout") &&
                      strstr(logged, "'ffn.weight'"),
                  "%s", logged);
    expert_destroy(&expert);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("weights");
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_set_timeout(all, 300);
    tcase_add_test(all, an_expert_is_loaded_from_a_folder_by_its_coordinates);
    tcase_add_test(all, templates_of_the_entry_come_before_the_layout);
    tcase_add_test(all, nothing_is_taken_of_an_expert_of_which_a_value_is_no_number);
    tcase_add_test(all, a_file_of_one_experts_state_is_none_of_a_model);
    tcase_add_test(all, an_index_of_something_else_is_said_to_be_an_index);
    Suite *suite = suite_create("weights");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
