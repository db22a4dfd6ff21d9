/* expertd-runtime: serves the experts of one device. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/config_cut.h"
#include "common/device_loss.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/process.h"
#include "runtime/device/device.h"
#include "runtime/measure.h"
#include "runtime/runtime.h"

enum { EXIT_START = 1, EXIT_USAGE = 2, EXIT_DEVICE_LOST = 3, EXIT_UNSAVED = 4, LEAST_FILES = 48 };

static const char *flag_device, *flag_list_devices, *flag_measure;

static const struct config_flag flags[] = {
    {"device", "NAME", "which of the configuration's devices to serve; default the first", &flag_device},
    {"list-devices", NULL, "print the OpenCL devices of this machine and exit", &flag_list_devices},
    {"measure", NULL,
     "print how fast the device makes products, and how many experts like the first of its entry fit, and exit",
     &flag_measure},
    {NULL, NULL, NULL, NULL},
};
static const char *const sections[] = {"server", "devices", "experts", "checkpoint", NULL};
static const struct config_program program = {
    .name = "expertd-runtime",
    .purpose =
        "Serves the experts of one device: takes batches from their task pools, computes them with OpenCL, and "
        "trains the experts. Exit status: 0 after a stop signal, 1 when it cannot start or go on, 2 for a wrong "
        "flag or configuration, 3 when the device is lost, 4 when it ended and what the experts had learned could "
        "not be saved.",
    .sections = sections,
    .flags = flags,
};

/* One line per device, its numbers as devices[].platform and devices[].device take them. */
static int list_devices(const struct config_device *entry)
{
    struct device_info *list = NULL;
    unsigned count = 0;
    device_cache_prepare(entry);
    int rc = device_probe();
    if (rc == 0)
        rc = device_list(&list, &count);
    if (rc < 0) {
        log_error("cannot list the OpenCL devices: %s", strerror(-rc));
        return EXIT_START;
    }
    if (count == 0)
        printf("no OpenCL device is there; Debian's package pocl-opencl-icd makes the CPU one\n");
    for (unsigned i = 0; i < count; i++)
        printf("platform %u '%s' device %u '%s': %s of %s, %" PRIu64 " MiB, %u compute units, vectors of %u floats, "
               "fp16 %s, memory %s%s%s\n",
               list[i].platform_index, list[i].platform, list[i].device_index, list[i].name,
               device_class_name(list[i].class), list[i].vendor, list[i].memory_bytes >> 20, list[i].compute_units,
               list[i].vector_width, list[i].fp16 ? "yes" : "no",
               list[i].unified_memory ? "shared with the host (integrated)" : "of its own",
               list[i].pci[0] ? ", PCI " : "", list[i].pci);
    free(list);
    return EXIT_SUCCESS;
}

static int serve(const struct config *config, const struct config_device *device)
{
    struct runtime *runtime;
    notify_open();
    int rc = process_need_files(LEAST_FILES); /* checkpoints and new pools need some, and the driver its own */
    if (rc < 0)
        return EXIT_START;
    rc = runtime_create(&runtime, config, device);
    if (rc == -EINTR)
        return EXIT_SUCCESS;
    if (rc == -ENODEV || rc == -ENXIO)
        device_loss_note(config->server.run_dir, config->server.name, device->name);
    if (rc < 0)
        return rc == -ENODEV ? EXIT_DEVICE_LOST : EXIT_START;
    notify_ready("serves device %s", device->name);
    const int served = runtime_serve(runtime);
    notify_stopping();
    /* What was learned is saved, however it ended. */
    rc = served == -ENODEV ? served : runtime_stop(runtime);
    if (rc == -ENODEV) {
        runtime_report_lost(runtime);
        device_loss_note(config->server.run_dir, config->server.name, device->name);
        log_error("device '%s' is lost: start this program again when it is back; what is queued stays so",
                  device->name);
    } else {
        log_info("stopped");
    }
    runtime_destroy(&runtime);
    if (rc == -ENODEV)
        return EXIT_DEVICE_LOST;
    if (rc < 0)
        return EXIT_UNSAVED;
    return served == 0 ? EXIT_SUCCESS : EXIT_START;
}

int main(int argc, char **argv)
{
    struct config whole, cut = {0};
    const struct config *config = &whole;
    if (config_load(&whole, &program, argc, argv) < 0)
        return EXIT_USAGE;
    int status = EXIT_USAGE;
    const struct config_device *device = config_find_device(&whole, flag_device ? flag_device : "");
    if (device && config_cut_device(&config, &cut, &whole, device->name) < 0) {
        config_destroy(&whole);
        return EXIT_START;
    }
    if (device)
        device = config_find_device(config, device->name);
    if (!device)
        log_error("the configuration has no device '%s' (--device)", flag_device);
    else if (process_init(program.name) < 0 || process_take_signals() < 0)
        status = EXIT_START;
    else if (flag_list_devices)
        status = list_devices(device);
    else if (flag_measure)
        status = measure_device(config, device) == 0 ? EXIT_SUCCESS : EXIT_START;
    else
        status = serve(config, device);
    config_destroy(&cut);
    config_destroy(&whole);
    return status;
}
