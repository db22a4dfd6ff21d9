#include "runtime/segments.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/config_diff.h"
#include "common/log.h"
#include "common/shm.h"
#include "common/uid.h"
#include "runtime/runtime_state.h"

enum { NAMES_AT_ONCE = 256 };

struct backend_place segments_place(const struct runtime *runtime)
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
    const struct backend_place place = segments_place(runtime);
    for (uint32_t i = 0; i < runtime->slots; i++) {
        if (!runtime_slot_used(runtime, i))
            continue;
        const bool there = adopt && control_slot_used(runtime->control, i);
        /* One that died as it made them may have left them, of a generation that goes on; a new one has none. */
        if (adopt && !there)
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
static bool adopt(struct runtime *runtime)
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

static int make(struct runtime *runtime)
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

int segments_create(struct runtime *runtime)
{
    const int rc = make(runtime);
    if (rc < 0)
        return rc;
    set_records(runtime, false);
    runtime->names.seen = runtime->names.next_pool = 0;
    return 0;
}

int segments_open(struct runtime *runtime)
{
    if (!adopt(runtime))
        return segments_create(runtime);
    set_records(runtime, true);
    /* What the dead runtime had completed, or we have while adopting, is to be seen. */
    for (uint32_t i = 0; i < 2 * runtime->slots; i++)
        control_mark_done(runtime->control, i);
    log_info("adopted the task pools that the last runtime left, with what is queued in them");
    return 0;
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

const char *segments_fault(struct runtime *runtime, uint64_t now_ns)
{
    if (executor_broken(runtime->executor))
        return "a task pool is damaged";
    const char *why = control_fault(runtime->control);
    if (!why && !pools_named(runtime, now_ns))
        why = "a task pool's name does not lead to it any more (somebody removed files in /dev/shm)";
    return why;
}

void segments_close(struct runtime *runtime)
{
    for (uint32_t i = 0; i < runtime->slots; i++)
        backend_close_pools(&runtime->backends[i]);
    if (runtime->lost_role)
        control_abandon(&runtime->control);
    else
        control_retire(&runtime->control);
}
