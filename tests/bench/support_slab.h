/* Rows as a pool's slab has them, of memory of the program's own. */
#ifndef EXPERTD_BENCH_SUPPORT_SLAB_H
#define EXPERTD_BENCH_SUPPORT_SLAB_H

#include "runtime/device/device_private.h"

/* So many numbers from -1 to 1, page by page. Ends the program where there is no memory. */
struct device_slab make_slab(size_t floats);
void drop_slab(struct device_slab *slab);

#endif
