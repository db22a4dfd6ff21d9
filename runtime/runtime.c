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
#include "common/config_diff.h"
#include "common/device_loss.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/owner.h"
#include "common/process.h"
#include "common/shm.h"
#include "runtime/changes.h"
#include "runtime/compute/compute.h"
#include "runtime/runtime_private.h"
#include "runtime/serve/pace.h"

/* How often what is held is looked after. Nor does it sleep longer, whatever the doorbell does: see common/doorbell.h
 * on ringers that were killed. */
static const uint64_t names_ns = NS_PER_S / 4;
enum { NAMES_AT_ONCE = 256, NAP_NS = 40000, TIMER_SLACK_NS = 1000 };
static const uint64_t progress_ns = 2 * NS_PER_S;

/* --- experts ---------------------------------------------------------------------------------------------------------
 */

static bool is_here(const struct runtime *runtime, const struct config_expert *entry)
{
    return strcmp(entry->device, runtime->entry->name) == 0;
}

/* Calls visit for each expert that the configuration puts on this device. */
static int each_expert(struct runtime *runtime,
                       int (*visit)(struct runtime *runtime, const struct config_expert *entry, const char *uid))
{
    int rc = 0;
    for (unsigned i = 0; i < runtime->live->experts_count && rc == 0; i++) {
        const struct config_expert *entry = &runtime->live->experts[i];
        uint64_t count = 0;
        char **uids = NULL;
        if (!is_here(runtime, entry))
            continue;
        rc = config_expert_uids(entry, &uids, &count);
        if (rc < 0)
            log_error("cannot list the experts '%s': %s", entry->uid, strerror(-rc));
        for (uint64_t j = 0; j < count && rc == 0; j++)
            rc = visit(runtime, entry, uids[j]);
        free(uids);
    }
    return rc;
}

struct memory_plan {
    uint64_t own, workspace, fitting, wanted;
};

/* All experts that do not fit would otherwise be found out one by one, after minutes. */
static int check_memory(struct runtime *runtime)
{
    const uint64_t budget = device_memory_budget(runtime->device);
    struct memory_plan plan = {0};
    for (unsigned i = 0; i < runtime->live->experts_count; i++) {
        const struct config_expert *entry = &runtime->live->experts[i];
        uint64_t count = 0, own = 0, workspace = 0;
        char **uids = NULL;
        if (!is_here(runtime, entry))
            continue;
        int rc = config_expert_uids(entry, &uids, &count);
        free(uids);
        if (rc == 0)
            rc = expert_memory(runtime->device, entry, &own, &workspace);
        if (rc < 0) {
            log_error("cannot plan the experts '%s' (block '%s'): %s", entry->uid, entry->block, strerror(-rc));
            return rc;
        }
        plan.workspace = workspace > plan.workspace ? workspace : plan.workspace;
        const uint64_t left = budget > plan.own + plan.workspace ? budget - plan.own - plan.workspace : 0;
        const uint64_t fit = own == 0 || count <= left / own ? count : left / own;
        plan.fitting += plan.fitting == plan.wanted ? fit : 0;
        plan.wanted += count;
        plan.own += own * count;
    }
    if (plan.fitting == plan.wanted) {
        device_expect(runtime->device, plan.own, plan.wanted);
        return 0;
    }
    log_error("device '%s' has memory for %" PRIu64 " of the %" PRIu64 " experts (%" PRIu64 " MiB of %" PRIu64
              " MiB): host fewer, or use more devices",
              runtime->entry->name, plan.fitting, plan.wanted, (plan.own + plan.workspace) >> 20, budget >> 20);
    return -ENOMEM;
}

static int count_expert(struct runtime *runtime, const struct config_expert *entry, const char *uid)
{
    (void)entry;
    (void)uid;
    if (runtime->slots == CONTROL_MAX_EXPERTS) {
        log_error("more than %d experts on device '%s'", CONTROL_MAX_EXPERTS, runtime->entry->name);
        return -E2BIG;
    }
    runtime->slots++;
    return 0;
}

static int create_expert(struct runtime *runtime, const struct config_expert *entry, const char *uid)
{
    static uint64_t said_ns;
    if (process_stopping())
        return -EINTR;
    const int rc = backend_create(&runtime->backends[runtime->made], runtime->device, entry, uid,
                                  &runtime->config->checkpoint, runtime->checkpoint_owner, runtime->weights);
    if (rc < 0)
        return rc;
    runtime->made++;
    const uint64_t now_ns = clock_now_ns();
    if (said_ns == 0 || now_ns - said_ns > progress_ns) {
        if (said_ns != 0)
            log_info("created %" PRIu32 " experts, now '%s'", runtime->made, uid);
        said_ns = now_ns;
    }
    return 0;
}

/* Up to `size` bytes of the uids of that origin, for the log. */
static void list_uids(const struct runtime *runtime, enum backend_origin origin, char *text, size_t size)
{
    size_t used = 0, more = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < runtime->made; i++) {
        const struct backend *backend = &runtime->backends[i];
        if (backend->origin != origin)
            continue;
        if (more > 0 || used + strlen(backend->uid) + sizeof " and 4294967295 more" + 2 > size)
            more++;
        else
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", backend->uid);
    }
    if (more > 0)
        snprintf(text + used, size - used, " and %zu more", more);
}

/* In sum, from where they are. */
static void say_origins(const struct runtime *runtime)
{
    const char *dir = runtime->config->checkpoint.dir;
    uint32_t counts[BACKEND_OF_NOTHING + 1] = {0}, trained = 0;
    char uids[512];
    for (uint32_t i = 0; i < runtime->made; i++) {
        counts[runtime->backends[i].origin]++;
        trained += runtime_slot_used(runtime, i) && runtime->backends[i].origin != BACKEND_OF_NOTHING &&
                   runtime->backends[i].expert->optimizer.kind != OPTIMIZER_NONE;
    }
    if (counts[BACKEND_OF_CHECKPOINT] > 0)
        log_info("%" PRIu32 " experts are from their checkpoints in '%s'", counts[BACKEND_OF_CHECKPOINT], dir);
    list_uids(runtime, BACKEND_OF_WEIGHTS, uids, sizeof uids);
    if (counts[BACKEND_OF_WEIGHTS] > 0)
        log_info("%" PRIu32 " experts begin from the files of their `weights`%s: %s", counts[BACKEND_OF_WEIGHTS],
                 *dir ? ", as they have no checkpoint" : "", uids);
    list_uids(runtime, BACKEND_OF_MODEL, uids, sizeof uids);
    if (counts[BACKEND_OF_MODEL] > 0)
        log_info("%" PRIu32 " experts begin from the parameters of a model%s, their optimizers anew: %s",
                 counts[BACKEND_OF_MODEL], *dir ? ", as they have no checkpoint" : "", uids);
    list_uids(runtime, BACKEND_OF_SEED, uids, sizeof uids);
    if (counts[BACKEND_OF_SEED] > 0 && *dir)
        log_info("%" PRIu32 " experts begin anew, from their seed, as '%s' has no checkpoint of theirs: %s",
                 counts[BACKEND_OF_SEED], dir, uids);
    else if (counts[BACKEND_OF_SEED] > 0)
        log_info("%" PRIu32 " experts begin anew, from their seed: %s", counts[BACKEND_OF_SEED], uids);
    if (trained > 0 && !*dir)
        log_warning("no folder for checkpoints is configured (checkpoint.dir): what the experts learn ends with this "
                    "process");
}

/* Slots for what is loaded while it runs; and, where a lost device's experts go to others, for those of any other one,
 * and for its own that are elsewhere. */
static uint64_t spare_slots(const struct runtime *runtime)
{
    const struct config *config = runtime->config;
    uint64_t most = 0, own = 0;
    for (unsigned d = 0; d < config->devices_count && strcmp(config->server.on_device_loss, "move") == 0; d++) {
        const uint64_t experts = config_experts_on(config, config->devices[d].name);
        if (&config->devices[d] == runtime->entry)
            own = experts > runtime->slots ? experts - runtime->slots : 0;
        else
            most = experts > most ? experts : most;
    }
    return runtime->entry->spare_experts + most + own;
}

static int create_experts(struct runtime *runtime)
{
    int rc = check_memory(runtime);
    if (rc == 0)
        rc = weights_create(&runtime->weights);
    if (rc == 0 && *runtime->config->checkpoint.dir)
        rc = checkpoint_owner_create(&runtime->checkpoint_owner, runtime->config->checkpoint.dir);
    runtime->slots = 0;
    if (rc == 0)
        rc = each_expert(runtime, count_expert);
    if (rc == 0 && runtime->slots == 0 && runtime->live == runtime->config) {
        log_error("the configuration puts no expert on device '%s'", runtime->entry->name);
        rc = -EINVAL;
    }
    const uint64_t most = CONTROL_MAX_EXPERTS - runtime->slots, spare = spare_slots(runtime);
    runtime->slots += (uint32_t)(spare < most ? spare : most);
    runtime->backends = rc == 0 ? calloc((size_t)runtime->slots + 1, sizeof *runtime->backends) : NULL;
    if (!runtime->backends) {
        runtime->slots = 0;
        return rc < 0 ? rc : -ENOMEM;
    }
    rc = each_expert(runtime, create_expert);
    weights_close(runtime->weights);
    if (rc == 0)
        say_origins(runtime);
    return rc;
}

/* --- segments --------------------------------------------------------------------------------------------------------
 */

struct backend_place runtime_place(const struct runtime *runtime)
{
    return (struct backend_place){
        .server = runtime->config->server.name,
        .device = runtime->entry->name,
        .generation = control_generation(runtime->control),
    };
}

/* adopt: those of the slots that are used already; the others are made in either case. */
static int open_pools(struct runtime *runtime, bool adopt)
{
    const struct backend_place place = runtime_place(runtime);
    for (uint32_t i = 0; i < runtime->slots; i++) {
        if (!runtime_slot_used(runtime, i))
            continue;
        const bool there = adopt && control_slot_used(runtime->control, i);
        if (!there) /* one that died as it made them may have left them */
            for (uint32_t pool = 2 * i; pool < 2 * i + 2; pool++)
                (void)pool_remove(place.server, place.device, place.generation, pool);
        const int rc = backend_open_pools(&runtime->backends[i], &place, i, there);
        if (rc == 0)
            continue;
        if (!there)
            log_error("cannot make the task pools of '%s': %s%s", runtime->backends[i].uid, strerror(-rc),
                      rc == -ENOSPC ? " (is /dev/shm large enough?)" : "");
        while (i-- > 0)
            backend_close_pools(&runtime->backends[i]);
        return rc;
    }
    return 0;
}

static uint32_t find_backend(const struct runtime *runtime, uint32_t first, const char *uid)
{
    for (uint32_t i = 0; i < runtime->slots; i++) {
        const uint32_t at = (first + i) % runtime->slots;
        if (runtime_slot_used(runtime, at) && strcmp(runtime->backends[at].uid, uid) == 0)
            return at;
    }
    return UINT32_MAX;
}

/* Moves the experts to the slots where the segments have them; those that are not there go where it is free. False: a
 * slot is of an expert that there is not, or that is another now. */
static bool match_slots(struct runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->slots; i++) {
        const struct control_expert_shared *record = control_expert(runtime->control, i);
        char uid[UID_SIZE];
        if (!control_slot_used(runtime->control, i))
            continue;
        control_expert_uid(record, uid);
        const uint32_t at = find_backend(runtime, i, uid);
        if (at == UINT32_MAX || backend_fingerprint(&runtime->backends[at], 0) !=
                                    atomic_load_explicit(&record->runtime.fingerprint, memory_order_relaxed))
            return false;
        const struct backend moved = runtime->backends[at];
        runtime->backends[at] = runtime->backends[i];
        runtime->backends[i] = moved;
    }
    return true;
}

/* Of what makes two segments alike beside the experts, which slots tell of. */
static uint64_t fingerprint_of(const struct runtime *runtime)
{
    const uint64_t parts[] = {POOL_VERSION, CONTROL_VERSION, runtime->slots};
    return uid_hash(parts, sizeof parts);
}

/* All or nothing: a set of segments of which one does not fit is thrown away. */
static bool adopt_segments(struct runtime *runtime)
{
    const int rc = control_adopt(&runtime->control, runtime->config->server.name, runtime->entry->name,
                                 fingerprint_of(runtime), runtime->slots);
    if (rc == 0 && match_slots(runtime) && open_pools(runtime, true) == 0)
        return true;
    if (rc == 0)
        control_detach(&runtime->control);
    if (rc != -ENOENT && rc != -EBUSY)
        log_info("the segments that the last runtime left do not fit the configuration, or are damaged: making new "
                 "ones; what was queued there is answered UNAVAILABLE");
    return false;
}

static int create_segments(struct runtime *runtime)
{
    int rc = control_create(&runtime->control, runtime->config->server.name, runtime->entry->name,
                            fingerprint_of(runtime), runtime->slots);
    if (rc < 0 && rc != -EBUSY)
        log_error("cannot make the control segment: %s%s", strerror(-rc),
                  rc == -ENOSPC ? " (is /dev/shm large enough?)" : "");
    else if (rc == 0)
        rc = open_pools(runtime, false);
    if (rc < 0)
        control_retire(&runtime->control);
    return rc;
}

/* What the frontend reads, when all else is in place. */
static void set_records(struct runtime *runtime, bool adopted)
{
    for (uint32_t i = 0; i < runtime->slots; i++) {
        const bool used = runtime_slot_used(runtime, i), was_used = control_slot_used(runtime->control, i);
        if (used)
            backend_set_record(&runtime->backends[i], control_expert(runtime->control, i), adopted && was_used);
        if (used != was_used)
            control_slot_set(runtime->control, i, used ? CONTROL_SLOT_USED : CONTROL_SLOT_FREE);
    }
    atomic_store_explicit(&control_page(runtime->control)->runtime.config, config_diff_fingerprint(runtime->live),
                          memory_order_release);
}

static int open_segments(struct runtime *runtime)
{
    const bool adopted = adopt_segments(runtime);
    const int rc = adopted ? 0 : create_segments(runtime);
    if (rc < 0)
        return rc;
    set_records(runtime, adopted);
    /* What the dead runtime had completed, or we have while adopting, is to be seen. */
    for (uint32_t i = 0; adopted && i < 2 * runtime->slots; i++)
        control_mark_done(runtime->control, i);
    if (adopted)
        log_info("adopted the task pools that the last runtime left, with what is queued in them");
    return 0;
}

/* --- life ------------------------------------------------------------------------------------------------------------
 */

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

struct checkpointer_expert runtime_checkpointer_expert(const struct runtime *runtime, uint32_t slot)
{
    const struct backend *backend = &runtime->backends[slot];
    return (struct checkpointer_expert){.uid = backend->uid,
                                        .expert = backend->expert,
                                        .record = backend->record,
                                        .backward = backend->pools[POOL_BACKWARD].pool};
}

/* What the checkpointer works on; free it. */
static struct checkpointer_expert *list_experts(const struct runtime *runtime)
{
    struct checkpointer_expert *experts = calloc((size_t)runtime->slots + 1, sizeof *experts);
    for (uint32_t i = 0; experts && i < runtime->slots; i++)
        experts[i] = runtime_checkpointer_expert(runtime, i);
    return experts;
}

static int create_checkpointer(struct runtime *runtime)
{
    struct checkpointer_expert *experts = list_experts(runtime);
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
        rc = create_experts(r);
    if (rc == 0)
        rc = open_segments(r);
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

/* --- what is held keeps its name -------------------------------------------------------------------------------------
 */

/* Names of pools are looked at when something in /dev/shm was made or removed, some at a time. */
static bool pools_named(struct runtime *runtime, uint64_t now_ns)
{
    const uint64_t changes = shm_changes();
    if (runtime->names.next_pool == 0) {
        if (changes == runtime->names.seen)
            return true;
        if (changes != runtime->names.looking)
            runtime->names.changed_ns = now_ns;
        runtime->names.looking = changes;
        runtime->names.begun_ns = now_ns;
    }
    for (uint32_t i = 0; i < NAMES_AT_ONCE && runtime->names.next_pool < runtime->slots; i++) {
        const uint32_t slot = runtime->names.next_pool++;
        if (runtime_slot_used(runtime, slot) && !backend_pools_named(&runtime->backends[slot]))
            return false;
    }
    if (runtime->names.next_pool == runtime->slots) {
        runtime->names.next_pool = 0;
        /* The clock of the folder ticks slowly: what came in the same tick is seen only by a look that begins later. */
        if (runtime->names.begun_ns - runtime->names.changed_ns >= NS_PER_S)
            runtime->names.seen = runtime->names.looking;
    }
    return true;
}

static const char *segments_fault(struct runtime *runtime, uint64_t now_ns)
{
    if (executor_broken(runtime->executor))
        return "a task pool is damaged";
    const char *why = control_fault(runtime->control);
    if (!why && !pools_named(runtime, now_ns))
        why = "a task pool's name does not lead to it any more (somebody removed files in /dev/shm)";
    return why;
}

static void close_segments(struct runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->slots; i++)
        backend_close_pools(&runtime->backends[i]);
    if (runtime->lost_role)
        control_abandon(&runtime->control);
    else
        control_retire(&runtime->control);
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
    close_segments(runtime);
    rc = create_segments(runtime);
    if (rc < 0)
        return rc;
    set_records(runtime, false);
    rc = create_executor(runtime);
    if (rc < 0)
        return rc;
    struct checkpointer_expert *experts = list_experts(runtime);
    if (!experts)
        return -ENOMEM;
    checkpointer_attach(runtime->checkpointer, experts, runtime->control);
    free(experts);
    runtime->names.seen = runtime->names.next_pool = 0;
    open_doors(runtime);
    return 0;
}

/* Looks after lock and segments. -EBUSY: another process has the role. */
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
    if (owner_keep(&runtime->owner_fd, server->run_dir, server->name, role) == -EBUSY) {
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
    close_segments(runtime);
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
    for (uint32_t i = 0; r->backends && i < r->slots; i++)
        backend_destroy(&r->backends[i]);
    free(r->backends);
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
