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

/* A fresh segment; everything in it is committed, as far as its positions say. */
static inline struct pool_shared *fuzz_segment(enum pool_kind kind, size_t *size)
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
    struct pool_shared header;
    if (pool_build_header(&header, &layout, size) != 0)
        abort();
    struct pool_shared *segment = aligned_alloc(POOL_PAGE, *size);
    memset(segment, 0, *size);
    memcpy(segment, &header, offsetof(struct pool_shared, frontend));
    segment->frontend.committed_rows = layout.queue_rows;
    segment->frontend.committed_tasks = layout.queue_tasks;
    return segment;
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
