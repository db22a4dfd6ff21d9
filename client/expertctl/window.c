#include "client/expertctl/window.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int reserve(struct window *window, size_t more)
{
    size_t capacity = window->capacity ? window->capacity : 1024;
    while (capacity < window->count + more)
        capacity *= 2;
    if (capacity == window->capacity)
        return 0;
    uint64_t *larger = realloc(window->latencies_ns, capacity * sizeof *larger);
    if (!larger)
        return -ENOMEM;
    window->latencies_ns = larger;
    window->capacity = capacity;
    return 0;
}

int window_add(struct window *window, uint64_t latency_ns)
{
    if (reserve(window, 1) < 0)
        return -ENOMEM;
    window->latencies_ns[window->count++] = latency_ns;
    return 0;
}

static void add_sum(struct window_sum *sum, const struct window_sum *other)
{
    sum->sum += other->sum;
    sum->count += other->count;
}

int window_merge(struct window *window, const struct window *other)
{
    if (other->count > 0) {
        if (reserve(window, other->count) < 0)
            return -ENOMEM;
        memcpy(window->latencies_ns + window->count, other->latencies_ns, other->count * sizeof(uint64_t));
    }
    window->count += other->count;
    window->seconds += other->seconds;
    window->failed += other->failed;
    add_sum(&window->queue, &other->queue);
    add_sum(&window->compute, &other->compute);
    add_sum(&window->batch_rows, &other->batch_rows);
    return 0;
}

static int ascending(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

void window_sort(struct window *window)
{
    if (window->count > 0)
        qsort(window->latencies_ns, window->count, sizeof *window->latencies_ns, ascending);
}

uint64_t window_percentile(const struct window *window, double percent)
{
    const double rank = ceil(percent / 100 * (double)window->count);
    const size_t index = rank < 1 ? 0 : (size_t)rank - 1;
    return window->latencies_ns[index < window->count ? index : window->count - 1];
}

double window_mean_ns(const struct window *window)
{
    double sum = 0;
    for (size_t i = 0; i < window->count; i++)
        sum += (double)window->latencies_ns[i];
    return window->count > 0 ? sum / (double)window->count : 0;
}

double window_rate(const struct window *window)
{
    return window->seconds > 0 ? (double)window->count / window->seconds : 0;
}

bool window_stable(const struct window *windows, size_t count, double tolerance)
{
    double rate = 0, latency = 0;
    for (size_t i = 0; i < count; i++) {
        rate += window_rate(&windows[i]) / (double)count;
        latency += window_mean_ns(&windows[i]) / (double)count;
    }
    if (!(rate > 0))
        return false;
    for (size_t i = 0; i < count; i++)
        if (fabs(window_rate(&windows[i]) - rate) > tolerance * rate ||
            fabs(window_mean_ns(&windows[i]) - latency) > tolerance * latency)
            return false;
    return true;
}

void window_clear(struct window *window)
{
    free(window->latencies_ns);
    *window = (struct window){0};
}
