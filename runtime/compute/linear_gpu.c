/* The provider for GPUs: runtime/compute/kernels/linear_gpu.cl. */
#include "runtime/compute/linear.h"
#include "runtime/compute/providers.h"
#include "runtime/compute/tuner.h"
#include "runtime/device/device_private.h"

enum {
    GROUP = 256,       /* work-items of every group, but for products */
    WIDTH = 32,        /* columns of a group, of kernels that do not take whole rows */
    MAX_GROUPS = 4096, /* of kernels that walk over their data with the grid's stride */
    QUERY_TILE = 32,   /* attention_gpu.cl has it, too, */
    BATCHED_TILE = 64, /* and this one batched_gpu.cl */
};

static const char *const sources[] = {"common",      "linear_gpu",    "rows_gpu",      "rms_norm_gpu",
                                      "batched_gpu", "attention_gpu", "optimizer_gpu", NULL};

static void gpu_shape(const struct device_info *info, struct kernel_shape *shape)
{
    (void)info;
    *shape = (struct kernel_shape){.vec = 1, .panel = WIDTH, .tile_rows = 8};
}

static uint64_t groups_of(uint64_t count, uint64_t each)
{
    const uint64_t groups = (count + each - 1) / each;
    return groups < 1 ? 1 : groups;
}

static void gpu_grid(const struct device *device, enum kernel kernel, uint64_t rows, uint64_t n, uint64_t k,
                     struct kernel_grid *grid)
{
    *grid = (struct kernel_grid){.dims = 2, .global = {GROUP, 1}, .local = {GROUP, 1}};
    switch (kernel) {
    case KERNEL_LINEAR:
        tuner_grid(device, TUNING_FORWARD, rows, n, k, grid);
        break;
    case KERNEL_WEIGHT_GRADIENT:
        tuner_grid(device, TUNING_GRADIENT, rows, n, k, grid);
        break;
    case KERNEL_LAYER_NORM:
    case KERNEL_LAYER_NORM_BACKWARD:
    case KERNEL_RMS_NORM:
    case KERNEL_RMS_NORM_BACKWARD:
        grid->global[0] = GROUP * (rows < MAX_GROUPS ? rows : MAX_GROUPS);
        break;
    case KERNEL_PACK_ROWS:
    case KERNEL_APPLY:
    case KERNEL_MASK_ROWS:
    case KERNEL_AFFINE_ROWS:
    case KERNEL_GATE_BACKWARD:
    case KERNEL_WIDEN_ROWS:
    case KERNEL_NARROW_ROWS:
        grid->global[0] =
            GROUP * (rows * WIDTH < (uint64_t)GROUP * MAX_GROUPS ? groups_of(rows * WIDTH, GROUP) : MAX_GROUPS);
        grid->global[1] = groups_of(n, WIDTH);
        break;
    case KERNEL_AFFINE_SUMS: /* rows are those of the constants */
        grid->global[0] = GROUP * (rows < MAX_GROUPS ? rows : MAX_GROUPS);
        grid->global[1] = groups_of(n, WIDTH);
        break;
    case KERNEL_BATCHED_PRODUCT: /* rows are products, each of k rows and n columns */
        grid->global[0] = GROUP * rows * groups_of(k, BATCHED_TILE) * groups_of(n, BATCHED_TILE);
        break;
    case KERNEL_ATTENTION: /* rows are heads, n is tokens */
        grid->global[0] = GROUP * rows;
        grid->global[1] = groups_of(n, QUERY_TILE);
        break;
    case KERNEL_ATTENTION_BACKWARD:
        grid->global[0] = GROUP * rows;
        break;
    case KERNEL_NORM_PARTIALS:
    case KERNEL_ACCUMULATE: /* n is a count of floats */
        grid->dims = 1;
        grid->global[0] = GROUP * (groups_of(n, GROUP) < PROVIDER_PARTIALS ? groups_of(n, GROUP) : PROVIDER_PARTIALS);
        break;
    case KERNEL_NORM_FINISH:
        grid->dims = 1;
        break;
    case KERNEL_STEP_ADAM:
    case KERNEL_STEP_SGD:
        grid->global[0] = GROUP * groups_of(k, WIDTH);
        grid->global[1] = groups_of(n, WIDTH);
        break;
    default: /* a group for each WIDTH columns */
        grid->global[0] = GROUP * groups_of(n, WIDTH);
        break;
    }
}

static const struct linear_products products = {
    .forward = linear_launch_forward,
    .gradient = linear_launch_gradient,
    .prepare = tuner_prepare,
};

const struct kernel_provider provider_gpu = {
    .name = "gpu",
    .sources = sources,
    .shape = gpu_shape,
    .grid = gpu_grid,
    .open = tuner_open,
    .close = tuner_close,
    .products = &products,
};
