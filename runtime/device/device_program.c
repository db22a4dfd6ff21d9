/* The compiled kernels of a device, and the folder where they are kept. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "runtime/device/device_private.h"
#include "runtime/device/program_file.h"

enum { MAX_CACHES = 64 };

/* --- the folder --------------------------------------------------------------------------------------------------- */

static int make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const int made = mkdir(path, 0700);
        *slash = '/';
        if (made != 0 && errno != EEXIST)
            return -errno;
    }
    return mkdir(path, 0700) != 0 && errno != EEXIST ? -errno : 0;
}

/* Locks <path>/lock for the life of the process (the descriptor is left open for that). */
static int lock_folder(const char *path)
{
    char name[DEVICE_PATH_SIZE + 8];
    snprintf(name, sizeof name, "%s/lock", path);
    const int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0; /* cppcheck-suppress resourceLeak */
    const int result = -errno;
    close(fd);
    return result;
}

static void cache_base(const struct config_device *config, char *path, size_t size)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (config->cache_dir[0] != '\0')
        snprintf(path, size, "%s", config->cache_dir);
    else if (xdg != NULL && xdg[0] == '/')
        snprintf(path, size, "%s/expertd", xdg);
    else
        snprintf(path, size, "%s/.cache/expertd", home != NULL && home[0] == '/' ? home : "/tmp");
}

/* Two processes that shared a PoCL cache have crashed: each takes a folder that no other one has locked. */
void device_cache_open(const struct config_device *config, char path[DEVICE_PATH_SIZE])
{
    static char opened[DEVICE_PATH_SIZE]; /* a process has one: PoCL reads the variable once */
    char base[DEVICE_PATH_SIZE / 2];
    int result = -EBUSY;
    if (opened[0] != '\0') {
        memcpy(path, opened, DEVICE_PATH_SIZE);
        return;
    }
    cache_base(config, base, sizeof base);
    for (unsigned i = 0; i < MAX_CACHES && result == -EBUSY; i++) {
        if (i == 0)
            snprintf(path, DEVICE_PATH_SIZE, "%s/%s", base, config->name);
        else
            snprintf(path, DEVICE_PATH_SIZE, "%s/%s.%u", base, config->name, i);
        result = make_folders(path);
        if (result == 0)
            result = lock_folder(path);
        if (result == -EWOULDBLOCK)
            result = -EBUSY;
    }
    if (result != 0) {
        log_warning("device %s: no folder for compiled kernels (%s: %s); they are compiled at every start",
                    config->name, path, strerror(-result));
        path[0] = '\0';
        return;
    }
    memcpy(opened, path, DEVICE_PATH_SIZE);
    setenv("POCL_CACHE_DIR", path, 1);
}

void device_cache_prepare(const struct config_device *config)
{
    char path[DEVICE_PATH_SIZE];
    device_cache_open(config, path);
}

/* --- binaries ----------------------------------------------------------------------------------------------------- */

/* With its zero, so that where one text ends counts. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
    return program_file_hash(hash, text, strlen(text) + 1);
}

uint64_t device_program_hash(const struct device *device, const char *const *texts, unsigned count)
{
    uint64_t hash = hash_text(hash_text(PROGRAM_FILE_HASH, device->info.name), device->info.driver);
    for (unsigned i = 0; i < count; i++)
        hash = hash_text(hash, texts[i]);
    return hash;
}

static bool binary_path(const struct device *device, const char *const *texts, unsigned count, const char *options,
                        char *path, size_t size)
{
    if (device->cache_path[0] == '\0' || !device->keeps_binaries)
        return false;
    uint64_t hash = device_program_hash(device, &options, 1);
    for (unsigned i = 0; i < count; i++)
        hash = hash_text(hash, texts[i]);
    snprintf(path, size, "%s/%016llx.bin", device->cache_path, (unsigned long long)hash);
    return true;
}

static cl_program load_binary(struct device *device, const char *path, const char *options)
{
    unsigned char *bytes;
    size_t length;
    cl_program program = NULL;
    cl_int error = CL_SUCCESS, state;
    const int result = program_file_read(path, &bytes, &length);
    if (result == 0) {
        const unsigned char *binary = bytes;
        program = clCreateProgramWithBinary(device->context, 1, &device->id, &length, &binary, &state, &error);
        if (program != NULL)
            error = clBuildProgram(program, 1, &device->id, options, NULL, NULL);
        if (program != NULL && error != CL_SUCCESS) {
            clReleaseProgram(program);
            program = NULL;
        }
        free(bytes);
    }
    if (program == NULL && result != -ENOENT)
        log_warning("device %s: %s is no use (%s); the kernels are compiled again", device->config->name, path,
                    result != 0 ? strerror(-result) : "the driver refuses it");
    return program;
}

static void save_binary(const struct device *device, cl_program program, const char *path)
{
    size_t length = 0;
    int result = -EIO;
    if (clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof length, &length, NULL) != CL_SUCCESS || length == 0)
        return;
    unsigned char *bytes = malloc(length);
    if (bytes == NULL)
        return;
    if (clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof bytes, &bytes, NULL) == CL_SUCCESS)
        result = program_file_write(path, bytes, length);
    if (result != 0)
        log_warning("device %s: compiled kernels are not kept in %s: %s", device->config->name, path,
                    strerror(-result));
    free(bytes);
}

/* --- building ----------------------------------------------------------------------------------------------------- */

static int build_failed(struct device *device, cl_program program, cl_int error)
{
    char log[2048] = "";
    size_t length = 0;
    clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log, &length);
    log[sizeof log - 1] = '\0';
    log_error("device %s: its compiler says: %s", device->config->name, length > sizeof log - 1 ? "(too much)" : log);
    return device_fail(device, error, "building the kernels");
}

int device_program_compile(struct device *device, const char **texts, unsigned count, const char *options,
                           cl_program *program)
{
    char path[DEVICE_PATH_SIZE + 32];
    const bool cached = binary_path(device, texts, count, options, path, sizeof path);
    cl_int error;
    *program = NULL;
    if (cached)
        *program = load_binary(device, path, options);
    if (*program != NULL)
        return 0;
    *program = clCreateProgramWithSource(device->context, count, texts, NULL, &error);
    if (*program == NULL)
        return device_fail(device, error, "clCreateProgramWithSource");
    error = clBuildProgram(*program, 1, &device->id, options, NULL, NULL);
    if (error != CL_SUCCESS) {
        const int result = build_failed(device, *program, error);
        clReleaseProgram(*program);
        *program = NULL;
        return result;
    }
    if (cached)
        save_binary(device, *program, path);
    return 0;
}
