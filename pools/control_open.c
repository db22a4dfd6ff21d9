#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "common/shm.h"
#include "pools/control_private.h"
#include "pools/pool.h"

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

static bool named(const struct control *control)
{
    char name[SHM_NAME_SIZE];
    return control_segment(name, control->server, control->device) == 0 &&
           shm_named(name, control->mapped_bytes, control->constants, sizeof control->constants);
}

bool control_holds_name(const struct control *control)
{
    return control->hold_fd >= 0 && named(control);
}

const char *control_fault(struct control *control)
{
    struct control_shared *shared = control->shared;
    if (!named(control))
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
