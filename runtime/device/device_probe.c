/* Drivers are tried in child processes: one that ends its process ends no server. To load them twice takes a start
 * half a second, so the device's folder says which ones came through; a start that ends on the way empties it
 * (device_cache_begin), and the next one tries them again. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/process.h"
#include "runtime/device/device_private.h"
#include "runtime/device/program_file.h"

enum { SURVIVED = 42, MAX_DRIVERS = 64, DRIVER_NAME_SIZE = 256, FOLDER_SIZE = 64 };

/* Longer than any driver takes to list its devices, on a machine that is busy. */
static const uint64_t longest_ns = 120 * NS_PER_S;

/* The child: as the parent would, but silently, and without a core to be left behind. */
static void list_and_exit(const char *vendors)
{
    const struct rlimit none = {0, 0};
    struct device_info *list = NULL;
    unsigned count = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)close_range(STDERR_FILENO + 1, ~0U, 0); /* the locks are the parent's */
    setrlimit(RLIMIT_CORE, &none);
    if (vendors != NULL)
        setenv("OCL_ICD_VENDORS", vendors, 1);
    if (freopen("/dev/null", "w", stderr) == NULL || freopen("/dev/null", "w", stdout) == NULL)
        _exit(EXIT_FAILURE);
    (void)device_list(&list, &count); /* that there is none is no crash */
    _exit(SURVIVED);
}

/* 1: it survives; 0: it does not; -EINTR; or another -errno: nobody knows. */
static int survives(const char *vendors)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    const uint64_t end_ns = clock_now_ns() + longest_ns;
    int status;
    const pid_t child = fork();
    if (child < 0)
        return -errno;
    if (child == 0)
        list_and_exit(vendors);
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (process_stopping() || clock_now_ns() >= end_ns) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            return process_stopping() ? -EINTR : 0;
        }
        nanosleep(&pause, NULL);
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == SURVIVED;
}

/* --- which one it is: the loader reads one file for each driver --------------------------------------------------- */

struct drivers {
    const char *folder; /* that the loader would look into */
    char names[MAX_DRIVERS][DRIVER_NAME_SIZE];
    unsigned count;
};

static void find_drivers(struct drivers *drivers)
{
    const char *vendors = getenv("OCL_ICD_VENDORS");
    struct stat found;
    drivers->folder =
        vendors != NULL && stat(vendors, &found) == 0 && S_ISDIR(found.st_mode) ? vendors : "/etc/OpenCL/vendors";
    DIR *folder = opendir(drivers->folder);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        const size_t length = strlen(entry->d_name);
        if (length > 4 && length < DRIVER_NAME_SIZE && strcmp(entry->d_name + length - 4, ".icd") == 0 &&
            drivers->count < MAX_DRIVERS)
            memcpy(drivers->names[drivers->count++], entry->d_name, length + 1);
    }
    if (folder != NULL)
        closedir(folder);
}

static void path_of(char *path, size_t size, const char *folder, const char *name)
{
    snprintf(path, size, "%s/%s", folder, name);
}

/* A driver's file, or its link in a folder of ours. */
static int link_driver(const struct drivers *drivers, unsigned which, const char *folder)
{
    char from[PATH_MAX], to[FOLDER_SIZE + DRIVER_NAME_SIZE];
    char *absolute = realpath(drivers->folder, NULL);
    path_of(from, sizeof from, absolute != NULL ? absolute : drivers->folder, drivers->names[which]);
    path_of(to, sizeof to, folder, drivers->names[which]);
    free(absolute);
    return symlink(from, to) == 0 ? 0 : -errno;
}

static void unlink_driver(const struct drivers *drivers, unsigned which, const char *folder)
{
    char path[FOLDER_SIZE + DRIVER_NAME_SIZE];
    path_of(path, sizeof path, folder, drivers->names[which]);
    unlink(path);
}

/* Tries each alone, in a folder that then holds the good ones. */
static int sort_out(const struct drivers *drivers, const char *folder, bool good[MAX_DRIVERS])
{
    int result = 0;
    for (unsigned i = 0; i < drivers->count && result >= 0; i++) {
        result = link_driver(drivers, i, folder);
        if (result == 0)
            result = survives(folder);
        good[i] = result == 1;
        unlink_driver(drivers, i, folder);
        if (result == 0)
            log_error(
                "the OpenCL driver of %s/%s ends a process that lists its devices, and is left out: reinstall it, "
                "or remove that file",
                drivers->folder, drivers->names[i]);
    }
    for (unsigned i = 0; i < drivers->count && result >= 0; i++)
        if (good[i])
            result = link_driver(drivers, i, folder) < 0 ? -EIO : 1;
    return result < 0 ? result : 0;
}

/* The loader reads the folder once, at the first call. */
static void load_good_ones(const char *folder)
{
    cl_uint count = 0;
    setenv("OCL_ICD_VENDORS", folder, 1);
    (void)clGetPlatformIDs(0, NULL, &count);
}

/* --- those that came through -------------------------------------------------------------------------------------- */

static uint64_t mix_file(uint64_t hash, const char *path)
{
    struct stat found;
    if (stat(path, &found) != 0)
        return program_file_hash(hash, "", 1);
    const int64_t facts[] = {(int64_t)found.st_ino, found.st_size, found.st_mtim.tv_sec, found.st_mtim.tv_nsec};
    return program_file_hash(program_file_hash(hash, path, strlen(path) + 1), facts, sizeof facts);
}

/* The driver's file, and the library that it names, where that is a path. Others are found by the linker's cache. */
static uint64_t driver_print(const char *path)
{
    char library[PATH_MAX] = "";
    FILE *file = fopen(path, "re");
    if (file != NULL && fgets(library, sizeof library, file) != NULL)
        library[strcspn(library, "\r\n")] = '\0';
    if (file != NULL)
        fclose(file);
    const uint64_t hash = mix_file(PROGRAM_FILE_HASH, path);
    return library[0] == '/' ? mix_file(hash, library) : program_file_hash(hash, library, strlen(library));
}

/* The files of a list, which may be of any length. */
static uint64_t mix_listed(uint64_t hash, const char *list)
{
    char path[PATH_MAX];
    for (const char *at = list; at != NULL && *at != '\0';) {
        const size_t length = strcspn(at, ":");
        snprintf(path, sizeof path, "%.*s", (int)(length < sizeof path ? length : sizeof path - 1), at);
        if (path[0] == '/')
            hash = mix_file(hash, path);
        at += length + (at[length] == ':');
    }
    return hash;
}

/* Changes with the drivers that there are, where they come from, and the start of the machine. */
static uint64_t fingerprint(const struct drivers *drivers)
{
    static const char *const variables[] = {"OCL_ICD_VENDORS",   "OCL_ICD_FILENAMES", "OCL_ICD_LAYERS", "OPENCL_LAYERS",
                                            "OPENCL_LAYER_PATH", "LD_LIBRARY_PATH",   "LD_PRELOAD",     "POCL_DEVICES"};
    uint64_t hash = mix_file(PROGRAM_FILE_HASH, "/etc/ld.so.cache"), sum = 0;
    char text[PATH_MAX];
    for (unsigned i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        const char *value = getenv(variables[i]);
        hash = program_file_hash(hash, value != NULL ? value : "", value != NULL ? strlen(value) + 1 : 1);
    }
    hash = mix_listed(hash, getenv("OCL_ICD_VENDORS")); /* it may be a driver's file, too */
    hash = mix_listed(hash, getenv("OCL_ICD_FILENAMES"));
    hash = mix_listed(hash, getenv("OPENCL_LAYERS"));
    FILE *boot = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (boot != NULL && fgets(text, sizeof text, boot) != NULL)
        hash = program_file_hash(hash, text, strlen(text));
    if (boot != NULL)
        fclose(boot);
    for (unsigned i = 0; i < drivers->count; i++) { /* in whatever order they were found */
        path_of(text, sizeof text, drivers->folder, drivers->names[i]);
        sum += driver_print(text);
    }
    return program_file_hash(hash, &sum, sizeof sum);
}

int device_probe(void)
{
    struct drivers drivers = {0};
    bool good[MAX_DRIVERS] = {false};
    char folder[FOLDER_SIZE] = "/tmp/expertd-drivers.XXXXXX";
    find_drivers(&drivers);
    const uint64_t print = fingerprint(&drivers);
    if (device_cache_knows_drivers(print))
        return 0;
    int result = survives(NULL);
    if (result == 1)
        device_cache_note_drivers(print);
    if (result != 0)
        return result == -EINTR ? -EINTR : 0;
    if (mkdtemp(folder) == NULL) {
        log_error("an OpenCL driver ends a process that lists devices, and which one cannot be tried: no folder %s: %s",
                  folder, strerror(errno));
        return -EIO;
    }
    result = sort_out(&drivers, folder, good);
    if (result == 0)
        load_good_ones(folder);
    for (unsigned i = 0; i < drivers.count; i++)
        unlink_driver(&drivers, i, folder);
    rmdir(folder);
    return result;
}
