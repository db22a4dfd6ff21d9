#include "command/planner.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/log.h"

/* --- which ----------------------------------------------------------------------------------------------------------
 */

bool planner_matches(const struct options_device *device, const char *word)
{
    char numbers[32];
    snprintf(numbers, sizeof numbers, "%u.%u", device->platform, device->device);
    if (strspn(word, "0123456789.") == strlen(word) && strchr(word, '.'))
        return strcmp(word, numbers) == 0;
    const char *pci = device->pci[0] && strchr(word, ':') ? strstr(device->pci, word) : NULL;
    if (pci && pci[strlen(word)] == 0) /* "65:00.0" is enough of 0000:65:00.0 */
        return true;
    return strcasestr(device->name, word) || strcasestr(device->vendor, word) ||
           strcasestr(device->platform_name, word) || strcasecmp(device->class, word) == 0;
}

/* Of a flag's words; -EINVAL after a message about one that means none. */
static int mark(const struct planner_device *devices, unsigned count, const char *flag, const char *words, bool *marks)
{
    char word[128];
    for (const char *at = words; *at;) {
        const size_t length = strcspn(at, ",");
        bool used = false;
        snprintf(word, sizeof word, "%.*s", (int)length, at);
        for (unsigned i = 0; i < count && word[0]; i++)
            if (planner_matches(&devices[i].is, word))
                marks[i] = used = true;
        if (!used) {
            log_error("--%s: '%.*s' is no device of this machine: neither PLATFORM.DEVICE numbers nor a PCI id, nor a "
                      "part of a name, vendor or platform",
                      flag, (int)length, at);
            return -EINVAL;
        }
        at += length + (at[length] == ',');
    }
    return 0;
}

static bool is_of_class(const struct options_device *device, const char *class)
{
    if (strcmp(class, "all") == 0)
        return true;
    return strcmp(class, "gpu") == 0 ? device->gpu : strcmp(device->class, class) == 0;
}

static const char *default_class(const struct planner_device *devices, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (devices[i].is.gpu)
            return "gpu";
    return "all";
}

int planner_choose(struct planner_device *devices, unsigned count, const struct planner_choice *choice)
{
    const char *class = choice->class ? choice->class : choice->include ? "all" : default_class(devices, count);
    bool *included = calloc(count + 1, sizeof *included), *excluded = calloc(count + 1, sizeof *excluded);
    unsigned left = 0;
    int result = included && excluded ? 0 : -ENOMEM;
    if (strcmp(class, "gpu") != 0 && strcmp(class, "cpu") != 0 && strcmp(class, "accelerator") != 0 &&
        strcmp(class, "all") != 0) {
        log_error("--class: '%.100s' is not gpu, cpu, accelerator or all", class);
        result = -EINVAL;
    }
    if (result == 0 && choice->include)
        result = mark(devices, count, "include", choice->include, included);
    if (result == 0 && choice->exclude)
        result = mark(devices, count, "exclude", choice->exclude, excluded);
    for (unsigned i = 0; result == 0 && i < count; i++) {
        devices[i].left_out = excluded[i]                           ? "excluded"
                              : choice->include && !included[i]     ? "not included"
                              : !is_of_class(&devices[i].is, class) ? "another class"
                                                                    : NULL;
        left += !devices[i].left_out;
    }
    free(included);
    free(excluded);
    if (result == 0 && left == 0) {
        log_error("no OpenCL device of this machine is to be used%s%s%s (expertd-runtime --list-devices shows what "
                  "there is)",
                  count ? ": none is left of class '" : "", count ? class : "", count ? "'" : "");
        result = -EINVAL;
    }
    return result;
}

/* --- how many --------------------------------------------------------------------------------------------------------
 */

static bool takes_more(const struct planner_device *device)
{
    return !device->left_out && device->experts < device->room;
}

/* The device whose experts, with one more, are done the soonest; `count`: none has room. */
static unsigned soonest(const struct planner_device *devices, unsigned count)
{
    unsigned best = count;
    double best_time = 0;
    for (unsigned i = 0; i < count; i++) {
        const double speed = devices[i].gflops > 0 ? devices[i].gflops : 1e-9;
        const double time = (double)(devices[i].experts + 1) / speed;
        if (takes_more(&devices[i]) && (best == count || time < best_time)) {
            best = i;
            best_time = time;
        }
    }
    return best;
}

int planner_divide(struct planner_device *devices, unsigned count, uint64_t experts)
{
    uint64_t room = 0;
    for (unsigned i = 0; i < count; i++) {
        devices[i].experts = 0;
        room += devices[i].left_out || room > UINT64_MAX - devices[i].room ? 0 : devices[i].room;
    }
    if (room < experts) {
        log_error("the devices' memory has room for %" PRIu64 " of %" PRIu64 " experts: host fewer, or smaller ones, "
                  "or use more devices",
                  room, experts);
        return -ENOSPC;
    }
    for (uint64_t i = 0; i < experts; i++)
        devices[soonest(devices, count)].experts++;
    return 0;
}
