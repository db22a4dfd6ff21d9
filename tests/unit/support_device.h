/* For tests of what runs on an OpenCL device: a device that keeps its compiled kernels between runs, and experts on it.
 */
#ifndef EXPERTD_TESTS_SUPPORT_DEVICE_H
#define EXPERTD_TESTS_SUPPORT_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "runtime/device/device.h"
#include "runtime/blocks/expert.h"

struct support_device {
    struct config config;
    struct device *device;
};

/* The cache_dir for a device "device0" of tests, with what is compiled already (tests/cache). */
const char *support_device_cache(void);
/* Opens the first OpenCL device with the kernels "cpu", "gpu", ... The tests fail if there is none. `staged`: as if the
 * device had memory of its own. `expert` is an entry of the list `experts` without its braces, "hidden_dim: 64, ...";
 * `device` more options of the device, or "". */
void support_device_open(struct support_device *support, const char *kernel, bool staged, const char *device,
                         const char *expert);
/* Builds the CPU kernels again as for a device with narrower vectors: 8 floats (AVX2) or 4 (SSE, NEON). */
void support_device_narrow(struct support_device *support, unsigned vector_width);
/* Builds the kernels "amx" again so that matrix units are emulated, whether the machine has them or not. */
void support_device_emulate(struct support_device *support);
void support_device_close(struct support_device *support);
/* Whether the kernels "clblast" are to be had: built in, and the library is there. If not, it says so. */
bool support_device_has_clblast(void);

/* An expert of the configuration's entry, from seed 1, with a LayerNorm that is not just 1 and 0. */
struct expert *support_expert(struct support_device *support);

/* A slab of `floats`, page-aligned, filled with NaN so that a row that should not be touched shows. */
struct device_slab support_slab(size_t floats);
void support_slab_free(struct device_slab *slab);

/* Matrices of weights as they lie on the device: the values as floats, or rounded to halves. malloc'd; *bytes of all.
 */
void *support_weights(const struct device *device, const float *values, size_t count, size_t *bytes);

/* values[i] = scale * parameters_random(seed, 1000 + stream, i): what tests/fixtures/make_fixtures.py has, too. */
void support_random(float *values, size_t count, unsigned stream, float scale);

/* Greatest difference over the greatest magnitude of the expected ones. NaN anywhere is infinity. */
double support_error(const float *values, const float *expected, size_t count);

#endif
