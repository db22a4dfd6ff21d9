/* Rows of batches on a device with memory of its own: slab -> pinned memory -> device, and back, each way on a queue of
 * its own beside the one that computes.
 *
 * Why through pinned memory, and not straight from the slab: a transfer from memory that the driver has not pinned is
 * one that it copies into such memory itself, on the calling thread and often waiting for the device. Whether a driver
 * pins what CL_MEM_USE_HOST_PTR names, or keeps a copy that only mapping brings up to date, is up to it (and the slab
 * is written by another process); memory that it allocated itself for the host is pinned everywhere. The copy is one
 * pass at the speed of memory, several times that of a frontend which fills the slabs, by several threads where there
 * are cores for it, and in pieces so that the transfer of one goes on beside the copy of the next. */
#include <errno.h>
#include <string.h>

#include "common/copier.h"
#include "runtime/device/device_staging.h"

enum {
    ALIGNMENT = 256, /* of a tensor's rows in the slot */
    FETCHED_BYTES = 256,
    PIECES = 16, /* of a tensor, at most */
    PIECE_BYTES = 1 << 20,
};

/* --- memory ------------------------------------------------------------------------------------------------------- */

static size_t slot_bytes(size_t bytes)
{
    return bytes + FETCHED_BYTES + ALIGNMENT;
}

uint64_t device_staging_memory(const struct device *device, size_t bytes)
{
    return device->staged ? DEVICE_STAGING_SLOTS * (uint64_t)slot_bytes(bytes) : 0;
}

static void let_go(struct device *device, struct device_staging *staging)
{
    if (staging->pinned != NULL && !device->lost) {
        clEnqueueUnmapMemObject(device->download_queue, staging->locked, staging->pinned, 0, NULL, NULL);
        clFinish(device->download_queue);
    }
    if (staging->locked != NULL)
        clReleaseMemObject(staging->locked);
    staging->locked = NULL;
    staging->pinned = NULL;
    device_release(device, &staging->buffer);
    staging->bytes = 0;
}

static int make(struct device *device, struct device_staging *staging, size_t bytes)
{
    cl_int error;
    const int result = device_allocate(device, bytes, "staging buffer", &staging->buffer);
    if (result != 0)
        return result;
    staging->locked = clCreateBuffer(device->context, CL_MEM_READ_WRITE | CL_MEM_ALLOC_HOST_PTR, bytes, NULL, &error);
    if (staging->locked != NULL)
        staging->pinned = clEnqueueMapBuffer(device->download_queue, staging->locked, CL_TRUE,
                                             CL_MAP_READ | CL_MAP_WRITE, 0, bytes, 0, NULL, NULL, &error);
    if (staging->pinned == NULL) {
        let_go(device, staging);
        return device_fail(device, error, "pinned memory of the host");
    }
    memset(staging->pinned, 0, bytes); /* no page is touched first in a batch */
    staging->bytes = bytes;
    return 0;
}

static int grow(struct device *device, struct device_staging *staging, size_t bytes)
{
    const size_t had = staging->bytes;
    if (bytes <= had)
        return 0;
    let_go(device, staging);
    const int result = make(device, staging, bytes);
    if (result != 0 && had > 0 && !device->lost)
        (void)make(device, staging, had);
    return result;
}

int device_reserve_staging(struct device *device, size_t bytes)
{
    if (!device->staged)
        return 0;
    for (unsigned slot = 0; slot < DEVICE_STAGING_SLOTS; slot++) {
        if (device->staging[slot].in_flight)
            continue; /* device_staging_begin does it */
        const int result = grow(device, &device->staging[slot], slot_bytes(bytes));
        if (result != 0)
            return result;
    }
    if (device->staging_bytes < slot_bytes(bytes))
        device->staging_bytes = slot_bytes(bytes);
    return 0;
}

int device_staging_open(struct device *device)
{
    cl_int error;
    device->upload_queue = clCreateCommandQueue(device->context, device->id, 0, &error);
    if (device->upload_queue != NULL)
        device->download_queue = clCreateCommandQueue(device->context, device->id, 0, &error);
    if (device->download_queue == NULL)
        return device_fail(device, error, "clCreateCommandQueue");
    const int result = copier_create(&device->copier, (unsigned)device->config->copy_threads);
    return result == 0 ? 0 : device_complain(device, result, "no memory for copies");
}

void device_staging_close(struct device *device)
{
    for (unsigned slot = 0; slot < DEVICE_STAGING_SLOTS; slot++)
        let_go(device, &device->staging[slot]);
    if (device->upload_queue != NULL)
        clReleaseCommandQueue(device->upload_queue);
    if (device->download_queue != NULL)
        clReleaseCommandQueue(device->download_queue);
    device->upload_queue = device->download_queue = NULL;
    copier_destroy(&device->copier);
}

/* --- events ------------------------------------------------------------------------------------------------------- */

static void drop(cl_event *event)
{
    if (*event != NULL)
        clReleaseEvent(*event);
    *event = NULL;
}

static cl_int status_of(cl_event event)
{
    cl_int status = CL_COMPLETE;
    if (event == NULL)
        return CL_COMPLETE;
    const cl_int error = clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL);
    return error == CL_SUCCESS ? status : error;
}

static int fail_before(struct device *device, cl_int error, const char *what)
{
    const int result = device_fail(device, error, what);
    return result == -ENODEV ? result : -EAGAIN;
}

/* What has failed is looked for before anything is made to wait for it: to that, PoCL's queues never come back. */
static int check_uploads(struct device *device, const struct device_staging *staging)
{
    for (unsigned i = 0; i < staging->uploads_count; i++) {
        const cl_int status = status_of(staging->uploads[i]);
        if (status < 0)
            return fail_before(device, status, "upload of a batch");
    }
    return 0;
}

static int check_first(struct device *device, const struct device_staging *staging)
{
    const cl_int status = status_of(staging->first);
    const int result = check_uploads(device, staging);
    return result == 0 && status < 0 ? fail_before(device, status, "the first kernel of a batch") : result;
}

/* The result of a batch of which a command failed with `error`. */
static int blame(struct device *device, const struct device_staging *staging, cl_int error, const char *what)
{
    const int result = check_first(device, staging);
    return result == 0 ? device_fail(device, error, what) : result;
}

/* --- a batch's way ------------------------------------------------------------------------------------------------ */

int device_staging_begin(struct device *device, unsigned *slot)
{
    *slot = 0;
    if (!device->staged)
        return 0;
    struct device_staging *staging = &device->staging[device->next_slot];
    if (staging->in_flight)
        return device_complain(device, -EBUSY, "%d batches are in flight", DEVICE_STAGING_SLOTS);
    /* If that fails, it is large enough for some. */
    (void)grow(device, staging, device->staging_bytes);
    staging->in_flight = true;
    staging->gated = staging->launched = false;
    staging->used = 0;
    device->current = staging;
    *slot = device->next_slot;
    device->next_slot = (device->next_slot + 1) % DEVICE_STAGING_SLOTS;
    return 0;
}

void device_staging_end(struct device *device, unsigned slot)
{
    struct device_staging *staging = &device->staging[slot];
    for (unsigned i = 0; i < staging->uploads_count; i++)
        drop(&staging->uploads[i]);
    for (unsigned i = 0; i < staging->downloads_count; i++)
        drop(&staging->downloads[i].event);
    staging->uploads_count = staging->downloads_count = 0;
    drop(&staging->first);
    drop(&staging->ended);
    staging->done = NULL;
    staging->in_flight = false;
    if (device->current == staging)
        device->current = NULL;
}

static void drain(struct device *device)
{
    if (device->upload_queue != NULL)
        clFinish(device->upload_queue);
    clFinish(device->queue);
    if (device->download_queue != NULL)
        clFinish(device->download_queue);
}

void device_staging_abort(struct device *device, unsigned slot)
{
    drain(device);
    device_staging_end(device, slot);
}

int device_staging_take(struct device *device, unsigned slot, size_t bytes, struct device_rows *rows)
{
    struct device_staging *staging = &device->staging[slot];
    if (bytes > staging->bytes - staging->used)
        return device_complain(device, -ENOMEM, "the batch does not fit the staging buffer of %zu KiB",
                               staging->bytes >> 10);
    *rows = (struct device_rows){staging->buffer, staging->used / sizeof(float), staging->used};
    staging->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; /* rows of the next tensor begin aligned */
    if (staging->used > staging->bytes)
        staging->used = staging->bytes;
    return 0;
}

static size_t piece_bytes(size_t bytes)
{
    const size_t piece = (bytes / PIECES + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    return piece > PIECE_BYTES ? piece : PIECE_BYTES;
}

static int enqueue_upload(struct device *device, struct device_staging *staging, size_t at, size_t bytes)
{
    cl_int error = clEnqueueWriteBuffer(device->upload_queue, staging->buffer, CL_FALSE, at, bytes,
                                        staging->pinned + at, 0, NULL, &staging->uploads[staging->uploads_count]);
    if (error == CL_SUCCESS) {
        staging->uploads_count++;
        error = clFlush(device->upload_queue);
    }
    return error == CL_SUCCESS ? 0 : fail_before(device, error, "upload of a batch");
}

int device_staging_upload(struct device *device, const char *from, size_t bytes, const struct device_rows *rows)
{
    struct device_staging *staging = device->current;
    const size_t piece = piece_bytes(bytes), at = rows->offset * sizeof(float);
    uint64_t position = 0;
    int result = 0;
    if (staging->uploads_count + (bytes + piece - 1) / piece > DEVICE_TRANSFERS_MAX)
        return device_complain(device, -E2BIG, "a batch has too many tensors");
    for (size_t done = 0; done < bytes; done += piece) {
        const size_t part = bytes - done < piece ? bytes - done : piece;
        const uint64_t offered = copier_offer(device->copier, staging->pinned + at + done, from + done, part);
        position = done == 0 ? offered : position;
    }
    for (size_t done = 0; done < bytes && result == 0; done += piece) {
        copier_wait(device->copier, position++);
        result = enqueue_upload(device, staging, at + done, bytes - done < piece ? bytes - done : piece);
    }
    copier_wait_all(device->copier);
    return result;
}

int device_staging_launch(struct device *device, cl_uint *count, const cl_event **events, cl_event **event)
{
    struct device_staging *staging = device->current;
    staging->launched = true;
    if (staging->first != NULL) {
        *count = staging->gated;
        *events = staging->gated ? &staging->first : NULL;
        return 0;
    }
    *count = staging->uploads_count;
    *events = staging->uploads_count > 0 ? staging->uploads : NULL;
    *event = &staging->first;
    return check_uploads(device, staging);
}

int device_gate(struct device *device)
{
    if (device->current == NULL)
        return 0;
    device->current->gated = true;
    return check_first(device, device->current);
}

/* When `ready` has come, the bytes at `at` of the slot are copied to the pinned memory, and by device_staging_wait to
 * `to`. `ready` is the end of the batch's kernels so far; takes over the caller's hold on it. */
static int download(struct device *device, cl_event ready, size_t at, char *to, size_t bytes)
{
    struct device_staging *staging = device->current;
    const size_t piece = piece_bytes(bytes);
    int result = 0;
    while (bytes > 0 && result == 0) {
        const size_t part = bytes < piece ? bytes : piece;
        struct device_download *next = &staging->downloads[staging->downloads_count];
        if (staging->downloads_count == DEVICE_TRANSFERS_MAX) {
            result = device_complain(device, -E2BIG, "a batch has too many tensors");
            break;
        }
        *next = (struct device_download){NULL, to, at, part};
        cl_int error = status_of(ready);
        if (error >= 0) /* on its way, or there */
            error = clEnqueueReadBuffer(device->download_queue, staging->buffer, CL_FALSE, at, part,
                                        staging->pinned + at, 1, &ready, &next->event);
        if (error != CL_SUCCESS)
            result = blame(device, staging, error, "download of a batch");
        else
            staging->downloads_count++;
        to += part;
        at += part;
        bytes -= part;
    }
    drop(&staging->ended);
    staging->ended = ready;
    staging->launched = false;
    const cl_int error = clFlush(device->download_queue);
    return result != 0 || error == CL_SUCCESS ? result : device_fail(device, error, "download of a batch");
}

int device_staging_download(struct device *device, const struct device_rows *rows, char *to, size_t bytes)
{
    cl_event computed = NULL;
    cl_int error = clEnqueueMarkerWithWaitList(device->queue, 0, NULL, &computed);
    if (error == CL_SUCCESS)
        error = clFlush(device->queue); /* another queue is going to wait for it */
    if (error == CL_SUCCESS)
        return download(device, computed, rows->offset * sizeof(float), to, bytes);
    drop(&computed);
    return device_fail(device, error, "the end of a batch's kernels");
}

/* Through the slot, by a copy on the device: what the kernels wrote may be overwritten by the next batch's, which need
 * not wait until it has reached the host. */
int device_staging_fetch(struct device *device, cl_mem buffer, size_t offset_bytes, char *to, size_t bytes)
{
    struct device_staging *staging = device->current;
    struct device_rows rows = {0};
    cl_event copied = NULL;
    const int result = device_staging_take(device, (unsigned)(staging - device->staging), bytes, &rows);
    if (result != 0)
        return result;
    const size_t at = rows.offset * sizeof(float);
    cl_int error =
        clEnqueueCopyBuffer(device->queue, buffer, staging->buffer, offset_bytes, at, bytes, 0, NULL, &copied);
    if (error == CL_SUCCESS)
        error = clFlush(device->queue);
    if (error == CL_SUCCESS)
        return download(device, copied, at, to, bytes);
    drop(&copied);
    return device_fail(device, error, "what a batch's kernels report");
}

static cl_int mark_kernels(struct device *device, struct device_staging *staging)
{
    drop(&staging->ended);
    const cl_int error = clEnqueueMarkerWithWaitList(device->queue, 0, NULL, &staging->ended);
    return error == CL_SUCCESS ? clFlush(device->queue) : error;
}

int device_staging_mark(struct device *device, cl_event *done)
{
    struct device_staging *staging = device->current;
    cl_int error = CL_SUCCESS;
    *done = NULL;
    /* Mostly the last download is the end, and waits for all kernels. */
    const bool is_marked = !staging->launched && staging->downloads_count > 0;
    if (is_marked) {
        cl_event last = staging->downloads[staging->downloads_count - 1].event;
        error = clRetainEvent(last);
        *done = error == CL_SUCCESS ? last : NULL;
    } else {
        error = mark_kernels(device, staging);
        if (error == CL_SUCCESS && status_of(staging->ended) < 0)
            error = status_of(staging->ended);
        if (error == CL_SUCCESS)
            error = clEnqueueMarkerWithWaitList(device->download_queue, 1, &staging->ended, done);
        if (error == CL_SUCCESS)
            error = clFlush(device->download_queue);
    }
    if (error != CL_SUCCESS) {
        drop(done);
        return blame(device, staging, error, "the end of a batch");
    }
    staging->done = *done;
    device->current = NULL;
    return 0;
}

/* --- its end ------------------------------------------------------------------------------------------------------ */

struct device_staging *device_staging_find(struct device *device, cl_event done)
{
    for (unsigned slot = 0; slot < DEVICE_STAGING_SLOTS; slot++) {
        if (done != NULL && device->staging[slot].done == done)
            return &device->staging[slot];
    }
    return NULL;
}

static void copy_out(struct device *device, const struct device_staging *staging, struct device_download *piece)
{
    const uint64_t position = copier_offer(device->copier, piece->to, staging->pinned + piece->offset, piece->bytes);
    if (copier_threads(device->copier) == 1)
        copier_wait(device->copier, position); /* the next piece is on its way meanwhile */
    drop(&piece->event);
}

/* What was computed and did not arrive is asked for again: it is still in the slot, and the error may have been that of
 * another batch's download. */
static int fetch_again(struct device *device, struct device_staging *staging, struct device_download *piece)
{
    cl_int error = status_of(piece->event);
    if (!opencl_error_is_loss(error)) {
        drop(&piece->event);
        error = clEnqueueReadBuffer(device->download_queue, staging->buffer, CL_FALSE, piece->offset, piece->bytes,
                                    staging->pinned + piece->offset, 0, NULL, &piece->event);
    }
    if (error == CL_SUCCESS) {
        error = clWaitForEvents(1, &piece->event);
        if (status_of(piece->event) < 0)
            error = status_of(piece->event);
    }
    if (error != CL_SUCCESS)
        return device_fail(device, error, "download of a batch");
    copy_out(device, staging, piece);
    return 0;
}

/* Copies piece by piece, while the next ones are on their way; how many did not arrive. */
static unsigned take_downloads(struct device *device, struct device_staging *staging)
{
    unsigned missing = 0;
    for (unsigned i = 0; i < staging->downloads_count; i++) {
        struct device_download *piece = &staging->downloads[i];
        if (clWaitForEvents(1, &piece->event) == CL_SUCCESS && status_of(piece->event) == CL_COMPLETE)
            copy_out(device, staging, piece);
        else
            missing++;
    }
    copier_wait_all(device->copier);
    return missing;
}

int device_staging_wait(struct device *device, struct device_staging *staging)
{
    const unsigned missing = take_downloads(device, staging);
    (void)clWaitForEvents(1, &staging->done);
    const cl_int ended = status_of(staging->ended);
    int result = ended < 0 ? blame(device, staging, ended, "the kernels of a batch") : check_first(device, staging);
    if (result == 0 && missing == 0)
        return 0;
    /* Where commands behind a failed one fail with it, what is enqueued next is not to be among them. */
    drain(device);
    for (unsigned i = 0; i < staging->downloads_count && result == 0; i++) {
        if (staging->downloads[i].event != NULL)
            result = fetch_again(device, staging, &staging->downloads[i]);
    }
    copier_wait_all(device->copier);
    return result;
}
