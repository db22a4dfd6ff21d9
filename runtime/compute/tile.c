#include "runtime/compute/tile.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "runtime/compute/kernel_program.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"

#define TILE(rows, columns, row_sums, column_sums, slab, stages)                                                       \
    {                                                                                                                  \
#rows "x" #columns "-" #row_sums "x" #column_sums "-" #slab "-" #stages, rows, columns, row_sums, column_sums, \
            slab, stages                                                                                               \
    }

/* The first three are what tile_rule() takes. Then: narrow ones, since few rows are bound by reading the weights and
 * need many groups and long slabs for that; middle ones with fewer work-items that have more sums each; large ones. */
const struct tile tile_list[TILE_COUNT] = {
    [TILE_FEW_ROWS] = TILE(16, 64, 1, 4, 16, 1),
    [TILE_OF_PROGRAM] = TILE(64, 64, 4, 4, 16, 1),
    [TILE_LARGE] = TILE(128, 128, 8, 8, 16, 1),
    TILE(8, 16, 1, 4, 64, 1),
    TILE(8, 32, 1, 4, 32, 1),
    TILE(8, 32, 1, 4, 64, 2),
    TILE(16, 32, 2, 4, 32, 2),
    TILE(16, 64, 1, 4, 64, 2),
    TILE(16, 128, 2, 4, 16, 2),
    TILE(32, 32, 2, 4, 32, 2),
    TILE(32, 64, 4, 4, 16, 2),
    TILE(64, 64, 4, 4, 16, 2),
    TILE(64, 64, 8, 4, 16, 2),
    TILE(64, 128, 8, 4, 16, 2),
    TILE(128, 64, 8, 4, 16, 2),
    TILE(128, 128, 8, 8, 8, 2),
    TILE(128, 128, 8, 8, 16, 2),
};

int tile_find(const char *name, size_t length)
{
    for (int i = 0; i < TILE_COUNT; i++) {
        if (strlen(tile_list[i].name) == length && memcmp(tile_list[i].name, name, length) == 0)
            return i;
    }
    return -ENOENT;
}

unsigned tile_group(const struct tile *tile)
{
    return tile->rows / tile->row_sums * (tile->columns / tile->column_sums);
}

size_t tile_local_bytes(const struct tile *tile)
{
    return sizeof(float) * tile->stages * tile->slab * (tile->rows + 4 + tile->columns);
}

bool tile_suits(const struct tile *tile, uint64_t rows)
{
    const uint64_t most = rows < 16 ? 32 : 2 * rows, least = rows < 512 ? rows / 16 : 32;
    return tile->rows <= most && tile->rows >= least;
}

static uint64_t groups_of(uint64_t count, uint64_t each)
{
    const uint64_t groups = (count + each - 1) / each;
    return groups < 1 ? 1 : groups;
}

unsigned tile_rule(const struct device_info *info, uint64_t rows, uint64_t columns)
{
    static const unsigned order[] = {TILE_LARGE, TILE_OF_PROGRAM};
    for (unsigned i = 0; i < 2; i++) {
        const struct tile *tile = &tile_list[order[i]];
        const uint64_t count = groups_of(rows, tile->rows) * groups_of(columns, tile->columns);
        if (rows > tile->rows / 2 && count >= info->compute_units)
            return order[i];
    }
    return TILE_FEW_ROWS;
}

/* --- a device's kernels ------------------------------------------------------------------------------------------- */

static bool fits(const struct device *device, const struct tile *tile)
{
    size_t group = 0;
    if (device->compute->provider->takes != NULL && !device->compute->provider->takes(device, tile))
        return false;
    return clGetDeviceInfo(device->id, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof group, &group, NULL) == CL_SUCCESS &&
           tile_group(tile) <= group && tile_local_bytes(tile) <= device->info.local_memory_bytes;
}

/* A kernel that needs more registers than a group of its size may have cannot be launched. */
static bool launches(const struct device *device, const struct tile *tile, cl_kernel kernel)
{
    size_t group = 0;
    return clGetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof group, &group, NULL) ==
               CL_SUCCESS &&
           tile_group(tile) <= group;
}

void tile_sources(const struct device *device, const char *sources[3])
{
    sources[0] = device->compute->provider->sources[0];
    sources[1] = device->compute->provider->sources[1];
    sources[2] = NULL;
}

static cl_kernel make_kernel(const struct device *device, const struct tile *tile, cl_program program, const char *name)
{
    cl_int error;
    cl_kernel kernel = clCreateKernel(program, name, &error);
    if (kernel == NULL || launches(device, tile, kernel))
        return kernel;
    clReleaseKernel(kernel);
    return NULL;
}

/* weight_gradient may be NULL: not wanted. */
static int make(struct device *device, const struct tile *tile, const char *more_options, cl_program *program,
                cl_kernel *linear, cl_kernel *weight_gradient)
{
    const char *sources[3];
    char options[256];
    tile_sources(device, sources);
    snprintf(options, sizeof options, "-DTILE_M=%u -DTILE_N=%u -DSUMS_M=%u -DSUMS_N=%u -DSLAB=%u -DSTAGES=%u %s",
             tile->rows, tile->columns, tile->row_sums, tile->column_sums, tile->slab, tile->stages, more_options);
    const int result = kernel_program_compile(device, sources, options, program);
    if (result != 0)
        return result;
    *linear = make_kernel(device, tile, *program, "linear");
    if (weight_gradient != NULL)
        *weight_gradient = make_kernel(device, tile, *program, "weight_gradient");
    return *linear == NULL || (weight_gradient != NULL && *weight_gradient == NULL) ? -ENOTSUP : 0;
}

static void release(struct tile_of *of)
{
    cl_kernel *const kernels[] = {&of->linear, &of->weight_gradient, &of->of_gradient};
    cl_program *const programs[] = {&of->program, &of->gradient_program};
    for (unsigned i = 0; i < 3; i++) {
        if (*kernels[i] != NULL)
            clReleaseKernel(*kernels[i]);
        *kernels[i] = NULL;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (*programs[i] != NULL)
            clReleaseProgram(*programs[i]);
        *programs[i] = NULL;
    }
}

int tile_build(struct tile_kernels *kernels, struct device *device, unsigned index)
{
    const struct kernel_provider *provider = device->compute->provider;
    const struct tile *tile = &tile_list[index];
    struct tile_of *of = &kernels->of[index];
    const char *options = provider->options != NULL ? provider->options(device) : "";
    const char *for_gradients = provider->gradient_options != NULL ? provider->gradient_options(device) : NULL;
    const bool make_linear = index != TILE_OF_PROGRAM && of->linear == NULL;
    const bool make_gradient = for_gradients != NULL && of->of_gradient == NULL;
    if (!make_linear && !make_gradient)
        return 0;
    if (of->refused || !fits(device, tile)) {
        of->refused = true;
        return -ENOTSUP;
    }
    int result = 0;
    if (make_linear)
        result =
            make(device, tile, options, &of->program, &of->linear, for_gradients == NULL ? &of->weight_gradient : NULL);
    if (result == 0 && make_gradient)
        result = make(device, tile, for_gradients, &of->gradient_program, &of->of_gradient, &of->weight_gradient);
    if (result != 0) {
        release(of);
        of->refused = true;
    }
    return result;
}

void tile_release(struct tile_kernels *kernels)
{
    for (unsigned i = 0; i < TILE_COUNT; i++)
        release(&kernels->of[i]);
    memset(kernels, 0, sizeof *kernels);
}

void tile_grid(const struct tile_kernels *kernels, unsigned index, enum kernel kernel, uint64_t rows, uint64_t columns,
               struct kernel_grid *grid)
{
    const struct tile *tile = &tile_list[index];
    const size_t group = tile_group(tile);
    *grid = (struct kernel_grid){
        .dims = 2,
        .global = {group * groups_of(rows, tile->rows), groups_of(columns, tile->columns)},
        .local = {group, 1},
    };
    grid->object = kernel == KERNEL_LINEAR ? kernels->of[index].linear : kernels->of[index].weight_gradient;
    grid->of_gradient = kernels->of[index].of_gradient;
}
