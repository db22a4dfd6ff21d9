/* The search for the fastest tile (runtime/compute/tile.h) of each product on a device, at the start: the candidates
 * are measured by the clock, at the sizes of the experts that are created and at a row count of each class, in a
 * bounded time; what was found is kept for the next start (runtime/compute/tuning.h). config_device.tune and .tune_time
 * say whether and how long. Where nothing was found, tile_rule() chooses. */
#ifndef EXPERTD_RUNTIME_TUNER_H
#define EXPERTD_RUNTIME_TUNER_H

#include "runtime/device/device_private.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/tile.h"
#include "runtime/compute/tuning.h"

struct tuner {
    struct tile_kernels kernels;
    struct tuning tuning;
    char key[TUNING_KEY_BYTES];
    char path[DEVICE_PATH_SIZE + 32]; /* "": nothing is kept */
    uint64_t left_ns;                 /* of the time that searches may take */
    int forced;                       /* the tile that is being measured; TUNING_NONE */
    bool loaded;
    bool warm[TUNING_PRODUCTS][TILE_COUNT]; /* has been launched */
};

/* Makes the kernels of tile_rule()'s tiles, and reads what an earlier start found, into device->tuner. */
int tuner_open(struct device *device);
void tuner_close(struct device *device);
/* As linear_layer_prepare (runtime/compute/linear.h), which says what for. */
int tuner_prepare(struct device *device, uint64_t rows, const struct linear_size *sizes, unsigned count);
/* The grid of a forward product or a weight gradient, with the tile that is best as far as is known. */
void tuner_grid(const struct device *device, enum tuning_product product, uint64_t rows, uint64_t n, uint64_t k,
                struct kernel_grid *grid);

#endif
