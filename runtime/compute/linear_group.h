/* Groups of products for the providers of CPU devices: one launch of runtime/compute/kernels/linear_group_cpu.cl, or of
 * a kernel like it. */
#ifndef EXPERTD_RUNTIME_LINEAR_GROUP_H
#define EXPERTD_RUNTIME_LINEAR_GROUP_H

#include "runtime/compute/linear.h"

/* When the device's program is built: tries a group, and lets there be groups where it gives what it should. The kernel
 * finds the members' memory by its address, which no driver has promised that does not share system memory. 0, or the
 * error of a device that does nothing else either. */
int linear_group_open(struct device *device);
/* As linear_layer_group, by `object`, a kernel of linear_group's arguments; NULL: by itself. Calls that the kernel is
 * not for are launched by themselves: those with many rows, and those of matrices in panels. */
int linear_group_launch(struct device *device, cl_kernel object, const struct linear_call *calls, unsigned count);

#endif
