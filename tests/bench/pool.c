/* What a task costs in a pool, beside the work: claim, commit, take, complete, result, release. In one process (the
 * bookkeeping alone) and between two (and the cache lines that move). Also what many pools cost.
 *
 *     build/bench/pool [tasks] */
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "pools/control.h"
#include "pools/pool.h"

static char server[32];
static const struct pool_limits at_once = {0, 0};

static void need(int rc, const char *what)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "pool: %s: %s\n", what, strerror(-rc));
    exit(1);
}

static long page_faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

static struct pool_layout layout_of(enum pool_kind kind, uint32_t index)
{
    struct pool_layout layout = {.server = server,
                                 .device = "bench",
                                 .generation = 1,
                                 .index = index,
                                 .kind = kind,
                                 .uid = "nop.0",
                                 .max_batch_size = 1024,
                                 .queue_rows = 4096,
                                 .queue_tasks = 1024};
    layout.inputs.count = layout.outputs.count = 1;
    layout.inputs.tensors[0] = (struct tensor_desc){.dtype = DTYPE_FLOAT32, .ndim = 1, .dims = {1024}, .name = "x"};
    layout.outputs.tensors[0] = layout.inputs.tensors[0];
    return layout;
}

static int put(struct pool *pool, uint64_t task)
{
    struct pool_claim claim;
    const int rc = pool_claim(pool, 1, &claim);
    if (rc == 0)
        pool_commit(pool, &claim, &(struct pool_task){.queued_ns = 1, .client = {1, 1}, .request_id = task});
    return rc;
}

static uint32_t take_and_complete(struct pool *pool)
{
    struct pool_batch batch;
    uint64_t retry_ns;
    uint32_t completed;
    const int rc = pool_take(pool, &at_once, 1000, &batch, &retry_ns, &completed);
    need(rc, "pool_take");
    if (rc == 0)
        return completed;
    if (pool_header(pool)->kind == POOL_BACKWARD)
        pool_applied(pool, &batch);
    pool_complete(pool, &batch, STATUS_OK, NULL);
    return completed + batch.tasks;
}

static uint32_t answer_all(struct pool *pool)
{
    struct pool_result result;
    uint32_t answered = 0;
    while (pool_next_result(pool, &result) == 1) {
        pool_release(pool, result.task);
        answered++;
    }
    return answered;
}

static void open_pair(enum pool_kind kind, struct pool **runtime, struct pool **frontend)
{
    const struct pool_layout layout = layout_of(kind, 0);
    need(pool_create(runtime, &layout), "pool_create");
    need(pool_attach(frontend, server, "bench", 1, 0), "pool_attach");
}

static void close_pair(struct pool **runtime, struct pool **frontend)
{
    pool_detach(runtime);
    pool_detach(frontend);
    pool_remove(server, "bench", 1, 0);
}

/* Of this process only: other work on the box does not count. */
static uint64_t cpu_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void one_process(enum pool_kind kind, uint64_t tasks, uint32_t batch)
{
    struct pool *runtime, *frontend;
    open_pair(kind, &runtime, &frontend);
    uint64_t begin_ns = 0, sent = 0;
    long faults = 0;
    for (uint64_t warm_up = 4096, total = tasks + warm_up; sent < total;) {
        if (begin_ns == 0 && sent >= warm_up) {
            begin_ns = cpu_now_ns();
            faults = page_faults();
        }
        for (uint32_t i = 0; i < batch; i++)
            need(put(frontend, sent++), "pool_claim");
        (void)take_and_complete(runtime);
        (void)answer_all(frontend);
    }
    const uint64_t ns = cpu_now_ns() - begin_ns;
    printf("%-8s one process, batches of %4" PRIu32 ": %6.1f ns of CPU a task, %ld page faults\n",
           kind == POOL_FORWARD ? "forward" : "backward", batch, (double)ns / (double)tasks, page_faults() - faults);
    close_pair(&runtime, &frontend);
}

/* Spins, so that only the pool is measured; the doorbell has a figure of its own. */
static void two_processes(enum pool_kind kind, uint64_t tasks, uint32_t in_flight)
{
    struct pool *runtime, *frontend;
    open_pair(kind, &runtime, &frontend);
    const pid_t child = fork();
    need(child < 0 ? -1 : 0, "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (uint64_t done = 0; done < tasks;) {
            const uint32_t now = take_and_complete(runtime);
            done += now;
            if (now == 0)
                sched_yield();
        }
        _exit(0);
    }
    const uint64_t begin_ns = clock_now_ns();
    for (uint64_t sent = 0, answered = 0; answered < tasks;) {
        bool moved = false;
        while (sent < tasks && sent - answered < in_flight && put(frontend, sent) == 0) {
            sent++;
            moved = true;
        }
        const uint32_t now = answer_all(frontend);
        answered += now;
        if (now == 0 && !moved)
            sched_yield();
    }
    const uint64_t ns = clock_now_ns() - begin_ns;
    waitpid(child, NULL, 0);
    printf("%-8s two processes, %4" PRIu32 " in flight:  %6.1f ns/task\n",
           kind == POOL_FORWARD ? "forward" : "backward", in_flight, (double)ns / (double)tasks);
    close_pair(&runtime, &frontend);
}

static void many_pools(uint32_t pools)
{
    struct control *control;
    struct pool **made = calloc(pools, sizeof(struct pool *)), **found = calloc(pools, sizeof(struct pool *));
    if (!made || !found)
        need(-12, "calloc");
    const uint64_t begin_ns = clock_now_ns();
    need(control_create(&control, server, "bench", 1, pools / 2), "control_create");
    for (uint32_t i = 0; i < pools; i++) {
        const struct pool_layout layout = layout_of(i % 2 ? POOL_BACKWARD : POOL_FORWARD, i);
        need(pool_create(&made[i], &layout), "pool_create");
    }
    const uint64_t made_ns = clock_now_ns();
    for (uint32_t i = 0; i < pools; i++)
        need(pool_attach(&found[i], server, "bench", 1, i), "pool_attach");
    const uint64_t found_ns = clock_now_ns();
    uint64_t when_ns;
    uint32_t completed;
    for (uint32_t i = 0; i < pools; i++)
        need(pool_oldest(made[i], 1, &when_ns, &completed), "pool_oldest");
    const uint64_t looked_ns = clock_now_ns();
    printf("%" PRIu32 " pools: made in %.0f ms, attached in %.0f ms, looked at in %.2f ms\n", pools,
           (double)(made_ns - begin_ns) / 1e6, (double)(found_ns - made_ns) / 1e6,
           (double)(looked_ns - found_ns) / 1e6);
    for (uint32_t i = 0; i < pools; i++) {
        pool_detach(&made[i]);
        pool_detach(&found[i]);
    }
    control_retire(&control);
    free(made);
    free(found);
}

int main(int argc, char **argv)
{
    const uint64_t tasks = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    snprintf(server, sizeof server, "bench%ld", (long)getpid());
    setvbuf(stdout, NULL, _IOLBF, 0);
    static const uint32_t sizes[] = {1, 16, 256};
    for (int kind = POOL_FORWARD; kind <= POOL_BACKWARD; kind++) {
        for (int i = 0; i < 3; i++)
            one_process((enum pool_kind)kind, tasks, sizes[i]);
        for (int i = 0; i < 3; i++)
            two_processes((enum pool_kind)kind, tasks, sizes[i]);
    }
    many_pools(8192);
    return 0;
}
