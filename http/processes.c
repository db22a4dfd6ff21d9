#include "http/processes.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static size_t add(struct listed_process *process, double pid, const char *program, const char *device, size_t length)
{
    snprintf(process->program, sizeof process->program, "%s", program);
    process->frontend[0] = 0;
    snprintf(process->device, sizeof process->device, "%.*s", (int)length, device);
    process->pid = pid >= 1 && pid < 1e9 ? (long)pid : 0;
    return usage_read(&process->usage, process->pid, program);
}

static void take_dht_pid(void *context, const char *name, double value)
{
    if (strcmp(name, "dht.pid") == 0)
        *(double *)context = value;
}

/* Of "device.NAME.pid" the name; NULL: it is another counter. */
static const char *device_of(const char *name, size_t *length)
{
    static const char prefix[] = "device.";
    if (strncmp(name, prefix, strlen(prefix)) != 0)
        return NULL;
    name += strlen(prefix);
    *length = strcspn(name, "."); /* a device's name has none */
    return strcmp(name + *length, ".pid") == 0 ? name : NULL;
}

/* Those that one frontend names, behind the first `count`. */
static size_t list_of(struct listed_process *processes, size_t count, const struct expertd_stats *stats,
                      const char *frontend)
{
    for (size_t i = 0; i < stats->count && count < PROCESSES_MAX; i++) {
        const struct expertd_counter *counter = &stats->counters[i];
        size_t length = 0;
        const char *device = device_of(counter->name, &length);
        if (device) {
            count += add(&processes[count], counter->value, "expertd-runtime", device, length);
        } else if (strcmp(counter->name, "frontend.pid") == 0) {
            const size_t added = add(&processes[count], counter->value, "expertd-frontend", "", 0);
            if (added)
                snprintf(processes[count].frontend, sizeof processes[count].frontend, "%s", frontend);
            count += added;
        }
    }
    return count;
}

size_t processes_list(struct listed_process processes[PROCESSES_MAX], const struct snapshot *snapshot,
                      struct history *history)
{
    double dht_pid = 0;
    size_t count = add(&processes[0], (double)getpid(), "expertd-http", "", 0);
    if (snapshot->frontends_count == 0 && snapshot->stats)
        count = list_of(processes, count, snapshot->stats, "");
    for (size_t f = 0; f < snapshot->frontends_count; f++)
        if (snapshot->frontends[f].stats)
            count = list_of(processes, count, snapshot->frontends[f].stats, snapshot->frontends[f].name);
    (void)history_dht(history, take_dht_pid, &dht_pid);
    if (count < PROCESSES_MAX)
        count += add(&processes[count], dht_pid, "expertd-dht", "", 0);
    return count;
}
