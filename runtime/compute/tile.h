/* The tiles that the products of runtime/compute/kernels/linear_gpu.cl and linear_mma.cl can be built for, and a
 * device's kernels for each. Matrix units make a work-item's number of sums, but spread otherwise over a warp's.
 *
 * Which is the fastest is a matter of the device and of the product's size: runtime/compute/tuner.h finds it out.
 * Without that, tile_rule() chooses among three. All give the same results, bit by bit. */
#ifndef EXPERTD_RUNTIME_TILE_H
#define EXPERTD_RUNTIME_TILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/device/device.h"
#include "runtime/compute/kernel.h"

struct tile {
    const char *name;               /* "<rows>x<columns>-<row_sums>x<column_sums>-<slab>-<stages>" */
    unsigned rows, columns;         /* of the output that a work-group makes */
    unsigned row_sums, column_sums; /* of it, that a work-item makes */
    unsigned slab;                  /* columns of the contraction that are in local memory at a time */
    unsigned stages;                /* slabs in local memory: 2 need one barrier for each, not two */
};

enum {
    TILE_FEW_ROWS,   /* the three of tile_rule() */
    TILE_OF_PROGRAM, /* what the device's program has, so that it is there without a program of its own */
    TILE_LARGE,
    TILE_COUNT = 17,
};
extern const struct tile tile_list[TILE_COUNT];

/* The tile of that name, which need not end with a NUL; -ENOENT. */
int tile_find(const char *name, size_t length);
unsigned tile_group(const struct tile *tile);     /* work-items */
size_t tile_local_bytes(const struct tile *tile); /* of local memory for a group */
/* Worth a measurement for an output of that many rows: neither mostly empty nor tiny beside it. */
bool tile_suits(const struct tile *tile, uint64_t rows);
/* The largest of three that still gives every compute unit one. */
unsigned tile_rule(const struct device_info *info, uint64_t rows, uint64_t columns);

/* A device's kernels, built when they are asked for. */
struct tile_of {
    cl_program program; /* NULL for TILE_OF_PROGRAM, as its kernels are */
    cl_kernel linear, weight_gradient;
    /* Where the provider builds products of gradients otherwise; weight_gradient is then from here, too. */
    cl_program gradient_program;
    cl_kernel of_gradient;
    bool refused; /* the device cannot have it */
};
struct tile_kernels {
    struct tile_of of[TILE_COUNT];
};
/* What a tile is built from: of the provider's sources, the first two. NULL ends. */
void tile_sources(const struct device *device, const char *sources[3]);
/* Makes a tile's kernels, if they are not there yet. -ENOTSUP, without a message: the device cannot run them. */
int tile_build(struct tile_kernels *kernels, struct device *device, unsigned tile);
static inline bool tile_is_built(const struct tile_kernels *kernels, unsigned tile)
{
    return tile == TILE_OF_PROGRAM || kernels->of[tile].linear != NULL;
}
void tile_release(struct tile_kernels *kernels);
/* The grid for an output of rows by columns; `kernel` KERNEL_LINEAR or KERNEL_WEIGHT_GRADIENT. The tile was built. */
void tile_grid(const struct tile_kernels *kernels, unsigned tile, enum kernel kernel, uint64_t rows, uint64_t columns,
               struct kernel_grid *grid);

#endif
