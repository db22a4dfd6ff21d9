#include "bench/support_peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "runtime/device/device_private.h"
#include "runtime/compute/kernels.h"
#include "runtime/compute/kernel_program.h"
#include "runtime/compute/providers.h"

enum {
    STEPS = 100000,
    ACCUMULATORS = 20,
    READ_BYTES = 256 << 20,
    READ_GROUPS_PER_UNIT = 8,
    MMA_STEPS = 10000,
    MMA_EMULATED_STEPS = 20,
    MMA_GROUPS_PER_UNIT = 4,
    MMA_SUMS = 8,       /* chains of a warp */
    MMA_GROUP = 256,    /* of linear_mma.cl */
    MMA_MAX_SOURCES = 4 /* with the one below */
};

struct peak {
    struct device *device;
    cl_program program, mma_program;
    cl_kernel fma, read, mma;
    cl_mem values, large;
    double (*now_ns)(const void *context);
    const void *context;
};

/* ACCUMULATORS chains hide the latency of one multiply-add; nothing leaves the registers. */
static const char source[] =
    "#if VEC == 1\n"
    "typedef float vec;\n"
    "#else\n"
    "#define JOIN2(a, b) a##b\n"
    "#define JOIN(a, b) JOIN2(a, b)\n"
    "typedef JOIN(float, VEC) vec;\n"
    "#endif\n"
    "__kernel void peak_fma(__global float *values, int steps) {\n"
    "    vec sum[ACCUMULATORS];\n"
    "    const vec a = values[0], b = values[1];\n"
    "    for (int i = 0; i < ACCUMULATORS; i++) sum[i] = (vec)(i + (float)get_global_id(0));\n"
    "    for (int k = 0; k < steps; k++) {\n"
    "        _Pragma(\"unroll\")\n"
    "        for (int i = 0; i < ACCUMULATORS; i++) sum[i] = fma(sum[i], a, b);\n"
    "    }\n"
    "    for (int i = 1; i < ACCUMULATORS; i++) sum[0] += sum[i];\n"
    "    if (((float *)&sum[0])[0] == 1234.5f) values[2] = 1.0f;\n"
    "}\n"
    "__kernel void peak_read(__global float *values, __global const vec *large, long count) {\n"
    "    const long share = count / get_global_size(0);\n"
    "    const int cpu = get_local_size(0) == 1;\n"
    "    const long first = cpu ? share * get_global_id(0) : get_global_id(0);\n"
    "    const long step = cpu ? 1 : get_global_size(0);\n"
    "    vec sum[8];\n"
    "    for (int i = 0; i < 8; i++) sum[i] = (vec)(0.0f);\n"
    "    for (long k = 0; k + 8 <= share; k += 8) {\n"
    "        _Pragma(\"unroll\")\n"
    "        for (int i = 0; i < 8; i++) sum[i] += large[first + (k + i) * step];\n"
    "    }\n"
    "    for (int i = 1; i < 8; i++) sum[0] += sum[i];\n"
    "    if (((float *)&sum[0])[0] == 1234.5f) values[2] = 1.0f;\n"
    "}\n";

/* Behind linear_mma.cl, whose instruction it is. */
static const char mma_source[] =
    "__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))\n"
    "void peak_mma(__global float *values, int steps) {\n"
    "    __local float exchange[EXCHANGE_FLOATS(GROUP)];\n"
    "    const uint w = word(values[0], values[1]);\n"
    "    float4 sums[MMA_SUMS];\n"
    "    UNROLL for (int i = 0; i < MMA_SUMS; i++) sums[i] = (float4)(i);\n"
    "    for (int k = 0; k < steps; k++) {\n"
    "        UNROLL for (int i = 0; i < MMA_SUMS; i++) sums[i] = mma(sums[i], (uint4)(w), (uint2)(w), exchange);\n"
    "    }\n"
    "    UNROLL for (int i = 1; i < MMA_SUMS; i++) sums[0] += sums[i];\n"
    "    if (sums[0].x + sums[0].y + sums[0].z + sums[0].w == 1234.5f) values[2] = 1.0f;\n"
    "}\n";

static int fail(cl_int error, const char *what)
{
    fprintf(stderr, "peak: %s: %s\n", what, opencl_error_name(error));
    return -1;
}

static int build(struct peak *peak)
{
    const char *text = source;
    char options[64];
    cl_int error;
    snprintf(options, sizeof options, "-DVEC=%u -DACCUMULATORS=%d", provider_shape(peak->device)->vec, ACCUMULATORS);
    peak->program = clCreateProgramWithSource(peak->device->context, 1, &text, NULL, &error);
    if (error == CL_SUCCESS)
        error = clBuildProgram(peak->program, 1, &peak->device->id, options, NULL, NULL);
    if (error == CL_SUCCESS)
        peak->fma = clCreateKernel(peak->program, "peak_fma", &error);
    if (error == CL_SUCCESS)
        peak->read = clCreateKernel(peak->program, "peak_read", &error);
    return error == CL_SUCCESS ? 0 : fail(error, "building the kernels");
}

/* Nothing to build where the device's provider is another. */
static int build_mma(struct peak *peak)
{
    struct device *device = peak->device;
    static const char *const wanted[] = {"common", "linear_mma"};
    const char *texts[MMA_MAX_SOURCES];
    cl_uint count = 0;
    char options[128];
    cl_int error;
    if (device->compute->provider != &provider_mma)
        return 0;
    for (unsigned i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        for (const struct kernel_source *each = kernel_sources; each->name != NULL; each++) {
            if (strcmp(each->name, wanted[i]) == 0)
                texts[count++] = each->text;
        }
    }
    texts[count++] = mma_source;
    snprintf(options, sizeof options, "-DVEC=1 -DPANEL=%u -DMMA_SUMS=%d%s %s", provider_shape(device)->panel, MMA_SUMS,
             kernel_program_weights(device), device->compute->provider->options(device));
    peak->mma_program = clCreateProgramWithSource(device->context, count, texts, NULL, &error);
    if (error == CL_SUCCESS)
        error = clBuildProgram(peak->mma_program, 1, &device->id, options, NULL, NULL);
    if (error == CL_SUCCESS)
        peak->mma = clCreateKernel(peak->mma_program, "peak_mma", &error);
    return error == CL_SUCCESS ? 0 : fail(error, "building the matrix units' kernel");
}

static double wall_ns(const void *unused)
{
    (void)unused;
    return (double)clock_now_ns();
}

void peak_use_clock(struct peak *peak, double (*now_ns)(const void *context), const void *context)
{
    peak->now_ns = now_ns;
    peak->context = context;
}

int peak_open(struct peak **peak, struct device *device)
{
    struct peak *p = *peak = calloc(1, sizeof *p);
    const float values[16] = {0.5f, 0.5f};
    if (!p)
        return -1;
    p->device = device;
    p->now_ns = wall_ns;
    if (build(p) == 0 && build_mma(p) == 0 && device_allocate(device, sizeof values, "peak", &p->values) == 0 &&
        device_allocate(device, READ_BYTES, "peak", &p->large) == 0 &&
        device_write(device, p->values, 0, values, sizeof values) == 0)
        return 0;
    fprintf(stderr, "peak: %s\n", device_error(device));
    peak_close(peak);
    return -1;
}

void peak_close(struct peak **peak)
{
    struct peak *p = *peak;
    if (!p)
        return;
    if (p->fma)
        clReleaseKernel(p->fma);
    if (p->read)
        clReleaseKernel(p->read);
    if (p->program)
        clReleaseProgram(p->program);
    if (p->mma)
        clReleaseKernel(p->mma);
    if (p->mma_program)
        clReleaseProgram(p->mma_program);
    device_release(p->device, &p->values);
    device_release(p->device, &p->large);
    free(p);
    *peak = NULL;
}

/* Nanoseconds of one launch; exits on an OpenCL error, as a benchmark without its floor says nothing. */
static double launch(const struct peak *peak, cl_kernel kernel, size_t local, unsigned groups_per_unit)
{
    const struct device *device = peak->device;
    const size_t global = local * device->info.compute_units * groups_per_unit;
    const double start_ns = peak->now_ns(peak->context);
    cl_int error = clEnqueueNDRangeKernel(device->queue, kernel, 1, NULL, &global, &local, 0, NULL, NULL);
    if (error == CL_SUCCESS)
        error = clFinish(device->queue);
    if (error != CL_SUCCESS)
        exit(-fail(error, "launching a kernel"));
    return peak->now_ns(peak->context) - start_ns;
}

double peak_fma(struct peak *peak)
{
    const struct device *device = peak->device;
    const bool cpu = device->info.class == DEVICE_CLASS_CPU;
    const unsigned groups = cpu ? 4 : 16;
    const cl_int steps = cpu ? STEPS : STEPS / 10;
    clSetKernelArg(peak->fma, 0, sizeof(cl_mem), &peak->values);
    clSetKernelArg(peak->fma, 1, sizeof steps, &steps);
    const double items = (double)groups * device->info.compute_units * (cpu ? 1 : 256);
    return 2.0 * ACCUMULATORS * provider_shape(device)->vec * steps * items /
           launch(peak, peak->fma, cpu ? 1 : 256, groups);
}

double peak_mma(struct peak *peak)
{
    const struct device *device = peak->device;
    const cl_int steps = device->info.class == DEVICE_CLASS_CPU ? MMA_EMULATED_STEPS : MMA_STEPS;
    if (peak->mma == NULL)
        return 0;
    clSetKernelArg(peak->mma, 0, sizeof(cl_mem), &peak->values);
    clSetKernelArg(peak->mma, 1, sizeof steps, &steps);
    const double warps = (double)MMA_GROUPS_PER_UNIT * device->info.compute_units * MMA_GROUP / 32;
    const double depth = strcmp(device->config->precision, "fp16") == 0 ? 16 : 8;
    return 2.0 * 16 * 8 * depth * MMA_SUMS * steps * warps / launch(peak, peak->mma, MMA_GROUP, MMA_GROUPS_PER_UNIT);
}

double peak_read(struct peak *peak)
{
    const bool cpu = peak->device->info.class == DEVICE_CLASS_CPU;
    const cl_long count = READ_BYTES / 4 / provider_shape(peak->device)->vec;
    clSetKernelArg(peak->read, 0, sizeof(cl_mem), &peak->values);
    clSetKernelArg(peak->read, 1, sizeof(cl_mem), &peak->large);
    clSetKernelArg(peak->read, 2, sizeof count, &count);
    return (double)READ_BYTES / launch(peak, peak->read, cpu ? 1 : 256, READ_GROUPS_PER_UNIT);
}
