#include "frontend/measures.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

enum { NAME_SIZE = 96 };

struct measured_histogram {
    Expertd__Stats__Histogram message;
    char name[NAME_SIZE];
    double bounds[HISTOGRAM_BOUNDS];
    uint64_t counts[HISTOGRAM_BUCKETS];
};

struct measured_expert {
    Expertd__Stats__Expert message;
    Expertd__Stats__Times times[2]; /* by enum pool_kind */
    uint64_t rows;                  /* what they are ordered by */
};

struct measures {
    struct measured_histogram *histograms;
    Expertd__Stats__Histogram **histogram_pointers;
    size_t histograms_count;
    struct measured_expert *experts;
    Expertd__Stats__Expert **expert_pointers;
    size_t experts_count;
};

static const char *const kinds[] = {[POOL_FORWARD] = "forward", [POOL_BACKWARD] = "backward"};

/* --- histograms -----------------------------------------------------------------------------------------------------
 */

__attribute__((format(printf, 4, 5))) static void add(struct measures *measures, const struct histogram *histogram,
                                                      enum histogram_scale scale, const char *name, ...)
{
    struct measured_histogram *measured = &measures->histograms[measures->histograms_count];
    expertd__stats__histogram__init(&measured->message);
    va_list arguments;
    va_start(arguments, name);
    (void)vsnprintf(measured->name, sizeof measured->name, name, arguments);
    va_end(arguments);
    for (unsigned i = 0; i < HISTOGRAM_BOUNDS; i++)
        measured->bounds[i] = histogram_bound(scale, i);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        measured->counts[i] = atomic_load_explicit(&histogram->counts[i], memory_order_relaxed);
    measured->message.name = measured->name;
    measured->message.n_bounds = HISTOGRAM_BOUNDS;
    measured->message.bounds = measured->bounds;
    measured->message.n_counts = HISTOGRAM_BUCKETS;
    measured->message.counts = measured->counts;
    measured->message.sum = histogram_sum(scale, atomic_load_explicit(&histogram->sum, memory_order_relaxed));
    measures->histogram_pointers[measures->histograms_count++] = &measured->message;
}

static void add_device(struct measures *measures, const struct device_link *device)
{
    if (!device->control)
        return;
    const struct control_shared *page = control_page(device->control);
    for (unsigned kind = 0; kind < 2; kind++) {
        for (unsigned h = 0; h < CONTROL_HISTOGRAMS; h++)
            add(measures, &page->statistics.histograms[kind][h],
                h == CONTROL_BATCH_ROWS ? HISTOGRAM_ROWS : HISTOGRAM_TIME, "device.%s.%s.%s", device->name, kinds[kind],
                control_histogram_name((enum control_histogram)h));
    }
}

/* --- experts --------------------------------------------------------------------------------------------------------
 */

static void add_pool(Expertd__Stats__Expert *message, const struct pool_link *link, uint64_t *tasks, uint64_t *rows,
                     uint64_t now_ns)
{
    *tasks = link->tasks;
    *rows = link->rows;
    message->pending += link->requests.count + link->parked.count;
    const struct request *oldest = link->requests.first;
    if (oldest && now_ns > oldest->began_ns) {
        const double seconds = (double)(now_ns - oldest->began_ns) / (double)NS_PER_S;
        if (seconds > message->oldest_seconds)
            message->oldest_seconds = seconds;
    }
}

/* Since the pool was attached, as what else is counted of it. The page is the runtime's: what stands there may be
 * anything. */
static uint64_t since(uint64_t before, uint64_t now)
{
    return now > before ? now - before : 0;
}

static Expertd__Stats__Times *fill_times(Expertd__Stats__Times *times, const struct pool_link *link)
{
    const struct pool_measures measured = pool_measured(link->pool);
    expertd__stats__times__init(times);
    times->request_ns = link->request_ns;
    times->tasks = since(link->before.tasks, measured.tasks);
    times->batches = since(link->before.batches, measured.batches);
    times->queue_ns = since(link->before.queue_ns, measured.queue_ns);
    times->compute_ns = since(link->before.compute_ns, measured.compute_ns);
    return times;
}

static void fill_expert(struct measured_expert *expert, struct server *server, const struct expert_place *place,
                        uint64_t now_ns)
{
    const struct device_link *device = server->devices[place->device];
    Expertd__Stats__Expert *message = &expert->message;
    expertd__stats__expert__init(message);
    message->uid = (char *)(uintptr_t)expert_table_uid(server->experts, place);
    message->device = (char *)(uintptr_t)device->name;
    if (!device->control || place->expert == EXPERT_ABSENT || place->expert >= device->experts_count)
        return;
    const struct pool_link *forward = device->pools[2 * place->expert + POOL_FORWARD];
    const struct pool_link *backward = device->pools[2 * place->expert + POOL_BACKWARD];
    if (forward) {
        add_pool(message, forward, &message->forward_tasks, &message->forward_rows, now_ns);
        message->forward = fill_times(&expert->times[POOL_FORWARD], forward);
    }
    if (backward) {
        add_pool(message, backward, &message->backward_tasks, &message->backward_rows, now_ns);
        message->backward = fill_times(&expert->times[POOL_BACKWARD], backward);
    }
    const struct control_expert_shared *shared = control_expert(device->control, place->expert);
    message->update_count = atomic_load_explicit(&shared->runtime.updates, memory_order_relaxed);
    message->skipped_steps = atomic_load_explicit(&shared->runtime.skipped_steps, memory_order_relaxed);
    expert->rows = message->forward_rows + message->backward_rows;
}

static int by_rows(const void *a, const void *b)
{
    const struct measured_expert *left = a, *right = b;
    if (left->rows != right->rows)
        return left->rows < right->rows ? 1 : -1;
    return strcmp(left->message.uid, right->message.uid);
}

static void add_experts(struct measures *measures, struct server *server, const Expertd__ListQuery *query,
                        uint64_t now_ns)
{
    const char *prefix = query->prefix ? query->prefix : "";
    const size_t length = strlen(prefix);
    const uint32_t count = expert_table_count(server->experts);
    for (uint32_t i = 0; i < count; i++) {
        const struct expert_place *place = expert_table_at(server->experts, i);
        if (strncmp(expert_table_uid(server->experts, place), prefix, length) != 0)
            continue;
        fill_expert(&measures->experts[measures->experts_count++], server, place, now_ns);
    }
    qsort(measures->experts, measures->experts_count, sizeof *measures->experts, by_rows);
    if (query->limit > 0 && measures->experts_count > query->limit)
        measures->experts_count = query->limit;
    if (measures->experts_count > MESSAGE_MAX_LIST)
        measures->experts_count = MESSAGE_MAX_LIST;
    for (size_t i = 0; i < measures->experts_count; i++) {
        struct measured_expert *expert = &measures->experts[i];
        if (expert->message.forward) /* they were sorted since */
            expert->message.forward = &expert->times[POOL_FORWARD];
        if (expert->message.backward)
            expert->message.backward = &expert->times[POOL_BACKWARD];
        measures->expert_pointers[i] = &expert->message;
    }
}

/* --- both -----------------------------------------------------------------------------------------------------------
 */

int measures_gather(struct measures **measures, struct server *server, const Expertd__ListQuery *query, uint64_t now_ns,
                    Expertd__Stats *stats)
{
    const size_t histograms = 2 + (size_t)server->devices_count * 2 * CONTROL_HISTOGRAMS;
    const size_t experts = query ? expert_table_count(server->experts) : 0;
    struct measures *m = *measures = calloc(1, sizeof *m);
    if (!m)
        return -ENOMEM;
    m->histograms = calloc(histograms, sizeof *m->histograms);
    m->histogram_pointers = calloc(histograms, sizeof(Expertd__Stats__Histogram *));
    m->experts = calloc(experts + 1, sizeof *m->experts);
    m->expert_pointers = calloc(experts + 1, sizeof(Expertd__Stats__Expert *));
    if (!m->histograms || !m->histogram_pointers || !m->experts || !m->expert_pointers) {
        measures_free(measures);
        return -ENOMEM;
    }
    for (unsigned kind = 0; kind < 2; kind++)
        add(m, &server->counters.request_time[kind], HISTOGRAM_TIME, "frontend.%s.request_seconds", kinds[kind]);
    for (unsigned d = 0; d < server->devices_count; d++)
        add_device(m, server->devices[d]);
    if (query)
        add_experts(m, server, query, now_ns);
    stats->n_histograms = m->histograms_count;
    stats->histograms = m->histogram_pointers;
    stats->n_experts = m->experts_count;
    stats->experts = m->expert_pointers;
    return 0;
}

void measures_free(struct measures **measures)
{
    if (!*measures)
        return;
    free((*measures)->histograms);
    free((*measures)->histogram_pointers);
    free((*measures)->experts);
    free((*measures)->expert_pointers);
    free(*measures);
    *measures = NULL;
}
