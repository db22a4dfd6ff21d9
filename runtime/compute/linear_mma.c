/* The provider for NVIDIA's matrix units: runtime/compute/kernels/linear_mma.cl. On a CPU device it emulates them, for
 * tests.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/providers.h"
#include "runtime/compute/tuner.h"
#include "runtime/device/device_private.h"

enum {
    FRAGMENT_ROWS = 16, /* of the instruction, its contraction in words of 32 bits */
    FRAGMENT_COLUMNS = 8,
    FRAGMENT_WORDS = 8,
    LOCAL_BYTES = 24 * 1024, /* what the tiles that a rule chooses take of local memory */
    NEEDED_MAJOR = 8,        /* compute capability: the first that has both instructions */
    PROBE_WORK_ITEMS = 32,
    PROBE_MAX_DEPTH = 16,
    /* cl_nv_device_attribute_query, which not every vendor's cl_ext.h has. */
    DEVICE_COMPUTE_CAPABILITY_MAJOR_NV = 0x4000,
    DEVICE_COMPUTE_CAPABILITY_MINOR_NV = 0x4001,
};

static const char *const sources[] = {"common",      "linear_mma",    "rows_gpu",      "rms_norm_gpu",
                                      "batched_gpu", "attention_gpu", "optimizer_gpu", NULL};

static bool is_fp16(const struct device *device)
{
    return strcmp(device->config->precision, "fp16") == 0;
}

static bool is_emulated(const struct device *device)
{
    return device->info.class == DEVICE_CLASS_CPU;
}

/* Weights of 16 bits can be had without the matrix units, what is multiplied in tf32 cannot. */
static const char *way_out(const struct device *device)
{
    return strcmp(device->config->precision, "tf32") != 0
               ? "set linear_kernel: auto, gpu or cpu for this device, or precision: fp32"
               : "set precision: fp32 for this device";
}

static int mma_check(struct device *device)
{
    const struct config_device *config = device->config;
    cl_uint major = 0, minor = 0;
    if (strcmp(config->precision, "fp32") == 0)
        return device_complain(device, -EINVAL,
                               "linear_kernel mma multiplies in tf32 or fp16: set precision to one of them or bf16, or "
                               "linear_kernel: auto");
    if (is_emulated(device) && strcmp(config->linear_kernel, "mma") == 0) {
        log_warning("device %s: the matrix units are emulated, which is for tests and very slow", config->name);
        return 0;
    }
    if (strstr(device->info.vendor, "NVIDIA") == NULL)
        return device_complain(
            device, -EINVAL,
            "linear_kernel mma, precision %s is for NVIDIA GPUs of compute capability %d.0 or more, and this is one of "
            "%s: %s",
            config->precision, NEEDED_MAJOR, device->info.vendor, way_out(device));
    if (clGetDeviceInfo(device->id, DEVICE_COMPUTE_CAPABILITY_MAJOR_NV, sizeof major, &major, NULL) != CL_SUCCESS ||
        clGetDeviceInfo(device->id, DEVICE_COMPUTE_CAPABILITY_MINOR_NV, sizeof minor, &minor, NULL) != CL_SUCCESS)
        return device_complain(device, -EINVAL,
                               "precision %s: the driver %s does not say the device's compute capability: %s",
                               config->precision, device->info.driver, way_out(device));
    if (major < NEEDED_MAJOR || device->info.local_memory_bytes < LOCAL_BYTES)
        return device_complain(device, -EINVAL,
                               "precision %s needs compute capability %d.0 or more and %d KiB of local memory; this "
                               "device has %u.%u and %llu KiB: %s",
                               config->precision, NEEDED_MAJOR, LOCAL_BYTES / 1024, major, minor,
                               (unsigned long long)device->info.local_memory_bytes / 1024, way_out(device));
    return 0;
}

static const char *mma_options(const struct device *device)
{
    if (is_emulated(device))
        return is_fp16(device) ? "-DMMA_FP16" : "";
    return is_fp16(device) ? "-DMMA_PTX -DMMA_FP16" : "-DMMA_PTX";
}

static const char *mma_gradient_options(const struct device *device)
{
    if (!is_fp16(device))
        return NULL;
    return is_emulated(device) ? "" : "-DMMA_PTX";
}

/* Small whole numbers, which both precisions hold exactly, and no symmetry that would hide a swap. */
static void probe_values(unsigned depth, float *a, float *b, float *expected)
{
    for (unsigned i = 0; i < FRAGMENT_ROWS * depth; i++)
        a[i] = (float)((i * 37 + i / 5) % 23) - 11.0f;
    for (unsigned i = 0; i < depth * FRAGMENT_COLUMNS; i++)
        b[i] = (float)((i * 53 + i / 3) % 19) - 9.0f;
    for (unsigned row = 0; row < FRAGMENT_ROWS; row++) {
        for (unsigned column = 0; column < FRAGMENT_COLUMNS; column++) {
            float sum = 0;
            for (unsigned k = 0; k < depth; k++)
                sum += a[row * depth + k] * b[k * FRAGMENT_COLUMNS + column];
            expected[row * FRAGMENT_COLUMNS + column] = sum;
        }
    }
}

static int run_probe(struct device *device, cl_kernel kernel, cl_mem memory[3], float *found, size_t found_bytes)
{
    const struct kernel_grid grid = {.dims = 2, .global = {PROBE_WORK_ITEMS, 1}, .local = {PROBE_WORK_ITEMS, 1}};
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(memory[0]),
        KERNEL_ARGUMENT(memory[1]),
        KERNEL_ARGUMENT(memory[2]),
    };
    const int result = kernel_launch_object(device, kernel, "mma_probe", &grid, arguments, 3);
    return result == 0 ? device_read(device, memory[2], 0, found, found_bytes) : result;
}

/* One product by the matrix units: whether the driver's compiler makes of the PTX what the kernels rely on. */
static int mma_probe(struct device *device)
{
    float a[FRAGMENT_ROWS * PROBE_MAX_DEPTH], b[PROBE_MAX_DEPTH * FRAGMENT_COLUMNS];
    float expected[FRAGMENT_ROWS * FRAGMENT_COLUMNS], found[FRAGMENT_ROWS * FRAGMENT_COLUMNS];
    const unsigned depth = is_fp16(device) ? PROBE_MAX_DEPTH : PROBE_MAX_DEPTH / 2;
    cl_mem memory[3] = {NULL, NULL, NULL};
    cl_int error;
    cl_kernel kernel = clCreateKernel(device->compute->program, "mma_probe", &error);
    if (kernel == NULL)
        return device_fail(device, error, "mma_probe");
    probe_values(depth, a, b, expected);
    int result = device_allocate(device, sizeof a, "the matrix units' probe", &memory[0]);
    if (result == 0)
        result = device_allocate(device, sizeof b, "the matrix units' probe", &memory[1]);
    if (result == 0)
        result = device_allocate(device, sizeof found, "the matrix units' probe", &memory[2]);
    if (result == 0)
        result = device_write(device, memory[0], 0, a, FRAGMENT_ROWS * depth * sizeof *a);
    if (result == 0)
        result = device_write(device, memory[1], 0, b, depth * FRAGMENT_COLUMNS * sizeof *b);
    if (result == 0)
        result = run_probe(device, kernel, memory, found, sizeof found);
    for (unsigned i = 0; i < FRAGMENT_ROWS * FRAGMENT_COLUMNS && result == 0; i++) {
        if (fabsf(found[i] - expected[i]) > 0)
            result = device_complain(
                device, -EINVAL, "precision %s: the matrix units computed %g where %g is right (driver %s): %s",
                device->config->precision, (double)found[i], (double)expected[i], device->info.driver, way_out(device));
    }
    for (unsigned i = 0; i < 3; i++)
        device_release(device, &memory[i]);
    clReleaseKernel(kernel);
    return result;
}

/* The tile's parameters as linear_mma.cl makes them of linear_gpu.cl's. What fp16 has room for, tf32 has not always. */
static bool mma_takes(const struct device *device, const struct tile *tile)
{
    const unsigned sums = tile->row_sums * tile->column_sums;
    const unsigned below = sums >= 64 ? 4 : sums >= 16 ? 2 : 1, beside = sums / 4 / below;
    if (tile->slab % (is_fp16(device) ? 2 * FRAGMENT_WORDS : FRAGMENT_WORDS) != 0 ||
        tile->rows % (FRAGMENT_ROWS * below) != 0 || tile->columns % (FRAGMENT_COLUMNS * beside) != 0)
        return false;
    const unsigned rows = tile->rows * (tile->slab + 4), across = tile->slab * (tile->rows + 8);
    const unsigned slabs = tile->stages * ((rows > across ? rows : across) + tile->slab * (tile->columns + 8));
    const unsigned strip = tile->rows / below * (tile->columns + 8);
    return sizeof(float) * (slabs > strip ? slabs : strip) <= device->info.local_memory_bytes;
}

static void mma_shape(const struct device_info *info, struct kernel_shape *shape)
{
    provider_gpu.shape(info, shape);
}

static void mma_grid(const struct device *device, enum kernel kernel, uint64_t rows, uint64_t n, uint64_t k,
                     struct kernel_grid *grid)
{
    provider_gpu.grid(device, kernel, rows, n, k, grid);
}

static int mma_open(struct device *device)
{
    int result = mma_probe(device);
    if (result == 0)
        result = tuner_open(device);
    /* What every other tile falls back on. */
    if (result == 0 && is_fp16(device) && device->compute->tuner->kernels.of[TILE_OF_PROGRAM].of_gradient == NULL)
        result = device_complain(device, -EINVAL,
                                 "precision fp16: the kernels for gradients, in tf32, could not be built: %s",
                                 way_out(device));
    return result;
}

static const struct linear_products products = {
    .forward = linear_launch_forward,
    .gradient = linear_launch_gradient,
    .prepare = tuner_prepare,
};

const struct kernel_provider provider_mma = {
    .name = "mma",
    .sources = sources,
    .check = mma_check,
    .options = mma_options,
    .gradient_options = mma_gradient_options,
    .takes = mma_takes,
    .shape = mma_shape,
    .grid = mma_grid,
    .open = mma_open,
    .close = tuner_close,
    .products = &products,
};
