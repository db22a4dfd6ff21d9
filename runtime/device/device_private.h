/* The inside of struct device, for the files of this folder that launch kernels. Others use runtime/device/device.h. */
#ifndef EXPERTD_RUNTIME_DEVICE_PRIVATE_H
#define EXPERTD_RUNTIME_DEVICE_PRIVATE_H

#include "common/failpoint.h"
#include "runtime/device/device.h"

struct compute; /* of who launches kernels on it: runtime/compute/provider.h */

enum {
    DEVICE_STAGING_SLOTS = 2,
    DEVICE_TRANSFERS_MAX = 272, /* of one batch each way: 16 tensors in 16 pieces, and what is fetched besides */
    DEVICE_PATH_SIZE = 1024,
};

/* A piece on its way from the device: when `event` is complete, it is at `offset` of the pinned memory. */
struct device_download {
    cl_event event;
    char *to; /* where the batch wants it */
    size_t offset, bytes;
};

/* One batch on a device that cannot see the slabs (runtime/device/device_staging.c). */
struct device_staging {
    cl_mem buffer; /* on the device */
    cl_mem locked; /* as large, in the host's memory, where the device's copy engines reach it */
    char *pinned;  /* `locked`, mapped for life */
    size_t bytes, used;
    bool in_flight;
    bool launched; /* a kernel, since `ended` */
    bool gated;    /* kernels wait for `first`: they write what outlives the batch */
    cl_event uploads[DEVICE_TRANSFERS_MAX];
    struct device_download downloads[DEVICE_TRANSFERS_MAX];
    unsigned uploads_count, downloads_count;
    cl_event first; /* the batch's first kernel, which waits for the uploads */
    cl_event ended; /* all of its kernels */
    cl_event done;  /* everything; the batch's own, by which device_wait finds the slot */
};

/* A large buffer that is given away in parts (runtime/device/device_arena.c). */
struct device_block {
    cl_mem buffer;
    size_t bytes, used;
    unsigned parts;
};

struct device {
    struct device_info info;
    const struct config_device *config;
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;                        /* in order; computes */
    cl_command_queue upload_queue, download_queue; /* in order; NULL on a device that sees the slabs */
    struct compute *compute;                       /* NULL: opened by nobody yet */

    bool staged; /* rows are copied to the device and back; false: slabs are OpenCL buffers */
    struct device_staging staging[DEVICE_STAGING_SLOTS];
    struct device_staging *current; /* whose batch is being enqueued: from device_staging_begin to device_mark */
    unsigned next_slot;
    size_t staging_bytes;  /* what each slot is to have */
    struct copier *copier; /* between slabs and slots; NULL on a device that sees the slabs */

    cl_mem workspace; /* shared by all experts: the queue is in order */
    size_t workspace_bytes;
    cl_mem pulse; /* a float, for device_answers to ask for */
    uint64_t memory_used;
    struct device_block *blocks;
    unsigned blocks_count;
    uint64_t expected_bytes;           /* that parts of blocks are still to take: device_expect */
    char cache_path[DEVICE_PATH_SIZE]; /* "": no folder could be had */
    bool keeps_binaries;               /* compiled kernels go there; not PoCL's, which keeps its own there */
    bool lost;
    char error[512];
};

/* Notes "what: CL_ERROR_NAME" as the device's error and returns the errno for it. */
int device_fail(struct device *device, cl_int error, const char *what);
/* What a driver answers for a device that is lost, where a test wants this one to be (common/failpoint.h). */
static inline cl_int device_point(const struct device *device)
{
    return FAILPOINT_OF("device.lost", device->config->name) ? CL_DEVICE_NOT_AVAILABLE : CL_SUCCESS;
}
/* Notes a message that is no OpenCL error, and returns `result`. */
int device_complain(struct device *device, int result, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A zeroed buffer, its pages touched. `what` names it in the error. -ENOMEM if the device's budget does not hold it. */
int device_allocate(struct device *device, size_t bytes, const char *what, cl_mem *buffer);
void device_release(struct device *device, cl_mem *buffer);
/* Where a buffer, or that over a slab, lies in this process: kernels of a CPU device find it there. NULL elsewhere. */
void *device_address(const struct device *device, cl_mem buffer);
/* Zeroes all of a buffer; waits for it. */
int device_zero(struct device *device, size_t bytes, const char *what, cl_mem buffer);
/* The same as part of a large buffer, so that thousands of experts are a few allocations; for what lives as long as an
 * expert. On a CPU a buffer of its own: there it is only a mapping. */
int device_allocate_part(struct device *device, size_t bytes, const char *what, cl_mem *buffer);
void device_release_part(struct device *device, cl_mem *buffer);
/* Makes a buffer at least this large; what it held is lost. On failure it is as large as before. */
int device_reserve(struct device *device, size_t bytes, const char *what, cl_mem *buffer, size_t *buffer_bytes);
/* Make the workspace, or each batch's room for rows on a device that does not see the slabs, at least this large. On
 * failure they are as large as before, for those that need no more; so a batch may call them. */
int device_reserve_workspace(struct device *device, size_t bytes);
int device_reserve_staging(struct device *device, size_t bytes);
/* What device_reserve_staging(device, bytes) takes in all. */
uint64_t device_staging_memory(const struct device *device, size_t bytes);
/* Blocking copies. */
int device_read(struct device *device, cl_mem buffer, size_t offset_bytes, void *to, size_t bytes);
int device_write(struct device *device, cl_mem buffer, size_t offset_bytes, const void *from, size_t bytes);

/* A batch is enqueued between device_staging_begin and device_mark, one at a time; device_wait comes later.
 *
 * On a device that sees the slabs its kernels work on them in place. On any other one there are a queue for uploads,
 * one for kernels and one for downloads, so that the next batch arrives and the last one leaves while one computes: the
 * first kernel of a batch waits for its uploads, a download for the kernels before it. Kernels that must not run on
 * rows that never came, because what they write outlives the batch, are enqueued behind device_gate. What enqueues
 * its commands itself asks device_staging_launch first, or its first one does not wait for the rows. Nothing here waits
 * for the device but device_wait and device_staging_abort.
 *
 * -EAGAIN, of what enqueues and of device_wait, says that a command failed before a kernel of the batch ran: its own
 * upload, or something of the batch before it, which takes those behind it along on some devices. The batch may be
 * enqueued again. */

/* Takes a slot for a batch; -EBUSY when all are in flight. Nothing to do, and slot 0, on a device that sees the slabs.
 */
int device_staging_begin(struct device *device, unsigned *slot);
/* Bytes of a slab for the kernels to read (enqueues the copy), or to write. */
int device_rows_in(struct device *device, unsigned slot, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                   struct device_rows *rows);
int device_rows_out(struct device *device, unsigned slot, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                    struct device_rows *rows);
/* Enqueues the copy of what the kernels wrote back into the slab, where it is after device_wait. */
int device_rows_done(struct device *device, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                     const struct device_rows *rows);
/* The kernels that are enqueued from here on run only if the batch's first one did. */
int device_gate(struct device *device);
/* A few bytes that the kernels before it wrote: at `to` after device_wait. At most 256 of a batch in all. */
int device_fetch(struct device *device, cl_mem buffer, size_t offset_bytes, void *to, size_t bytes);
/* An event that is complete when all of the batch is (on a device that sees the slabs: all that is enqueued now);
 * starts the device on it. */
int device_mark(struct device *device, cl_event *done);
/* Waits for it, releases it; the error of a command of the batch. NULL: nothing to wait for. */
int device_wait(struct device *device, cl_event *done);
bool device_is_done(cl_event done); /* or failed; does not wait */
/* Gives the slot back after device_wait. */
void device_staging_end(struct device *device, unsigned slot);
/* Gives the slot of a batch back that could not be enqueued whole, when what was enqueued is done with it. */
void device_staging_abort(struct device *device, unsigned slot);
/* What the batch's next kernel waits for, and where its event goes if it is the first: for kernel_launch, and for what
 * enqueues kernels without it. */
int device_staging_launch(struct device *device, cl_uint *count, const cl_event **events, cl_event **event);

/* Compiles the texts, one behind the other, with the compiler's options; or takes what it made of them from the
 * device's folder. */
int device_program_compile(struct device *device, const char **texts, unsigned count, const char *options,
                           cl_program *program);
/* Changes with the device, its driver and those texts. */
uint64_t device_program_hash(const struct device *device, const char *const *texts, unsigned count);

/* --- for runtime/device/device.c ------------------------------------------------------------------------------- */
/* Makes the queues of a device that is to stage rows, and lets its buffers go. */
int device_staging_open(struct device *device);
void device_staging_close(struct device *device);

/* <cache_dir>/<device name>, locked for this process; sets POCL_CACHE_DIR. Fills path, "" if there is none. */
void device_cache_open(const struct config_device *config, char path[DEVICE_PATH_SIZE]);
/* Whether the drivers of this fingerprint came through a child process that listed their devices, and every start since
 * then came through: only between device_cache_begin and device_cache_settled. And notes that they do. */
bool device_cache_knows_drivers(uint64_t print);
void device_cache_note_drivers(uint64_t print);
/* Fills info and *id with what the configuration names. */
int device_choose(const struct config_device *config, struct device_info *info, cl_device_id *id);

#endif
