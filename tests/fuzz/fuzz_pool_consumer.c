/* A pool whose two sides work while somebody scribbles over everything that is shared: nothing crashes, no batch and no
 * result leaves the slabs. The sides may go (and come again) as processes do. */
#include "support_fuzz_pool.h"

struct play {
    struct pool_shared *segment;
    size_t size;
    uint64_t tasks_offset;
    struct pool *frontend, *runtime;
    struct pool_batch flight[3];
    uint32_t flying;
    uint64_t results[8]; /* not released yet */
    uint32_t holding;
    uint64_t now_ns;
};

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void put(struct play *play, struct fuzz_bytes *bytes)
{
    struct pool_claim claim;
    const uint8_t how = fuzz_byte(bytes);
    if (pool_claim(play->frontend, how % 7, &claim) != 0)
        return;
    check(claim.rows == how % 7u && claim.row + claim.rows <= 16);
    memset((char *)pool_input(play->frontend, 0) + claim.row * 256, how, claim.rows * 256);
    if (how & 0x80)
        return; /* forgotten */
    pool_commit(play->frontend, &claim,
                &(struct pool_task){.queued_ns = play->now_ns,
                                    .deadline_ns = how & 0x40 ? play->now_ns + how % 8 : 0,
                                    .client = {how & 0x20, 0},
                                    .request_id = how / 8 % 4});
    if (how % 16 == 9)
        pool_cancel(play->frontend, claim.task);
}

static void take(struct play *play, struct fuzz_bytes *bytes)
{
    uint64_t when_ns;
    uint32_t completed;
    const uint8_t how = fuzz_byte(bytes);
    play->now_ns += how % 4;
    const struct pool_limits limits = {how % 8, how};
    if (how & 0x80)
        (void)pool_oldest(play->runtime, play->now_ns, &when_ns, &completed);
    if (play->flying == 3)
        return;
    struct pool_batch *batch = &play->flight[play->flying];
    if (pool_take(play->runtime, &limits, play->now_ns, batch, &when_ns, &completed) != 1)
        return;
    check(batch->tasks > 0 && batch->tasks <= 8 && batch->rows > 0 && batch->rows <= 5 &&
          batch->row + batch->rows <= 16);
    uint32_t next = 0;
    for (uint32_t i = 0; i < batch->tasks; i++) {
        uint32_t row, rows;
        pool_batch_task(play->runtime, batch, i, &row, &rows);
        check(row == next && rows > 0);
        next += rows;
    }
    check(next == batch->rows);
    play->flying++;
}

static void finish(struct play *play, struct fuzz_bytes *bytes)
{
    const uint8_t how = fuzz_byte(bytes);
    if (play->flying == 0)
        return;
    struct pool_batch *batch = &play->flight[0], first = *batch;
    const bool split = how & 4 && batch->tasks > 1;
    if (split)
        pool_batch_split_first(play->runtime, batch, &first);
    memset((char *)pool_output(play->runtime, 0) + first.row * 256, how, first.rows * 256);
    if (how & 1 && pool_header(play->runtime)->kind == POOL_BACKWARD)
        pool_applied(play->runtime, &first);
    pool_complete(play->runtime, &first, how & 2 ? STATUS_OK : STATUS_INTERNAL, how & 2 ? NULL : "failed");
    if (split)
        return;
    play->flying--;
    memmove(play->flight, play->flight + 1, play->flying * sizeof play->flight[0]);
}

static void answer(struct play *play, struct fuzz_bytes *bytes)
{
    struct pool_result result;
    if (play->holding < 8 && pool_next_result(play->frontend, &result) == 1) {
        check(result.rows > 0 && result.row + result.rows <= 16 && memchr(result.message, 0, sizeof result.message) &&
              strcmp(status_name(result.status), "UNKNOWN") != 0);
        play->results[play->holding++] = result.task;
    }
    const uint8_t which = fuzz_byte(bytes);
    if (play->holding > 0 && which & 1) {
        const uint32_t i = which / 2 % play->holding;
        pool_release(play->frontend, play->results[i]);
        play->results[i] = play->results[--play->holding];
    }
}

static bool restart(struct play *play, enum pool_side side)
{
    struct pool **which = side == POOL_PRODUCER ? &play->frontend : &play->runtime;
    pool_detach(which);
    if (side == POOL_PRODUCER)
        play->holding = 0;
    else
        play->flying = 0;
    return pool_open_view(which, play->segment, play->size, "/expertd.fuzz.none", side, true) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_bytes bytes = {data, data + size};
    struct play play = {.now_ns = 1000};
    play.segment = fuzz_segment(fuzz_byte(&bytes) % 2 ? POOL_BACKWARD : POOL_FORWARD, &play.size);
    play.tasks_offset = play.segment->tasks_offset;
    bool alive = restart(&play, POOL_CONSUMER) && restart(&play, POOL_PRODUCER);
    check(alive);
    while (alive && bytes.at < bytes.end) {
        switch (fuzz_byte(&bytes) % 16) {
        case 0:
            fuzz_scribble(&bytes, play.segment, play.tasks_offset);
            break;
        case 1:
            alive = restart(&play, POOL_CONSUMER);
            break;
        case 2:
            alive = restart(&play, POOL_PRODUCER);
            break;
        case 3:
        case 4:
        case 5:
        case 6:
            put(&play, &bytes);
            break;
        case 7:
        case 8:
        case 9:
            take(&play, &bytes);
            break;
        case 10:
        case 11:
        case 12:
            finish(&play, &bytes);
            break;
        default:
            answer(&play, &bytes);
            break;
        }
    }
    if (play.runtime)
        check(pool_tasks_queued(play.runtime) <= 8);
    pool_detach(&play.frontend);
    pool_detach(&play.runtime);
    return 0;
}
