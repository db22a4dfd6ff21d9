#include <check.h>
#include <stdio.h>
#include <string.h>

#include "runtime/state/layouts.h"

/* Of a model that has these tensors, the templates for a uid. */
static const struct {
    const char *tensors[4], *uid, *gate, *down_bias;
} models[] = {
    {{"model.layers.1.mlp.experts.2.gate_proj.weight"},
     "m.1.2",
     "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight",
     "model.layers.{layer}.mlp.experts.{expert}.down_proj.bias"},
    {{"model.layers.1.block_sparse_moe.experts.2.w1.weight"},
     "m.1.2",
     "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight",
     "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2.bias"},
    {{"model.layers.1.block_sparse_moe.input_linear.weight"},
     "m.1.2",
     "model.layers.{layer}.block_sparse_moe.input_linear.weight[{expert}, :half]",
     NULL},
    {{"model.layers.1.mlp.experts.gate_up_proj"},
     "m.1.2",
     "model.layers.{layer}.mlp.experts.gate_up_proj[{expert}, :half]",
     NULL},
    {{"model.layers.1.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.gate_up_proj_bias"},
     "m.1.2",
     "model.layers.{layer}.mlp.experts.gate_up_proj[{expert}, :, 0::2].T",
     "model.layers.{layer}.mlp.experts.down_proj_bias[{expert}]"},
    {{"model.layers.1.mlp.experts.gate_up_proj_blocks", "model.layers.1.mlp.experts.gate_up_proj_bias"},
     "m.1.2",
     "model.layers.{layer}.mlp.experts.gate_up_proj[{expert}, 0::2]",
     "model.layers.{layer}.mlp.experts.down_proj_bias[{expert}]"},
    {{"model.language_model.layers.1.mlp.experts.2.gate_proj.weight"},
     "m.1.2",
     "model.language_model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight",
     "model.language_model.layers.{layer}.mlp.experts.{expert}.down_proj.bias"},
    {{"model.layers.1.mlp.shared_experts.gate_proj.weight", "model.layers.1.mlp.experts.2.gate_proj.weight"},
     "m.1",
     "model.layers.{layer}.mlp.shared_experts.gate_proj.weight",
     "model.layers.{layer}.mlp.shared_experts.down_proj.bias"},
    {{"model.layers.1.mlp.shared_expert.gate_proj.weight"},
     "m.1",
     "model.layers.{layer}.mlp.shared_expert.gate_proj.weight",
     "model.layers.{layer}.mlp.shared_expert.down_proj.bias"},
    {{"model.layers.1.shared_mlp.input_linear.weight"},
     "m.1",
     "model.layers.{layer}.shared_mlp.input_linear.weight[:half]",
     NULL},
    /* None of what is known, or of another layer, or of uids of another kind. */
    {{"model.layers.1.mlp.gate_proj.weight"}, "m.1.2", NULL, NULL},
    {{"model.layers.1.mlp.experts.2.gate_proj.weight"}, "m.2.2", NULL, NULL},
    {{"model.layers.1.mlp.experts.2.gate_proj.weight"}, "m.1", NULL, NULL},
    {{"model.layers.1.mlp.experts.2.gate_proj.weight"}, "m.1.2.3", NULL, NULL},
};

START_TEST(a_models_layout_is_found_by_its_names)
{
    char index[1024] = "{\"weight_map\":{", text[LAYOUTS_TEMPLATE_SIZE], error[SHARDS_ERROR_SIZE];
    const char *prefix;
    struct shards *shards;
    size_t used = strlen(index);
    for (unsigned i = 0; i < 4 && models[_i].tensors[i]; i++)
        used += (size_t)snprintf(index + used, sizeof index - used, "%s\"%s\":\"a.safetensors\"", i > 0 ? "," : "",
                                 models[_i].tensors[i]);
    snprintf(index + used, sizeof index - used, "}}");
    ck_assert_msg(shards_parse(&shards, ".", index, strlen(index), error) == 0, "%s", error);
    const struct layout *layout = layouts_find(shards, models[_i].uid, &prefix);
    if (models[_i].gate) {
        ck_assert_ptr_nonnull(layout);
        ck_assert_str_eq(layout_template(layout, prefix, "gate_proj.weight", text), models[_i].gate);
        ck_assert_ptr_nonnull(layout_template(layout, prefix, "down_proj.weight", text));
        ck_assert_ptr_nonnull(layout_template(layout, prefix, "up_proj.weight", text));
        ck_assert_ptr_null(layout_template(layout, prefix, "ffn.weight", text));
        const char *bias = layout_template(layout, prefix, "down_proj.bias", text);
        ck_assert_str_eq(bias ? bias : "none", models[_i].down_bias ? models[_i].down_bias : "none");
    } else {
        ck_assert_ptr_null(layout);
    }
    shards_close(&shards);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("layouts");
    tcase_add_loop_test(all, a_models_layout_is_found_by_its_names, 0, sizeof models / sizeof models[0]);
    Suite *suite = suite_create("layouts");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
