#include "command/machine.h"

#include <errno.h>
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

/* "platform 0 'NAME' device 1 'NAME': gpu of ..." */
bool machine_parse_device(const char *line, struct options_device *device)
{
    static const char between[] = "' device ";
    if (sscanf(line, "platform %u '", &device->platform) != 1)
        return false;
    const char *at = strstr(line, between);
    if (!at || sscanf(at + strlen(between), "%u '", &device->device) != 1)
        return false;
    at = strstr(at + strlen(between), "': ");
    device->gpu = at && (strncmp(at + 3, "gpu ", 4) == 0 || strncmp(at + 3, "integrated ", 11) == 0);
    device->cpu = at && strncmp(at + 3, "cpu ", 4) == 0;
    return at != NULL;
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

int machine_devices(struct options_device **devices, unsigned *count)
{
    char program[PATH_MAX + 32];
    int ends[2], status = 0;
    *devices = NULL;
    *count = 0;
    snprintf(program, sizeof program, "%s/expertd-runtime", machine_programs());
    if (pipe(ends) != 0)
        return -errno;
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, "--list-devices", (char *)NULL);
        log_error("cannot start %s: %s", program, strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    FILE *in = child > 0 ? fdopen(ends[0], "r") : NULL;
    int result = in ? read_devices(in, devices, count) : -errno;
    if (in)
        fclose(in);
    else
        close(ends[0]);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (result == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        result = -EIO;
    if (result < 0)
        log_error("the OpenCL devices cannot be listed (%s --list-devices): %s", program, strerror(-result));
    return result;
}
