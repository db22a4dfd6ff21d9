/* An OpenCL device: how it is chosen, its context, queue and compiled kernels, its memory.
 *
 * One thread at a time may use a device, its slabs and its experts. Every fallible function returns 0 or -errno, and
 * device_error() then has the text for people, with the OpenCL error's name in it:
 *     -ENODEV  the device is lost; nothing on it will work again, the process should end with a clear message
 *     -ENOMEM  the device's memory does not hold it
 *     -EIO     any other OpenCL error; the device may go on with other work
 *     -ENXIO   there is no device as the configuration has it: it was never there, or is no more
 *     -EINVAL  the configuration asks for what the device cannot do
 * Nothing here aborts, and nothing logs but why a device could not be opened. */
#ifndef EXPERTD_RUNTIME_DEVICE_H
#define EXPERTD_RUNTIME_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "runtime/device/opencl.h"

enum device_class {
    DEVICE_CLASS_CPU,
    DEVICE_CLASS_INTEGRATED, /* a GPU that shares the host's memory: slabs are used in place, as on a CPU */
    DEVICE_CLASS_GPU,
    DEVICE_CLASS_ACCELERATOR,
};
const char *device_class_name(enum device_class class);

struct device_info {
    char platform[128];
    char name[128];
    char vendor[128];
    char driver[128];
    char pci[16];            /* "0000:65:00.0", as lspci -D has it; "": none, or the driver does not say */
    unsigned platform_index; /* what config_device.platform and .device may name */
    unsigned device_index;
    enum device_class class;
    uint64_t memory_bytes;         /* of the device, in all */
    uint64_t max_allocation_bytes; /* in one buffer */
    uint64_t local_memory_bytes;
    uint64_t cache_bytes; /* of its memory; 0: the driver does not say */
    unsigned compute_units;
    unsigned vector_width; /* native, in floats; 1 on most GPUs */
    bool fp16;
    bool unified_memory; /* with the host's: slabs are OpenCL buffers in place, unless config_device.slabs says else */
};

/* Everything the machine offers, in the platforms' order: a malloc'd array. No platform at all is 0 and *count == 0. */
int device_list(struct device_info **list, unsigned *count);

struct device; /* runtime/device/device_private.h, for the files that launch kernels */

/* Takes the device that `config` names (kept, not copied) and makes its context and queues; the cache of compiled
 * programs is <cache_dir>/<device name>. To launch kernels on it, open that too: runtime/compute/compute.h. Sets
 * POCL_CACHE_DIR, so it must run before the process's first OpenCL call to have an effect there, device_list included;
 * device_cache_prepare() does only that, for programs that list first. On failure *device is NULL and the message was
 * logged. */
int device_open(struct device **device, const struct config_device *config);
void device_destroy(struct device **device); /* after compute_close */
void device_cache_prepare(const struct config_device *config);
/* Before device_open: if the last start in that folder did not come as far as device_cache_settled, because it was
 * killed or the driver took the process along (files that a crash or a full disk has cut short), the folder is emptied
 * first. */
void device_cache_begin(const struct config_device *config);
void device_cache_settled(void);
/* After the last device_destroy: what the driver leaves half made is removed. */
void device_cache_end(void);
/* Before the process's first OpenCL call: lists the devices in a child process, and if that does not survive it, each
 * driver's in one of its own; those that end theirs are named in the log and left out from then on (OCL_ICD_VENDORS).
 * Drivers that came through it are not tried again while they stay what they are and every start comes through.
 * 0; -EINTR: a stop signal came meanwhile. */
int device_probe(void);

const struct device_info *device_info(const struct device *device);
const char *device_error(const struct device *device); /* of the last call that failed; "" before that */
bool device_is_lost(const struct device *device);
/* Rows are copied to the device and back; false: it computes on the slabs in place. */
bool device_stages_rows(const struct device *device);
uint64_t device_memory_used(const struct device *device);   /* bytes of buffers that this process made on it */
uint64_t device_memory_budget(const struct device *device); /* bytes that it may make */
/* So many bytes of experts (expert_memory's `own`) are going to be made, so that they are allocated together. */
void device_expect(struct device *device, uint64_t bytes, uint64_t experts);
/* After an error that did not say that the device is lost: whether it still does anything. Some drivers give their
 * context up and answer everything with the error of the last command. Waits for what is enqueued; if not, the device
 * is lost. */
bool device_answers(struct device *device);
/* Waits until everything enqueued is done. */
int device_finish(struct device *device);

/* One tensor of a pool: `bytes` of shared memory at `mapping` (page-aligned), wrapped once and used for life. Cheap to
 * make: the OpenCL buffer appears with the first batch that needs it, so thousands of idle pools cost nothing. The
 * memory must stay mapped until device_slab_unwrap, which must come before device_destroy. */
struct device_slab {
    void *mapping;
    size_t bytes;
    cl_mem buffer; /* NULL until it is needed; for ever on a device with its own memory, which stages rows instead */
};
void device_slab_wrap(struct device_slab *slab, void *mapping, size_t bytes);
void device_slab_unwrap(struct device_slab *slab); /* waits for no kernel: finish the pool's batches first */

/* Rows where kernels reach them. Rows of floats are reached by `offset`, rows of any other dtype by `offset_bytes`:
 * in place on a slab they may lie at any byte. */
struct device_rows {
    cl_mem buffer;
    cl_ulong offset;       /* in floats; rounded down where rows are none */
    cl_ulong offset_bytes; /* set by device_rows_in and device_rows_out (runtime/device/device_private.h) */
};

#endif
