/* The provider for CPU devices: runtime/compute/kernels/linear_cpu.cl. */
#include "runtime/compute/linear.h"
#include "runtime/compute/linear_group.h"
#include "runtime/compute/providers.h"
#include "runtime/device/device_private.h"

enum {
    BLOCK_K = 1024,     /* by a panel of 64 floats 256 KiB, and as much again for what comes next, */
    BLOCK_ROWS = 132,   /* by BLOCK_K 528 KiB: of a second-level cache of 2 MiB */
    GRADIENT_ROWS = 48, /* of x and dy, a panel each: 24 KiB */
    MAX_PARTS = 4096,   /* that rows are cut into */
    QUERY_TILE = 128,   /* attention_cpu.cl has it, too, */
    BATCHED_TILE = 64,  /* and this one batched_cpu.cl */
};

static const char *const sources[] = {"common",      "shares_cpu",       "panels_cpu",    "quantized_cpu",
                                      "linear_cpu",  "linear_group_cpu", "rows_cpu",      "rms_norm_cpu",
                                      "batched_cpu", "attention_cpu",    "optimizer_cpu", NULL};

/* As many accumulators as the vector registers hold: 24 of 32 with AVX-512, 12 of 16 with AVX2 and SSE. */
static void cpu_shape(const struct device_info *info, struct kernel_shape *shape)
{
    if (info->vector_width >= 16)
        *shape = (struct kernel_shape){.vec = 16, .panel = 64, .tile_rows = 6};
    else if (info->vector_width >= 8)
        *shape = (struct kernel_shape){.vec = 8, .panel = 16, .tile_rows = 6};
    else
#ifdef __aarch64__
        *shape = (struct kernel_shape){.vec = 4, .panel = 16, .tile_rows = 6};
#else
        *shape = (struct kernel_shape){.vec = 4, .panel = 8, .tile_rows = 6};
#endif
}

static uint64_t at_most(uint64_t value, uint64_t bound)
{
    return value < bound ? value : bound;
}

static void linear_grid(const struct device *device, uint64_t rows, uint64_t n, struct kernel_grid *grid)
{
    const uint64_t groups = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    grid->global[0] = groups;
    grid->global[1] = kernel_panels(provider_shape(device), n);
    grid->group = (cl_int)at_most(groups, device->info.compute_units);
    grid->block = BLOCK_K;
}

static void cpu_grid(const struct device *device, enum kernel kernel, uint64_t rows, uint64_t n, uint64_t k,
                     struct kernel_grid *grid)
{
    *grid = (struct kernel_grid){.dims = 2, .global = {1, 1}, .local = {1, 1}};
    switch (kernel) {
    case KERNEL_LINEAR:
        linear_grid(device, rows, n, grid);
        break;
    case KERNEL_LINEAR_GROUP: /* rows are members */
        grid->global[0] = rows;
        grid->global[1] = kernel_panels(provider_shape(device), n);
        grid->block = BLOCK_K;
        break;
    case KERNEL_WEIGHT_GRADIENT:
        grid->global[0] = kernel_panels(provider_shape(device), k);
        grid->global[1] = kernel_panels(provider_shape(device), n);
        grid->block = GRADIENT_ROWS;
        break;
    case KERNEL_LAYER_NORM:
    case KERNEL_LAYER_NORM_BACKWARD:
    case KERNEL_RMS_NORM:
    case KERNEL_RMS_NORM_BACKWARD:
        grid->global[0] = at_most(rows, MAX_PARTS);
        break;
    case KERNEL_PACK_ROWS:
    case KERNEL_APPLY:
    case KERNEL_MASK_ROWS:
    case KERNEL_AFFINE_ROWS:
    case KERNEL_AFFINE_SUMS: /* rows are those of the constants */
    case KERNEL_GATE_BACKWARD:
    case KERNEL_WIDEN_ROWS:
    case KERNEL_NARROW_ROWS:
        grid->global[0] = at_most((rows + 7) / 8, 64);
        grid->global[1] = kernel_panels(provider_shape(device), n);
        break;
    case KERNEL_BATCHED_PRODUCT: /* rows are products, each of k rows and n columns */
        grid->global[0] = (k + BATCHED_TILE - 1) / BATCHED_TILE;
        grid->global[1] = rows;
        break;
    case KERNEL_ATTENTION: /* rows are heads, n is tokens */
        grid->global[0] = (n + QUERY_TILE - 1) / QUERY_TILE;
        grid->global[1] = rows;
        break;
    case KERNEL_ATTENTION_BACKWARD:
        grid->global[1] = rows;
        break;
    case KERNEL_NORM_PARTIALS:
    case KERNEL_ACCUMULATE: /* n is a count of floats, shared out evenly */
        grid->dims = 1;
        grid->global[0] =
            at_most(at_most(kernel_panels(provider_shape(device), n), 8 * (uint64_t)device->info.compute_units),
                    PROVIDER_PARTIALS);
        break;
    case KERNEL_NORM_FINISH:
        grid->dims = 1;
        break;
    case KERNEL_STEP_ADAM:
    case KERNEL_STEP_SGD:
        grid->global[0] = kernel_panels(provider_shape(device), k);
        grid->global[1] = kernel_panels(provider_shape(device), n);
        break;
    default:
        grid->global[0] = kernel_panels(provider_shape(device), n);
        break;
    }
}

static int cpu_group(struct device *device, const struct linear_call *calls, unsigned count)
{
    return linear_group_launch(device, NULL, calls, count);
}

static const struct linear_products products = {
    .forward = linear_launch_forward,
    .group = cpu_group,
    .gradient = linear_launch_gradient,
};

const struct kernel_provider provider_cpu = {
    .name = "cpu",
    .shares = true,
    .groups = true,
    .sources = sources,
    .shape = cpu_shape,
    .grid = cpu_grid,
    .open = linear_group_open,
    .products = &products,
};
