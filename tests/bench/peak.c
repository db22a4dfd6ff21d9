/* The device's floors: multiply-add peak and memory bandwidth, each the best of the passes that fit the time.
 *
 *     build/bench/peak [--seconds 0.3] [--kernel auto|cpu|gpu] [--json] */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/support_peak.h"
#include "common/clock.h"
#include "common/config.h"
#include "runtime/device.h"

static double best_of(struct peak *peak, double (*pass)(struct peak *), double seconds)
{
    const uint64_t end_ns = clock_now_ns() + (uint64_t)(seconds * 1e9);
    double best = pass(peak); /* the first one compiles */
    do {
        const double value = pass(peak);
        best = value > best ? value : best;
    } while (clock_now_ns() < end_ns);
    return best;
}

int main(int argc, char **argv)
{
    static const struct option flags[] = {{"seconds", 1, NULL, 's'},
                                          {"kernel", 1, NULL, 'k'},
                                          {"json", 0, NULL, 'j'},
                                          {"help", 0, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    double seconds = 0.3;
    const char *kernel = "auto";
    bool json = false;
    int flag;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        if (flag == 's') {
            seconds = atof(optarg);
        } else if (flag == 'k') {
            kernel = optarg;
        } else if (flag == 'j') {
            json = true;
        } else {
            puts("peak [--seconds S] [--kernel auto|cpu|gpu] [--json]");
            return flag == 'h' ? 0 : 2;
        }
    }
    struct config config;
    static const char text[] = "devices: [{name: bench}]\n";
    if (config_parse(&config, text, sizeof text - 1, "peak") < 0)
        return 1;
    config.devices[0].linear_kernel = kernel;
    struct device *device;
    struct peak *peak = NULL;
    if (device_open(&device, &config.devices[0]) < 0)
        return 1;
    const int rc = peak_open(&peak, device);
    if (rc == 0) {
        const double fma = best_of(peak, peak_fma, seconds), read = best_of(peak, peak_read, seconds);
        printf(json ? "{\"device\": \"%s\", \"fma_gflops\": %.2f, \"read_gbytes\": %.2f}\n"
                    : "%s: %.1f GFLOP/s of multiply-adds, %.1f GB/s read\n",
               device_info(device)->name, fma, read);
    }
    peak_close(&peak);
    device_destroy(&device);
    config_destroy(&config);
    return rc == 0 ? 0 : 1;
}
