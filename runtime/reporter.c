#include "runtime/reporter.h"

#include <inttypes.h>

#include "common/clock.h"
#include "common/log.h"

static uint64_t counter(const struct control_shared *page, enum control_counter which)
{
    return atomic_load_explicit(&page->statistics.counters[which], memory_order_relaxed);
}

static struct reporter_counts read_counts(struct control *control)
{
    const struct control_shared *page = control_page(control);
    struct reporter_counts counts = {.tasks = counter(page, CONTROL_TASKS),
                                     .failed = counter(page, CONTROL_FAILED_TASKS),
                                     .skipped = counter(page, CONTROL_SKIPPED_TASKS),
                                     .steps = counter(page, CONTROL_STEPS),
                                     .busy_ns = counter(page, CONTROL_BUSY_NS)};
    for (unsigned kind = 0; kind < 2; kind++) {
        const struct histogram *rows = &page->statistics.histograms[kind][CONTROL_BATCH_ROWS];
        counts.rows[kind] = atomic_load_explicit(&rows->sum, memory_order_relaxed);
        for (unsigned b = 0; b < HISTOGRAM_BUCKETS; b++)
            counts.batches[kind] += atomic_load_explicit(&rows->counts[b], memory_order_relaxed);
    }
    return counts;
}

/* Segments that were made anew count from 0. */
static uint64_t since(uint64_t before, uint64_t now)
{
    return now >= before ? now - before : now;
}

static double mean(uint64_t rows, uint64_t batches)
{
    return batches ? (double)rows / (double)batches : 0;
}

void reporter_begin(struct reporter *reporter, double interval_s, struct control *control, uint64_t now_ns)
{
    reporter->interval_ns = (uint64_t)(interval_s * (double)NS_PER_S);
    reporter->last_ns = now_ns;
    reporter->before = read_counts(control);
}

void reporter_look(struct reporter *reporter, struct control *control, uint64_t now_ns)
{
    if (reporter->interval_ns == 0 || now_ns - reporter->last_ns < reporter->interval_ns)
        return;
    const double seconds = (double)(now_ns - reporter->last_ns) / (double)NS_PER_S;
    const struct reporter_counts *before = &reporter->before, now = read_counts(control);
    const uint64_t tasks = since(before->tasks, now.tasks), forward = since(before->batches[0], now.batches[0]),
                   backward = since(before->batches[1], now.batches[1]),
                   forward_rows = since(before->rows[0], now.rows[0]),
                   backward_rows = since(before->rows[1], now.rows[1]);
    const uint64_t steps = since(before->steps, now.steps), failed = since(before->failed, now.failed),
                   skipped = since(before->skipped, now.skipped);
    const double busy = (double)since(before->busy_ns, now.busy_ns) / (seconds * (double)NS_PER_S);
    const struct log_number numbers[] = {
        {"seconds", seconds},
        {"tasks", (double)tasks},
        {"tasks_per_second", (double)tasks / seconds},
        {"forward_batches", (double)forward},
        {"forward_rows", (double)forward_rows},
        {"backward_batches", (double)backward},
        {"backward_rows", (double)backward_rows},
        {"optimizer_steps", (double)steps},
        {"busy", busy},
        {"failed", (double)failed},
        {"skipped", (double)skipped},
    };
    log_numbers(LOG_LEVEL_INFO, "statistics", numbers, sizeof numbers / sizeof numbers[0],
                "in %.1f s: %" PRIu64 " tasks (%.1f a second); forward %" PRIu64 " batches, %" PRIu64
                " rows (%.1f a batch); backward %" PRIu64 " batches, %" PRIu64 " rows (%.1f a batch); %" PRIu64
                " optimizer steps; busy %.0f %%; %" PRIu64 " failed, %" PRIu64 " skipped",
                seconds, tasks, (double)tasks / seconds, forward, forward_rows, mean(forward_rows, forward), backward,
                backward_rows, mean(backward_rows, backward), steps, 100 * busy, failed, skipped);
    reporter->before = now;
    reporter->last_ns = now_ns;
}
