#include "command/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"

const char *machine_programs(void)
{
    static char folder[PATH_MAX];
    const ssize_t length = folder[0] ? 0 : readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (length > 0) {
        folder[length] = 0;
        char *slash = strrchr(folder, '/');
        folder[slash ? (size_t)(slash - folder) : 0] = 0;
    }
    return folder;
}

/* Of what lies between two texts, of which the second may be NULL: the end. */
static void copy_between(char *to, size_t size, const char *from, const char *end)
{
    const size_t length = end && end > from ? (size_t)(end - from) : end ? 0 : strlen(from);
    snprintf(to, size, "%.*s", (int)length, from);
}

/* The last place in [at, end) that reads so; NULL. */
static const char *find_last(const char *at, const char *text)
{
    const char *last = NULL;
    while ((at = strstr(at, text)))
        last = at++;
    return last;
}

/* "CLASS of VENDOR, N MiB, ... PCI 0000:65:00.0" */
static void parse_description(const char *at, struct options_device *device)
{
    static const char pci_mark[] = ", PCI ";
    const char *of = strstr(at, " of "), *memory = strstr(at, " MiB, "), *pci = find_last(at, pci_mark);
    if (!of || !memory)
        return;
    const char *comma = memory;
    while (comma > of && *comma != ',')
        comma--;
    copy_between(device->class, sizeof device->class, at, of);
    copy_between(device->vendor, sizeof device->vendor, of + 4, comma);
    device->memory_mib = strtoull(comma + 1, NULL, 10);
    if (pci)
        copy_between(device->pci, sizeof device->pci, pci + sizeof pci_mark - 1,
                     pci + sizeof pci_mark - 1 + strcspn(pci + sizeof pci_mark - 1, "\n"));
}

/* "platform 0 'NAME' device 1 'NAME': gpu of ..." */
bool machine_parse_device(const char *line, struct options_device *device)
{
    static const char between[] = "' device ";
    *device = (struct options_device){0};
    if (sscanf(line, "platform %u '", &device->platform) != 1)
        return false;
    const char *at = strstr(line, between), *first = strchr(line, '\'');
    if (!at || !first || sscanf(at + strlen(between), "%u '", &device->device) != 1)
        return false;
    copy_between(device->platform_name, sizeof device->platform_name, first + 1, at);
    const char *name = strchr(at + strlen(between), '\'');
    at = strstr(at + strlen(between), "': ");
    if (!at || !name)
        return false;
    copy_between(device->name, sizeof device->name, name + 1, at);
    device->gpu = strncmp(at + 3, "gpu ", 4) == 0 || strncmp(at + 3, "integrated ", 11) == 0;
    device->cpu = strncmp(at + 3, "cpu ", 4) == 0;
    parse_description(at + 3, device);
    return true;
}

static int read_devices(FILE *in, struct options_device **devices, unsigned *count)
{
    char *line = NULL;
    size_t size = 0;
    int result = 0;
    while (result == 0 && getline(&line, &size, in) >= 0) {
        struct options_device *larger = realloc(*devices, (*count + 1) * sizeof *larger);
        if (larger)
            *devices = larger;
        result = larger ? 0 : -ENOMEM;
        if (larger && machine_parse_device(line, &larger[*count]))
            ++*count;
    }
    free(line);
    return result;
}

/* Runs expertd-runtime with these arguments, of which the first is its own, and has what it prints read. 0 if it ended
 * well; -EIO if not, or what reading made of it. */
static int ask_runtime(const char *const *argv, int (*read_all)(FILE *in, void *context), void *context)
{
    int ends[2], status = 0;
    if (pipe(ends) != 0)
        return -errno;
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execv(argv[0], (char **)(uintptr_t)argv);
        log_error("cannot start %s: %s", argv[0], strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    FILE *in = child > 0 ? fdopen(ends[0], "r") : NULL;
    int result = in ? read_all(in, context) : -errno;
    if (in)
        fclose(in);
    else
        close(ends[0]);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (result == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        result = -EIO;
    return result;
}

struct device_array {
    struct options_device *items;
    unsigned count;
};

static int read_array(FILE *in, void *context)
{
    struct device_array *array = context;
    return read_devices(in, &array->items, &array->count);
}

int machine_devices(struct options_device **devices, unsigned *count)
{
    char program[PATH_MAX + 32];
    const char *const argv[] = {program, "--list-devices", NULL};
    struct device_array array = {NULL, 0};
    snprintf(program, sizeof program, "%s/expertd-runtime", machine_programs());
    const int result = ask_runtime(argv, read_array, &array);
    *devices = array.items;
    *count = array.count;
    if (result < 0)
        log_error("the OpenCL devices cannot be listed (%s --list-devices): %s", program, strerror(-result));
    return result;
}

struct measured {
    double gflops;
    uint64_t room;
    bool there;
};

static int read_measured(FILE *in, void *context)
{
    struct measured *measured = context;
    char line[512];
    while (fgets(line, sizeof line, in))
        measured->there |= sscanf(line, "measured: %lf GFLOP/s; room for %" SCNu64 " experts", &measured->gflops,
                                  &measured->room) == 2;
    return 0;
}

int machine_measure(const char *file, const char *device, double *gflops, uint64_t *room)
{
    char program[PATH_MAX + 32];
    const char *const argv[] = {
        program, "--config", file, "--device", device, "--measure", "--server-log-level=warning", NULL};
    struct measured measured = {0};
    snprintf(program, sizeof program, "%s/expertd-runtime", machine_programs());
    const int result = ask_runtime(argv, read_measured, &measured);
    if (result == 0 && !measured.there)
        return -EIO;
    *gflops = measured.gflops;
    *room = measured.room;
    return result;
}
