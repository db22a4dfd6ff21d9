#include "runtime/compute/rows.h"

#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/provider.h"

int rows_pack(struct device *device, cl_int rows, cl_int columns, const struct device_rows *from,
              const struct device_rows *to)
{
    struct kernel_grid grid;
    provider_grid(device, KERNEL_PACK_ROWS, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),         KERNEL_ARGUMENT(columns),    KERNEL_ARGUMENT(from->buffer),
        KERNEL_ARGUMENT(from->offset), KERNEL_ARGUMENT(to->buffer), KERNEL_ARGUMENT(to->offset),
    };
    return kernel_launch(device, KERNEL_PACK_ROWS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int rows_column_sums(struct device *device, cl_int rows, cl_int columns, cl_int accumulate,
                     const struct device_rows *data, cl_mem sums, cl_ulong sums_offset)
{
    struct kernel_grid grid;
    provider_grid(device, KERNEL_COLUMN_SUMS, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),         KERNEL_ARGUMENT(columns),      KERNEL_ARGUMENT(accumulate),
        KERNEL_ARGUMENT(data->buffer), KERNEL_ARGUMENT(data->offset), KERNEL_ARGUMENT(sums),
        KERNEL_ARGUMENT(sums_offset),
    };
    return kernel_launch(device, KERNEL_COLUMN_SUMS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}
