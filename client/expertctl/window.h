/* What was measured in a stretch of time: how long each call took, and what the device said of itself. */
#ifndef EXPERTD_CLIENT_WINDOW_H
#define EXPERTD_CLIENT_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sums of one histogram over the stretch. */
struct window_sum {
    double sum;
    double count;
};

/* All zero is empty. */
struct window {
    double seconds;
    uint64_t failed;
    uint64_t *latencies_ns; /* of the calls that came back; ascending once window_sort() was called */
    size_t count, capacity;
    struct window_sum queue, compute, batch_rows; /* tasks; batches; batches */
};

/* 0 or -ENOMEM. */
int window_add(struct window *window, uint64_t latency_ns);
/* Adds all of what the other has. 0 or -ENOMEM. */
int window_merge(struct window *window, const struct window *other);
void window_sort(struct window *window);
/* Of a sorted one that is not empty: the smallest latency that `percent` of them do not exceed. */
uint64_t window_percentile(const struct window *window, double percent);
double window_mean_ns(const struct window *window); /* 0 of none */
double window_rate(const struct window *window);    /* calls a second */
/* Whether calls a second and mean latency of each are within `tolerance` (0.1: 10 %) of the mean of all. */
bool window_stable(const struct window *windows, size_t count, double tolerance);
/* Empties it; keeps no memory. */
void window_clear(struct window *window);

#endif
