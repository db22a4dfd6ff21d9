#include "runtime/measure.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "runtime/blocks/expert.h"
#include "runtime/compute/compute.h"
#include "runtime/compute/trial.h"

enum { ROWS = 256, WIDTH = 1024, BEST_OF = 3, MOST_LAUNCHES = 1 << 16 };
static const uint64_t long_enough_ns = 50 * NS_PER_MS;
static const struct linear_size size = {.n = WIDTH, .k = WIDTH};

static int launch(const struct trial *trial, unsigned launches, uint64_t *took_ns)
{
    const uint64_t start_ns = clock_now_ns();
    int result = 0;
    for (unsigned i = 0; i < launches && result == 0; i++)
        result = trial_launch(trial, false, ROWS, &size);
    if (result == 0)
        result = device_finish(trial->device);
    *took_ns = clock_now_ns() - start_ns;
    return result;
}

/* The best of a few times, each of as many launches as make it long enough to be measured. */
static int measure_speed(struct device *device, double *gflops)
{
    struct trial trial;
    unsigned launches = 1;
    uint64_t took_ns = 0;
    *gflops = 0;
    int result = trial_open(&trial, device, ROWS, &size, 1);
    if (result == 0)
        result = launch(&trial, 1, &took_ns); /* the first one may compile */
    for (unsigned times = 0; result == 0 && times < BEST_OF;) {
        result = launch(&trial, launches, &took_ns);
        if (took_ns < long_enough_ns && launches < MOST_LAUNCHES) {
            launches *= 2;
            continue;
        }
        const double speed = 2.0 * ROWS * WIDTH * WIDTH * launches / (double)took_ns;
        *gflops = speed > *gflops ? speed : *gflops;
        times++;
    }
    trial_close(&trial);
    return result;
}

static int measure_room(const struct device *device, const struct config *config, const struct config_device *entry,
                        uint64_t *room)
{
    const uint64_t budget = device_memory_budget(device);
    uint64_t own = 0, workspace = 0;
    for (unsigned i = 0; i < config->experts_count; i++) {
        if (strcmp(config->experts[i].device, entry->name) != 0)
            continue;
        const int result = expert_memory(device, &config->experts[i], &own, &workspace);
        if (result < 0)
            return result;
        *room = own == 0 ? UINT32_MAX : budget > workspace ? (budget - workspace) / own : 0;
        return 0;
    }
    log_error("the configuration puts no expert on device '%s', of which its memory could have room", entry->name);
    return -ENOENT;
}

int measure_device(const struct config *config, const struct config_device *entry)
{
    struct device *device = NULL;
    double gflops = 0;
    uint64_t room = 0;
    device_cache_begin(entry);
    int result = device_probe();
    if (result == 0)
        result = device_open(&device, entry);
    if (result == 0)
        result = compute_open(device);
    if (device && result == 0) {
        result = measure_room(device, config, entry, &room);
        if (result == 0)
            result = measure_speed(device, &gflops);
        if (result < 0 && result != -ENOENT)
            log_error("device '%s' cannot be measured: %s", entry->name,
                      *device_error(device) ? device_error(device) : strerror(-result));
        compute_close(device);
    }
    if (result != -EIO) /* else the driver may have refused what it had kept */
        device_cache_settled();
    device_destroy(&device);
    device_cache_end();
    if (result == 0)
        printf("measured: %.3f GFLOP/s; room for %" PRIu64 " experts\n", gflops, room);
    return result;
}
