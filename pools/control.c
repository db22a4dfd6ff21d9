#include "pools/control.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/shm.h"
#include "pools/pool.h"

struct control {
    struct control_shared *shared;
    _Atomic uint64_t *ready, *done;
    struct control_expert_shared *experts;
    size_t mapped_bytes;
    uint64_t generation;
    uint32_t experts_count, words;
    int hold_fd; /* the runtime's, as long as it has the segment; else -1 */
    char server[CONTROL_NAME_SIZE], device[CONTROL_NAME_SIZE];
    unsigned char constants[offsetof(struct control_shared, runtime)]; /* as they were when it was opened */
};

/* --- layout ---------------------------------------------------------------------------------------------------------
 */

static uint32_t words_of(uint32_t experts_count)
{
    return (2 * experts_count + 63) / 64;
}

static void place_parts(struct control_shared *header)
{
    const uint64_t bitmap_bytes = shm_round_up(words_of(header->experts_count) * sizeof(uint64_t), POOL_LINE);
    header->ready_offset = POOL_PAGE;
    header->done_offset = header->ready_offset + bitmap_bytes;
    header->experts_offset = header->done_offset + bitmap_bytes;
    header->segment_bytes = shm_round_up(
        header->experts_offset + (uint64_t)header->experts_count * sizeof(struct control_expert_shared), POOL_PAGE);
}

/* A device's name has no dot, so that a segment's name belongs to one device of one server only. */
static bool name_valid(const char *name, bool dots)
{
    const size_t length = strnlen(name, CONTROL_NAME_SIZE);
    if (length == 0 || length == CONTROL_NAME_SIZE)
        return false;
    for (const char *at = name; *at; at++)
        if ((unsigned char)*at <= ' ' || *at == 127 || *at == '/' || (*at == '.' && !dots))
            return false;
    return true;
}

static int control_segment(char name[SHM_NAME_SIZE], const char *server, const char *device)
{
    if (!name_valid(server, true) || !name_valid(device, false))
        return -EINVAL;
    return shm_name(name, server, "%s.control", device);
}

/* Checks a mapped segment's constants: -EPROTO, unless they are what control_create would have written. */
static int check_header(const struct control_shared *shared, size_t bytes, const char *server, const char *device,
                        struct control_shared *copy)
{
    memcpy(copy, shared, offsetof(struct control_shared, runtime));
    atomic_signal_fence(memory_order_seq_cst); /* checked and used is the copy */
    if (copy->magic != CONTROL_MAGIC || copy->version != CONTROL_VERSION || copy->experts_count > CONTROL_MAX_EXPERTS ||
        copy->generation == 0 || copy->generation >= UINT64_C(1) << 62 ||
        strncmp(copy->server, server, CONTROL_NAME_SIZE) != 0 || strncmp(copy->device, device, CONTROL_NAME_SIZE) != 0)
        return -EPROTO;
    struct control_shared placed = {.experts_count = copy->experts_count};
    place_parts(&placed);
    return placed.ready_offset == copy->ready_offset && placed.done_offset == copy->done_offset &&
                   placed.experts_offset == copy->experts_offset && placed.segment_bytes == copy->segment_bytes &&
                   placed.segment_bytes == bytes
               ? 0
               : -EPROTO;
}

static int open_view(struct control **control, struct control_shared *shared, const struct control_shared *header)
{
    struct control *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    char *base = (char *)shared;
    made->shared = shared;
    made->hold_fd = -1;
    made->ready = (_Atomic uint64_t *)(void *)(base + header->ready_offset);
    made->done = (_Atomic uint64_t *)(void *)(base + header->done_offset);
    made->experts = (struct control_expert_shared *)(void *)(base + header->experts_offset);
    made->mapped_bytes = header->segment_bytes;
    made->generation = header->generation;
    made->experts_count = header->experts_count;
    made->words = words_of(header->experts_count);
    memcpy(made->server, header->server, sizeof made->server);
    memcpy(made->device, header->device, sizeof made->device);
    memcpy(made->constants, header, sizeof made->constants);
    *control = made;
    return 0;
}

/* --- leftovers ------------------------------------------------------------------------------------------------------
 */

/* What follows "/expertd.<server>.<device>." in a name. */
struct leftovers {
    size_t prefix_length;
    uint64_t newest_generation;
};

static bool digits(const char **at, uint64_t *value)
{
    const char *first = *at;
    for (*value = 0; **at >= '0' && **at <= '9' && *at - first < 19; ++*at)
        *value = *value * 10 + (uint64_t)(**at - '0');
    return *at != first;
}

static int remove_leftover(const char *name, void *context)
{
    struct leftovers *leftovers = context;
    const char *at = name + leftovers->prefix_length;
    uint64_t generation, index;
    if (strcmp(at, "control") == 0) {
        shm_remove(name);
        return 0;
    }
    if (!digits(&at, &generation) || *at++ != '.' || !digits(&at, &index) || *at != 0)
        return 0; /* not ours: another device's, whose name begins like this one's */
    if (leftovers->newest_generation < generation)
        leftovers->newest_generation = generation;
    shm_remove(name);
    return 0;
}

/* All segments of the device; *newest_generation of them. */
static int remove_all(const char *server, const char *device, uint64_t *newest_generation)
{
    char prefix[CONTROL_NAME_SIZE + 1], name[SHM_NAME_SIZE];
    const int length = snprintf(prefix, sizeof prefix, "%s.", device);
    int rc = length > 0 && (size_t)length < sizeof prefix ? shm_name(name, server, "%s", prefix) : -EINVAL;
    if (rc != 0)
        return rc;
    struct leftovers leftovers = {.prefix_length = strlen(name)};
    rc = shm_each(server, prefix, remove_leftover, &leftovers);
    *newest_generation = leftovers.newest_generation;
    return rc == -ENOENT ? 0 : rc; /* no /dev/shm at all: then nothing is left there */
}

/* Whoever has the old one mapped must see that it is over, sane or not. */
static void retire_old(const char *name)
{
    void *mapping;
    size_t bytes;
    if (shm_attach_segment(name, POOL_PAGE, &mapping, &bytes) != 0)
        return;
    struct control_shared *shared = mapping;
    atomic_store_explicit(&shared->runtime.state, CONTROL_RETIRED, memory_order_release);
    shm_detach(mapping, bytes);
}

bool control_held(const char *server, const char *device)
{
    char name[SHM_NAME_SIZE];
    return control_segment(name, server, device) == 0 && shm_held(name, -1);
}

int control_check_free(const char *server, const char *device)
{
    if (!control_held(server, device))
        return 0;
    log_error("another server called '%s' has a running runtime for a device '%s', with another server.run_dir: give "
              "one of them another server.name",
              server, device);
    return -EBUSY;
}

/* --- making, finding ------------------------------------------------------------------------------------------------
 */

int control_remove(const char *server, const char *device)
{
    char name[SHM_NAME_SIZE];
    uint64_t newest;
    const int rc = control_segment(name, server, device);
    if (rc != 0)
        return rc;
    if (shm_held(name, -1))
        return -EBUSY;
    retire_old(name);
    return remove_all(server, device, &newest);
}

int control_create(struct control **control, const char *server, const char *device, uint64_t fingerprint,
                   uint32_t experts_count)
{
    char name[SHM_NAME_SIZE];
    uint64_t newest;
    if (experts_count > CONTROL_MAX_EXPERTS)
        return -EINVAL;
    int rc = control_segment(name, server, device);
    if (rc != 0)
        return rc;
    rc = control_check_free(server, device);
    if (rc != 0)
        return rc;
    retire_old(name);
    rc = remove_all(server, device, &newest);
    if (rc != 0)
        return rc;

    /* After a clean end nothing tells what the last generation was; the wall clock makes another one than a frontend
     * that still has the retired one might ask for. */
    const uint64_t now_us = clock_wall_ns() / NS_PER_US;
    struct control_shared header = {.magic = CONTROL_MAGIC,
                                    .version = CONTROL_VERSION,
                                    .experts_count = experts_count,
                                    .generation = now_us > newest ? now_us : newest + 1,
                                    .fingerprint = fingerprint};
    place_parts(&header);
    memcpy(header.server, server, strlen(server));
    memcpy(header.device, device, strlen(device));
    void *mapping;
    rc = shm_create_segment(name, header.segment_bytes, header.segment_bytes, &mapping);
    if (rc == -EEXIST) {
        char path[SHM_NAME_SIZE + 16];
        log_error("%s is in the way, and is not this user's to remove, or is a folder that is not empty: remove it, or "
                  "choose another server.name",
                  shm_path(name, path));
    }
    if (rc != 0)
        return rc;
    memcpy(mapping, &header, offsetof(struct control_shared, runtime));
    rc = open_view(control, mapping, &header);
    if (rc != 0) {
        shm_detach(mapping, header.segment_bytes);
        shm_remove(name);
        return rc;
    }
    /* Should its name be another's by now, or gone, control_fault will tell. */
    (*control)->hold_fd = shm_hold(name);
    atomic_store_explicit(&(*control)->shared->runtime.pid, (uint32_t)getpid(), memory_order_relaxed);
    return 0;
}

static void set_all_bits(_Atomic uint64_t *bits, uint32_t pools)
{
    for (uint32_t word = 0; word * 64 < pools; word++) {
        const uint32_t left = pools - word * 64;
        const uint64_t mask = left >= 64 ? UINT64_MAX : (UINT64_C(1) << left) - 1;
        atomic_fetch_or_explicit(&bits[word], mask, memory_order_release);
    }
}

static bool text_valid(const char *text, size_t size)
{
    return memchr(text, 0, size) != NULL;
}

bool control_expert_sane(const struct control *control, uint32_t e)
{
    const struct control_expert_shared *shared = &control->experts[e];
    struct control_expert_shared copy;
    memcpy(&copy, shared, offsetof(struct control_expert_shared, runtime));
    atomic_signal_fence(memory_order_seq_cst);
    const double numbers[] = {copy.learning_rate, copy.beta1, copy.beta2, copy.epsilon, copy.momentum, copy.clip_norm};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (!isfinite(numbers[i]))
            return false;
    if (copy.arguments_count > BLOCK_ARGUMENTS_MAX)
        return false;
    for (uint64_t i = 0; i < copy.arguments_count; i++)
        if (!text_valid(copy.arguments[i].name, sizeof copy.arguments[i].name) || !isfinite(copy.arguments[i].value) ||
            !text_valid(copy.arguments[i].text, sizeof copy.arguments[i].text))
            return false;
    return text_valid(copy.uid, sizeof copy.uid) && uid_valid(copy.uid) && text_valid(copy.block, sizeof copy.block) &&
           text_valid(copy.optimizer, sizeof copy.optimizer) && text_valid(copy.schedule, sizeof copy.schedule) &&
           copy.max_batch_size > 0 && copy.max_batch_size <= UINT32_MAX && schema_valid(&copy.inputs) &&
           schema_valid(&copy.outputs);
}

/* Maps the device's control segment and checks its constants; *fingerprint of them. */
static int open_existing(struct control **control, const char *server, const char *device, uint64_t *fingerprint)
{
    char name[SHM_NAME_SIZE];
    void *mapping;
    size_t bytes;
    int rc = control_segment(name, server, device);
    if (rc == 0)
        rc = shm_attach_segment(name, POOL_PAGE, &mapping, &bytes);
    if (rc != 0)
        return rc;
    struct control_shared header;
    const struct control_shared *shared = mapping;
    /* Pairs with the release in control_publish: what was written before may be looked at. */
    if (atomic_load_explicit(&shared->runtime.state, memory_order_acquire) != CONTROL_READY)
        rc = -EAGAIN;
    if (rc == 0)
        rc = check_header(mapping, bytes, server, device, &header);
    if (rc == 0)
        rc = open_view(control, mapping, &header);
    if (rc != 0) {
        shm_detach(mapping, bytes);
        return rc;
    }
    *fingerprint = header.fingerprint;
    return 0;
}

int control_adopt(struct control **control, const char *server, const char *device, uint64_t fingerprint,
                  uint32_t experts_count)
{
    uint64_t found;
    struct control *made = NULL;
    char name[SHM_NAME_SIZE];
    int rc = control_segment(name, server, device);
    const int hold_fd = rc == 0 ? shm_hold(name) : rc;
    rc = hold_fd < 0 ? hold_fd : open_existing(&made, server, device, &found);
    if (made)
        made->hold_fd = hold_fd;
    else if (hold_fd >= 0)
        close(hold_fd);
    if (rc != 0)
        return rc == -EAGAIN || rc == -EPROTO || rc == -EPERM ? -ESTALE : rc;
    if (found != fingerprint || made->experts_count != experts_count) {
        control_detach(&made);
        return -ESTALE;
    }
    struct control_shared *shared = made->shared;
    atomic_store_explicit(&shared->runtime.pid, (uint32_t)getpid(), memory_order_relaxed);
    atomic_store_explicit(&shared->runtime.busy_since_ns, 0, memory_order_relaxed);
    /* The old runtime may have taken bits and died before it looked. */
    set_all_bits(made->ready, 2 * experts_count);
    *control = made;
    return 0;
}

void control_publish(struct control *control)
{
    (void)FAILPOINT("control.publish");
    /* Pairs with the acquire in open_existing. */
    atomic_store_explicit(&control->shared->runtime.state, CONTROL_READY, memory_order_release);
}

void control_retire(struct control **control)
{
    struct control *old = *control;
    uint64_t newest;
    char name[SHM_NAME_SIZE];
    if (!old)
        return;
    if (control_segment(name, old->server, old->device) == 0 && shm_held(name, old->hold_fd)) {
        control_abandon(control);
        return;
    }
    atomic_store_explicit(&old->shared->runtime.state, CONTROL_RETIRED, memory_order_release);
    (void)remove_all(old->server, old->device, &newest);
    control_detach(control);
}

const char *control_fault(struct control *control)
{
    char name[SHM_NAME_SIZE];
    struct control_shared *shared = control->shared;
    if (control_segment(name, control->server, control->device) != 0 ||
        !shm_named(name, control->mapped_bytes, control->constants, sizeof control->constants))
        return "their names do not lead to them any more (somebody removed or changed files in /dev/shm; at a logout, "
               "logind's RemoveIPC does)";
    if (atomic_load_explicit(&shared->runtime.state, memory_order_relaxed) != CONTROL_READY)
        return atomic_load_explicit(&shared->runtime.state, memory_order_relaxed) == CONTROL_REFUSED
                   ? "the frontend finds the control segment damaged"
                   : "the control segment is damaged";
    if (atomic_load_explicit(&shared->runtime.pid, memory_order_relaxed) != (uint32_t)getpid())
        return "the control segment is damaged";
    return control_renewal_wanted(control) ? "the frontend finds a task pool damaged, or its name gone" : NULL;
}

bool control_renewal_wanted(const struct control *control)
{
    return atomic_load_explicit(&control->shared->frontend.renewal_wanted, memory_order_acquire) == control->generation;
}

void control_begin_epoch(struct control *control)
{
    atomic_fetch_add_explicit(&control->shared->frontend.epoch, 1, memory_order_release);
}

void control_want_renewal(struct control *control)
{
    atomic_store_explicit(&control->shared->frontend.renewal_wanted, control->generation, memory_order_release);
    doorbell_ring(&control->shared->runtime_bell);
}

void control_abandon(struct control **control)
{
    struct control *old = *control;
    if (!old)
        return;
    atomic_store_explicit(&old->shared->runtime.state, CONTROL_RETIRED, memory_order_release);
    for (uint32_t pool = 0; pool < 2 * old->experts_count; pool++)
        (void)pool_remove(old->server, old->device, old->generation, pool);
    control_detach(control);
}

/* The runtime of this one lives, maybe, and is of our version: it will see it. */
static void refuse(const char *server, const char *device)
{
    char name[SHM_NAME_SIZE];
    void *mapping;
    size_t bytes;
    if (control_segment(name, server, device) != 0 || shm_attach_segment(name, POOL_PAGE, &mapping, &bytes) != 0)
        return;
    struct control_shared *shared = mapping;
    uint32_t ready = CONTROL_READY;
    if (shared->magic == CONTROL_MAGIC && shared->version == CONTROL_VERSION)
        (void)atomic_compare_exchange_strong(&shared->runtime.state, &ready, CONTROL_REFUSED);
    shm_detach(mapping, bytes);
}

int control_attach(struct control **control, const char *server, const char *device, bool frontend)
{
    uint64_t fingerprint;
    struct control *made = NULL;
    int rc = open_existing(&made, server, device, &fingerprint);
    for (uint32_t e = 0; rc == 0 && e < made->experts_count; e++)
        rc = !control_slot_used(made, e) || control_expert_sane(made, e) ? 0 : -EPROTO;
    if (rc != 0)
        control_detach(&made);
    if (rc == -EPROTO && frontend)
        refuse(server, device);
    if (rc != 0)
        return rc == -EPERM ? -EPROTO : rc;
    if (frontend) {
        struct control_shared *shared = made->shared;
        /* Before it looks at slots: see pools/control_shared.h. */
        atomic_fetch_add_explicit(&shared->frontend.epoch, 1, memory_order_seq_cst);
        atomic_store_explicit(&shared->frontend.pid, (uint32_t)getpid(), memory_order_relaxed);
        /* The old frontend may have taken bits and died before it looked. */
        set_all_bits(made->done, 2 * made->experts_count);
    }
    *control = made;
    return 0;
}

void control_detach(struct control **control)
{
    struct control *old = *control;
    *control = NULL;
    if (!old)
        return;
    shm_detach(old->shared, old->mapped_bytes);
    if (old->hold_fd >= 0)
        close(old->hold_fd);
    free(old);
}

/* --- reading --------------------------------------------------------------------------------------------------------
 */

struct control_shared *control_page(struct control *control)
{
    return control->shared;
}

uint64_t control_generation(const struct control *control)
{
    return control->generation;
}

uint32_t control_experts_count(const struct control *control)
{
    return control->experts_count;
}

struct control_expert_shared *control_expert(struct control *control, uint32_t e)
{
    return &control->experts[e];
}

void control_expert_uid(const struct control_expert_shared *expert, char uid[UID_SIZE])
{
    memcpy(uid, expert->uid, UID_SIZE);
    uid[UID_SIZE - 1] = 0;
}

bool control_retired(struct control *control)
{
    return atomic_load_explicit(&control->shared->runtime.state, memory_order_acquire) != CONTROL_READY;
}

/* --- slots ----------------------------------------------------------------------------------------------------------
 */

bool control_slot_used(const struct control *control, uint32_t e)
{
    return atomic_load_explicit(&control->experts[e].runtime.slot, memory_order_seq_cst) == CONTROL_SLOT_USED;
}

void control_slot_set(struct control *control, uint32_t e, enum control_slot slot)
{
    atomic_store_explicit(&control->experts[e].runtime.slot, (uint32_t)slot, memory_order_seq_cst);
    atomic_fetch_add_explicit(&control->shared->runtime.slots_version, 1, memory_order_seq_cst);
}

uint64_t control_slots_version(const struct control *control)
{
    return atomic_load_explicit(&control->shared->runtime.slots_version, memory_order_seq_cst);
}

void control_expert_change_begin(struct control_expert_shared *record)
{
    atomic_fetch_add_explicit(&record->runtime.version, 1, memory_order_relaxed);
    /* Pairs with the fence in control_expert_copy: who reads something of the new sees the odd number. */
    atomic_thread_fence(memory_order_release);
}

void control_expert_change_end(struct control_expert_shared *record)
{
    atomic_fetch_add_explicit(&record->runtime.version, 1, memory_order_release);
}

int control_expert_copy(const struct control_expert_shared *record, struct control_expert_shared *copy)
{
    enum { TRIES = 1000 };
    for (int i = 0; i < TRIES; i++) {
        const uint64_t before = atomic_load_explicit(&record->runtime.version, memory_order_acquire);
        memcpy(copy, record, offsetof(struct control_expert_shared, runtime));
        atomic_thread_fence(memory_order_acquire);
        if (before % 2 == 0 && atomic_load_explicit(&record->runtime.version, memory_order_relaxed) == before)
            return 0;
    }
    return -EAGAIN;
}

/* --- changes --------------------------------------------------------------------------------------------------------
 */

static uint64_t change_word(uint64_t number, enum control_phase phase)
{
    return number << 2 | (uint64_t)phase;
}

void control_change_ask(struct control *control, uint64_t number, enum control_phase phase)
{
    atomic_store_explicit(&control->shared->frontend.change_wanted, change_word(number, phase), memory_order_release);
    doorbell_ring(&control->shared->runtime_bell);
}

bool control_change_answered(struct control *control, uint64_t number, enum control_phase phase, uint32_t *status,
                             char why[CONTROL_WHY_SIZE])
{
    struct control_shared *shared = control->shared;
    /* Pairs with the release in control_change_answer. */
    if (atomic_load_explicit(&shared->change.served, memory_order_acquire) != change_word(number, phase))
        return false;
    *status = atomic_load_explicit(&shared->change.status, memory_order_relaxed);
    memcpy(why, shared->change.why, CONTROL_WHY_SIZE);
    why[CONTROL_WHY_SIZE - 1] = 0;
    return true;
}

bool control_change_wanted(const struct control *control, uint64_t *number, enum control_phase *phase)
{
    const struct control_shared *shared = control->shared;
    const uint64_t wanted = atomic_load_explicit(&shared->frontend.change_wanted, memory_order_acquire);
    if (wanted == 0 || wanted == atomic_load_explicit(&shared->change.served, memory_order_relaxed))
        return false;
    *number = wanted >> 2;
    *phase = (enum control_phase)(wanted & 3);
    return true;
}

void control_change_answer(struct control *control, uint64_t number, enum control_phase phase, uint32_t status,
                           const char *why)
{
    struct control_shared *shared = control->shared;
    snprintf(shared->change.why, sizeof shared->change.why, "%s", why);
    atomic_store_explicit(&shared->change.status, status, memory_order_relaxed);
    atomic_store_explicit(&shared->change.served, change_word(number, phase), memory_order_release);
}

/* --- bitmaps and counters -------------------------------------------------------------------------------------------
 */

/* No look at the bit first to save the exchange: a bit that is seen set may just be taken, before our position is seen.
 */
static void mark(_Atomic uint64_t *bits, uint32_t pool)
{
    atomic_fetch_or_explicit(&bits[pool / 64], UINT64_C(1) << pool % 64, memory_order_release);
}

void control_prefetch_ready(const struct control *control, uint32_t pool)
{
    __builtin_prefetch(&control->ready[pool / 64], 1);
}

void control_mark_ready(struct control *control, uint32_t pool)
{
    mark(control->ready, pool);
}

void control_mark_done(struct control *control, uint32_t pool)
{
    mark(control->done, pool);
}

static void visit_all(const uint32_t *pools, uint32_t pools_count, control_visit *const *stages, unsigned count,
                      void *context)
{
    /* One alone is faster read than fetched first. */
    for (unsigned stage = pools_count > 1 ? 0 : count - 1; stage < count; stage++)
        for (uint32_t i = 0; i < pools_count; i++)
            stages[stage](pools[i], context);
}

static uint32_t take(_Atomic uint64_t *bits, const struct control *control, control_visit *const *stages,
                     unsigned count, void *context)
{
    uint32_t pools[CONTROL_TOGETHER], visited = 0, taken = 0;
    for (uint32_t word = 0; word < control->words; word++) {
        if (atomic_load_explicit(&bits[word], memory_order_relaxed) == 0)
            continue;
        /* Pairs with the release in mark(). */
        uint64_t set = atomic_exchange_explicit(&bits[word], 0, memory_order_acquire);
        for (; set != 0; set &= set - 1) {
            const uint32_t pool = word * 64 + (uint32_t)__builtin_ctzll(set);
            if (pool >= 2 * control->experts_count)
                break;
            if (taken == CONTROL_TOGETHER) {
                visit_all(pools, taken, stages, count, context);
                visited += taken;
                taken = 0;
            }
            pools[taken++] = pool;
        }
    }
    visit_all(pools, taken, stages, count, context);
    return visited + taken;
}

uint32_t control_take_ready(struct control *control, control_visit *const *stages, unsigned count, void *context)
{
    return take(control->ready, control, stages, count, context);
}

uint32_t control_take_done(struct control *control, control_visit *const *stages, unsigned count, void *context)
{
    return take(control->done, control, stages, count, context);
}

static bool any(_Atomic uint64_t *bits, const struct control *control)
{
    for (uint32_t word = 0; word < control->words; word++)
        if (atomic_load_explicit(&bits[word], memory_order_acquire) != 0)
            return true;
    return false;
}

bool control_any_ready(struct control *control)
{
    return any(control->ready, control);
}

bool control_any_done(struct control *control)
{
    return any(control->done, control);
}

void control_set(struct control *control, enum control_counter counter, uint64_t value)
{
    atomic_store_explicit(&control->shared->statistics.counters[counter], value, memory_order_relaxed);
}

void control_measure(struct control *control, enum pool_kind kind, enum control_histogram histogram, uint64_t value)
{
    histogram_add(&control->shared->statistics.histograms[kind][histogram],
                  histogram == CONTROL_BATCH_ROWS ? HISTOGRAM_ROWS : HISTOGRAM_TIME, value);
}

const char *control_histogram_name(enum control_histogram histogram)
{
    static const char *const names[CONTROL_HISTOGRAMS] = {
        [CONTROL_QUEUE_TIME] = "queue_seconds",
        [CONTROL_COMPUTE_TIME] = "compute_seconds",
        [CONTROL_BATCH_ROWS] = "batch_rows",
    };
    return (unsigned)histogram < CONTROL_HISTOGRAMS ? names[histogram] : "unknown";
}

const char *control_counter_name(enum control_counter counter)
{
    static const char *const names[CONTROL_COUNTERS] = {
        [CONTROL_BATCHES] = "batches",
        [CONTROL_TASKS] = "tasks",
        [CONTROL_ROWS] = "rows",
        [CONTROL_FAILED_TASKS] = "failed_tasks",
        [CONTROL_SKIPPED_TASKS] = "skipped_tasks",
        [CONTROL_STEPS] = "steps",
        [CONTROL_SKIPPED_STEPS] = "skipped_steps",
        [CONTROL_BUSY_NS] = "busy_ns",
        [CONTROL_CHECKPOINTS] = "checkpoints",
        [CONTROL_CHECKPOINT_ERRORS] = "checkpoint_errors",
        [CONTROL_SLEEPS] = "sleeps",
        [CONTROL_PAGE_FAULTS] = "page_faults",
        [CONTROL_CLOSED_FULL] = "closed_full",
        [CONTROL_CLOSED_ROWS] = "closed_rows",
        [CONTROL_CLOSED_TIMEOUT] = "closed_timeout",
        [CONTROL_CLOSED_FREE] = "closed_free",
        [CONTROL_CLOSED_PACE] = "closed_pace",
        [CONTROL_MEMORY_USED] = "memory_used",
        [CONTROL_MEMORY_LIMIT] = "memory_limit",
        [CONTROL_CHECKPOINT_TIME] = "checkpoint_time",
    };
    return (unsigned)counter < CONTROL_COUNTERS ? names[counter] : "unknown";
}

void control_count(struct control *control, enum control_counter counter, uint64_t amount)
{
    atomic_fetch_add_explicit(&control->shared->statistics.counters[counter], amount, memory_order_relaxed);
}

/* --- fingerprint ----------------------------------------------------------------------------------------------------
 */

static uint64_t chain_number(uint64_t chain, uint64_t number)
{
    const uint64_t pair[2] = {chain, number};
    return uid_hash(pair, sizeof pair);
}

static uint64_t chain_schema(uint64_t chain, const struct schema *schema)
{
    chain = chain_number(chain, schema->count);
    for (uint32_t i = 0; i < schema->count && i < SCHEMA_MAX_TENSORS; i++) {
        const struct tensor_desc *desc = &schema->tensors[i];
        chain = chain_number(chain, desc->dtype);
        chain = chain_number(chain, desc->ndim);
        for (uint32_t d = 0; d < desc->ndim && d < TENSOR_MAX_DIMS; d++)
            chain = chain_number(chain, desc->dims[d]);
        chain = chain_number(chain, uid_hash(desc->name, strnlen(desc->name, sizeof desc->name)));
    }
    return chain;
}

uint64_t control_fingerprint(uint64_t chain, const struct pool_layout *layout)
{
    chain = chain_number(chain, (uint64_t)POOL_VERSION << 32 | CONTROL_VERSION);
    chain = chain_number(chain, (uint64_t)layout->kind);
    chain = chain_number(chain, uid_hash(layout->uid, strlen(layout->uid)));
    chain = chain_schema(chain, &layout->inputs);
    chain = chain_schema(chain, &layout->outputs);
    chain = chain_number(chain, layout->max_batch_size);
    chain = chain_number(chain, layout->queue_rows);
    return chain_number(chain, layout->queue_tasks);
}
