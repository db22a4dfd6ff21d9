/* Memory that others write to while the frontend works on it: a thread writes all the time into a frame that is
 * checked, decoded into a pool's rows, kept for later, or is where an answer is encoded, and into the numbers of that
 * answer. Whatever comes of it, nothing is read or written beyond them, and a mask has zeros and ones.
 *
 * The input: how the frame is encoded and its rows, the places with the two bytes each that the thread puts there in
 * turn, and the numbers. The thread never stops, and reads where it is to write while that changes, so no run is the
 * same twice; what one finds, the next finds soon again. */
#include <pthread.h>
#include <stdatomic.h>

#include "support_fuzz_pool.h"

#include "frontend/task_inputs.h"
#include "proto/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { COLUMNS = 16, ROWS = 8, NUMBERS = ROWS * COLUMNS * sizeof(float), MEMORY = 1 << 14, PLACES = 8, TURNS = 2 };

static uint8_t *memory; /* the numbers first; a frame ends where it does, so that the sanitizer sees it */
static struct pool *pool;
static struct {
    _Atomic uint32_t at;
    _Atomic uint8_t bytes[2];
} places[PLACES];

__attribute__((no_sanitize("coverage"))) static void *scribble(void *unused)
{
    (void)unused;
    for (unsigned turn = 0;; turn++) {
        for (unsigned p = 0; p < PLACES; p++) {
            volatile uint8_t *to = &memory[atomic_load_explicit(&places[p].at, memory_order_relaxed) % MEMORY];
            *to = atomic_load_explicit(&places[p].bytes[turn % 2], memory_order_relaxed);
        }
    }
    return NULL;
}

/* Two inputs: numbers, and a mask. */
static struct pool *make_pool(void)
{
    size_t bytes;
    struct pool *made;
    struct pool_shared header;
    struct pool_layout layout = {.server = "fuzz",
                                 .device = "d",
                                 .generation = 1,
                                 .kind = POOL_FORWARD,
                                 .uid = "ffn.1.2",
                                 .max_batch_size = ROWS,
                                 .queue_rows = ROWS,
                                 .queue_tasks = 1};
    layout.inputs.count = 2;
    layout.inputs.tensors[0] = (struct tensor_desc){.dtype = DTYPE_FLOAT32, .ndim = 1, .dims = {COLUMNS}, .name = "x"};
    layout.inputs.tensors[1] = (struct tensor_desc){.dtype = DTYPE_BOOL, .ndim = 1, .dims = {COLUMNS}, .name = "m"};
    layout.outputs.count = 1;
    layout.outputs.tensors[0] = layout.inputs.tensors[0];
    if (pool_build_header(&header, &layout, &bytes) != 0)
        abort();
    struct pool_shared *segment = aligned_alloc(POOL_PAGE, bytes);
    memset(segment, 0, bytes);
    memcpy(segment, &header, offsetof(struct pool_shared, frontend));
    segment->frontend.committed_rows = ROWS;
    segment->frontend.committed_tasks = 1;
    if (pool_open_view(&made, segment, bytes, "/expertd.fuzz.none", POOL_PRODUCER, true) != 0)
        abort();
    return made;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    pthread_t thread;
    (void)argc;
    (void)argv;
    memory = malloc(MEMORY);
    memset(memory, 0, MEMORY);
    pool = make_pool();
    return pthread_create(&thread, NULL, scribble, NULL);
}

static void check_mask(uint32_t rows)
{
    const uint8_t *mask = pool_input(pool, 1);
    for (uint32_t i = 0; i < rows * COLUMNS; i++) {
        if (mask[i] > 1)
            abort();
    }
}

/* The way of a task: into the pool, or first into memory of the frontend's own. */
static void take(const struct task_inputs *task, uint32_t rows, bool kept)
{
    const struct pool_claim claim = {.rows = rows};
    struct task_inputs inputs = *task;
    zmq_msg_t copies[2];
    unsigned count = 0;
    for (; kept && count < 2; count++) {
        if (!task_inputs_keep(&inputs, count, &copies[count]))
            abort();
        inputs.tensors[count].data = zmq_msg_data(&copies[count]);
    }
    task_inputs_copy(&inputs, pool, &claim, NULL);
    check_mask(rows);
    while (count > 0)
        zmq_msg_close(&copies[--count]);
}

/* Where the counts are, anywhere in the frame, or in the numbers. */
static void aim(unsigned place, uint32_t frame, uint32_t frame_bytes, struct fuzz_bytes *bytes)
{
    enum { HEAD = 24 };
    const uint32_t low = fuzz_byte(bytes), offset = low | (uint32_t)fuzz_byte(bytes) << 8;
    const uint32_t at[] = {frame + offset % HEAD, frame + offset % frame_bytes, offset % NUMBERS};
    atomic_store_explicit(&places[place].at, at[place % 3], memory_order_relaxed);
    for (unsigned i = 0; i < 2; i++)
        atomic_store_explicit(&places[place].bytes[i], fuzz_byte(bytes), memory_order_relaxed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_bytes bytes = {data, data + size};
    const uint8_t how = fuzz_byte(&bytes);
    const uint32_t codec = how % CODEC_COUNT, all_rows = 1 + fuzz_byte(&bytes) % ROWS;
    const uint32_t first = how & 0x40 ? fuzz_byte(&bytes) % all_rows : 0;
    const uint32_t rows = how & 0x40 ? 1 + fuzz_byte(&bytes) % (all_rows - first) : all_rows;
    const uint64_t elements = (uint64_t)all_rows * COLUMNS;
    uint64_t frame_bytes;
    if (!codec_frame_bytes(codec, DTYPE_FLOAT32, elements, COLUMNS, &frame_bytes) || frame_bytes > MEMORY - NUMBERS)
        abort();
    uint8_t *frame = memory + MEMORY - frame_bytes;
    for (unsigned p = 0; p < PLACES; p++)
        aim(p, (uint32_t)(frame - memory), (uint32_t)frame_bytes, &bytes);
    float *numbers = (float *)(void *)memory;
    for (uint64_t i = 0; i < elements; i++)
        numbers[i] = (float)(int8_t)fuzz_byte(&bytes);
    if (codec != CODEC_NONE)
        codec_encode(codec, numbers, elements, COLUMNS, frame);
    else
        memcpy(frame, numbers, frame_bytes);
    struct task_inputs inputs = {0};
    inputs.tensors[0].data = codec == CODEC_NONE ? frame + (uint64_t)first * COLUMNS * sizeof(float) : frame;
    inputs.tensors[0].bytes = codec == CODEC_NONE ? (uint64_t)rows * COLUMNS * sizeof(float) : frame_bytes;
    inputs.tensors[0].codec = codec;
    inputs.tensors[0].elements = elements;
    inputs.tensors[0].last = COLUMNS;
    inputs.tensors[0].first = (uint64_t)first * COLUMNS;
    inputs.tensors[0].count = (uint64_t)rows * COLUMNS;
    inputs.tensors[1].data = memory + MEMORY - (uint64_t)rows * COLUMNS;
    inputs.tensors[1].bytes = (uint64_t)rows * COLUMNS;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        if (!codec_check(codec, frame, elements))
            take(&inputs, rows, turn % 2);
        if (codec != CODEC_NONE)
            codec_encode(codec, numbers, elements, COLUMNS, frame);
    }
    return 0;
}
