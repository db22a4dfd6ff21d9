/* Own experts: a block that is none of ours, as a shared object beside its OpenCL source. An expert's option `block` is
 * then the object's path (with a '/' in it).
 *
 * The object exports
 *     const struct own_expert own_expert = OWN_EXPERT(&ops);
 * where `ops` is its operations table (runtime/blocks/expert.h), and is compiled against the headers of the runtime
 * that loads it, of which it may call everything: runtime/device/device_private.h for buffers and rows,
 * runtime/compute/provider.h for the shape of panels, runtime/train/parameters.h and runtime/train/optimizer_step.h for
 * what is trained, runtime/compute/linear.h for products. examples/own_expert/ is one, whole.
 *
 * What it is to keep to is what runtime/blocks/expert.h says of a block: the runtime's thread calls it, a batch is
 * enqueued without waiting for it, errors are 0 or -errno with device_complain's text.
 *
 * Its kernels read a parameter where runtime/train/parameters.h says: a vector at its `at` of `vectors`, a matrix at
 * its `at` of `matrices` and at its `transposed` of `transposed`. On a device with precision: fp16 both of these hold
 * halves, so kernels of its own that read them must know both (-DHALF_WEIGHTS); linear_layer_forward does. Gradients
 * are at `offset`, as floats, whatever the precision. */
#ifndef EXPERTD_RUNTIME_OWN_EXPERT_H
#define EXPERTD_RUNTIME_OWN_EXPERT_H

#include <stdint.h>

#include "runtime/blocks/expert.h"
#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"

enum { OWN_EXPERT_ABI = 3 };

struct own_expert {
    uint32_t abi;
    uint32_t ops_bytes, expert_bytes, device_bytes; /* sizes, so that an object made for other headers is refused */
    const char *version;                            /* of expertd, likewise */
    const struct expert_ops *ops;
};
#define OWN_EXPERT(table)                                                                                              \
    {                                                                                                                  \
        OWN_EXPERT_ABI, sizeof(struct expert_ops), sizeof(struct expert), sizeof(struct device), EXPERTD_VERSION,      \
            (table)                                                                                                    \
    }

/* The operations of the object at `path`, which stays loaded; NULL after it logged why not. */
const struct expert_ops *own_expert_find(const char *path);

/* --- for the object: its kernels -------------------------------------------------------------------------------------
 */

struct own_program;

/* Compiles <folder of the object that has the table `ops`>/<file>, with -DVEC=n, -DPANEL=n and, where matrices
 * are of halves, -DHALF_WEIGHTS as the device's own kernels are (a vector of parameters is padded with zeros to whole
 * panels of PANEL floats). Experts of one device that
 * open the same file share it. */
int own_program_open(struct own_program **program, struct device *device, const struct expert_ops *ops,
                     const char *file);
void own_program_close(struct own_program **program);
/* Enqueues the kernel of that name; does not wait. */
int own_program_launch(struct own_program *program, const char *kernel, const struct kernel_grid *grid,
                       const struct kernel_argument *arguments, unsigned count);

#endif
