/* Any bytes are the index of a model, whose tensors are in files that are not there, or are refused with a sentence;
 * and any layout that is found in it has names that it has. */
#include <stdlib.h>
#include <string.h>

#include "common/tensor_part.h"
#include "runtime/state/layouts.h"
#include "runtime/state/stored.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(struct shards *shards, const char *uid)
{
    char text[LAYOUTS_TEMPLATE_SIZE], problem[TENSOR_PART_ERROR_SIZE], error[SHARDS_ERROR_SIZE];
    const char *prefix;
    struct tensor_part part;
    struct stored stored;
    const struct layout *layout = layouts_find(shards, uid, &prefix);
    if (!layout)
        return;
    if (!layout_template(layout, prefix, "gate_proj.weight", text) ||
        tensor_part_parse(&part, text, uid, problem) < 0 || !stored_has(shards, part.name) ||
        stored_find(&stored, shards, part.name, error) == 0 || !error[0])
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[SHARDS_ERROR_SIZE];
    struct shards *shards;
    if (shards_parse(&shards, "/dev/null", (const char *)data, size, error) < 0) {
        if (!error[0] || shards)
            abort();
        return 0;
    }
    const char *example = shards_example(shards, "");
    const struct safetensors *file;
    const struct safetensors_tensor *tensor;
    if (example && (!shards_has(shards, example) || shards_find(shards, example, &file, &tensor, error) == 0))
        abort();
    look(shards, "m.1.2");
    look(shards, "m.1");
    shards_close(&shards);
    return 0;
}
