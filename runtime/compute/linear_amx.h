/* What the provider for CPUs with matrix units keeps of a device. */
#ifndef EXPERTD_RUNTIME_LINEAR_AMX_H
#define EXPERTD_RUNTIME_LINEAR_AMX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/device/opencl.h"

enum amx_kernel {
    AMX_LINEAR,
    AMX_WEIGHT_GRADIENT,
    AMX_SPLIT_ROWS,
    AMX_SPLIT_COLUMNS,
    AMX_FEW, /* of bfloat16 alone, from here on */
    AMX_FEW_GROUP,
    AMX_KERNELS
};

struct amx {
    bool emulated;       /* in plain OpenCL: for tests where there are no such units, and very slow */
    bool undecided;      /* whether they are faster is measured when the first expert that has products is made */
    uint64_t least_rows; /* of a product, for the units; one of fewer is runtime/compute/kernels/linear_cpu.cl's */
    cl_kernel kernels[AMX_KERNELS];
    cl_mem planes; /* of a product's left operand; one for all, as the queue is in order */
    size_t planes_bytes;
};

enum {
    AMX_VECTOR_WIDTH = 16,     /* what a processor that has the units tells */
    AMX_LEAST_ROWS = 32,       /* fewer are never faster: w must be split for them all the same */
    AMX_LEAST_BFLOAT_ROWS = 5, /* a tile that is not full costs what reading the weights does */
    AMX_RULE_ROWS = 256,       /* what least_rows is of other weights, where nobody says that they are to be used */
};

/* Whether this process may use the units: the processor has them, the kernel keeps them for it, and its threads have
 * stacks of 2 MiB or more. */
bool linear_amx_usable(void);

#endif
