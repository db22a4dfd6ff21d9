#include "runtime/state/checkpointer.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/doorbell.h"
#include "common/log.h"
#include "runtime/state/checkpoint_queue.h"

/* An expert, and what is known of its files. */
struct entry {
    const char *uid;
    struct expert *expert; /* NULL: the slot is free */
    struct control_expert_shared *record;
    struct pool *backward;
    struct checkpoint_window *window; /* once the pool is gone: what it had; NULL: nothing */
    struct expert_counters saved;     /* as in the newest checkpoint, or as it was loaded or made */
    struct expert_counters taken;     /* as in the copy that is being written */
    uint64_t ticket;                  /* that the next result serves; 0: none */
    bool queued;                      /* for a copy, or for its being written */
    int error;                        /* of the newest result */
    bool settling;                    /* it was pushed by checkpointer_settle, whose answer its result is */
};

struct checkpointer {
    const struct config_checkpoint *config;
    struct checkpoint_owner *owner;
    struct entry *entries;
    uint32_t count;
    struct control *control;     /* NULL: detached */
    struct control_shared *page; /* for the writing thread too, hence the mutex; NULL: detached */
    pthread_mutex_t page_mutex;
    struct checkpoint_queue *queue; /* NULL: no folder is configured */
    uint64_t commands;              /* of the frontend, up to which tickets were looked at */
    uint64_t interval_ns, next_ns;  /* UINT64_MAX: never */
    /* Experts that wait for their copy, each at most once: a ring of their indexes. */
    uint32_t *waiting;
    uint32_t first, waiting_count;
    struct checkpoint_window window; /* of the expert that is being copied */
};

/* Called by the writing thread. */
static void wake_runtime(void *context)
{
    struct checkpointer *checkpointer = context;
    pthread_mutex_lock(&checkpointer->page_mutex);
    if (checkpointer->page)
        doorbell_ring(&checkpointer->page->runtime_bell);
    pthread_mutex_unlock(&checkpointer->page_mutex);
}

static void set_entry(struct entry *entry, const struct checkpointer_expert *expert)
{
    entry->uid = expert->uid;
    entry->expert = expert->expert;
    entry->record = expert->record;
    entry->backward = expert->backward;
    entry->saved = expert->expert->counters;
}

int checkpointer_create(struct checkpointer **checkpointer, const struct config_checkpoint *config,
                        struct checkpoint_owner *owner, const struct checkpointer_expert *experts, uint32_t count,
                        struct control *control)
{
    struct checkpointer *c = *checkpointer = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->config = config;
    c->owner = owner;
    c->count = count;
    c->control = control;
    c->page = control_page(control);
    pthread_mutex_init(&c->page_mutex, NULL);
    c->commands = UINT64_MAX; /* tickets that a dead runtime left are found at the first step */
    c->interval_ns = *config->dir && config->interval > 0 ? (uint64_t)(config->interval * (double)NS_PER_S) : 0;
    c->next_ns = c->interval_ns ? clock_now_ns() + c->interval_ns : UINT64_MAX;
    c->waiting = calloc(count, sizeof *c->waiting);
    c->entries = calloc(count, sizeof *c->entries);
    int rc = c->waiting && c->entries ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < count && rc == 0; i++)
        if (experts[i].expert)
            set_entry(&c->entries[i], &experts[i]);
    if (rc == 0 && *config->dir)
        rc = checkpoint_queue_create(&c->queue, config->dir, (unsigned)config->keep, wake_runtime, c);
    if (rc < 0)
        checkpointer_destroy(checkpointer);
    return rc;
}

void checkpointer_destroy(struct checkpointer **checkpointer)
{
    struct checkpointer *c = *checkpointer;
    if (!c)
        return;
    checkpoint_queue_destroy(&c->queue);
    pthread_mutex_destroy(&c->page_mutex);
    for (uint32_t i = 0; c->entries && i < c->count; i++)
        free(c->entries[i].window);
    free(c->entries);
    free(c->waiting);
    free(c);
    *checkpointer = NULL;
}

/* --- who is due ------------------------------------------------------------------------------------------------------
 */

static bool trains(const struct entry *entry)
{
    return entry->expert && entry->expert->optimizer.kind != OPTIMIZER_NONE && expert_tensors(entry->expert) > 0;
}

/* It has learned something since. A backward that was skipped has changed nothing. */
static bool changed(const struct entry *entry)
{
    if (!trains(entry))
        return false;
    const struct expert_counters *now = &entry->expert->counters, *saved = &entry->saved;
    return now->updates != saved->updates || now->examples != saved->examples;
}

static void push(struct checkpointer *checkpointer, uint32_t index)
{
    struct entry *entry = &checkpointer->entries[index];
    if (entry->queued)
        return;
    entry->queued = true;
    checkpointer->waiting[(checkpointer->first + checkpointer->waiting_count++) % checkpointer->count] = index;
}

static void push_changed(struct checkpointer *checkpointer)
{
    for (uint32_t i = 0; i < checkpointer->count; i++)
        if (changed(&checkpointer->entries[i]))
            push(checkpointer, i);
}

/* The newest ticket that is not served; 0: none. */
static uint64_t open_ticket(const struct entry *entry)
{
    const uint64_t ticket = atomic_load_explicit(&entry->record->frontend.checkpoint_requested, memory_order_acquire);
    const uint64_t served = atomic_load_explicit(&entry->record->runtime.checkpoint_served, memory_order_relaxed);
    return ticket == served ? 0 : ticket;
}

/* The errno first: who sees the ticket as served (acquire) may read it. */
static void serve(struct entry *entry, uint64_t ticket, int error)
{
    atomic_store_explicit(&entry->record->runtime.checkpoint_errno, (uint32_t)error, memory_order_relaxed);
    atomic_store_explicit(&entry->record->runtime.checkpoint_served, ticket, memory_order_release);
}

/* A new ticket while the expert is being written is for the next copy: its result comes here again. */
static bool look_at_ticket(struct checkpointer *checkpointer, uint32_t index)
{
    struct entry *entry = &checkpointer->entries[index];
    const uint64_t ticket = entry->expert ? open_ticket(entry) : 0;
    if (ticket == 0)
        return false;
    if (checkpointer->queue && trains(entry)) {
        push(checkpointer, index);
        return false;
    }
    serve(entry, ticket, checkpointer->queue ? 0 : ENOTSUP);
    return true;
}

static bool look_at_tickets(struct checkpointer *checkpointer)
{
    bool served = false;
    if (!checkpointer->control)
        return false;
    const uint64_t commands =
        atomic_load_explicit(&checkpointer->page->frontend.checkpoint_commands, memory_order_acquire);
    if (commands == checkpointer->commands)
        return false;
    checkpointer->commands = commands;
    for (uint32_t i = 0; i < checkpointer->count; i++)
        served |= look_at_ticket(checkpointer, i);
    return served;
}

/* --- copies and results ----------------------------------------------------------------------------------------------
 */

static bool conclude(struct checkpointer *checkpointer, uint32_t index, int error)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    struct entry *entry = &checkpointer->entries[index];
    const uint64_t ticket = entry->ticket;
    entry->queued = false;
    entry->ticket = 0;
    entry->error = error;
    if (error == 0)
        entry->saved = entry->taken;
    else if (log_burst_allows(&burst, &left_out, strerror(-error)))
        log_error("no checkpoint of '%s' in '%s': %s (%u more like it)", entry->uid, checkpointer->config->dir,
                  strerror(-error), left_out);
    if (!checkpointer->control)
        return false;
    control_count(checkpointer->control, error == 0 ? CONTROL_CHECKPOINTS : CONTROL_CHECKPOINT_ERRORS, 1);
    if (error == 0)
        control_set(checkpointer->control, CONTROL_CHECKPOINT_TIME, (uint64_t)time(NULL));
    if (ticket)
        serve(entry, ticket, -error);
    (void)look_at_ticket(checkpointer, index);
    return ticket != 0;
}

static bool fetch_results(struct checkpointer *checkpointer)
{
    bool served = false;
    struct checkpoint_result result;
    while (checkpointer->queue && checkpoint_queue_fetch(checkpointer->queue, &result) == 1)
        served |= conclude(checkpointer, result.index, result.error);
    return served;
}

bool checkpointer_step(struct checkpointer *checkpointer, uint64_t now_ns)
{
    const bool written = fetch_results(checkpointer);
    const bool served = look_at_tickets(checkpointer);
    if (now_ns >= checkpointer->next_ns) {
        checkpointer->next_ns = now_ns + checkpointer->interval_ns;
        push_changed(checkpointer);
    }
    return written || served;
}

bool checkpointer_wants_copy(const struct checkpointer *checkpointer)
{
    return checkpointer->waiting_count > 0 && checkpoint_queue_has_room(checkpointer->queue);
}

/* Of what the pool has applied; after the last one of them was computed. */
static const struct checkpoint_window *window_of(struct checkpointer *checkpointer, const struct entry *entry)
{
    if (!entry->backward)
        return entry->window;
    checkpointer->window.count = pool_list_applied(entry->backward, checkpointer->window.keys);
    return &checkpointer->window;
}

int checkpointer_copy(struct checkpointer *checkpointer)
{
    const uint32_t index = checkpointer->waiting[checkpointer->first];
    struct entry *entry = &checkpointer->entries[index];
    checkpointer->first = (checkpointer->first + 1) % checkpointer->count;
    checkpointer->waiting_count--;
    /* Before the copy, so that the ticket does not stand for more than what is in it. */
    entry->ticket = checkpointer->control ? open_ticket(entry) : 0;
    entry->taken = entry->expert->counters;
    int rc = checkpoint_owner_renew(checkpointer->owner);
    if (rc == 0)
        rc =
            checkpoint_queue_put(checkpointer->queue, index, entry->expert, entry->uid, window_of(checkpointer, entry));
    if (rc < 0)
        (void)conclude(checkpointer, index, rc);
    return rc == -ENODEV ? rc : 0;
}

bool checkpointer_has_work(struct checkpointer *checkpointer)
{
    if (checkpointer_wants_copy(checkpointer) ||
        (checkpointer->queue && checkpoint_queue_has_result(checkpointer->queue)))
        return true;
    return checkpointer->control &&
           checkpointer->commands !=
               atomic_load_explicit(&checkpointer->page->frontend.checkpoint_commands, memory_order_relaxed);
}

uint64_t checkpointer_next_ns(const struct checkpointer *checkpointer)
{
    return checkpointer->next_ns;
}

/* --- experts that come and go ----------------------------------------------------------------------------------------
 */

void checkpointer_add(struct checkpointer *checkpointer, uint32_t slot, const struct checkpointer_expert *expert)
{
    struct entry *entry = &checkpointer->entries[slot];
    *entry = (struct entry){0};
    set_entry(entry, expert);
}

int checkpointer_settle(struct checkpointer *checkpointer, uint32_t slot)
{
    struct entry *entry = &checkpointer->entries[slot];
    if (entry->queued)
        return 0;
    if (!checkpointer->queue || !changed(entry))
        return 1;
    if (entry->settling && entry->error) {
        entry->settling = false;
        return entry->error;
    }
    entry->settling = true;
    entry->error = 0;
    push(checkpointer, slot);
    return 0;
}

void checkpointer_remove(struct checkpointer *checkpointer, uint32_t slot)
{
    struct entry *entry = &checkpointer->entries[slot];
    free(entry->window);
    *entry = (struct entry){0};
}

/* --- the end ---------------------------------------------------------------------------------------------------------
 */

static void keep_window(struct checkpointer *checkpointer, struct entry *entry)
{
    if (changed(entry) && checkpointer->queue) {
        const struct checkpoint_window *window = window_of(checkpointer, entry);
        entry->window = window->count > 0 ? malloc(sizeof *window) : NULL;
        if (entry->window)
            *entry->window = *window;
        else if (window->count > 0)
            log_warning("no memory to save which backwards of '%s' were applied: repeats of them would be again",
                        entry->uid);
    }
    entry->backward = NULL;
}

void checkpointer_detach(struct checkpointer *checkpointer)
{
    pthread_mutex_lock(&checkpointer->page_mutex);
    checkpointer->page = NULL;
    pthread_mutex_unlock(&checkpointer->page_mutex);
    checkpointer->control = NULL;
    for (uint32_t i = 0; i < checkpointer->count; i++) {
        checkpointer->entries[i].record = NULL;
        if (checkpointer->entries[i].backward)
            keep_window(checkpointer, &checkpointer->entries[i]);
    }
}

void checkpointer_attach(struct checkpointer *checkpointer, const struct checkpointer_expert *experts,
                         struct control *control)
{
    for (uint32_t i = 0; i < checkpointer->count; i++) {
        struct entry *entry = &checkpointer->entries[i];
        entry->record = experts[i].record;
        entry->backward = experts[i].backward;
        free(entry->window); /* the pool has it */
        entry->window = NULL;
    }
    checkpointer->control = control;
    checkpointer->commands = UINT64_MAX;
    pthread_mutex_lock(&checkpointer->page_mutex);
    checkpointer->page = control_page(control);
    pthread_mutex_unlock(&checkpointer->page_mutex);
}

uint32_t checkpointer_report_lost(const struct checkpointer *checkpointer)
{
    enum { NAMED = 100 };
    uint32_t lost = 0;
    for (uint32_t i = 0; checkpointer->queue && i < checkpointer->count; i++) {
        const struct entry *entry = &checkpointer->entries[i];
        if (!changed(entry) || lost++ >= NAMED)
            continue;
        const struct expert_counters *now = &entry->expert->counters, *saved = &entry->saved;
        log_error("lost: %" PRIu64 " updates (%" PRIu64 " examples) of '%s' since its checkpoint after %" PRIu64
                  " updates%s%s",
                  now->updates - saved->updates, now->examples - saved->examples, entry->uid, saved->updates,
                  entry->error ? ": " : "", entry->error ? strerror(-entry->error) : "");
    }
    if (lost > NAMED)
        log_error("lost: training of %" PRIu32 " more experts", lost - NAMED);
    return lost;
}

/* False: the device is lost. */
static bool save_changed(struct checkpointer *checkpointer, uint64_t *said_ns)
{
    push_changed(checkpointer);
    for (;;) {
        fetch_results(checkpointer);
        if (checkpointer->waiting_count > 0 && checkpoint_queue_has_room(checkpointer->queue)) {
            if (checkpointer_copy(checkpointer) < 0)
                return false;
        } else if (!checkpoint_queue_wait(checkpointer->queue)) {
            return true;
        }
        if (clock_now_ns() - *said_ns > 2 * NS_PER_S) {
            *said_ns = clock_now_ns();
            log_info("saving experts, %u to go (a second signal stops at once)", checkpointer->waiting_count);
        }
    }
}

uint32_t checkpointer_finish(struct checkpointer *checkpointer)
{
    uint64_t said_ns = clock_now_ns();
    if (!checkpointer->queue)
        return 0;
    /* Twice: what is being written may have changed since its copy. */
    if (save_changed(checkpointer, &said_ns))
        (void)save_changed(checkpointer, &said_ns);
    return checkpointer_report_lost(checkpointer);
}
