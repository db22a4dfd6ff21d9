/* Where public models have the weights of their experts: the names that the families use, as templates
 * (common/tensor_part.h) for the parameters of a gated expert, y = down(act(gate x) * up x). */
#ifndef EXPERTD_RUNTIME_LAYOUTS_H
#define EXPERTD_RUNTIME_LAYOUTS_H

#include "runtime/state/shards.h"

enum { LAYOUTS_TEMPLATE_SIZE = 200 };

struct layout;

/* The layout that the model has for the expert of the uid; NULL if it is none that is known here. A uid with two
 * coordinates is an expert of a layer, one with a single coordinate the layer's shared expert. `prefix` is what the
 * names of its layers begin with. */
const struct layout *layouts_find(const struct shards *shards, const char *uid, const char **prefix);
/* "per-expert gate_proj, up_proj, down_proj", for people. */
const char *layout_name(const struct layout *layout);
/* The template for a parameter ("gate_proj.weight", "up_proj.bias", ...) into text; NULL if the layout has none. */
const char *layout_template(const struct layout *layout, const char *prefix, const char *parameter,
                            char text[LAYOUTS_TEMPLATE_SIZE]);

#endif
