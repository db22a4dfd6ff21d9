/* The linear layer's products on a device, with what surrounds them fused in.
 *
 * config_device.precision is that of a product's operands: activations, gradients and weights, each rounded to nearest
 * once. Sums of products are fp32, and so are the epilogues, LayerNorm, column sums and the optimizer.
 *   - tf32: activations, gradients and weights are rounded when they are read; in memory all of them are fp32.
 *   - fp16: weights are halves in memory, rounded when they are stored (runtime/train/parameters.h). Where there are
 * matrix units ("mma"), activations are rounded to fp16 when they are read. Gradients are often too small for that, so
 *     there products that multiply gradients are made in tf32, of which every half is a number. The other providers
 *     widen a weight when they read it and round nothing else.
 *   - bf16: the same of bfloat16, of which every one is a number of tf32 and of fp32; where there are matrix units,
 *     all products are made in tf32.
 *   - int8, int4, fp8, mxfp4: weights are codes of a few bits with scales (runtime/compute/weight_format.h), and what
 *     they stand for is multiplied as in fp32. On CPUs one row or two multiply sums of 32 products with the scales.
 *
 * With u = 2^-11 (tf32 and fp16 both have 11 significant bits), a sum of K products differs from the exact one by at
 * most
 *     (2u + u^2 + K 2^-22) * sum |a_i b_i|,
 * the last term being the sum's own rounding (matrix units cut where others round, and once more in each instruction);
 * where only the weights are rounded it is u in place of 2u + u^2 (and u is 2^-8 for weights in bf16), and where no
 * weight is multiplied, in a weight gradient, nothing. tf32 has fp32's range. fp16 has not: an activation that is
 * rounded to it, or a weight, of 65520 or more becomes infinite, and so (or NaN) the rows and gradients it goes into: a
 * backward that has such is not applied, as any that has. Below 2^-14 the error is absolute, up to 2^-25, which adds
 * 2^-25 * sum(|a_i| + |b_i|) to the bound; 2^-25 * sum |a_i| where b, the weights, alone is fp16, as in all products of
 * gradients.
 *
 * The matrix units of CPUs (provider "amx") have operands of 8 bits, of which an fp32 operand is the sum of three: a
 * sum of K products differs from the exact one by at most (2^-21 + K 2^-21) * sum |a_i b_i|, mostly by as little as any
 * in fp32; with weights in fp16, of what these have been rounded to. What is smaller than 2^-110 loses bits, as parts
 * below 2^-126 count as 0; an infinite operand gives NaN. */
#ifndef EXPERTD_RUNTIME_LINEAR_H
#define EXPERTD_RUNTIME_LINEAR_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/device/device.h"
#include "runtime/compute/kernel.h"

/* What is done with a sum before it is stored, in this order: the bias is added, the value kept, an activation applied
 * (gelu by tanh, relu, gelu by erf, silu: one at most), the value multiplied by an activation's derivative at `second`,
 * or by `second`, and `second` added. runtime/compute/kernels/common.cl has the same numbers. */
enum linear_flags {
    LINEAR_BIAS = 1,
    LINEAR_SAVE = 2,
    LINEAR_GELU = 4,
    LINEAR_GELU_GRAD = 8,
    LINEAR_ADD = 16,
    LINEAR_OUT_ROWS = 32,
    LINEAR_SECOND_ROWS = 64,
    LINEAR_RELU = 128,
    LINEAR_RELU_GRAD = 256,
    LINEAR_GELU_ERF = 512,
    LINEAR_GELU_ERF_GRAD = 1024,
    LINEAR_SILU = 2048,
    LINEAR_SILU_GRAD = 4096,
    LINEAR_MULTIPLY = 8192,
    LINEAR_GATED = 16384,      /* see struct linear_gate; with a bias, a value kept and an activation alone */
    LINEAR_TRANSPOSED = 32768, /* the weights are a transposed matrix's, which matters where they are quantized */
    LINEAR_TAKES_SECOND =
        LINEAR_GELU_GRAD | LINEAR_ADD | LINEAR_RELU_GRAD | LINEAR_GELU_ERF_GRAD | LINEAR_SILU_GRAD | LINEAR_MULTIPLY,
};

/* LINEAR_GATED: the columns of the sums are pairs, of a gate g and what it lets through, u, and of each pair one result
 * is made:
 *     activation(alpha min(g, limit)) / alpha * (max(min(u, limit), -limit) + shift),   alpha > 0, limit INFINITY for
 * none so that {INFINITY, 1, 0} is activation(g) u. A derivative's flag of the same activation goes along on the way
 * back (runtime/compute/rows.h). */
struct linear_gate {
    cl_float limit, alpha, shift;
};

/* out[rows][n] = epilogue(a[rows][k] * w); with LINEAR_GATED out has half as many columns, or fewer: n is
 * kernel_paired_columns() of them, and `save` a place in panels of n columns that is written whatever the flags say. */
struct linear_call {
    cl_int rows, n, k;
    unsigned flags; /* LINEAR_OUT_ROWS, _SECOND_ROWS and _TRANSPOSED are added from what follows */
    struct kernel_view a;
    bool of_gradient;        /* a holds gradients, and the weights are transposed ones */
    cl_mem weights;          /* panels over n: [n / panel][k][panel], of kernel_shape.weight_bytes each */
    cl_ulong weights_offset; /* counts weights */
    struct kernel_view out;  /* its buffer region is neither `second` nor `save` */
    cl_mem bias;             /* n floats, padded to whole panels */
    cl_ulong bias_offset;
    struct kernel_view second; /* of what LINEAR_TAKES_SECOND has */
    cl_mem save;               /* LINEAR_SAVE: the strides of out */
    cl_ulong save_offset;
    struct linear_gate gate; /* of LINEAR_GATED */
};

/* dw (+)= x^T dy, all three in panels: x[rows][k], dy[rows][n], dw as the weights lie above, but of floats. */
struct linear_gradient_call {
    cl_int rows, n, k;
    cl_int accumulate; /* 0: dw is overwritten */
    cl_mem x, dy, dw;
    cl_ulong x_offset, dy_offset, dw_offset;
};

/* A layer's k inputs and n outputs. */
struct linear_size {
    uint64_t n, k;
    bool frozen; /* nothing asks for the gradient of its weights */
};

enum {
    LINEAR_GROUP = 8,        /* calls of a group at most; runtime/compute/kernels/linear_group_cpu.cl has it, too */
    LINEAR_GROUP_ROWS = 128, /* of one of them, at most: with more it is as well launched alone */
};

/* How a provider makes products. */
struct linear_products {
    int (*forward)(struct device *device, const struct linear_call *call);
    /* As linear_layer_group; NULL: one launch for each. */
    int (*group)(struct device *device, const struct linear_call *calls, unsigned count);
    int (*gradient)(struct device *device, const struct linear_gradient_call *call);
    /* Either of these may be NULL. */
    int (*prepare)(struct device *device, uint64_t rows, const struct linear_size *sizes, unsigned count);
    uint64_t (*memory)(const struct device *device, uint64_t rows, const struct linear_size *sizes, unsigned count);
};

/* For experts that are being created: makes products and weight gradients of these sizes, of up to so many rows, ready,
 * so that none of them compiles or searches anything later. May take seconds at a size that is new to the device. The
 * workspace has been reserved; what it holds is lost. */
int linear_layer_prepare(struct device *device, uint64_t rows, const struct linear_size *sizes, unsigned count);

/* Bytes of the device's memory that this takes, for all experts together: those of the one that takes the most. */
uint64_t linear_layer_memory(const struct device *device, uint64_t rows, const struct linear_size *sizes,
                             unsigned count);

/* Enqueue on the device's provider. */
int linear_layer_forward(struct device *device, const struct linear_call *call);
/* The same of 1 to LINEAR_GROUP calls that differ in their rows and places alone, in as few launches as the provider
 * can make of them. What each gives is bit for bit what it gives by itself. None reads what another one writes. */
int linear_layer_group(struct device *device, const struct linear_call *calls, unsigned count);
/* Whether that is ever fewer launches than calls. */
bool linear_layer_groups(const struct device *device);
int linear_layer_gradient(struct device *device, const struct linear_gradient_call *call);
/* What providers whose kernels take the common arguments have as forward and gradient. */
int linear_launch_forward(struct device *device, const struct linear_call *call);
int linear_launch_gradient(struct device *device, const struct linear_gradient_call *call);

#endif
