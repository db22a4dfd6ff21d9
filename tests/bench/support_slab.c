#include "bench/support_slab.h"

#include <stdlib.h>

struct device_slab make_slab(size_t floats)
{
    struct device_slab slab;
    const size_t bytes = (floats * sizeof(float) + 4095) / 4096 * 4096;
    float *values = aligned_alloc(4096, bytes);
    if (values == NULL)
        exit(1);
    for (size_t i = 0; i < bytes / sizeof(float); i++)
        values[i] = (float)(i * 2654435761u % 1024) / 512.0f - 1.0f;
    device_slab_wrap(&slab, values, bytes);
    return slab;
}

void drop_slab(struct device_slab *slab)
{
    void *memory = slab->mapping;
    device_slab_unwrap(slab);
    free(memory);
}
