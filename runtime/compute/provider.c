#include "runtime/compute/provider.h"

#include "runtime/device/device_private.h"

const char *provider_name(const struct device *device)
{
    return device->compute->provider->name;
}

const struct kernel_shape *provider_shape(const struct device *device)
{
    return &device->compute->shape;
}

void provider_grid(const struct device *device, enum kernel kernel, uint64_t rows, uint64_t n, uint64_t k,
                   struct kernel_grid *grid)
{
    device->compute->provider->grid(device, kernel, rows, n, k, grid);
}
