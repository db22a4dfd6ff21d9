/* The OpenCL sources, embedded in the program by scripts/embed-kernels. */
#ifndef EXPERTD_RUNTIME_KERNELS_H
#define EXPERTD_RUNTIME_KERNELS_H

#include <stddef.h>

struct kernel_source {
    const char *name; /* of runtime/compute/kernels/<name>.cl */
    const char *text; /* NUL-terminated */
    size_t length;    /* without the NUL */
};
extern const struct kernel_source kernel_sources[]; /* name NULL ends */

#endif
