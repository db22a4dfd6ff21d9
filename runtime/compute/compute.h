/* Opens a device for kernels: chooses the provider (runtime/compute/provider.h), builds its kernels, and has it make
 * ready what it keeps (tiles, what a search for them found, split operands, a library). All of that hangs on
 * device->compute. */
#ifndef EXPERTD_RUNTIME_COMPUTE_H
#define EXPERTD_RUNTIME_COMPUTE_H

#include "runtime/device/device.h"

/* Chooses by config_device.linear_kernel ("auto": by the precision and what the device has), and says in the log what
 * it took. The errors of runtime/device/device.h; -EINVAL also for a linear_kernel that there is not, or that the
 * device or the precision cannot have. The message was logged, and is device_error's; the device is open as before. */
int compute_open(struct device *device);
/* Waits for what is enqueued. Before device_destroy; nothing to do for NULL, or where compute is not open. */
void compute_close(struct device *device);

struct kernel_provider;
/* Which one compute_open takes, by config_device; NULL for a linear_kernel that there is not. */
const struct kernel_provider *compute_find_provider(struct device *device);
/* For tests that change what the device is said to have: the shape that its kernels are built for. */
void compute_set_shape(struct device *device);

#endif
