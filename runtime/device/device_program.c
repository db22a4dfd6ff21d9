/* The compiled kernels of a device. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/device/device_private.h"
#include "runtime/device/program_file.h"

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
