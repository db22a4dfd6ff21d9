#include "runtime/state/checkpointer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/doorbell.h"
#include "common/log.h"
#include "runtime/state/checkpoint_queue.h"

struct checkpointer {
    const struct config_checkpoint *config;
    struct backend *backends;
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

int checkpointer_create(struct checkpointer **checkpointer, const struct config_checkpoint *config,
                        struct backend *backends, uint32_t count, struct control *control)
{
    struct checkpointer *c = *checkpointer = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->config = config;
    c->backends = backends;
    c->count = count;
    c->control = control;
    c->page = control_page(control);
    pthread_mutex_init(&c->page_mutex, NULL);
    c->commands = UINT64_MAX; /* tickets that a dead runtime left are found at the first step */
    c->interval_ns = *config->dir && config->interval > 0 ? (uint64_t)(config->interval * (double)NS_PER_S) : 0;
    c->next_ns = c->interval_ns ? clock_now_ns() + c->interval_ns : UINT64_MAX;
    c->waiting = calloc(count, sizeof *c->waiting);
    int rc = c->waiting ? 0 : -ENOMEM;
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
    free(c->waiting);
    free(c);
    *checkpointer = NULL;
}

/* --- who is due ------------------------------------------------------------------------------------------------------
 */

static bool changed(const struct backend *backend)
{
    return expert_tensors(backend->expert) > 0 &&
           memcmp(&backend->expert->counters, &backend->checkpoint.saved, sizeof backend->checkpoint.saved) != 0;
}

static void push(struct checkpointer *checkpointer, uint32_t index)
{
    struct backend *backend = &checkpointer->backends[index];
    if (backend->checkpoint.queued)
        return;
    backend->checkpoint.queued = true;
    checkpointer->waiting[(checkpointer->first + checkpointer->waiting_count++) % checkpointer->count] = index;
}

static void push_changed(struct checkpointer *checkpointer)
{
    for (uint32_t i = 0; i < checkpointer->count; i++)
        if (changed(&checkpointer->backends[i]))
            push(checkpointer, i);
}

/* The newest ticket that is not served; 0: none. */
static uint64_t open_ticket(const struct backend *backend)
{
    const uint64_t ticket = atomic_load_explicit(&backend->record->frontend.checkpoint_requested, memory_order_acquire);
    const uint64_t served = atomic_load_explicit(&backend->record->runtime.checkpoint_served, memory_order_relaxed);
    return ticket == served ? 0 : ticket;
}

/* The errno first: who sees the ticket as served (acquire) may read it. */
static void serve(struct backend *backend, uint64_t ticket, int error)
{
    atomic_store_explicit(&backend->record->runtime.checkpoint_errno, (uint32_t)error, memory_order_relaxed);
    atomic_store_explicit(&backend->record->runtime.checkpoint_served, ticket, memory_order_release);
}

/* A new ticket while the expert is being written is for the next copy: its result comes here again. */
static bool look_at_ticket(struct checkpointer *checkpointer, uint32_t index)
{
    struct backend *backend = &checkpointer->backends[index];
    const uint64_t ticket = open_ticket(backend);
    if (ticket == 0)
        return false;
    if (checkpointer->queue && expert_tensors(backend->expert) > 0) {
        push(checkpointer, index);
        return false;
    }
    serve(backend, ticket, checkpointer->queue ? 0 : ENOTSUP);
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
    struct backend *backend = &checkpointer->backends[index];
    const uint64_t ticket = backend->checkpoint.ticket;
    backend->checkpoint.queued = false;
    backend->checkpoint.ticket = 0;
    if (error == 0)
        backend->checkpoint.saved = backend->checkpoint.taken;
    else if (log_burst_allows(&burst))
        log_error("no checkpoint of '%s' in '%s': %s (%u more like it)", backend->uid, checkpointer->config->dir,
                  strerror(-error), burst.suppressed_before);
    if (!checkpointer->control)
        return false;
    control_count(checkpointer->control, error == 0 ? CONTROL_CHECKPOINTS : CONTROL_CHECKPOINT_ERRORS, 1);
    if (error == 0)
        control_set(checkpointer->control, CONTROL_CHECKPOINT_TIME, (uint64_t)time(NULL));
    if (ticket)
        serve(backend, ticket, -error);
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

int checkpointer_copy(struct checkpointer *checkpointer)
{
    const uint32_t index = checkpointer->waiting[checkpointer->first];
    struct backend *backend = &checkpointer->backends[index];
    checkpointer->first = (checkpointer->first + 1) % checkpointer->count;
    checkpointer->waiting_count--;
    /* Before the copy, so that the ticket does not stand for more than what is in it. */
    backend->checkpoint.ticket = checkpointer->control ? open_ticket(backend) : 0;
    backend->checkpoint.taken = backend->expert->counters;
    const int rc = checkpoint_queue_put(checkpointer->queue, index, backend->expert, backend->uid);
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

/* --- the end ---------------------------------------------------------------------------------------------------------
 */

void checkpointer_detach(struct checkpointer *checkpointer)
{
    pthread_mutex_lock(&checkpointer->page_mutex);
    checkpointer->page = NULL;
    pthread_mutex_unlock(&checkpointer->page_mutex);
    checkpointer->control = NULL;
    for (uint32_t i = 0; i < checkpointer->count; i++)
        checkpointer->backends[i].record = NULL;
}

void checkpointer_attach(struct checkpointer *checkpointer, struct control *control)
{
    checkpointer->control = control;
    checkpointer->commands = UINT64_MAX;
    pthread_mutex_lock(&checkpointer->page_mutex);
    checkpointer->page = control_page(control);
    pthread_mutex_unlock(&checkpointer->page_mutex);
}

void checkpointer_finish(struct checkpointer *checkpointer)
{
    uint64_t said_ns = clock_now_ns();
    if (!checkpointer->queue)
        return;
    /* Twice: what is being written may have changed since its copy. */
    for (int round = 0; round < 2; round++) {
        push_changed(checkpointer);
        for (;;) {
            fetch_results(checkpointer);
            if (checkpointer->waiting_count > 0 && checkpoint_queue_has_room(checkpointer->queue)) {
                if (checkpointer_copy(checkpointer) < 0)
                    return;
            } else if (!checkpoint_queue_wait(checkpointer->queue)) {
                break;
            }
            if (clock_now_ns() - said_ns > 2 * NS_PER_S) {
                said_ns = clock_now_ns();
                log_info("saving experts, %u to go (a second signal stops at once)", checkpointer->waiting_count);
            }
        }
    }
}
