#include "runtime/state/layouts.h"

#include <stdio.h>
#include <string.h>

#include "common/tensor_part.h"
#include "common/uid.h"
#include "runtime/state/stored.h"

enum { GATE, UP, DOWN, GATE_BIAS, UP_BIAS, DOWN_BIAS, PARAMETERS };

static const char *const parameters[PARAMETERS] = {"gate_proj.weight", "up_proj.weight", "down_proj.weight",
                                                   "gate_proj.bias",   "up_proj.bias",   "down_proj.bias"};

/* What stands before the number of the layer: a text model, the text part of others, and files without a wrapper. */
static const char *const prefixes[] = {"model.layers.{layer}.", "model.language_model.layers.{layer}.",
                                       "language_model.model.layers.{layer}.", "layers.{layer}."};

struct layout {
    const char *name;
    unsigned coordinates;              /* of the uid: 2, an expert; 1, a layer's shared one */
    const char *sign;                  /* a tensor that tells it from others, besides the gate's; NULL */
    const char *templates[PARAMETERS]; /* behind the prefix; NULL: there is none */
};

#define PROJECTIONS(stem)                                                                                              \
    {                                                                                                                  \
        stem "gate_proj.weight", stem "up_proj.weight", stem "down_proj.weight", stem "gate_proj.bias",                \
            stem "up_proj.bias", stem "down_proj.bias"                                                                 \
    }
#define NUMBERED(stem)                                                                                                 \
    {                                                                                                                  \
        stem "w1.weight", stem "w3.weight", stem "w2.weight", stem "w1.bias", stem "w3.bias", stem "w2.bias"           \
    }

/* Where the gate's name does not tell two apart, the one with a sign stands first. */
static const struct layout layouts[] = {
    {"per-expert gate_proj, up_proj, down_proj", 2, NULL, PROJECTIONS("mlp.experts.{expert}.")},
    {"per-expert w1, w3, w2", 2, NULL, NUMBERED("block_sparse_moe.experts.{expert}.")},
    {"per-expert w1, w3, w2 in mlp", 2, NULL, NUMBERED("mlp.experts.{expert}.")},
    {"fused input_linear, gate half first",
     2,
     NULL,
     {"block_sparse_moe.input_linear.weight[{expert}, :half]", "block_sparse_moe.input_linear.weight[{expert}, half:]",
      "block_sparse_moe.output_linear.weight[{expert}]", NULL, NULL, NULL}},
    {"fused gate_up_proj in MXFP4, interleaved",
     2,
     "mlp.experts.gate_up_proj_blocks",
     {"mlp.experts.gate_up_proj[{expert}, 0::2]", "mlp.experts.gate_up_proj[{expert}, 1::2]",
      "mlp.experts.down_proj[{expert}]", "mlp.experts.gate_up_proj_bias[{expert}, 0::2]",
      "mlp.experts.gate_up_proj_bias[{expert}, 1::2]", "mlp.experts.down_proj_bias[{expert}]"}},
    {"fused gate_up_proj, interleaved and transposed",
     2,
     "mlp.experts.gate_up_proj_bias",
     {"mlp.experts.gate_up_proj[{expert}, :, 0::2].T", "mlp.experts.gate_up_proj[{expert}, :, 1::2].T",
      "mlp.experts.down_proj[{expert}].T", "mlp.experts.gate_up_proj_bias[{expert}, 0::2]",
      "mlp.experts.gate_up_proj_bias[{expert}, 1::2]", "mlp.experts.down_proj_bias[{expert}]"}},
    {"fused gate_up_proj, gate half first",
     2,
     NULL,
     {"mlp.experts.gate_up_proj[{expert}, :half]", "mlp.experts.gate_up_proj[{expert}, half:]",
      "mlp.experts.down_proj[{expert}]", NULL, NULL, NULL}},
    {"shared_experts", 1, NULL, PROJECTIONS("mlp.shared_experts.")},
    {"shared_expert", 1, NULL, PROJECTIONS("mlp.shared_expert.")},
    {"shared_mlp, gate half first",
     1,
     NULL,
     {"shared_mlp.input_linear.weight[:half]", "shared_mlp.input_linear.weight[half:]",
      "shared_mlp.output_linear.weight", NULL, NULL, NULL}},
};

static bool has(const struct shards *shards, const char *prefix, const char *rest, const char *uid)
{
    char template[LAYOUTS_TEMPLATE_SIZE], error[TENSOR_PART_ERROR_SIZE];
    struct tensor_part part;
    snprintf(template, sizeof template, "%s%s", prefix, rest);
    return tensor_part_parse(&part, template, uid, error) == 0 && stored_has(shards, part.name);
}

const struct layout *layouts_find(const struct shards *shards, const char *uid, const char **prefix)
{
    size_t length;
    uint32_t coordinates[UID_MAX_DIMS];
    const int count = uid_split(uid, &length, coordinates);
    for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++) {
        for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
            const struct layout *layout = &layouts[i];
            if ((int)layout->coordinates != count || !has(shards, prefixes[p], layout->templates[GATE], uid) ||
                (layout->sign && !has(shards, prefixes[p], layout->sign, uid)))
                continue;
            *prefix = prefixes[p];
            return layout;
        }
    }
    return NULL;
}

const char *layout_name(const struct layout *layout)
{
    return layout->name;
}

const char *layout_template(const struct layout *layout, const char *prefix, const char *parameter,
                            char text[LAYOUTS_TEMPLATE_SIZE])
{
    for (unsigned i = 0; i < PARAMETERS; i++) {
        if (strcmp(parameters[i], parameter) != 0 || !layout->templates[i])
            continue;
        snprintf(text, LAYOUTS_TEMPLATE_SIZE, "%s%s", prefix, layout->templates[i]);
        return text;
    }
    return NULL;
}
