/* An expert's parameters in device memory, with the optimizer's moments, and their conversion to named tensors.
 *
 * Weights live in panels (runtime/compute/kernels/common.cl) for their whole life, in two orientations: W (out, in) as
 * panels over out, [out / panel][in][panel], for the forward product, and as panels over in, [in / panel][out][panel],
 * for the backward one. The optimizer writes both. Everything elementwise (moments, gradients) has the first
 * orientation only, the "primary" part: matrices first, then vectors, each padded to whole panels with zeros, and last
 * the vectors that are fixed, of which there are neither moments nor gradients. What will
 * see no backward (backward: false) has the first orientation only.
 *
 * On a device whose shape says so (precision: fp16, bf16) the matrices are halves, or bfloat16, in both orientations,
 * in the same places. What trains has the primary part in fp32 besides, as masters that only the optimizer reads: from
 * one step to the next a weight moves by less than a half shows. They are what tensors and snapshots are of, so that a
 * restart loses nothing. What does not train has no masters; its tensors are the halves, widened. A weight of 65520 or
 * more becomes infinite in halves, and below 2^-14 they are multiples of 2^-24; bfloat16 has a float's range.
 *
 * With precision: int8, int4, fp8 or mxfp4 the matrices are blocks of scales and codes (runtime/compute/quantized.h)
 * that only what does not train can have; an element is a byte there, and floats that are written are rounded, in both
 * orientations to the same. */
#ifndef EXPERTD_RUNTIME_PARAMETERS_H
#define EXPERTD_RUNTIME_PARAMETERS_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/compute/quantized.h"
#include "runtime/train/training.h"

enum {
    PARAMETERS_MAX = 64,
    PARAMETER_NAME_SIZE = 68,
    PARAMETERS_RESULTS = 8, /* floats that an optimizer step reports */
};

enum parameter_init {
    PARAMETER_UNIFORM, /* uniform in +-1 / sqrt(fan_in): what PyTorch's nn.Linear makes of weight and bias */
    PARAMETER_XAVIER,  /* uniform in +-sqrt(6 / (in + out)): PyTorch's xavier_uniform_ */
    PARAMETER_ZERO,
    PARAMETER_ONE,
};

struct parameter {
    char name[PARAMETER_NAME_SIZE];
    uint64_t out;
    uint64_t in;   /* 0: a vector of `out` floats */
    uint64_t rows; /* of a vector: the tensor's, which is one of (rows, out / rows) if they are more than 1 */
    bool fixed;    /* a vector that has no gradient and no moments, and stays what it is */
    enum parameter_init init;
    uint64_t fan_in;
    /* Of two that a gated product reads in pairs (runtime/compute/linear.h): they are one matrix, or one vector, of
     * kernel_paired_columns() columns, this one's those with the number 2 c + `lane`. */
    bool paired;
    unsigned lane;    /* 0, of the one that was added first, or 1 */
    unsigned partner; /* of lane 1: the number of the other */
    /* Filled by parameters_layout; elements, each as large as the buffer's are. */
    uint64_t offset;     /* in the primary part */
    uint64_t transposed; /* in the buffer of transposed ones; of a matrix */
    uint64_t at;         /* in `matrices` or `vectors` below */
};

struct parameters {
    struct device *device;
    struct kernel_shape shape;
    struct parameter items[PARAMETERS_MAX]; /* in the order of the state_dict */
    unsigned count;
    uint64_t primary_floats;
    uint64_t trained_floats;                 /* of them: the fixed ones are the last */
    uint64_t matrices_weights;               /* elements of what kernels read as matrices */
    uint64_t transposed_weights;             /* the same once more, in the orientation that a backward reads */
    uint64_t vectors_offset, vectors_floats; /* all vectors, one behind the other */
    const char *moment_names[OPTIMIZER_MOMENTS_MAX];
    unsigned moments;
    bool trains;       /* else no gradients of parameters are made */
    bool forward_only; /* set before the layout: there are no transposed matrices, and no backward */
    bool accumulates;

    /* What kernels read; a matrix as kernel_shape.weight_bytes says, a vector as floats. Each is NULL if there are
     * none.
     */
    cl_mem matrices, vectors;
    cl_mem transposed; /* NULL of what is forward_only; a buffer of its own: devices have a bound for one, and a matrix
                          may take half of it */
    /* For the optimizer: the primary part, in fp32. It is `vectors`, too, and `matrices` unless these are halves. NULL
     * where nothing trains and they are. */
    cl_mem masters;
    cl_mem moment[OPTIMIZER_MOMENTS_MAX];
    cl_mem gradient;                   /* sums over batches; only if accumulates */
    float results[PARAMETERS_RESULTS]; /* written by the device while a backward is in flight */
};

/* Columns of the matrix that the parameter is, or is half of, in memory. */
uint64_t parameters_columns(const struct kernel_shape *shape, const struct parameter *item);
/* How many of them train, if any do. */
unsigned parameters_trained(const struct parameters *parameters);
/* Adds one to a layout that is being made. */
void parameters_add(struct parameters *parameters, const struct parameter *parameter);
/* Places what was added. */
void parameters_layout(struct parameters *parameters, const struct kernel_shape *shape,
                       const struct optimizer_settings *optimizer);
uint64_t parameters_bytes(const struct parameters *parameters); /* of all buffers */
/* Allocates the buffers, which hold zeros. */
int parameters_create(struct parameters *parameters, struct device *device);
/* Initialises the weights: value i of parameter p is a function of (seed, p, i) alone. */
int parameters_initialise(struct parameters *parameters, uint64_t seed);
void parameters_destroy(struct parameters *parameters);

/* After a step was made: the name of a parameter of which a value would have become NaN or infinite, and so stayed as
 * it was (runtime/compute/kernels/optimizer_cpu.cl), or of its partner's; NULL: there is none. */
const char *parameters_held(const struct parameters *parameters);

/* Value `i` of the stream that initialises parameter `index`: uniform in [-1, 1), a multiple of 2^-23. */
float parameters_random(uint64_t seed, unsigned index, uint64_t i);

/* What expert_tensor* and expert_snapshot* (runtime/blocks/expert.h) do, for the block that has these parameters. */
unsigned parameters_tensors(const struct parameters *parameters);
void parameters_tensor(const struct parameters *parameters, unsigned index, struct expert_tensor *tensor);
int parameters_read(struct parameters *parameters, unsigned index, float *values);
int parameters_write(struct parameters *parameters, unsigned index, const float *values);
/* The tensor is a matrix in blocks of scales and codes. Vectors, of one dimension or of rows, stay floats. */
bool parameters_is_quantized(const struct parameters *parameters, unsigned index);
/* Of such a one: as the format has it, which quantized_fits. */
int parameters_write_numbers(struct parameters *parameters, unsigned index, const struct quantized_numbers *numbers);
uint64_t parameters_snapshot_bytes(const struct parameters *parameters);
int parameters_snapshot(struct parameters *parameters, void *memory);
void parameters_snapshot_tensor(const struct parameters *parameters, const void *memory, unsigned index, float *values);

#endif
