/* A pool with both of its sides in this process, for the tests of pools/. */
#ifndef EXPERTD_TESTS_SUPPORT_POOL_H
#define EXPERTD_TESTS_SUPPORT_POOL_H

#include <check.h>

#include "pools/control.h"
#include "pools/pool.h"
#include "pools/pool_private.h"

struct pool_pair {
    struct pool_layout layout;
    char device[32]; /* another one for every pair */
    struct pool *frontend, *runtime;
};

/* The server of this test program: all of its segments carry this name. */
const char *support_server(void);
/* Runs the suite, and afterwards removes what failed or killed tests left. What main returns. */
int support_pool_main(Suite *suite);

/* float32[columns] rows called name. */
struct schema support_schema(const char *name, uint64_t columns);
/* A layout of rows of one float32[columns] in and out; its generation is 1. */
void support_layout(struct pool_pair *pair, enum pool_kind kind, uint32_t capacity_rows, uint32_t capacity_tasks,
                    uint32_t max_batch_size, uint64_t columns);
/* The same with 16 columns, and both sides opened. */
void support_open(struct pool_pair *pair, enum pool_kind kind, uint32_t capacity_rows, uint32_t capacity_tasks,
                  uint32_t max_batch_size);
/* A new frontend, or a new runtime, in place of the old one, which is gone as if it was killed. */
void support_restart_frontend(struct pool_pair *pair);
void support_restart_runtime(struct pool_pair *pair);
/* Detaches what is attached and removes the segment. */
void support_close(struct pool_pair *pair);

int support_claim(struct pool_pair *pair, uint32_t rows, struct pool_claim *claim);
/* Claims and commits a task whose input is its position in every element; its position. */
uint64_t support_put(struct pool_pair *pair, uint32_t rows);
uint64_t support_put_task(struct pool_pair *pair, uint32_t rows, const struct pool_task *task);
/* Takes what is there, without waiting: the number of tasks in the batch, 0 if none. */
uint32_t support_take(struct pool_pair *pair, struct pool_batch *batch);
/* Copies the batch's inputs to its outputs, adds 1, and completes it with OK. */
void support_run(struct pool_pair *pair, const struct pool_batch *batch);
void support_compute(struct pool_pair *pair, const struct pool_batch *batch);
/* The next batch must be these tasks, one behind the other. */
void support_expect_batch(struct pool_pair *pair, struct pool_batch *batch, uint64_t first_task, uint32_t tasks);
/* A backward of that client, queued at 100 ns; the second one puts it, with one row. */
struct pool_task support_named(uint64_t client, uint64_t request_id);
uint64_t support_put_named(struct pool_pair *pair, uint64_t client, uint64_t request_id);
/* Computes the batch, applies it and completes it with OK. */
void support_step(struct pool_pair *pair, const struct pool_batch *batch);
/* The next result must be this one; checks the output of a computed one; releases it. */
void support_expect(struct pool_pair *pair, uint64_t task, enum status status, bool orphan);
void support_expect_none(struct pool_pair *pair);

#endif
