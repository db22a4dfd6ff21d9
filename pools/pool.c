#include "pools/pool.h"

#include "common/shm.h"
#include "pools/pool_private.h"

bool pool_copy_task(const struct pool *pool, uint64_t task, struct pool_task_copy *copy)
{
    const struct pool_task_shared *shared = pool_task_at(pool, task);
    copy->row_position = shared->row_position;
    copy->queued_ns = shared->queued_ns;
    copy->deadline_ns = shared->deadline_ns;
    copy->key = (struct applied_key){{shared->client[0], shared->client[1]}, shared->request_id};
    copy->rows = shared->rows;
    copy->unwanted = shared->unwanted;
    copy->cancelled = atomic_load_explicit(&shared->cancelled, memory_order_relaxed) != 0;
    atomic_signal_fence(memory_order_seq_cst); /* checked and used is the copy, never a second load */
    copy->row = (uint32_t)(copy->row_position % pool->header.capacity_rows);
    return copy->row_position < POOL_POSITION_MAX && copy->rows > 0 && copy->rows <= pool->header.max_batch_size &&
           copy->row + copy->rows <= pool->header.capacity_rows;
}

void pool_prefetch_handle(const struct pool *pool)
{
    const char *books = (const char *)&pool->shared, *end = (const char *)(pool + 1);
    for (; books < end; books += POOL_LINE)
        __builtin_prefetch(books, 1);
    __builtin_prefetch(&pool->header.capacity_rows);
    __builtin_prefetch(&pool->header.input_offset[0]);
    __builtin_prefetch(&pool->header.output_offset[0]);
    __builtin_prefetch(&pool->header.outputs);
}

void pool_prefetch_shared(const struct pool *pool)
{
    const struct pool_task_shared *task =
        pool_task_at(pool, pool->side == POOL_PRODUCER ? pool->producer.next_result : pool->consumer.taken);
    __builtin_prefetch(&pool->shared->frontend);
    __builtin_prefetch(&pool->shared->runtime);
    __builtin_prefetch(&task->row_position);
    __builtin_prefetch(&task->status);
}

const struct pool_shared *pool_header(const struct pool *pool)
{
    return &pool->header;
}

void *pool_input(const struct pool *pool, uint32_t i)
{
    return (char *)pool->shared + pool->header.input_offset[i];
}

void *pool_output(const struct pool *pool, uint32_t i)
{
    return (char *)pool->shared + pool->header.output_offset[i];
}

size_t pool_input_row_bytes(const struct pool *pool, uint32_t i)
{
    return pool->input_row_bytes[i];
}

size_t pool_output_row_bytes(const struct pool *pool, uint32_t i)
{
    return pool->output_row_bytes[i];
}

size_t pool_input_slab_bytes(const struct pool *pool, uint32_t i)
{
    return shm_round_up(pool->input_row_bytes[i] * pool->header.capacity_rows, POOL_PAGE);
}

size_t pool_output_slab_bytes(const struct pool *pool, uint32_t i)
{
    return shm_round_up(pool->output_row_bytes[i] * pool->header.capacity_rows, POOL_PAGE);
}
