#include "runtime/serve/executor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/doorbell.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "runtime/serve/completion.h"
#include "runtime/serve/frontend_bell.h"
#include "runtime/serve/launch.h"
#include "runtime/serve/pace.h"
#include "runtime/serve/scheduler.h"

/* The end of a batch is looked for without a pause for so long. */
static const uint64_t spin_ns = 100 * NS_PER_US;

enum { FLIGHTS = EXPERT_IN_FLIGHT * EXPERT_GROUP };

struct executor {
    struct executor_setup setup;
    struct control_shared *page;
    struct scheduler *scheduler;
    struct pace *paces;             /* of the pools */
    struct completion *completion;  /* of batches during which others may come */
    struct flight flights[FLIGHTS]; /* a ring: the oldest at `oldest` */
    uint32_t oldest, in_flight;
    uint32_t launches;      /* in flight: of one batch, or of some together */
    struct flight *delayed; /* done, but to be answered later (expert_batch.ready_ns); of a pool one at most */
    uint32_t delayed_count, delayed_room;
    uint64_t now_ns;      /* of this step */
    uint64_t finished_ns; /* when the last batch was */
    uint64_t took_ns;     /* each batch of the launch that is being finished */
    uint64_t busy_ns;     /* a batch has been in flight, and that is not counted yet, since; 0: there is none */
    struct frontend_bell bell;
};

static struct backend *backend_of(struct executor *executor, uint32_t pool)
{
    return &executor->setup.backends[pool / 2];
}

static struct backend_pool *side_of(struct executor *executor, uint32_t pool)
{
    return &backend_of(executor, pool)->pools[pool % 2];
}

void executor_ring(struct executor *executor)
{
    frontend_bell_ring(&executor->bell);
}

void executor_ring_always(struct executor *executor)
{
    frontend_bell_ring_always(&executor->bell);
}

static void announce(struct executor *executor, uint32_t pool)
{
    control_mark_done(executor->setup.control, pool);
    executor_ring(executor);
}

static void on_skipped(void *context, uint32_t pool, uint32_t tasks)
{
    struct executor *executor = context;
    control_count(executor->setup.control, CONTROL_SKIPPED_TASKS, tasks);
    announce(executor, pool);
}

/* --- a batch's life --------------------------------------------------------------------------------------------------
 */

void executor_tell_busy(struct executor *executor)
{
    atomic_store_explicit(&executor->page->runtime.busy_since_ns, executor->busy_ns, memory_order_relaxed);
}

/* Counts what was busy till now, as well when it goes on: a device may never be idle. */
static void set_busy(struct executor *executor, bool busy)
{
    const uint64_t now_ns = clock_now_ns();
    if (!busy && executor->busy_ns == 0)
        return;
    if (executor->busy_ns != 0)
        control_count(executor->setup.control, CONTROL_BUSY_NS, now_ns - executor->busy_ns);
    executor->busy_ns = busy ? now_ns : 0;
    executor_tell_busy(executor);
}

static void count_completed(struct executor *executor, const struct pool_batch *batch, enum status status)
{
    struct control *control = executor->setup.control;
    control_count(control, CONTROL_BATCHES, 1);
    if (status == STATUS_OK) {
        control_count(control, CONTROL_TASKS, batch->tasks);
        control_count(control, CONTROL_ROWS, batch->rows);
    } else if (status == STATUS_INTERNAL) {
        control_count(control, CONTROL_FAILED_TASKS, batch->tasks);
    }
    atomic_fetch_add_explicit(&executor->page->runtime.completed_batches, 1, memory_order_relaxed);
    atomic_store_explicit(&executor->page->runtime.completed_ns, clock_now_ns(), memory_order_relaxed);
}

static void complete(struct executor *executor, uint32_t index, const struct pool_batch *batch, enum status status,
                     const char *message)
{
    pool_complete(side_of(executor, index)->pool, batch, status, message);
    count_completed(executor, batch, status);
    announce(executor, index);
    /* A repeated backward may have waited to see what becomes of the first one. */
    scheduler_notice(executor->scheduler, index, executor->now_ns);
}

static void set_work(struct executor *executor, struct flight *flight)
{
    struct backend_pool *side = side_of(executor, flight->index);
    flight->work = (struct expert_batch){
        .first_row = flight->batch.row,
        .rows = flight->batch.rows,
        .inputs = side->inputs,
        .outputs = side->outputs,
        .unwanted = flight->index % 2 == POOL_BACKWARD ? pool_batch_unwanted(side->pool, &flight->batch) : 0,
    };
}

static int enqueue(struct executor *executor, struct flight *flight)
{
    const struct backend *backend = backend_of(executor, flight->index);
    set_work(executor, flight);
    if (FAILPOINT("batch"))
        return CL_OUT_OF_HOST_MEMORY;
    return flight->index % 2 == POOL_FORWARD ? expert_forward(backend->expert, &flight->work)
                                             : expert_backward(backend->expert, &flight->work);
}

static int wait_for(struct executor *executor, struct flight *flight)
{
    return expert_finish(backend_of(executor, flight->index)->expert, &flight->work);
}

static int run(struct executor *executor, struct flight *flight)
{
    const int rc = enqueue(executor, flight);
    return rc == 0 ? wait_for(executor, flight) : rc;
}

/* Answers a batch that the device could not do. -ENODEV if it never will again: then the tasks stay for the next
 * runtime. */
static int fail(struct executor *executor, uint32_t index, const struct pool_batch *batch, int error)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    const char *text = device_error(executor->setup.device);
    if (error == -ENODEV || !device_answers(executor->setup.device)) {
        log_error("a batch failed with the device: %s", text);
        return -ENODEV;
    }
    if (!*text)
        text = strerror(-error);
    if (log_burst_allows(&burst, &left_out, text))
        log_error("a %s batch of %u rows of '%s' failed: %s (%u more like it)",
                  index % 2 == POOL_FORWARD ? "forward" : "backward", batch->rows, backend_of(executor, index)->uid,
                  text, left_out);
    complete(executor, index, batch, STATUS_INTERNAL, text);
    return 0;
}

static void abort_task(struct executor *executor, const struct flight *flight)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    if (log_burst_allows(&burst, &left_out, backend_of(executor, flight->index)->uid))
        log_warning("a backward of '%s' gave NaN or Inf as gradient: it is refused, and no step made (%u more like it)",
                    backend_of(executor, flight->index)->uid, left_out);
    complete(executor, flight->index, &flight->batch, STATUS_ABORTED, "NaN or Inf in the gradients: step skipped");
}

/* A step leaves no weight that is NaN or infinite; that it would have is for a person to know. */
static void say_held(struct executor *executor, const struct flight *flight)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    const struct backend *backend = backend_of(executor, flight->index);
    const char *tensor = expert_held(backend->expert);
    if (tensor && log_burst_allows(&burst, &left_out, backend->uid))
        log_error(
            "a step of '%s' would have made values of tensor '%s' NaN or infinite: they stay as they were (is the "
            "learning rate too high? %u more like it)",
            backend->uid, tensor, left_out);
}

/* What the expert made of a backward is shown, and recorded, before the tasks are answered. */
static void settle_step(struct executor *executor, const struct flight *flight)
{
    struct control *control = executor->setup.control;
    const enum expert_step step = flight->work.step;
    if (step == EXPERT_STEP_APPLIED) {
        control_count(control, CONTROL_STEPS, 1);
        say_held(executor, flight);
    }
    if (step == EXPERT_STEP_SKIPPED)
        control_count(control, CONTROL_SKIPPED_STEPS, 1);
    if (step == EXPERT_STEP_APPLIED || step == EXPERT_STEP_ACCUMULATED)
        pool_applied(side_of(executor, flight->index)->pool, &flight->batch);
    backend_update_record(backend_of(executor, flight->index));
}

/* Whether all gradients that the batch's rows of a backward's outputs hold, and somebody wants, are finite. */
static bool rows_are_finite(const struct pool *pool, const struct pool_batch *batch)
{
    const struct pool_shared *header = pool_header(pool);
    const uint32_t first = batch->row, rows = batch->rows, unwanted = pool_batch_unwanted(pool, batch);
    for (uint32_t i = 0; i < header->outputs.count; i++) {
        const uint32_t dtype = header->outputs.tensors[i].dtype;
        const size_t row = pool_output_row_bytes(pool, i);
        const char *values = pool_output(pool, i);
        if (!(unwanted >> i & 1) && dtype_is_float(dtype) &&
            !floats_are_finite(dtype, values + first * row, rows * (row / dtype_size(dtype))))
            return false;
    }
    return true;
}

/* A backward without a step: its gradients are the answer, and one that is NaN or Inf is refused as well. Each task by
 * itself, as they do not touch each other. */
static void finish_frozen(struct executor *executor, const struct flight *flight)
{
    struct pool *pool = side_of(executor, flight->index)->pool;
    struct flight one = *flight;
    struct pool_batch rest = flight->batch;
    if (rows_are_finite(pool, &rest)) {
        complete(executor, flight->index, &rest, STATUS_OK, NULL);
        return;
    }
    while (rest.tasks > 0) {
        if (rest.tasks > 1) {
            pool_batch_split_first(pool, &rest, &one.batch);
        } else {
            one.batch = rest;
            rest.tasks = 0;
        }
        if (rows_are_finite(pool, &one.batch))
            complete(executor, one.index, &one.batch, STATUS_OK, NULL);
        else
            abort_task(executor, &one);
    }
}

static int drain_flights(struct executor *executor);

/* A batch of several tasks was skipped: the good ones among them get a step each. Nothing else is in flight meanwhile,
 * which is slow, and rare. */
static int redo_one_by_one(struct executor *executor, struct flight *flight)
{
    int rc = drain_flights(executor);
    struct pool_batch rest = flight->batch;
    struct pool *pool = side_of(executor, flight->index)->pool;
    set_busy(executor, true);
    while (rc == 0 && rest.tasks > 0) {
        struct flight one = {.index = flight->index};
        if (rest.tasks > 1) {
            pool_batch_split_first(pool, &rest, &one.batch);
        } else {
            one.batch = rest;
            rest.tasks = 0;
        }
        rc = run(executor, &one);
        if (rc == -EAGAIN)
            rc = run(executor, &one);
        if (rc < 0) {
            rc = fail(executor, one.index, &one.batch, rc);
            continue;
        }
        settle_step(executor, &one);
        if (one.work.step == EXPERT_STEP_SKIPPED)
            abort_task(executor, &one);
        else
            complete(executor, one.index, &one.batch, STATUS_OK, NULL);
    }
    return rc;
}

/* How long its tasks waited, and why they wait no longer. */
static void measure_taken(struct executor *executor, struct flight *flight, bool paced)
{
    static const enum control_counter counters[] = {
        [POOL_CLOSED_FULL] = CONTROL_CLOSED_FULL,
        [POOL_CLOSED_ROWS] = CONTROL_CLOSED_ROWS,
        [POOL_CLOSED_TIMEOUT] = CONTROL_CLOSED_TIMEOUT,
        [POOL_CLOSED_FREE] = CONTROL_CLOSED_FREE,
    };
    const struct pool *pool = side_of(executor, flight->index)->pool;
    const enum pool_kind kind = (enum pool_kind)(flight->index % 2);
    /* The pool knows nothing of that wait. */
    control_count(
        executor->setup.control,
        paced && flight->batch.closed == POOL_CLOSED_FREE ? CONTROL_CLOSED_PACE : counters[flight->batch.closed], 1);
    control_measure(executor->setup.control, kind, CONTROL_BATCH_ROWS, flight->batch.rows);
    flight->queue_ns = 0;
    for (uint32_t i = 0; i < flight->batch.tasks; i++) {
        const uint64_t queued_ns = pool_batch_queued_ns(pool, &flight->batch, i);
        const uint64_t waited_ns = executor->now_ns > queued_ns ? executor->now_ns - queued_ns : 0;
        control_measure(executor->setup.control, kind, CONTROL_QUEUE_TIME, waited_ns);
        flight->queue_ns += waited_ns;
    }
}

/* How long the device took for it, not counting the batch before, and what came meanwhile. Of batches that were done
 * together it is each one's part. */
static void set_pace(struct executor *executor, const struct flight *flight)
{
    const uint64_t now_ns = clock_now_ns();
    const uint64_t from_ns = flight->started_ns > executor->finished_ns ? flight->started_ns : executor->finished_ns;
    if (flight->place == 0)
        executor->took_ns = (now_ns - from_ns) / flight->of;
    const uint32_t queued = pool_tasks_queued(side_of(executor, flight->index)->pool);
    const uint64_t queued_rows = (uint64_t)queued * flight->batch.rows / flight->batch.tasks;
    pace_completed(&executor->paces[flight->index], flight->batch.rows,
                   queued_rows < UINT32_MAX ? (uint32_t)queued_rows : UINT32_MAX, executor->took_ns, now_ns);
    control_measure(executor->setup.control, (enum pool_kind)(flight->index % 2), CONTROL_COMPUTE_TIME,
                    executor->took_ns);
    pool_measure(side_of(executor, flight->index)->pool, flight->batch.tasks, flight->queue_ns, executor->took_ns);
    executor->finished_ns = now_ns;
}

static int finish(struct executor *executor, struct flight *flight)
{
    int rc = wait_for(executor, flight);
    /* Nothing of it has run; maybe it only lay behind a batch that failed. Or it was one of those that failed, of which
     * each is now to show by itself whether it does. */
    if (rc == -EAGAIN || (rc < 0 && rc != -ENODEV && flight->of > 1))
        rc = run(executor, flight);
    if (rc < 0) {
        rc = fail(executor, flight->index, &flight->batch, rc);
        if (rc == 0) /* else the device never ended it */
            set_pace(executor, flight);
        return rc;
    }
    set_pace(executor, flight);
    if (flight->index % 2 == POOL_BACKWARD && flight->work.step == EXPERT_STEP_SKIPPED && flight->batch.tasks > 1) {
        expert_uncount_skipped(backend_of(executor, flight->index)->expert);
        return redo_one_by_one(executor, flight);
    }
    if (flight->index % 2 == POOL_BACKWARD) {
        settle_step(executor, flight);
        if (flight->work.step == EXPERT_STEP_NONE) {
            finish_frozen(executor, flight);
            return 0;
        }
        if (flight->work.step == EXPERT_STEP_SKIPPED) {
            abort_task(executor, flight);
            return 0;
        }
    }
    complete(executor, flight->index, &flight->batch, STATUS_OK, NULL);
    return 0;
}

static int finish_oldest(struct executor *executor)
{
    struct flight flight = executor->flights[executor->oldest];
    executor->oldest = (executor->oldest + 1) % FLIGHTS;
    executor->in_flight--;
    if (flight.place + 1 == flight.of)
        executor->launches--;
    const int rc = finish(executor, &flight);
    if (rc == 0)
        set_busy(executor, executor->in_flight > 0);
    return rc;
}

/* And those that are done together with it. */
static int finish_oldest_launch(struct executor *executor)
{
    int rc = finish_oldest(executor);
    while (rc == 0 && executor->in_flight > 0 && executor->flights[executor->oldest].place > 0)
        rc = finish_oldest(executor);
    return rc;
}

bool executor_broken(const struct executor *executor)
{
    return scheduler_broken(executor->scheduler);
}

static int drain_flights(struct executor *executor)
{
    int rc = 0;
    while (rc == 0 && executor->in_flight > 0)
        rc = finish_oldest(executor);
    return rc;
}

/* --- batches that are answered later
 * -----------------------------------------------------------------------------------
 */

/* Puts what was just enqueued aside, and its pool with it; nobody else waits. False: it is in flight like any other. */
static bool set_aside(struct executor *executor, const struct flight *flight)
{
    if (flight->work.ready_ns <= executor->now_ns)
        return false;
    if (executor->delayed_count == executor->delayed_room) {
        const uint32_t room = executor->delayed_room > 0 ? 2 * executor->delayed_room : 8;
        struct flight *larger = realloc(executor->delayed, room * sizeof *larger);
        if (!larger)
            return false; /* and so it is answered sooner */
        executor->delayed = larger;
        executor->delayed_room = room;
    }
    executor->delayed[executor->delayed_count++] = *flight;
    scheduler_hold(executor->scheduler, flight->index);
    return true;
}

/* Answers those whose time has come, or all. *next_ns: when the next one's comes, UINT64_MAX for none. */
static int finish_delayed(struct executor *executor, bool all, uint64_t *next_ns)
{
    int rc = 0;
    *next_ns = UINT64_MAX;
    for (uint32_t i = 0; i < executor->delayed_count && rc == 0;) {
        struct flight flight = executor->delayed[i];
        if (!all && flight.work.ready_ns > executor->now_ns) {
            *next_ns = flight.work.ready_ns < *next_ns ? flight.work.ready_ns : *next_ns;
            i++;
            continue;
        }
        executor->delayed[i] = executor->delayed[--executor->delayed_count];
        rc = finish(executor, &flight);
        scheduler_release(executor->scheduler, flight.index, executor->now_ns);
    }
    return rc;
}

int executor_drain(struct executor *executor)
{
    uint64_t next_ns;
    const int rc = drain_flights(executor);
    return rc == 0 ? finish_delayed(executor, true, &next_ns) : rc;
}

/* The slot of what is enqueued next: it stays where it is, though finishing moves `oldest` towards it. */
static struct flight *slot_of(struct executor *executor, uint32_t behind)
{
    return &executor->flights[(executor->oldest + executor->in_flight + behind) % FLIGHTS];
}

static int start(struct executor *executor, const struct flight *flight)
{
    struct flight *slot = slot_of(executor, 0);
    *slot = *flight;
    slot->place = 0;
    slot->of = 1;
    set_busy(executor, true);
    int rc = enqueue(executor, slot);
    if (rc == 0) {
        if (set_aside(executor, slot)) {
            set_busy(executor, executor->in_flight > 0);
            return 0;
        }
        executor->in_flight++;
        executor->launches++;
        return 0;
    }
    /* A pool's batches are completed in order, so the others come first, whether this one is to be tried again or not.
     */
    const int drained = drain_flights(executor);
    if (drained < 0)
        return drained;
    set_busy(executor, true);
    if (rc == -EBUSY || rc == -EAGAIN)
        rc = enqueue(executor, slot);
    if (rc == 0) {
        executor->in_flight++;
        executor->launches++;
        return 0;
    }
    rc = fail(executor, slot->index, &slot->batch, rc);
    if (rc == 0)
        set_busy(executor, false);
    return rc;
}

/* --- batches that are enqueued together ----------------------------------------------------------------------------
 */

static void add_taken(struct executor *executor, struct launch *launch)
{
    struct flight *flight = &launch->flights[launch->count];
    flight->started_ns = executor->now_ns;
    flight->watched = false;
    measure_taken(executor, flight, pace_took(&executor->paces[flight->index], flight->batch.rows));
    launch_add(launch, backend_of(executor, flight->index)->expert);
}

static int start_together(struct executor *executor, const struct launch *launch, uint32_t count)
{
    struct expert *experts[EXPERT_GROUP];
    struct expert_batch *batches[EXPERT_GROUP];
    for (uint32_t i = 0; i < count; i++) {
        struct flight *slot = slot_of(executor, i);
        *slot = launch->flights[i];
        slot->place = i;
        slot->of = count;
        set_work(executor, slot);
        experts[i] = backend_of(executor, slot->index)->expert;
        batches[i] = &slot->work;
    }
    if (FAILPOINT("batch"))
        return CL_OUT_OF_HOST_MEMORY;
    set_busy(executor, true);
    const int rc = expert_forward_group(experts, batches, count);
    if (rc != 0)
        return rc;
    executor->in_flight += count;
    executor->launches++;
    return 0;
}

/* What cannot be started together goes one by one. */
static int start_taken(struct executor *executor, const struct launch *launch)
{
    const uint32_t fit = launch_fitting(launch);
    const uint32_t together = fit > 1 && start_together(executor, launch, fit) == 0 ? fit : 0;
    int rc = 0;
    for (uint32_t i = together; i < launch->count && rc == 0; i++)
        rc = start(executor, &launch->flights[i]);
    return rc;
}

/* --- what is next ----------------------------------------------------------------------------------------------------
 */

/* Whether a batch of the pool may be taken now, and what it had better wait for. */
static bool may_take(struct executor *executor, uint32_t index, struct scheduler_wish *wish)
{
    const struct pace *pace = &executor->paces[index];
    *wish = (struct scheduler_wish){.rows = pace->until_ns > 0 ? pace->rows : 0, .until_ns = pace->until_ns};
    for (uint32_t i = 0; i < executor->in_flight; i++) {
        const uint32_t other = executor->flights[(executor->oldest + i) % FLIGHTS].index;
        if (other / 2 != index / 2)
            continue;
        /* One step after the other; and what became of the first one decides what of the next ones is to run. */
        if (index % 2 == POOL_BACKWARD && other == index)
            return false;
        if (!device_stages_rows(executor->setup.device))
            *wish = (struct scheduler_wish){.rows = PACE_FULL_ROWS, .until_ns = UINT64_MAX};
    }
    return true;
}

static int take(struct executor *executor, uint64_t *retry_ns)
{
    struct launch launch;
    struct scheduler_wish wish;
    uint32_t index;
    launch_begin(&launch);
    while (launch_has_room(&launch) && scheduler_next(executor->scheduler, executor->now_ns, &index, retry_ns) == 1) {
        struct flight *flight = &launch.flights[launch.count];
        if (!may_take(executor, index, &wish) || !launch_may_take(&launch, index, backend_of(executor, index)->expert))
            break;
        flight->index = index;
        if (scheduler_take(executor->scheduler, index, &wish, executor->now_ns, &flight->batch) == 1)
            add_taken(executor, &launch);
        else if (wish.until_ns == UINT64_MAX)
            break;
    }
    if (launch.count == 0)
        return 0;
    const int rc = start_taken(executor, &launch);
    return rc < 0 ? rc : 1;
}

static void fetch_handles(uint32_t pool, void *context)
{
    struct executor *executor = context;
    const struct backend_pool *side = side_of(executor, pool);
    scheduler_prefetch_handle(executor->scheduler, pool);
    __builtin_prefetch(&backend_of(executor, pool)->expert);
    __builtin_prefetch(&side->inputs[0]);
    __builtin_prefetch(&side->outputs[0]);
    __builtin_prefetch(&executor->paces[pool], 1);
}

static void fetch_shared(uint32_t pool, void *context)
{
    struct executor *executor = context;
    scheduler_prefetch(executor->scheduler, pool);
    __builtin_prefetch(backend_of(executor, pool)->expert);
}

static void on_ready(uint32_t pool, void *context)
{
    struct executor *executor = context;
    scheduler_notice(executor->scheduler, pool, executor->now_ns);
}

static control_visit *const ready_stages[] = {fetch_handles, fetch_shared, on_ready};

/* Waits until the oldest batch is done: true; or until there may be another one to put beside it. */
static bool await_oldest(struct executor *executor, uint64_t retry_ns)
{
    static const struct timespec nap = {.tv_nsec = 20 * NS_PER_US};
    const struct flight *flight = &executor->flights[executor->oldest];
    while (!expert_batch_is_done(&flight->work)) {
        const uint64_t now_ns = clock_now_ns();
        if (control_any_ready(executor->setup.control) || now_ns >= retry_ns)
            return false;
        /* Drivers of such devices wait like this too; a core is free meanwhile. */
        if (now_ns - executor->now_ns > spin_ns)
            nanosleep(&nap, NULL);
    }
    return true;
}

/* The same without a look now and then, which would take a core from the kernels: new tasks and the batch's end both
 * ring the bell. A small batch is over before another one is worth while. */
static bool sleep_with_oldest(struct executor *executor, uint64_t retry_ns)
{
    struct doorbell_word *bell = &executor->page->runtime_bell;
    struct flight *flight = &executor->flights[executor->oldest];
    if (flight->batch.rows < PACE_FULL_ROWS || flight->work.done == NULL)
        return true;
    if (!flight->watched && completion_watch(executor->completion, flight->work.done) != 0)
        return true;
    flight->watched = true;
    for (;;) {
        const uint32_t ticket = doorbell_prepare(bell);
        const uint64_t now_ns = clock_now_ns(), longest_ns = now_ns + NS_PER_S;
        const bool done = expert_batch_is_done(&flight->work);
        if (done || control_any_ready(executor->setup.control) || now_ns >= retry_ns) {
            doorbell_cancel(bell);
            return done;
        }
        doorbell_sleep(bell, ticket, retry_ns < longest_ns ? retry_ns : longest_ns);
    }
}

int executor_step(struct executor *executor, uint64_t *retry_ns)
{
    uint64_t ready_ns;
    executor->now_ns = clock_now_ns();
    *retry_ns = UINT64_MAX;
    if (finish_delayed(executor, false, &ready_ns) < 0)
        return -ENODEV;
    (void)control_take_ready(executor->setup.control, ready_stages, sizeof ready_stages / sizeof ready_stages[0],
                             executor);
    if (executor->launches < EXPERT_IN_FLIGHT) {
        const int rc = take(executor, retry_ns);
        if (rc != 0)
            return rc;
    }
    *retry_ns = ready_ns < *retry_ns ? ready_ns : *retry_ns;
    if (executor->in_flight == 0)
        return 0;
    /* What comes now is hidden behind the batch that computes: its upload, or at least its launch. */
    if (executor->launches < EXPERT_IN_FLIGHT) {
        const bool done = device_stages_rows(executor->setup.device) ? await_oldest(executor, *retry_ns)
                                                                     : sleep_with_oldest(executor, *retry_ns);
        if (!done)
            return 1;
    }
    const int rc = finish_oldest_launch(executor);
    return rc < 0 ? rc : 1;
}

/* --- beginning and end -----------------------------------------------------------------------------------------------
 */

void executor_add(struct executor *executor, uint32_t slot)
{
    for (uint32_t pool = 2 * slot; pool < 2 * slot + 2; pool++) {
        executor->paces[pool] = (struct pace){0};
        scheduler_add(executor->scheduler, pool, side_of(executor, pool)->pool, &backend_of(executor, pool)->limits);
        scheduler_notice(executor->scheduler, pool, executor->now_ns);
    }
}

void executor_remove(struct executor *executor, uint32_t slot)
{
    scheduler_remove(executor->scheduler, 2 * slot);
    scheduler_remove(executor->scheduler, 2 * slot + 1);
}

void executor_limit(struct executor *executor, uint32_t slot)
{
    for (uint32_t pool = 2 * slot; pool < 2 * slot + 2; pool++)
        scheduler_limit(executor->scheduler, pool, &backend_of(executor, pool)->limits);
}

void executor_detach(struct executor *executor)
{
    completion_destroy(&executor->completion);
}

int executor_create(struct executor **executor, const struct executor_setup *setup)
{
    struct executor *e = *executor = calloc(1, sizeof *e);
    if (!e)
        return -ENOMEM;
    e->setup = *setup;
    e->page = control_page(setup->control);
    frontend_bell_init(&e->bell, setup->run_dir, setup->server, e->page);
    e->paces = calloc(2 * (size_t)setup->count + 1, sizeof *e->paces);
    int rc = e->paces ? completion_create(&e->completion, &e->page->runtime_bell) : -ENOMEM;
    if (rc == 0)
        rc = scheduler_create(&e->scheduler, 2 * setup->count, on_skipped, e);
    if (rc < 0) {
        executor_destroy(executor);
        return rc;
    }
    e->now_ns = clock_now_ns();
    atomic_store_explicit(&e->page->runtime.busy_since_ns, 0, memory_order_relaxed);
    for (uint32_t slot = 0; slot < setup->count; slot++)
        if (setup->backends[slot].expert)
            executor_add(e, slot);
    return 0;
}

void executor_destroy(struct executor **executor)
{
    if (!*executor)
        return;
    scheduler_destroy(&(*executor)->scheduler);
    free((*executor)->paces);
    free((*executor)->delayed);
    completion_destroy(&(*executor)->completion);
    frontend_bell_close(&(*executor)->bell);
    free(*executor);
    *executor = NULL;
}
