#include "unit/support_rig_runtime.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/doorbell.h"
#include "common/log.h"
#include "common/owner.h"
#include "pools/control.h"
#include "pools/pool.h"

enum { EXPERTS = 3, POOLS = 2 * EXPERTS };
static const char *const uids[EXPERTS] = {"nop.0", "nop.1", "mask.0"};

struct fake {
    const struct rig *rig;
    struct rig_knobs *knobs;
    struct control *control;
    struct pool *pools[POOLS];
    int bell_fd;
};

static volatile sig_atomic_t stopping;
static void on_term(int signal_number)
{
    (void)signal_number;
    stopping = 1;
}

static struct tensor_desc tensor(const char *name, enum dtype dtype)
{
    struct tensor_desc desc = {.dtype = dtype, .ndim = 1, .dims = {RIG_COLUMNS}};
    snprintf(desc.name, sizeof desc.name, "%s", name);
    return desc;
}

static struct pool_layout layout_of(const struct fake *fake, uint32_t p, uint64_t generation)
{
    struct schema data = {.count = 1, .tensors = {tensor("x", DTYPE_FLOAT32)}};
    if (p / 2 == 2) {
        data.tensors[1] = tensor("mask", DTYPE_BOOL);
        data.count = 2;
    }
    struct pool_layout layout = {.server = fake->rig->name,
                                 .device = "cpu0",
                                 .generation = generation,
                                 .index = p,
                                 .kind = p % 2 ? POOL_BACKWARD : POOL_FORWARD,
                                 .uid = uids[p / 2],
                                 .inputs = data,
                                 .outputs = data,
                                 .max_batch_size = RIG_MAX_BATCH,
                                 .queue_rows = RIG_QUEUE_ROWS,
                                 .queue_tasks = RIG_QUEUE_TASKS};
    if (layout.kind == POOL_BACKWARD) {
        struct schema gradients;
        schema_gradients(&gradients, &data);
        schema_concat(&layout.inputs, &data, &gradients);
    }
    return layout;
}

static void describe(struct fake *fake)
{
    for (uint32_t e = 0; e < EXPERTS; e++) {
        struct control_expert_shared *expert = control_expert(fake->control, e);
        const struct pool_layout layout = layout_of(fake, 2 * e, 1);
        snprintf(expert->uid, sizeof expert->uid, "%s", uids[e]);
        snprintf(expert->block, sizeof expert->block, "nop");
        snprintf(expert->optimizer, sizeof expert->optimizer, fake->knobs->frozen ? "none" : "adam");
        snprintf(expert->schedule, sizeof expert->schedule, "none");
        expert->hidden_dim = RIG_COLUMNS;
        expert->max_batch_size = RIG_MAX_BATCH;
        expert->learning_rate = 0.5;
        expert->arguments_count = 2;
        snprintf(expert->arguments[0].name, sizeof expert->arguments[0].name, "sequence");
        expert->arguments[0].value = 128;
        snprintf(expert->arguments[1].name, sizeof expert->arguments[1].name, "activation");
        expert->arguments[1].value = 1;
        snprintf(expert->arguments[1].text, sizeof expert->arguments[1].text, "silu");
        expert->inputs = layout.inputs;
        expert->outputs = layout.outputs;
    }
}

static void open_segments(struct fake *fake, bool fresh)
{
    const char *server = fake->rig->name;
    int rc = fresh ? -ESTALE : control_adopt(&fake->control, server, "cpu0", 1, EXPERTS);
    const bool adopted = rc == 0;
    if (!adopted)
        rc = control_create(&fake->control, server, "cpu0", 1, EXPERTS);
    for (uint32_t p = 0; rc == 0 && p < POOLS; p++) {
        const struct pool_layout layout = layout_of(fake, p, control_generation(fake->control));
        rc = adopted ? pool_adopt(&fake->pools[p], &layout) : pool_create(&fake->pools[p], &layout);
        control_mark_done(fake->control, p);
    }
    if (rc < 0) {
        fprintf(stderr, "the test's runtime: %s\n", strerror(-rc));
        _exit(1);
    }
    if (!adopted) {
        describe(fake);
        control_publish(fake->control);
    }
}

static void ring(struct fake *fake)
{
    if (fake->bell_fd < 0)
        fake->bell_fd = doorbell_fifo_open(fake->rig->folder, fake->rig->name);
    doorbell_fifo_ring(fake->bell_fd, &control_page(fake->control)->frontend.sleeping);
}

static void done(struct fake *fake, uint32_t p)
{
    control_mark_done(fake->control, p);
    ring(fake);
}

static void run(struct fake *fake, uint32_t p, const struct pool_batch *batch)
{
    struct pool *pool = fake->pools[p];
    struct control_shared *page = control_page(fake->control);
    const struct pool_shared *header = pool_header(pool);
    /* nop's outputs are its inputs, and its grad_inputs are grad_outputs. */
    const uint32_t first = header->kind == POOL_BACKWARD ? header->outputs.count : 0;
    const uint32_t unwanted = pool_batch_unwanted(pool, batch);
    for (uint32_t i = 0; i < header->outputs.count; i++) {
        const size_t row_bytes = pool_output_row_bytes(pool, i), offset = batch->row * row_bytes;
        memcpy((char *)pool_output(pool, i) + offset, (char *)pool_input(pool, first + i) + offset,
               batch->rows * row_bytes);
        if (unwanted >> i & 1)
            memset((char *)pool_output(pool, i) + offset, 0xee, batch->rows * row_bytes);
    }
    pool_measure(pool, batch->tasks, 3 * batch->tasks, 5);
    if (fake->knobs->fail) {
        pool_complete(pool, batch, STATUS_INTERNAL, "CL_OUT_OF_RESOURCES");
    } else if (header->kind == POOL_BACKWARD && fake->knobs->skip_step) {
        pool_complete(pool, batch, STATUS_ABORTED, NULL);
    } else {
        if (header->kind == POOL_BACKWARD && !fake->knobs->frozen) {
            pool_applied(pool, batch);
            fake->knobs->applied += batch->tasks;
            control_expert(fake->control, p / 2)->runtime.updates++;
        }
        pool_complete(pool, batch, STATUS_OK, NULL);
    }
    atomic_store(&page->runtime.completed_ns, clock_now_ns());
    atomic_fetch_add(&page->runtime.completed_batches, 1);
    control_count(fake->control, CONTROL_BATCHES, 1);
    fake->knobs->completed += batch->tasks;
    done(fake, p);
}

static bool take(struct fake *fake, uint32_t p)
{
    const struct pool_limits limits = {0};
    struct control_shared *page = control_page(fake->control);
    struct pool_batch batch;
    uint64_t retry_ns;
    uint32_t completed;
    const int rc = pool_take(fake->pools[p], &limits, clock_now_ns(), &batch, &retry_ns, &completed);
    if (completed)
        done(fake, p);
    if (rc <= 0)
        return completed > 0;
    atomic_store(&page->runtime.busy_since_ns, clock_now_ns());
    fake->knobs->taken += batch.tasks;
    while (fake->knobs->hold_running && !stopping)
        usleep(500);
    run(fake, p, &batch);
    atomic_store(&page->runtime.busy_since_ns, 0);
    return true;
}

static bool serve_checkpoints(struct fake *fake)
{
    bool any = false;
    for (uint32_t e = 0; e < EXPERTS; e++) {
        struct control_expert_shared *expert = control_expert(fake->control, e);
        const uint64_t ticket = atomic_load(&expert->frontend.checkpoint_requested);
        if (ticket <= atomic_load(&expert->runtime.checkpoint_served) || fake->knobs->hold)
            continue;
        any = true;
        fake->knobs->checkpoints++;
        atomic_store(&expert->runtime.checkpoint_errno, (uint32_t)fake->knobs->checkpoint_errno);
        atomic_store(&expert->runtime.checkpoint_served, ticket);
    }
    if (any)
        ring(fake);
    return any;
}

static void see_ready(uint32_t pool, void *context)
{
    (void)pool;
    *(bool *)context = true;
}

static bool work(struct fake *fake)
{
    bool any = false;
    while (fake->knobs->hang && !stopping)
        usleep(500);
    if (fake->knobs->garbage_done) {
        /* As a runtime gone mad would: the pool's header is the first page of its segment. */
        struct pool_shared *shared =
            (void *)((char *)pool_input(fake->pools[0], 0) - pool_header(fake->pools[0])->input_offset[0]);
        atomic_store(&shared->runtime.done, UINT64_MAX / 2);
        fake->knobs->garbage_done = 0;
        done(fake, 0);
    }
    fake->knobs->renewal_wanted = control_renewal_wanted(fake->control);
    if (fake->knobs->hold)
        return serve_checkpoints(fake);
    control_take_ready(fake->control, (control_visit *const[]){see_ready}, 1, &any);
    any = serve_checkpoints(fake);
    for (uint32_t p = 0; p < POOLS; p++)
        any |= take(fake, p);
    return any;
}

_Noreturn void rig_runtime(const struct rig *rig, bool fresh, int ready_fd)
{
    struct fake fake = {.rig = rig, .knobs = rig->knobs, .bell_fd = -1};
    log_open("rig", LOG_LEVEL_ERROR);
    signal(SIGTERM, on_term);
    if (owner_acquire(rig->folder, rig->name, "runtime.cpu0") < 0)
        _exit(1);
    const bool held = rig->knobs->hold_start;
    if (held && write(ready_fd, "l", 1) != 1)
        _exit(1);
    while (rig->knobs->hold_start && !stopping)
        usleep(500);
    open_segments(&fake, fresh);
    ring(&fake);
    if (!held && write(ready_fd, "r", 1) != 1)
        _exit(1);
    close(ready_fd);
    struct doorbell_word *bell = &control_page(fake.control)->runtime_bell;
    while (!stopping) {
        if (work(&fake))
            continue;
        const uint32_t ticket = doorbell_prepare(bell);
        if (!fake.knobs->hold && control_any_ready(fake.control))
            doorbell_cancel(bell);
        else /* a knob that is turned rings no bell */
            doorbell_sleep(bell, ticket, clock_now_ns() + 5 * NS_PER_MS);
    }
    control_retire(&fake.control);
    _exit(fake.bell_fd < 0 || write(fake.bell_fd, "!", 1) == 1 ? 0 : 1);
}
