/* Rows between the two layouts, and sums over them, on a device. They enqueue and do not wait. */
#ifndef EXPERTD_RUNTIME_ROWS_H
#define EXPERTD_RUNTIME_ROWS_H

#include "runtime/device/device_private.h"

/* Row-major rows into panels, pad columns 0. */
int rows_pack(struct device *device, cl_int rows, cl_int columns, const struct device_rows *from,
              const struct device_rows *to);
/* sums[column] (+)= the sum over rows of `data`, which is in panels; the sums are padded to whole panels. */
int rows_column_sums(struct device *device, cl_int rows, cl_int columns, cl_int accumulate,
                     const struct device_rows *data, cl_mem sums, cl_ulong sums_offset);

#endif
