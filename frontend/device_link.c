#include "frontend/device_link.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/device_loss.h"
#include "common/log.h"
#include "common/owner.h"

int device_link_create(struct device_link **device, const char *server, const char *run_dir, const char *name,
                       uint64_t stall_timeout_ns)
{
    struct device_link *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->server = server;
    made->run_dir = run_dir;
    made->name = name;
    made->stall_timeout_ns = stall_timeout_ns;
    made->watch_fd = -1;
    *device = made;
    return 0;
}

static void set_state(struct device_link *device, enum device_state state, uint64_t now_ns)
{
    device->state = state;
    device->state_since_ns = now_ns;
    if (state != DEVICE_UP)
        return;
    const uint32_t pid = atomic_load_explicit(&control_page(device->control)->runtime.pid, memory_order_relaxed);
    device->restarts += device->pid_seen != 0 && device->pid_seen != pid;
    device->pid_seen = pid;
}

void device_link_detach(struct device_link *device, uint64_t now_ns)
{
    for (uint32_t p = 0; device->pools && p < 2 * device->experts_count; p++) {
        if (device->pools[p])
            pool_detach(&device->pools[p]->pool);
        free(device->pools[p]);
    }
    free(device->pools);
    device->pools = NULL;
    device->experts_count = 0;
    device->ring = device->broken = false;
    control_detach(&device->control);
    set_state(device, DEVICE_ABSENT, now_ns);
}

void device_link_destroy(struct device_link **device)
{
    if (!*device)
        return;
    device_link_detach(*device, 0);
    if ((*device)->watch_fd >= 0)
        close((*device)->watch_fd);
    free(*device);
    *device = NULL;
}

/* --- pools ----------------------------------------------------------------------------------------------------------
 */

static int attach_pool(struct device_link *device, uint32_t index, struct pool_link **link)
{
    struct pool_link *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->device = device;
    made->index = index;
    const int rc = pool_attach(&made->pool, device->server, device->name, control_generation(device->control), index);
    if (rc < 0) {
        free(made);
        return rc;
    }
    made->before = pool_measured(made->pool);
    *link = device->pools[index] = made;
    return 0;
}

int device_link_pool(struct device_link *device, uint32_t expert, enum pool_kind kind, struct pool_link **link)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    const uint32_t index = 2 * expert + (kind == POOL_BACKWARD ? 1 : 0);
    if (expert >= device->experts_count)
        return -EPROTO;
    *link = device->pools[index];
    if (*link)
        return (*link)->broken ? -EPROTO : 0;
    if (!device_link_has(device, expert))
        return -EPROTO; /* it has just gone */
    if (kind == POOL_BACKWARD && control_expert(device->control, expert)->forward_only)
        return -EOPNOTSUPP;
    const int rc = attach_pool(device, index, link);
    if (rc == -ENOENT || rc == -EPROTO)
        control_want_renewal(device->control);
    if (rc < 0 && log_burst_allows(&burst, &left_out, strerror(-rc)))
        log_warning("cannot attach to pool %" PRIu32 " of device '%s': %s (%u more like it)", index, device->name,
                    strerror(-rc), left_out);
    return rc;
}

/* What an earlier frontend left in the pools is nobody's: attaching cancels it. Pools that hold something stay attached
 * until the runtime is done with it; the others cost no mapping until they are used. */
static void adopt_leftovers(struct device_link *device)
{
    uint32_t held = 0;
    for (uint32_t p = 0; p < 2 * device->experts_count; p++) {
        struct pool_link *link;
        if (!device_link_has(device, p / 2) || attach_pool(device, p, &link) < 0)
            continue;
        held += pool_tasks_held(link->pool);
        if (pool_tasks_held(link->pool) == 0) {
            pool_detach(&link->pool);
            free(link);
            device->pools[p] = NULL;
        }
    }
    if (held)
        log_info("device '%s': dropped %" PRIu32 " tasks that an earlier frontend left", device->name, held);
}

bool device_link_has(const struct device_link *device, uint32_t expert)
{
    return device->control && expert < device->experts_count && control_slot_used(device->control, expert);
}

uint32_t device_link_count(const struct device_link *device)
{
    uint32_t count = 0;
    for (uint32_t e = 0; e < device->experts_count; e++)
        count += device_link_has(device, e);
    return count;
}

void device_link_close(struct device_link *device, uint32_t expert)
{
    for (uint32_t p = 2 * expert; p < 2 * expert + 2 && expert < device->experts_count; p++) {
        if (!device->pools[p])
            continue;
        pool_detach(&device->pools[p]->pool);
        free(device->pools[p]);
        device->pools[p] = NULL;
    }
}

bool device_link_serves(const struct device_link *device, uint32_t expert)
{
    if (device->state != DEVICE_UP || expert >= device->experts_count)
        return false;
    const struct pool_link *forward = device->pools[2 * (size_t)expert],
                           *backward = device->pools[2 * (size_t)expert + 1];
    return !(forward && forward->broken) && !(backward && backward->broken);
}

bool device_link_learns(const struct device_link *device, uint32_t expert)
{
    struct control_expert_shared copy;
    return !device->control || expert >= device->experts_count ||
           control_expert_copy(control_expert(device->control, expert), &copy) < 0 ||
           strncmp(copy.optimizer, "none", sizeof copy.optimizer) != 0;
}

void device_link_break(struct device_link *device, struct pool_link *link)
{
    link->broken = true;
    device->broken = true;
    control_want_renewal(device->control);
}

/* --- life -----------------------------------------------------------------------------------------------------------
 */

static bool role_taken(struct device_link *device)
{
    char role[64];
    const int n = snprintf(role, sizeof role, "runtime.%s", device->name);
    if (n > 0 && (size_t)n < sizeof role)
        owner_watch_keep(&device->watch_fd, device->run_dir, device->server, role);
    return owner_watch_alive(device->watch_fd);
}

/* The runtime lives, and the control segment is its own: a restarted one has the lock long before it has adopted what
 * the dead one left. */
static bool runtime_alive(struct device_link *device)
{
    const uint32_t pid = atomic_load_explicit(&control_page(device->control)->runtime.pid, memory_order_relaxed);
    return role_taken(device) && owner_watch_pid(device->watch_fd) == (long)pid;
}

bool device_link_lost(struct device_link *device)
{
    return (device->state == DEVICE_DEAD || device->state == DEVICE_ABSENT) &&
           device_loss_noted(device->run_dir, device->server, device->name) && !role_taken(device);
}

static enum device_change try_attach(struct device_link *device, uint64_t now_ns)
{
    static struct log_burst burst, foreign;
    unsigned left_out = 0;
    struct control *control;
    if (control_held(device->server, device->name) && !role_taken(device)) {
        if (log_burst_allows(&foreign, &left_out, device->name))
            log_warning("device '%s' is served by a runtime with another server.run_dir than '%s', of another server "
                        "called '%s': two servers on one box need two names (%u more like it)",
                        device->name, device->run_dir, device->server, left_out);
        return DEVICE_SAME;
    }
    const int rc = control_attach(&control, device->server, device->name, true);
    if (rc < 0) {
        if (rc != -ENOENT && rc != -EAGAIN && log_burst_allows(&burst, &left_out, strerror(-rc)))
            log_warning("cannot use the shared memory of device '%s': %s (%u more like it)", device->name,
                        strerror(-rc), left_out);
        return DEVICE_SAME;
    }
    device->experts_count = control_experts_count(control);
    device->pools = calloc(2 * (size_t)device->experts_count + 1, sizeof(struct pool_link *));
    if (!device->pools) {
        device->experts_count = 0;
        control_detach(&control);
        return DEVICE_SAME;
    }
    device->control = control;
    struct control_shared *page = control_page(control);
    device->completed_seen = atomic_load_explicit(&page->runtime.completed_batches, memory_order_relaxed);
    device->progress_ns = now_ns;
    device->slots_seen = control_slots_version(control);
    if (atomic_load_explicit(&page->frontend.epoch, memory_order_relaxed) > 1)
        adopt_leftovers(device);
    set_state(device, runtime_alive(device) ? DEVICE_UP : DEVICE_DEAD, now_ns);
    return DEVICE_ATTACHED;
}

/* Whether the segment under the control's name is still the one that is mapped here. It is another one when somebody
 * removed the old one's name, so that its runtime could neither adopt nor retire it. */
static bool control_replaced(struct device_link *device)
{
    struct control *now;
    if (control_attach(&now, device->server, device->name, false) < 0)
        return false;
    const bool replaced = control_generation(now) != control_generation(device->control);
    control_detach(&now);
    return replaced;
}

void device_link_progress(struct device_link *device, uint64_t now_ns)
{
    device->progress_ns = now_ns;
}

static bool hangs(struct device_link *device, uint64_t now_ns)
{
    struct control_shared *page = control_page(device->control);
    const uint64_t completed = atomic_load_explicit(&page->runtime.completed_batches, memory_order_relaxed);
    const bool busy = atomic_load_explicit(&page->runtime.busy_since_ns, memory_order_relaxed) != 0;
    const bool sleeps = atomic_load_explicit(&page->runtime_bell.sleeping, memory_order_relaxed) != 0;
    /* While it hangs, what waited was answered; so then only completed work, or its going to sleep, brings it back. */
    const bool asked = device->in_flight > 0 || device->state == DEVICE_HUNG;
    if (completed != device->completed_seen || !(busy || (asked && !sleeps))) {
        device->completed_seen = completed;
        device->progress_ns = now_ns;
        return false;
    }
    return now_ns - device->progress_ns > device->stall_timeout_ns;
}

static bool slots_changed(struct device_link *device)
{
    const uint64_t version = control_slots_version(device->control);
    if (version == device->slots_seen)
        return false;
    device->slots_seen = version;
    for (uint32_t e = 0; e < device->experts_count; e++)
        if (device_link_has(device, e) && !control_expert_sane(device->control, e))
            control_want_renewal(device->control);
    return true;
}

enum device_change device_link_look(struct device_link *device, uint64_t now_ns)
{
    if (device->state == DEVICE_ABSENT)
        return try_attach(device, now_ns);
    if (control_retired(device->control))
        return DEVICE_RETIRED;
    const bool alive = runtime_alive(device);
    if (!alive) {
        /* The new runtime's process number is not the one in the old segment, if it could not find that one. */
        if (device->state == DEVICE_DEAD)
            return control_replaced(device) ? DEVICE_RETIRED : DEVICE_SAME;
        set_state(device, DEVICE_DEAD, now_ns);
        return DEVICE_DIED;
    }
    if (device->state == DEVICE_DEAD) {
        if (control_replaced(device))
            return DEVICE_RETIRED;
        device->progress_ns = now_ns;
        set_state(device, DEVICE_UP, now_ns);
        return DEVICE_REVIVED;
    }
    const bool hung = hangs(device, now_ns);
    if (hung == (device->state == DEVICE_HUNG))
        return slots_changed(device) ? DEVICE_CHANGED : DEVICE_SAME;
    set_state(device, hung ? DEVICE_HUNG : DEVICE_UP, now_ns);
    return hung ? DEVICE_STALLED : DEVICE_REVIVED;
}

const char *device_state_name(enum device_state state)
{
    static const char *const names[] = {"absent", "up", "dead", "hung"};
    return (unsigned)state < sizeof names / sizeof names[0] ? names[state] : "unknown";
}

const char *device_link_refusal(const struct device_link *device, char *text, size_t size)
{
    switch (device->state) {
    case DEVICE_UP:
        return NULL;
    case DEVICE_ABSENT:
        snprintf(text, size, "the runtime of device '%s' is not up", device->name);
        break;
    case DEVICE_DEAD:
        snprintf(text, size, "the runtime of device '%s' died and is not back yet", device->name);
        break;
    case DEVICE_HUNG:
        snprintf(text, size, "the runtime of device '%s' hangs: it has work but finishes nothing", device->name);
        break;
    }
    return text;
}

/* --- ringing --------------------------------------------------------------------------------------------------------
 */

void device_link_ready(struct device_link *device, uint32_t pool)
{
    control_mark_ready(device->control, pool);
    device->ring = true;
}

void device_link_ring(struct device_link *device)
{
    if (!device->ring)
        return;
    device->ring = false;
    doorbell_ring(&control_page(device->control)->runtime_bell);
}
