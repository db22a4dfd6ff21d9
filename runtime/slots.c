#include "runtime/slots.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/process.h"
#include "runtime/runtime_state.h"

static const uint64_t progress_ns = 2 * NS_PER_S;

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

int slots_fill(struct runtime *runtime)
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

struct checkpointer_expert slots_checkpointer_expert(const struct runtime *runtime, uint32_t slot)
{
    const struct backend *backend = &runtime->backends[slot];
    return (struct checkpointer_expert){.uid = backend->uid,
                                        .expert = backend->expert,
                                        .record = backend->record,
                                        .backward = backend->pools[POOL_BACKWARD].pool};
}

struct checkpointer_expert *slots_checkpointer_experts(const struct runtime *runtime)
{
    struct checkpointer_expert *experts = calloc((size_t)runtime->slots + 1, sizeof *experts);
    for (uint32_t i = 0; experts && i < runtime->slots; i++)
        experts[i] = slots_checkpointer_expert(runtime, i);
    return experts;
}

void slots_destroy(struct runtime *runtime)
{
    for (uint32_t i = 0; runtime->backends && i < runtime->slots; i++)
        backend_destroy(&runtime->backends[i]);
    free(runtime->backends);
}
