/* The device's floors: multiply-add peak (and, where the precision is tf32 or fp16, that of the matrix units) and
 * memory bandwidth, each the best of the passes that fit the time.
 *
 *     build/bench/peak [--seconds 0.3] [--device OPTIONS] [--json]
 *
 * OPTIONS are those of an entry of the configuration's `devices`: "platform: nvidia, precision: tf32". */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/support_peak.h"
#include "runtime/compute/compute.h"
#include "runtime/compute/provider.h"
#include "common/clock.h"
#include "common/config.h"
#include "runtime/device/device.h"

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
                                          {"device", 1, NULL, 'd'},
                                          {"json", 0, NULL, 'j'},
                                          {"help", 0, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    double seconds = 0.3;
    const char *options = "linear_kernel: auto";
    bool json = false;
    int flag;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        if (flag == 's') {
            seconds = atof(optarg);
        } else if (flag == 'd') {
            options = optarg;
        } else if (flag == 'j') {
            json = true;
        } else {
            puts("peak [--seconds S] [--device \"platform: nvidia, precision: tf32\"] [--json]");
            return flag == 'h' ? 0 : 2;
        }
    }
    struct config config;
    char text[1024];
    const int length = snprintf(text, sizeof text, "devices: [{name: bench, %s}]\n", options);
    if (length < 0 || length >= (int)sizeof text || config_parse(&config, text, (size_t)length, "peak") < 0)
        return 1;
    struct device *device;
    struct peak *peak = NULL;
    if (device_open(&device, &config.devices[0]) < 0)
        return 1;
    const int rc = compute_open(device) < 0 ? -1 : peak_open(&peak, device);
    if (rc == 0) {
        const double fma = best_of(peak, peak_fma, seconds), read = best_of(peak, peak_read, seconds);
        const double mma = peak_mma(peak) > 0 ? best_of(peak, peak_mma, seconds) : 0;
        printf(json ? "{\"device\": \"%s\", \"class\": \"%s\", \"kernels\": \"%s\", \"fma_gflops\": %.2f, "
                      "\"mma_gflops\": %.2f, "
                      "\"read_gbytes\": %.2f}\n"
                    : "%s (%s), %s kernels: %.1f GFLOP/s of multiply-adds, %.1f by matrix units, %.1f GB/s read\n",
               device_info(device)->name, device_class_name(device_info(device)->class), provider_name(device), fma,
               mma, read);
    }
    peak_close(&peak);
    compute_close(device);
    device_destroy(&device);
    config_destroy(&config);
    return rc == 0 ? 0 : 1;
}
