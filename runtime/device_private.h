/* The inside of struct device, for the files of this folder that launch kernels. Others use runtime/device.h. */
#ifndef EXPERTD_RUNTIME_DEVICE_PRIVATE_H
#define EXPERTD_RUNTIME_DEVICE_PRIVATE_H

#include "runtime/device.h"
#include "runtime/kernel.h"

struct linear_provider;
struct tuner;

enum {
    DEVICE_STAGING_SLOTS = 2,
    DEVICE_PATH_SIZE = 1024,
    /* device->control: what runs in the optimizer's kernels, then two constants (runtime/kernels/optimizer_*.cl). */
    DEVICE_CONTROL_OPEN = 12,
    DEVICE_CONTROL_CLOSED = 16,
    DEVICE_CONTROL_FLOATS = 20,
    DEVICE_PARTIALS = 1024,
};

/* Rows of one batch on a device that cannot see the slabs. */
struct device_staging {
    cl_mem buffer;
    size_t bytes, used;
    bool in_flight;
};

struct device {
    struct device_info info;
    const struct config_device *config;
    cl_device_id id;
    cl_context context;
    cl_command_queue queue; /* in order */
    const struct linear_provider *provider;
    struct kernel_shape shape;
    struct tuner *tuner; /* of providers that have one; NULL */
    cl_program program;
    cl_kernel kernels[KERNEL_COUNT];

    bool staged; /* rows are copied to the device and back; false: slabs are OpenCL buffers */
    struct device_staging staging[DEVICE_STAGING_SLOTS];
    unsigned next_slot;

    cl_mem workspace; /* shared by all experts: the queue is in order */
    size_t workspace_bytes;
    cl_mem shares;            /* two counters: runtime/kernels/shares_cpu.cl */
    cl_mem control, partials; /* of the optimizer: DEVICE_CONTROL_FLOATS and DEVICE_PARTIALS */
    uint64_t memory_used;
    char cache_path[DEVICE_PATH_SIZE]; /* "": no folder could be had */
    bool keeps_binaries;               /* compiled kernels go there; not PoCL's, which keeps its own there */
    bool lost;
    char error[512];
};

/* Notes "what: CL_ERROR_NAME" as the device's error and returns the errno for it. */
int device_fail(struct device *device, cl_int error, const char *what);
/* Notes a message that is no OpenCL error, and returns `result`. */
int device_complain(struct device *device, int result, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A zeroed buffer, its pages touched. `what` names it in the error. -ENOMEM if the device's budget does not hold it. */
int device_allocate(struct device *device, size_t bytes, const char *what, cl_mem *buffer);
void device_release(struct device *device, cl_mem *buffer);
/* Makes the workspace at least this large. */
int device_reserve_workspace(struct device *device, size_t bytes);
int device_reserve_staging(struct device *device, size_t bytes);
/* Blocking copies. */
int device_read(struct device *device, cl_mem buffer, size_t offset_bytes, void *to, size_t bytes);
int device_write(struct device *device, cl_mem buffer, size_t offset_bytes, const void *from, size_t bytes);

/* Rows where kernels reach them: `offset` counts floats. */
struct device_rows {
    cl_mem buffer;
    cl_ulong offset;
};
/* Takes a slot for a batch; -EBUSY when all are in flight. Nothing to do, and slot 0, on a device that sees the slabs.
 */
int device_staging_begin(struct device *device, unsigned *slot);
/* Bytes of a slab for the kernels to read (enqueues the copy), or to write. */
int device_rows_in(struct device *device, unsigned slot, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                   struct device_rows *rows);
int device_rows_out(struct device *device, unsigned slot, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                    struct device_rows *rows);
/* Enqueues the copy of what the kernels wrote back into the slab. */
int device_rows_done(struct device *device, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                     const struct device_rows *rows);
void device_staging_end(struct device *device, unsigned slot);
/* Gives the slot of a batch back that could not be enqueued whole, when what was enqueued is done with it. */
void device_staging_abort(struct device *device, unsigned slot);

/* An event that is complete when all that is enqueued now is; starts the device on it. */
int device_mark(struct device *device, cl_event *done);
/* Waits for it, releases it; the error of a command before it. NULL: nothing to wait for. */
int device_wait(struct device *device, cl_event *done);

/* <cache_dir>/<device name>, locked for this process; sets POCL_CACHE_DIR. Fills path, "" if there is none. */
void device_cache_open(const struct config_device *config, char path[DEVICE_PATH_SIZE]);
/* Builds the provider's kernels into device->program and device->kernels. */
int device_program_build(struct device *device);
/* Compiles sources of runtime/kernels/ (a list that NULL ends) for the device's shape, or takes them from its folder.
 * more_options: "", or "-D..." */
int device_program_compile(struct device *device, const char *const *sources, const char *more_options,
                           cl_program *program);
/* Changes with the device, its driver and those sources. */
uint64_t device_program_hash(const struct device *device, const char *const *sources);
/* Fills info and *id with what the configuration names. */
int device_choose(const struct config_device *config, struct device_info *info, cl_device_id *id);

#endif
