/* What devices there are, and which of them a configuration names. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/device/device_private.h"

enum { MAX_PLATFORMS = 32, MAX_DEVICES = 64 };

const char *device_class_name(enum device_class class)
{
    static const char *const names[] = {"cpu", "integrated gpu", "gpu", "accelerator"};
    return (unsigned)class < sizeof names / sizeof names[0] ? names[class] : "unknown";
}

static void platform_text(cl_platform_id platform, cl_platform_info what, char *text, size_t size)
{
    if (clGetPlatformInfo(platform, what, size, text, NULL) != CL_SUCCESS)
        snprintf(text, size, "unknown");
    text[size - 1] = '\0';
}

static void device_text(cl_device_id id, cl_device_info what, char *text, size_t size)
{
    if (clGetDeviceInfo(id, what, size, text, NULL) != CL_SUCCESS)
        snprintf(text, size, "unknown");
    text[size - 1] = '\0';
}

static uint64_t device_number(cl_device_id id, cl_device_info what, size_t size)
{
    union {
        cl_uint small;
        cl_ulong large;
        size_t natural;
    } value = {0};
    if (clGetDeviceInfo(id, what, size, &value, NULL) != CL_SUCCESS)
        return 0;
    return size == sizeof(cl_uint) ? value.small : value.large;
}

/* Drivers say it in one of three ways: Khronos' extension, NVIDIA's and AMD's, whose numbers older headers lack. */
static void describe_pci(cl_device_id id, const char *extensions, char pci[16])
{
    enum { KHR_BUS_INFO = 0x410f, NV_BUS = 0x4008, NV_SLOT = 0x4009, NV_DOMAIN = 0x400a, AMD_TOPOLOGY = 0x4037 };
    cl_uint khr[4], bus, slot, domain = 0;
    unsigned char amd[24];
    if (strstr(extensions, "cl_khr_pci_bus_info") &&
        clGetDeviceInfo(id, KHR_BUS_INFO, sizeof khr, khr, NULL) == CL_SUCCESS) {
        snprintf(pci, 16, "%04x:%02x:%02x.%x", khr[0] & 0xffff, khr[1] & 0xff, khr[2] & 0xff, khr[3] & 7);
    } else if (strstr(extensions, "cl_nv_device_attribute_query") &&
               clGetDeviceInfo(id, NV_BUS, sizeof bus, &bus, NULL) == CL_SUCCESS &&
               clGetDeviceInfo(id, NV_SLOT, sizeof slot, &slot, NULL) == CL_SUCCESS) {
        (void)clGetDeviceInfo(id, NV_DOMAIN, sizeof domain, &domain, NULL);
        /* a slot is a device and a function */
        snprintf(pci, 16, "%04x:%02x:%02x.%x", domain & 0xffff, bus & 0xff, slot >> 3 & 31, slot & 7);
    } else if (strstr(extensions, "cl_amd_device_attribute_query") &&
               clGetDeviceInfo(id, AMD_TOPOLOGY, sizeof amd, amd, NULL) == CL_SUCCESS && amd[0] == 1) {
        snprintf(pci, 16, "0000:%02x:%02x.%x", amd[21], amd[22], amd[23] & 7);
    }
}

static void describe(cl_platform_id platform, unsigned platform_index, cl_device_id id, unsigned device_index,
                     struct device_info *info)
{
    char extensions[8192];
    memset(info, 0, sizeof *info);
    platform_text(platform, CL_PLATFORM_NAME, info->platform, sizeof info->platform);
    device_text(id, CL_DEVICE_NAME, info->name, sizeof info->name);
    device_text(id, CL_DEVICE_VENDOR, info->vendor, sizeof info->vendor);
    device_text(id, CL_DRIVER_VERSION, info->driver, sizeof info->driver);
    device_text(id, CL_DEVICE_EXTENSIONS, extensions, sizeof extensions);
    info->platform_index = platform_index;
    info->device_index = device_index;
    info->memory_bytes = device_number(id, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(cl_ulong));
    info->max_allocation_bytes = device_number(id, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof(cl_ulong));
    info->local_memory_bytes = device_number(id, CL_DEVICE_LOCAL_MEM_SIZE, sizeof(cl_ulong));
    info->cache_bytes = device_number(id, CL_DEVICE_GLOBAL_MEM_CACHE_SIZE, sizeof(cl_ulong));
    info->compute_units = (unsigned)device_number(id, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof(cl_uint));
    info->vector_width = (unsigned)device_number(id, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, sizeof(cl_uint));
    info->fp16 = strstr(extensions, "cl_khr_fp16") != NULL;
    describe_pci(id, extensions, info->pci);
    const bool unified = device_number(id, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof(cl_bool)) != 0;
    const cl_device_type type = device_number(id, CL_DEVICE_TYPE, sizeof(cl_device_type));
    if (type & CL_DEVICE_TYPE_CPU)
        info->class = DEVICE_CLASS_CPU;
    else if (type & CL_DEVICE_TYPE_GPU)
        info->class = unified ? DEVICE_CLASS_INTEGRATED : DEVICE_CLASS_GPU;
    else
        info->class = DEVICE_CLASS_ACCELERATOR;
    info->unified_memory = info->class == DEVICE_CLASS_CPU || info->class == DEVICE_CLASS_INTEGRATED;
}

/* Calls visit for each device until it returns non-zero, which is the result. */
static int each_device(int (*visit)(const struct device_info *info, cl_device_id id, void *context), void *context)
{
    cl_platform_id platforms[MAX_PLATFORMS];
    cl_uint platform_count = 0;
    const cl_int error = clGetPlatformIDs(MAX_PLATFORMS, platforms, &platform_count);
    if (error == OPENCL_PLATFORM_NOT_FOUND)
        return 0;
    if (error != CL_SUCCESS) {
        log_error("OpenCL: no list of platforms: %s", opencl_error_name(error));
        return -EIO;
    }
    if (platform_count > MAX_PLATFORMS)
        platform_count = MAX_PLATFORMS;
    for (unsigned p = 0; p < platform_count; p++) {
        cl_device_id ids[MAX_DEVICES];
        cl_uint count = 0;
        if (clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, MAX_DEVICES, ids, &count) != CL_SUCCESS)
            continue; /* a platform without devices says CL_DEVICE_NOT_FOUND */
        if (count > MAX_DEVICES)
            count = MAX_DEVICES;
        for (unsigned d = 0; d < count; d++) {
            struct device_info info;
            describe(platforms[p], p, ids[d], d, &info);
            const int result = visit(&info, ids[d], context);
            if (result != 0)
                return result;
        }
    }
    return 0;
}

struct list {
    struct device_info *items;
    unsigned count;
};

static int append(const struct device_info *info, cl_device_id id, void *context)
{
    struct list *list = context;
    struct device_info *items = realloc(list->items, (list->count + 1) * sizeof *items);
    (void)id;
    if (items == NULL)
        return -ENOMEM;
    list->items = items;
    items[list->count++] = *info;
    return 0;
}

int device_list(struct device_info **items, unsigned *count)
{
    struct list list = {NULL, 0};
    const int result = each_device(append, &list);
    if (result != 0) {
        free(list.items);
        list = (struct list){NULL, 0};
    }
    *items = list.items;
    *count = list.count;
    return result;
}

/* "" matches everything, a number that index, other text a part of the name in any case. */
static bool matches(const char *wanted, unsigned index, const char *name)
{
    if (wanted[0] == '\0')
        return true;
    char *end;
    const unsigned long number = strtoul(wanted, &end, 10);
    if (*end == '\0')
        return number == index;
    return strcasestr(name, wanted) != NULL;
}

struct choice {
    const struct config_device *config;
    struct device_info *info;
    cl_device_id *id;
};

static int choose(const struct device_info *info, cl_device_id id, void *context)
{
    struct choice *choice = context;
    if (!matches(choice->config->platform, info->platform_index, info->platform) ||
        !matches(choice->config->device, info->device_index, info->name))
        return 0;
    *choice->info = *info;
    *choice->id = id;
    return 1;
}

int device_choose(const struct config_device *config, struct device_info *info, cl_device_id *id)
{
    struct choice choice = {config, info, id};
    const int result = each_device(choose, &choice);
    if (result == 1)
        return 0;
    if (result == 0)
        log_error("device %s: no OpenCL device matches platform \"%s\" and device \"%s\"; --list-devices shows what "
                  "there is",
                  config->name, config->platform, config->device);
    return result == 0 ? -ENXIO : result;
}
