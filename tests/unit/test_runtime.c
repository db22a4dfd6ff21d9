// timeout: 900
/* The real process: started, killed and started again, with this test as its frontend. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/doorbell.h"
#include "common/owner.h"
#include "common/shm.h"
#include "unit/support_device.h"
#include "unit/support_frontend.h"
#include "unit/support_pool.h"

/* Expert 0 is nop.0, expert 1 ffn.0; pools 2e and 2e + 1. */
enum { NOP = 0, NOP_BACKWARD = 1, FFN = 2, FFN_BACKWARD = 3, HIDDEN = 32 };

static char folder[128];
static pid_t child;
static struct support_frontend frontend;

/* --- the process -----------------------------------------------------------------------------------------------------
 */

static const char *more_device = "";

static void write_config(const char *more_ffn, const char *more)
{
    char path[160];
    snprintf(path, sizeof path, "%s/config.yaml", folder);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file,
            "server: {name: %s, run_dir: %s/run}\n"
            "devices:\n  - {name: device0, cache_dir: \"%s\"%s}\n"
            "experts:\n"
            "  - {uid: nop.0, block: nop, hidden_dim: %d, max_batch_size: 64}\n"
            "  - {uid: ffn.0, block: ffn, hidden_dim: %d, max_batch_size: 64%s}\n%s",
            support_server(), folder, support_device_cache(), more_device, HIDDEN, HIDDEN, more_ffn, more);
    fclose(file);
}

/* Starts expertd-runtime with its log in <folder>/log; its process id. */
static pid_t start(const char *flag)
{
    char program[160], config[160], log[160];
    const char *build = getenv("BUILD");
    snprintf(program, sizeof program, "%s/bin/expertd-runtime", build ? build : "build");
    snprintf(config, sizeof config, "%s/config.yaml", folder);
    snprintf(log, sizeof log, "%s/log", folder);
    const pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid > 0)
        return pid;
    const int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDERR_FILENO);
    dup2(fd, STDOUT_FILENO);
    setpgid(0, getppid()); /* libcheck kills the group of a test that hangs */
    execl(program, program, "--config", config, flag, NULL);
    _exit(127);
}

static int wait_for(pid_t pid)
{
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void kill_child(void)
{
    kill(child, SIGKILL);
    ck_assert_int_eq(wait_for(child), -SIGKILL);
    child = 0;
}

static void stop_child_as(int status)
{
    kill(child, SIGTERM);
    ck_assert_int_eq(wait_for(child), status);
    child = 0;
}

static void stop_child(void)
{
    stop_child_as(0);
}

static void expect_log(const char *what)
{
    char path[160], text[8192];
    snprintf(path, sizeof path, "%s/log", folder);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    ck_assert_msg(strstr(text, what), "\"%s\" is not in the log: %s", what, text);
}

static void wait_busy(void)
{
    const uint64_t until_ns = clock_now_ns() + 600 * NS_PER_S;
    while (atomic_load(&control_page(frontend.control)->runtime.busy_since_ns) == 0)
        ck_assert_msg(clock_now_ns() < until_ns, "it did not begin");
}

/* It looks after what it holds: once since, and then is at it again, so that the first time is over. It says each time
 * that it is idle; nothing else would, while nobody asks. */
static void wait_looked_after(void)
{
    _Atomic uint64_t *busy_since_ns = &control_page(frontend.control)->runtime.busy_since_ns;
    const uint64_t until_ns = clock_now_ns() + 600 * NS_PER_S;
    for (int look = 0; look < 2; look++) {
        atomic_store(busy_since_ns, 12345);
        while (atomic_load(busy_since_ns) != 0) {
            ck_assert_msg(clock_now_ns() < until_ns, "an idle runtime is busy for ever");
            ck_assert_msg(waitpid(child, NULL, WNOHANG) == 0, "it has ended");
            poll(NULL, 0, 5);
        }
    }
}

static void wait_asleep(void)
{
    const uint64_t until_ns = clock_now_ns() + 600 * NS_PER_S;
    while (atomic_load(&control_page(frontend.control)->runtime_bell.sleeping) == 0) {
        ck_assert_msg(clock_now_ns() < until_ns, "it does not sleep");
        poll(NULL, 0, 5);
    }
}

static void wait_retired(void)
{
    const uint64_t until_ns = clock_now_ns() + 600 * NS_PER_S;
    while (!control_retired(frontend.control)) {
        ck_assert_msg(clock_now_ns() < until_ns, "the old generation was not withdrawn");
        poll(NULL, 0, 5);
    }
}

/* A runtime that serves again what a dead one left is seen by its pid. */
static void wait_adopted(void)
{
    const uint64_t until_ns = clock_now_ns() + 600 * NS_PER_S;
    while (atomic_load(&control_page(frontend.control)->runtime.pid) != (uint32_t)child) {
        ck_assert_msg(clock_now_ns() < until_ns, "the segments were not adopted");
        poll(NULL, 0, 5);
    }
}

static void attach(void)
{
    char run_dir[160];
    snprintf(run_dir, sizeof run_dir, "%s/run", folder);
    support_frontend_open(&frontend, run_dir, support_server(), "device0");
}

static void start_and_attach(void)
{
    child = start(NULL);
    attach();
}

static void set_up(void)
{
    char run_dir[160];
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/runtime.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(run_dir, sizeof run_dir, "%s/run", folder);
    ck_assert_int_eq(owner_prepare_run_dir(run_dir), 0);
    write_config("", "");
}

static int remove_segment(const char *name, void *context)
{
    (void)context;
    return shm_remove(name);
}

static int found_segment(const char *name, void *context)
{
    (void)name, (void)context;
    return 1;
}

static void tear_down(void)
{
    char command[sizeof folder + 16];
    if (frontend.control)
        support_frontend_close(&frontend);
    if (child > 0)
        kill_child();
    ck_assert_int_eq(shm_each(support_server(), "device0.", remove_segment, NULL), 0);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

/* --- tests -----------------------------------------------------------------------------------------------------------
 */

/* In place as a CPU has it, or as a GPU does. */
static void choose_device(int number)
{
    static const char *const more[] = {"", ", slabs: staged", ", linear_kernel: gpu, slabs: staged"};
    more_device = more[number];
    write_config("", "");
}

START_TEST(forwards_and_backwards_are_served)
{
    struct pool_result result;
    choose_device(_i);
    start_and_attach();
    const uint64_t nop = support_frontend_put(&frontend, NOP, 3, 4.5f);
    const uint64_t ffn = support_frontend_put(&frontend, FFN, 64, 1);
    const uint64_t back = support_frontend_put(&frontend, FFN_BACKWARD, 2, 1);
    support_frontend_expect(&frontend, NOP, nop, STATUS_OK, 4.5f);
    ck_assert_int_eq(support_frontend_wait(&frontend, FFN, ffn, &result), STATUS_OK);
    const float *rows = (const float *)pool_output(frontend.pools[FFN], 0) + (size_t)result.row * HIDDEN;
    ck_assert(isfinite(rows[0]) && rows[0] == rows[63 * HIDDEN]); /* equal rows give equal rows */
    pool_release(frontend.pools[FFN], ffn);
    support_frontend_expect(&frontend, FFN_BACKWARD, back, STATUS_OK, NAN);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_STEPS), 1);
    ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 1)->runtime.updates), 1);
    ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 1)->runtime.examples), 2);
    const uint64_t bad = support_frontend_put(&frontend, FFN_BACKWARD, 2, NAN);
    support_frontend_expect(&frontend, FFN_BACKWARD, bad, STATUS_ABORTED, NAN);
    const uint64_t good = support_frontend_put(&frontend, FFN, 1, 1);
    support_frontend_expect(&frontend, FFN, good, STATUS_OK, NAN);
    stop_child();
    ck_assert(control_retired(frontend.control));
    expect_log("stopped");
}
END_TEST

START_TEST(tasks_queued_when_it_is_killed_are_done_by_the_next_one)
{
    uint64_t tasks[20], back;
    choose_device(_i);
    start_and_attach();
    const uint64_t generation = control_generation(frontend.control);
    kill(child, SIGSTOP);
    for (uint32_t i = 0; i < 20; i++)
        tasks[i] = support_frontend_put(&frontend, NOP, 1, (float)i);
    back = support_frontend_put(&frontend, FFN_BACKWARD, 1, 1);
    kill_child();
    child = start(NULL);
    for (uint32_t i = 0; i < 20; i++)
        support_frontend_expect(&frontend, NOP, tasks[i], STATUS_OK, (float)i);
    support_frontend_expect(&frontend, FFN_BACKWARD, back, STATUS_OK, NAN);
    ck_assert_uint_eq(control_generation(frontend.control), generation);
    expect_log("adopted");
}
END_TEST

/* Its pool, in which it is alone. */
static uint32_t start_with_long_backward(uint64_t *running)
{
    const uint32_t pool = 5;
    write_config("", "  - {uid: ffn.1, block: ffn, hidden_dim: 512, max_batch_size: 8192}\n");
    start_and_attach();
    *running = support_frontend_put(&frontend, pool, 8192, 1);
    wait_busy();
    return pool;
}

/* Nothing else marks the pool. */
START_TEST(what_the_next_one_ends_as_it_adopts_is_told)
{
    uint64_t running;
    const uint32_t pool = start_with_long_backward(&running);
    kill_child();
    child = start(NULL);
    support_frontend_expect(&frontend, pool, running, STATUS_UNAVAILABLE, NAN);
}
END_TEST

START_TEST(a_backward_that_runs_when_it_is_killed_is_answered_once)
{
    uint64_t running;
    choose_device(_i);
    const uint32_t pool = start_with_long_backward(&running);
    const uint64_t queued = support_frontend_put(&frontend, pool, 1, 1);
    kill_child();
    child = start(NULL);
    struct pool_result result;
    const enum status status = support_frontend_wait(&frontend, pool, running, &result);
    ck_assert_msg(status == STATUS_UNAVAILABLE, "%s", status_name(status));
    pool_release(frontend.pools[pool], running);
    support_frontend_expect(&frontend, pool, queued, STATUS_OK, NAN);
    ck_assert_int_eq(pool_next_result(frontend.pools[pool], &result), 0);
}
END_TEST

START_TEST(a_second_one_for_the_same_device_is_refused)
{
    start_and_attach();
    const pid_t second = start(NULL);
    ck_assert_int_eq(wait_for(second), 1);
    expect_log("has a running runtime.device0 already");
    const uint64_t task = support_frontend_put(&frontend, NOP, 1, 1);
    support_frontend_expect(&frontend, NOP, task, STATUS_OK, 1);
}
END_TEST

/* Killed, and started again with the configuration that is there by now: what it left does not fit that. */
static void expect_new_generation(void)
{
    const uint64_t generation = control_generation(frontend.control);
    child = start(NULL);
    wait_retired();
    support_frontend_close(&frontend);
    attach();
    ck_assert_uint_gt(control_generation(frontend.control), generation);
}

START_TEST(another_configuration_makes_a_new_generation)
{
    start_and_attach();
    kill(child, SIGSTOP);
    support_frontend_put(&frontend, NOP, 1, 1);
    kill_child();
    write_config(", learning_rate: 0.5", "");
    expect_new_generation();
    const uint64_t task = support_frontend_put(&frontend, NOP, 1, 2);
    support_frontend_expect(&frontend, NOP, task, STATUS_OK, 2);
    ck_assert_double_eq(control_expert(frontend.control, 1)->learning_rate, 0.5);
}
END_TEST

START_TEST(another_argument_of_a_block_makes_a_new_generation)
{
    write_config("", "  - {uid: delay.0, block: nop_delay, hidden_dim: 8, arguments: {delay: 0}}\n");
    start_and_attach();
    kill_child();
    write_config("", "  - {uid: delay.0, block: nop_delay, hidden_dim: 8, arguments: {delay: 0.001}}\n");
    expect_new_generation();
    ck_assert_double_eq(control_expert(frontend.control, 2)->arguments[0].value, 0.001);
}
END_TEST

/* What waits there is lost with them, and is to be asked again; what runs is not. */
START_TEST(what_runs_is_finished_before_segments_are_made_anew)
{
    struct pool_result result;
    start_and_attach();
    wait_asleep();
    kill(child, SIGSTOP);
    const uint64_t running = support_frontend_put(&frontend, FFN_BACKWARD, 1, 1);
    control_want_renewal(frontend.control); /* seen when the batch has begun */
    kill(child, SIGCONT);
    wait_retired();
    ck_assert_int_eq(pool_next_result(frontend.pools[FFN_BACKWARD], &result), 1);
    ck_assert(result.task == running && result.status == STATUS_OK);
    support_frontend_close(&frontend);
    attach();
    ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 1)->runtime.updates), 1);
    const uint64_t task = support_frontend_put(&frontend, NOP, 1, 2);
    support_frontend_expect(&frontend, NOP, task, STATUS_OK, 2);
}
END_TEST

/* A lock file that somebody removed is locked by another process, as a second runtime does before it is refused for the
 * segments' sake: this one does not end as well. */
START_TEST(a_role_is_not_lost_while_the_segments_are_held)
{
    char run_dir[160], lock[320];
    int other;
    start_and_attach();
    snprintf(run_dir, sizeof run_dir, "%s/run", folder);
    snprintf(lock, sizeof lock, "%s/%s.runtime.device0.lock", run_dir, support_server());
    do { /* it may have been faster */
        ck_assert_int_eq(unlink(lock), 0);
        other = owner_acquire(run_dir, support_server(), "runtime.device0");
    } while (other == -EBUSY);
    ck_assert_int_ge(other, 0);
    wait_looked_after();
    const uint64_t task = support_frontend_put(&frontend, NOP, 1, 2);
    support_frontend_expect(&frontend, NOP, task, STATUS_OK, 2);
    close(other);
    support_frontend_close(&frontend);
    stop_child();
    ck_assert_int_eq(shm_each(support_server(), "device0.", found_segment, NULL), 0);
}
END_TEST

START_TEST(a_frontend_that_comes_back_is_served_and_answers_nothing_of_the_old_one)
{
    struct pool_result result;
    start_and_attach();
    kill(child, SIGSTOP);
    const uint64_t old = support_frontend_put(&frontend, NOP, 1, 1);
    support_frontend_close(&frontend);
    attach();
    const uint64_t task = support_frontend_put(&frontend, NOP, 1, 2);
    kill(child, SIGCONT);
    (void)support_frontend_wait(&frontend, NOP, old, &result);
    ck_assert(result.orphan);
    pool_release(frontend.pools[NOP], old);
    support_frontend_expect(&frontend, NOP, task, STATUS_OK, 2);
}
END_TEST

static uint64_t request_checkpoint(uint32_t expert)
{
    struct control_expert_shared *record = control_expert(frontend.control, expert);
    struct control_shared *page = control_page(frontend.control);
    const uint64_t ticket = atomic_load(&record->frontend.checkpoint_requested) + 1;
    atomic_store(&record->frontend.checkpoint_requested, ticket);
    atomic_fetch_add(&page->frontend.checkpoint_commands, 1);
    doorbell_ring(&page->runtime_bell);
    return ticket;
}

static uint32_t wait_checkpoint(uint32_t expert, uint64_t ticket)
{
    struct control_expert_shared *record = control_expert(frontend.control, expert);
    const uint64_t until_ns = clock_now_ns() + 600 * NS_PER_S;
    while (atomic_load(&record->runtime.checkpoint_served) != ticket) {
        ck_assert_msg(clock_now_ns() < until_ns, "the checkpoint was not made");
        poll(NULL, 0, 2);
    }
    return atomic_load(&record->runtime.checkpoint_errno);
}

static bool has_checkpoint(const char *uid, unsigned step)
{
    char path[256];
    snprintf(path, sizeof path, "%s/checkpoints/%s/%020u.safetensors", folder, uid, step);
    return access(path, R_OK) == 0;
}

static void train(unsigned steps)
{
    for (unsigned i = 0; i < steps; i++) {
        const uint64_t task = support_frontend_put(&frontend, FFN_BACKWARD, 1, 1);
        support_frontend_expect(&frontend, FFN_BACKWARD, task, STATUS_OK, NAN);
    }
}

static float forward_of(float value)
{
    struct pool_result result;
    const uint64_t task = support_frontend_put(&frontend, FFN, 1, value);
    ck_assert_int_eq(support_frontend_wait(&frontend, FFN, task, &result), STATUS_OK);
    const float first = ((const float *)pool_output(frontend.pools[FFN], 0))[(size_t)result.row * HIDDEN];
    pool_release(frontend.pools[FFN], task);
    return first;
}

static void configure_checkpoints(const char *options)
{
    char text[256];
    snprintf(text, sizeof text, "checkpoint: {dir: %s/checkpoints%s}\n", folder, options);
    write_config("", text);
}

START_TEST(checkpoints_are_made_on_request_and_at_the_end_and_loaded_at_the_start)
{
    configure_checkpoints(", interval: 0, keep: 2");
    start_and_attach();
    train(3);
    ck_assert_uint_eq(wait_checkpoint(1, request_checkpoint(1)), 0);
    ck_assert(has_checkpoint("ffn.0", 3));
    ck_assert_uint_eq(wait_checkpoint(0, request_checkpoint(0)), 0); /* nop.0 has nothing to save */
    train(2);
    const float trained = forward_of(0.5f);
    support_frontend_close(&frontend);
    stop_child();
    ck_assert(has_checkpoint("ffn.0", 5));
    start_and_attach();
    ck_assert(forward_of(0.5f) == trained);
    ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 1)->runtime.updates), 5);
    train(1);
    kill_child(); /* the sixth step is lost, and only that */
    child = start(NULL);
    wait_adopted();
    ck_assert(forward_of(0.5f) == trained);
}
END_TEST

/* So that clients do not wait for files. */
START_TEST(at_the_end_the_segments_go_before_checkpoints_are_written)
{
    char path[256], prefix[128];
    alignas(struct inotify_event) char events[4096];
    bool gone = false, written = false;
    configure_checkpoints(", interval: 0");
    start_and_attach();
    train(1);
    ck_assert_uint_eq(wait_checkpoint(1, request_checkpoint(1)), 0);
    train(1);
    support_frontend_close(&frontend);
    snprintf(path, sizeof path, "%s/checkpoints/ffn.0", folder);
    snprintf(prefix, sizeof prefix, "expertd.%s.device0", support_server());
    const int fd = inotify_init1(IN_CLOEXEC); /* events of all that is watched are in their order */
    const int segments = inotify_add_watch(fd, "/dev/shm", IN_DELETE);
    ck_assert_int_ge(segments, 0);
    ck_assert_int_ge(inotify_add_watch(fd, path, IN_CREATE | IN_MOVED_TO), 0);
    stop_child();
    while (!written) {
        const ssize_t bytes = read(fd, events, sizeof events);
        ck_assert_int_gt(bytes, 0);
        for (ssize_t at = 0; at < bytes;) {
            const struct inotify_event *event = (const struct inotify_event *)(const void *)(events + at);
            gone |= event->wd == segments && strncmp(event->name, prefix, strlen(prefix)) == 0;
            written |= event->wd != segments;
            ck_assert(gone || !written);
            at += (ssize_t)(sizeof *event + event->len);
        }
    }
    close(fd);
}
END_TEST

START_TEST(checkpoints_are_made_on_an_interval_of_what_changed)
{
    configure_checkpoints(", interval: 0.05");
    start_and_attach();
    train(2);
    const uint64_t until_ns = clock_now_ns() + 600 * NS_PER_S;
    while (!has_checkpoint("ffn.0", 2)) {
        ck_assert_msg(clock_now_ns() < until_ns, "no checkpoint was made");
        poll(NULL, 0, 5);
    }
    ck_assert_uint_eq(wait_checkpoint(1, request_checkpoint(1)), 0);
    const uint64_t made = support_frontend_counter(&frontend, CONTROL_CHECKPOINTS);
    poll(NULL, 0, 200); /* four intervals without a change */
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_CHECKPOINTS), made);
}
END_TEST

START_TEST(what_says_that_it_is_busy_is_told_again)
{
    start_and_attach();
    wait_looked_after();
}
END_TEST

START_TEST(checkpoints_that_cannot_be_written_do_not_stop_the_serving)
{
    char path[160], command[200];
    configure_checkpoints(", interval: 0");
    snprintf(path, sizeof path, "%s/checkpoints", folder);
    start_and_attach();
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    ck_assert_int_eq(system(command), 0);
    FILE *file = fopen(path, "w"); /* where the folder should be */
    fclose(file);
    train(1);
    ck_assert_uint_eq(wait_checkpoint(1, request_checkpoint(1)), ENOTDIR);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_CHECKPOINT_ERRORS), 1);
    train(1);
    expect_log("no checkpoint of 'ffn.0'");
    /* And what is lost at the end is named, and in the exit status. */
    support_frontend_close(&frontend);
    stop_child_as(4);
    expect_log("lost: 2 updates (2 examples) of 'ffn.0' since its checkpoint after 0 updates: Not a directory");
}
END_TEST

START_TEST(damaged_checkpoints_are_refused_at_every_start_until_a_person_decides)
{
    char path[256];
    configure_checkpoints(", interval: 0");
    start_and_attach();
    train(2);
    support_frontend_close(&frontend);
    stop_child();
    snprintf(path, sizeof path, "%s/checkpoints/ffn.0/%020u.safetensors", folder, 2);
    ck_assert_int_eq(truncate(path, 1000), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(wait_for(start(NULL)), 1);
        expect_log("all are damaged");
        expect_log("--checkpoint-start-anew");
    }
    child = start("--checkpoint-start-anew=true");
    attach();
    expect_log("1 experts begin anew");
    ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 1)->runtime.updates), 0);
    train(1);
    support_frontend_close(&frontend);
    stop_child();
    start_and_attach();
    expect_log("1 experts are from their checkpoints in '");
    ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 1)->runtime.updates), 1);
}
END_TEST

/* Another server, with the same experts. */
START_TEST(a_folder_of_checkpoints_has_one_server_at_a_time)
{
    char config[160], command[640];
    configure_checkpoints("");
    start_and_attach();
    const pid_t first = child;
    snprintf(config, sizeof config, "%s/config.yaml", folder);
    snprintf(command, sizeof command, "sed -i 's/server: {name: /&x/' '%s'", config);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(wait_for(start(NULL)), 1);
    expect_log("another running server has the checkpoints of 'ffn.0'");
    support_frontend_close(&frontend);
    child = first;
    kill_child(); /* however it ends */
    ck_assert_int_eq(shm_each(support_server(), "device0.", remove_segment, NULL), 0);
    child = start(NULL);
    char server[128], run_dir[160];
    snprintf(server, sizeof server, "x%s", support_server());
    snprintf(run_dir, sizeof run_dir, "%s/run", folder);
    support_frontend_open(&frontend, run_dir, server, "device0");
    support_frontend_close(&frontend);
    stop_child();
}
END_TEST

/* A rolling upgrade: both processes end cleanly, the pools are made anew, and a client asks again. */
START_TEST(a_backward_is_applied_once_also_over_a_clean_restart)
{
    configure_checkpoints("");
    start_and_attach();
    train(3);
    const uint64_t client = frontend.client, next_request = frontend.next_request;
    support_frontend_close(&frontend);
    stop_child();
    start_and_attach();
    for (int restart = 0; restart < 2; restart++) {
        frontend.client = client;
        frontend.next_request = next_request - 3;
        for (int i = 0; i < 3; i++) {
            const uint64_t task = support_frontend_put(&frontend, FFN_BACKWARD, 1, 1);
            support_frontend_expect(&frontend, FFN_BACKWARD, task, STATUS_ALREADY_EXISTS, NAN);
        }
        ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 1)->runtime.updates), 3 + restart);
        /* Nothing is forgotten when the new one has learned something itself. */
        frontend.next_request = next_request + 100 * (uint64_t)(1 + restart);
        train(1);
        support_frontend_close(&frontend);
        stop_child();
        start_and_attach();
    }
}
END_TEST

START_TEST(a_start_says_what_was_loaded_from_where)
{
    char text[256], weights[512], command[640];
    configure_checkpoints("");
    start_and_attach();
    snprintf(text, sizeof text,
             "1 experts begin anew, from their seed, as '%s/checkpoints' has no checkpoint of theirs: ffn.0", folder);
    expect_log(text);
    train(1);
    support_frontend_close(&frontend);
    stop_child();
    snprintf(command, sizeof command, "mv '%s/checkpoints/ffn.0/%020u.safetensors' '%s/w.safetensors'", folder, 1,
             folder);
    ck_assert_int_eq(system(command), 0);
    snprintf(text, sizeof text, "checkpoint: {dir: %s/checkpoints}\n", folder);
    snprintf(weights, sizeof weights, ", weights: %s/w.safetensors", folder);
    write_config(weights, text);
    start_and_attach();
    expect_log("1 experts begin from the files of their `weights`, as they have no checkpoint: ffn.0");
    ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 1)->runtime.updates), 1);
    /* By names of its own, the same file gives its parameters alone. */
    support_frontend_close(&frontend);
    stop_child();
    snprintf(command, sizeof command, "rm -r '%s/checkpoints'", folder);
    ck_assert_int_eq(system(command), 0);
    snprintf(weights, sizeof weights,
             ", weights: %s/w.safetensors, tensors: {ffn.weight: ffn.weight, ffn.bias: ffn.bias, ffn_output.weight: "
             "ffn_output.weight, ffn_output.bias: ffn_output.bias, layer_norm.weight: layer_norm.weight, "
             "layer_norm.bias: layer_norm.bias}",
             folder);
    write_config(weights, text);
    start_and_attach();
    expect_log("has an optimizer's state ('optimizer.");
    expect_log(
        "1 experts begin from the parameters of a model, as they have no checkpoint, their optimizers anew: ffn.0");
    ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 1)->runtime.updates), 0);
}
END_TEST

START_TEST(a_start_without_a_folder_says_that_what_is_learned_ends_with_it)
{
    start_and_attach();
    expect_log(
        "no folder for checkpoints is configured (checkpoint.dir): what the experts learn ends with this process");
}
END_TEST

/* Its square is less than the smallest float, so that the step would be one by a root that is 0. */
START_TEST(a_step_that_would_make_what_is_not_finite_names_the_tensor)
{
    write_config(", optimizer: adam, epsilon: 0", "");
    start_and_attach();
    const float before = forward_of(0.5f);
    const uint64_t task = support_frontend_put(&frontend, FFN_BACKWARD, 1, 1e-25f);
    support_frontend_expect(&frontend, FFN_BACKWARD, task, STATUS_OK, NAN);
    expect_log("a step of 'ffn.0' would have made values of tensor 'layer_norm.bias' NaN or infinite");
    ck_assert(forward_of(0.5f) == before);
}
END_TEST

/* Its rounded matrices would take the place of the weights. */
START_TEST(what_does_not_train_is_never_written)
{
    more_device = ", precision: fp16";
    configure_checkpoints(", interval: 0.02");
    char text[256];
    snprintf(text, sizeof text, "checkpoint: {dir: %s/checkpoints, interval: 0.02}\n", folder);
    write_config(", optimizer: none", text);
    start_and_attach();
    train(3);
    ck_assert_uint_eq(wait_checkpoint(1, request_checkpoint(1)), 0);
    train(3);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_CHECKPOINTS), 0);
    support_frontend_close(&frontend);
    stop_child();
    snprintf(text, sizeof text, "%s/checkpoints/ffn.0", folder);
    ck_assert_int_eq(access(text, F_OK), -1);
    more_device = "";
}
END_TEST

START_TEST(without_a_folder_a_request_is_answered_so)
{
    start_and_attach();
    ck_assert_uint_eq(wait_checkpoint(1, request_checkpoint(1)), ENOTSUP);
}
END_TEST

START_TEST(what_is_wrong_with_the_start_is_said_in_the_exit_status)
{
    char weights[PATH_MAX + 16] = ", weights: ";
    ck_assert_ptr_nonnull(realpath("examples/data/digits-experts/ffn.0.0.safetensors", weights + strlen(weights)));
    write_config(", weights: /nowhere/x.safetensors", "");
    ck_assert_int_eq(wait_for(start(NULL)), 1);
    expect_log("/nowhere/x.safetensors");
    write_config(weights, "");
    ck_assert_int_eq(wait_for(start(NULL)), 1);
    expect_log("'ffn.weight' is F32[256, 64], expected F32[128, 32]");
    write_config("", "");
    ck_assert_int_eq(wait_for(start("--no-such-flag")), 2);
    ck_assert_int_eq(wait_for(start("--device=e")), 2);
    expect_log("no device 'e'");
    write_config(", nonsense: 1", "");
    ck_assert_int_eq(wait_for(start(NULL)), 2);
    more_device = ", memory: 24, slabs: staged";
    write_config("", "  - {uid: \"ffn.[1:11]\", block: ffn, hidden_dim: 256, max_batch_size: 64}\n");
    ck_assert_int_eq(wait_for(start(NULL)), 1);
    expect_log("device 'device0' has memory for 4 of the 12 experts (");
    more_device = "}\n  - {name: idle";
    write_config(", device: device0", "");
    ck_assert_int_eq(wait_for(start("--device=idle")), 1);
    expect_log("the configuration puts no expert on device 'idle'");
    more_device = "";
    write_config("", "");
    ck_assert_int_eq(wait_for(start("--list-devices")), 0);
    expect_log("compute units");
}
END_TEST

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 300);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    suite_add_tcase(suite, tcase);
    return tcase;
}

int main(void)
{
    Suite *suite = suite_create("runtime");
    TCase *tasks = add_case(suite, "tasks");
    tcase_add_loop_test(tasks, forwards_and_backwards_are_served, 0, 3);
    tcase_add_loop_test(tasks, tasks_queued_when_it_is_killed_are_done_by_the_next_one, 0, 2);
    tcase_add_loop_test(tasks, a_backward_that_runs_when_it_is_killed_is_answered_once, 0, 2);
    tcase_add_test(tasks, what_the_next_one_ends_as_it_adopts_is_told);
    tcase_add_test(tasks, a_backward_is_applied_once_also_over_a_clean_restart);
    tcase_add_test(tasks, what_says_that_it_is_busy_is_told_again);
    tcase_add_test(tasks, a_step_that_would_make_what_is_not_finite_names_the_tensor);
    TCase *segments = add_case(suite, "segments");
    tcase_add_test(segments, a_second_one_for_the_same_device_is_refused);
    tcase_add_test(segments, another_configuration_makes_a_new_generation);
    tcase_add_test(segments, another_argument_of_a_block_makes_a_new_generation);
    tcase_add_test(segments, what_runs_is_finished_before_segments_are_made_anew);
    tcase_add_test(segments, a_role_is_not_lost_while_the_segments_are_held);
    tcase_add_test(segments, a_frontend_that_comes_back_is_served_and_answers_nothing_of_the_old_one);
    TCase *checkpoints = add_case(suite, "checkpoints");
    tcase_add_test(checkpoints, checkpoints_are_made_on_request_and_at_the_end_and_loaded_at_the_start);
    tcase_add_test(checkpoints, at_the_end_the_segments_go_before_checkpoints_are_written);
    tcase_add_test(checkpoints, checkpoints_are_made_on_an_interval_of_what_changed);
    tcase_add_test(checkpoints, checkpoints_that_cannot_be_written_do_not_stop_the_serving);
    tcase_add_test(checkpoints, damaged_checkpoints_are_refused_at_every_start_until_a_person_decides);
    tcase_add_test(checkpoints, a_folder_of_checkpoints_has_one_server_at_a_time);
    tcase_add_test(checkpoints, what_does_not_train_is_never_written);
    tcase_add_test(checkpoints, without_a_folder_a_request_is_answered_so);
    TCase *start_cases = add_case(suite, "start");
    tcase_add_test(start_cases, a_start_says_what_was_loaded_from_where);
    tcase_add_test(start_cases, a_start_without_a_folder_says_that_what_is_learned_ends_with_it);
    tcase_add_test(start_cases, what_is_wrong_with_the_start_is_said_in_the_exit_status);
    return support_pool_main(suite);
}
