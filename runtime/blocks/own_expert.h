/* Own experts: a block with kernels of its own, as a shared object beside its OpenCL source. An expert's option `block`
 * is then the object's path.
 *
 * The object exports
 *     const struct own_expert own_expert = OWN_EXPERT(&block);
 * where `block` is a declaration (common/block.h), some of whose layers are of kinds of its own: what may be said of
 * one is a struct block_kind in block.kinds, whose `implementation` (runtime/layers/layer.h) adds steps to plans
 * (runtime/layers/plan.h). Everything else is the engine's, as of a block that is made of known layers. The object is
 * compiled against the headers of the runtime that loads it. examples/own_expert/ is one, whole.
 *
 * A launcher enqueues and does not wait; errors are 0 or -errno. Its kernels read a parameter where
 * runtime/train/parameters.h says: a vector at its `at` of run->parameters->vectors, a matrix at its `at` of `matrices`
 * and at its `transposed` of `transposed`. On a device with precision: fp16 (bf16) both of these hold halves
 * (bfloat16), so kernels that read them must know both (-DHALF_WEIGHTS); linear_layer_forward does. Gradients of
 * parameters are floats, at plan_parameter_gradient of plan_workspace, whatever the precision; they are written by a
 * batch's first chunk and added to by the others (run->accumulate), padding and all. The runtime's one thread calls
 * everything. */
#ifndef EXPERTD_RUNTIME_OWN_EXPERT_H
#define EXPERTD_RUNTIME_OWN_EXPERT_H

#include <stdint.h>

#include "runtime/blocks/abi.h" /* made by the build */
#include "runtime/compute/kernel.h"
#include "runtime/layers/layer.h"

enum { OWN_EXPERT_ABI = 5 };

struct own_expert {
    uint32_t abi;
    uint32_t version_bytes; /* of the text that follows */
    uint64_t headers;       /* a hash of all headers that it can be compiled against: one made for others is refused */
    const char *version;    /* of expertd, likewise */
    const struct block *block;
};
#define OWN_EXPERT(declaration)                                                                                        \
    {                                                                                                                  \
        OWN_EXPERT_ABI, sizeof EXPERTD_VERSION, OWN_EXPERT_HEADERS_HASH, EXPERTD_VERSION, (declaration)                \
    }

/* --- for the object --------------------------------------------------------------------------------------------------
 */

/* What the object exports. */
extern const struct own_expert own_expert __attribute__((visibility("default")));

/* struct block_kind's `shape` of what works element by element: the result has the shape of the one value that is read.
 */
static inline int own_shape_of_operand(const struct block_node *node, const struct block_value *values,
                                       struct tensor_desc *result, char problem[BLOCK_PROBLEM_SIZE])
{
    (void)problem;
    *result = values[node->operands[0]].desc;
    return 0;
}

/* Exports the block that is one layer of the kind (struct block_kind): rows of hidden_dim floats go in, and come out.
 * A block of more layers has its own tables (struct block), and `own_expert` as above. */
#define OWN_EXPERT_OF_LAYER(name_, description_, kind_)                                                                \
    static const struct block_kind *const own_kinds[] = {&(kind_), NULL};                                              \
    static const struct block_input own_inputs[] = {                                                                   \
        {.name = "input", .dtype = DTYPE_FLOAT32, .shape = {"hidden_dim"}, .ndim = 1}};                                \
    static const struct block_layer own_layers[] = {                                                                   \
        {.name = (name_), .kind = (name_), .operands = {"input"}, .operands_count = 1}};                               \
    static const struct block_output own_outputs[] = {{.name = "output", .value = (name_)}};                           \
    static const struct block own_block = {.name = (name_),                                                            \
                                           .description = (description_),                                              \
                                           .inputs = own_inputs,                                                       \
                                           .inputs_count = 1,                                                          \
                                           .layers = own_layers,                                                       \
                                           .layers_count = 1,                                                          \
                                           .outputs = own_outputs,                                                     \
                                           .outputs_count = 1,                                                         \
                                           .kinds = own_kinds};                                                        \
    const struct own_expert own_expert = OWN_EXPERT(&own_block)

/* Enqueues the kernel of that name of <folder of the object>/<file>, which is compiled when it is first asked for (an
 * expert's warm-up), with -DVEC=n, -DPANEL=n and, where matrices are of halves, -DHALF_WEIGHTS as the device's own
 * kernels are. (A vector of parameters is padded with zeros to whole panels of PANEL floats.) */
int own_kernel_launch(struct device *device, const struct own_expert *own, const char *file, const char *kernel,
                      const struct kernel_grid *grid, const struct kernel_argument *arguments, unsigned count);

/* --- for the engine --------------------------------------------------------------------------------------------------
 */

/* The declaration of the object at `path`, which stays loaded; NULL after it logged why not. */
const struct block *own_expert_find(const char *path);
/* What was compiled for the device is kept between the two; they are counted. */
void own_programs_use(struct device *device);
void own_programs_drop(struct device *device);

#endif
