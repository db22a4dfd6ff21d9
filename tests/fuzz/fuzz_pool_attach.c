/* Any header and any tasks are a pool that both sides can open and work on, or are refused. */
#include "support_fuzz_pool.h"

static void use(struct pool_shared *segment, size_t size)
{
    struct pool *frontend = NULL, *runtime = NULL;
    struct pool_batch batch;
    struct pool_claim claim;
    struct pool_result result;
    uint64_t retry_ns;
    uint32_t completed;
    if (pool_open_view(&runtime, segment, size, "/expertd.fuzz.none", POOL_CONSUMER, true) == 0) {
        while (pool_take(runtime, &(struct pool_limits){0, 0}, 1000, &batch, &retry_ns, &completed) == 1) {
            memset((char *)pool_output(runtime, 0) + batch.row * pool_output_row_bytes(runtime, 0), 7,
                   batch.rows * pool_output_row_bytes(runtime, 0));
            pool_complete(runtime, &batch, STATUS_OK, NULL);
        }
    }
    if (pool_open_view(&frontend, segment, size, "/expertd.fuzz.none", POOL_PRODUCER, true) == 0) {
        while (pool_next_result(frontend, &result) == 1) {
            if (!result.orphan || result.row + result.rows > pool_header(frontend)->capacity_rows)
                abort();
            pool_release(frontend, result.task);
        }
        (void)pool_claim(frontend, 1, &claim);
    }
    pool_detach(&frontend);
    pool_detach(&runtime);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_bytes bytes = {data, data + size};
    size_t segment_bytes;
    struct pool_shared *segment = fuzz_segment(fuzz_byte(&bytes) % 2 ? POOL_BACKWARD : POOL_FORWARD, &segment_bytes);
    const uint64_t tasks_offset = segment->tasks_offset;
    const uint8_t how = fuzz_byte(&bytes);
    /* Some of the header, and tasks, and records; then positions. */
    for (int i = 0; i < how % 4; i++) {
        const size_t at = (size_t)(fuzz_byte(&bytes) << 8 | fuzz_byte(&bytes)) % offsetof(struct pool_shared, frontend);
        ((uint8_t *)segment)[at] = fuzz_byte(&bytes);
    }
    for (int i = 0; i < how / 4 % 16; i++)
        fuzz_scribble(&bytes, segment, tasks_offset);
    for (size_t at = tasks_offset; how & 0x40 && bytes.at < bytes.end && at < tasks_offset + 9 * POOL_PAGE; at++)
        ((uint8_t *)segment)[at] = fuzz_byte(&bytes);
    use(segment, segment_bytes);
    use(segment, segment_bytes);
    return 0;
}
