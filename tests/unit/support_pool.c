#include "support_pool.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/shm.h"

static pid_t program; /* tests run in forked children; the name is the parent's */

const char *support_server(void)
{
    static char name[32];
    snprintf(name, sizeof name, "pooltest%ld", (long)program);
    return name;
}

static int remove_segment(const char *name, void *context)
{
    (void)context;
    shm_remove(name);
    return 0;
}

int support_pool_main(Suite *suite)
{
    program = getpid();
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    shm_each(support_server(), "", remove_segment, NULL);
    return failed != 0;
}

struct schema support_schema(const char *name, uint64_t columns)
{
    struct schema schema;
    memset(&schema, 0, sizeof schema);
    schema.count = 1;
    schema.tensors[0].dtype = DTYPE_FLOAT32;
    schema.tensors[0].ndim = 1;
    schema.tensors[0].dims[0] = columns;
    snprintf(schema.tensors[0].name, TENSOR_NAME_SIZE, "%s", name);
    return schema;
}

void support_layout(struct pool_pair *pair, enum pool_kind kind, uint32_t capacity_rows, uint32_t capacity_tasks,
                    uint32_t max_batch_size, uint64_t columns)
{
    static unsigned made;
    memset(pair, 0, sizeof *pair);
    snprintf(pair->device, sizeof pair->device, "d%ld-%u", (long)getpid(), made++);
    pair->layout = (struct pool_layout){.server = support_server(),
                                        .device = pair->device,
                                        .generation = 1,
                                        .index = (uint32_t)kind,
                                        .kind = kind,
                                        .uid = "ffn.1.2",
                                        .inputs = support_schema("x", columns),
                                        .outputs = support_schema("y", columns),
                                        .max_batch_size = max_batch_size,
                                        .queue_rows = capacity_rows,
                                        .queue_tasks = capacity_tasks};
}

void support_open(struct pool_pair *pair, enum pool_kind kind, uint32_t capacity_rows, uint32_t capacity_tasks,
                  uint32_t max_batch_size)
{
    support_layout(pair, kind, capacity_rows, capacity_tasks, max_batch_size, 16);
    ck_assert_int_eq(pool_create(&pair->runtime, &pair->layout), 0);
    ck_assert_int_eq(pool_attach(&pair->frontend, support_server(), pair->device, 1, pair->layout.index), 0);
}

void support_restart_frontend(struct pool_pair *pair)
{
    pool_detach(&pair->frontend);
    ck_assert_int_eq(pool_attach(&pair->frontend, support_server(), pair->device, 1, pair->layout.index), 0);
}

void support_restart_runtime(struct pool_pair *pair)
{
    pool_detach(&pair->runtime);
    ck_assert_int_eq(pool_adopt(&pair->runtime, &pair->layout), 0);
}

void support_close(struct pool_pair *pair)
{
    pool_detach(&pair->frontend);
    pool_detach(&pair->runtime);
    ck_assert_int_eq(pool_remove(support_server(), pair->device, 1, pair->layout.index), 0);
}

int support_claim(struct pool_pair *pair, uint32_t rows, struct pool_claim *claim)
{
    return pool_claim(pair->frontend, rows, claim);
}

uint64_t support_put_task(struct pool_pair *pair, uint32_t rows, const struct pool_task *task)
{
    struct pool_claim claim;
    ck_assert_int_eq(pool_claim(pair->frontend, rows, &claim), 0);
    ck_assert_uint_le(claim.row + rows, pair->layout.queue_rows);
    const size_t columns = pool_input_row_bytes(pair->frontend, 0) / sizeof(float);
    float *row = (float *)pool_input(pair->frontend, 0) + claim.row * columns;
    for (size_t i = 0; i < rows * columns; i++)
        row[i] = (float)(claim.task % 4096);
    pool_commit(pair->frontend, &claim, task);
    return claim.task;
}

uint64_t support_put(struct pool_pair *pair, uint32_t rows)
{
    return support_put_task(pair, rows, &(struct pool_task){.queued_ns = 100});
}

uint32_t support_take(struct pool_pair *pair, struct pool_batch *batch)
{
    uint64_t retry_ns;
    uint32_t completed;
    const int rc = pool_take(pair->runtime, &(struct pool_limits){0, 0}, 1000, batch, &retry_ns, &completed);
    ck_assert_int_ge(rc, 0);
    return rc == 1 ? batch->tasks : 0;
}

void support_compute(struct pool_pair *pair, const struct pool_batch *batch)
{
    const size_t columns = pool_input_row_bytes(pair->runtime, 0) / sizeof(float);
    const float *in = (const float *)pool_input(pair->runtime, 0) + batch->row * columns;
    float *out = (float *)pool_output(pair->runtime, 0) + batch->row * columns;
    for (size_t i = 0; i < batch->rows * columns; i++)
        out[i] = in[i] + 1;
}

void support_run(struct pool_pair *pair, const struct pool_batch *batch)
{
    support_compute(pair, batch);
    pool_complete(pair->runtime, batch, STATUS_OK, NULL);
}

void support_expect(struct pool_pair *pair, uint64_t task, enum status status, bool orphan)
{
    struct pool_result result;
    ck_assert_int_eq(pool_next_result(pair->frontend, &result), 1);
    ck_assert_uint_eq(result.task, task);
    ck_assert_str_eq(status_name(result.status), status_name(status));
    ck_assert_int_eq(result.orphan, orphan);
    ck_assert_int_eq(result.message[0] == 0, status == STATUS_OK);
    if (status == STATUS_OK) {
        const size_t columns = pool_output_row_bytes(pair->frontend, 0) / sizeof(float);
        const float *out = (const float *)pool_output(pair->frontend, 0) + result.row * columns;
        for (size_t i = 0; i < result.rows * columns; i++)
            ck_assert_float_eq(out[i], (float)(task % 4096) + 1);
    }
    pool_release(pair->frontend, task);
}

void support_expect_none(struct pool_pair *pair)
{
    struct pool_result result;
    ck_assert_int_eq(pool_next_result(pair->frontend, &result), 0);
}

void support_expect_batch(struct pool_pair *pair, struct pool_batch *batch, uint64_t first_task, uint32_t tasks)
{
    ck_assert_uint_eq(support_take(pair, batch), tasks);
    ck_assert_uint_eq(batch->first_task, first_task);
    uint32_t next = 0;
    for (uint32_t i = 0; i < tasks; i++) {
        uint32_t row, rows;
        pool_batch_task(pair->runtime, batch, i, &row, &rows);
        ck_assert_uint_eq(row, next);
        next += rows;
    }
    ck_assert_uint_eq(next, batch->rows);
}

struct pool_task support_named(uint64_t client, uint64_t request_id)
{
    return (struct pool_task){.queued_ns = 100, .client = {client, ~client}, .request_id = request_id};
}

uint64_t support_put_named(struct pool_pair *pair, uint64_t client, uint64_t request_id)
{
    const struct pool_task task = support_named(client, request_id);
    return support_put_task(pair, 1, &task);
}

void support_step(struct pool_pair *pair, const struct pool_batch *batch)
{
    support_compute(pair, batch);
    pool_applied(pair->runtime, batch);
    pool_complete(pair->runtime, batch, STATUS_OK, NULL);
}
