/* Both sides at once, on a pool so small that it wraps and fills thousands of times; every row's content is checked on
 * both sides. Two processes, as it is; and two threads over one mapping, which a thread sanitizer can watch. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/doorbell.h"
#include "support_pool.h"

enum { COLUMNS = 16, ROWS = 251, TASKS = 128, BATCH = 29, HELD = 5 };
static const uint64_t bound_ns = 100 * NS_PER_S;

/* Where each side sleeps; shared with children. */
struct bells {
    struct doorbell_word runtime, frontend;
};
static struct bells *bells;

static void setup(void)
{
    bells = mmap(NULL, sizeof *bells, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(bells, MAP_FAILED);
}

/* More of them with POOL_STREAM_TASKS=200000, for a long run. */
static uint64_t tasks_to_stream(void)
{
    const char *wanted = getenv("POOL_STREAM_TASKS");
    return wanted ? strtoull(wanted, NULL, 10) : 30000;
}

static uint64_t soon_ns(void)
{
    return clock_now_ns() + 100 * NS_PER_MS;
}

static uint32_t mix(uint64_t seed)
{
    seed = (seed ^ (seed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    seed = (seed ^ (seed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(seed >> 32);
}

static uint32_t input_of(uint64_t task, uint32_t row, uint32_t column)
{
    return mix(task * 1024 + row * COLUMNS + column + 1);
}

/* The runtime: checks that the batch is one task behind the other, of the right rows and contents. */
static bool work_off(struct pool *pool, const struct pool_batch *batch)
{
    uint32_t next = 0;
    if (batch->rows == 0 || batch->rows > BATCH || batch->row + batch->rows > ROWS)
        return false;
    for (uint32_t t = 0; t < batch->tasks; t++) {
        uint32_t row, rows;
        pool_batch_task(pool, batch, t, &row, &rows);
        if (row != next)
            return false;
        next += rows;
        for (uint32_t r = 0; r < rows; r++) {
            const size_t at = (size_t)(batch->row + row + r) * COLUMNS;
            const uint32_t *in = (const uint32_t *)pool_input(pool, 0) + at;
            uint32_t *out = (uint32_t *)pool_output(pool, 0) + at;
            for (uint32_t c = 0; c < COLUMNS; c++) {
                if (in[c] != input_of(batch->first_task + t, r, c))
                    return false;
                out[c] = ~in[c];
            }
        }
    }
    return next == batch->rows;
}

/* Two batches in flight, as a device has them. */
static bool run_runtime(struct pool *pool, uint64_t tasks)
{
    const uint64_t end_ns = clock_now_ns() + bound_ns;
    struct pool_batch flight[2];
    int flying = 0;
    for (uint64_t done = 0; done < tasks;) {
        uint64_t retry_ns;
        uint32_t completed;
        const int rc =
            pool_take(pool, &(struct pool_limits){0, 0}, clock_now_ns(), &flight[flying], &retry_ns, &completed);
        if (rc < 0)
            return false;
        done += completed;
        flying += rc;
        if (completed > 0)
            doorbell_ring(&bells->frontend);
        if (flying == 2 || (flying == 1 && rc == 0)) {
            if (!work_off(pool, &flight[0]))
                return false;
            if (pool_header(pool)->kind == POOL_BACKWARD)
                pool_applied(pool, &flight[0]);
            pool_complete(pool, &flight[0], STATUS_OK, NULL);
            doorbell_ring(&bells->frontend);
            done += flight[0].tasks;
            flight[0] = flight[1];
            flying--;
        } else if (rc == 0 && done < tasks) {
            const uint32_t ticket = doorbell_prepare(&bells->runtime);
            if (pool_tasks_queued(pool) == 0)
                doorbell_sleep(&bells->runtime, ticket, soon_ns());
            else
                doorbell_cancel(&bells->runtime);
            if (clock_now_ns() > end_ns)
                return false;
        }
    }
    return true;
}

struct stream {
    struct pool *pool;
    uint64_t sent, answered, cancelled, random;
    uint64_t held[HELD]; /* results that are released later, and not in order */
    uint32_t holding;
};

static void fill(struct stream *s, const struct pool_claim *claim)
{
    uint32_t *in = (uint32_t *)pool_input(s->pool, 0) + (size_t)claim->row * COLUMNS;
    for (uint32_t r = 0; r < claim->rows; r++)
        for (uint32_t c = 0; c < COLUMNS; c++)
            in[r * COLUMNS + c] = input_of(claim->task, r, c);
}

static bool send_one(struct stream *s)
{
    struct pool_claim claim;
    const uint32_t random = mix(++s->random);
    const int rc = pool_claim(s->pool, 1 + random % (random % 8 == 0 ? BATCH : 4), &claim);
    ck_assert(rc == 0 || rc == -EAGAIN);
    if (rc != 0)
        return false;
    fill(s, &claim);
    pool_commit(s->pool, &claim,
                &(struct pool_task){.queued_ns = clock_now_ns(), .client = {1, 1}, .request_id = claim.task});
    s->sent++;
    if (random % 61 == 0) {
        pool_cancel(s->pool, claim.task);
        s->cancelled++;
    }
    return true;
}

/* A few at once, as a frontend drains its socket; false if there was no room for one. */
static bool send_some(struct stream *s, uint64_t limit)
{
    uint32_t sent = 0;
    for (uint32_t burst = 1 + mix(++s->random) % 32; sent < burst && s->sent < limit && send_one(s); sent++)
        ;
    doorbell_ring(&bells->runtime);
    return sent > 0;
}

static bool answer_one(struct stream *s)
{
    struct pool_result result;
    const int rc = pool_next_result(s->pool, &result);
    ck_assert_int_ge(rc, 0);
    if (rc == 0)
        return false;
    ck_assert_uint_eq(result.task, s->answered++);
    ck_assert(!result.orphan);
    if (result.status == STATUS_OK) {
        const uint32_t *out = (const uint32_t *)pool_output(s->pool, 0) + (size_t)result.row * COLUMNS;
        for (uint32_t r = 0; r < result.rows; r++)
            for (uint32_t c = 0; c < COLUMNS; c++)
                ck_assert_uint_eq(out[r * COLUMNS + c], (uint32_t)~input_of(result.task, r, c));
    } else {
        ck_assert_int_eq(result.status, STATUS_DEADLINE_EXCEEDED);
        ck_assert_uint_gt(s->cancelled, 0);
    }
    s->held[s->holding++] = result.task;
    return true;
}

/* There is nothing to send, or no room for it: sleeps until there is a result. */
static void wait_for_result(const struct stream *s, uint64_t end_ns)
{
    const uint32_t ticket = doorbell_prepare(&bells->frontend);
    if (atomic_load(&s->pool->shared->runtime.done) == s->answered)
        doorbell_sleep(&bells->frontend, ticket, soon_ns());
    else
        doorbell_cancel(&bells->frontend);
    ck_assert_uint_lt(clock_now_ns(), end_ns);
}

static void run_frontend(struct pool *pool, uint64_t tasks)
{
    const uint64_t end_ns = clock_now_ns() + bound_ns;
    struct stream s = {.pool = pool};
    while (s.answered < tasks) {
        const bool sent = send_some(&s, tasks);
        bool answered = false;
        while (s.holding < HELD && answer_one(&s))
            answered = true;
        bool moved = sent || answered;
        /* In any order; but all of them when nothing moves, for they are what nothing moves for. */
        for (bool all = !moved; s.holding == HELD || (s.holding > 0 && all); moved = true) {
            const uint32_t i = mix(++s.random) % s.holding;
            pool_release(pool, s.held[i]);
            s.held[i] = s.held[--s.holding];
        }
        if (!moved)
            wait_for_result(&s, end_ns);
    }
    while (s.holding > 0)
        pool_release(pool, s.held[--s.holding]);
    ck_assert_uint_eq(pool_tasks_held(pool), 0);
}

static void open_stream(struct pool_pair *pair, enum pool_kind kind)
{
    support_layout(pair, kind, ROWS, TASKS, BATCH, COLUMNS);
    pair->layout.inputs.tensors[0].dtype = pair->layout.outputs.tensors[0].dtype = DTYPE_INT32;
    ck_assert_int_eq(pool_create(&pair->runtime, &pair->layout), 0);
}

START_TEST(two_processes_stream_tasks)
{
    const uint64_t tasks = tasks_to_stream();
    struct pool_pair pair;
    open_stream(&pair, (enum pool_kind)_i);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(!run_runtime(pair.runtime, tasks));
    }
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, pair.layout.index), 0);
    run_frontend(pair.frontend, tasks);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    support_close(&pair);
}
END_TEST

struct runtime_thread {
    struct pool *pool;
    uint64_t tasks;
    bool ok;
};

static void *runtime_thread(void *context)
{
    struct runtime_thread *thread = context;
    thread->ok = run_runtime(thread->pool, thread->tasks);
    return NULL;
}

START_TEST(two_threads_over_one_mapping_stream_tasks)
{
    struct pool_pair pair;
    open_stream(&pair, (enum pool_kind)_i);
    struct pool *runtime = pair.runtime;
    ck_assert_int_eq(
        pool_open_view(&pair.frontend, runtime->shared, runtime->mapped_bytes, runtime->name, POOL_PRODUCER, true), 0);
    struct runtime_thread thread = {.pool = runtime, .tasks = tasks_to_stream() / 3};
    pthread_t id;
    ck_assert_int_eq(pthread_create(&id, NULL, runtime_thread, &thread), 0);
    run_frontend(pair.frontend, thread.tasks);
    ck_assert_int_eq(pthread_join(id, NULL), 0);
    ck_assert(thread.ok);
    support_close(&pair);
}
END_TEST

/* Kills the runtime again and again while the frontend streams: every task is answered once, in order, and right. */
START_TEST(a_stream_survives_runtimes_that_are_killed)
{
    struct pool_pair pair;
    struct pool_result result;
    open_stream(&pair, POOL_FORWARD);
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, 0), 0);
    pool_detach(&pair.runtime);
    struct stream s = {.pool = pair.frontend};
    for (int life = 0; life < 30; life++) {
        const uint64_t end_ns = clock_now_ns() + bound_ns, target = s.answered + 100 + 17 * (uint64_t)life;
        const pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            struct pool *pool;
            if (pool_adopt(&pool, &pair.layout) == 0)
                (void)run_runtime(pool, UINT64_MAX);
            _exit(1);
        }
        while (s.answered < target) {
            const bool sent = send_some(&s, UINT64_MAX);
            if (answer_one(&s))
                pool_release(s.pool, s.held[--s.holding]);
            else if (!sent)
                wait_for_result(&s, end_ns);
        }
        ck_assert_int_eq(kill(child, SIGKILL), 0);
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status));
    }
    ck_assert_int_eq(pool_adopt(&pair.runtime, &pair.layout), 0);
    ck_assert(run_runtime(pair.runtime, pool_tasks_queued(pair.runtime)));
    while (answer_one(&s))
        pool_release(s.pool, s.held[--s.holding]);
    ck_assert_int_eq(pool_next_result(s.pool, &result), 0);
    ck_assert_uint_eq(s.answered, s.sent);
    support_close(&pair);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("pool_stream");
    tcase_set_timeout(all, 110);
    tcase_add_checked_fixture(all, setup, NULL);
    tcase_add_loop_test(all, two_processes_stream_tasks, 0, 2);
    tcase_add_loop_test(all, two_threads_over_one_mapping_stream_tasks, 0, 2);
    tcase_add_test(all, a_stream_survives_runtimes_that_are_killed);
    Suite *suite = suite_create("pool_stream");
    suite_add_tcase(suite, all);
    return support_pool_main(suite);
}
