#include "common/memory.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_SIZE = 4096 };

/* The number that the file holds; UINT64_MAX for "max", and when there is none. */
static uint64_t read_bytes(const char *path)
{
    uint64_t value = UINT64_MAX;
    FILE *file = fopen(path, "re");
    if (!file)
        return value;
    if (fscanf(file, "%" SCNu64, &value) != 1)
        value = UINT64_MAX;
    fclose(file);
    return value;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The least limit of the group and of all above it, as far as they are seen from here. */
static uint64_t group_limit(const char *root, const char *mount, const char *group, const char *name)
{
    char folder[LINE_SIZE], path[LINE_SIZE + 512];
    uint64_t limit = UINT64_MAX;
    snprintf(folder, sizeof folder, "%s", group);
    for (;;) {
        const int n = snprintf(path, sizeof path, "%s%s%s/%s", root, mount, folder, name);
        if (n > 0 && (size_t)n < sizeof path)
            limit = least(limit, read_bytes(path));
        char *slash = strrchr(folder, '/');
        if (!slash)
            return limit;
        *slash = 0;
    }
}

/* Lines of /proc/self/cgroup: "0::/group" (v2), "9:memory:/group" (v1). */
static uint64_t groups_limit(const char *root)
{
    char path[512], line[LINE_SIZE];
    uint64_t limit = UINT64_MAX;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    if (!file)
        return limit;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = 0;
        if (controllers[1] == 0)
            limit = least(limit, group_limit(root, "/sys/fs/cgroup", group, "memory.max"));
        else if (strstr(controllers, "memory"))
            limit = least(limit, group_limit(root, "/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"));
    }
    fclose(file);
    return limit;
}

uint64_t memory_limit(const char *root)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    const uint64_t machine = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;
    const uint64_t limit = least(groups_limit(root), machine);
    return limit ? limit : 1;
}

uint64_t memory_own(void)
{
    uint64_t total = 0, resident = 0, shared = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    const int n = fscanf(file, "%" SCNu64 " %" SCNu64 " %" SCNu64, &total, &resident, &shared);
    fclose(file);
    return n == 3 && resident > shared ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}
