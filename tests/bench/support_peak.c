#include "bench/support_peak.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "runtime/device_private.h"

enum { STEPS = 100000, ACCUMULATORS = 20, READ_BYTES = 256 << 20, READ_GROUPS_PER_UNIT = 8 };

struct peak {
    struct device *device;
    cl_program program;
    cl_kernel fma, read;
    cl_mem values, large;
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
    snprintf(options, sizeof options, "-DVEC=%u -DACCUMULATORS=%d", peak->device->shape.vec, ACCUMULATORS);
    peak->program = clCreateProgramWithSource(peak->device->context, 1, &text, NULL, &error);
    if (error == CL_SUCCESS)
        error = clBuildProgram(peak->program, 1, &peak->device->id, options, NULL, NULL);
    if (error == CL_SUCCESS)
        peak->fma = clCreateKernel(peak->program, "peak_fma", &error);
    if (error == CL_SUCCESS)
        peak->read = clCreateKernel(peak->program, "peak_read", &error);
    return error == CL_SUCCESS ? 0 : fail(error, "building the kernels");
}

int peak_open(struct peak **peak, struct device *device)
{
    struct peak *p = *peak = calloc(1, sizeof *p);
    const float values[16] = {0.5f, 0.5f};
    if (!p)
        return -1;
    p->device = device;
    if (build(p) == 0 && device_allocate(device, sizeof values, "peak", &p->values) == 0 &&
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
    device_release(p->device, &p->values);
    device_release(p->device, &p->large);
    free(p);
    *peak = NULL;
}

/* Nanoseconds of one launch; exits on an OpenCL error, as a benchmark without its floor says nothing. */
static double launch(const struct peak *peak, cl_kernel kernel, unsigned groups_per_unit)
{
    const struct device *device = peak->device;
    const bool cpu = device->info.class == DEVICE_CLASS_CPU;
    const size_t local = cpu ? 1 : 256, global = local * device->info.compute_units * groups_per_unit;
    const uint64_t start_ns = clock_now_ns();
    cl_int error = clEnqueueNDRangeKernel(device->queue, kernel, 1, NULL, &global, &local, 0, NULL, NULL);
    if (error == CL_SUCCESS)
        error = clFinish(device->queue);
    if (error != CL_SUCCESS)
        exit(-fail(error, "launching a kernel"));
    return (double)(clock_now_ns() - start_ns);
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
    return 2.0 * ACCUMULATORS * device->shape.vec * steps * items / launch(peak, peak->fma, groups);
}

double peak_read(struct peak *peak)
{
    const cl_long count = READ_BYTES / 4 / peak->device->shape.vec;
    clSetKernelArg(peak->read, 0, sizeof(cl_mem), &peak->values);
    clSetKernelArg(peak->read, 1, sizeof(cl_mem), &peak->large);
    clSetKernelArg(peak->read, 2, sizeof count, &count);
    return (double)READ_BYTES / launch(peak, peak->read, READ_GROUPS_PER_UNIT);
}
