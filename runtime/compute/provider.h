/* A provider of kernels: one way to compute on a class of devices (a GPU kernel on a CPU device is a disaster, and the
 * reverse). It says which sources make the kernels of runtime/compute/kernel.h, with which options and for which shape
 * of panels they are built, and on which grid each is launched. What it does for products besides is the linear layer's
 * (runtime/compute/linear.h). Which one a device has, runtime/compute/compute.h decides. */
#ifndef EXPERTD_RUNTIME_PROVIDER_H
#define EXPERTD_RUNTIME_PROVIDER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/device/device.h"
#include "runtime/compute/kernel.h"

struct tile;
struct tuner;
struct clblast;
struct amx;
struct linear_products;

struct kernel_provider {
    const char *name;
    bool shares;                /* a launch is a work-item for each core, which take the grid's shares:
                                   runtime/compute/kernels/shares_cpu.cl */
    bool groups;                /* there is KERNEL_LINEAR_GROUP: runtime/compute/linear_group.h */
    const char *const *sources; /* of runtime/compute/kernels/, in order; NULL ends */
    bool no_gradient_kernel;    /* no product needs KERNEL_WEIGHT_GRADIENT, and the sources have none */
    /* 0, or -EINVAL with the error for people where the device has not what the provider or the precision needs; NULL:
     * nothing. Only "mma" is asked about tf32. */
    int (*check)(struct device *device);
    const char *(*options)(const struct device *device); /* more of them for the compiler; NULL: none */
    /* The same for products that multiply gradients, where those are built otherwise; NULL, or NULL as an answer. */
    const char *(*gradient_options)(const struct device *device);
    /* Whether its products can be built for the tile (runtime/compute/tile.h); NULL: for any that fits the device. */
    bool (*takes)(const struct device *device, const struct tile *tile);
    void (*shape)(const struct device_info *info, struct kernel_shape *shape); /* all but weight_bytes */
    /* How to launch a kernel over a matrix of rows by n columns (k of them contracted, where that matters). */
    void (*grid)(const struct device *device, enum kernel kernel, uint64_t rows, uint64_t n, uint64_t k,
                 struct kernel_grid *grid);
    int (*open)(struct device *device);     /* when its program is built; NULL: nothing */
    void (*close)(struct device *device);   /* also after an open that failed, or none; NULL: nothing */
    const struct linear_products *products; /* NULL: this program was built without */
};

enum {
    /* compute.control: what runs in the optimizer's kernels, then two constants
       (runtime/compute/kernels/optimizer_*.cl). */
    PROVIDER_CONTROL_OPEN = 12,
    PROVIDER_CONTROL_CLOSED = 16,
    PROVIDER_CONTROL_FLOATS = 20,
    PROVIDER_PARTIALS = 1024,
};

/* What is open on a device to launch kernels: device->compute. */
struct compute {
    const struct kernel_provider *provider;
    struct kernel_shape shape;
    cl_program program;
    cl_kernel kernels[KERNEL_COUNT];
    bool groups;              /* its products can be launched together */
    cl_mem shares;            /* two counters: runtime/compute/kernels/shares_cpu.cl */
    cl_mem control, partials; /* of the optimizer: PROVIDER_CONTROL_FLOATS and PROVIDER_PARTIALS */
    /* Of the providers that have them; NULL. */
    struct tuner *tuner;
    struct clblast *clblast;
    struct amx *amx;
};

/* What config_device.linear_kernel "auto" became: "cpu", "gpu", ... */
const char *provider_name(const struct device *device);
/* For which panels the device's kernels are built, and what weights are: the provider's, and config_device.precision's.
 */
const struct kernel_shape *provider_shape(const struct device *device);
void provider_grid(const struct device *device, enum kernel kernel, uint64_t rows, uint64_t n, uint64_t k,
                   struct kernel_grid *grid);

#endif
