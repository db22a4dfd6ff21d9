/* Launches of kernels on a device: behind a batch's uploads, if one is being enqueued (device_staging_begin). */
#ifndef EXPERTD_RUNTIME_KERNEL_LAUNCH_H
#define EXPERTD_RUNTIME_KERNEL_LAUNCH_H

#include "runtime/compute/kernel.h"

struct device;

/* Enqueues; does not wait. */
int kernel_launch(struct device *device, enum kernel kernel, const struct kernel_grid *grid,
                  const struct kernel_argument *arguments, unsigned count);
/* The same with kernels that are none of these; `name` is for the error. _shares: of a CPU device's, whose grid becomes
 * its last two arguments as runtime/compute/kernels/shares_cpu.cl says. */
int kernel_launch_shares(struct device *device, cl_kernel object, const char *name, const struct kernel_grid *grid,
                         const struct kernel_argument *arguments, unsigned count);
int kernel_launch_object(struct device *device, cl_kernel object, const char *name, const struct kernel_grid *grid,
                         const struct kernel_argument *arguments, unsigned count);

#endif
