#include "client/expertctl/rates.h"

#include <string.h>

bool rates_find(const struct expertd_stats *stats, const char *name, double *value)
{
    for (size_t i = 0; stats && i < stats->count; i++)
        if (strcmp(stats->counters[i].name, name) == 0) {
            *value = stats->counters[i].value;
            return true;
        }
    return false;
}

double rates_counter(const struct expertd_stats *before, const struct expertd_stats *now, const char *name,
                     double seconds)
{
    double old, new;
    if (!rates_find(before, name, &old) || !rates_find(now, name, &new) || new < old || !(seconds > 0))
        return 0;
    return (new - old) / seconds;
}

const struct expertd_histogram *rates_find_histogram(const struct expertd_stats *stats, const char *name)
{
    for (size_t i = 0; stats && i < stats->histograms_count; i++)
        if (strcmp(stats->histograms[i].name, name) == 0)
            return &stats->histograms[i];
    return NULL;
}

static double count_in(const struct expertd_histogram *before, const struct expertd_histogram *now, size_t bucket)
{
    return now->counts[bucket] < before->counts[bucket] ? 0 : (double)(now->counts[bucket] - before->counts[bucket]);
}

static double quantile(const struct expertd_histogram *before, const struct expertd_histogram *now, double count,
                       double which)
{
    double below = 0;
    for (size_t b = 0; b < now->bounds_count; b++) {
        const double here = count_in(before, now, b), first = b > 0 ? now->bounds[b - 1] : 0;
        if (below + here >= which * count && here > 0)
            return first + (now->bounds[b] - first) * (which * count - below) / here;
        below += here;
    }
    return now->bounds_count > 0 ? now->bounds[now->bounds_count - 1] : 0; /* above all bounds: at least so much */
}

struct rates_histogram rates_histogram(const struct expertd_stats *before, const struct expertd_stats *now,
                                       const char *name)
{
    const struct expertd_histogram *old = rates_find_histogram(before, name), *new = rates_find_histogram(now, name);
    struct rates_histogram result = {0};
    if (!old || !new || old->bounds_count != new->bounds_count)
        return result;
    for (size_t b = 0; b <= new->bounds_count; b++)
        result.count += count_in(old, new, b);
    if (!(result.count > 0) || new->sum < old->sum)
        return (struct rates_histogram){0};
    result.mean = (new->sum - old->sum) / result.count;
    result.median = quantile(old, new, result.count, 0.5);
    result.p99 = quantile(old, new, result.count, 0.99);
    return result;
}
