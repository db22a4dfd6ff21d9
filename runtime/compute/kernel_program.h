/* The kernels' sources (runtime/compute/kernels/), compiled for a device: the program that has all of the provider's
 * kernels, and others of the same sources. */
#ifndef EXPERTD_RUNTIME_KERNEL_PROGRAM_H
#define EXPERTD_RUNTIME_KERNEL_PROGRAM_H

#include <stdint.h>

#include "runtime/device/opencl.h"

struct device;

/* Builds the provider's kernels into device->compute's program and kernels. */
int kernel_program_build(struct device *device);
void kernel_program_release(struct device *device);
/* Compiles sources by name (a list that NULL ends) for the device's shape, or takes them from the device's folder.
 * more_options: "", or "-D..." */
int kernel_program_compile(struct device *device, const char *const *sources, const char *more_options,
                           cl_program *program);
/* The compiler's option for what the device's weights are (runtime/compute/kernels/common.cl), behind a space; or "".
 */
const char *kernel_program_weights(const struct device *device);
/* Changes with the device, its driver, what its weights are and those sources. */
uint64_t kernel_program_hash(const struct device *device, const char *const *sources);

#endif
