#include "http/usage.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COMM_SIZE = 16 }; /* the system keeps so much of a program's name, with the NUL */

/* The file's beginning, NUL-terminated; false: it cannot be read. */
static bool read_text(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    const size_t length = fread(text, 1, size - 1, file);
    fclose(file);
    text[length] = 0;
    return length > 0;
}

/* When this host was started, in s since 1970; NaN: it does not say. */
static double boot_seconds(void)
{
    char line[256];
    double seconds = NAN;
    FILE *file = fopen("/proc/stat", "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "btime ", 6) == 0)
            seconds = strtod(line + 6, NULL);
    if (file)
        fclose(file);
    return seconds;
}

static double count_fds(long pid)
{
    char path[64];
    double count = 0;
    snprintf(path, sizeof path, "/proc/%ld/fd", pid);
    DIR *folder = opendir(path);
    if (!folder)
        return NAN;
    const struct dirent *entry;
    while ((entry = readdir(folder)))
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

/* proc(5): the name is in brackets, and may hold any character; the third field follows. */
static bool parse(struct usage *usage, const char *text, const char *program)
{
    char wanted[COMM_SIZE];
    unsigned long long user, system, start, bytes;
    long threads, pages;
    snprintf(wanted, sizeof wanted, "%s", program);
    const char *name = strchr(text, '('), *end = strrchr(text, ')');
    if (!name || !end || end < name || (size_t)(end - name - 1) != strlen(wanted) ||
        memcmp(name + 1, wanted, strlen(wanted)) != 0)
        return false;
    if (sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %ld %*d %llu %llu %ld",
               &user, &system, &threads, &start, &bytes, &pages) != 6)
        return false;
    const double ticks = (double)sysconf(_SC_CLK_TCK);
    *usage = (struct usage){
        .cpu_seconds = (double)(user + system) / ticks,
        .start_time_seconds = boot_seconds() + (double)start / ticks,
        .virtual_bytes = bytes,
        .resident_bytes = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE),
        .threads = (double)threads,
    };
    return true;
}

bool usage_read(struct usage *usage, long pid, const char *program)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    if (pid <= 0 || !read_text(path, text, sizeof text) || !parse(usage, text, program))
        return false;
    usage->open_fds = count_fds(pid);
    return true;
}
