#include "unit/support_frontend.h"

#include <check.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/doorbell.h"

/* Far more than a busy machine needs. */
static const uint64_t patience_ns = 600 * NS_PER_S;

static void note_done(uint32_t pool, void *context)
{
    struct support_frontend *frontend = context;
    if (pool < SUPPORT_FRONTEND_POOLS) /* there are more slots than experts */
        frontend->done[pool] = true;
}

static control_visit *const stages[] = {note_done};

void support_frontend_open(struct support_frontend *frontend, const char *run_dir, const char *server,
                           const char *device)
{
    const uint64_t until_ns = clock_now_ns() + patience_ns;
    static uint64_t clients;
    *frontend = (struct support_frontend){.client = ++clients, .next_request = 1};
    frontend->bell_fd = doorbell_fifo_create(run_dir, server);
    ck_assert_int_ge(frontend->bell_fd, 0);
    int rc;
    while ((rc = control_attach(&frontend->control, server, device, true)) != 0) {
        struct pollfd bell = {.fd = frontend->bell_fd, .events = POLLIN};
        ck_assert_msg(rc == -ENOENT || rc == -EAGAIN, "control_attach: %d", rc);
        ck_assert_msg(clock_now_ns() < until_ns, "the runtime did not become ready");
        /* It rings when it is ready; but the segment of one that was killed may be what we wait for to go. */
        poll(&bell, 1, 100);
        doorbell_fifo_drain(frontend->bell_fd);
    }
    const uint32_t count = 2 * control_experts_count(frontend->control);
    for (uint32_t i = 0; i < count; i++) {
        if (!control_slot_used(frontend->control, i / 2))
            continue;
        ck_assert_uint_lt(i, SUPPORT_FRONTEND_POOLS);
        ck_assert_int_eq(pool_attach(&frontend->pools[i], server, device, control_generation(frontend->control), i), 0);
    }
    /* All are marked for a frontend that comes; where nothing is left of another one, by what is done from now on. */
    control_take_done(frontend->control, stages, 1, frontend);
    for (uint32_t i = 0; i < SUPPORT_FRONTEND_POOLS; i++)
        frontend->done[i] = frontend->pools[i] && pool_tasks_held(frontend->pools[i]) > 0;
}

void support_frontend_close(struct support_frontend *frontend)
{
    for (uint32_t i = 0; i < SUPPORT_FRONTEND_POOLS; i++)
        pool_detach(&frontend->pools[i]);
    control_detach(&frontend->control);
    close(frontend->bell_fd);
}

uint64_t support_frontend_put(struct support_frontend *frontend, uint32_t pool, uint32_t rows, float value)
{
    struct pool *p = frontend->pools[pool];
    struct pool_claim claim;
    ck_assert_int_eq(pool_claim(p, rows, &claim), 0);
    for (uint32_t i = 0; i < pool_header(p)->inputs.count; i++) {
        const size_t row_floats = pool_input_row_bytes(p, i) / sizeof(float);
        float *values = (float *)pool_input(p, i) + claim.row * row_floats;
        for (size_t j = 0; j < rows * row_floats; j++)
            values[j] = value;
    }
    const struct pool_task task = {
        .queued_ns = clock_now_ns(), .client = {7, frontend->client}, .request_id = frontend->next_request++};
    pool_commit(p, &claim, &task);
    control_mark_ready(frontend->control, pool);
    doorbell_ring(&control_page(frontend->control)->runtime_bell);
    return claim.task;
}

/* As the real one does: a pool that is not marked is not looked at. */
static int next_result(struct support_frontend *frontend, uint32_t pool, struct pool_result *result)
{
    control_take_done(frontend->control, stages, 1, frontend);
    const int rc = frontend->done[pool] ? pool_next_result(frontend->pools[pool], result) : 0;
    frontend->done[pool] = rc != 0;
    return rc;
}

enum status support_frontend_wait(struct support_frontend *frontend, uint32_t pool, uint64_t task,
                                  struct pool_result *result)
{
    _Atomic uint32_t *sleeping = &control_page(frontend->control)->frontend.sleeping;
    const uint64_t until_ns = clock_now_ns() + patience_ns;
    for (;;) {
        struct pollfd bell = {.fd = frontend->bell_fd, .events = POLLIN};
        doorbell_fifo_drain(frontend->bell_fd);
        atomic_store(sleeping, 1);
        atomic_thread_fence(memory_order_seq_cst);
        const int rc = next_result(frontend, pool, result);
        ck_assert_int_ge(rc, 0);
        if (rc == 1)
            break;
        ck_assert_msg(clock_now_ns() < until_ns, "no result of pool %u, task %llu", pool, (unsigned long long)task);
        poll(&bell, 1, 1000);
    }
    atomic_store(sleeping, 0);
    ck_assert_uint_eq(result->task, task);
    return result->status;
}

void support_frontend_expect(struct support_frontend *frontend, uint32_t pool, uint64_t task, enum status status,
                             float value)
{
    struct pool *p = frontend->pools[pool];
    struct pool_result result;
    const enum status found = support_frontend_wait(frontend, pool, task, &result);
    ck_assert_msg(found == status, "%s (%s) instead of %s", status_name(found), result.message, status_name(status));
    const float *values = (const float *)pool_output(p, 0) + result.row * (pool_output_row_bytes(p, 0) / sizeof(float));
    ck_assert_msg(isnan(value) || values[0] == value, "%g instead of %g", (double)values[0], (double)value);
    pool_release(p, task);
}

uint64_t support_frontend_counter(struct support_frontend *frontend, enum control_counter counter)
{
    return atomic_load(&control_page(frontend->control)->statistics.counters[counter]);
}
