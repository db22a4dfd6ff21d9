/* The provider for CPU devices: runtime/kernels/linear_cpu.cl. */
#include "runtime/device_private.h"
#include "runtime/linear.h"

enum {
    BLOCK_K = 128,      /* panel of 64 floats: 32 KiB, what the first-level cache holds */
    BLOCK_ROWS = 252,   /* by BLOCK_K: 126 KiB of the second-level cache */
    GRADIENT_ROWS = 48, /* of x and dy, a panel each: 24 KiB */
    MAX_GROUP_PANELS = 8,
    MAX_WORK_ITEMS = 4096, /* in a dimension: PoCL compiles another version for grids beyond 65535 */
};

static const char *const sources[] = {"common", "linear_cpu", "rows_cpu", "optimizer_cpu", NULL};

/* As many accumulators as the vector registers hold: 24 of 32 with AVX-512, 12 of 16 with AVX2 and SSE. */
static void cpu_shape(const struct device_info *info, struct kernel_shape *shape)
{
    if (info->vector_width >= 16)
        *shape = (struct kernel_shape){16, 64, 6};
    else if (info->vector_width >= 8)
        *shape = (struct kernel_shape){8, 16, 6};
    else
#ifdef __aarch64__
        *shape = (struct kernel_shape){4, 16, 6};
#else
        *shape = (struct kernel_shape){4, 8, 6};
#endif
}

static uint64_t at_most(uint64_t value, uint64_t bound)
{
    return value < bound ? value : bound;
}

static void linear_grid(const struct device *device, uint64_t rows, uint64_t n, uint64_t k, struct kernel_grid *grid)
{
    const uint64_t panels = kernel_panels(&device->shape, n);
    const uint64_t row_groups = at_most((rows + BLOCK_ROWS - 1) / BLOCK_ROWS, MAX_WORK_ITEMS);
    /* Some work-items for each core, so that none waits long for another at the end. */
    const uint64_t wanted = 6 * (uint64_t)device->info.compute_units;
    const bool few_rows = rows <= 2 * device->shape.tile_rows;
    uint64_t group = few_rows ? 1 : row_groups * panels / wanted;
    group = group < 1 ? 1 : at_most(group, MAX_GROUP_PANELS);
    if (panels / group > MAX_WORK_ITEMS)
        group = (panels + MAX_WORK_ITEMS - 1) / MAX_WORK_ITEMS;
    grid->global[0] = row_groups;
    grid->global[1] = (panels + group - 1) / group;
    grid->group = (cl_int)group;
    /* With one tile or two nothing is met again in the cache: the sums stay in registers for the whole of k, and the
     * speed is that of reading w once. */
    grid->block = few_rows ? (cl_int)(kernel_panels(&device->shape, k) * device->shape.panel) : BLOCK_K;
}

static void cpu_grid(const struct device *device, enum kernel kernel, uint64_t rows, uint64_t n, uint64_t k,
                     struct kernel_grid *grid)
{
    *grid = (struct kernel_grid){.dims = 2, .global = {1, 1}, .local = {1, 1}};
    switch (kernel) {
    case KERNEL_LINEAR:
        linear_grid(device, rows, n, k, grid);
        break;
    case KERNEL_WEIGHT_GRADIENT:
        grid->global[0] = kernel_panels(&device->shape, k);
        grid->global[1] = kernel_panels(&device->shape, n);
        grid->block = GRADIENT_ROWS;
        break;
    case KERNEL_LAYER_NORM:
    case KERNEL_LAYER_NORM_BACKWARD:
        grid->global[0] = at_most(rows, MAX_WORK_ITEMS);
        break;
    case KERNEL_PACK_ROWS:
        grid->global[0] = at_most((rows + 7) / 8, 64);
        grid->global[1] = kernel_panels(&device->shape, n);
        break;
    case KERNEL_NORM_PARTIALS:
    case KERNEL_ACCUMULATE: /* n is a count of floats, shared out evenly */
        grid->dims = 1;
        grid->global[0] = at_most(at_most(kernel_panels(&device->shape, n), 8 * (uint64_t)device->info.compute_units),
                                  DEVICE_PARTIALS);
        break;
    case KERNEL_NORM_FINISH:
        grid->dims = 1;
        break;
    case KERNEL_STEP_ADAM:
    case KERNEL_STEP_SGD:
        grid->global[0] = kernel_panels(&device->shape, k);
        grid->global[1] = kernel_panels(&device->shape, n);
        break;
    default:
        grid->global[0] = kernel_panels(&device->shape, n);
        break;
    }
}

const struct linear_provider linear_provider_cpu = {
    .name = "cpu",
    .sources = sources,
    .shape = cpu_shape,
    .grid = cpu_grid,
    .forward = linear_launch_forward,
    .gradient = linear_launch_gradient,
};
