/* The compiled kernels of own experts. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/blocks/own_expert.h"
#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/kernel_program.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"

enum { MAX_KERNELS = 32, MAX_SOURCE_BYTES = 16 << 20 };

struct own_kernel {
    char name[64];
    cl_kernel object;
};

struct own_program {
    struct own_program *next;
    struct device *device;
    char path[PATH_MAX];
    cl_program program;
    struct own_kernel kernels[MAX_KERNELS]; /* those that were launched; the first one without a name ends */
};

/* Who counts on a device's programs. */
struct own_users {
    struct own_users *next;
    const struct device *device;
    unsigned count;
};

/* Of the one thread that uses the device. */
static struct own_program *programs;
static struct own_users *users;

static int find_path(const struct own_expert *own, const char *file, char path[PATH_MAX])
{
    Dl_info object;
    if (dladdr(own, &object) == 0 || !object.dli_fname)
        return -EINVAL;
    const char *slash = strrchr(object.dli_fname, '/');
    const int folder_length = slash ? (int)(slash - object.dli_fname) : 1;
    const int n = snprintf(path, PATH_MAX, "%.*s/%s", folder_length, slash ? object.dli_fname : ".", file);
    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* malloc'd; NULL with errno. */
static char *read_text(const char *path)
{
    FILE *file = fopen(path, "re");
    char *text = NULL;
    if (!file)
        return NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        const long length = ftell(file);
        rewind(file);
        if (length >= 0 && length <= MAX_SOURCE_BYTES)
            text = calloc(1, (size_t)length + 1);
        if (text && fread(text, 1, (size_t)length, file) != (size_t)length) {
            free(text);
            text = NULL;
            errno = EIO;
        }
    }
    fclose(file);
    return text;
}

static int compile(struct own_program *program)
{
    struct device *device = program->device;
    const struct kernel_shape *shape = provider_shape(device);
    char options[64], log[2048] = "";
    if (shape->panel == 0)
        return device_complain(device, -EINVAL,
                               "'%s': an expert of one's own has its parameters in panels, and linear_kernel clblast "
                               "knows none: choose another",
                               program->path);
    char *text = read_text(program->path);
    cl_int error = CL_SUCCESS;
    if (!text)
        return device_complain(device, -EINVAL, "cannot read the kernels '%s': %s", program->path, strerror(errno));
    const char *source = text;
    program->program = clCreateProgramWithSource(device->context, 1, &source, NULL, &error);
    free(text);
    if (!program->program)
        return device_fail(device, error, "clCreateProgramWithSource");
    snprintf(options, sizeof options, "-DVEC=%u -DPANEL=%u%s", shape->vec, shape->panel,
             kernel_program_weights(device));
    error = clBuildProgram(program->program, 1, &device->id, options, NULL, NULL);
    if (error == CL_SUCCESS)
        return 0;
    clGetProgramBuildInfo(program->program, device->id, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log, NULL);
    log_error("'%s': the compiler says: %s", program->path, log);
    return device_fail(device, error, program->path);
}

static void close_program(struct own_program *program)
{
    struct own_program **link = &programs;
    while (*link != program)
        link = &(*link)->next;
    *link = program->next;
    for (unsigned i = 0; i < MAX_KERNELS && program->kernels[i].object; i++)
        clReleaseKernel(program->kernels[i].object);
    if (program->program)
        clReleaseProgram(program->program);
    free(program);
}

static int find_program(struct own_program **found, struct device *device, const struct own_expert *own,
                        const char *file)
{
    char path[PATH_MAX];
    int rc = find_path(own, file, path);
    if (rc < 0)
        return device_complain(device, rc, "cannot tell where the kernels '%s' are", file);
    for (*found = programs; *found != NULL; *found = (*found)->next) {
        if ((*found)->device == device && strcmp((*found)->path, path) == 0)
            return 0;
    }
    struct own_program *program = *found = calloc(1, sizeof *program);
    if (!program)
        return -ENOMEM;
    program->device = device;
    memcpy(program->path, path, sizeof path);
    program->next = programs;
    programs = program;
    rc = compile(program);
    if (rc < 0)
        close_program(program);
    return rc;
}

static int launch(struct own_program *program, const char *kernel, const struct kernel_grid *grid,
                  const struct kernel_argument *arguments, unsigned count)
{
    unsigned i = 0;
    while (i < MAX_KERNELS && program->kernels[i].object && strcmp(program->kernels[i].name, kernel) != 0)
        i++;
    if (i == MAX_KERNELS || strlen(kernel) >= sizeof program->kernels[i].name)
        return device_complain(program->device, -EINVAL, "kernel '%s': a name too long, or one too many", kernel);
    struct own_kernel *found = &program->kernels[i];
    if (!found->object) {
        cl_int error;
        found->object = clCreateKernel(program->program, kernel, &error);
        if (!found->object)
            return device_fail(program->device, error, kernel);
        memcpy(found->name, kernel, strlen(kernel) + 1);
    }
    return kernel_launch_object(program->device, found->object, kernel, grid, arguments, count);
}

int own_kernel_launch(struct device *device, const struct own_expert *own, const char *file, const char *kernel,
                      const struct kernel_grid *grid, const struct kernel_argument *arguments, unsigned count)
{
    struct own_program *program = NULL;
    const int rc = find_program(&program, device, own, file);
    return rc == 0 && program ? launch(program, kernel, grid, arguments, count) : rc;
}

static struct own_users **users_of(const struct device *device)
{
    struct own_users **link = &users;
    while (*link != NULL && (*link)->device != device)
        link = &(*link)->next;
    return link;
}

void own_programs_use(struct device *device)
{
    struct own_users **link = users_of(device);
    if (*link == NULL && (*link = calloc(1, sizeof **link)) != NULL)
        (*link)->device = device;
    if (*link != NULL)
        (*link)->count++;
}

void own_programs_drop(struct device *device)
{
    struct own_users **link = users_of(device), *found = *link;
    if (found == NULL || --found->count > 0)
        return;
    *link = found->next;
    free(found);
    for (struct own_program *program = programs, *next; program != NULL; program = next) {
        next = program->next;
        if (program->device == device)
            close_program(program);
    }
}
