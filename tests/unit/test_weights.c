// timeout: 600
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/small_float.h"
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

static void open_device(const char *device, const char *sizes)
{
    char entry[1024];
    snprintf(entry, sizeof entry,
             "block: gated, %s, optimizer: none}\n"
             "blocks:\n"
             "  - {name: gated, arguments: {intermediate: 8}, inputs: [{name: x, shape: [hidden_dim]}], "
             "layers: [{name: gate_proj, layer: linear, input: x, size: intermediate, bias: false}, "
             "{name: up_proj, layer: linear, input: x, size: intermediate, bias: false}, "
             "{name: product, layer: multiply, inputs: [gate_proj, up_proj]}, "
             "{name: down_proj, layer: linear, input: product, size: hidden_dim, bias: false}], "
             "outputs: [{name: y, value: down_proj}]",
             sizes);
    support_device_open(&support, "cpu", false, device, entry);
    ck_assert_int_eq(weights_create(&weights), 0);
}

static void set_up(void)
{
    folder = support_model_folder();
    open_device("", "hidden_dim: 6, arguments: {intermediate: 4}");
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
    /* A template that is null is none. */
    static const struct config_template none[] = {{"up_proj.weight", NULL, 1}};
    support.config.experts[0].templates.items = (struct config_template *)none;
    support.config.experts[0].templates.count = 1;
    ck_assert_msg(load(expert, support_model_path("{uid}.safetensors"), "m.7") == 0, "%s", logged);
    ck_assert_msg(load(expert, support_model_path("m.7.safetensors"), "m.1.2") == 0, "%s", logged);
    support.config.experts[0].templates.count = 0;
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

/* --- formats that are kept as files have them --------------------------------------------------------------------- */

enum { WIDE_H = 96, WIDE_I = 160, WEIGHTS = WIDE_H * WIDE_I };

static struct {
    uint8_t codes[3][WEIGHTS];
    float scales[3][2]; /* gate and up [2, 1], down [1, 2] */
} fp8;
static struct {
    uint8_t blocks[3][WEIGHTS / 2], scales[3][WEIGHTS / 32];
} mxfp4;
static const char *const parameters[] = {"gate_proj.weight", "up_proj.weight", "down_proj.weight"};

static void draw_numbers(void)
{
    static const float scales[] = {0.1f, 3, 0.7f, 1e-3f, 55, 0.01f};
    for (unsigned i = 0; i < 3 * WEIGHTS; i++) {
        const unsigned code = (i * 7 + i / 256) % 256;
        fp8.codes[i / WEIGHTS][i % WEIGHTS] = (uint8_t)((code & 0x7f) == 0x7f ? 3 : code);
    }
    for (unsigned i = 0; i < 6; i++)
        fp8.scales[i / 2][i % 2] = scales[i];
    for (unsigned i = 0; i < sizeof mxfp4.blocks; i++)
        mxfp4.blocks[i / sizeof mxfp4.blocks[0]][i % sizeof mxfp4.blocks[0]] = (uint8_t)(i * 37 + i / 256);
    for (unsigned i = 0; i < sizeof mxfp4.scales; i++)
        mxfp4.scales[i / sizeof mxfp4.scales[0]][i % sizeof mxfp4.scales[0]] = (uint8_t)(i % 251);
}

/* Of a format, or floats: gate and up are [WIDE_I, WIDE_H], down the other way round. */
static void write_numbers(const char *format)
{
    static const float floats[WEIGHTS];
    static char names[6][96];
    struct support_tensor tensors[6];
    const bool is_fp8 = strcmp(format, "fp8") == 0, is_mxfp4 = strcmp(format, "mxfp4") == 0;
    for (unsigned p = 0; p < 3; p++) {
        const uint64_t out = p == 2 ? WIDE_H : WIDE_I, in = p == 2 ? WIDE_I : WIDE_H;
        char stem[80];
        snprintf(stem, sizeof stem, "model.layers.1.mlp.experts.2.%s", parameters[p]);
        snprintf(names[p], sizeof names[p], "%s%s", stem, is_mxfp4 ? "_blocks" : "");
        snprintf(names[3 + p], sizeof names[3 + p], "%s%s", stem, is_mxfp4 ? "_scales" : "_scale_inv");
        if (is_mxfp4) {
            tensors[p] = (struct support_tensor){names[p], "U8", {out, in / 32, 16}, 3, mxfp4.blocks[p], WEIGHTS / 2};
            tensors[3 + p] =
                (struct support_tensor){names[3 + p], "U8", {out, in / 32}, 2, mxfp4.scales[p], WEIGHTS / 32};
        } else if (is_fp8) {
            const uint64_t squares = p == 2 ? 1 : 2;
            tensors[p] = (struct support_tensor){names[p], "F8_E4M3", {out, in}, 2, fp8.codes[p], WEIGHTS};
            tensors[3 + p] = (struct support_tensor){names[3 + p], "F32", {squares, 3 - squares}, 2, fp8.scales[p], 8};
        } else {
            tensors[p] = (struct support_tensor){names[p], "F32", {out, in}, 2, floats, sizeof floats};
        }
    }
    support_model_write("model.safetensors", tensors, is_fp8 || is_mxfp4 ? 6 : 3);
}

static void native_set_up(void)
{
    folder = support_model_folder();
    draw_numbers();
}

static void native_tear_down(void)
{
    support_model_remove();
}

static void native_open(const char *precision)
{
    char device[32];
    snprintf(device, sizeof device, "precision: %s", precision);
    open_device(device, "hidden_dim: 96, arguments: {intermediate: 160}");
}

static void native_close(void)
{
    weights_destroy(&weights);
    support_device_close(&support);
}

static float number_of(bool is_fp8, unsigned p, unsigned i)
{
    const unsigned in = p == 2 ? WIDE_I : WIDE_H, byte = mxfp4.blocks[p][i / 2];
    if (is_fp8)
        return small_float_e4m3(fp8.codes[p][i]) * fp8.scales[p][p == 2 ? i % in / 128 : i / in / 128];
    return small_float_e2m1((uint8_t)(i % 2 ? byte >> 4 : byte & 15)) * small_float_e8m0(mxfp4.scales[p][i / 32]);
}

START_TEST(what_a_file_has_in_the_devices_format_is_kept)
{
    const bool is_fp8 = _i == 0;
    native_open(is_fp8 ? "fp8" : "mxfp4");
    struct expert *expert = make();
    write_numbers(is_fp8 ? "fp8" : "mxfp4");
    ck_assert_msg(load(expert, folder, "m.1.2") == 1, "%s", logged);
    for (unsigned p = 0; p < 3; p++) {
        static float values[WEIGHTS];
        ck_assert_int_eq(expert_tensor_read(expert, p, values), 0);
        for (unsigned i = 0; i < WEIGHTS; i++)
            ck_assert_msg(values[i] == number_of(is_fp8, p, i), "parameter %u, %u: %g", p, i, (double)values[i]);
    }
    expert_destroy(&expert);
    native_close();
}
END_TEST

static void expect_native_refused(const char *device, const char *file, const char *path, const char *said)
{
    native_open(device);
    struct expert *expert = make();
    write_numbers(file);
    ck_assert_int_lt(load(expert, path ? support_model_path(path) : folder, "m.1.2"), 0);
    ck_assert_msg(strstr(logged, said), "'%s' was not said, but: %s", said, logged);
    expert_destroy(&expert);
    native_close();
}

START_TEST(another_format_is_refused_with_the_tensors_name)
{
    expect_native_refused("fp8", "floats", NULL,
                          "'model.layers.1.mlp.experts.2.gate_proj.weight' is F32[160, 96], and device device0 keeps "
                          "weights in fp8 as a file has them: set precision: bf16");
    expect_native_refused("fp8", "mxfp4", NULL, "gate_proj.weight' is MXFP4[160, 96], and device device0 keeps");
    expect_native_refused("mxfp4", "fp8", NULL, "set precision: fp8, which keeps these, or int8 or int4");
    const struct support_tensor tensors[3] = {{parameters[0], "F32", {I, H}, 2, gate, sizeof gate},
                                              {parameters[1], "F32", {I, H}, 2, up, sizeof up},
                                              {parameters[2], "F32", {H, I}, 2, down, sizeof down}};
    support_model_write("state.safetensors", tensors, 3);
    expect_native_refused("mxfp4", "mxfp4", "state.safetensors", "device device0 keeps them in mxfp4");
}
END_TEST

START_TEST(codes_and_scales_that_are_no_numbers_are_refused)
{
    fp8.codes[1][777] = 0xff;
    expect_native_refused("fp8", "fp8", NULL, "element 777 of what 'model.layers.1.mlp.experts.2.up_proj.weight'");
    expect_native_refused("fp8", "fp8", NULL, "(code 0xff, scale 0.7), which no weight may be");
    draw_numbers();
    fp8.scales[2][1] = NAN;
    expect_native_refused("fp8", "fp8", NULL, "element 128 of what 'model.layers.1.mlp.experts.2.down_proj.weight'");
    draw_numbers();
    fp8.scales[0][0] = 1e36f; /* 448 times as much is no float, whether there is such a code or not */
    memset(fp8.codes[0], 1, sizeof fp8.codes[0]);
    expect_native_refused("fp8", "fp8", NULL, "(code 0x01, scale 1e+36), which no weight may be");
    draw_numbers();
    mxfp4.scales[2][4] = 255;
    expect_native_refused("mxfp4", "mxfp4", NULL,
                          "element 128 of what 'model.layers.1.mlp.experts.2.down_proj.weight'");
    draw_numbers();
    mxfp4.scales[0][0] = 254; /* 2^127 is a number, and 6 times as much is none */
    mxfp4.blocks[0][0] = 0x72;
    expect_native_refused("mxfp4", "mxfp4", NULL, "element 1 of what 'model.layers.1.mlp.experts.2.gate_proj.weight'");
}
END_TEST

/* Rows 32 to 192 of what has a scale for 128: they change at row 96 of the part. */
START_TEST(parts_that_cut_what_shares_a_scale_are_refused)
{
    static uint8_t codes[192 * WIDE_H], scales[192 * 4];
    static const float squares[] = {1, 2};
    static const struct config_template rows[] = {{"gate_proj.weight", "w[32:]", 1}},
                                        columns[] = {{"gate_proj.weight", "b[:160, 16:112]", 1}};
    const struct support_tensor tensors[] = {{"w", "F8_E4M3", {192, WIDE_H}, 2, codes, sizeof codes},
                                             {"w_scale_inv", "F32", {2, 1}, 2, squares, sizeof squares},
                                             {"b_blocks", "U8", {192, 4, 16}, 3, codes, 192 * 4 * 16},
                                             {"b_scales", "U8", {192, 4}, 2, scales, 192 * 4}};
    memset(scales, 100, sizeof scales);
    for (unsigned i = 0; i < sizeof scales; i += 3)
        scales[i] = 101;
    support_model_write("parts.safetensors", tensors, 4);
    for (unsigned is_fp8 = 0; is_fp8 < 2; is_fp8++) {
        native_open(is_fp8 ? "fp8" : "mxfp4");
        struct expert *expert = make();
        support.config.experts[0].templates.items = (struct config_template *)(is_fp8 ? rows : columns);
        support.config.experts[0].templates.count = 1;
        ck_assert_int_eq(load(expert, support_model_path("parts.safetensors"), "m.1.2"), -EINVAL);
        ck_assert_msg(strstr(logged, "begins inside of weights that share a scale"), "%s", logged);
        expert_destroy(&expert);
        native_close();
    }
}
END_TEST

int main(void)
{
    TCase *native = tcase_create("native");
    tcase_add_checked_fixture(native, native_set_up, native_tear_down);
    tcase_set_timeout(native, 300);
    tcase_add_loop_test(native, what_a_file_has_in_the_devices_format_is_kept, 0, 2);
    tcase_add_test(native, another_format_is_refused_with_the_tensors_name);
    tcase_add_test(native, codes_and_scales_that_are_no_numbers_are_refused);
    tcase_add_test(native, parts_that_cut_what_shares_a_scale_are_refused);
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
    suite_add_tcase(suite, native);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
