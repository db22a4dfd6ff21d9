/* What the pools' fuzzers share: bytes to draw from, and a pool's segment on the heap, so that the sanitizer sees both
 * of its ends. */
#ifndef EXPERTD_TESTS_SUPPORT_FUZZ_POOL_H
#define EXPERTD_TESTS_SUPPORT_FUZZ_POOL_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pools/pool_private.h"

struct fuzz_bytes {
    const uint8_t *at, *end;
};

static inline uint8_t fuzz_byte(struct fuzz_bytes *bytes)
{
    return bytes->at < bytes->end ? *bytes->at++ : 0;
}

/* Values near those that matter more often than any. */
static inline uint64_t fuzz_value(struct fuzz_bytes *bytes)
{
    const uint8_t kind = fuzz_byte(bytes), low = fuzz_byte(bytes);
    switch (kind % 6) {
    case 0:
        return low;
    case 1:
        return UINT64_MAX - low;
    case 2:
        return (UINT64_C(1) << low % 64) - 1 + kind / 128;
    case 3:
        return (uint64_t)low << kind / 6;
    default: {
        uint64_t value = 0;
        for (int i = 0; i < 8; i++)
            value = value << 8 | fuzz_byte(bytes);
        return value;
    }
    }
}

/* A header, and its segment's size. */
static inline void fuzz_header(struct pool_shared *header, enum pool_kind kind, size_t *size)
{
    struct pool_layout layout = {.server = "fuzz",
                                 .device = "d",
                                 .generation = 1,
                                 .kind = kind,
                                 .uid = "ffn.1.2",
                                 .max_batch_size = 5,
                                 .queue_rows = 16,
                                 .queue_tasks = 8};
    layout.inputs.count = layout.outputs.count = 1;
    layout.inputs.tensors[0] = (struct tensor_desc){.dtype = DTYPE_UINT8, .ndim = 1, .dims = {256}, .name = "x"};
    layout.outputs.tensors[0] = layout.inputs.tensors[0];
    if (pool_build_header(header, &layout, size) != 0)
        abort();
    header->frontend.committed_rows = layout.queue_rows;
    header->frontend.committed_tasks = layout.queue_tasks;
}

/* A segment as it is made; everything in it is committed, as far as its positions say. There is one of each kind, which
 * is made anew: fresh pages each time took most of the time. */
static inline struct pool_shared *fuzz_segment(enum pool_kind kind, size_t *size)
{
    static struct fuzz_segment {
        struct pool_shared header, *segment;
        size_t size;
    } segments[2];
    struct fuzz_segment *of = &segments[kind == POOL_BACKWARD];
    if (!of->segment) {
        fuzz_header(&of->header, kind, &of->size);
        of->segment = aligned_alloc(POOL_PAGE, of->size);
    }
    memset(of->segment, 0, of->size);
    memcpy(of->segment, &of->header, sizeof of->header);
    *size = of->size;
    return of->segment;
}

/* Overwrites something that is shared: a position, a task, a record. */
static inline void fuzz_scribble(struct fuzz_bytes *bytes, struct pool_shared *segment, size_t tasks_offset)
{
    struct pool_task_shared *task = (struct pool_task_shared *)((char *)segment + tasks_offset) + fuzz_byte(bytes) % 8;
    const uint8_t what = fuzz_byte(bytes);
    const uint64_t value = fuzz_value(bytes);
    switch (what % 16) {
    case 0:
        segment->frontend.committed = value;
        break;
    case 1:
        segment->frontend.released = value;
        break;
    case 2:
        segment->frontend.row_position = value;
        break;
    case 3:
        segment->frontend.committed_rows = (uint32_t)value;
        break;
    case 4:
        segment->frontend.committed_tasks = (uint32_t)value;
        break;
    case 5:
        segment->runtime.taken = value;
        break;
    case 6:
        segment->runtime.applied = value;
        break;
    case 7:
        segment->runtime.done = value;
        break;
    case 8:
        segment->runtime.applied_sequence = value;
        break;
    case 9:
        task->row_position = value;
        break;
    case 10:
        task->rows = (uint32_t)value;
        break;
    case 11:
        task->queued_ns = value;
        break;
    case 12:
        task->deadline_ns = value;
        break;
    case 13:
        task->request_id = task->client[0] = value % 4;
        break;
    case 14:
        atomic_store(&task->cancelled, (uint32_t)value);
        break;
    default:
        task->status = (uint32_t)value;
        memset(task->message, (int)(value >> 8 | 1), POOL_MESSAGE_SIZE);
        break;
    }
}

#endif
