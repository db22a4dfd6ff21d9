#include "runtime/runtime.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/device_loss.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/owner.h"
#include "common/process.h"
#include "runtime/changes.h"
#include "runtime/compute/compute.h"
#include "runtime/runtime_state.h"
#include "runtime/segments.h"
#include "runtime/serve/pace.h"
#include "runtime/slots.h"

/* How often what is held is looked after. Nor does it sleep longer, whatever the doorbell does: see common/doorbell.h
 * on ringers that were killed. */
static const uint64_t names_ns = NS_PER_S / 4;
enum { NAP_NS = 40000, TIMER_SLACK_NS = 1000 };

static uint64_t process_page_faults(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)(usage.ru_minflt + usage.ru_majflt) : 0;
}

static void role_of(const struct runtime *runtime, char *role, size_t size)
{
    snprintf(role, size, "runtime.%s", runtime->entry->name);
}

static int take_role(struct runtime *runtime)
{
    const struct config_server *server = &runtime->config->server;
    char role[128];
    role_of(runtime, role, sizeof role);
    runtime->owner_fd = owner_acquire(server->run_dir, server->name, role);
    if (runtime->owner_fd < 0)
        return runtime->owner_fd;
    return control_check_free(server->name, runtime->entry->name); /* before minutes are spent on what it is to serve */
}

static int create_checkpointer(struct runtime *runtime)
{
    struct checkpointer_expert *experts = slots_checkpointer_experts(runtime);
    if (!experts)
        return -ENOMEM;
    const int rc = checkpointer_create(&runtime->checkpointer, &runtime->config->checkpoint, runtime->checkpoint_owner,
                                       experts, runtime->slots, runtime->control);
    free(experts);
    return rc;
}

static int create_executor(struct runtime *runtime)
{
    const struct executor_setup setup = {
        .backends = runtime->backends,
        .count = runtime->slots,
        .control = runtime->control,
        .device = runtime->device,
        .run_dir = runtime->config->server.run_dir,
        .server = runtime->config->server.name,
    };
    return executor_create(&runtime->executor, &setup);
}

static int create_workers(struct runtime *runtime)
{
    int rc = create_executor(runtime);
    if (rc == 0)
        rc = create_checkpointer(runtime);
    if (rc < 0)
        log_error("cannot start: %s", strerror(-rc));
    return rc;
}

static void open_doors(struct runtime *runtime)
{
    process_stop_futex(&control_page(runtime->control)->runtime_bell.bell);
    control_publish(runtime->control);
    executor_ring_always(runtime->executor);
}

int runtime_create(struct runtime **runtime, const struct config *config, const struct config_device *device)
{
    const uint64_t started_ns = clock_now_ns();
    struct runtime *r = *runtime = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->config = r->live = config;
    r->entry = device;
    r->owner_fd = -1;
    int rc = take_role(r);
    if (rc == 0)
        device_cache_begin(device);
    if (rc == 0)
        rc = device_probe();
    if (rc == 0)
        rc = device_open(&r->device, device);
    if (rc == 0)
        rc = compute_open(r->device);
    if (rc == 0)
        device_loss_forget(config->server.run_dir, config->server.name, device->name);
    if (rc == 0)
        rc = changes_create(&r->changes, r);
    if (rc == 0)
        rc = slots_fill(r);
    if (rc == 0)
        rc = segments_open(r);
    if (rc == 0)
        rc = create_workers(r);
    if (rc == 0)
        changes_begin(r->changes);
    /* The signal may have ended the driver's compiler too, when it came to the whole group. */
    if (rc < 0 && process_stopping())
        rc = -EINTR;
    if (rc < 0) {
        if (rc != -EIO) /* else the driver may have refused what it had kept */
            device_cache_settled();
        if (rc == -EINTR) /* a clean end, if an early one */
            (void)control_remove(config->server.name, device->name);
        runtime_destroy(runtime);
        return rc;
    }
    device_cache_settled();
    r->page_faults.counted = process_page_faults();
    open_doors(r);
    reporter_begin(&r->reporter, config->server.stats_interval, r->control, clock_now_ns());
    log_info("ready: %" PRIu32 " experts on device '%s' after %" PRIu64 " ms", r->made, device->name,
             (clock_now_ns() - started_ns) / NS_PER_MS);
    return 0;
}

static void show_process(struct runtime *runtime, uint64_t now_ns)
{
    if (now_ns < runtime->page_faults.next_ns)
        return;
    const uint64_t faults = process_page_faults();
    control_count(runtime->control, CONTROL_PAGE_FAULTS, faults - runtime->page_faults.counted);
    control_set(runtime->control, CONTROL_MEMORY_USED, device_memory_used(runtime->device));
    control_set(runtime->control, CONTROL_MEMORY_LIMIT, device_memory_budget(runtime->device));
    runtime->page_faults.counted = faults;
    runtime->page_faults.next_ns = now_ns + NS_PER_S;
}

/* All of them, under the next generation: both sides begin anew, and what waits is answered. */
static int renew_segments(struct runtime *runtime, const char *why)
{
    int rc = executor_drain(runtime->executor);
    if (rc < 0)
        return rc;
    log_error("the segments of device '%s' are made anew: %s; requests that wait there are answered UNAVAILABLE",
              runtime->entry->name, why);
    changes_abort(runtime->changes);
    checkpointer_detach(runtime->checkpointer);
    process_stop_futex(NULL);
    executor_destroy(&runtime->executor); /* first: what the driver still owes rings in the control segment */
    segments_close(runtime);
    rc = segments_create(runtime);
    if (rc < 0)
        return rc;
    rc = create_executor(runtime);
    if (rc < 0)
        return rc;
    struct checkpointer_expert *experts = slots_checkpointer_experts(runtime);
    if (!experts)
        return -ENOMEM;
    checkpointer_attach(runtime->checkpointer, experts, runtime->control);
    free(experts);
    open_doors(runtime);
    return 0;
}

/* Looks after lock and segments. -EBUSY: another process has the role, and may have the device. */
static int look_after_names(struct runtime *runtime, uint64_t now_ns)
{
    char role[128];
    if (now_ns < runtime->names.next_ns && !control_renewal_wanted(runtime->control))
        return 0;
    runtime->names.next_ns = now_ns + names_ns;
    log_bursts_settle();
    reporter_look(&runtime->reporter, runtime->control, now_ns);
    executor_tell_busy(runtime->executor);
    const struct config_server *server = &runtime->config->server;
    role_of(runtime, role, sizeof role);
    /* Whoever took it while its file was gone is refused, and gives it back, as long as the segments are ours. */
    if (owner_keep(&runtime->owner_fd, server->run_dir, server->name, role) == -EBUSY &&
        !control_holds_name(runtime->control)) {
        runtime->lost_role = true;
        return -EBUSY;
    }
    const char *why = segments_fault(runtime, now_ns);
    return why ? renew_segments(runtime, why) : 0;
}

/* For the moment that a batch waits for more rows: each of them would ring the bell, and wake this thread to count. */
static void nap(void)
{
    const struct timespec time = {.tv_nsec = NAP_NS};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

static void sleep_until(struct runtime *runtime, uint64_t deadline_ns)
{
    struct doorbell_word *bell = &control_page(runtime->control)->runtime_bell;
    const uint32_t ticket = doorbell_prepare(bell);
    if (control_any_ready(runtime->control) || control_renewal_wanted(runtime->control) ||
        checkpointer_has_work(runtime->checkpointer) || changes_wanted(runtime->changes) || process_stopping()) {
        doorbell_cancel(bell);
        return;
    }
    control_count(runtime->control, CONTROL_SLEEPS, 1);
    doorbell_sleep(bell, ticket, deadline_ns);
}

/* Not while batches are computed and none ends. */
static void tell_alive(struct runtime *runtime, bool idle, uint64_t now_ns)
{
    const uint64_t completed =
        atomic_load_explicit(&control_page(runtime->control)->runtime.completed_batches, memory_order_relaxed);
    if (idle || completed != runtime->completed_told)
        notify_alive(now_ns);
    runtime->completed_told = completed;
}

int runtime_serve(struct runtime *runtime)
{
    (void)prctl(PR_SET_TIMERSLACK, (unsigned long)TIMER_SLACK_NS); /* of this thread: for naps; 50 us by default */
    uint64_t spin_until_ns = 0;
    while (!process_stopping()) {
        uint64_t retry_ns;
        int rc = executor_step(runtime->executor, &retry_ns);
        if (rc < 0)
            return rc;
        const uint64_t now_ns = clock_now_ns();
        if (rc > 0)
            spin_until_ns = now_ns + runtime->config->server.spin * 1000;
        if (checkpointer_step(runtime->checkpointer, now_ns))
            executor_ring(runtime->executor);
        show_process(runtime, now_ns);
        tell_alive(runtime, rc == 0, now_ns);
        const int kept = look_after_names(runtime, now_ns);
        if (kept < 0)
            return kept;
        int lost = 0;
        const bool changing = changes_step(runtime->changes, &lost);
        if (lost < 0)
            return lost;
        if (checkpointer_wants_copy(runtime->checkpointer)) {
            rc = executor_drain(runtime->executor);
            if (rc == 0)
                rc = checkpointer_copy(runtime->checkpointer);
            if (rc < 0)
                return rc;
        } else if (rc == 0 && !changing) {
            const uint64_t next_ns = checkpointer_next_ns(runtime->checkpointer);
            uint64_t deadline_ns = runtime->names.next_ns;
            deadline_ns = retry_ns < deadline_ns ? retry_ns : deadline_ns;
            if (retry_ns < now_ns + PACE_LONGEST_NS)
                nap();
            else if (now_ns < spin_until_ns)
                sched_yield(); /* whoever is to ask may have this core alone */
            else
                sleep_until(runtime, next_ns < deadline_ns ? next_ns : deadline_ns);
        }
    }
    return 0;
}

int runtime_stop(struct runtime *runtime)
{
    if (runtime->executor) {
        const int rc = executor_drain(runtime->executor);
        if (rc < 0)
            return rc;
    }
    log_info("stopping");
    changes_abort(runtime->changes);
    checkpointer_detach(runtime->checkpointer);
    process_stop_futex(NULL);
    if (runtime->executor)
        executor_detach(runtime->executor);
    /* Before the files are written, so that clients need not wait for them. */
    segments_close(runtime);
    if (runtime->executor)
        executor_ring_always(runtime->executor);
    return checkpointer_finish(runtime->checkpointer) == 0 ? 0 : -EIO;
}

void runtime_report_lost(const struct runtime *runtime)
{
    (void)checkpointer_report_lost(runtime->checkpointer);
}

void runtime_destroy(struct runtime **runtime)
{
    struct runtime *r = *runtime;
    if (!r)
        return;
    process_stop_futex(NULL);
    checkpointer_destroy(&r->checkpointer);
    executor_destroy(&r->executor);
    slots_destroy(r);
    changes_destroy(&r->changes);
    if (r->control)
        control_detach(&r->control);
    compute_close(r->device);
    device_destroy(&r->device);
    checkpoint_owner_destroy(&r->checkpoint_owner);
    weights_destroy(&r->weights);
    device_cache_end();
    if (r->owner_fd >= 0)
        close(r->owner_fd);
    free(r);
    *runtime = NULL;
}
