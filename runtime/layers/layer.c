#include "runtime/layers/layer.h"

#include <stdio.h>
#include <string.h>

static const struct layer_kind *const kinds[] = {
    &layer_linear, &layer_gated,      &layer_activation, &layer_add,       &layer_multiply, &layer_affine,
    &layer_mask,   &layer_layer_norm, &layer_rms_norm,   &layer_attention, &layer_matmul};

_Static_assert((int)BLOCK_PARAMETERS_MAX == (int)PARAMETERS_MAX, "what is declared has room");

const struct layer_kind *layer_kind_find(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
    }
    return NULL;
}

int layer_parameter(struct plan *plan, const struct plan_layer *layer, const char *name, const char *suffix,
                    uint64_t out, uint64_t in, enum parameter_init init)
{
    struct parameters *parameters = plan->parameters;
    struct parameter item = {.out = out, .in = in, .init = init, .fan_in = plan->values[layer->operands[0]].columns};
    if (name != NULL)
        snprintf(item.name, sizeof item.name, "%s", name);
    else
        snprintf(item.name, sizeof item.name, "%s.%s", layer->node->layer->name, suffix);
    for (unsigned i = 0; i < parameters->count; i++) { /* the other plan of the block has added them */
        if (strcmp(parameters->items[i].name, item.name) == 0)
            return (int)i;
    }
    if (parameters->count == PARAMETERS_MAX) { /* an own kind has more than it says */
        plan->failed = true;
        return PLAN_NONE;
    }
    parameters_add(parameters, &item);
    return (int)parameters->count - 1;
}

enum parameter_init layer_init(unsigned init)
{
    return init == BLOCK_INIT_ZERO ? PARAMETER_ZERO : init == BLOCK_INIT_XAVIER ? PARAMETER_XAVIER : PARAMETER_UNIFORM;
}
